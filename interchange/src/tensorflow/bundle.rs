//! Checkpoints of TensorFlow 1 and 2: an index, and shards with the bytes of the tensors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backend_api::{Error, Result as AppResult};
use prost::Message;
use rnn_train::convert::Arrays;
use rnn_train::internal::{self, masked_crc};

use super::messages::{self, BundleEntry, BundleHeader, Slice, TensorShape, Version};
use super::{ordered_code, table};
use crate::contents::{Contents, size};
use crate::element::Element;
use crate::source;

/// What the names of variables end in where Python objects own them.
const OBJECT: &str = "/.ATTRIBUTES/VARIABLE_VALUE";
/// The graph of the Python objects.
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
/// The most parts of a variable, each of which is compared with each other.
const PARTS: usize = 4096;
const INDEX: &str = ".index";

/// The index of the checkpoint that a path means: the common part of the names of its files, or one
/// of them, or the folder whose `checkpoint` names the newest.
pub(crate) fn index_of(path: &Path) -> Option<PathBuf> {
    let with_index = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(INDEX);
        let index = PathBuf::from(name);
        index.is_file().then_some(index)
    };
    if path.is_dir() {
        let state = std::fs::read_to_string(path.join("checkpoint")).ok()?;
        let newest = state.lines().find_map(|line| {
            let value = line.strip_prefix("model_checkpoint_path:")?.trim();
            value.strip_prefix('"')?.strip_suffix('"')
        })?;
        return with_index(&path.join(newest));
    }
    let name = path.file_name()?.to_str()?;
    if let Some((stem, shard)) = name.rsplit_once(".data-")
        && shard.len() == "00000-of-00001".len()
    {
        return with_index(&path.with_file_name(stem));
    }
    match path.exists() {
        true => None,
        false => with_index(path),
    }
}

/// The common part of the names of the files.
fn prefix(index: &Path) -> Result<String, String> {
    let path = index.to_str().ok_or("is not UTF-8")?;
    let prefix = path.strip_suffix(INDEX);
    Ok(prefix
        .ok_or("is the index of a checkpoint, whose name must end in `.index`")?
        .to_owned())
}

fn shard_path(prefix: &str, shard: usize, of: usize) -> PathBuf {
    PathBuf::from(format!("{prefix}.data-{shard:05}-of-{of:05}"))
}

/// A part of a tensor's bytes.
#[derive(Clone, Debug)]
struct Extent {
    shard: Arc<PathBuf>,
    offset: u64,
    len: usize,
    crc: u32,
}

impl Extent {
    fn read(&self) -> Result<Vec<u8>, String> {
        let problem = |e: &dyn std::fmt::Display| format!("in {}: {e}", self.shard.display());
        let mut file = File::open(&*self.shard).map_err(|e| problem(&e))?;
        file.seek(SeekFrom::Start(self.offset))
            .map_err(|e| problem(&e))?;
        let mut bytes = Vec::new();
        let read = file.take(self.len as u64).read_to_end(&mut bytes);
        read.map_err(|e| problem(&e))?;
        if bytes.len() != self.len {
            return Err(problem(&"the file is truncated"));
        }
        match masked_crc(&bytes) == self.crc {
            true => Ok(bytes),
            false => Err(problem(&"the checksum does not match the content")),
        }
    }
}

/// The shards of a checkpoint and their lengths.
struct Shards(Vec<(Arc<PathBuf>, u64)>);

impl Shards {
    fn find(prefix: &str, count: usize) -> Result<Self, String> {
        let mut shards = Vec::new();
        for shard in 0..count {
            let path = shard_path(prefix, shard, count);
            let found = std::fs::metadata(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            if !found.is_file() {
                return Err(format!("{} is not a regular file", path.display()));
            }
            shards.push((Arc::new(path), found.len()));
        }
        Ok(Self(shards))
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }

    /// Where an entry has its bytes, which must be `expected`.
    fn extent(&self, entry: &BundleEntry, expected: usize) -> Result<Extent, String> {
        let shard = usize::try_from(entry.shard_id).ok();
        let (path, len) = shard
            .and_then(|shard| self.0.get(shard))
            .ok_or_else(|| format!("is in shard {} of {}", entry.shard_id, self.0.len()))?;
        if usize::try_from(entry.size) != Ok(expected) {
            return Err(format!(
                "has {} bytes, but its shape has {expected}",
                entry.size
            ));
        }
        let offset = u64::try_from(entry.offset).ok();
        let end = offset.and_then(|offset| offset.checked_add(expected as u64));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= *len => Ok(Extent {
                shard: path.clone(),
                offset,
                len: expected,
                crc: entry.crc32c,
            }),
            _ => Err(format!(
                "is at {}, {expected} bytes, but {} has {len}",
                entry.offset,
                path.display()
            )),
        }
    }
}

