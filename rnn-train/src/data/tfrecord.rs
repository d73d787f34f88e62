//! TFRecord: TensorFlow's container of records, plain or compressed.
//!
//! A record is its length (8 bytes, little endian), a checksum of the length, the data, and a
//! checksum of the data. A checksum is a masked CRC-32C. GZIP and ZLIB compress the whole stream.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use backend_api::{Error, Result};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// Length and its checksum.
const HEADER: usize = 12;

/// Bytes that are read from a file at once.
const BUFFER: usize = 256 * 1024;

/// The longest record that is read unless [`RecordReader::max_len`] says otherwise: the longest
/// message that protobuf has.
const MAX_LEN: u64 = i32::MAX as u64;

/// How a record file is compressed.
///
/// ```
/// use recurrent::data::{Compression, RecordWriter};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("compression.tfrecord");
/// let mut writer = RecordWriter::create(&path, Compression::Zlib)?;
/// writer.write(b"one record")?;
/// writer.finish()?;
/// // Readers detect it.
/// assert_eq!(Compression::detect(&path)?, Compression::Zlib);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// No compression.
    Plain,
    /// One gzip stream.
    Gzip,
    /// One zlib stream.
    Zlib,
}

impl Compression {
    /// Detects how a file is compressed from its first bytes.
    ///
    /// A file is plain if its first checksum is right, whatever its bytes look like. An empty file
    /// counts as plain.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn detect(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // Reading the start of a pipe would take it away, and may wait for ever.
        if std::fs::metadata(path).is_ok_and(|of| !of.is_file() && !of.is_dir()) {
            let problem = "is not a regular file, so its compression must be given";
            return Err(Error::format(path, problem));
        }
        let mut start = Vec::with_capacity(HEADER);
        let file = open(path)?.take(HEADER as u64).read_to_end(&mut start);
        file.map_err(|e| Error::io(path, e))?;
        Ok(match start[..] {
            _ if start.len() == HEADER && header_length(&start).is_some() => Self::Plain,
            [0x1f, 0x8b, ..] => Self::Gzip,
            // Deflate with any window, and a check of the two bytes.
            [a, b, ..] if a & 0x8f == 0x08 && u16::from_be_bytes([a, b]) % 31 == 0 => Self::Zlib,
            _ => Self::Plain,
        })
    }
}

/// CRC-32C, rotated and offset, so that a checksum of data that holds checksums is no special case.
#[doc(hidden)]
pub fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// The length in a header, if its checksum is right.
fn header_length(header: &[u8]) -> Option<u64> {
    let (length, crc) = header.split_at_checked(8)?;
    let crc = u32::from_le_bytes(crc.get(..4)?.try_into().ok()?);
    let right = masked_crc(length) == crc;
    right.then_some(u64::from_le_bytes(length.try_into().ok()?))
}

fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    if file.metadata().is_ok_and(|of| of.is_dir()) {
        return Err(Error::format(path, "is a folder, not a record file"));
    }
    Ok(file)
}

/// Reads the records of one stream, one by one, in memory for one record.
///
/// ```
/// use recurrent::data::{Compression, RecordReader, RecordWriter};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("data.tfrecord");
/// let mut writer = RecordWriter::create(&path, Compression::Gzip)?;
/// writer.write(b"one")?;
/// writer.write(b"two")?;
/// writer.finish()?;
///
/// let mut reader = RecordReader::open(&path)?;
/// while let Some(record) = reader.read()? {
///     println!("{} bytes", record.len());
/// }
/// assert_eq!(reader.index(), 2);
/// # Ok(()) }
/// ```
pub struct RecordReader {
    stream: Box<dyn Read + Send>,
    /// For messages.
    name: PathBuf,
    record: Vec<u8>,
    max_len: u64,
    index: u64,
    offset: u64,
}

