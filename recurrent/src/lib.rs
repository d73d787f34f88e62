//! Recurrent neural networks: the cells, wrappers and drivers of TensorFlow 1.x in Rust, trained by
//! back-propagation through time, on CPUs and NVIDIA GPUs.
//!
//! The types at the root of this crate have no type parameter for the device. [`Device`] is a
//! value, and these types are those of the underlying crates, instantiated for it. The modules
//! re-exported from `rnn_train`, such as [`optim`] and [`training`], stay generic over the backend.
//!
//! ```
//! use recurrent::prelude::*;
//!
//! # fn main() -> recurrent::Result<()> {
//! let device = Device::cpu();
//! let cell = BasicLstmCell::new(&device, 28, 128)?;
//! let images = Tensor::from_slice(&device, &[0.5f32; 3 * 28 * 28], &[3, 28, 28])?;
//! let rnn = DynamicRnn::new(&cell).sequence_length(&[28, 11, 19]).run(&images)?;
//! assert_eq!(rnn.outputs.shape().dims(), [3, 28, 128]); // zero past each length
//! assert_eq!(rnn.state.h.shape().dims(), [3, 128]); // as of each row's last step
//! # Ok(()) }
//! ```
//!
//! The [guides](guide) say what to do for a purpose; the pages of [`cells`] have the equations.
//!
//! # Features
//!
//! * `cpu` (default): the CPU.
//! * `cuda`: NVIDIA GPUs. Builds on any machine; the error of [`Device::cuda`] says what is missing
//!   at run time.
//! * `distributed`: training on several machines, by MPI.
//! * `nccl`: `cuda` and `distributed`, and training on several GPUs by NCCL.
//! * `rsmpi`: `distributed`, built for a library of MPI without the standard ABI of MPI 5.
//! * `interchange`: files of weights of TensorFlow, Keras, PyTorch and NumPy, without Python.
//!
//! Without `cpu`, the functions of [`Device`] that return a CPU device do not exist, and the name
//! `cpu` is an error.

#![forbid(unsafe_code)]

#[cfg(not(any(feature = "cpu", feature = "cuda")))]
compile_error!("recurrent needs a backend: enable the feature `cpu` or `cuda`");

mod aliases;
pub mod cells;
mod device;
pub mod guide;
mod macros;
pub mod prelude;

pub use aliases::*;
/// The contract of a device: the types that [`Backend`]'s methods name.
pub use backend_api as backend;
pub use backend_api::{
    Activation, Backend, Binary, Compare, DType, Distribution, Element, Error, Index, Indices,
    IntoMeta, Memory, MemoryPolicy, Meta, Operand, Precision, Result, Scalar, Shape, Stored,
};
#[cfg(feature = "cpu")]
pub use backend_cpu::Cpu;
#[cfg(feature = "cuda")]
pub use backend_cuda::Cuda;
pub use device::{Device, Dispatch, DispatchBuffer, DispatchSwapped};
#[cfg(feature = "distributed")]
#[doc(inline)]
pub use distributed;
#[cfg(feature = "interchange")]
#[doc(inline)]
pub use interchange;
// The macros name it in their expansion in other crates.
#[doc(hidden)]
pub use rnn_core as __rnn_core;
#[doc(no_inline)]
pub use rnn_core::serde_json;
pub use rnn_core::wrappers;
pub use rnn_core::{
    BidirectionalDynamicRnn, BidirectionalOutput, CELL_CLASSES, Cell, CellConfig, ConcatState,
    DynamicRnn, ExplainedPart, Explanation, Fan, FusedRnnCell, FusedRnnCellAdaptor, Initializer,
    Layers, MemoryPlan, Mode, Module, MultiRnnCell, Nest, ParamId, Path, RawOutput, RawRnnStep,
    RnnOutput, Scaled, Sizes, StackBidirectionalDynamicRnn, StateSaver, StaticRnn, StepContext,
    StepPath, StreamingRnn, Summary, TimeReversedFusedRnn, Unroll, Windows, cell_from_config,
    raw_rnn, stack_bidirectional_rnn, static_bidirectional_rnn, static_state_saving_rnn,
};
pub use rnn_train::data::{from_ndarray, to_ndarray};
#[doc(no_inline)]
pub use rnn_train::ndarray;
pub use rnn_train::{
    Differentiable, Reach, TakeGradient, checkpoint, convert, data, losses, monitor, optim,
    parallel, tracked, training, value_and_grad, value_and_grad_of, values_and_grads,
};

/// The code in the README must compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So must the code in the table of TensorFlow's symbols.
#[cfg(doctest)]
#[doc = include_str!("../../TENSORFLOW.md")]
struct FromTensorFlow;
