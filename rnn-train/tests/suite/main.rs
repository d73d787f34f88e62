//! Data, losses, optimizers, checkpoints and the training loop.

mod checkpoint;
mod common;
mod convert;
mod data;
mod gradients;
mod loss_scale;
mod losses;
mod malformed;
mod optim;
mod sparse;
mod training;
