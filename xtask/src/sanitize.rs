//! `cargo xtask sanitize`: runs the tests of the simulated CUDA device with kernels compiled for
//! AddressSanitizer or ThreadSanitizer. Tests with planted mistakes, which the sanitizer must find,
//! run in a process each. `--address` and `--miri` check the Rust code instead.

mod nightly;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

const HELP: &str = "\
Usage: cargo xtask sanitize [address|thread] ..
       cargo xtask sanitize [--address] [--miri]

Builds the simulated CUDA device with a sanitizer (default: with each of the two) into
target/sanitize, and runs tests on it. The sanitizer must report the planted mistakes and nothing
else. Requires g++ with libasan and libtsan.

Options:
  --address   runs the tests of the CPU backend under AddressSanitizer
  --miri      interprets the tests of the backends' interface and of the CPU backend's portable
              code with Miri
Both require a nightly toolchain: `rustup toolchain install nightly --component miri,rust-src`.
";

/// A test binary.
#[derive(Clone, Copy, PartialEq)]
struct Binary {
    package: &'static str,
    target: &'static str,
}

/// The tests of the simulator itself.
const SIMULATOR: Binary = Binary {
    package: "cudasim",
    target: "suite",
};

/// The tests of the CUDA backend on the simulator.
const BACKEND: Binary = Binary {
    package: "recurrent-tests",
    target: "cuda",
};

/// Tests of one binary that must pass without a report.
struct Clean {
    binary: Binary,
    /// Arguments of the binary: the names of tests.
    arguments: &'static [&'static str],
    /// Number of runs, each with another schedule seed. The seed matters to tests that do not
    /// iterate over schedules themselves.
    seeds: u64,
}

struct Sanitizer {
    name: &'static str,
    /// The sanitizer's runtime. It is preloaded together with the C++ library, which it must be
    /// able to find.
    runtime: &'static str,
    options: (&'static str, &'static str),
    /// Prefix of a report.
    report: &'static str,
    clean: &'static [Clean],
    /// Tests of planted mistakes, and a word that the report must contain.
    planted: &'static [(&'static str, &'static str)],
}

const SANITIZERS: [Sanitizer; 2] = [
    Sanitizer {
        name: "address",
        runtime: "libasan.so",
        // The simulator never closes its libraries, and Rust's test harness keeps some memory until
        // the end.
        options: ("ASAN_OPTIONS", "detect_leaks=0"),
        report: "AddressSanitizer:",
        clean: &[
            Clean::new(
                SIMULATOR,
                &["--ignored", "--exact", "sanitizers::correct_programs"],
                1,
            ),
            Clean::new(SIMULATOR, &["basics::", "primitives::", "products::"], 1),
            Clean::new(SIMULATOR, &["streams::", "graphs::"], 16),
            Clean::new(BACKEND, &[], 1),
        ],
        planted: &[
            ("sanitizers::write_out_of_bounds", "in write_one_too_many"),
            ("sanitizers::read_out_of_bounds", "in read_one_too_many"),
            ("sanitizers::use_after_free", "heap-use-after-free"),
        ],
    },
    Sanitizer {
        name: "thread",
        runtime: "libtsan.so",
        // The simulator and the test harness are not instrumented; their accesses through libc are
        // not kernel races.
        options: ("TSAN_OPTIONS", "ignore_noninstrumented_modules=1"),
        report: "WARNING: ThreadSanitizer:",
        // Threads are slow under ThreadSanitizer, so only tests with few threads run.
        clean: &[
            Clean::new(
                SIMULATOR,
                &["--ignored", "--exact", "sanitizers::correct_programs"],
                1,
            ),
            Clean::new(
                SIMULATOR,
                &[
                    "basics::globals",
                    "basics::arguments",
                    "basics::barriers_shuffles",
                    "primitives::shuffles",
                    "primitives::tensor_core",
                    "primitives::atomics",
                    "streams::the_ring_is_correct",
                    "streams::a_missing_wait_between_two_streams",
                ],
                1,
            ),
            Clean::new(SIMULATOR, &["graphs::"], 16),
            Clean::new(BACKEND, &["backend::every_override", "joined::"], 1),
        ],
        planted: &[
            ("sanitizers::reduction_without_barrier", "partial_sums"),
            ("sanitizers::elman_without_grid_barrier", "elman"),
            ("sanitizers::lstm_without_group_barrier", "lstm_forward"),
            ("sanitizers::lstm_without_closing_barrier", "lstm_forward"),
            ("sanitizers::count_without_atomics", "count"),
            (
                "sanitizers::read_after_write_without_barrier",
                "read_after_write",
            ),
        ],
    },
];

