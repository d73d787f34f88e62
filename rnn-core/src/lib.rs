//! Recurrent neural networks, generic over the device they run on.
//!
//! * [`Cell`]: one step of a recurrence; [`cells`] contains the cells of TensorFlow 1.x.
//! * [`wrappers`]: cells that wrap other cells.
//! * [`drivers`]: run a cell over sequences, for example [`DynamicRnn`].
//! * [`Nest`]: a structure of tensors, for inputs, states and outputs; TensorFlow's nested tuples.
//! * [`Module`]: a type with named parameters.
//!
//! This crate depends on no device and contains no automatic differentiation, which is a backend
//! like any other.

#![forbid(unsafe_code)]

mod any;
mod cell;
pub mod cells;
mod config;
pub mod drivers;
mod init;
mod layers;
mod limits;
mod mode;
mod module;
mod nest;
mod step_context;
mod summary;
mod unroll;
mod widened;
pub mod wrappers;

pub use any::{AnyCell, AnyState};
pub use cell::Cell;
pub use cells::{BasicLstmCell, BasicRnnCell, GruCell, LstmCell, LstmState};
pub use config::{CELL_CLASSES, CellConfig, cell_from_config};
pub use drivers::{
    BidirectionalDynamicRnn, BidirectionalOutput, DynamicRnn, FusedRnnCell, FusedRnnCellAdaptor,
    Lengths, MemoryPlan, RawOutput, RawRnnStep, RnnOutput, StackBidirectionalDynamicRnn,
    StateSaver, StaticRnn, StreamingRnn, TimeReversedFusedRnn, Windows, raw_rnn,
    stack_bidirectional_rnn, static_bidirectional_rnn, static_state_saving_rnn,
};
pub use init::{Fan, Initializer, Scaled};
pub use layers::{Dense, Embedding, LayerNorm};
pub use mode::Mode;
pub use module::{Module, Param, ParamId, Visitor};
pub use nest::{Nest, Path};
pub use step_context::StepContext;
pub use summary::{Sizes, Summary};
pub use unroll::{ExplainedPart, Explanation, StepPath, Unroll};
pub use wrappers::{
    AttentionCellWrapper, ConcatState, DeviceWrapper, DropoutWrapper, EmbeddingWrapper,
    HighwayWrapper, InputProjectionWrapper, Layers, MultiRnnCell, OutputProjectionWrapper,
    ResidualWrapper,
};

/// The crate of the configurations of [`cell_from_config`], in the version (1) that its signature
/// names.
#[doc(no_inline)]
pub use serde_json;

// `nest!` names this crate in its expansion in other crates.
#[doc(hidden)]
pub use backend_api;
