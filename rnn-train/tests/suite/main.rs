//! Data, losses, optimizers, checkpoints and the training loop.

mod checkpoint;
mod common;
mod convert;
mod data;
mod dropout;
mod exchange;
mod gradients;
mod loop_parts;
mod loss_scale;
mod losses;
mod malformed;
mod memory;
mod monitor;
mod optim;
mod parallel;
mod schedule;
mod sparse;
mod training;
mod windows;
