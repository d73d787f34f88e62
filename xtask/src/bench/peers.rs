//! Other frameworks. Each is a program in `bench/` that takes the sizes of a workload and prints
//! lines of JSON, or nothing if it does not support the workload.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::de::DeserializeOwned;

use super::cores::Cores;
use super::line::{Line, label};
use super::network::SAMPLE;
use super::workloads::{Kind as CellKind, LSTM, Mode, Workload};
use backend_api::{MemoryPolicy, Precision};

/// How a framework's program is run.
#[derive(Debug)]
enum Kind {
    /// A script, and the Python modules that it needs.
    Script(&'static str, &'static str),
    /// A separate crate, built on demand.
    Crate(&'static str),
}

const PEERS: [(&str, Kind); 6] = [
    ("torch", Kind::Script("rnn_torch.py", "torch")),
    ("jax", Kind::Script("rnn_jax.py", "jax")),
    (
        "onnxruntime",
        Kind::Script("rnn_onnxruntime.py", "onnxruntime, onnx"),
    ),
    (
        "openvino",
        Kind::Script("rnn_openvino.py", "openvino, onnx"),
    ),
    ("burn", Kind::Crate("burn")),
    ("candle", Kind::Crate("candle")),
];

/// A framework that is available.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    program: OsString,
    script: Option<PathBuf>,
}

impl Peer {
    /// Finds a framework and builds its program if necessary.
    ///
    /// # Errors
    /// The reason why the framework is left out.
    pub(super) fn find(name: &str, python: &str) -> Result<Self, String> {
        let known = || PEERS.map(|(name, _)| name).join(", ");
        let kind = PEERS.iter().find(|(peer, _)| *peer == name);
        let (_, kind) = kind.ok_or_else(|| format!("must be one of {}", known()))?;
        let folder = super::root().join("bench");
        let (program, script) = match kind {
            Kind::Script(script, modules) => {
                let mut command = Command::new(python);
                command.args(["-c", &format!("import {modules}")]);
                succeed(&mut command)
                    .map_err(|e| format!("{e} (--python names a Python that has {modules})"))?;
                (python.into(), Some(folder.join(script)))
            }
            Kind::Crate(krate) => (build(&folder.join(krate), krate)?, None),
        };
        Ok(Self {
            name: name.into(),
            program,
            script,
        })
    }

    /// Runs a workload. Returns no lines if the framework does not support it.
    ///
    /// # Errors
    /// The program failed or printed something other than results.
    pub(super) fn run(
        &self,
        cores: &Cores,
        w: &Workload,
        mode: Mode,
        threads: usize,
        (device, precision): (&str, Precision),
    ) -> Result<Vec<Line>, Box<dyn Error>> {
        let mut command = cores.command(&self.program, threads, device);
        command.args(&self.script);
        command.args(arguments(w, mode, threads));
        command.env("RAYON_NUM_THREADS", threads.to_string());
        command.args(["--device", device, "--precision", precision.name()]);
        let mut lines = lines_of(&mut command)?;
        for line in &mut lines {
            // Matmuls are always exact on the CPU.
            let precision = match device {
                "cpu" => Precision::Exact,
                _ => precision,
            };
            line.backend = label(device, precision, MemoryPolicy::Store);
        }
        Ok(lines)
    }

    /// The samples of a cell that a script prints.
    ///
    /// # Errors
    /// The program failed or printed something other than samples.
    pub(super) fn sample(&self, kind: CellKind) -> Result<Vec<serde_json::Value>, Box<dyn Error>> {
        let Some(script) = &self.script else {
            return Ok(Vec::new());
        };
        let [steps, batch, inputs, units] = SAMPLE;
        let w = Workload {
            kind,
            batch,
            steps,
            inputs,
            units,
            ..LSTM
        };
        let mut command = Command::new(&self.program);
        command.arg(script).arg("--verify");
        command.args(arguments(&w, Mode::Train, 1));
        json_of(&mut command)
    }
}

fn arguments(w: &Workload, mode: Mode, threads: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |name: &str, value: &str| all.extend([name.to_owned(), value.to_owned()]);
    add("--workload", w.name);
    add("--mode", mode.name());
    add("--cell", w.kind.name());
    for (name, number) in [
        ("--threads", threads),
        ("--layers", w.layers),
        ("--batch", w.batch),
        ("--steps", w.steps),
        ("--inputs", w.inputs),
        ("--units", w.units),
        ("--classes", w.classes.unwrap_or(0)),
    ] {
        add(name, &number.to_string());
    }
    if let Some(lengths) = w.lengths() {
        let lengths: Vec<String> = lengths.iter().map(u64::to_string).collect();
        add("--lengths", &lengths.join(","));
    }
    add("--flops", &w.flops(mode).to_string());
    if w.input_grad {
        all.push("--input-grad".into());
    }
    all
}

/// Builds a crate of `bench/` and returns the path of its program.
fn build(folder: &Path, name: &str) -> Result<OsString, String> {
    eprintln!("building bench/{name}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = super::root().join("target").join("bench").join(name);
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--quiet"])
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    succeed(&mut command)?;
    let program = format!("bench-{name}{}", std::env::consts::EXE_SUFFIX);
    Ok(target.join("release").join(program).into())
}

/// The results that a program prints.
pub(super) fn lines_of(command: &mut Command) -> Result<Vec<Line>, Box<dyn Error>> {
    json_of(command)
}

/// The lines of JSON that a program prints.
fn json_of<T: DeserializeOwned>(command: &mut Command) -> Result<Vec<T>, Box<dyn Error>> {
    let text = String::from_utf8(succeed(command)?.stdout)?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Runs a program. The error has the end of its error output.
fn succeed(command: &mut Command) -> Result<Output, String> {
    let program = command.get_program().to_owned();
    let name = program.to_string_lossy();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.trim().lines().collect();
    let end = lines[lines.len().saturating_sub(5)..].join("\n");
    Err(format!("{name} failed: {end}"))
}

#[cfg(test)]
mod tests {
    use super::super::workloads::WORKLOADS;
    use super::*;

    #[test]
    fn missing_peers_are_reported() {
        let error = Peer::find("keras", "python3").unwrap_err();
        assert_eq!(
            error,
            "must be one of torch, jax, onnxruntime, openvino, burn, candle"
        );
        let error = Peer::find("torch", "no-such-python").unwrap_err();
        assert!(error.starts_with("no-such-python: "), "{error}");
        assert!(
            error.ends_with("(--python names a Python that has torch)"),
            "{error}"
        );
    }

    #[test]
    fn programs_get_the_sizes_as_arguments() {
        let ragged = WORKLOADS.iter().find(|w| w.ragged.is_some()).unwrap();
        let args = arguments(ragged, Mode::Train, 2);
        let value = |name: &str| args[args.iter().position(|a| a == name).unwrap() + 1].as_str();
        assert_eq!((value("--batch"), value("--steps")), ("64", "200"));
        assert_eq!((value("--threads"), value("--mode")), ("2", "train"));
        assert_eq!(value("--lengths").split(',').count(), 64);
        assert!(args.iter().any(|a| a == "--input-grad"));
    }
}
