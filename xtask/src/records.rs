//! `cargo xtask records`: checks that TensorFlow reads our record files, and that we read its
//! files.

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

use recurrent_tests::interop;

const HELP: &str = "\
Usage: cargo xtask records [--python PATH] [DIR]

Writes TFRecord files with every kind of feature and compression, makes TensorFlow read them and
compare every value, and reads files that TensorFlow writes. The files are written to DIR (default:
a temporary folder). Requires a Python with TensorFlow 2 (default: python3).
";

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("records: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let mut python = "python3".to_owned();
    let mut folder = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--python" => python.clone_from(args.next().ok_or("--python requires a value")?),
            option if option.starts_with('-') => {
                return Err(format!("unknown option `{option}` (--help)").into());
            }
            path => folder = Some(path.to_owned()),
        }
    }
    let temporary = tempfile::tempdir()?;
    let folder = folder.as_deref().map_or(temporary.path(), Path::new);
    std::fs::create_dir_all(folder)?;
    interop::write(folder)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/records_interop.py");
    for task in ["check", "write"] {
        let mut command = Command::new(&python);
        if !command
            .arg(&script)
            .arg(task)
            .arg(folder)
            .status()?
            .success()
        {
            return Err(format!("{python} records_interop.py {task} failed").into());
        }
    }
    interop::check(folder, "tensorflow")?;
    println!("TensorFlow reads our files, and its files are read correctly");
    Ok(())
}
