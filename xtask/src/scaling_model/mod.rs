//! `cargo xtask scaling-model`: from which sizes on several machines pay.
//!
//! The times of steps are measured on this machine, with and without what a rank computes to
//! exchange gradients. The time of the network is a model: two passes over the gradients (each rank
//! sends a segment to every other, and receives the sums) at the bandwidth, and a message to each
//! other rank in each pass.

mod overlap;

use std::time::Instant;

use backend_api::{DType, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::{BasicLstmCell, Dense, DynamicRnn, Module};
use rnn_train::Autodiff;
use rnn_train::data::InOrder;
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::Adam;
use rnn_train::parallel::{DataParallel, Local};
use rnn_train::training::Trainer;

const HELP: &str = "\
Usage: cargo xtask scaling-model [--threads N | --overlap]

Measures training steps of an LSTM (50 steps, as many inputs as units, Adam) on N threads (1), and
prints the least rows per machine at which a number of machines reaches 80 % efficiency.

  --overlap   instead, how much of the exchange between two ranks is hidden behind the computation
              of gradients
";

const UNITS: [usize; 4] = [128, 256, 512, 1024];
/// Rows between which the time of a step is taken to be linear.
const ROWS: [usize; 2] = [16, 64];
const STEPS: usize = 50;
const CLASSES: usize = 10;
const MACHINES: [f64; 3] = [2.0, 8.0, 32.0];
const GBIT: [f64; 3] = [10.0, 25.0, 100.0];
/// Seconds of a message without its bytes.
const LATENCY: f64 = 20e-6;
const EFFICIENCY: f64 = 0.8;
/// Timed steps of each measurement, of which the fastest counts.
const REPEATS: usize = 5;

type Device = Autodiff<Cpu>;
type Model = (BasicLstmCell<Device>, Dense<Device>);

/// The measured times of a size, in seconds.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Of a step with no rows, and of each row.
    fixed: f64,
    row: f64,
    /// Of packing, summing and unpacking gradients.
    exchange: f64,
    /// Bytes of gradients.
    bytes: f64,
}

pub(crate) fn run(args: &[String]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let threads = match args {
        [] => 1,
        [option, threads] if option == "--threads" => threads.parse()?,
        [option] if option == "--overlap" => return Ok(overlap::run()?),
        _ => {
            print!("{HELP}");
            return Ok(());
        }
    };
    let device = Autodiff::new(Cpu::builder().threads(threads).build()?);
    println!("Rows per machine for 80 % efficiency; {threads} threads a machine.\n");
    print!(
        "| units | gradients | step of {} rows | exchange |",
        ROWS[1]
    );
    let columns = || MACHINES.iter().flat_map(|n| GBIT.map(|gbit| (*n, gbit)));
    columns().for_each(|(n, gbit)| print!(" {n} at {gbit} Gbit/s |"));
    println!("\n|{}", "---|".repeat(4 + columns().count()));
    for units in UNITS {
        let size = Size::measure(&device, units)?;
        print!(
            "| {units} | {:.1} MB | {:.1} ms | {:.1} ms |",
            size.bytes / 1e6,
            size.step(ROWS[1] as f64) * 1e3,
            size.exchange * 1e3
        );
        columns().for_each(|(n, gbit)| print!(" {} |", size.least_rows(n, gbit)));
        println!();
    }
    Ok(())
}

impl Size {
    fn measure(device: &Device, units: usize) -> Result<Self> {
        let mut model: Model = (
            BasicLstmCell::new(device, units, units)?,
            Dense::new(device, units, CLASSES)?,
        );
        model.initialize(1)?;
        let few = step(device, &model, units, ROWS[0], None)?;
        let many = step(device, &model, units, ROWS[1], None)?;
        let ranks = DataParallel::new(Local::group(1).remove(0))?;
        let exchanged = step(device, &model, units, ROWS[0], Some(&ranks))?;
        let row = (many - few) / (ROWS[1] - ROWS[0]) as f64;
        Ok(Self {
            fixed: few - row * ROWS[0] as f64,
            row,
            exchange: (exchanged - few).max(0.0),
            bytes: (model.param_count() * size_of::<f32>()) as f64,
        })
    }

    fn step(&self, rows: f64) -> f64 {
        self.fixed + self.row * rows
    }

    /// The time that `machines` with this bandwidth in Gbit/s add to a step, none of it hidden.
    fn added(&self, machines: f64, gbit: f64) -> f64 {
        let passes = 2.0 * (machines - 1.0);
        let bytes = self.bytes / machines;
        self.exchange + passes * (bytes / (gbit * 1e9 / 8.0) + LATENCY)
    }

    fn least_rows(&self, machines: f64, gbit: f64) -> usize {
        let step = self.added(machines, gbit) * EFFICIENCY / (1.0 - EFFICIENCY);
        ((step - self.fixed) / self.row).ceil().max(1.0) as usize
    }
}

/// The least time of a training step.
fn step(
    device: &Device,
    model: &Model,
    units: usize,
    rows: usize,
    ranks: Option<&DataParallel>,
) -> Result<f64> {
    let x = Tensor::full(device, 0.1, (&[rows, STEPS, units], DType::F32))?;
    let labels: Vec<i64> = (0..rows).map(|row| (row % CLASSES) as i64).collect();
    let labels = Tensor::from_slice(device, &labels, &[rows])?;
    let (mut model, mut adam) = (model.clone(), Adam::new(1e-4));
    let mut source = InOrder::new(0..REPEATS + 2);
    let mut trainer = Trainer::new(1).show_progress(false);
    if let Some(ranks) = ranks {
        trainer = trainer.across(ranks);
    }
    let mut least = f64::INFINITY;
    for repeat in 0..REPEATS + 1 {
        let start = Instant::now();
        trainer.step(&mut model, &mut adam, &mut source, |(cell, dense), _, _| {
            let last = DynamicRnn::new(cell).run(&x)?.state.h;
            softmax_cross_entropy(&dense.forward(&last)?, &labels)
        })?;
        if repeat > 0 {
            least = least.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_rows_reach_the_efficiency_and_fewer_do_not() {
        let size = Size {
            fixed: 1e-3,
            row: 2e-3,
            exchange: 1e-3,
            bytes: 4e7,
        };
        for machines in MACHINES {
            for gbit in GBIT {
                let rows = size.least_rows(machines, gbit);
                let efficiency = |rows: usize| {
                    let step = size.step(rows as f64);
                    step / (step + size.added(machines, gbit))
                };
                assert!(efficiency(rows) >= EFFICIENCY && efficiency(rows - 1) < EFFICIENCY);
            }
        }
    }

    #[test]
    fn the_network_takes_two_passes() {
        let size = Size {
            fixed: 0.0,
            row: 1.0,
            exchange: 0.0,
            bytes: 10e9 / 8.0,
        };
        // A second for all bytes at 10 Gbit/s: each pass moves half of them.
        assert!((size.added(2.0, 10.0) - (1.0 + 2.0 * LATENCY)).abs() < 1e-9);
    }
}
