//! Training of recurrent networks: gradients by back-propagation through time, losses, optimizers,
//! data input, checkpoints and a training loop.
//!
//! * [`Autodiff`]: a backend that wraps another backend and records operations; [`value_and_grad`]
//!   uses it.
//! * [`losses`], [`optim`]: loss functions, metrics and optimizers.
//! * [`checkpoint`]: saving and resuming a run, bit for bit.
//! * [`convert`]: weights from and to PyTorch and Keras.
//! * [`data`]: readers and batches.
//! * [`parallel`]: training on several processes.
//! * [`training`], [`monitor`]: the training loop; its metrics in files, in TensorBoard and as a
//!   report.
//!
//! This crate depends on no particular backend.

#![forbid(unsafe_code)]

mod arrays;
pub mod autodiff;
pub mod checkpoint;
pub mod convert;
pub mod data;
mod gradient;
mod gradients;
pub mod losses;
pub mod monitor;
pub mod optim;
pub mod parallel;
mod regular;
pub mod training;

pub use autodiff::{Autodiff, Differentiable, Reach, TakeGradient, gradients_inside};
pub use gradient::{Gradient, IndexedSlices};
/// What `recurrent-interchange` shares with this crate.
#[doc(hidden)]
pub mod internal {
    pub use crate::arrays::listed;
    pub use crate::checkpoint::atomic::write;
    pub use crate::data::masked_crc;
    pub use crate::regular::open;
}
pub use gradients::{Gradients, tracked, value_and_grad, value_and_grad_of, values_and_grads};
/// The crate of [`data::from_ndarray`] and [`data::Column::from_ndarray`], in the version (0.17)
/// that their signatures name. Not in `data`, where rustdoc would repeat its pages.
#[doc(no_inline)]
pub use ndarray;
