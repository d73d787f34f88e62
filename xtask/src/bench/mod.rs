//! `cargo xtask bench`: measures the workloads and compares them with the other frameworks that are
//! installed.

mod check;
mod cores;
mod custom_cell;
mod input;
pub(crate) mod instructions;
mod line;
mod measure;
mod network;
mod options;
mod peers;
mod reading;
mod scaling;
mod table;
#[path = "../../../bench/timing.rs"]
mod timing;
mod workloads;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use backend_api::Unfused;
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use recurrent_tests::devices::TestBackend;

use cores::Cores;
use line::{Line, device, label};
use measure::Job;
use options::Options;
use peers::Peer;
use workloads::{Kind, Mode, Workload};

pub(crate) fn run(args: &[String]) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The root folder of the workspace.
fn root() -> &'static Path {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap_or(folder)
}

fn try_run(args: &[String]) -> Result<(), Box<dyn Error>> {
    if let Some(at) = args.iter().position(|arg| arg == "--input") {
        return input::run(&[&args[..at], &args[at + 1..]].concat());
    }
    let Some(options) = Options::parse(args)? else {
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
        let ([(w, mode, threads)], [backend]) = (&jobs[..], &options.backends[..]) else {
            return Err("--here requires one workload, mode, number of threads and backend".into());
        };
        let line = measure_here(&options, backend, *w, *mode, *threads)?;
        println!("{}", serde_json::to_string(&line)?);
        return Ok(());
    }
    let without = options.without_mode();
    if jobs.is_empty() {
        return Err(format!("there is nothing to measure: {}", without.join("; ")).into());
    }
    for remark in without {
        eprintln!("bench: {remark}");
    }
    let baseline = options.baseline.as_deref().map(read).transpose()?;
    let cores = Cores::find();
    let most = options.threads.iter().max().copied().unwrap_or(1);
    if let Some(remark) = cores.remark(most) {
        eprintln!("bench: {remark}");
    }
    let peers = peers_of(&options);
    let mut devices: Vec<&str> = Vec::new();
    for on in options.backends.iter().map(|b| device(b)) {
        if !devices.contains(&on) {
            devices.push(on);
        }
    }
    let mut lines = Vec::new();
    for (w, mode, threads) in jobs {
        for &on in &devices {
            // The number of CPU threads does not affect a GPU.
            if on != "cpu" && threads != options.threads[0] {
                continue;
            }
            for backend in options.backends.iter().filter(|b| device(b) == on) {
                let line = ours(&options, &cores, backend, &w, mode, threads)?;
                record(&options, line, &mut lines)?;
            }
            for peer in &peers {
                let what = (on, options.precision.name());
                match peer.run(&cores, &w, mode, threads, what) {
                    Ok(found) if found.is_empty() => {
                        let (name, mode) = (&peer.name, mode.name());
                        eprintln!("{name} {}: {mode} on {on} is not supported", w.name);
                    }
                    Ok(found) => {
                        for line in found {
                            record(&options, line, &mut lines)?;
                        }
                    }
                    Err(e) => eprintln!("{} {} {}: {e}", peer.name, w.name, mode.name()),
                }
            }
        }
    }
    if options.scaling {
        scaling::draw(&lines, &options.plots)?;
    }
    match (options.json, options.scaling) {
        (true, _) => {}
        (false, true) => print!("{}", scaling::tables(&lines)),
        (false, false) => print!("{}", table::table(&lines, baseline.as_ref())),
    }
    Ok(())
}

/// The requested frameworks that are available.
fn peers_of(options: &Options) -> Vec<Peer> {
    let find = |name: &String| {
        Peer::find(name, &options.python)
            .inspect_err(|why| eprintln!("bench: {name} is skipped: {why}"))
            .ok()
    };
    options.compare.iter().filter_map(find).collect()
}

/// Records a result and prints it.
fn record(options: &Options, line: Line, lines: &mut Vec<Line>) -> Result<(), Box<dyn Error>> {
    let text = serde_json::to_string(&line)?;
    if options.json {
        println!("{text}");
    } else {
        eprintln!("{}: {:.3} ms", table::key(&line), line.median_s * 1e3);
    }
    if let Some(file) = &options.save {
        use std::io::Write;
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)?;
        writeln!(file, "{text}")?;
    }
    lines.push(line);
    Ok(())
}

