//! `cargo xtask bench`: the workloads, measured, beside other frameworks where they are installed.

mod measure;
mod network;
mod table;
mod workloads;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use backend_api::Precision;
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use rnn_train::Autodiff;

use measure::Line;
use workloads::{Kind, Mode, WORKLOADS, Workload};

const HELP: &str = "\
Usage: cargo xtask bench [OPTIONS]

Measures the workloads, each in a process of its own: median of 5 to 100 runs after warming up.

--workload NAME,..   of these (default: all)      --list shows them
--mode MODE,..       fwd, train, stream or memory (default: all that a workload has)
--threads N,..       processor threads (default: 1,2)
--backend NAME       cpu or cuda (default: cpu)
--precision NAME     exact, tf32 or bf16 products on cuda (default: exact)
--compare NAME,..    runs other frameworks right after each of ours and prints ratios: torch (bench/rnn_torch.py)
--python PATH        the Python that has them (default: python3)
--json               prints lines of JSON alone
--save FILE          appends the lines to a file
--baseline FILE      prints ratios to the lines of a file
--verify             prints numbers of a small network of known weights, which every program must give
";

struct Options {
    workloads: Vec<Workload>,
    modes: Vec<Mode>,
    threads: Vec<usize>,
    backend: String,
    precision: String,
    compare: Vec<String>,
    python: String,
    json: bool,
    save: Option<String>,
    baseline: Option<String>,
    verify: bool,
    /// Measure here and now, not in a process of its own.
    here: bool,
}

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let Some(options) = parse(args)? else {
        return Ok(());
    };
    if options.verify {
        return verify(&options);
    }
    let jobs: Vec<(Workload, Mode, usize)> = options
        .workloads
        .iter()
        .flat_map(|w| w.modes.iter().map(move |mode| (*w, *mode)))
        .filter(|(_, mode)| options.modes.contains(mode))
        .flat_map(|(w, mode)| options.threads.iter().map(move |&n| (w, mode, n)))
        .collect();
    if options.here {
        let [(w, mode, threads)] = jobs[..] else {
            return Err("--here wants one workload, mode and number of threads".into());
        };
        let line = measure_here(&options, &w, mode, threads)?;
        println!("{}", serde_json::to_string(&line)?);
        return Ok(());
    }
    if jobs.is_empty() {
        return Err("no workload has such a mode".into());
    }
    let baseline = options.baseline.as_deref().map(read).transpose()?;
    let mut lines = Vec::new();
    for (w, mode, threads) in jobs {
        let mut found = vec![ours(&options, &w, mode, threads)?];
        for peer in &options.compare {
            found.extend(theirs(&options, peer, &w, mode, threads)?);
        }
        for line in &found {
            let text = serde_json::to_string(line)?;
            if options.json {
                println!("{text}");
            } else {
                eprintln!(
                    "{} {} {} {threads}: {:.3} ms",
                    line.peer,
                    w.name,
                    mode.name(),
                    line.median_s * 1e3
                );
            }
            if let Some(file) = &options.save {
                use std::io::Write;
                let mut file = fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(file)?;
                writeln!(file, "{text}")?;
            }
        }
        lines.extend(found);
    }
    if !options.json {
        print!("{}", table::table(&lines, baseline.as_ref()));
    }
    Ok(())
}

fn parse(args: &[String]) -> Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options {
        workloads: WORKLOADS.to_vec(),
        modes: Mode::ALL.to_vec(),
        threads: vec![1, 2],
        backend: "cpu".into(),
        precision: "exact".into(),
        compare: Vec::new(),
        python: "python3".into(),
        json: false,
        save: None,
        baseline: None,
        verify: false,
        here: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--list" => {
                for w in WORKLOADS {
                    println!("{w:?}");
                }
                return Ok(None);
            }
            "--workload" => {
                let find = |name: &str| {
                    let found = WORKLOADS.iter().find(|w| w.name == name);
                    found
                        .copied()
                        .ok_or_else(|| format!("there is no workload `{name}`"))
                };
                options.workloads = value()?.split(',').map(find).collect::<Result<_, _>>()?;
            }
            "--mode" => {
                let find = |name: &str| {
                    let found = Mode::ALL.into_iter().find(|m| m.name() == name);
                    found.ok_or_else(|| format!("there is no mode `{name}`"))
                };
                options.modes = value()?.split(',').map(find).collect::<Result<_, _>>()?;
            }
            "--threads" => {
                options.threads = value()?
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>()?;
            }
            "--backend" => options.backend = value()?.clone(),
            "--precision" => options.precision = value()?.clone(),
            "--compare" => options.compare = value()?.split(',').map(str::to_owned).collect(),
            "--python" => options.python = value()?.clone(),
            "--save" => options.save = Some(value()?.clone()),
            "--baseline" => options.baseline = Some(value()?.clone()),
            "--json" => options.json = true,
            "--verify" => options.verify = true,
            "--here" => options.here = true,
            other => return Err(format!("there is no option `{other}` (--help)").into()),
        }
    }
    Ok(Some(options))
}

