//! The interface between recurrent networks and the devices they run on.
//!
//! * [`Backend`]: a device. Its one compute method is [`Backend::run`]; an operation is a value,
//!   [`Op`].
//! * [`Tensor`]: a backend's buffer with a shape, strides and an element type. Its methods check
//!   their arguments before they call the backend.
//! * [`compose`]: the default implementation of each [`Fused`] operation, written once over
//!   [`Tensor`].
//! * [`activation`]: the activation functions, each defined once for every backend.
//! * [`Unfused`], [`Counting`]: backends that wrap a backend, for tests.
//! * [`dispatch!`]: combines several backends into one type.
//! * [`philox`]: random numbers that are identical on every device.
//!
//! This crate depends on no device and defines no recurrent cell.

#![forbid(unsafe_code)]

#[macro_use]
pub mod activation;
mod backend;
mod check;
mod compose;
mod decorators;
mod dispatch;
mod dtype;
mod error;
pub mod expr;
mod infer;
mod layout;
mod names;
mod op;
mod operands;
pub mod philox;
mod precision;
pub mod rounding;
mod shape;
mod shared_doc;
mod stack;
mod tensor;
pub mod trace;
mod update;
mod widen;

pub use activation::Activation;
pub use backend::{
    Backend, Buffers, Dest, Dests, Memory, MemoryPolicy, Metas, SegmentBody, Stored, View, Views,
    foreign_buffer, forward_segment,
};
pub use check::{check_accumulate, check_bytes, check_download, check_run};
pub use compose::compose;
pub use decorators::{Counting, Counts, Unfused};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use layout::Layout;
pub use op::{AdamStep, Binary, Compare, Distribution, Fused, LstmGates, Op, Reduce, Unary};
pub use precision::Precision;
pub use shape::{IntoMeta, MAX_RANK, Meta, Shape};
/// The crate of [`Buffers`], [`Dests`] and [`Metas`], in the version (1) that their types name.
pub use smallvec;
pub use stack::Stacker;
pub use tensor::{Index, Indices, Operand, Scalar, Tensor};
pub use update::{TensorUpdate, Update, check_update, update_by_run};
pub use widen::{accumulate_widened, is_arithmetic, is_widened, run_widened};
