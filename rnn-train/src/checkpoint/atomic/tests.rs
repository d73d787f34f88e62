use std::cell::RefCell;
use std::collections::HashMap;

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

/// A disk that loses its power. It keeps what was made durable; the rest may or may not have
/// reached it.
#[derive(Default)]
struct Simulated(RefCell<Power>);

#[derive(Default)]
struct Power {
    files: Vec<Content>,
    /// The file of each name, in the eyes of a program, and on the disk at the latest.
    names: HashMap<PathBuf, usize>,
    durable: HashMap<PathBuf, usize>,
    /// Operations until the power fails.
    left: usize,
}

#[derive(Default)]
struct Content {
    written: Vec<u8>,
    synced: bool,
}

impl Simulated {
    fn operate<T>(&self, f: impl FnOnce(&mut Power) -> T) -> io::Result<T> {
        let power = &mut *self.0.borrow_mut();
        power.left = power.left.checked_sub(1).ok_or(io::ErrorKind::Other)?;
        Ok(f(power))
    }

    /// All contents that a file may have after the power has failed; `None` if it does not exist.
    fn after_failure(&self, path: &Path) -> Vec<Option<Vec<u8>>> {
        let power = self.0.borrow();
        let mut found = Vec::new();
        for names in [&power.names, &power.durable] {
            let Some(&id) = names.get(path) else {
                found.push(None);
                continue;
            };
            let Content { written, synced } = &power.files[id];
            found.push(Some(written.clone()));
            if !synced {
                found.extend([
                    Some(Vec::new()),
                    Some(written[..written.len() / 2].to_vec()),
                ]);
            }
        }
        found
    }
}

impl Disk for Simulated {
    type File = usize;

    fn create(&self, _: &Path) -> io::Result<usize> {
        self.operate(|power| {
            power.files.push(Content::default());
            power.files.len() - 1
        })
    }

    fn write(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.operate(|power| {
            power.files[*file].written.extend_from_slice(bytes);
            power.files[*file].synced = false;
        })
    }

    fn sync(&self, file: &mut usize) -> io::Result<()> {
        self.operate(|power| power.files[*file].synced = true)
    }

    fn compare(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.operate(|power| assert_eq!(power.files[*file].written, bytes))
    }

    fn rename(&self, file: usize, path: &Path) -> io::Result<()> {
        self.operate(|power| power.names.insert(path.to_owned(), file))?;
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.operate(|power| power.durable = power.names.clone())
    }
}

#[test]
fn a_power_failure_leaves_the_old_or_the_new_file() {
    let (folder, path) = (Path::new("run"), Path::new("run/file"));
    for exists in [false, true] {
        let old = exists.then(|| b"old content".to_vec());
        let new = Some(b"new".to_vec());
        let mut operations = 0;
        loop {
            let disk = Simulated::default();
            let set = |left| disk.0.borrow_mut().left = left;
            set(100);
            if let Some(old) = &old {
                replace(&disk, folder, path, old).unwrap();
            }
            set(operations);
            let written = replace(&disk, folder, path, b"new");
            for found in disk.after_failure(path) {
                let allowed = found == new || (written.is_err() && found == old);
                assert!(allowed, "{found:?} after {operations} operations");
            }
            if written.is_ok() {
                break;
            }
            operations += 1;
        }
        assert_eq!(operations, 6);
    }
}

#[test]
fn folders_are_created_with_those_above() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a/b/c");
    create_folder(&folder).unwrap();
    create_folder(&folder).unwrap();
    assert!(folder.is_dir());
    fs::write(root.path().join("file"), b"").unwrap();
    let error = create_folder(&root.path().join("file/d")).unwrap_err();
    assert!(error.to_string().contains("file/d"), "{error}");
}
