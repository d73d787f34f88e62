//! An opened file of weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backend_api::{Error, Meta, Result};
use rnn_train::convert::{Array, Arrays};
use rnn_train::internal::listed;

use crate::contents::{Contents, Entry};
use crate::format::{self, Format};

/// A file of named arrays in any [`Format`], found by its content. Names, shapes and types are read
/// when it is opened, and the arrays when they are asked for, where the format allows it.
///
/// ```
/// use recurrent::convert::{Array, Arrays};
/// use recurrent::interchange::{File, Format};
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let bias = Array::of(&Tensor::ones(&Device::cpu(), &[2])?)?;
/// let path = std::env::temp_dir().join("recurrent-file.pt");
/// Format::PyTorch.write(&path, &Arrays::new("model", [("out.bias".to_owned(), bias)]))?;
///
/// let file = File::open(&path)?;
/// assert_eq!(file.format(), Format::PyTorch);
/// for (name, meta) in file.entries() {
///     println!("{name} {} {}", meta.dtype, meta.shape);
/// }
/// assert_eq!(file.array("out.bias")?.dims(), [2]);
/// let arrays = file.arrays()?; // all of them
/// # let _ = arrays;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    format: Format,
    entries: BTreeMap<String, Entry>,
    others: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
}

impl File {
    /// Opens a file, or the files of a checkpoint or a model of TensorFlow: the common part of
    /// their names (`model.ckpt`), any of them, or their folder.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is of no format that is known; the message names
    /// formats that are refused.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (format, contents) = format::open(path)?;
        let Contents {
            entries,
            others,
            metadata,
        } = contents;
        Ok(Self {
            path: path.to_owned(),
            format,
            entries,
            others,
            metadata,
        })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Names, types and shapes, in the order of the names.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, Meta)> {
        let entries = self.entries.iter();
        entries.map(|(name, entry)| (name.as_str(), entry.meta))
    }

    /// Names and descriptions of what is not an array of numbers: texts and numbers of Python, for
    /// example.
    pub fn others(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let others = self.others.iter();
        others.map(|(name, what)| (name.as_str(), what.as_str()))
    }

    /// Texts that describe the model: Keras's `model_config`, for example.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads an array.
    ///
    /// # Errors
    /// The file has no array of this name, is damaged, or cannot be read.
    pub fn array(&self, name: &str) -> Result<Array> {
        let refuse = |problem: String| Error::format(&self.path, problem);
        let Some(entry) = self.entries.get(name) else {
            let names = listed(self.entries.keys().map(String::as_str));
            return Err(refuse(format!("has no `{name}`; it has {names}")));
        };
        let in_array = |problem: String| refuse(format!("`{name}` {problem}"));
        let bytes = entry.read().map_err(in_array)?;
        Array::new(entry.meta, bytes).map_err(|e| in_array(format!("has: {e}")))
    }

    /// Reads all arrays.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn arrays(&self) -> Result<Arrays> {
        let read = |name: &String| Ok((name.clone(), self.array(name)?));
        let arrays: Vec<_> = self.entries.keys().map(read).collect::<Result<_>>()?;
        Ok(Arrays::new(&self.path, arrays))
    }
}

/// Reads all arrays of a file: [`File::open`] and [`File::arrays`].
///
/// ```no_run
/// use recurrent::checkpoint::load_arrays_under;
/// use recurrent::interchange::read;
/// use recurrent::{Device, LstmCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut cell = LstmCell::new(&Device::cpu(), 28, 128)?;
/// let arrays = read("model.ckpt")?; // of TensorFlow
/// load_arrays_under(&arrays, "rnn/lstm_cell", &mut cell)?.complete()?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`File::open`] and [`File::arrays`].
pub fn read(path: impl AsRef<Path>) -> Result<Arrays> {
    File::open(path)?.arrays()
}
