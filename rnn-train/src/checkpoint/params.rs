//! Saving and loading only the parameters of a model.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use backend_api::{Error, Result};
use rnn_core::Module;

use super::file::{self, Stored};
use crate::arrays::{Array, Arrays, listed};

/// Prefix of parameter names in a checkpoint.
pub(super) const PARAM: &str = "param/";

/// Saves the parameters of a model by name in a safetensors file, for inference and for other
/// programs. The file is written atomically, and replaces only a regular file or the one that a
/// link leads to.
///
/// ```
/// use recurrent::checkpoint::{load_params, save_params};
/// use recurrent::{Dense, Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("dense.safetensors");
/// let device = Device::cpu();
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
/// checksum is accepted unchecked. [`load_params_under`] loads a part of a file.
///
/// ```
/// use recurrent::checkpoint::{load_params, save_params};
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("gru.safetensors");
/// let device = Device::cpu();
/// save_params(&path, &GruCell::new(&device, 3, 4)?)?;
///
/// let mut cell = GruCell::new(&device, 3, 4)?;
/// load_params(&path, &mut cell)?;
/// let mut wider = GruCell::new(&device, 3, 8)?;
/// println!("{}", load_params(&path, &mut wider).unwrap_err()); // the parameter, and both shapes
/// # Ok(()) }
/// ```
///
/// # Errors
/// The file cannot be read, is damaged, or has other parameters than the model. Nothing has changed
/// then.
pub fn load_params<M: Module>(path: impl AsRef<Path>, model: &mut M) -> Result<()> {
    let stored = Stored::read(path.as_ref())?;
    let prefix = if stored.run.is_some() { PARAM } else { "" };
    *model = filled(model, &stored.arrays, prefix)?;
    Ok(())
}

/// Loads the parameters of a model, or of a part of one, from a part of a file: those below a
/// scope, so that `rnn/lstm_cell/kernel` becomes `kernel`. The scope `""` is the whole file.
///
/// Parameters that the file does not have keep their values, and are listed in the result:
/// [`Loaded::complete`] makes them an error.
///
/// ```
/// use recurrent::checkpoint::{load_params_under, save_params};
/// use recurrent::{BasicLstmCell, Dense, Device, module};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("tagger.safetensors");
/// #[derive(Clone, Debug)]
/// struct Tagger { cell: BasicLstmCell, output: Dense }
/// module!(Tagger { cell as "rnn/lstm_cell", output });
///
/// let device = Device::cpu();
/// let (cell, output) = (BasicLstmCell::new(&device, 3, 4)?, Dense::new(&device, 4, 2)?);
/// save_params(&path, &Tagger { cell, output })?;
///
/// let mut cell = BasicLstmCell::new(&device, 3, 4)?;
/// let loaded = load_params_under(&path, "rnn/lstm_cell", &mut cell)?.complete()?;
/// assert_eq!(loaded.used, ["kernel", "bias"]);
///
/// // The cell of a trained model in a model with a new output layer:
/// let mut model = Tagger { cell, output: Dense::new(&device, 4, 7)? };
/// load_params_under(&path, "rnn/lstm_cell", &mut model.cell)?.complete()?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// The file cannot be read or is damaged, has no parameter of the model under the scope (the error
/// lists the names in the file), or has one with another shape or type. Nothing has changed then.
pub fn load_params_under<M: Module>(
    path: impl AsRef<Path>,
    scope: &str,
    model: &mut M,
) -> Result<Loaded> {
    let Stored { run, arrays } = Stored::read(path.as_ref())?;
    load_below(&arrays, run.map_or("", |_| PARAM), scope, model)
}

/// Loads the parameters of a model, or of a part of one, from those of arrays that are below a
/// scope: [`load_params_under`] of arrays that are in memory, such as those of another framework.
///
/// ```
/// use recurrent::checkpoint::load_arrays_under;
/// use recurrent::convert::{Array, Arrays};
/// use recurrent::{Dense, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let array = |dims: &[usize]| Array::of(&Tensor::ones(&device, dims)?);
/// let (kernel, bias) = (array(&[3, 2])?, array(&[2])?);
/// let arrays = [("out/kernel".to_owned(), kernel), ("out/bias".to_owned(), bias)];
/// let mut dense = Dense::new(&device, 3, 2)?;
/// load_arrays_under(&Arrays::new("model.ckpt", arrays), "out", &mut dense)?.complete()?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// No parameter of the model is under the scope (the error lists the names), or one has another
/// shape or type. Nothing has changed then.
pub fn load_arrays_under<M: Module>(arrays: &Arrays, scope: &str, model: &mut M) -> Result<Loaded> {
    load_below(arrays, "", scope, model)
}

