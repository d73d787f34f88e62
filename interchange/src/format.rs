//! The formats, and how each is found by its content.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use backend_api::{Error, Result as AppResult};
use rnn_train::convert::{Arrays, read_arrays, write_arrays};
use rnn_train::internal;

use crate::contents::Contents;
use crate::element::Element;
use crate::tensorflow::{bundle, graph, table};
use crate::{npz, pytorch, source};

/// A format of files of named arrays.
///
/// ```
/// use recurrent::interchange::Format;
///
/// # fn main() -> recurrent::Result<()> {
/// assert_eq!(Format::of_extension("model.pt")?, Format::PyTorch);
/// assert_eq!(Format::named("safetensors")?.name(), "safetensors");
/// assert!(Format::of_extension("model.docx").is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Safetensors.
    Safetensors,
    /// A checkpoint of TensorFlow 1 or 2: `NAME.index` and `NAME.data-00000-of-00001`, or more of
    /// these. Partitioned variables are joined.
    TensorFlow,
    /// The constants of a `GraphDef`, such as a frozen graph: `NAME.pb`.
    Graph,
    /// The variables and constants of a SavedModel: a folder with `saved_model.pb`.
    SavedModel,
    /// What `torch.save` writes: `.pt`, `.pth`. Only tensors in dictionaries and lists are read.
    PyTorch,
    /// Keras's weights in HDF5: `.h5`, `.hdf5`, `.weights.h5`. In the last, the weights below
    /// `vars/` are numbered in Keras's order.
    Keras,
    /// Keras's archive: `.keras`.
    KerasArchive,
    /// NumPy's archive: `.npz`.
    Npz,
}

/// What a format can do.
struct Row {
    format: Format,
    name: &'static str,
    /// Endings of names, the first for messages.
    extensions: &'static [&'static str],
    is: fn(&Head) -> bool,
    open: fn(&Path) -> Result<Contents, String>,
    write: Option<fn(&Path, &Arrays) -> AppResult<()>>,
}

/// All formats. The first whose test passes is that of a file.
const FORMATS: [Row; 8] = [
    Row {
        format: Format::KerasArchive,
        name: "keras-archive",
        extensions: &[".keras"],
        is: |head| head.names.iter().any(|name| name == "model.weights.h5"),
        open: keras::open_archive,
        write: None,
    },
    Row {
        format: Format::PyTorch,
        name: "pytorch",
        extensions: &[".pt", ".pth"],
        is: |head| pytorch::is_pytorch(&head.start, &head.names),
        open: pytorch::open,
        write: Some(pytorch::write),
    },
    Row {
        format: Format::Npz,
        name: "npz",
        extensions: &[".npz"],
        is: |head| head.is_zip && head.names.iter().all(|name| name.ends_with(".npy")),
        open: npz::open,
        write: Some(npz::write),
    },
    Row {
        format: Format::Keras,
        name: "keras",
        extensions: &[".h5", ".hdf5"],
        is: |head| head.start.starts_with(b"\x89HDF\r\n\x1a\n"),
        open: keras::open,
        write: Some(keras::write),
    },
    Row {
        format: Format::TensorFlow,
        name: "tensorflow",
        extensions: &[".index", ".ckpt"],
        is: |head| table::is_table(&head.end),
        open: bundle::open,
        write: Some(bundle::write),
    },
    Row {
        format: Format::Safetensors,
        name: "safetensors",
        extensions: &[".safetensors"],
        is: |head| head.start.get(8) == Some(&b'{'),
        open: open_safetensors,
        write: Some(|path, arrays| write_arrays(path, arrays)),
    },
    Row {
        format: Format::SavedModel,
        name: "saved-model",
        extensions: &["saved_model.pb"],
        is: |head| graph::is_saved_model(&head.start),
        open: graph::open_saved_model,
        write: None,
    },
    Row {
        format: Format::Graph,
        name: "graph",
        extensions: &[".pb"],
        is: |head| head.whole().is_some_and(|bytes| graph::is_graph(&bytes)),
        open: graph::open,
        write: None,
    },
];

