//! `cargo xtask onnx-tests`: runs tests in ONNX's layout.

use std::error::Error;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use interchange::onnx::{is_unsupported, run_test, test_folders};
use recurrent_tests::devices::{NAMES, device};

const HELP: &str = "\
Usage: cargo xtask onnx-tests DIR .. [--device NAME,NAME]

Runs every test of the folders on each device (default: cpu,sim): DIR/NAME/model.onnx with the
inputs DIR/NAME/test_data_set_K/input_I.pb must give the outputs output_I.pb.

Prints a line for each test that does not pass: its name, the first device on which it does not,
and why. The last line is `onnx: N passed, N failed, N unsupported`; a test is unsupported if its
model needs something that is not implemented. Fails if a test failed.
";

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("onnx-tests: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &[String]) -> Result<bool, Box<dyn Error>> {
    let mut tests: Vec<PathBuf> = Vec::new();
    let mut names = vec![NAMES[0].to_owned(), NAMES[2].to_owned()];
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(true);
            }
            "--device" => {
                let value = args.next().ok_or("--device requires a value")?;
                names = value.split(',').map(str::to_owned).collect();
            }
            option if option.starts_with('-') => {
                return Err(format!("unknown option `{option}` (--help)").into());
            }
            folder => tests.extend(test_folders(folder)?),
        }
    }
    if tests.is_empty() {
        return Err("the name of a folder is missing (cargo xtask onnx-tests --help)".into());
    }
    let devices = names.iter().map(|name| Ok((name, device(name)?)));
    let devices = devices.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let (mut passed, mut failed, mut unsupported) = (0, 0, 0);
    for test in &tests {
        let mut runs = devices.iter();
        let Some((name, error)) =
            runs.find_map(|(name, device)| Some((name, run_test(test, device).err()?)))
        else {
            passed += 1;
            continue;
        };
        let (count, word) = match is_unsupported(&error) {
            true => (&mut unsupported, "unsupported"),
            false => (&mut failed, "FAIL"),
        };
        *count += 1;
        let case = test.file_name().unwrap_or_default().display();
        writeln!(stdout(), "{case} {name} {word}: {error}")?;
    }
    let total = format!("onnx: {passed} passed, {failed} failed, {unsupported} unsupported");
    writeln!(stdout(), "{total}")?;
    Ok(failed == 0)
}
