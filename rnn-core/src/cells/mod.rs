//! The cells of TensorFlow 1.x, one file each: equations, parameters, code. A new one is a file here, its lines
//! below, and a line in the `registry`.

mod affine;
mod basic_lstm;
mod basic_rnn;
mod builder;
mod cfn;
mod coupled_lstm;
mod glstm;
mod gru;
mod intersection_rnn;
mod layer_norm;
mod layer_norm_basic_lstm;
mod layer_norm_lstm;
mod lstm;
mod lstm_core;
mod math;
mod minimal_rnn;
mod nas;
mod sharded;
mod sizes;
mod sru;
mod ugrnn;
mod weight_norm_lstm;

pub(crate) use affine::Affine;
pub use basic_lstm::{BasicLstmCell, BasicLstmCellBuilder, LstmState};
pub use basic_rnn::{BasicRnnCell, BasicRnnCellBuilder};
pub use cfn::{CfnCell, CfnCellBuilder};
pub use coupled_lstm::{CoupledInputForgetGateLstmCell, CoupledInputForgetGateLstmCellBuilder};
pub use glstm::{GlstmCell, GlstmCellBuilder};
pub use gru::{GruCell, GruCellBuilder};
pub use intersection_rnn::{IntersectionRnnCell, IntersectionRnnCellBuilder};
pub use layer_norm_basic_lstm::{LayerNormBasicLstmCell, LayerNormBasicLstmCellBuilder};
pub use layer_norm_lstm::{LayerNormLstmCell, LayerNormLstmCellBuilder};
pub use lstm::{LstmCell, LstmCellBuilder};
pub use minimal_rnn::{MinimalRnnCell, MinimalRnnCellBuilder};
pub use nas::{NasCell, NasCellBuilder};
pub(crate) use sizes::Sizes;
pub use sru::{SruCell, SruCellBuilder};
pub use ugrnn::{UgrnnCell, UgrnnCellBuilder};
pub use weight_norm_lstm::{WeightNormLstmCell, WeightNormLstmCellBuilder};
