//! The training of a task whose batches carry no state.

use std::time::Instant;

use recurrent::data::Source;
use recurrent::optim::Schedule;
use recurrent::prelude::*;

use super::support::Error;
use super::task::{Run, print_epoch};

/// Trains a model with Adam, whose learning rate follows `rate`, and prints the loss of each epoch.
pub fn train<M: Module<Backend = Device>, S: Source>(
    run: &Run,
    rate: Schedule,
    model: &mut M,
    batches: &mut S,
    mut loss: impl FnMut(&M, &S::Item) -> recurrent::Result<Tensor>,
) -> Result<(), Error> {
    let mut adam = Adam::new(rate.at(0));
    let trainer = Trainer::new(run.seed).clip_norm(5.0).schedule(rate);
    let mut trainer = run.saving.begin(trainer, "", model, &mut adam, batches)?;
    while trainer.state().epoch < run.epochs {
        let start = Instant::now();
        let report = trainer.run_epoch(model, &mut adam, batches, |model, batch, _| {
            loss(model, batch)
        })?;
        print_epoch(
            report.epoch,
            start,
            format_args!("loss {:.4}", report.mean_loss),
        )?;
    }
    Ok(())
}