impl Clean {
    const fn new(binary: Binary, arguments: &'static [&'static str], seeds: u64) -> Self {
        Self {
            binary,
            arguments,
            seeds,
        }
    }
}

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let mut failures = Vec::new();
    for argument in arguments {
        let simulated = SANITIZERS.iter().map(|sanitizer| sanitizer.name);
        let checks = nightly::CHECKS.iter().map(|check| check.option);
        if !simulated.chain(checks).any(|name| name == argument) {
            eprint!("xtask: unknown sanitizer `{argument}`\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    }
    for sanitizer in &SANITIZERS {
        if arguments.is_empty() || arguments.iter().any(|argument| argument == sanitizer.name) {
            match sanitizer.run() {
                Ok(found) => failures.extend(found),
                Err(problem) => failures.push(format!("{}: {problem}", sanitizer.name)),
            }
        }
    }
    for check in &nightly::CHECKS {
        if arguments.iter().any(|argument| argument == check.option)
            && let Err(problem) = check.run()
        {
            failures.push(format!("{}: {problem}", check.option));
        }
    }
    for failure in &failures {
        eprintln!("{failure}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Sanitizer {
    /// The failures.
    fn run(&self) -> Result<Vec<String>, String> {
        let runtime = [
            compiler_library(self.runtime)?,
            compiler_library("libstdc++.so.6")?,
        ]
        .join(" ");
        let (simulator, backend) = (self.build(SIMULATOR)?, self.build(BACKEND)?);
        let mut failures = Vec::new();
        let mut record = |label: String, problem: Option<String>| {
            println!(
                "{} {label}: {}",
                self.name,
                if problem.is_none() { "ok" } else { "FAILED" }
            );
            failures.extend(problem.map(|problem| format!("{} {label}: {problem}", self.name)));
        };
        for Clean {
            binary,
            arguments,
            seeds,
        } in self.clean
        {
            let path = if *binary == SIMULATOR {
                &simulator
            } else {
                &backend
            };
            let label = [&[binary.package], *arguments].concat().join(" ");
            for seed in 0..*seeds {
                let output = self.execute(path, &runtime, seed, arguments)?;
                let text = text_of(&output);
                let clean = output.status.success()
                    && !text.contains(self.report)
                    && !text.contains("running 0 tests");
                record(format!("{label}, seed {seed}"), (!clean).then_some(text));
            }
        }
        for (test, mention) in self.planted {
            let arguments = ["--ignored", "--exact", test];
            let text = text_of(&self.execute(&simulator, &runtime, 0, &arguments)?);
            let found = text.contains(self.report) && text.contains(mention);
            record(
                format!("finds {test}"),
                (!found).then(|| format!("no report that mentions `{mention}`:\n{text}")),
            );
        }
        Ok(failures)
    }

    /// Builds a test binary and returns its path.
    fn build(&self, binary: Binary) -> Result<PathBuf, String> {
        let Binary { package, target } = binary;
        let mut command = Command::new(env!("CARGO"));
        command.args([
            "test",
            "--no-run",
            "--message-format=json",
            "--target-dir",
            "target/sanitize",
            "--package",
            package,
            "--test",
            target,
        ]);
        let output = command
            .env("CUDASIM_SANITIZE", self.name)
            .stderr(Stdio::inherit())
            .output();
        let output = output.map_err(|error| format!("cannot start cargo: {error}"))?;
        if !output.status.success() {
            return Err("the build of the tests failed".to_owned());
        }
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        let executable = |line: &str| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            message["executable"].as_str().map(PathBuf::from)
        };
        let path = messages.lines().find_map(executable);
        path.ok_or_else(|| format!("cargo built no test binary `{target}` of {package}"))
    }

    fn execute(
        &self,
        binary: &Path,
        runtime: &str,
        seed: u64,
        arguments: &[&str],
    ) -> Result<Output, String> {
        Command::new(binary)
            .args(["--test-threads", "1"])
            .args(arguments)
            .env("LD_PRELOAD", runtime)
            .env(self.options.0, self.options.1)
            .env("CUDASIM_SEED", seed.to_string())
            .env("RUST_BACKTRACE", "0")
            .output()
            .map_err(|error| format!("{}: {error}", binary.display()))
    }
}

/// The full path of a library of the C++ compiler.
fn compiler_library(name: &str) -> Result<String, String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let output = Command::new(&compiler)
        .arg(format!("-print-file-name={name}"))
        .output();
    let output = output.map_err(|error| format!("cannot start {compiler}: {error}"))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // The compiler prints the bare name if it has no such file.
    if path == name {
        Err(format!("{compiler} has no {name}"))
    } else {
        Ok(path)
    }
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
