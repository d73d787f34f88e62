//! Compiled kernels on disk, so that only the first start on a machine waits for the compiler.
//!
//! A file's name is a hash of all that its content depends on; files are written aside and renamed, so that several processes
//! can share the folder. A cache that cannot be read or written costs time, never a result.

use std::env;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use backend_api::Result;
use sha2::{Digest, Sha256};

use crate::kernels::{self, HEADERS, Module};

/// The folder: `RECURRENT_KERNEL_CACHE`, or one in the user's cache folder.
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

/// A module's machine code for a device: `hardware` is its name, `architecture` its `sm_..`.
pub(crate) fn cubin(module: Module, hardware: &str, architecture: &str) -> Result<Vec<u8>> {
    let version = kernels::compiler_version()?;
    let mut hash = Sha256::new();
    let parts = [module.name(), module.source(), hardware, architecture];
    let headers = HEADERS.iter().flat_map(|(name, source)| [*name, *source]);
    for part in parts.into_iter().chain(headers) {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.update(format!("{version:?}"));
    let name: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let file = folder().map(|folder| folder.join(format!("{name}.cubin")));
    if let Some(cubin) = file.as_ref().and_then(|file| fs::read(file).ok()) {
        return Ok(cubin);
    }
    log::info!("compiling {} for {architecture}", module.name());
    let compiled = kernels::compile(module.name(), module.source(), architecture, false)?;
    if let Some(file) = file
        && let Err(e) = store(&file, &compiled.cubin)
    {
        log::warn!(
            "{}: {e}; kernels are compiled again at the next start",
            file.display()
        );
    }
    Ok(compiled.cubin)
}

fn store(file: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(std::path::Path::new("."));
    fs::create_dir_all(folder)?;
    let mut aside = tempfile::NamedTempFile::new_in(folder)?;
    aside.write_all(bytes)?;
    aside.persist(file)?;
    Ok(())
}
