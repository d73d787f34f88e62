//! One measurement: a workload in one mode, in a process of its own.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use backend_api::{Backend, Counting, Result, Tensor};
use rnn_train::optim::Adam;
use rnn_train::{Autodiff, Differentiable};
use serde::{Deserialize, Serialize};

use super::network::{Network, Stream};
use super::workloads::{Mode, Workload};

/// A result, as one line of JSON. Times are in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) peer: String,
    pub(super) version: String,
    pub(super) workload: String,
    pub(super) mode: String,
    pub(super) threads: usize,
    pub(super) median_s: f64,
    pub(super) gflops: f64,
    pub(super) repeats: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peak_increase_mib: Option<f64>,
    /// Operations a run asked the device for, and the bytes they read and wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) launches: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    /// Of a square product of 1024, measured in the same process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peak_gflops: Option<f64>,
}

/// How long a measurement warms up and how long it runs, and how often at least.
const WARM: Duration = Duration::from_millis(1500);
const BUDGET: Duration = Duration::from_secs(6);
const RUNS: std::ops::RangeInclusive<usize> = 5..=100;

pub(super) fn measure<B: Backend>(
    backend: B,
    w: &Workload,
    mode: Mode,
    threads: usize,
) -> Result<Line> {
    let counting = Counting::new(backend);
    let device = Autodiff::new(counting.clone());
    let mut adam = Adam::new(1e-4);
    let (mut times, mut growth, mut per_run) = (Vec::new(), None, None);
    let mut run = |times: &mut Vec<f64>, f: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let before = counting.counts();
        f()?;
        let after = counting.counts();
        per_run = Some((after.launches - before.launches, after.bytes - before.bytes));
        *times = repeat(f)?;
        Ok(())
    };
    match mode {
        Mode::Forward => {
            let network = Network::new(&device, w)?;
            run(&mut times, &mut || {
                let (outputs, _) = network.forward()?;
                device.synchronize()?;
                black_box(outputs);
                Ok(())
            })?;
        }
        Mode::Train => {
            let mut network = Network::new(&device, w)?;
            run(&mut times, &mut || {
                black_box(network.train(&mut adam)?);
                device.synchronize()
            })?;
        }
        Mode::Stream => {
            let mut stream = Stream::new(&device, w)?;
            let mut step = || {
                black_box(stream.step()?);
                device.synchronize()
            };
            for _ in 0..1000 {
                step()?;
            }
            times = timed(5000, &mut step)?;
        }
        Mode::Memory => {
            let short = Workload { steps: 2, ..*w };
            Network::new(&device, &short)?.train(&mut adam)?;
            let base = status("VmRSS")?;
            // Starts the peak anew.
            let _ = fs::write("/proc/self/clear_refs", "5");
            let mut network = Network::new(&device, w)?;
            let mut adam = Adam::new(1e-4);
            times = timed(1, &mut || network.train(&mut adam).map(|_| ()))?;
            growth = Some((status("VmHWM")? - base) / 1024.0);
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let spread = matches!(mode, Mode::Forward | Mode::Train);
    let stream = mode == Mode::Stream;
    Ok(Line {
        peer: "recurrent".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        workload: w.name.into(),
        mode: mode.name().into(),
        threads,
        median_s: median,
        gflops: w.flops(mode) / median / 1e9,
        repeats: times.len(),
        min_s: spread.then(|| times[0]),
        max_s: spread.then(|| times[times.len() - 1]),
        p50_us: stream.then_some(median * 1e6),
        p99_us: stream.then(|| times[times.len() * 99 / 100] * 1e6),
        peak_increase_mib: growth,
        launches: per_run.map(|(launches, _)| launches),
        bytes: per_run.map(|(_, bytes)| bytes),
        peak_gflops: (mode != Mode::Memory).then(|| peak(&device)).transpose()?,
    })
}

/// GFLOP/s of a square product.
fn peak<B: Differentiable>(device: &B) -> Result<f64> {
    const SIDE: usize = 1024;
    let numbers: Vec<f32> = (0..SIDE * SIDE).map(|i| (i % 17) as f32 * 0.1).collect();
    let x = Tensor::from_slice(device, &numbers, &[SIDE, SIDE])?;
    let mut product = || {
        black_box(x.matmul(&x)?);
        device.synchronize()
    };
    timed(3, &mut product)?;
    let mut times = timed(15, &mut product)?;
    times.sort_by(f64::total_cmp);
    Ok(2.0 * (SIDE as f64).powi(3) / times[times.len() / 2] / 1e9)
}

/// The times of runs after some to warm up.
fn repeat(f: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let start = Instant::now();
    let mut warm = 0;
    while warm < 2 || (start.elapsed() < WARM && warm < 30) {
        f()?;
        warm += 1;
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < *RUNS.start() || (start.elapsed() < BUDGET && times.len() < *RUNS.end()) {
        times.extend(timed(1, f)?);
    }
    Ok(times)
}

fn timed(count: usize, f: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f64>> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            f()?;
            Ok(start.elapsed().as_secs_f64())
        })
        .collect()
}

/// A figure of the process in KiB, where the system has it.
fn status(key: &str) -> Result<f64> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).map_err(|e| backend_api::Error::io(path, e))?;
    let line = text.lines().find(|line| line.starts_with(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| backend_api::Error::format(path, format!("has no {key}")))
}
