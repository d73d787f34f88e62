//! `.npz`: a zip archive of arrays.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::Path;

use backend_api::{Error, Result};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::array::{CHUNK, read_array};
use super::layout::Layout;
use super::location::Location;
use crate::data::column::Column;

/// Entries of at least this size get the longer zip headers. Deflate may add a little to it.
const LARGE_ENTRY: u64 = 0xf000_0000;

pub(super) fn read_archive(bytes: impl Read + Seek, path: &Path) -> Result<Vec<(String, Column)>> {
    let file = Location::file(path);
    let mut archive = ZipArchive::new(bytes).map_err(|e| file.zip(e))?;
    if archive.has_duplicate_names() {
        return Err(file.refuse("has two entries of the same name"));
    }
    // A small archive whose entries all name the same bytes would fill the memory.
    if archive.has_overlapping_files().map_err(|e| file.zip(e))? {
        return Err(file.refuse("has entries that overlap each other or the directory"));
    }
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let (name, stored) = {
            let entry = archive.by_index_data(index).map_err(|e| file.zip(e))?;
            let name = entry.name().map_err(|e| file.zip(e))?.into_owned();
            let refuse = |problem: &str| Err(file.refuse(format!("entry {name:?}: {problem}")));
            if entry.encrypted() {
                return refuse("is encrypted");
            }
            let stored = match entry.compression() {
                CompressionMethod::Stored => Some(entry.compressed_size()),
                CompressionMethod::Deflated => None,
                other => {
                    return refuse(&format!(
                        "is compressed with {other}; only deflate is supported"
                    ));
                }
            };
            (name, stored)
        };
        let location = Location {
            path,
            entry: Some(&name),
        };
        let Some(short) = name.strip_suffix(".npy") else {
            return Err(location.refuse("is not an array: its name does not end in .npy"));
        };
        let mut entry = archive.by_index(index).map_err(|e| location.zip(e))?;
        let column = read_array(&mut entry, location, stored)?;
        arrays.push((short.to_owned(), column));
    }
    Ok(arrays)
}

pub(super) fn write_archive(
    op: &'static str,
    path: &Path,
    arrays: &[(&str, &Column)],
    method: CompressionMethod,
) -> Result<()> {
    let mut names = HashSet::new();
    let mut layouts = Vec::with_capacity(arrays.len());
    for &(name, column) in arrays {
        let problem = match name {
            "" => Some("is empty"),
            _ if name.contains('\0') => Some("has a NUL"),
            _ if name.len() + ".npy".len() > usize::from(u16::MAX) => Some("is too long"),
            _ if !names.insert(name) => Some("occurs twice"),
            _ => None,
        };
        if let Some(problem) = problem {
            let shown: String = name.chars().take(100).collect();
            return Err(Error::argument(op, format!("the name {shown:?}"), problem));
        }
        layouts.push(Layout::of(op, &format!("array `{name}`"), column)?);
    }
    let io = |e| Error::io(path, e);
    let file = File::create(path).map_err(io)?;
    let mut archive = ZipWriter::new(BufWriter::new(file));
    for ((name, column), layout) in arrays.iter().zip(&layouts) {
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .large_file(layout.len >= LARGE_ENTRY);
        let started = archive.start_file(format!("{name}.npy"), options);
        started.map_err(|e| io(e.into()))?;
        // The compressor is slow at single numbers.
        let mut entry = BufWriter::with_capacity(CHUNK as usize, &mut archive);
        let written = layout.write(column, &mut entry);
        written.and_then(|()| entry.flush()).map_err(io)?;
    }
    let file = archive.finish().map_err(|e| io(e.into()))?;
    file.into_inner().map_err(|e| io(e.into_error()))?;
    Ok(())
}
