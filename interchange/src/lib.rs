//! Models of other frameworks: weights from and to TensorFlow, Keras, PyTorch and NumPy, and models
//! of ONNX, in [`onnx`].
//!
//! | format | read | written |
//! |---|---|---|
//! | safetensors | yes | yes |
//! | checkpoints of TensorFlow 1 and 2, partitioned variables too | yes | yes, in one shard |
//! | frozen graphs (`GraphDef`) and SavedModels of TensorFlow | variables and constants | |
//! | `.pt`, `.pth` of PyTorch, old ones too | tensors in dictionaries and lists | a `state_dict` |
//! | `.h5`, `.hdf5`, `.weights.h5` of Keras | yes | yes |
//! | `.keras` of Keras | weights | |
//! | `.npz` of NumPy | yes | yes |
//!
//! The format of a file is found by its content. Files are not trusted: a damaged one is an error,
//! and sizes are checked before memory is allocated. A pickle may only ask for tensors.
//!
//! Integers that tensors do not have become wider ones: 8 and 16 bits `i32`, others `i64`. `.npz`
//! and HDF5 files are written with 16-bit floats as `f32`.
//!
//! The modules of [`rnn_train::convert`] make cells of the arrays, and
//! [`load_arrays_under`](rnn_train::checkpoint::load_arrays_under) loads TensorFlow's variables
//! into a cell.

#![forbid(unsafe_code)]

mod contents;
mod convert;
mod element;
mod file;
mod format;
#[cfg(feature = "keras")]
mod keras;
mod npz;
pub mod onnx;
mod pytorch;
mod source;
mod tensorflow;

pub use convert::{Conversion, NameMap, Report, convert};
pub use file::{File, read};
pub use format::Format;
