//! Saving and loading only the parameters of a model.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use backend_api::{Error, Result};
use rnn_core::Module;

use super::file::{self, Content, Stored};

/// Prefix of parameter names in a checkpoint.
pub(super) const PARAM: &str = "param/";

/// Saves the parameters of a model by name in a safetensors file, for inference and for other
/// programs. The file is written atomically, and replaces only a regular file or the one that a
/// link leads to.
///
/// ```
/// use backend_cpu::Cpu;
/// use rnn_core::{Dense, Module};
/// use rnn_train::checkpoint::{load_params, save_params};
///
/// # fn main() -> backend_api::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("dense.safetensors");
/// let device = Cpu::new();
/// let trained = Dense::new(&device, 3, 2)?;
/// save_params(&path, &trained)?;
///
/// let mut model = Dense::new(&device, 3, 2)?;
/// load_params(&path, &mut model)?;
/// for ((name, a), (_, b)) in trained.named_params().iter().zip(model.named_params()) {
///     assert_eq!(a.to_vec::<f32>()?, b.to_vec::<f32>()?, "{name}");
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// `path` is a folder, a device or another thing that is not a regular file, or a link to nothing;
/// or the device or the system failed.
pub fn save_params<M: Module>(path: impl AsRef<Path>, model: &M) -> Result<()> {
    file::write(path.as_ref(), None, &contents(model, "")?)
}

/// Loads the parameters of a model from a safetensors file: one written by [`save_params`], a
/// checkpoint, or a file of another program with the same names, shapes and types. A file without a
/// checksum is accepted unchecked.
///
/// # Errors
/// The file cannot be read, is damaged, or has other parameters than the model. Nothing has changed
/// then.
pub fn load_params<M: Module>(path: impl AsRef<Path>, model: &mut M) -> Result<()> {
    let stored = Stored::read(path.as_ref())?;
    let prefix = if stored.run.is_some() { PARAM } else { "" };
    *model = filled(model, &stored, prefix)?;
    Ok(())
}

/// The parameters of a model, ready for writing.
pub(super) fn contents<M: Module>(model: &M, prefix: &str) -> Result<BTreeMap<String, Content>> {
    let mut all = BTreeMap::new();
    for (name, param) in model.named_params() {
        let content = Content::of(param.value())?;
        if all.insert(format!("{prefix}{name}"), content).is_some() {
            let problem = format!("has two parameters named `{name}`");
            return Err(Error::argument("save", "model", problem));
        }
    }
    Ok(all)
}

/// A copy of the model with the parameters of a file, whose names must match exactly.
pub(super) fn filled<M: Module>(model: &M, stored: &Stored, prefix: &str) -> Result<M> {
    let mut filled = model.clone();
    let mut known = HashSet::new();
    filled.each_param(&mut |name, param| {
        let name = format!("{prefix}{name}");
        let value = stored.tensor_of(param.device(), param.meta(), &name)?;
        known.insert(name);
        param.set(value)
    })?;
    let mut names = stored.names().filter(|name| name.starts_with(prefix));
    match names.find(|&name| !known.contains(name)) {
        None => Ok(filled),
        Some(name) => {
            let problem = format!("has `{name}`, which the model does not have");
            Err(Error::format(&stored.path, problem))
        }
    }
}
