//! Opening files.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use rnn_train::internal;
use zip::ZipArchive;

pub(crate) type Zip = ZipArchive<BufReader<File>>;

/// The bytes of a file.
pub(crate) fn whole(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut file = internal::open(path).map_err(|e| e.to_string())?;
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Opens a zip archive whose entries do not overlap.
pub(crate) fn archive(path: &Path) -> Result<Zip, String> {
    let file = internal::open(path).map_err(|e| e.to_string())?;
    let archive = ZipArchive::new(BufReader::new(file));
    let mut archive = archive.map_err(|e| format!("is a damaged zip archive: {e}"))?;
    // A small archive whose entries all name the same bytes would fill the memory.
    match archive.has_overlapping_files() {
        Ok(false) => Ok(archive),
        Ok(true) => Err("has entries that overlap each other or the directory".to_owned()),
        Err(e) => Err(format!("is a damaged zip archive: {e}")),
    }
}

/// The names in a zip archive.
pub(crate) fn names(archive: &Zip) -> Vec<String> {
    let names = archive.file_names().filter_map(Result::ok);
    names.map(|name| name.into_owned()).collect()
}
