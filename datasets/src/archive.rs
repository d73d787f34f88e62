//! Finding a data set's files in a download.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::{DataFile, Dataset, Error, Result};

/// Limit of the unpacked size of an archive, apart from the files of the data set.
const OTHER_BYTES: u64 = 64 << 20;

/// Calls `found(file, path, bytes)` for each of the data set's files in `from`: a folder, a `.tar`
/// or `.tgz`, a single file or its `.gz`. The content decides the type; the name only counts for
/// single files. Returns the number of files found.
///
/// Nothing is written. The paths of an archive's entries have no effect, and an entry whose path is
/// outside the archive is rejected.
pub(crate) fn search(
    dataset: &Dataset,
    from: &Path,
    found: &mut dyn FnMut(&DataFile, &Path, &mut dyn Read) -> Result<()>,
) -> Result<usize> {
    let metadata = fs::metadata(from).map_err(|e| Error::io(from, e))?;
    if metadata.is_dir() {
        search_folder(dataset, from, found)
    } else {
        let limit = OTHER_BYTES + dataset.files.iter().map(|f| f.checksum.size()).sum::<u64>();
        let mut bytes = open(from, limit)?;
        let mut head = Vec::new();
        (&mut bytes)
            .take(512)
            .read_to_end(&mut head)
            .map_err(|e| damaged(from, &e))?;
        let is_tar = head.get(257..262) == Some(b"ustar");
        let bytes = head.as_slice().chain(bytes);
        if is_tar {
            search_tar(dataset, from, bytes, found)
        } else {
            match wanted(dataset, from) {
                None => Ok(0),
                Some(file) => found(file, from, &mut { bytes }).map(|()| 1),
            }
        }
    }
}

fn search_folder(
    dataset: &Dataset,
    folder: &Path,
    found: &mut dyn FnMut(&DataFile, &Path, &mut dyn Read) -> Result<()>,
) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if let Some(file) = wanted(dataset, &path)
            && path.is_file()
        {
            found(file, &path, &mut open(&path, u64::MAX)?)?;
            count += 1;
        }
    }
    Ok(count)
}

fn search_tar(
    dataset: &Dataset,
    from: &Path,
    bytes: impl Read,
    found: &mut dyn FnMut(&DataFile, &Path, &mut dyn Read) -> Result<()>,
) -> Result<usize> {
    let mut count = 0;
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().map_err(|e| damaged(from, &e))? {
        let mut entry = entry.map_err(|e| damaged(from, &e))?;
        let path = entry.path().map_err(|e| damaged(from, &e))?.into_owned();
        let inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(Error::Archive {
                path: from.to_owned(),
                problem: format!(
                    "the path of entry {} is outside the archive",
                    path.display()
                ),
            });
        }
        // Links are never followed; only the content of the entry itself counts.
        if let Some(file) = wanted(dataset, &path)
            && entry.header().entry_type().is_file()
        {
            found(file, &from.join(&path), &mut entry)?;
            count += 1;
        }
    }
    Ok(count)
}

/// The file of the data set whose name matches `path`, with or without `.gz`. A dot may replace any
/// dash, as in the names of some mirrors.
fn wanted<'a>(dataset: &'a Dataset, path: &Path) -> Option<&'a DataFile> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let name = name.replace('.', "-");
    dataset
        .files
        .iter()
        .find(|file| file.name.replace('.', "-") == name)
}

/// The bytes of a file, unpacked if they are gzip.
fn open(path: &Path, limit: u64) -> Result<Box<dyn Read>> {
    let open = || {
        let mut head = Vec::new();
        let mut file = File::open(path)?;
        (&mut file).take(2).read_to_end(&mut head)?;
        let is_gzip = head == [0x1f, 0x8b];
        let bytes = BufReader::new(io::Cursor::new(head).chain(file));
        Ok(if is_gzip {
            Box::new(Limited {
                bytes: MultiGzDecoder::new(bytes),
                left: limit,
            }) as Box<dyn Read>
        } else {
            Box::new(bytes)
        })
    };
    open().map_err(|e| Error::io(path, e))
}

/// An error while reading or unpacking a downloaded file.
pub(crate) fn damaged(path: &Path, error: &io::Error) -> Error {
    Error::Archive {
        path: PathBuf::from(path),
        problem: match error.kind() {
            io::ErrorKind::UnexpectedEof => "is truncated; the download may be incomplete".into(),
            _ => error.to_string(),
        },
    }
}

/// A reader that fails after a number of bytes.
struct Limited<R> {
    bytes: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(
                    "the unpacked content is larger than the data set",
                ));
            }
        }
        Ok(n)
    }
}
