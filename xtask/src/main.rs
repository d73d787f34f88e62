//! Developer tasks: `cargo xtask TASK`.

#![forbid(unsafe_code)]

mod bench;
mod conformance;
mod golden;
mod kernels;
mod records;
mod sanitize;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask TASK

Tasks:
  bench             measures the workloads, beside other frameworks too (cargo xtask bench --help)
  conformance       runs every case on the backends (cargo xtask conformance --help)
  data NAME ..      fetches a data set into data/ (cargo xtask data --help)
  golden DIR ..     runs golden files against the backends (cargo xtask golden --help)
  kernels           compiles the CUDA kernels and checks what they take (cargo xtask kernels --help)
  records           exchanges TFRecord files with TensorFlow (cargo xtask records --help)
  sanitize ..       runs the simulated CUDA device under sanitizers (cargo xtask sanitize --help)
  tidy              checks circles of modules, columns and documents (cargo xtask tidy --help)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((task, rest)) = args.split_first() else {
        print!("{HELP}");
        return ExitCode::FAILURE;
    };
    match task.as_str() {
        "bench" => bench::run(rest),
        "conformance" => conformance::run(rest),
        "data" => report(datasets::cli(rest)),
        "golden" => golden::run(rest),
        "kernels" => kernels::run(rest),
        "records" => records::run(rest),
        "sanitize" => sanitize::run(rest),
        "tidy" => tidy::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        other => {
            eprint!("xtask: there is no task `{other}`\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

fn report<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
