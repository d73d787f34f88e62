//! `cargo xtask golden`: checks the backends against the golden files.

use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use recurrent_tests::devices::{NAMES, device};
use recurrent_tests::golden::{self, Outcome, Summary, run_folder};

const HELP: &str = "\
Usage: cargo xtask golden DIR .. [--device NAME,NAME]

Runs every golden file of the folders, or of the folders below them, on each device, and compares
outputs, states, loss and every gradient with the results of TensorFlow. tests/golden/README.md
describes the format.

Prints a line for each case: its name, the device, the largest error as a fraction of the
tolerance, and ok, FAIL or unsupported. Fails unless every case passes.
";

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("golden: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &[String]) -> Result<bool, Box<dyn std::error::Error>> {
    let mut folders = Vec::new();
    let mut backends: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(true);
            }
            "--device" | "--backend" => {
                let names = args
                    .next()
                    .ok_or_else(|| format!("{arg} requires a value"))?;
                backends = names.split(',').map(str::to_owned).collect();
            }
            option if option.starts_with('-') => {
                return Err(format!("unknown option `{option}`").into());
            }
            folder => folders.extend(golden::folders(Path::new(folder))?),
        }
    }
    if folders.is_empty() {
        return Err("the name of a folder is missing (cargo xtask golden --help)".into());
    }
    let mut total = Summary::default();
    for name in &backends {
        let device = device(name)?;
        for folder in &folders {
            let mut printed = Ok(());
            let summary = run_folder(folder, &device, &mut |case, outcome| {
                if printed.is_err() {
                    return;
                }
                printed = match outcome {
                    Outcome::Passed(worst) => writeln!(stdout(), "{case} {name} {worst:.1e} ok"),
                    Outcome::Failed(why) => writeln!(stdout(), "{case} {name} FAIL: {why}"),
                    Outcome::Unsupported(why) => {
                        writeln!(stdout(), "{case} {name} unsupported: {why}")
                    }
                };
            })?;
            printed?;
            total.passed += summary.passed;
            total.failed += summary.failed;
            total.unsupported += summary.unsupported;
        }
    }
    writeln!(stdout(), "{total}")?;
    Ok(total.failed == 0 && total.unsupported == 0)
}
