//! Atomic file replacement.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use backend_api::{Error, Result};
use tempfile::{Builder, NamedTempFile};

const PREFIX: &str = ".unfinished-";
const SUFFIX: &str = ".tmp";

/// Writes a file atomically: even if the process is killed, the path refers to the old or the new
/// content, never to a partial file. What was written is read back before it gets the name.
///
/// Only a regular file is replaced. A link to one stays, and the file that it leads to is replaced;
/// a link to nothing is refused.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = target(path)?;
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    replace(&System, folder, &target, bytes).map_err(|e| Error::io(path, e))
}

/// The file to replace, or the free name. A rename would put a file in the place of a device, which
/// takes the device away from the whole system.
fn target(path: &Path) -> Result<PathBuf> {
    let io = |e| Error::io(path, e);
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path.to_owned()),
        found => found.map_err(io)?,
    };
    if !found.is_symlink() {
        return match found.is_file() {
            true => Ok(path.to_owned()),
            false => Err(Error::format(
                path,
                "is not a regular file, so it is not replaced",
            )),
        };
    }
    let target = match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let problem = "is a link to a file that does not exist";
            return Err(Error::format(path, problem));
        }
        target => target.map_err(io)?,
    };
    if !fs::metadata(&target).map_err(io)?.is_file() {
        let problem = format!(
            "is a link to {}, which is not a regular file, so it is not replaced",
            target.display()
        );
        return Err(Error::format(path, problem));
    }
    Ok(target)
}

/// What replacing a file consists of.
trait Disk {
    type File;
    /// A new file without a lasting name.
    fn create(&self, folder: &Path) -> io::Result<Self::File>;
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;
    /// Fails if the file is not what was written to it.
    fn compare(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    fn rename(&self, file: Self::File, path: &Path) -> io::Result<()>;
    /// Makes the names of a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

fn replace<D: Disk>(disk: &D, folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = disk.create(folder)?;
    disk.write(&mut file, bytes)?;
    // The content must reach the disk before the name does.
    disk.sync(&mut file)?;
    disk.compare(&mut file, bytes)?;
    disk.rename(file, path)?;
    disk.sync_folder(folder)
}

/// The file system.
struct System;

impl Disk for System {
    type File = NamedTempFile;

    fn create(&self, folder: &Path) -> io::Result<NamedTempFile> {
        unfinished(folder)
    }

    fn write(&self, file: &mut NamedTempFile, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &mut NamedTempFile) -> io::Result<()> {
        file.as_file().sync_all()
    }

    fn compare(&self, file: &mut NamedTempFile, bytes: &[u8]) -> io::Result<()> {
        compare(file.as_file_mut(), bytes)
    }

    fn rename(&self, file: NamedTempFile, path: &Path) -> io::Result<()> {
        file.persist(path)?;
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }
}

/// A new file, locked for as long as it is open, so that [`clean`] in this or another process can
/// tell that it is in use.
fn unfinished(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // Temporary files are private by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        let file = builder.tempfile_in(folder)?;
        match file.as_file().lock() {
            // Another process may have taken the file for an abandoned one before it was locked.
            Ok(()) if file.path().try_exists()? => return Ok(file),
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Some file systems have no locks; nothing that cannot be locked is removed, either.
            Err(_) => return Ok(file),
        }
    }
}

/// Compares a file with what was written to it.
fn compare(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.rewind()?;
    let mut buffer = vec![0; bytes.len().clamp(1, 1 << 20)];
    let mut rest = bytes;
    loop {
        let read = match file.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        match rest.strip_prefix(&buffer[..read]) {
            Some(after) if read > 0 => rest = after,
            Some([]) => return Ok(()),
            _ => {
                return Err(io::Error::other(
                    "the file differs from what was written to it",
                ));
            }
        }
    }
}

/// Makes the rename durable. Systems that cannot open a directory have no such call.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Creates a folder and those above it, if they do not exist, durably.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    let missing = path
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing = missing.count();
    fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
    for above in path.ancestors().skip(1).take(missing) {
        let above = if above.as_os_str().is_empty() {
            Path::new(".")
        } else {
            above
        };
        sync_folder(above).map_err(|e| Error::io(above, e))?;
    }
    Ok(())
}

/// Removes partial files left by killed processes: those that no process holds a lock on. A file
/// that cannot be inspected stays, since the save itself has succeeded.
pub(super) fn clean(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            // Ignored for the reason above.
            let _ = remove_abandoned(&entry.path());
        }
    }
}

fn remove_abandoned(path: &Path) -> io::Result<()> {
    // Opening a pipe would wait.
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(());
    }
    // Some file systems lock only files that are open for writing.
    let file = File::options().write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => remove(path),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Removes a file that may already be removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
