//! Losses, optimizers, checkpoints and the training loop.

mod checkpoint;
mod common;
mod losses;
mod malformed;
mod optim;
mod sparse;
mod training;
