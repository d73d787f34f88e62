//! `cargo xtask conformance`: runs the conformance suite, from operations to networks, on the
//! backends.

use std::process::ExitCode;
use std::time::Instant;

use recurrent_tests::conformance::{EXPECTED, Request, cases, run as run_cases};
use recurrent_tests::devices::NAMES;

const HELP: &str = "\
Usage: cargo xtask conformance [--device NAME,NAME] [--seeds N] [--filter TEXT]

Runs every operation, cell, wrapper, driver, loss, optimizer and memory policy on each backend, and
compares the results with the reference, a scalar backend in f64 (tests/reference/). The cases
are in tests/src/conformance/.

  --device NAMES    run only on these devices; `reference` can be one (default: all)
  --seeds N         run each case with N seeds (default: 1)
  --filter TEXT     run only cases whose group and name contain TEXT

Prints a table of the largest errors at the end. Fails if a case fails, or if a case that is listed
as different agrees.
";

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &[String]) -> Result<bool, Box<dyn std::error::Error>> {
    let mut request = Request::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} requires a value"));
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}\nDevices: {}\n", NAMES.join(", "));
                return Ok(true);
            }
            "--device" | "--backend" => {
                request.backends = value()?.split(',').map(str::to_owned).collect()
            }
            "--seeds" => {
                let seeds = value()?;
                request.seeds = seeds.parse()?;
                if request.seeds == 0 {
                    return Err("--seeds must not be 0".into());
                }
            }
            "--filter" => request.filter.clone_from(value()?),
            other => return Err(format!("unknown option `{other}`").into()),
        }
    }
    let start = Instant::now();
    let report = run_cases(&request, &cases(), EXPECTED, &mut |problem| {
        println!("FAIL {problem}");
    })?;
    println!("{report} ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(report.summary().failed == 0)
}
