//! The records of one or more files as a source.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backend_api::{Error, Result, philox};
use serde::{Deserialize, Serialize};

use super::random::permutation;
use super::source::Source;
use super::tfrecord::{Compression, RecordReader};

/// A record, and where it is from.
///
/// ```
/// use recurrent::data::{Compression, RecordFiles, RecordWriter, Source};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-record.tfrecord");
/// let mut writer = RecordWriter::create(&path, Compression::Plain)?;
/// for record in ["one", "two"] {
///     writer.write(record.as_bytes())?;
/// }
/// writer.finish()?;
/// let mut files = RecordFiles::open([&path])?;
/// files.next_item()?;
/// let second = files.next_item()?.expect("two records");
/// assert_eq!((second.file(), second.index()), (&*path, 1));
/// assert_eq!(second.into_bytes(), b"two");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Record {
    bytes: Vec<u8>,
    file: Arc<Path>,
    index: u64,
    offset: u64,
}

impl Record {
    /// The file that holds the record.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The number of the record in its file, counted from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The offset of the record in its file in bytes, after decompression.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The data.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Deref for Record {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The records of TFRecord files, in order or with the files in a new order every epoch.
///
/// Memory does not depend on the size of the files. A state holds the position in the files, and a
/// resumed run seeks to it in plain files; compressed ones are decompressed up to there.
///
/// ```
/// use recurrent::data::{Compression, RecordFiles, RecordWriter, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (a, b) = (folder.path().join("a"), folder.path().join("b"));
/// for (path, record) in [(&a, "one"), (&b, "two")] {
///     let mut writer = RecordWriter::create(path, Compression::Plain)?;
///     writer.write(record.as_bytes())?;
///     writer.finish()?;
/// }
/// // Files in random order, and records from a buffer of 1,000.
/// let mut records = RecordFiles::open([&a, &b])?.shuffle_files(7).shuffle(1000, 7)?;
/// while let Some(record) = records.next_item()? {
///     println!("{} bytes of {}", record.len(), record.file().display());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct RecordFiles {
    files: Vec<(Arc<Path>, Compression)>,
    /// A hash of the files' names and sizes, which detects a state of other files.
    fingerprint: u64,
    seed: Option<u64>,
    epoch: u64,
    /// Indices of files in this epoch's order; the first ones have been read.
    order: Vec<usize>,
    file: usize,
    reader: Option<RecordReader>,
    max_len: Option<u64>,
}

/// The position of a [`RecordFiles`].
///
/// ```
/// use recurrent::data::{Compression, RecordFiles, RecordWriter, Source};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-record-files-state.tfrecord");
/// let mut writer = RecordWriter::create(&path, Compression::Plain)?;
/// for record in ["one", "two"] {
///     writer.write(record.as_bytes())?;
/// }
/// writer.finish()?;
/// let mut files = RecordFiles::open([&path])?;
/// files.next_item()?;
/// let state = files.state();
/// let mut resumed = RecordFiles::open([&path])?;
/// resumed.restore(state)?;
/// assert_eq!(resumed.next_item()?.expect("a second record").into_bytes(), b"two");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFilesState {
    fingerprint: u64,
    seed: Option<u64>,
    epoch: u64,
    file: u64,
    record: u64,
    offset: u64,
}

impl RecordFiles {
    /// The records of some files, whose compression is [detected](Compression::detect).
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no files, [`Error::Io`] if one cannot be read.
    pub fn open<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<Self> {
        Self::of(files, None)
    }

    /// The records of some files that are all compressed that way.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no files, [`Error::Io`] if one does not exist.
    pub fn open_with<P: AsRef<Path>>(
        files: impl IntoIterator<Item = P>,
        compression: Compression,
    ) -> Result<Self> {
        Self::of(files, Some(compression))
    }

