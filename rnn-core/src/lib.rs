//! Recurrent neural networks, generic over the device they run on.
//!
//! * [`Cell`]: one step of a recurrence; [`cells`] has those of TensorFlow 1.x.
//! * [`wrappers`]: cells around cells.
//! * [`drivers`]: run a cell over sequences: [`DynamicRnn`] and others.
//! * [`Nest`]: what TensorFlow calls a nested structure of tensors: inputs, states, outputs.
//! * [`Module`]: something with named parameters.
//!
//! This crate names no device and knows nothing of gradients: a device that differentiates is
//! a device like any other.

#![forbid(unsafe_code)]

mod any;
mod cell;
pub mod cells;
mod config;
mod dense;
pub mod drivers;
mod init;
mod module;
mod nest;
mod step;
mod unroll;
pub mod wrappers;

pub use any::{AnyCell, AnyState};
pub use cell::Cell;
pub use cells::{BasicLstmCell, BasicRnnCell, GruCell, LstmCell, LstmState};
pub use config::{CELL_CLASSES, CellConfig, cell_from_config};
pub use dense::Dense;
pub use drivers::{
    BidirectionalDynamicRnn, DynamicRnn, FusedRnnCell, FusedRnnCellAdaptor, RawOutput, RawTurn,
    RnnOutput, StackBidirectionalDynamicRnn, StateSaver, StaticRnn, StreamingRnn,
    TimeReversedFusedRnn, raw_rnn, stack_bidirectional_rnn, static_bidirectional_rnn,
    static_state_saving_rnn,
};
pub use init::{Fan, Initializer, Scaled};
pub use module::{Module, Param, ParamId, Visitor};
pub use nest::{Nest, Path};
pub use step::{Mode, Step};
pub use unroll::Unroll;
pub use wrappers::{
    AttentionCellWrapper, ConcatState, DeviceWrapper, DropoutWrapper, EmbeddingWrapper,
    HighwayWrapper, InputProjectionWrapper, MultiRnnCell, OutputProjectionWrapper, ResidualWrapper,
};

// For `nest!`, which names them from other crates.
#[doc(hidden)]
pub use backend_api;
