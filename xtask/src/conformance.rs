//! `cargo xtask conformance`: runs the conformance suite, from operations to networks, on the
//! backends.

use std::process::ExitCode;
use std::time::Instant;

use recurrent_tests::conformance::{EXPECTED, Request, cases, run as run_cases};
use recurrent_tests::devices::NAMES;

const HELP: &str = "\
Usage: cargo xtask conformance [--backend NAME,NAME] [--seeds N] [--filter TEXT]

Runs every operation, cell, wrapper, driver, loss, optimizer and memory policy on each backend and compares with the
reference, a scalar backend (tests/reference/), in f64. tests/src/conformance/ has the cases.

  --backend NAMES   these backends, of which `reference` can be one; if not given, all in the list below
  --seeds N         with N draws of the numbers; 1 if not given
  --filter TEXT     only cases whose group and name contain the text

Ends with a table of the worst errors, and with failure unless every case passes, and every case that is expected to
differ does.
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
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}\nBackends: {}\n", NAMES.join(", "));
                return Ok(true);
            }
            "--backend" => request.backends = value()?.split(',').map(str::to_owned).collect(),
            "--seeds" => {
                let seeds = value()?;
                request.seeds = seeds.parse()?;
                if request.seeds == 0 {
                    return Err("--seeds is 0, but at least 1 is needed".into());
                }
            }
            "--filter" => request.filter.clone_from(value()?),
            other => return Err(format!("there is no option `{other}`").into()),
        }
    }
    let start = Instant::now();
    let report = run_cases(&request, &cases(), EXPECTED, &mut |problem| {
        println!("FAIL {problem}");
    })?;
    println!("{report} ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(report.summary().failed == 0)
}
