//! `cargo xtask scaling-model --overlap`: how much of the exchange of gradients is hidden behind
//! the walk backwards.
//!
//! Two ranks, threads of this process with one thread of the device each, take steps: apart, with
//! an exchange that begins after the walk (one bucket), and with one that begins as soon as a layer
//! is complete (a bucket for each layer). What the exchange adds to a step apart is compared. A
//! network is modelled by waiting: for the bytes that a rank sends at a bandwidth.

use std::thread;
use std::time::{Duration, Instant};

use backend_api::{DType, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::{BasicLstmCell, Dense, DynamicRnn, Module, MultiRnnCell};
use rnn_train::Autodiff;
use rnn_train::data::InOrder;
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::Adam;
use rnn_train::parallel::{Collective, DataParallel, Local};
use rnn_train::training::Trainer;

use super::{CLASSES, LATENCY, STEPS};

type Device = Autodiff<Cpu>;
type Model = (MultiRnnCell<Vec<BasicLstmCell<Device>>>, Dense<Device>);

const UNITS: usize = 512;
const ROWS: usize = 16;
const RANKS: usize = 2;
/// Timed steps, of which the fastest counts.
const REPEATS: usize = 15;

/// Ranks with a network of this bandwidth between them.
#[derive(Debug)]
struct Network {
    ranks: Local,
    gbit: f64,
}

impl Network {
    fn transfer(&self, bytes: usize) {
        let others = self.size() - 1;
        if self.gbit.is_finite() {
            let seconds = bytes as f64 * 8.0 / (self.gbit * 1e9) + LATENCY * others as f64;
            thread::sleep(Duration::from_secs_f64(seconds));
        }
    }
}

impl Collective for Network {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let all: usize = parts.iter().map(Vec::len).sum();
        let sent = all - parts.get(self.rank()).map_or(0, Vec::len);
        let received = self.ranks.exchange(parts)?;
        self.transfer(sent);
        Ok(received)
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let all = self.ranks.all_gather(mine)?;
        self.transfer(mine.len() * (self.size() - 1));
        Ok(all)
    }
}

pub(super) fn run() -> Result<()> {
    println!(
        "LSTMs of {UNITS} units, {STEPS} steps, {ROWS} rows, {RANKS} ranks of one thread.\n\n\
         | layers | gradients | network | step apart | exchange after walk | during | hidden |\n\
         |---|---|---|---|---|---|---|"
    );
    for layers in [1, 3] {
        let (apart, bytes) = step(layers, f64::INFINITY, None)?;
        for gbit in [f64::INFINITY, 25.0, 10.0, 1.0] {
            let (after, _) = step(layers, gbit, Some(usize::MAX))?;
            // The kernel of a layer.
            let (during, _) = step(layers, gbit, Some(2 * UNITS * 4 * UNITS * size_of::<f32>()))?;
            let (after, during) = (after - apart, during - apart);
            let network = match gbit.is_finite() {
                true => format!("{gbit} Gbit/s"),
                false => "none".to_owned(),
            };
            println!(
                "| {layers} | {:.1} MB | {network} | {:.1} ms | {:.1} ms | {:.1} ms | {:.0} % |",
                bytes as f64 / 1e6,
                apart * 1e3,
                after * 1e3,
                during * 1e3,
                (1.0 - during / after) * 1e2
            );
        }
    }
    Ok(())
}

/// The time of a step of every rank, apart without a number of bytes for a bucket, and the bytes of
/// gradients.
fn step(layers: usize, gbit: f64, bucket_bytes: Option<usize>) -> Result<(f64, usize)> {
    let times = Local::run(RANKS, |ranks| {
        let device = Autodiff::new(Cpu::builder().threads(1).build()?);
        let cell = |_| BasicLstmCell::new(&device, UNITS, UNITS);
        let mut model: Model = (
            MultiRnnCell::new((0..layers).map(cell).collect::<Result<Vec<_>>>()?)?,
            Dense::new(&device, UNITS, CLASSES)?,
        );
        model.initialize(1)?;
        let x = Tensor::full(&device, 0.1, (&[ROWS, STEPS, UNITS], DType::F32))?;
        let labels: Vec<i64> = (0..ROWS).map(|row| (row % CLASSES) as i64).collect();
        let labels = Tensor::from_slice(&device, &labels, &[ROWS])?;
        let (mut adam, mut source) = (Adam::new(1e-4), InOrder::new(0..RANKS * (REPEATS + 2)));
        let mut trainer = Trainer::new(1).show_progress(false);
        if let Some(bytes) = bucket_bytes {
            let ranks = DataParallel::new(Network { ranks, gbit })?.bucket_bytes(bytes);
            trainer = trainer.accumulate(RANKS as u64).across(&ranks);
        }
        let mut least = f64::INFINITY;
        for repeat in 0..=REPEATS {
            let start = Instant::now();
            trainer.step(&mut model, &mut adam, &mut source, |(cell, dense), _, _| {
                let last = DynamicRnn::new(cell)
                    .run(&x)?
                    .outputs
                    .select(1, STEPS - 1)?;
                softmax_cross_entropy(&dense.forward(&last)?, &labels)
            })?;
            // The first one allocates.
            if repeat > 0 {
                least = least.min(start.elapsed().as_secs_f64());
            }
        }
        Ok((least, model.param_count() * size_of::<f32>()))
    })?;
    let slowest = times.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    Ok(slowest.unwrap_or_default())
}
