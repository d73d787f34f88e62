//! What runs a cell over sequences. Drivers own the time axis, lengths, reversal and the memory policy;
//! cells never see them.

mod dynamic_rnn;

pub use dynamic_rnn::{DynamicRnn, RnnOutput};
