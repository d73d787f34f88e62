//! A disk cache of compiled kernels: only the first start on a machine waits for the compiler.
//!
//! The file name is a hash of everything that the content depends on. A file is written under a
//! temporary name and renamed, so several processes can share the folder. It begins with a hash of
//! its content, which detects corrupt files but not hostile ones: the folder must belong to the
//! user, and no other user may write to it. If the cache cannot be read or written, kernels are
//! compiled again; results are not affected.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::{env, fmt};

use backend_api::Result;
use sha2::{Digest, Sha256};

use crate::kernels::{self, Code};

/// Bytes of the content hash at the start of a file.
const HASH: usize = 32;

/// The cache folder: `RECURRENT_KERNEL_CACHE`, or a folder in the user's cache directory.
fn folder() -> Option<PathBuf> {
    match env::var_os("RECURRENT_KERNEL_CACHE").filter(|value| !value.is_empty()) {
        Some(set) => Some(PathBuf::from(set)),
        None => Some(dirs::cache_dir()?.join("recurrent").join("kernels")),
    }
}

/// The cache file of code for a device; `None` if there is no cache folder.
fn file(code: &Code<'_>, hardware: &str, architecture: &str) -> Result<Option<PathBuf>> {
    let (major, minor) = kernels::compiler_version()?;
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    };
    let versions = [env!("CARGO_PKG_VERSION"), &format!("{major}.{minor}")];
    let parts = [code.name, code.source, hardware];
    let headers = kernels::headers()
        .into_iter()
        .flat_map(|(name, source)| [name, source]);
    versions
        .into_iter()
        .chain(parts)
        .chain(headers)
        .for_each(&mut add);
    code.options(architecture).iter().for_each(|o| add(o));
    let name: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(folder().map(|folder| folder.join(format!("{name}.cubin"))))
}

/// Machine code, and whether it came from the cache. `hardware` is the device's name,
/// `architecture` its `sm_..` name.
pub(crate) fn cubin(
    code: &Code<'_>,
    hardware: &str,
    architecture: &str,
) -> Result<(Vec<u8>, bool)> {
    if let Some(cubin) = file(code, hardware, architecture)?.and_then(|file| read(&file)) {
        return Ok((cubin, true));
    }
    Ok((compile(code, hardware, architecture)?, false))
}

/// Compiles code and stores the result in the cache.
pub(crate) fn compile(code: &Code<'_>, hardware: &str, architecture: &str) -> Result<Vec<u8>> {
    log::info!("compiling {} for {architecture}", code.name);
    let compiled = kernels::compile_code(code, architecture)?;
    if let Some(file) = file(code, hardware, architecture)? {
        let stored = store(&file, &compiled.cubin);
        stored.unwrap_or_else(|e| unused(&file, e, "kernels are compiled again at the next start"));
    }
    Ok(compiled.cubin)
}

/// Logs the first problem of the process: the next ones are mostly the same.
fn unused(file: &Path, problem: impl fmt::Display, result: &str) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| log::warn!("{}: {problem}; {result}", file.display()));
}

/// The content of a file written by `store`, or `None` if it is missing, damaged or not ours.
fn read(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(file).ok()?;
    if let Err(e) = check_owner(file.parent()?) {
        unused(file, e, "the cached code is not used");
        return None;
    }
    let (hash, content) = bytes.split_at_checked(HASH)?;
    if Sha256::digest(content)[..] != *hash {
        unused(file, "the cached code is damaged", "it is not used");
        return None;
    }
    bytes.drain(..HASH);
    Some(bytes)
}

fn store(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    create(folder)?;
    check_owner(folder)?;
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(&Sha256::digest(bytes))?;
    aside.write_all(bytes)?;
    aside.persist(file)?;
    Ok(())
}

/// Creates a folder that only its owner can use.
fn create(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Refuses a folder in which another user could have put code for us to run.
#[cfg(unix)]
fn check_owner(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(folder)?;
    // SAFETY: the call has no preconditions.
    let me = unsafe { libc::geteuid() };
    let problem = match found.uid() {
        other if other != me => format!("the folder belongs to user {other}, not to {me}"),
        _ if found.mode() & 0o022 != 0 => "other users can write to the folder".to_owned(),
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Folders of a user are private by default.
#[cfg(not(unix))]
fn check_owner(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_short_or_changed_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub").join("x.cubin");
        assert_eq!(read(&file), None);
        store(&file, b"machine code").unwrap();
        assert_eq!(read(&file).unwrap(), b"machine code");
        let whole = fs::read(&file).unwrap();
        for len in [0, 5, HASH, whole.len() - 1] {
            fs::write(&file, &whole[..len]).unwrap();
            assert_eq!(read(&file), None, "{len} bytes");
        }
        let mut changed = whole;
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&file, changed).unwrap();
        assert_eq!(read(&file), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_of_others_is_neither_read_nor_written() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("a").join("b");
        let file = folder.join("x.cubin");
        store(&file, b"machine code").unwrap();
        let mode = || fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        let allow = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        for shared in [0o720, 0o702, 0o777] {
            allow(shared);
            assert_eq!(read(&file), None, "{shared:o}");
            assert!(store(&file, b"other code").is_err(), "{shared:o}");
        }
        allow(0o755); // others may read
        assert_eq!(read(&file).unwrap(), b"machine code");
        // Only the administrator can give a folder away.
        if chown(&folder, Some(12_345), None).is_ok() {
            assert_eq!(read(&file), None);
            let error = store(&file, b"other code").unwrap_err().to_string();
            assert!(
                error.starts_with("the folder belongs to user 12345"),
                "{error}"
            );
        }
    }

    #[test]
    fn whatever_changes_the_code_changes_its_file() {
        let _sim = cudasim::install().unwrap().exclusive();
        let code = |options: &[&str]| Code {
            name: "x.cu",
            source: "source",
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        };
        let of = |code, hardware, architecture| file(&code, hardware, architecture).unwrap();
        let first = of(code(&[]), "gpu", "sm_90");
        assert!(first.is_some());
        assert_eq!(first, of(code(&[]), "gpu", "sm_90"));
        for other in [
            of(code(&["-DX"]), "gpu", "sm_90"),
            of(code(&[]), "other gpu", "sm_90"),
            of(code(&[]), "gpu", "sm_80"),
            of(
                Code {
                    source: "other",
                    ..code(&[])
                },
                "gpu",
                "sm_90",
            ),
        ] {
            assert_ne!(other, first);
        }
    }
}
