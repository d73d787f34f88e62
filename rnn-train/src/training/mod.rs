//! The training loop.
//!
//! For each step, a [`Trainer`] takes a batch from a [`Source`](crate::data::Source), computes the
//! loss and its gradient, and calls the optimizer. Between steps it checks for non-finite values,
//! saves checkpoints and shows progress. The caller owns the model, the optimizer, the data and the
//! loss, and decides what happens between epochs.

mod progress;
mod trainer;

pub use trainer::{EpochReport, TrainStep, Trainer};