fn load_below<M: Module>(
    arrays: &Arrays,
    prefix: &str,
    scope: &str,
    model: &mut M,
) -> Result<Loaded> {
    let mut prefix = prefix.to_owned();
    let scope = scope.trim_end_matches('/');
    if !scope.is_empty() {
        prefix = format!("{prefix}{scope}/");
    }
    let mut filled = model.clone();
    let (mut used, mut missing) = (Vec::new(), Vec::new());
    filled.each_param(&mut |name, param| {
        let full = format!("{prefix}{name}");
        if arrays.get(&full).is_none() {
            missing.push(name.to_owned());
            return Ok(());
        }
        used.push(name.to_owned());
        param.set(arrays.tensor_of(param.device(), param.meta(), &full)?)
    })?;
    if used.is_empty() {
        let problem = format!(
            "has no parameter of the model under `{scope}`: the model has {}; the file has {}",
            listed(missing.iter().map(String::as_str)),
            listed(arrays.names())
        );
        return Err(Error::format(arrays.source(), problem));
    }
    let known: HashSet<&str> = used.iter().map(String::as_str).collect();
    let inside = arrays.names().filter_map(|name| name.strip_prefix(&prefix));
    let left_over = inside.filter(|name| !known.contains(name));
    let left_over = left_over.map(str::to_owned).collect();
    *model = filled;
    Ok(Loaded {
        used,
        missing,
        left_over,
        path: arrays.source().to_owned(),
    })
}

/// The names that [`load_params_under`] has met, all without the scope.
///
/// ```
/// use recurrent::checkpoint::{load_params_under, save_params};
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-loaded.safetensors");
/// let device = Device::cpu();
/// save_params(&path, &(Dense::new(&device, 3, 4)?, Dense::new(&device, 4, 2)?))?;
/// let mut first = Dense::new(&device, 3, 4)?;
/// let loaded = load_params_under(&path, "0", &mut first)?.complete()?;
/// assert_eq!(loaded.used, ["kernel", "bias"]);
/// assert!(loaded.missing.is_empty() && loaded.left_over.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "parameters may be missing in the file: call `complete`, or read `missing`"]
#[non_exhaustive]
pub struct Loaded {
    /// The parameters that were loaded, in the model's order.
    pub used: Vec<String>,
    /// The parameters that the file does not have; they keep their values.
    pub missing: Vec<String>,
    /// The names in the file that the model does not have, for example slots of an optimizer.
    pub left_over: Vec<String>,
    path: PathBuf,
}

impl Loaded {
    /// The report, if no parameter is missing.
    ///
    /// # Errors
    /// A parameter is missing. The parameters in the file were loaded nevertheless.
    pub fn complete(self) -> Result<Self> {
        if self.missing.is_empty() {
            return Ok(self);
        }
        let names = |names: &[String]| listed(names.iter().map(String::as_str));
        let problem = format!(
            "has no {}, which the model needs; also under the scope are {}",
            names(&self.missing),
            names(&self.left_over)
        );
        Err(Error::format(&self.path, problem))
    }
}

/// The parameters of a model, ready for writing.
pub(super) fn contents<M: Module>(model: &M, prefix: &str) -> Result<BTreeMap<String, Array>> {
    let mut all = BTreeMap::new();
    for (name, param) in model.named_params() {
        let content = Array::of(param.value())?;
        if all.insert(format!("{prefix}{name}"), content).is_some() {
            let problem = format!("has two parameters named `{name}`");
            return Err(Error::argument("save", "model", problem));
        }
    }
    Ok(all)
}

/// A copy of the model with the parameters of a file, whose names must match exactly.
pub(super) fn filled<M: Module>(model: &M, stored: &Arrays, prefix: &str) -> Result<M> {
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
            Err(Error::format(stored.source(), problem))
        }
    }
}
