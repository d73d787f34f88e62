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
    try_write(folder, &target, bytes).map_err(|e| Error::io(path, e))
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

fn try_write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = unfinished(folder)?;
    file.write_all(bytes)?;
    // The content must reach the disk before the name does.
    file.as_file().sync_all()?;
    compare(file.as_file_mut(), bytes)?;
    file.persist(path)?;
    sync_folder(folder)
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
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let ours = unfinished(folder.path()).unwrap();
        let old = folder.path().join(".unfinished-AbC123.tmp");
        fs::write(&old, b"half").unwrap();
        let named = folder.path().join(".unfinished-folder.tmp");
        fs::create_dir(&named).unwrap();
        clean(folder.path());
        assert!(ours.path().exists() && named.exists());
        assert!(!old.exists());
        // Without its writer, as after a kill.
        let (file, path) = ours.keep().unwrap();
        clean(folder.path());
        assert!(path.exists());
        drop(file);
        clean(folder.path());
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_differs_from_what_was_written_is_found() {
        let mut file = tempfile::tempfile().unwrap();
        let long = vec![7; (2 << 20) + 3];
        for (found, expected) in [
            (&b"abc"[..], &b"abc"[..]),
            (b"", b""),
            (b"abc", b"abd"),
            (b"abc", b"ab"),
            (b"ab", b"abc"),
            (b"", b"a"),
            (&long, &long),
            (&long, &long[1..]),
        ] {
            file.set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(found).unwrap();
            assert_eq!(compare(&mut file, expected).is_ok(), found == expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_are_replaced() {
        use std::os::unix::fs::{FileTypeExt, symlink};

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let refusal = |name: &str| write(&at(name), b"new").unwrap_err().to_string();

        write(&at("file"), b"old").unwrap();
        write(&at("file"), b"new").unwrap();
        assert_eq!(fs::read(at("file")).unwrap(), b"new");

        fs::create_dir(at("folder")).unwrap();
        assert!(refusal("folder").contains("not a regular file"));
        let made = std::process::Command::new("mkfifo")
            .arg(at("pipe"))
            .status();
        if made.is_ok_and(|status| status.success()) {
            assert!(refusal("pipe").contains("not a regular file"));
            let kind = fs::symlink_metadata(at("pipe")).unwrap().file_type();
            assert!(kind.is_fifo());
        }

        // Links stay.
        fs::create_dir(at("other")).unwrap();
        fs::write(at("other/file"), b"old").unwrap();
        symlink("other/file", at("link")).unwrap();
        write(&at("link"), b"new").unwrap();
        assert_eq!(fs::read(at("other/file")).unwrap(), b"new");
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        symlink("none", at("dangling")).unwrap();
        assert!(refusal("dangling").contains("does not exist"));
        symlink("/dev/null", at("device")).unwrap();
        assert!(refusal("device").contains("/dev/null, which is not a regular file"));
        let left = fs::read_dir(folder.path()).unwrap().flatten();
        let left = left.filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX));
        assert_eq!(left.count(), 0);
    }
}