impl std::fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordReader")
            .field("name", &self.name)
            .field("index", &self.index)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl RecordReader {
    /// Reads a file, whose compression is [detected](Compression::detect).
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let compression = Compression::detect(&path)?;
        Self::open_with(path, compression)
    }

    /// Reads a file that is compressed that way.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened.
    pub fn open_with(path: impl AsRef<Path>, compression: Compression) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self::new(open(path)?, compression, path))
    }

    /// Reads a stream. `name` is used in error messages.
    pub fn new(
        stream: impl Read + Send + 'static,
        compression: Compression,
        name: impl AsRef<Path>,
    ) -> Self {
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        // An empty stream has no records, however it is said to be compressed.
        let empty = stream.fill_buf().is_ok_and(<[u8]>::is_empty);
        let stream: Box<dyn Read + Send> = match compression {
            _ if empty => Box::new(stream),
            Compression::Plain => Box::new(stream),
            // TensorFlow refuses zeros after the last member, so this is not `Gunzip`.
            Compression::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(stream))),
            Compression::Zlib => Box::new(BufReader::new(ZlibDecoder::new(stream))),
        };
        Self {
            stream,
            name: name.as_ref().into(),
            record: Vec::new(),
            max_len: MAX_LEN,
            index: 0,
            offset: 0,
        }
    }

    /// Reads a file from a record on, of which the number and the offset are known.
    pub(super) fn open_at(
        path: &Path,
        compression: Compression,
        index: u64,
        offset: u64,
    ) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut reader = match compression {
            Compression::Plain => {
                let mut file = open(path)?;
                let len = file.metadata().map_err(io)?.len();
                if len < offset {
                    let problem = format!("ends at {len}, before offset {offset}");
                    return Err(Error::format(path, problem));
                }
                file.seek(SeekFrom::Start(offset)).map_err(io)?;
                Self::new(file, compression, path)
            }
            _ => {
                let mut reader = Self::open_with(path, compression)?;
                let mut before = reader.stream.by_ref().take(offset);
                let skipped = io::copy(&mut before, &mut io::sink()).map_err(io)?;
                if skipped != offset {
                    let problem = format!("ends at {skipped}, before offset {offset}");
                    return Err(Error::format(path, problem));
                }
                reader
            }
        };
        (reader.index, reader.offset) = (index, offset);
        Ok(reader)
    }

    /// Refuses records longer than `bytes` (2 GiB unless this says otherwise).
    #[must_use]
    pub fn max_len(mut self, bytes: u64) -> Self {
        self.max_len = bytes;
        self
    }

    /// The number of the next record, counted from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The offset of the next record in bytes, in the stream after decompression.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, or `None` at the end. A stream that ends inside the 12 bytes before a
    /// record's data ends there, as in TensorFlow.
    ///
    /// # Errors
    /// [`Error::Format`], with the number and the offset of the record, if a checksum is wrong, the
    /// stream ends inside the record, the record is longer than [`max_len`](Self::max_len), or the
    /// compressed stream is damaged; [`Error::Io`] if the stream cannot be read. There is nothing
    /// to read after an error.
    pub fn read(&mut self) -> Result<Option<&[u8]>> {
        match self.read_record() {
            Ok(true) => Ok(Some(&self.record)),
            Ok(false) => Ok(None),
            Err(error) => {
                self.stream = Box::new(io::empty());
                Err(error)
            }
        }
    }

    /// [`read`](Self::read), with the record as a vector of its own.
    pub(super) fn read_owned(&mut self) -> Result<Option<Vec<u8>>> {
        let some = self.read()?.is_some();
        Ok(some.then(|| std::mem::take(&mut self.record)))
    }

    fn read_record(&mut self) -> Result<bool> {
        let mut header = [0; HEADER];
        if self.fill(&mut header)? < HEADER {
            return Ok(false);
        }
        let Some(len) = header_length(&header) else {
            let problem = "the checksum of its length is wrong (is this a TFRecord file?)";
            return Err(self.damaged(problem));
        };
        if len > self.max_len {
            let problem = format!("it has {len} bytes, above the limit of {}", self.max_len);
            return Err(self.damaged(&problem));
        }
        let whole = len.saturating_add(4);
        self.record.clear();
        // Grows as data arrives: a length that is wrong takes no memory.
        let reserve = usize::try_from(whole).unwrap_or(usize::MAX).min(BUFFER);
        self.record.reserve(reserve);
        let read = self
            .stream
            .by_ref()
            .take(whole)
            .read_to_end(&mut self.record);
        let read = read.map_err(|e| self.failed(e))? as u64;
        if read < whole {
            let found = read.min(len);
            let problem = format!("the file ends after {found} of its {len} bytes");
            return Err(self.damaged(&problem));
        }
        let crc = split_off_crc(&mut self.record);
        if masked_crc(&self.record) != crc {
            return Err(self.damaged("the checksum of its data is wrong"));
        }
        self.index = self.index.wrapping_add(1);
        self.offset += HEADER as u64 + whole;
        Ok(true)
    }

    /// Fills the buffer, or reads to the end of the stream.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        Ok(filled)
    }

    fn damaged(&self, problem: &str) -> Error {
        let (index, offset) = (self.index, self.offset);
        Error::format(
            &self.name,
            format!("record {index} at offset {offset}: {problem}"),
        )
    }

    fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof => {
                self.damaged(&format!("the compressed stream is damaged: {error}"))
            }
            _ => Error::io(&self.name, error),
        }
    }
}

