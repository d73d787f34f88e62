//! Conformance cases for every backend, compared with a scalar reference backend in `f64`.
//!
//! A case is a value: a group, a name, the element types it runs in, and a computation on numbers
//! drawn on the host. It runs twice on the device under test, with bit for bit equal results. It
//! also runs on the [`Reference`](reference::Reference), in `f64`, on the same numbers,
//! rounded as on the device. One table has the tolerance for each class of operation and element
//! type ([`Class`]). Intended differences are listed with their reason, and must occur
//! ([`EXPECTED`]).
//!
//! * operations: `elementwise`, `reduce`, `products`, `moving`, `random`, `special`, `fused`,
//!   `scans`; destinations: `destinations`; memory: `buffers`, `updates`; invalid calls: `errors`;
//! * networks, with their gradients: `cells`, `sequences`, `drivers`, `dropout`, `memory`,
//!   `losses`, `optimizers`; what is summed or remembered over many steps, in every float type:
//!   `long_sums`.

mod buffers;
mod case;
mod cells;
mod compare;
mod destinations;
mod draw;
mod drivers;
mod dropout;
mod elementwise;
mod errors;
mod expected;
mod fused;
mod long_sums;
mod losses;
mod memory;
mod model;
mod moving;
mod operation;
mod optimizers;
mod products;
mod random;
mod reduce;
mod report;
mod scan;
mod scans;
mod sequences;
mod special;
mod tolerance;
mod updates;

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
        scans::cases,
        destinations::cases,
        buffers::cases,
        updates::cases,
        errors::cases,
        cells::cases,
        sequences::cases,
        drivers::cases,
        dropout::cases,
        memory::cases,
        losses::cases,
        long_sums::cases,
        optimizers::cases,
    ]
    .iter()
    .flat_map(|cases| cases())
    .collect()
}

/// Selects the cases to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// The names of the backends; if empty, all available ones.
    pub backends: Vec<String>,
    /// Number of draws with different seeds.
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

/// Runs cases on backends. Calls `on_problem` with each unexpected outcome as it occurs.
///
/// # Errors
/// A named backend is not available, or no case matches.
pub fn run(
    request: &Request,
    cases: &[Case],
    expected: &[Expected],
    on_problem: &mut dyn FnMut(&str),
) -> Result<Report> {
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|c| c.id().contains(&request.filter))
        .collect();
    if chosen.is_empty() {
        let problem = format!("is `{}`, which matches no case", request.filter);
        return Err(Error::argument("conformance", "filter", problem));
    }
    let reference = device("reference")?;
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
                        on_problem(&format!(
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
