//! Atomic file replacement.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use backend_api::{Error, Result};
use tempfile::Builder;

const PREFIX: &str = ".unfinished-";
const SUFFIX: &str = ".tmp";

/// Writes a file atomically: even if the process is killed, the path refers to the old or the new
/// content, never to a partial file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    try_write(folder, path, bytes).map_err(|e| Error::io(path, e))
}

fn try_write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // Temporary files are private by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    // The content must reach the disk before the name does.
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder)
}

/// Makes the rename durable. Systems that cannot open a directory have no such call.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes partial files left by killed processes.
pub(super) fn clean(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file that may already be removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
