//! One measurement: a workload in one mode, in a separate process.

use std::error::Error;
use std::hint::black_box;

use backend_api::{Backend, Counting, MemoryPolicy, Precision, Result, Tensor};
use backend_cpu::Cpu;
use rnn_train::Autodiff;
use rnn_train::optim::Adam;

use super::check::{check, tolerance};
use super::line::{Line, device as device_name};
use super::network::{Network, Stream};
use super::reading;
use super::timing::{self, Times};
use super::workloads::{Mode, Workload};

/// The workload and the settings of a measurement.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) workload: Workload,
    pub(super) mode: Mode,
    pub(super) policy: MemoryPolicy,
    pub(super) threads: usize,
    pub(super) backend: &'a str,
    pub(super) precision: Precision,
}

/// Checks the results, then times the workload.
pub(super) fn measure<B: Backend>(
    backend: B,
    job: &Job<'_>,
) -> std::result::Result<Line, Box<dyn Error>> {
    let (w, mode) = (&job.workload, job.mode);
    if mode != Mode::Memory {
        // The check does not run before a memory measurement: it would fill the memory pool and
        // make the growth look smaller.
        let device = Autodiff::new(backend.clone());
        check(&device, w, mode, tolerance(job.precision))?;
    }
    let counting = Counting::new(backend);
    let device = Autodiff::new(counting.clone());
    let mut adam = Adam::new(1e-4);
    let (mut growth, mut stored, mut per_run) = (None, None, None);
    let mut count = |f: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let before = counting.counts();
        f()?;
        let run = counting.counts().since(&before);
        per_run = Some((run.launches, run.bytes));
        Ok(())
    };
    let times = match mode {
        Mode::Forward => {
            let network = Network::new(&device, w)?;
            let mut run = || {
                let (outputs, _) = network.forward(rnn_core::Mode::Evaluation)?;
                device.synchronize()?;
                black_box(outputs);
                Ok(())
            };
            count(&mut run)?;
            timing::repeat(&mut run)?
        }
        Mode::Train => {
            let mut network = Network::new(&device, w)?.memory_policy(job.policy);
            let mut run = || {
                black_box(network.train(&mut adam)?);
                device.synchronize()
            };
            count(&mut run)?;
            timing::repeat(&mut run)?
        }
        Mode::Stream => {
            let stream = Stream::new(&device, w)?;
            let mut rnn = stream.start()?;
            let mut step = || {
                black_box(rnn.step(&stream.input)?);
                device.synchronize()
            };
            count(&mut step)?;
            timing::stream(&mut step)?
        }
        Mode::Memory => {
            let short = Workload { steps: 2, ..*w };
            Network::new(&device, &short)?
                .memory_policy(job.policy)
                .train(&mut adam)?;
            let base = timing::resident()?;
            timing::restart_peak();
            let mut network = Network::new(&device, w)?.memory_policy(job.policy);
            let mut adam = Adam::new(1e-4);
            let times = timing::counted(1, &mut || network.train(&mut adam).map(|_| ()))?;
            growth = Some((timing::peak()? - base) / 1024.0);
            stored = Some(network.stored()?.device as f64 / f64::from(1 << 20));
            times
        }
    };
    let median = times.quantile(0.5);
    let several = times.count() > 1;
    let stream = mode == Mode::Stream;
    Ok(Line {
        peer: "recurrent".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        backend: job.backend.into(),
        workload: w.name.into(),
        mode: mode.name().into(),
        threads: job.threads,
        median_s: median,
        gflops: w.flops(mode) / median / 1e9,
        repeats: times.count(),
        min_s: several.then(|| times.quantile(0.0)),
        max_s: several.then(|| times.quantile(1.0)),
        p50_us: stream.then_some(median * 1e6),
        p99_us: stream.then(|| times.quantile(0.99) * 1e6),
        reading_us: (stream && device_name(job.backend) == "cpu")
            .then(|| reading::seconds(w.weight_bytes(), job.threads) * 1e6),
        peak_increase_mib: growth,
        stored_mib: stored,
        launches: per_run.map(|(launches, _)| launches),
        bytes: per_run.map(|(_, bytes)| bytes),
        steps: per_run.map(|_| w.steps),
        peak_gflops: several
            .then(|| machine_peak(counting.inner(), job))
            .transpose()?,
    })
}

/// The peak that rates are compared with. On a CPU it is the peak of vector instructions, even if
/// matmuls use AMX.
fn machine_peak<B: Backend>(backend: &B, job: &Job<'_>) -> Result<f64> {
    if device_name(job.backend) != "cpu" {
        // A GPU needs a large matmul to be fully used.
        return peak(backend, 4096);
    }
    let vectors = Cpu::builder().threads(job.threads).amx(false);
    peak(&vectors.build()?, 1024)
}

/// GFLOP/s of a square matmul, the best of several runs.
fn peak<B: Backend>(backend: &B, side: usize) -> Result<f64> {
    let numbers: Vec<f32> = (0..side * side).map(|i| (i % 17) as f32 * 0.1).collect();
    let x = Tensor::from_slice(backend, &numbers, &[side, side])?;
    let times: Times = timing::counted(18, &mut || {
        black_box(x.matmul(&x)?);
        backend.synchronize()
    })?;
    Ok(2.0 * (side as f64).powi(3) / times.quantile(0.0) / 1e9)
}
