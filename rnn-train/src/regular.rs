//! Opening files for reading.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use backend_api::{Error, Result};

/// Opens a regular file. Opening a pipe could wait for ever, and reading a device might never end.
pub fn open(path: &Path) -> Result<File> {
    let io = |e| Error::io(path, e);
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::format(path, "is not a regular file"));
    }
    File::open(path).map_err(io)
}

/// Reads a regular file of UTF-8.
pub(crate) fn read_utf8(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let read = open(path)?.read_to_end(&mut bytes);
    read.map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::format(path, format!("is not UTF-8 at byte {at}"))
    })
}