    fn of<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        compression: Option<Compression>,
    ) -> Result<Self> {
        let mut files = Vec::new();
        let mut fingerprint = 0;
        for path in paths {
            let path = path.as_ref();
            let size = fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
            let name = path.file_name().unwrap_or(path.as_os_str());
            let name = philox::label(&name.to_string_lossy());
            fingerprint = philox::derive(philox::derive(fingerprint, name), size);
            let compression = match compression {
                Some(compression) => compression,
                None => Compression::detect(path)?,
            };
            files.push((Arc::from(path), compression));
        }
        if files.is_empty() {
            return Err(Error::argument("RecordFiles", "files", "must not be empty"));
        }
        Ok(Self {
            order: (0..files.len()).collect(),
            files,
            fingerprint,
            seed: None,
            epoch: 0,
            file: 0,
            reader: None,
            max_len: None,
        })
    }

    /// The files in a new order every epoch, a function of `seed` and the epoch. The records of
    /// a file stay in order; [`SourceExt::shuffle`](super::SourceExt::shuffle) mixes them.
    #[must_use]
    pub fn shuffle_files(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.order = self.order_of(self.seed, self.epoch);
        self
    }

    /// Refuses records longer than `bytes`; see [`RecordReader::max_len`].
    #[must_use]
    pub fn max_len(mut self, bytes: u64) -> Self {
        self.max_len = Some(bytes);
        self
    }

    fn limited(&self, reader: RecordReader) -> RecordReader {
        match self.max_len {
            Some(bytes) => reader.max_len(bytes),
            None => reader,
        }
    }

    fn order_of(&self, seed: Option<u64>, epoch: u64) -> Vec<usize> {
        match seed {
            Some(seed) => permutation(self.files.len(), seed, epoch),
            None => (0..self.files.len()).collect(),
        }
    }
}

impl Source for RecordFiles {
    type Item = Record;
    type State = RecordFilesState;

    fn next_item(&mut self) -> Result<Option<Record>> {
        loop {
            let Some(&next) = self.order.get(self.file) else {
                self.epoch = self.epoch.wrapping_add(1);
                self.file = 0;
                self.order = self.order_of(self.seed, self.epoch);
                return Ok(None);
            };
            let (path, compression) = &self.files[next];
            if self.reader.is_none() {
                match RecordReader::open_with(path, *compression) {
                    Ok(reader) => self.reader = Some(self.limited(reader)),
                    Err(error) => {
                        self.file += 1;
                        return Err(error);
                    }
                }
            }
            let Some(reader) = &mut self.reader else {
                unreachable!("it was opened above");
            };
            let (index, offset) = (reader.index(), reader.offset());
            match reader.read_owned() {
                Ok(Some(bytes)) => {
                    return Ok(Some(Record {
                        bytes,
                        file: path.clone(),
                        index,
                        offset,
                    }));
                }
                Ok(None) => {
                    self.file += 1;
                    self.reader = None;
                }
                Err(error) => {
                    // What follows the fault cannot be found: the next file can.
                    self.file += 1;
                    self.reader = None;
                    return Err(error);
                }
            }
        }
    }

    fn state(&self) -> RecordFilesState {
        let reader = self.reader.as_ref();
        RecordFilesState {
            fingerprint: self.fingerprint,
            seed: self.seed,
            epoch: self.epoch,
            file: self.file as u64,
            record: reader.map_or(0, RecordReader::index),
            offset: reader.map_or(0, RecordReader::offset),
        }
    }

    fn restore(&mut self, state: RecordFilesState) -> Result<()> {
        let refuse = |problem: &str| Err(Error::argument("restore", "state", problem));
        if state.fingerprint != self.fingerprint {
            return refuse("is of other files: a name or a size differs");
        }
        if state.seed.is_some() != self.seed.is_some() {
            return refuse("is of files in another order");
        }
        let file = usize::try_from(state.file).unwrap_or(usize::MAX);
        if file > self.files.len() {
            return refuse("is after the last file");
        }
        let order = self.order_of(state.seed, state.epoch);
        self.reader = match order.get(file) {
            Some(&index) if state.record > 0 => {
                let (path, compression) = &self.files[index];
                let (record, offset) = (state.record, state.offset);
                Some(self.limited(RecordReader::open_at(path, *compression, record, offset)?))
            }
            _ => None,
        };
        (self.seed, self.epoch) = (state.seed, state.epoch);
        (self.order, self.file) = (order, file);
        Ok(())
    }
}

/// Paths of the files that a folder holds with an extension, in order of name.
///
/// ```
/// use recurrent::data::files_with_extension;
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-files-with-extension");
/// std::fs::create_dir_all(&folder).expect("a folder");
/// for name in ["b.tfrecord", "a.tfrecord", "notes.txt"] {
///     std::fs::write(folder.join(name), "").expect("a file");
/// }
/// let files = files_with_extension(&folder, "tfrecord")?;
/// assert_eq!(files, [folder.join("a.tfrecord"), folder.join("b.tfrecord")]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read, [`Error::Format`] if it has no such file.
pub fn files_with_extension(folder: impl AsRef<Path>, extension: &str) -> Result<Vec<PathBuf>> {
    let folder = folder.as_ref();
    let io = |e| Error::io(folder, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_file() && path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::format(
            folder,
            format!("contains no file *.{extension}"),
        ));
    }
    files.sort();
    Ok(files)
}
