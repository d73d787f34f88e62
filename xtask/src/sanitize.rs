//! `cargo xtask sanitize`: runs the tests of the simulated CUDA device with kernels compiled for
//! AddressSanitizer or ThreadSanitizer. Tests with planted mistakes, which the sanitizer must find,
//! run in a process each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

const HELP: &str = "\
Usage: cargo xtask sanitize [address|thread] ..

Builds the simulated CUDA device for a sanitizer (both, if none is named) into target/sanitize and runs tests with it:
no sanitizer may report anything, but for planted mistakes, which it must find. Needs g++ with libasan and libtsan.
";

/// Tests of one binary that must pass without a report.
struct Clean {
    package: &'static str,
    target: &'static str,
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
    /// Tests of planted mistakes (in `sanitizers`), and a word that the report must contain.
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
            Clean::new("sanitizers", &["--ignored", "--exact", "right_programs"], 1),
            Clean::new("basics", &[], 1),
            Clean::new("primitives", &[], 1),
            Clean::new("products", &[], 1),
            Clean::new("streams", &[], 16),
            Clean::new("graphs", &[], 16),
            Clean::of("recurrent-tests", "cuda", &[], 1),
            Clean::of("recurrent-tests", "cuda_operations", &[], 1),
            Clean::of("recurrent-tests", "cuda_lifetimes", &[], 1),
        ],
        planted: &[
            ("write_one_too_many", "in write_one_too_many"),
            ("read_one_too_many", "in read_one_too_many"),
            ("memory_freed_before_its_use", "heap-use-after-free"),
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
            Clean::new("sanitizers", &["--ignored", "--exact", "right_programs"], 1),
            Clean::new("basics", &["globals", "arguments", "barriers_shuffles"], 1),
            Clean::new("primitives", &["shuffles", "tensor_core", "atomics"], 1),
            Clean::new("streams", &["right_under_all_schedules", "two_streams"], 1),
            Clean::new("graphs", &[], 16),
            Clean::of("recurrent-tests", "cuda", &["every_override"], 1),
        ],
        planted: &[
            ("reduction_without_its_barrier", "partial_sums"),
            ("elman_without_the_grid_barrier", "elman"),
            ("lstm_without_the_group_barrier", "lstm_forward"),
            ("lstm_without_the_closing_barrier", "lstm_forward"),
            ("count_without_atomics", "count"),
            ("read_after_write_without_a_barrier", "read_after_write"),
        ],
    },
];

impl Clean {
    const fn new(target: &'static str, arguments: &'static [&'static str], seeds: u64) -> Self {
        Self::of("cudasim", target, arguments, seeds)
    }

    const fn of(
        package: &'static str,
        target: &'static str,
        arguments: &'static [&'static str],
        seeds: u64,
    ) -> Self {
        Self {
            package,
            target,
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
        if !SANITIZERS
            .iter()
            .any(|sanitizer| sanitizer.name == argument)
        {
            eprint!("xtask: there is no sanitizer `{argument}`\n\n{HELP}");
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
        let binaries = self.build()?;
        let binary = |target: &str| {
            let found = binaries
                .iter()
                .find(|(name, _)| name == target)
                .map(|(_, path)| path.as_path());
            found.ok_or(format!("cargo built no test `{target}`"))
        };
        let mut failures = Vec::new();
        let mut note = |what: String, problem: Option<String>| {
            println!(
                "{} {what}: {}",
                self.name,
                if problem.is_none() { "ok" } else { "FAILED" }
            );
            failures.extend(problem.map(|problem| format!("{} {what}: {problem}", self.name)));
        };
        for Clean {
            target,
            arguments,
            seeds,
            ..
        } in self.clean
        {
            for seed in 0..*seeds {
                let output = self.execute(binary(target)?, &runtime, seed, arguments)?;
                let text = text_of(&output);
                let clean = output.status.success()
                    && !text.contains(self.report)
                    && !text.contains("running 0 tests");
                note(format!("{target}, seed {seed}"), (!clean).then_some(text));
            }
        }
        for (test, mention) in self.planted {
            let arguments = ["--ignored", "--exact", test];
            let text = text_of(&self.execute(binary("sanitizers")?, &runtime, 0, &arguments)?);
            let found = text.contains(self.report) && text.contains(mention);
            note(
                format!("finds {test}"),
                (!found).then(|| format!("no report that mentions `{mention}`:\n{text}")),
            );
        }
        Ok(failures)
    }

    /// Builds the test binaries of the list.
    fn build(&self) -> Result<Vec<(String, PathBuf)>, String> {
        let mut command = Command::new(env!("CARGO"));
        command.args([
            "test",
            "--no-run",
            "--message-format=json",
            "--target-dir",
            "target/sanitize",
        ]);
        let packages: BTreeSet<&str> = self.clean.iter().map(|clean| clean.package).collect();
        let targets: BTreeSet<&str> = self.clean.iter().map(|clean| clean.target).collect();
        command.args(packages.iter().flat_map(|name| ["--package", name]));
        command.args(targets.iter().flat_map(|name| ["--test", name]));
        let output = command
            .env("CUDASIM_SANITIZE", self.name)
            .stderr(Stdio::inherit())
            .output();
        let output = output.map_err(|error| format!("cargo cannot be started: {error}"))?;
        if !output.status.success() {
            return Err("the tests do not build".to_owned());
        }
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        let binary = |line: &str| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let path = message["executable"].as_str()?;
            Some((
                message["target"]["name"].as_str()?.to_owned(),
                PathBuf::from(path),
            ))
        };
        Ok(messages.lines().filter_map(binary).collect())
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
    let output = output.map_err(|error| format!("{compiler} cannot be started: {error}"))?;
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
