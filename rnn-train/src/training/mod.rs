//! The training loop.
//!
//! A [`Trainer`] takes steps: a batch from a [`Source`](crate::data::Source), the loss and its
//! gradient, the optimizer; and between steps it checks, saves and shows. Model, optimizer, data and loss stay the caller's, and
//! so does what happens between epochs.

mod progress;
mod trainer;

pub use trainer::{EpochReport, TrainStep, Trainer};
