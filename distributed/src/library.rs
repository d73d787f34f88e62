//! Opening libraries at run time.

use std::path::{Path, PathBuf};

/// Opens the first library that can be opened; else returns what was tried, and why it failed.
pub(crate) fn open<F>(
    paths: impl IntoIterator<Item = PathBuf>,
    open: impl Fn(&Path) -> Result<F, libloading::Error>,
) -> Result<F, String> {
    let mut tried = Vec::new();
    for path in paths {
        match open(&path) {
            Ok(functions) => return Ok(functions),
            Err(error) => tried.push(format!("{}: {error}", path.display())),
        }
    }
    Err(tried.join("; "))
}
