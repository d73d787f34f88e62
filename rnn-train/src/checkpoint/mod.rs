//! Saving a training run, and resuming it exactly.
//!
//! Each run has a folder. A checkpoint is one file in it, such as `step-00001200.safetensors`. It
//! contains everything that a resumed run needs to take the same steps as an uninterrupted one:
//!
//! | in the file | as |
//! |---|---|
//! | parameters | tensors `param/<name>` |
//! | optimizer slots (`f32` for 16-bit floats) | tensors `slot/<name>/Adam`, .. |
//! | recurrent state carried from batch to batch | tensors `carry/0`, `carry/1`, .. |
//! | step, epoch, seed, position in the data ([`TrainState`]) | metadata |
//! | model configuration ([`Checkpoints::config`]), optimizer and its configuration | metadata |
//! | format version, version of this crate, checksum | metadata |
//!
//! Any reader of safetensors opens it. The metadata is JSON under the key `recurrent`.
//!
//! * Writing is atomic: after a crash or a power failure, a file is either complete and on the
//!   disk, or absent.
//! * A file with a single wrong bit is rejected. So is a checkpoint of another model, another
//!   optimizer or a newer format. A rejected file changes nothing.
//! * What is written is read back before it replaces anything. A number that is not finite in the
//!   configuration or the state, which JSON cannot represent, is an error that names it.
//! * Saving replaces only regular files, and follows a link to one.
//! * A damaged newest checkpoint is an error and is never skipped silently. The error names the
//!   checkpoint from which the run can be resumed.
//!
//! [`save_params`] and [`load_params`] save and load only the parameters, and
//! [`load_params_under`] those of a part of a model.

pub(crate) mod atomic;
pub(crate) mod exact;
pub(crate) mod file;
mod folder;
mod header;
mod params;
mod read;
mod seal;
mod state;

use std::path::{Path, PathBuf};

use backend_api::Result;
use rnn_core::Module;

pub use folder::Checkpoints;
pub use params::{Loaded, load_arrays_under, load_params, load_params_under, save_params};
pub use read::Checkpoint;
pub use state::TrainState;

use crate::optim::Optimizer;

/// The format version that is written. This and all earlier versions can be read, and so can slots
/// in 16 bits, which earlier versions of this crate wrote for parameters of 16-bit floats.
pub const FORMAT: u64 = 1;

/// Saves a checkpoint in the folder of a run: [`Checkpoints::save`] with default settings.
///
/// ```
/// use recurrent::checkpoint::{TrainState, resume, save};
/// use recurrent::{Dense, Device, Sgd};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-save");
/// # let _ = std::fs::remove_dir_all(&folder);
/// let (mut model, mut sgd) = (Dense::new(&Device::cpu(), 3, 2)?, Sgd::new(0.1));
/// assert!(resume(&folder, &mut model, &mut sgd)?.is_none()); // nothing there yet
/// save(&folder, &model, &sgd, &TrainState::new(42))?;
/// assert!(resume(&folder, &mut model, &mut sgd)?.is_some());
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`Checkpoints::save`].
pub fn save<M: Module, O: Optimizer<M::Backend>>(
    folder: impl AsRef<Path>,
    model: &M,
    optimizer: &O,
    state: &TrainState<M::Backend>,
) -> Result<PathBuf> {
    Checkpoints::new(folder).save(model, optimizer, state)
}

/// Resumes from the newest checkpoint in the folder of a run: [`Checkpoints::resume`] with default
/// settings.
///
/// ```
/// use recurrent::checkpoint::{TrainState, resume, save};
/// use recurrent::{Dense, Device, Module, Sgd};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-resume");
/// # let _ = std::fs::remove_dir_all(&folder);
/// let (device, mut sgd) = (Device::cpu(), Sgd::new(0.1));
/// let mut trained = Dense::new(&device, 3, 2)?;
/// trained.initialize(7)?;
/// save(&folder, &trained, &sgd, &TrainState::new(42))?;
/// let mut model = Dense::new(&device, 3, 2)?;
/// assert!(resume(&folder, &mut model, &mut sgd)?.is_some());
/// let kernel = |model: &Dense| model.named_params()[0].1.to_vec::<f32>();
/// assert_eq!(kernel(&model)?, kernel(&trained)?);
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`Checkpoints::resume`].
pub fn resume<M: Module, O: Optimizer<M::Backend>>(
    folder: impl AsRef<Path>,
    model: &mut M,
    optimizer: &mut O,
) -> Result<Option<TrainState<M::Backend>>> {
    Checkpoints::new(folder).resume(model, optimizer)
}
