//! The cells of TensorFlow 1.x, one file each: equations, parameters, code. A new one is a file here, its lines
//! below, and a line in the `registry`.

mod affine;
mod basic_lstm;
mod basic_rnn;
mod gru;
mod lstm;
mod sizes;

pub(crate) use affine::Affine;
pub use basic_lstm::{BasicLstmCell, BasicLstmCellBuilder, LstmState};
pub use basic_rnn::{BasicRnnCell, BasicRnnCellBuilder};
pub use gru::{GruCell, GruCellBuilder};
pub use lstm::{LstmCell, LstmCellBuilder};
pub(crate) use sizes::Sizes;
