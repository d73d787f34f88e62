//! A disk cache of compiled kernels: only the first start on a machine waits for the compiler.
//!
//! The file name is a hash of everything that the content depends on. A file is written under a
//! temporary name and renamed, so several processes can share the folder. It begins with a hash of
//! its content, which detects corrupt files. If the cache cannot be read or written, kernels are
//! compiled again; results are not affected.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use backend_api::Result;
use sha2::{Digest, Sha256};

use crate::kernels;

/// Bytes of the content hash at the start of a file.
const HASH: usize = 32;

/// The cache folder: `RECURRENT_KERNEL_CACHE`, or a folder in the user's cache directory.
fn folder() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("RECURRENT_KERNEL_CACHE").or_else(|| {
        let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(caches.join("recurrent").join("kernels"))
    })
}

/// The cache file of a source for a device; `None` if there is no cache folder.
fn file(name: &str, source: &str, hardware: &str, architecture: &str) -> Result<Option<PathBuf>> {
    let version = kernels::compiler_version()?;
    let mut hash = Sha256::new();
    let parts = [name, source, hardware, architecture];
    let headers = kernels::headers()
        .into_iter()
        .flat_map(|(name, source)| [name, source]);
    for part in parts.into_iter().chain(headers) {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.update(format!("{version:?}"));
    let name: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(folder().map(|folder| folder.join(format!("{name}.cubin"))))
}

/// A source's machine code, and whether it came from the cache. `hardware` is the device's name,
/// `architecture` its `sm_..` name.
pub(crate) fn cubin(
    name: &str,
    source: &str,
    hardware: &str,
    architecture: &str,
) -> Result<(Vec<u8>, bool)> {
    if let Some(cubin) = file(name, source, hardware, architecture)?.and_then(|file| read(&file)) {
        return Ok((cubin, true));
    }
    Ok((compile(name, source, hardware, architecture)?, false))
}

/// Compiles a source and stores it in the cache.
pub(crate) fn compile(
    name: &str,
    source: &str,
    hardware: &str,
    architecture: &str,
) -> Result<Vec<u8>> {
    log::info!("compiling {name} for {architecture}");
    let compiled = kernels::compile(name, source, architecture, false)?;
    if let Some(file) = file(name, source, hardware, architecture)?
        && let Err(e) = store(&file, &compiled.cubin)
    {
        log::warn!(
            "{}: {e}; kernels are compiled again at the next start",
            file.display()
        );
    }
    Ok(compiled.cubin)
}

/// The content of a file written by `store`, or `None` if it is missing or damaged.
fn read(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(file).ok()?;
    let (hash, content) = bytes.split_at_checked(HASH)?;
    if Sha256::digest(content)[..] != *hash {
        log::warn!("{}: the cached code is damaged and ignored", file.display());
        return None;
    }
    bytes.drain(..HASH);
    Some(bytes)
}

fn store(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(&Sha256::digest(bytes))?;
    aside.write_all(bytes)?;
    aside.persist(file)?;
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
}