/// Opens the checkpoint of an index.
pub(crate) fn open(index: &Path) -> Result<Contents, String> {
    let entries = table::read(&source::whole(index)?)?;
    let mut entries = entries.into_iter();
    let Some((_, header)) = entries.next().filter(|(key, _)| key.is_empty()) else {
        return Err("is a table, but not the index of a checkpoint".to_owned());
    };
    let header = header_of(&header)?;
    let count = usize::try_from(header.num_shards).map_err(|e| e.to_string())?;
    // Each shard has an entry, or TensorFlow would not have written it.
    if count > entries.len().max(1) {
        return Err(format!(
            "claims {count} shards, but has {} entries",
            entries.len()
        ));
    }
    let shards = Shards::find(&prefix(index)?, count)?;
    let decoded = entries.map(|(key, value)| {
        let entry = BundleEntry::decode(&value[..]);
        let entry = entry.map_err(|e| format!("`{}`: {e}", String::from_utf8_lossy(&key)))?;
        Ok((key, entry))
    });
    let entries: HashMap<Vec<u8>, BundleEntry> = decoded.collect::<Result<_, String>>()?;
    let mut contents = Contents::default();
    for (key, entry) in &entries {
        // Keys of parts, which the entry of the whole names.
        if key.first() == Some(&0) {
            continue;
        }
        let name = std::str::from_utf8(key).map_err(|e| format!("has a name: {e}"))?;
        if name == OBJECT_GRAPH {
            continue;
        }
        let short = name.strip_suffix(OBJECT).unwrap_or(name);
        let added = add(&mut contents, name, short, entry, &entries, &shards);
        added.map_err(|problem| format!("`{name}` {problem}"))?;
    }
    contents.within(shards.len())
}

fn header_of(bytes: &[u8]) -> Result<BundleHeader, String> {
    let header = BundleHeader::decode(bytes).ok();
    let Some(header) = header.filter(|header| header.num_shards > 0) else {
        return Err(
            "is a checkpoint in TensorFlow's format V1, which is not read: save it again with \
             `tf.train.Saver(write_version=tf.train.SaverDef.V2)`"
                .to_owned(),
        );
    };
    match header.endianness {
        0 => Ok(header),
        _ => Err("is a big-endian checkpoint, which is not read".to_owned()),
    }
}

fn add(
    contents: &mut Contents,
    name: &str,
    short: &str,
    entry: &BundleEntry,
    entries: &HashMap<Vec<u8>, BundleEntry>,
    shards: &Shards,
) -> Result<(), String> {
    let element = match messages::element(entry.dtype) {
        Ok(element) => element,
        Err(kind) => {
            contents.other(short, kind);
            return Ok(());
        }
    };
    let dims = entry.shape.clone().unwrap_or_default().dims()?;
    let bytes = size(element, &dims).ok_or("is too large")?;
    if entry.slices.is_empty() {
        let extent = shards.extent(entry, bytes)?;
        return contents.add(short, element, &dims, move || extent.read());
    }
    if entry.slices.len() > PARTS {
        return Err(format!(
            "has {} parts; at most {PARTS} are read",
            entry.slices.len()
        ));
    }
    let mut parts = Vec::new();
    for slice in &entry.slices {
        let key = ordered_code::key(name, slice);
        let stored = entries.get(&key).ok_or("lacks one of its parts")?;
        let ranges = ranges(slice, &dims)?;
        let lens: Vec<usize> = ranges.iter().map(|range| range.len()).collect();
        let len = size(element, &lens).ok_or("is too large")?;
        parts.push((ranges, shards.extent(stored, len)?));
    }
    covered(
        &parts
            .iter()
            .map(|(ranges, _)| &ranges[..])
            .collect::<Vec<_>>(),
        &dims,
    )?;
    let whole = dims.clone();
    contents.add(short, element, &dims, move || {
        let mut joined = vec![0; bytes];
        for (ranges, extent) in &parts {
            place(&extent.read()?, ranges, &whole, element, &mut joined);
        }
        Ok(joined)
    })
}