/// Takes the checksum off the end of a record.
fn split_off_crc(record: &mut Vec<u8>) -> u32 {
    let mut crc = [0; 4];
    let end = record.len() - crc.len();
    crc.copy_from_slice(&record[end..]);
    record.truncate(end);
    u32::from_le_bytes(crc)
}

/// Writes records to one stream.
///
/// [`finish`](Self::finish) ends the stream; one that is dropped before may lack its end.
///
/// ```
/// use recurrent::data::{Compression, Example, RecordReader, RecordWriter};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("writer.tfrecord");
/// let mut writer = RecordWriter::create(&path, Compression::Plain)?;
/// for label in 0..3i64 {
///     writer.write(&Example::new().feature("label", [label]).to_bytes())?;
/// }
/// writer.finish()?;
/// let mut reader = RecordReader::open(&path)?;
/// while reader.read()?.is_some() {}
/// assert_eq!(reader.index(), 3);
/// # Ok(()) }
/// ```
pub struct RecordWriter {
    stream: Stream,
    name: PathBuf,
}

enum Stream {
    Plain(BufWriter<Box<dyn Write + Send>>),
    Gzip(GzEncoder<BufWriter<Box<dyn Write + Send>>>),
    Zlib(ZlibEncoder<BufWriter<Box<dyn Write + Send>>>),
}

impl Stream {
    fn as_write(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(stream) => stream,
            Self::Gzip(stream) => stream,
            Self::Zlib(stream) => stream,
        }
    }
}

impl std::fmt::Debug for RecordWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordWriter")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl RecordWriter {
    /// Writes a new file, replacing an existing one.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created.
    pub fn create(path: impl AsRef<Path>, compression: Compression) -> Result<Self> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|e| Error::io(path, e))?;
        Ok(Self::new(file, compression, path))
    }

    /// Writes to a stream. `name` is used in error messages.
    pub fn new(
        stream: impl Write + Send + 'static,
        compression: Compression,
        name: impl AsRef<Path>,
    ) -> Self {
        let stream: Box<dyn Write + Send> = Box::new(stream);
        let stream = BufWriter::with_capacity(BUFFER, stream);
        let level = flate2::Compression::default();
        Self {
            stream: match compression {
                Compression::Plain => Stream::Plain(stream),
                Compression::Gzip => Stream::Gzip(GzEncoder::new(stream, level)),
                Compression::Zlib => Stream::Zlib(ZlibEncoder::new(stream, level)),
            },
            name: name.as_ref().into(),
        }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write(&mut self, record: &[u8]) -> Result<()> {
        let length = (record.len() as u64).to_le_bytes();
        let name = &self.name;
        let stream = self.stream.as_write();
        let mut write = |bytes: &[u8]| stream.write_all(bytes).map_err(|e| Error::io(name, e));
        write(&length)?;
        write(&masked_crc(&length).to_le_bytes())?;
        write(record)?;
        write(&masked_crc(record).to_le_bytes())
    }

    /// Writes the buffered data, so that a reader finds all records so far.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.stream.as_write().flush();
        flushed.map_err(|e| Error::io(&self.name, e))
    }

    /// Ends the stream and writes the buffered data.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn finish(self) -> Result<()> {
        let finished = match self.stream {
            Stream::Plain(stream) => Ok(stream),
            Stream::Gzip(stream) => stream.finish(),
            Stream::Zlib(stream) => stream.finish(),
        };
        let flushed = finished.and_then(|mut stream| stream.flush());
        flushed.map_err(|e| Error::io(&self.name, e))
    }
}
