//! Developer tasks: `cargo xtask TASK`.

#![forbid(unsafe_code)]

mod bench;
mod conformance;
mod convert;
mod golden;
mod gpu_pack;
mod kernels;
mod links;
mod onnx_tests;
mod records;
mod sanitize;
mod scaling_model;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask TASK

Tasks:
  bench             measures the workloads, and compares with other frameworks
  conformance       runs every conformance case on the backends
  convert IN OUT    converts a file of weights into another format, or lists it
  data NAME ..      fetches a data set into data/
  golden DIR ..     checks the backends against golden files
  gpu-pack          packs the programs of the first run on a GPU
  instructions      counts the instructions of small workloads, and compares with known counts
  kernels           compiles the CUDA kernels and checks the resources that they use
  links DIR         finds dead links in the documentation that rustdoc wrote
  onnx-tests DIR .. runs tests in ONNX's layout
  records           exchanges TFRecord files with TensorFlow
  scaling-model     computes from which sizes on several machines pay
  sanitize ..       runs tests under sanitizers or Miri
  tidy              checks circles of modules, columns, documents and examples

`cargo xtask TASK --help` describes a task and its options.
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
        "convert" => report(convert::run(rest)),
        "data" => report(datasets::cli(rest)),
        "golden" => golden::run(rest),
        "gpu-pack" => gpu_pack::run(rest),
        "instructions" => bench::instructions::run(rest),
        "kernels" => kernels::run(rest),
        "links" => links::run(rest),
        "onnx-tests" => onnx_tests::run(rest),
        "records" => records::run(rest),
        "scaling-model" => report(scaling_model::run(rest)),
        "sanitize" => sanitize::run(rest),
        "tidy" => tidy::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        other => {
            eprint!("xtask: unknown task `{other}`\n\n{HELP}");
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
