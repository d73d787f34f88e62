//! The cells of TensorFlow 1.x, one file each: equations, parameters, code. A new one is a file here, its lines
//! below, and a line in the `registry`.

mod affine;
mod basic_lstm;
mod basic_rnn;
mod cudnn_compatible_gru;
mod cudnn_compatible_lstm;
mod gru;
mod gru_block;
mod ind_rnn;
mod independent;
mod indy_gru;
mod indy_lstm;
mod lstm;
mod lstm_block;
mod same_as;
mod sizes;

pub(crate) use affine::Affine;
pub use basic_lstm::{BasicLstmCell, BasicLstmCellBuilder, LstmState};
pub use basic_rnn::{BasicRnnCell, BasicRnnCellBuilder};
pub use cudnn_compatible_gru::{CudnnCompatibleGruCell, CudnnCompatibleGruCellBuilder};
pub use cudnn_compatible_lstm::{CudnnCompatibleLstmCell, CudnnCompatibleLstmCellBuilder};
pub use gru::{GruCell, GruCellBuilder};
pub use gru_block::{GruBlockCell, GruBlockCellBuilder};
pub use ind_rnn::{IndRnnCell, IndRnnCellBuilder};
pub(crate) use independent::Independent;
pub use indy_gru::{IndyGruCell, IndyGruCellBuilder};
pub use indy_lstm::{IndyLstmCell, IndyLstmCellBuilder};
pub use lstm::{LstmCell, LstmCellBuilder};
pub use lstm_block::{LstmBlockCell, LstmBlockCellBuilder};
pub(crate) use sizes::Sizes;
