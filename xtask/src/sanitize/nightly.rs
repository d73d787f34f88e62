//! Checks of the unsafe Rust code, which need a nightly toolchain: AddressSanitizer watches all
//! kernels of the CPU backend, and Miri interprets its portable code.

use std::process::{Command, Stdio};

/// A check of the tests of some packages.
pub(super) struct Check {
    pub(super) option: &'static str,
    /// A command that succeeds if the toolchain has what the check needs.
    probe: &'static [&'static str],
    /// Environment variables.
    variables: &'static [(&'static str, &'static str)],
    /// Runs of `cargo`, each with the arguments of the test binary.
    runs: &'static [(&'static [&'static str], &'static [&'static str])],
}

const INSTALL: &str = "rustup toolchain install nightly --component miri,rust-src";

pub(super) const CHECKS: [Check; 2] = [
    Check {
        option: "--address",
        probe: &["rustc", "--version"],
        variables: &[
            ("RUSTFLAGS", "-Zsanitizer=address"),
            // Some tests request more memory than there is.
            ("ASAN_OPTIONS", "allocator_may_return_null=1"),
        ],
        runs: &[(
            &["test", "--package", "recurrent-cpu", "--lib", "--tests"],
            &[],
        )],
    },
    Check {
        option: "--miri",
        probe: &["cargo", "miri", "--version"],
        // The thread pool of `rayon` stores flags in pointers and never ends.
        variables: &[(
            "MIRIFLAGS",
            "-Zmiri-permissive-provenance -Zmiri-tree-borrows -Zmiri-ignore-leaks",
        )],
        runs: &[
            (
                &["miri", "test", "--package", "recurrent-api", "--lib"],
                &[],
            ),
            (
                &["miri", "test", "--package", "recurrent-cpu", "--lib"],
                &["--test-threads", "1"],
            ),
        ],
    },
];

impl Check {
    pub(super) fn run(&self) -> Result<(), String> {
        let nightly = |arguments: &[&str]| {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly"]).args(arguments);
            command
        };
        let mut probe = nightly(self.probe);
        let probe = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            return Err(format!(
                "a nightly toolchain or one of its components is missing; install it with \
                 `{INSTALL}`"
            ));
        }
        // With a target, the flags do not apply to build scripts and procedural macros.
        let target = host()?;
        for (run, arguments) in self.runs {
            let mut command = nightly(&["cargo"]);
            command.args(*run);
            command.args(["--target", &target, "--target-dir", "target/sanitize", "--"]);
            command
                .args(*arguments)
                .envs(self.variables.iter().copied());
            let status = command.status();
            let status = status.map_err(|error| format!("cannot start cargo: {error}"))?;
            if !status.success() {
                return Err(format!("`cargo {}` failed", run.join(" ")));
            }
        }
        Ok(())
    }
}

/// The target of this machine.
fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| format!("cannot start rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc names no host".to_owned())
}
