//! NumPy's array files: `.npy`, one array, and `.npz`, a zip archive of several.
//!
//! An `.npy` file is a magic string, a version, the length of a header, the header, and the
//! elements. The header is the text of a Python dictionary with the keys `descr` (the element
//! type), `fortran_order` and `shape`. Its text is read here rather than by a parser of Python:
//! three keys and four kinds of value need no recursion, and the shape must be checked before
//! anything multiplies it. Files are untrusted: nothing is allocated on the word of a header.

mod archive;
mod array;
mod decode;
mod header;
mod layout;
mod location;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use backend_api::{Error, Result};
use zip::CompressionMethod;

use super::column::Column;
use crate::regular;
use archive::{read_archive, write_archive};
use array::read_array;
use layout::Layout;
use location::Location;

/// Reads a NumPy array file, as `numpy.save` writes it.
///
/// | element type in the file | column |
/// | --- | --- |
/// | `float32`, `float16` | `f32` |
/// | `float64` | `f64` |
/// | `int32`, `int8`, `int16`, `uint16` | `i32` |
/// | `int64`, `uint32`, `uint64` | `i64` |
/// | `uint8`, `bool` (as 0 and 1) | `u8` |
/// | `S`, bytes without the NULs at their end | byte strings |
/// | `U`, text, which becomes UTF-8 | byte strings |
///
/// Either byte order is read. The column has the shape of the array and is row-major, whatever the
/// order of the file; a scalar becomes a column without axes.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. [`Error::Format`] if it is not an `.npy` file of
/// version 1, 2 or 3, is longer or shorter than its header says, has elements of another type
/// (objects, records, complex numbers, dates), a `uint64` above the largest `i64`, or text with a
/// code point that no character has.
///
/// ```
/// use recurrent::data::{Column, InMemory, read_npy, write_npy};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("x.npy");
/// write_npy(&path, &Column::new(&[2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?)?;
/// let x = read_npy(&path)?;
/// assert_eq!(x.dims(), [2, 3]);
/// let samples = InMemory::from_arrays(vec![("x".to_owned(), x)], None)?;
/// # Ok(()) }
/// ```
pub fn read_npy(path: impl AsRef<Path>) -> Result<Column> {
    let path = path.as_ref();
    let file = regular::open(path)?;
    let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
    let stored = Some(metadata.len());
    read_array(&mut BufReader::new(file), Location::file(path), stored)
}

/// Reads a NumPy array from the bytes of an `.npy` file. `name` is used in error messages.
///
/// # Errors
/// [`Error::Format`] in the cases of [`read_npy`].
///
/// ```
/// use recurrent::data::parse_npy;
///
/// let header = b"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }\n";
/// let mut file = b"\x93NUMPY\x01\x00".to_vec();
/// file.extend((header.len() as u16).to_le_bytes());
/// file.extend(header);
/// file.extend([7, 0, 0, 0, 255, 255, 255, 255]);
/// let column = parse_npy(&file, "two.npy")?;
/// assert_eq!(column.values::<i32>()?, [7, -1]);
/// # Ok::<(), recurrent::Error>(())
/// ```
pub fn parse_npy(bytes: &[u8], name: impl AsRef<Path>) -> Result<Column> {
    let stored = Some(bytes.len() as u64);
    read_array(&mut { bytes }, Location::file(name.as_ref()), stored)
}

/// Writes a column as an `.npy` file that `numpy.load` reads, replacing an existing file.
///
/// The array has the shape of the column and the element type `<f4`, `<f8`, `<i4`, `<i8`, `|u1`,
/// or, for byte strings, `|S` with the length of the longest.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written. [`Error::Argument`] if the column is ragged, has
/// more than 64 axes, or has a byte string with a NUL at its end, which NumPy would remove.
///
/// ```
/// use recurrent::data::{Column, read_npy, write_npy};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("ids.npy");
/// let ids = Column::new(&[3], vec![4i64, 5, 6])?;
/// write_npy(&path, &ids)?;
/// assert_eq!(read_npy(&path)?, ids);
///
/// let ragged = Column::ragged(&[1, 2], vec![4i64, 5, 6])?;
/// assert!(write_npy(&path, &ragged).is_err());
/// # Ok(()) }
/// ```
pub fn write_npy(path: impl AsRef<Path>, column: &Column) -> Result<()> {
    let path = path.as_ref();
    let layout = Layout::of("write_npy", "column", column)?;
    let file = File::create(path).map_err(|e| Error::io(path, e))?;
    let mut file = BufWriter::new(file);
    let written = layout.write(column, &mut file);
    let written = written.and_then(|()| file.flush());
    written.map_err(|e| Error::io(path, e))
}

/// Reads the arrays of an `.npz` archive, as `numpy.savez` and `numpy.savez_compressed` write it,
/// in the order of the archive. The names are without `.npy`, as in NumPy.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. [`Error::Format`] if it is not a zip archive or is
/// damaged, two entries have one name or share bytes, an entry is encrypted, compressed by
/// something else than deflate, or not named `*.npy`, and, naming the entry, in the cases of
/// [`read_npy`].
///
/// ```
/// use recurrent::data::{Column, InMemory, read_npz, write_npz};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("train.npz");
/// let x = Column::new(&[2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let label = Column::new(&[2], vec![0i64, 1])?;
/// write_npz(&path, &[("x", &x), ("label", &label)])?;
///
/// let arrays = read_npz(&path)?;
/// assert_eq!(arrays[1], ("label".to_owned(), label));
/// let samples = InMemory::from_arrays(arrays, None)?;
/// # Ok(()) }
/// ```
pub fn read_npz(path: impl AsRef<Path>) -> Result<Vec<(String, Column)>> {
    let path = path.as_ref();
    read_archive(BufReader::new(regular::open(path)?), path)
}

/// Writes columns as an `.npz` archive that `numpy.load` reads, without compression, as
/// `numpy.savez` does. Replaces an existing file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written. [`Error::Argument`] if two arrays have one name, a
/// name is empty, has a NUL or is too long for an archive, and in the cases of [`write_npy`].
///
/// ```
/// use recurrent::data::{Column, read_npz, write_npz};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("ids.npz");
/// let ids = Column::new(&[3], vec![4i64, 5, 6])?;
/// write_npz(&path, &[("ids", &ids)])?;
/// assert_eq!(read_npz(&path)?, [("ids".to_owned(), ids)]);
/// # Ok(()) }
/// ```
pub fn write_npz(path: impl AsRef<Path>, arrays: &[(&str, &Column)]) -> Result<()> {
    let method = CompressionMethod::Stored;
    write_archive("write_npz", path.as_ref(), arrays, method)
}

/// [`write_npz`] with deflate compression, as `numpy.savez_compressed` does.
///
/// # Errors
/// Those of [`write_npz`].
///
/// ```
/// use recurrent::data::{Column, write_npz_compressed};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("zeros.npz");
/// let zeros = Column::new(&[100, 100], vec![0.0f64; 10_000])?;
/// write_npz_compressed(&path, &[("zeros", &zeros)])?;
/// assert!(std::fs::metadata(&path).unwrap().len() < 1000);
/// # Ok(()) }
/// ```
pub fn write_npz_compressed(path: impl AsRef<Path>, arrays: &[(&str, &Column)]) -> Result<()> {
    let method = CompressionMethod::Deflated;
    write_archive("write_npz_compressed", path.as_ref(), arrays, method)
}

#[cfg(test)]
mod tests;
