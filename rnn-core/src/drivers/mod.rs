//! Drivers run a cell over sequences. They own the time axis, lengths, reversal and the memory
//! policy; a cell's step sees none of these.

mod bidirectional;
mod dynamic_rnn;
mod fused;
mod lengths;
mod raw_rnn;
mod stack_bidirectional;
mod state_saving;
mod static_rnn;
mod streaming;

pub use bidirectional::{BidirectionalDynamicRnn, BidirectionalOutput, static_bidirectional_rnn};
pub use dynamic_rnn::{DynamicRnn, RnnOutput};
pub use fused::{FusedRnnCell, FusedRnnCellAdaptor, TimeReversedFusedRnn};
pub use lengths::Lengths;
pub use raw_rnn::{RawOutput, RawRnnStep, raw_rnn};
pub use stack_bidirectional::{StackBidirectionalDynamicRnn, stack_bidirectional_rnn};
pub use state_saving::{StateSaver, static_state_saving_rnn};
pub use static_rnn::StaticRnn;
pub use streaming::StreamingRnn;
