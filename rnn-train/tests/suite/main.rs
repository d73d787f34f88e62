//! Losses, optimizers, checkpoints and the training loop.

mod checkpoint;
mod common;
mod loss_scale;
mod losses;
mod malformed;
mod optim;
mod sparse;
mod training;
