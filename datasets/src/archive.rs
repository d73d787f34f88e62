//! Finding a data set's files in a download.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::{DataFile, Dataset, Error, Result};

/// Limit of the unpacked size of an archive, apart from the files of the data set.
const OTHER_BYTES: u64 = 64 << 20;

/// The longest name of an entry that is read, and the longest list of its attributes. Archives keep
/// both in entries of their own, whose content must be in memory as a whole.
const LONGEST_NAME: u64 = 64 << 10;

/// Calls `found(file, path, bytes)` for each of the data set's files in `from`: a folder, a `.tar`
/// or `.tgz`, a zip such as a Python wheel, a single file or its `.gz`. The content decides the
/// type; the name only counts for single files. Returns the number of files found.
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
    } else if !metadata.is_file() {
        // Opening a pipe could wait for ever, and a device might never end.
        Err(refused(
            from,
            "is neither a regular file nor a folder".into(),
        ))
    } else {
        let limit = OTHER_BYTES + dataset.files.iter().map(|f| f.checksum.size()).sum::<u64>();
        let mut bytes = open(from, limit)?;
        let mut head = Vec::new();
        (&mut bytes)
            .take(512)
            .read_to_end(&mut head)
            .map_err(|e| damaged(from, &e))?;
        let is_tar = head.get(257..262) == Some(b"ustar");
        let is_zip = head.starts_with(b"PK\x03\x04");
        let bytes = head.as_slice().chain(bytes);
        let whole = match dataset.files {
            [file] if is_tar && file.name.ends_with(".tar") => Some(file),
            _ if is_tar => None,
            _ => wanted(dataset, from),
        };
        match whole {
            Some(file) => found(file, from, &mut { bytes }).map(|()| 1),
            None if is_tar => search_tar(dataset, from, bytes, found),
            None if is_zip => search_zip(dataset, from, limit, found),
            None => Ok(0),
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
    // The name of the next entry, if an entry before it says so.
    let mut long_name = None;
    let mut long_size = None;
    let entries = archive.entries().map_err(|e| damaged(from, &e))?;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|e| damaged(from, &e))?;
        let kind = entry.header().entry_type();
        if is_about_others(kind) {
            let length = entry.size();
            if length > LONGEST_NAME {
                let problem = format!(
                    "an entry of type {:?} has {length} bytes; at most {LONGEST_NAME} are read",
                    char::from(kind.as_byte())
                );
                return Err(refused(from, problem));
            }
            let mut text = Vec::new();
            entry
                .read_to_end(&mut text)
                .map_err(|e| damaged(from, &e))?;
            if kind.is_gnu_longname() {
                text.truncate(
                    text.iter()
                        .position(|&byte| byte == 0)
                        .unwrap_or(text.len()),
                );
                long_name = Some(text);
            } else if kind.is_pax_local_extensions() {
                long_name = attribute(&text, b"path").or(long_name);
                long_size = attribute(&text, b"size").or(long_size);
            }
            continue;
        }
        let name = long_name.take();
        let name = name.unwrap_or_else(|| entry.path_bytes().into_owned());
        let attribute_size = long_size.take();
        let Ok(path) = String::from_utf8(name).map(PathBuf::from) else {
            // No file of a data set has such a name.
            continue;
        };
        // Sizes above 8 GiB are not in the header, and no data set has them.
        let size = entry.size();
        if attribute_size.is_some_and(|found| found != size.to_string().as_bytes()) {
            let problem = format!(
                "entry {} has two sizes: {size} in its header, another in its attributes",
                path.display()
            );
            return Err(refused(from, problem));
        }
        let inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            let problem = format!(
                "the path of entry {} is outside the archive",
                path.display()
            );
            return Err(refused(from, problem));
        }
        // Links are never followed; only the content of the entry itself counts.
        if let Some(file) = wanted(dataset, &path)
            && kind.is_file()
        {
            found(file, &from.join(&path), &mut entry)?;
            count += 1;
        }
    }
    Ok(count)
}

fn search_zip(
    dataset: &Dataset,
    from: &Path,
    limit: u64,
    found: &mut dyn FnMut(&DataFile, &Path, &mut dyn Read) -> Result<()>,
) -> Result<usize> {
    let bytes = BufReader::new(File::open(from).map_err(|e| Error::io(from, e))?);
    let unreadable = |e: zip::result::ZipError| refused(from, e.to_string());
    let mut archive = zip::ZipArchive::new(bytes).map_err(unreadable)?;
    let mut count = 0;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(unreadable)?;
        // Links are never followed.
        let path = entry.enclosed_name().filter(|_| entry.is_file());
        if let Some(path) = path
            && let Some(file) = wanted(dataset, &path)
        {
            let mut bytes = Limited {
                bytes: entry,
                left: limit,
            };
            found(file, &from.join(path), &mut bytes)?;
            count += 1;
        }
    }
    Ok(count)
}

/// The files of a tar for whose names, with the folders before them, `keep` is true: names and
/// contents, ordered by name.
///
/// ```
/// use std::path::Path;
///
/// let absent = datasets::read_tar(Path::new("absent.tar"), |name| name.ends_with(".txt"));
/// assert!(absent.unwrap_err().to_string().contains("absent.tar"));
/// ```
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened, [`Error::Archive`] if it is no tar.
pub fn read_tar(path: &Path, keep: impl Fn(&str) -> bool) -> Result<Vec<(String, Vec<u8>)>> {
    let bytes = BufReader::new(File::open(path).map_err(|e| Error::io(path, e))?);
    let mut files = Vec::new();
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().map_err(|e| damaged(path, &e))? {
        let mut entry = entry.map_err(|e| damaged(path, &e))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type().is_file() && keep(&name) {
            let mut content = Vec::new();
            entry
                .read_to_end(&mut content)
                .map_err(|e| damaged(path, &e))?;
            files.push((name, content));
        }
    }
    files.sort();
    Ok(files)
}

/// Whether an entry is no file, but says something about the entries after it.
fn is_about_others(kind: tar::EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

/// An attribute in a list of lines `LENGTH KEY=VALUE`, of which the last one counts.
fn attribute(mut list: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    while let Some(space) = list.iter().position(|&byte| byte == b' ') {
        let length: usize = std::str::from_utf8(&list[..space]).ok()?.parse().ok()?;
        let line = list.get(space + 1..length)?.strip_suffix(b"\n")?;
        if let Some(value) = line
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(b"="))
        {
            found = Some(value.to_vec());
        }
        list = &list[length..];
    }
    found
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

fn refused(path: &Path, problem: String) -> Error {
    Error::Archive {
        path: path.to_owned(),
        problem,
    }
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