fn precision(options: &Options) -> Result<Precision, Box<dyn Error>> {
    match options.precision.as_str() {
        "exact" => Ok(Precision::Exact),
        "tf32" => Ok(Precision::Tf32),
        "bf16" => Ok(Precision::Bf16),
        other => Err(format!("there is no precision `{other}`").into()),
    }
}

fn measure_here(
    options: &Options,
    w: &Workload,
    mode: Mode,
    threads: usize,
) -> Result<Line, Box<dyn Error>> {
    Ok(match options.backend.as_str() {
        "cpu" => {
            let cpu = Cpu::builder().threads(threads).build()?;
            measure::measure(cpu, w, mode, threads)?
        }
        "cuda" => {
            let cuda = Cuda::with_precision(0, precision(options)?)?;
            measure::measure(cuda, w, mode, threads)?
        }
        other => return Err(format!("there is no backend `{other}`").into()),
    })
}

/// One of our measurements, in a process of its own.
fn ours(
    options: &Options,
    w: &Workload,
    mode: Mode,
    threads: usize,
) -> Result<Line, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "bench",
        "--here",
        "--json",
        "--workload",
        w.name,
        "--mode",
        mode.name(),
    ]);
    command.args([
        "--backend",
        &options.backend,
        "--precision",
        &options.precision,
    ]);
    command.args(["--threads", &threads.to_string()]);
    let mut lines = lines_of(&mut command)?;
    lines
        .pop()
        .ok_or_else(|| "a measurement printed nothing".into())
}

/// The same by another framework.
fn theirs(
    options: &Options,
    peer: &str,
    w: &Workload,
    mode: Mode,
    threads: usize,
) -> Result<Vec<Line>, Box<dyn Error>> {
    if peer != "torch" {
        return Err(format!("no script runs `{peer}`; known is torch").into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("no workspace")?;
    let mut command = Command::new(&options.python);
    command.arg(root.join("bench").join("rnn_torch.py"));
    command.args([
        "--workload",
        w.name,
        "--mode",
        mode.name(),
        "--cell",
        w.kind.name(),
    ]);
    for (name, number) in [
        ("--threads", threads),
        ("--layers", w.layers),
        ("--batch", w.batch),
        ("--steps", w.steps),
        ("--inputs", w.inputs),
        ("--units", w.units),
        ("--classes", w.classes.unwrap_or(0)),
    ] {
        command.args([name, &number.to_string()]);
    }
    if w.input_grad {
        command.arg("--input-grad");
    }
    if let Some(lengths) = w.lengths() {
        let lengths: Vec<String> = lengths.iter().map(u64::to_string).collect();
        command.args(["--lengths", &lengths.join(",")]);
    }
    command.args(["--flops", &w.flops(mode).to_string()]);
    if options.backend == "cuda" {
        command.args(["--device", "cuda", "--precision", &options.precision]);
    }
    lines_of(&mut command)
}

/// What a program prints, line by line.
fn lines_of(command: &mut Command) -> Result<Vec<Line>, Box<dyn Error>> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} failed: {}", told.trim()).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The lines of a file by what they measure; of repeated ones the last.
fn read(file: &str) -> Result<HashMap<String, Line>, Box<dyn Error>> {
    let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let lines = text.lines().map(|line| {
        let line: Line = serde_json::from_str(line)?;
        Ok((table::key(&line), line))
    });
    lines.collect()
}

fn verify(options: &Options) -> Result<(), Box<dyn Error>> {
    for kind in [Kind::Lstm, Kind::Gru, Kind::Basic] {
        let sample = match options.backend.as_str() {
            "cuda" => network::sample(&Autodiff::new(Cuda::new(0)?), kind)?,
            _ => network::sample(&Autodiff::new(Cpu::new()), kind)?,
        };
        let line = serde_json::json!({
            "peer": "recurrent",
            "verify": kind.name(),
            "shape_TBH": sample.shape,
            "sum": sample.sum,
            "last": sample.last,
            "dx_abs_sum": sample.input_grad,
            "dwhh_abs_sum": sample.kernel_grad,
        });
        println!("{line}");
    }
    Ok(())
}
