//! Keras's files of weights: HDF5, alone or in an archive.
//!
//! The name of an array is the path of its dataset, without `model_weights/` in front and `:0` at
//! the end.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use hdf5_reader::group::Group;
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions};

use crate::contents::{self, Contents};
use crate::element::Element;
use crate::source;

/// The file of weights in an archive, and the texts beside it.
const WEIGHTS: &str = "model.weights.h5";
const TEXTS: [&str; 2] = ["config.json", "metadata.json"];
/// Attributes of the file that describe the model.
const ATTRIBUTES: [&str; 3] = ["model_config", "keras_version", "backend"];
/// The most bytes of an archive's file of weights are this many times those of the archive.
const DEFLATE: u64 = 1032;
/// The most bytes of a dataset that has none in the file, only a value for all elements.
const UNWRITTEN: usize = 1 << 20;
/// Groups of a Keras file are nested a few levels deep.
const MAX_DEPTH: usize = 32;
/// The longest text of an archive that is kept.
const MAX_TEXT: u64 = 1 << 24;

pub(crate) fn open(path: &Path) -> Result<Contents, String> {
    of_bytes(source::whole(path)?)
}

pub(crate) fn open_archive(path: &Path) -> Result<Contents, String> {
    let mut zip = source::archive(path)?;
    let len = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    let mut read = |name: &str, most: u64| {
        let entry = zip.by_name(name).map_err(|e| format!("`{name}`: {e}"))?;
        let mut bytes = Vec::new();
        let read = entry.take(most).read_to_end(&mut bytes);
        read.map_err(|e| format!("`{name}`: {e}"))?;
        Ok::<_, String>(bytes)
    };
    let mut contents = of_bytes(read(WEIGHTS, len.saturating_mul(DEFLATE))?)?;
    for name in TEXTS {
        if let Ok(text) = read(name, MAX_TEXT).map(String::from_utf8)
            && let Ok(text) = text
        {
            contents.metadata.insert(name.to_owned(), text);
        }
    }
    Ok(contents)
}

fn of_bytes(bytes: Vec<u8>) -> Result<Contents, String> {
    // What a damaged file claims is not allocated: gzip makes its input at most 1032 times smaller.
    let most = (bytes.len() as u64).saturating_mul(DEFLATE);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let options = OpenOptions::default()
        .with_chunk_cache_bytes(0)
        .with_max_chunk_bytes(most)
        .with_max_object_header_bytes(bytes.len())
        .with_max_read_bytes(most);
    let file = Hdf5File::from_vec_with_options(bytes, options).map_err(damaged)?;
    let root = file.root_group().map_err(damaged)?;
    let mut contents = Contents::default();
    for name in ATTRIBUTES {
        if let Ok(attribute) = root.attribute(name)
            && let Ok(text) = attribute.read_string()
        {
            contents.metadata.insert(name.to_owned(), text);
        }
    }
    let mut seen = 0;
    add_group(&mut contents, "", &root, 0, &mut seen, most)?;
    Ok(contents)
}

fn damaged(error: hdf5_reader::error::Error) -> String {
    format!("is damaged, or has what is not read: {error}")
}

/// Adds the datasets below a group. `seen` is the number of bytes added, of which `most` may be.
fn add_group(
    contents: &mut Contents,
    path: &str,
    group: &Group,
    depth: usize,
    seen: &mut usize,
    most: usize,
) -> Result<(), String> {
    // A damaged group may contain itself.
    if depth > MAX_DEPTH {
        return Err(format!("has groups nested deeper than {MAX_DEPTH}"));
    }
    let (groups, datasets) = group.members().map_err(damaged)?;
    for dataset in datasets {
        add_dataset(contents, &below(path, dataset.name()), dataset, seen, most)?;
    }
    for group in groups {
        let path = below(path, group.name());
        add_group(contents, &path, &group, depth + 1, seen, most)?;
    }
    Ok(())
}

fn below(path: &str, name: &str) -> String {
    // A name may be the whole path already.
    let name = name.rsplit('/').next().unwrap_or(name);
    match path {
        "" | "model_weights" => name.to_owned(),
        _ => format!("{path}/{name}"),
    }
}

fn add_dataset(
    contents: &mut Contents,
    path: &str,
    dataset: Dataset,
    seen: &mut usize,
    most: usize,
) -> Result<(), String> {
    let name = path.strip_suffix(":0").unwrap_or(path);
    let Some(element) = element(dataset.dtype()) else {
        contents.other(name, "of a type that is not a number");
        return Ok(());
    };
    let dims: Result<Vec<usize>, _> = dataset.shape().iter().map(|&d| d.try_into()).collect();
    let dims = dims.map_err(|_| format!("`{name}` is too large"))?;
    let bytes = contents::size(element, &dims);
    // Only chunks can be compressed.
    let packed = dataset.chunks().is_some();
    let bytes = bytes.filter(|&bytes| packed || bytes <= (most / DEFLATE as usize).max(UNWRITTEN));
    let total = bytes.and_then(|bytes| seen.checked_add(bytes));
    *seen = total
        .filter(|total| *total <= most)
        .ok_or_else(|| format!("`{name}` is {dims:?}, which is more than the file can have"))?;
    let dataset = Arc::new(dataset);
    contents.add(name, element, &dims, move || {
        let bytes = dataset.read_native_bytes().map_err(damaged)?;
        match cfg!(target_endian = "big") {
            true => Ok(bytes
                .chunks(element.size())
                .flat_map(|b| b.iter().rev())
                .copied()
                .collect()),
            false => Ok(bytes),
        }
    })
}

/// The element type, if it is of numbers that are read.
fn element(datatype: &Datatype) -> Option<Element> {
    Some(match datatype {
        Datatype::FloatingPoint { size: 2, .. } => Element::F16,
        Datatype::FloatingPoint { size: 4, .. } => Element::F32,
        Datatype::FloatingPoint { size: 8, .. } => Element::F64,
        Datatype::FixedPoint { size, signed, .. } => match (size, signed) {
            (1, true) => Element::I8,
            (2, true) => Element::I16,
            (4, true) => Element::I32,
            (8, true) => Element::I64,
            (1, false) => Element::U8,
            (2, false) => Element::U16,
            (4, false) => Element::U32,
            (8, false) => Element::U64,
            _ => return None,
        },
        _ => return None,
    })
}
