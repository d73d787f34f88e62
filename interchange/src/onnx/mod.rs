//! ONNX: models are read, run and written.
//!
//! [`Model::read`] reads a file, [`Model::on`] copies it to a device, [`Session::run`] computes.
//! The operators RNN, GRU and LSTM run as cells under the drivers: as `BasicRnnCell`, `GruCell` and
//! `LstmCell` where these have the options, else as cells of their own whose steps are compiled.
//!
//! The operators are those of [`OPERATORS`], in the versions 7 to 28 of ONNX. Anything else is an
//! error that names the node and what it needs ([`is_unsupported`]).
//!
//! [`write()`] and [`write_bidirectional`] write cells. Their states are inputs and outputs of the
//! model, and time and batch are symbolic.

mod array;
mod call;
mod error;
mod export;
mod model;
mod node;
mod operators;
mod proto;
mod recurrent;
mod session;
mod testing;
mod value;

pub use array::Array;
pub use error::is_unsupported;
pub use export::{Exportable, Layer, write, write_bidirectional};
pub use model::{Dim, Model, Port};
pub use operators::OPERATORS;
pub use session::Session;
pub use testing::{run_test, test_folders};