type Range = std::ops::Range<usize>;

/// The ranges of a part along the axes of its variable.
fn ranges(slice: &Slice, dims: &[usize]) -> Result<Vec<Range>, String> {
    if slice.extent.len() != dims.len() {
        return Err(format!(
            "has a part of {} axes, not {}",
            slice.extent.len(),
            dims.len()
        ));
    }
    let ranges = slice.extent.iter().zip(dims).map(|(extent, &dim)| {
        let Some(length) = extent.length else {
            return Some(0..dim);
        };
        let (start, length) = (extent.start.try_into().ok()?, usize::try_from(length).ok()?);
        let end = length.checked_add(start)?;
        (end <= dim).then_some(start..end)
    });
    let ranges: Option<_> = ranges.collect();
    ranges.ok_or_else(|| "has a part outside of its shape".to_owned())
}

/// Fails unless the parts cover the variable, each element once.
fn covered(parts: &[&[Range]], dims: &[usize]) -> Result<(), String> {
    let disjoint = |a: &[Range], b: &[Range]| {
        a.iter()
            .zip(b)
            .any(|(a, b)| a.end <= b.start || b.end <= a.start)
    };
    let overlap = parts.iter().enumerate().any(|(i, a)| {
        let mut before = parts[..i].iter();
        before.any(|b| !disjoint(a, b))
    });
    let count = |ranges: &&[Range]| ranges.iter().map(|range| range.len()).product::<usize>();
    let total: usize = parts.iter().map(count).sum();
    match !overlap && total == dims.iter().product::<usize>() {
        true => Ok(()),
        false => Err("has parts that overlap or leave gaps".to_owned()),
    }
}

/// Copies the rows of a part to their places.
fn place(part: &[u8], ranges: &[Range], dims: &[usize], element: Element, whole: &mut [u8]) {
    let Some((last, outer)) = ranges.split_last() else {
        whole.copy_from_slice(part);
        return;
    };
    let row = last.len() * element.size();
    if row == 0 {
        return;
    }
    for (i, bytes) in part.chunks_exact(row).enumerate() {
        let (mut rest, mut at, mut stride) = (i, last.start, dims[outer.len()]);
        for (range, dim) in outer.iter().zip(dims).rev() {
            at += (range.start + rest % range.len()) * stride;
            rest /= range.len();
            stride *= dim;
        }
        let start = at * element.size();
        whole[start..start + row].copy_from_slice(bytes);
    }
}

/// Writes a checkpoint whose files begin with `path`, in one shard. The index, which TensorFlow
/// looks for, comes last.
pub(crate) fn write(path: &Path, arrays: &Arrays) -> AppResult<()> {
    let refuse = |problem: String| Err(Error::format(path, problem));
    let Some(prefix) = path.to_str() else {
        return refuse("is not UTF-8".to_owned());
    };
    let prefix = prefix.strip_suffix(INDEX).unwrap_or(prefix);
    let header = BundleHeader {
        num_shards: 1,
        endianness: 0,
        version: Some(Version { producer: 1 }),
    };
    let mut entries = vec![(Vec::new(), header.encode_to_vec())];
    let mut data = Vec::new();
    for (name, array) in arrays.iter() {
        if name.is_empty() || name.starts_with('\0') {
            return refuse(format!("cannot have a variable named {name:?}"));
        }
        let bytes = array.bytes();
        let entry = BundleEntry {
            dtype: messages::number(Element::of(array.meta().dtype)),
            shape: Some(TensorShape::of(array.dims())),
            shard_id: 0,
            offset: data.len() as i64,
            size: bytes.len() as i64,
            crc32c: masked_crc(bytes),
            slices: Vec::new(),
        };
        data.extend(bytes);
        entries.push((name.as_bytes().to_vec(), entry.encode_to_vec()));
    }
    internal::write(&shard_path(prefix, 0, 1), &data)?;
    internal::write(
        Path::new(&format!("{prefix}{INDEX}")),
        &table::write(&entries),
    )
}