fn measure_here(
    options: &Options,
    backend: &str,
    workload: Workload,
    mode: Mode,
    threads: usize,
) -> Result<Line, Box<dyn Error>> {
    let job = Job {
        workload,
        mode,
        threads,
        backend: &label(backend, options.precision.name()),
        precision: options.precision,
    };
    let builder = Cpu::builder().threads(threads).precision(job.precision);
    let cpu = || builder.build();
    let cuda = || Cuda::with_precision(0, job.precision);
    let device = match backend {
        "cpu" => TestBackend::Cpu(cpu()?),
        "cpu-vector" => TestBackend::Cpu(builder.amx(false).build()?),
        "cpu-unfused" => TestBackend::UnfusedCpu(Unfused(cpu()?)),
        "cuda" => TestBackend::Cuda(cuda()?),
        "cuda-unfused" => TestBackend::UnfusedCuda(Unfused(cuda()?)),
        other => return Err(format!("unknown backend `{other}`").into()),
    };
    measure::measure(device, &job)
}

/// Runs one measurement of this project in a separate process.
fn ours(
    options: &Options,
    cores: &Cores,
    backend: &str,
    w: &Workload,
    mode: Mode,
    threads: usize,
) -> Result<Line, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let mut command = cores.command(program.as_os_str(), threads, device(backend));
    command.args(["bench", "--here", "--workload", w.name]);
    command.args(["--mode", mode.name(), "--device", backend]);
    command.args(["--precision", options.precision.name()]);
    command.args(["--threads", &threads.to_string()]);
    let line = peers::lines_of(&mut command)?.pop();
    line.ok_or_else(|| "a measurement printed no result".into())
}

/// The results in a file, by key; the last one of each key counts.
fn read(file: &str) -> Result<HashMap<String, Line>, Box<dyn Error>> {
    let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let lines = text.lines().map(|line| {
        let line: Line = serde_json::from_str(line)?;
        Ok((table::key(&line), line))
    });
    lines.collect()
}

/// Prints samples, and compares them with those of other frameworks.
fn verify(options: &Options) -> Result<(), Box<dyn Error>> {
    let peers = peers_of(options);
    for kind in Kind::ALL {
        let mut samples = Vec::new();
        for name in &options.backends {
            let device = recurrent_tests::devices::device(name)?;
            let sample = network::sample(&device, kind)?;
            let standard = Kind::STANDARD.contains(&kind);
            let weights = if standard {
                "dwhh_abs_sum"
            } else {
                "dparams_abs_sum"
            };
            samples.push(serde_json::json!({
                "peer": "recurrent",
                "backend": name,
                "verify": kind.name(),
                "shape_TBH": sample.shape,
                "sum": sample.sum,
                "last": sample.last,
                "dx_abs_sum": sample.input_grad,
                weights: sample.weight_grad,
            }));
        }
        if !Kind::STANDARD.contains(&kind) {
            for peer in &peers {
                samples.extend(peer.sample(kind)?);
            }
        }
        for sample in &samples {
            println!("{sample}");
            if let Some(key) = difference(&samples[0], sample) {
                return Err(format!("{}: `{key}` differs from ours", sample["peer"]).into());
            }
        }
    }
    Ok(())
}

/// The first result in which two samples differ by more than rounding.
fn difference(ours: &serde_json::Value, theirs: &serde_json::Value) -> Option<&'static str> {
    let near = |a: &serde_json::Value, b: &serde_json::Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-4 * a.abs().max(1e-3),
        _ => a == b,
    };
    let keys = [
        "verify",
        "shape_TBH",
        "sum",
        "last",
        "dx_abs_sum",
        "dwhh_abs_sum",
        "dparams_abs_sum",
    ];
    keys.into_iter().find(|&key| {
        let (a, b) = (&ours[key], &theirs[key]);
        !match (a.as_array(), b.as_array()) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b)),
            _ => near(a, b),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_agree_up_to_rounding() {
        let sample = |sum: f64, last: &[f64]| serde_json::json!({"sum": sum, "last": last});
        let ours = sample(0.5, &[0.1, 0.0]);
        assert_eq!(difference(&ours, &sample(0.500_01, &[0.1, 1e-8])), None);
        assert_eq!(difference(&ours, &sample(0.501, &[0.1, 0.0])), Some("sum"));
        assert_eq!(difference(&ours, &sample(0.5, &[0.1, 1e-3])), Some("last"));
        assert_eq!(difference(&ours, &sample(0.5, &[0.1])), Some("last"));
        assert_eq!(
            difference(&ours, &serde_json::json!({"sum": 0.5})),
            Some("last")
        );
    }
}
