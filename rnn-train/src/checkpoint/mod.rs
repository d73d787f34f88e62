//! Saving a training run, and going on with it exactly where it was.
//!
//! A run has a folder, and a checkpoint in it is one file, `step-00001200.safetensors`, with all that a
//! resumed run needs to take the same steps as one that was never stopped:
//!
//! | in the file | as |
//! |---|---|
//! | parameters | tensors `param/<name>` |
//! | optimizer slots | tensors `slot/<name>/Adam`, `slot/<name>/Adam_1` |
//! | recurrent state carried from batch to batch | tensors `carry/0`, `carry/1`, .. |
//! | step, epoch, seed, place in the data ([`TrainState`]) | metadata |
//! | model configuration ([`Checkpoints::config`]), optimizer and its configuration | metadata |
//! | format version, version of this crate, checksum | metadata |
//!
//! Any reader of safetensors opens it. The metadata is JSON under the key `recurrent`.
//!
//! * A file appears under its name complete and on the disk, or not at all: a process may be killed, and the power
//!   may fail, at any moment.
//! * A file with a single wrong bit is refused, as is one of another model, another optimizer
//!   or a newer format. What is refused changes nothing.
//! * Nothing is passed over in silence: if the newest checkpoint is damaged, that is an error, which
//!   says from where one could go on.
//!
//! [`save_params`] and [`load_params`] are for the parameters alone.

mod atomic;
pub(crate) mod file;
mod folder;
mod params;
mod read;
mod seal;
mod state;

use std::path::{Path, PathBuf};

use backend_api::Result;
use rnn_core::Module;

pub use folder::Checkpoints;
pub use params::{load_params, save_params};
pub use read::Checkpoint;
pub use state::TrainState;

use crate::optim::Optimizer;

/// The format that is written; it and all before it are read.
pub const FORMAT: u64 = 1;

/// Saves a checkpoint in the folder of a run: [`Checkpoints::save`] with the defaults.
///
/// # Errors
/// Those of [`Checkpoints::save`].
pub fn save<M: Module, O: Optimizer<M::B>>(
    folder: impl AsRef<Path>,
    model: &M,
    optimizer: &O,
    state: &TrainState<M::B>,
) -> Result<PathBuf> {
    Checkpoints::new(folder).save(model, optimizer, state)
}

/// Goes on from the newest checkpoint in the folder of a run: [`Checkpoints::resume`] with the defaults.
///
/// # Errors
/// Those of [`Checkpoints::resume`].
pub fn resume<M: Module, O: Optimizer<M::B>>(
    folder: impl AsRef<Path>,
    model: &mut M,
    optimizer: &mut O,
) -> Result<Option<TrainState<M::B>>> {
    Checkpoints::new(folder).resume(model, optimizer)
}
