//! Training of recurrent networks: gradients by back-propagation through time, losses,
//! optimizers, data input, checkpoints and a training loop.
//!
//! * [`Autodiff`]: a device around a device that records what it computes; [`value_and_grad`] uses it.
//! * [`losses`], [`optim`]: what is made small, and how.
//! * [`checkpoint`]: saving and resuming, bit for bit.
//! * [`convert`]: weights from and for PyTorch and Keras.
//! * [`data`]: readers and batches.
//!
//! This crate names no device.

#![forbid(unsafe_code)]

pub mod autodiff;
pub mod checkpoint;
pub mod convert;
pub mod data;
mod gradient;
mod gradients;
pub mod losses;
pub mod optim;
pub mod training;

pub use autodiff::{Autodiff, Differentiable, gradients_inside};
pub use gradient::{Gradient, IndexedSlices};
pub use gradients::{Gradients, tracked, value_and_grad};
