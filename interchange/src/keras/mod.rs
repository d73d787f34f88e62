//! Keras's files of weights.

mod read;
mod write;

pub(crate) use read::{open, open_archive};
pub(crate) use write::write;
