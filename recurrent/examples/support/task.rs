//! What the five tasks share: their options, padded batches, and the lines that they print.

use std::fmt;
use std::io::{Write, stdout};
use std::time::Instant;

use recurrent::MemoryPolicy;
use recurrent::prelude::*;

use super::saving::Saving;
use super::support::{Error, Options};

/// The names of the options that every task has.
pub const OPTIONS: [&str; 7] = [
    "epochs", "device", "memory", "seed", "evaluate", "save", "resume",
];

/// The values of these options.
#[derive(Clone, Debug)]
pub struct Run {
    /// The device that trains.
    pub device: Device,
    /// The memory policy of back-propagation through time.
    pub memory: MemoryPolicy,
    /// The number of passes over the training data.
    pub epochs: u64,
    /// The seed of the initialization, of dropout and of the order of the data.
    pub seed: u64,
    /// The names of the other devices on which the trained model is evaluated.
    pub evaluate: Vec<String>,
    /// Where the run saves checkpoints.
    pub saving: Saving,
}

impl Run {
    /// The steps of a segment of the memory policy. With one length, all policies have one order of
    /// sums, and the same results.
    pub const SEGMENT: usize = 16;

    /// The values on the command line; `epochs` is the default.
    pub fn of(options: &Options, epochs: u64) -> Result<Self, Error> {
        let others = options.text("evaluate").into_iter();
        Ok(Self {
            device: options.device()?,
            memory: options.get("memory", MemoryPolicy::Store)?,
            epochs: options.get("epochs", epochs)?,
            seed: options.get("seed", 0)?,
            evaluate: others
                .flat_map(|s| s.split(','))
                .map(str::to_owned)
                .collect(),
            saving: Saving::of(options)?,
        })
    }

    /// Prints what `measure` says of the model, on the run's device and on those of `--evaluate`.
    pub fn report<M: Module<Backend = Device>, R: fmt::Display>(
        &self,
        model: &M,
        measure: impl Fn(&Run, &M) -> Result<R, Error>,
    ) -> Result<(), Error> {
        writeln!(stdout(), "test {}", measure(self, model)?)?;
        for name in &self.evaluate {
            let mut other = self.clone();
            other.device = name.parse()?;
            let found = measure(&other, &model.to(&other.device)?)?;
            writeln!(stdout(), "{name} test {found}")?;
        }
        Ok(())
    }
}

/// Prints the line of an epoch that began at `start`.
pub fn print_epoch(epoch: u64, start: Instant, figures: impl fmt::Display) -> Result<(), Error> {
    let seconds = start.elapsed().as_secs_f64();
    writeln!(stdout(), "epoch {epoch} {figures} seconds {seconds:.2}")?;
    Ok(())
}