impl Format {
    /// All formats.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        FORMATS.iter().map(|row| row.format)
    }

    fn row(self) -> &'static Row {
        let row = FORMATS.iter().find(|row| row.format == self);
        row.expect("every format has a row")
    }

    /// The name, for [`named`](Self::named) and messages: `pytorch`, for example.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The format of this name.
    ///
    /// # Errors
    /// There is none; the message lists the names.
    pub fn named(name: &str) -> AppResult<Self> {
        let found = FORMATS.iter().find(|row| row.name == name);
        found.map(|row| row.format).ok_or_else(|| {
            let names: Vec<_> = FORMATS.iter().map(|row| row.name).collect();
            let problem = format!("is `{name}`, but the formats are {}", names.join(", "));
            Error::argument("Format::named", "name", problem)
        })
    }

    /// The format in which a file of this name is written.
    ///
    /// # Errors
    /// No format has this ending; the message lists the endings.
    pub fn of_extension(path: impl AsRef<Path>) -> AppResult<Self> {
        let name = path.as_ref().to_string_lossy();
        let ends = |row: &&Row| row.extensions.iter().any(|end| name.ends_with(end));
        FORMATS
            .iter()
            .find(ends)
            .map(|row| row.format)
            .ok_or_else(|| {
                let rows = FORMATS.iter().filter(|row| row.write.is_some());
                let ends: Vec<_> = rows.flat_map(|row| row.extensions).copied().collect();
                let problem = format!("has none of the endings {}", ends.join(", "));
                Error::format(&path, problem)
            })
    }

    /// Writes arrays to a file, or the files of a checkpoint whose names begin with `path`.
    /// Existing files are replaced.
    ///
    /// # Errors
    /// The format is only read; it cannot have one of the names; or the system failed.
    pub fn write(self, path: impl AsRef<Path>, arrays: &Arrays) -> AppResult<()> {
        let path = path.as_ref();
        match self.row().write {
            Some(write) => write(path, arrays),
            None => {
                let rows = FORMATS.iter().filter(|row| row.write.is_some());
                let names: Vec<_> = rows.map(|row| row.name).collect();
                let names = names.join(", ");
                let problem = format!("{self} is only read; {names} are written");
                Err(Error::format(path, problem))
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What tells the format of a file.
struct Head {
    path: PathBuf,
    start: Vec<u8>,
    end: Vec<u8>,
    is_zip: bool,
    /// The names in a zip archive.
    names: Vec<String>,
}

impl Head {
    const LEN: u64 = 1024;

    fn read(path: &Path) -> AppResult<Self> {
        let io = |e| Error::io(path, e);
        let mut file = internal::open(path)?;
        let len = file.metadata().map_err(io)?.len();
        let mut part = |from: u64| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(from)).map_err(io)?;
            (&mut file)
                .take(Self::LEN)
                .read_to_end(&mut bytes)
                .map_err(io)?;
            Ok::<_, Error>(bytes)
        };
        let (start, end) = (part(0)?, part(len.saturating_sub(Self::LEN))?);
        let is_zip = start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06");
        let mut names = Vec::new();
        if is_zip {
            let archive = source::archive(path);
            names = source::names(&archive.map_err(|problem| Error::format(path, problem))?);
        }
        Ok(Self {
            path: path.to_owned(),
            start,
            end,
            is_zip,
            names,
        })
    }

    fn whole(&self) -> Option<Vec<u8>> {
        source::whole(&self.path).ok()
    }
}

/// Opens a file in the format that its content has.
pub(crate) fn open(path: &Path) -> AppResult<(Format, Contents)> {
    let mut found = bundle::index_of(path);
    let saved_model = path.join("saved_model.pb");
    if saved_model.is_file() {
        found = Some(saved_model);
    }
    let path = found.as_deref().unwrap_or(path);
    if path.is_dir() {
        let problem = "is a folder without `saved_model.pb` and without a `checkpoint` that names \
                       files in it";
        return Err(Error::format(path, problem));
    }
    let head = Head::read(path)?;
    if let Some(row) = FORMATS.iter().find(|row| (row.is)(&head)) {
        let contents = (row.open)(path).map_err(|problem| Error::format(path, problem))?;
        return Ok((row.format, contents));
    }
    let problem = match &head {
        _ if head.start.get(257..262) == Some(b"ustar") => {
            "is a tar archive, as PyTorch before 0.1.10 wrote: load and save it with a newer one"
        }
        _ if head.names.iter().any(|name| name.ends_with("/data.pkl")) => {
            "is a TorchScript archive: save the `state_dict()` of the module instead"
        }
        _ => "is of none of the formats that are known",
    };
    let names: Vec<_> = FORMATS.iter().map(|row| row.name).collect();
    let problem = format!("{problem}; known are {}", names.join(", "));
    Err(Error::format(path, problem))
}

fn open_safetensors(path: &Path) -> Result<Contents, String> {
    let arrays = read_arrays(path).map_err(|e| match e {
        Error::Format { problem, .. } => problem,
        other => other.to_string(),
    })?;
    let mut contents = Contents::default();
    for (name, array) in arrays.iter() {
        let (element, array) = (Element::of(array.meta().dtype), array.clone());
        let dims = array.dims().to_vec();
        contents.add(name, element, &dims, move || Ok(array.bytes().to_vec()))?;
    }
    Ok(contents)
}

#[cfg(feature = "keras")]
use crate::keras;

/// Without HDF5.
#[cfg(not(feature = "keras"))]
mod keras {
    use super::{AppResult, Arrays, Contents, Error, Path};

    const LACKS: &str = "is HDF5, for which this build lacks the feature `keras`";

    pub(super) fn open(_: &Path) -> Result<Contents, String> {
        Err(LACKS.to_owned())
    }

    pub(super) fn write(path: &Path, _: &Arrays) -> AppResult<()> {
        Err(Error::format(path, LACKS))
    }

    pub(super) use open as open_archive;
}
