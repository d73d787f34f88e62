//! `cargo xtask instructions`: counts the instructions of small workloads, which repeat where times
//! do not, and compares them with the committed counts.
//!
//! Valgrind's simulated CPU has AVX2 and no AVX-512, so the counts are those of the AVX2 code.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use backend_api::Precision;
use backend_cpu::Cpu;
use rnn_train::Autodiff;
use rnn_train::optim::Adam;

use super::network::{Network, Stream};
use super::workloads::{LSTM, Mode, Workload};

const HELP: &str = "\
Usage: cargo xtask instructions [--update]

Counts the instructions that a step of W5 (in each precision) and a run of a small W3 take, under
valgrind's callgrind, and compares them with bench/instructions.txt: a count that differs by more
than 2 % is an error. Without valgrind nothing is counted.

--update   writes the counts to the file
";

/// The largest difference, as a part of the committed count.
const TOLERANCE: f64 = 0.02;
/// Runs of a workload in the two processes whose difference is counted, so that starting and
/// packing are not.
const RUNS: [u64; 2] = [10, 30];

/// What is counted.
struct Case {
    name: &'static str,
    workload: Workload,
    mode: Mode,
    precision: Precision,
}

const STREAM: Workload = Workload {
    batch: 1,
    steps: 1,
    inputs: 256,
    units: 256,
    input_grad: false,
    ..LSTM
};

const SMALL: Workload = Workload {
    batch: 16,
    steps: 5,
    inputs: 64,
    units: 64,
    ..LSTM
};

const CASES: [Case; 5] = [
    Case {
        name: "w5_stream256",
        workload: STREAM,
        mode: Mode::Stream,
        precision: Precision::Exact,
    },
    Case {
        name: "w5_stream256_bf16",
        workload: STREAM,
        mode: Mode::Stream,
        precision: Precision::Bf16,
    },
    Case {
        name: "w5_stream256_int8",
        workload: STREAM,
        mode: Mode::Stream,
        precision: Precision::Int8,
    },
    Case {
        name: "w3_small_fwd",
        workload: SMALL,
        mode: Mode::Forward,
        precision: Precision::Exact,
    },
    Case {
        name: "w3_small_train",
        workload: SMALL,
        mode: Mode::Train,
        precision: Precision::Exact,
    },
];

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let update = match args[..] {
        [] => false,
        ["--update"] => true,
        ["--help" | "-h"] => {
            print!("{HELP}");
            return Ok(());
        }
        ["--here", name, runs] => return Ok(run_here(find(name)?, runs.parse()?)?),
        _ => return Err(HELP.into()),
    };
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: nothing is counted");
        return Ok(());
    }
    let counts = CASES.iter().map(|case| Ok((case.name, count(case)?)));
    let counts = counts.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    if update {
        let mut text = String::new();
        for (name, count) in counts {
            writeln!(text, "{name} {count}")?;
        }
        return Ok(fs::write(file(), text)?);
    }
    compare(&counts, &fs::read_to_string(file())?)
}

fn file() -> PathBuf {
    super::root().join("bench").join("instructions.txt")
}

fn find(name: &str) -> Result<&'static Case, String> {
    let found = CASES.iter().find(|case| case.name == name);
    found.ok_or_else(|| format!("there is no case `{name}`"))
}

/// Prints the counts beside the committed ones.
fn compare(counts: &[(&str, u64)], committed: &str) -> Result<(), Box<dyn Error>> {
    let mut wrong = Vec::new();
    for &(name, count) in counts {
        let known = committed.lines().find_map(|line| {
            let (found, count) = line.split_once(' ')?;
            (found == name).then(|| count.parse::<u64>().ok())?
        });
        let known = known.ok_or_else(|| format!("{name} has no committed count"))?;
        let change = count as f64 / known as f64 - 1.0;
        println!("{name:<20} {count:>12} {:>+7.2} %", change * 100.0);
        if change.abs() > TOLERANCE {
            wrong.push(name);
        }
    }
    match wrong[..] {
        [] => Ok(()),
        _ => Err(format!(
            "more than 2 % from the committed counts (--update writes new ones): {}",
            wrong.join(", ")
        )
        .into()),
    }
}

/// The instructions of one run.
fn count(case: &Case) -> Result<u64, Box<dyn Error>> {
    let mut counts = [0; 2];
    for (count, runs) in counts.iter_mut().zip(RUNS) {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe()?)
            .args(["instructions", "--here", case.name, &runs.to_string()])
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let found = output.status.success().then(|| collected(&text)).flatten();
        *count = found.ok_or_else(|| format!("valgrind failed: {text}"))?;
    }
    Ok(counts[1].saturating_sub(counts[0]) / (RUNS[1] - RUNS[0]))
}

/// The count that callgrind prints: `==1== Collected : 123`.
fn collected(text: &str) -> Option<u64> {
    let (_, count) = text
        .lines()
        .find_map(|line| line.split_once("Collected :"))?;
    count.trim().parse().ok()
}

/// Runs a case, and nothing else.
fn run_here(case: &Case, runs: u64) -> backend_api::Result<()> {
    let cpu = Cpu::builder().threads(1).amx(false);
    let device = Autodiff::new(cpu.precision(case.precision).build()?);
    if case.mode == Mode::Stream {
        let stream = Stream::new(&device, &case.workload)?;
        let mut rnn = stream.start()?;
        for _ in 0..runs {
            rnn.step(&stream.input)?;
        }
        return Ok(());
    }
    let mut network = Network::new(&device, &case.workload)?;
    let mut adam = Adam::new(1e-4);
    for _ in 0..runs {
        match case.mode {
            Mode::Train => drop(network.train(&mut adam)?),
            _ => drop(network.forward(rnn_core::Mode::Evaluation)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_compared_with_the_committed_ones() {
        let committed = "a 1000\nb 2000\n";
        assert!(compare(&[("a", 1019), ("b", 1961)], committed).is_ok());
        let error = compare(&[("a", 1021), ("b", 2000)], committed).unwrap_err();
        assert!(error.to_string().ends_with(": a"), "{error}");
        let error = compare(&[("c", 1)], committed).unwrap_err();
        assert_eq!(error.to_string(), "c has no committed count");
    }

    #[test]
    fn every_case_has_a_committed_count() {
        let committed = fs::read_to_string(file()).unwrap();
        let names: Vec<&str> = committed
            .lines()
            .map(|l| l.split_once(' ').unwrap().0)
            .collect();
        let cases: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names, cases);
    }

    #[test]
    fn the_count_is_read_from_callgrinds_output() {
        let text = "==7== Events    : Ir\n==7== Collected : 2463\n==7==\n";
        assert_eq!(collected(text), Some(2463));
        assert_eq!(collected("valgrind: no"), None);
    }
}
