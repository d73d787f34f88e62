//! What every backend has to do right, case by case, against the processor in `f64`.
//!
//! A case is a value: a group, a name, the types it runs in, and what it computes from numbers that are drawn on the
//! host. It runs on the device under test, twice with the same bits, and on the reference: the processor without
//! its fused kernels, in `f64`, on the same numbers, rounded as the device got them. How far the two may be apart is in one table by class of
//! operation and type ([`Class`]); what differs by design is listed with its reason, and has to ([`EXPECTED`]).
//!
//! * operations: `elementwise`, `reduce`, `products`, `moving`, `random`, `special`, `fused`, `sequences`; where results
//!   go: `places`; memory: `buffers`; refusals: `errors`;
//! * networks, with their gradients: `cells`, `drivers`, `dropout`, `memory`, `losses`, `optimizers`.

mod buffers;
mod case;
mod cells;
mod compare;
mod draw;
mod drivers;
mod dropout;
mod elementwise;
mod errors;
mod expected;
mod fused;
mod losses;
mod memory;
mod model;
mod moving;
mod operation;
mod optimizers;
mod places;
mod products;
mod random;
mod reduce;
mod report;
mod sequences;
mod special;
mod tolerance;

use backend_api::{DType, Error, Result};

pub use case::Case;
pub use expected::{EXPECTED, Expected};
pub use report::{Outcome, Report, Summary};
pub use tolerance::Class;

use case::Setting;
use draw::Draw;

use crate::devices::{NAMES, TestDevice, device};

/// All cases.
pub fn cases() -> Vec<Case> {
    [
        elementwise::cases,
        reduce::cases,
        products::cases,
        moving::cases,
        random::cases,
        special::cases,
        fused::cases,
        sequences::cases,
        places::cases,
        buffers::cases,
        errors::cases,
        cells::cases,
        drivers::cases,
        dropout::cases,
        memory::cases,
        losses::cases,
        optimizers::cases,
    ]
    .iter()
    .flat_map(|cases| cases())
    .collect()
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The backends, by their names; all that are there if none is named.
    pub backends: Vec<String>,
    /// How many different draws of the numbers.
    pub seeds: u64,
    /// Only cases whose group and name contain this.
    pub filter: String,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            backends: Vec::new(),
            seeds: 1,
            filter: String::new(),
        }
    }
}

/// Runs cases on backends; `tell` hears of what ends otherwise than it should, as it does.
///
/// # Errors
/// A backend that was named is not there, or no case is asked for.
pub fn run(
    request: &Request,
    cases: &[Case],
    expected: &[Expected],
    tell: &mut dyn FnMut(&str),
) -> Result<Report> {
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|c| c.id().contains(&request.filter))
        .collect();
    if chosen.is_empty() {
        let problem = format!("`{}` is in the name of no case", request.filter);
        return Err(Error::argument("conformance", "filter", problem));
    }
    // Without fused kernels, so that those of the processor are tested too.
    let reference = device("cpu-unfused")?;
    let mut report = Report::default();
    let all = NAMES.map(str::to_owned);
    let backends = match request.backends.as_slice() {
        [] => &all[..],
        named => named,
    };
    for backend in backends {
        let device = match device(backend) {
            Err(error @ Error::Unavailable { .. }) if request.backends.is_empty() => {
                report.absent(backend, &error);
                continue;
            }
            device => device?,
        };
        for case in &chosen {
            for &dtype in case.dtypes {
                for seed in 0..request.seeds {
                    let result = check(case, &device, &reference, dtype, seed);
                    let mut about = expected.iter();
                    let about = about.find(|e| e.is_about(backend, &case.id(), dtype));
                    let outcome = Outcome::new(result, about.map(|e| e.reason));
                    if let Some(problem) = outcome.problem() {
                        tell(&format!(
                            "{backend} {} {dtype} seed {seed}: {problem}",
                            case.id()
                        ));
                    }
                    report.add(backend, case, dtype, outcome);
                }
            }
        }
    }
    Ok(report)
}

fn check(
    case: &Case,
    device: &TestDevice,
    reference: &TestDevice,
    dtype: DType,
    seed: u64,
) -> Result<(f64, String), String> {
    let setting = Setting {
        device,
        reference,
        draw: Draw::new(&case.id(), dtype, seed),
    };
    case.check(&setting, dtype)
}

#[cfg(test)]
mod tests;
