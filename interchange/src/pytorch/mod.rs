//! What `torch.save` writes: a zip archive with a pickle and storages, or in files of PyTorch
//! before 1.6 pickles followed by the storages.

mod call;
mod globals;
mod pickle;
mod storage;
mod value;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rnn_train::internal;

use crate::contents::Contents;
use crate::source::{self, Zip};
use storage::Tensor;
use value::{Heap, Id, Value};
pub(crate) use write::write;

/// The first pickle of an old file is this number.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The version of the old format.
const VERSION: i64 = 1001;

/// The longest pickle of an archive that is read, in bytes.
const MAX_PICKLE: u64 = 1 << 26;
/// Deflate makes its input at most this many times smaller.
const DEFLATE: u64 = 1032;

const BIG_ENDIAN: &str = "has big-endian numbers, which are not read";

/// Whether the start of a file, or the names in its archive, are those of `torch.save`.
pub(crate) fn is_pytorch(start: &[u8], names: &[String]) -> bool {
    let has = |end: &str| {
        names
            .iter()
            .any(|name| name.rsplit('/').next() == Some(end))
    };
    start.starts_with(MAGIC) || (has("data.pkl") && !has("constants.pkl"))
}

pub(crate) fn open(path: &Path) -> Result<Contents, String> {
    let file = internal::open(path).map_err(|e| e.to_string())?;
    let len = file.metadata().map_err(|e| e.to_string())?.len();
    let mut start = Vec::new();
    let read = file.take(MAGIC.len() as u64).read_to_end(&mut start);
    read.map_err(|e| e.to_string())?;
    match start == MAGIC {
        true => open_stream(source::whole(path)?),
        false => open_archive(path, len),
    }
}

/// Where the storages are.
trait Storages: Send + Sync + 'static {
    /// Bytes of a storage.
    fn len(&self, key: &str) -> Option<u64>;
    fn read(&self, key: &str) -> Result<Vec<u8>, String>;
}

/// The archive of PyTorch since 1.6.
struct Archive {
    zip: Mutex<Zip>,
    prefix: String,
    lens: HashMap<String, u64>,
}

impl Storages for Archive {
    fn len(&self, key: &str) -> Option<u64> {
        self.lens.get(key).copied()
    }

    fn read(&self, key: &str) -> Result<Vec<u8>, String> {
        let name = format!("{}data/{key}", self.prefix);
        let mut zip = self.zip.lock().map_err(|e| e.to_string())?;
        entry(&mut zip, &name, self.len(key).unwrap_or(0))
    }
}

/// The bytes of an entry of an archive.
fn entry(zip: &mut Zip, name: &str, most: u64) -> Result<Vec<u8>, String> {
    let damaged = |e: &dyn std::fmt::Display| format!("is damaged: `{name}`: {e}");
    let entry = zip.by_name(name).map_err(|e| damaged(&e))?;
    // The vector grows with what is read: the claimed length may be wrong.
    let mut bytes = Vec::new();
    let read = entry.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|e| damaged(&e))?;
    match bytes.len() as u64 > most {
        true => Err(damaged(&format!("is longer than {most} bytes"))),
        false => Ok(bytes),
    }
}

fn open_archive(path: &Path, file: u64) -> Result<Contents, String> {
    let mut zip = source::archive(path)?;
    let mut names = source::names(&zip).into_iter();
    let pickle = names.find(|name| name.rsplit('/').next() == Some("data.pkl"));
    let pickle = pickle.ok_or("has no `data.pkl`")?;
    let prefix = pickle.trim_end_matches("data.pkl").to_owned();
    let order = format!("{prefix}byteorder");
    if zip.index_for_name(&order).is_some() && entry(&mut zip, &order, 16)? != b"little" {
        return Err(BIG_ENDIAN.to_owned());
    }
    let program = entry(&mut zip, &pickle, MAX_PICKLE)?;
    let (heap, root) = pickle::run(&mut &program[..])?;
    let data = format!("{prefix}data/");
    let mut lens = HashMap::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(|e| e.to_string())?;
        let name = entry.name().map_err(|e| e.to_string())?;
        if let Some(key) = name.strip_prefix(&data) {
            lens.insert(key.to_owned(), entry.size());
        }
    }
    let claimed: u64 = lens.values().copied().fold(0, u64::saturating_add);
    if claimed / DEFLATE > file {
        return Err(format!("is damaged: claims {claimed} bytes in {file}"));
    }
    let zip = Mutex::new(zip);
    contents(
        &heap,
        root,
        Archive { zip, prefix, lens },
        file.max(claimed),
    )
}

/// A file of PyTorch before 1.6: pickles of the magic number, the version, the system, the value
/// and the keys of the storages; then the storages, each after the number of its elements.
struct Stream {
    bytes: Vec<u8>,
    places: HashMap<String, Range<usize>>,
}

impl Storages for Stream {
    fn len(&self, key: &str) -> Option<u64> {
        self.places.get(key).map(|place| place.len() as u64)
    }

    fn read(&self, key: &str) -> Result<Vec<u8>, String> {
        let place = self.places.get(key).ok_or("has no such storage")?;
        Ok(self.bytes[place.clone()].to_vec())
    }
}

fn open_stream(bytes: Vec<u8>) -> Result<Contents, String> {
    let mut rest = &bytes[..];
    pickle::run(&mut rest)?;
    let (heap, version) = pickle::run(&mut rest)?;
    if heap.int(version) != Some(VERSION) {
        return Err(format!(
            "is of another version of PyTorch's old format than {VERSION}"
        ));
    }
    let (heap, system) = pickle::run(&mut rest)?;
    if let Value::Dict(items) = heap.get(system) {
        let mut items = items.iter();
        let order = items.find(|(key, _)| heap.str(*key) == Some("little_endian"));
        if order.is_some_and(|(_, little)| matches!(heap.get(*little), Value::Bool(false))) {
            return Err(BIG_ENDIAN.to_owned());
        }
    }
    let (heap, root) = pickle::run(&mut rest)?;
    let (keys, list) = pickle::run(&mut rest)?;
    let Value::List(list) = keys.get(list) else {
        return Err("is damaged: the keys of the storages".to_owned());
    };
    let storages = heap.all().iter().filter_map(|value| match value {
        Value::Storage(storage) => Some((storage.key.as_str(), storage.unit())),
        _ => None,
    });
    let units: HashMap<&str, usize> = storages.collect();
    let mut places = HashMap::new();
    for &key in list {
        let key = keys.str(key).ok_or("is damaged: the key of a storage")?;
        let unit = *units
            .get(key)
            .ok_or("is damaged: a storage that no tensor has")?;
        let (count, after) = rest.split_first_chunk().ok_or("is truncated")?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok();
        let len = count.and_then(|count| count.checked_mul(unit));
        let len = len
            .filter(|&len| len <= after.len())
            .ok_or("is truncated")?;
        let start = bytes.len() - after.len();
        places.insert(key.to_owned(), start..start + len);
        rest = &after[len..];
    }
    let len = bytes.len() as u64;
    contents(&heap, root, Stream { bytes, places }, len)
}

/// The tensors of a value, by their keys.
fn contents(heap: &Heap, root: Id, from: impl Storages, file: u64) -> Result<Contents, String> {
    let storages = Arc::new(from);
    let mut contents = Contents::default();
    for (name, id) in leaves(heap, root)? {
        let Value::Tensor(tensor) = heap.get(id) else {
            contents.other(&name, heap.get(id).kind());
            continue;
        };
        let named = |problem: String| format!("`{name}` {problem}");
        tensor.check().map_err(named)?;
        let key = &tensor.storage.key;
        let (needed, found) = (tensor.storage.bytes(), storages.len(key));
        if found.is_none() || needed.map(|needed| needed as u64) != found {
            let (found, needed) = (found.unwrap_or(0), needed.unwrap_or(0));
            let problem = format!("needs storage `{key}` of {needed} bytes; it has {found}");
            return Err(named(problem));
        }
        let (tensor, storages) = (tensor.clone(), storages.clone());
        let (element, dims) = (tensor.element, tensor.dims.clone());
        contents.add(&name, element, &dims, move || load(&tensor, &*storages))?;
    }
    contents.within(file)
}

fn load(tensor: &Tensor, storages: &impl Storages) -> Result<Vec<u8>, String> {
    let mut bytes = storages.read(&tensor.storage.key)?;
    if Some(bytes.len()) != tensor.storage.bytes() {
        return Err(format!("has a storage of {} bytes", bytes.len()));
    }
    match tensor.range() {
        Some(range) if range == (0..bytes.len()) => Ok(bytes),
        Some(range) => {
            bytes.truncate(range.end);
            Ok(bytes.split_off(range.start))
        }
        None => Ok(tensor.gather(&bytes)),
    }
}

/// The values in dictionaries, lists and tuples, with their keys, joined by dots. A value alone is
/// called `tensor`.
fn leaves(heap: &Heap, root: Id) -> Result<BTreeMap<String, Id>, String> {
    // A value can contain itself, or another one very often.
    let mut left = 16 * heap.all().len() + 1024;
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), root)];
    while let Some((name, id)) = open.pop() {
        let below = |key: &str| match name.is_empty() {
            true => key.to_owned(),
            false => format!("{name}.{key}"),
        };
        let children: Vec<(String, Id)> = match heap.get(id) {
            Value::List(items) | Value::Tuple(items) => {
                let items = items.iter().enumerate();
                items
                    .map(|(i, &item)| (below(&i.to_string()), item))
                    .collect()
            }
            Value::Dict(items) => {
                let child = |(key, value): &(Id, Id)| match heap.get(*key) {
                    Value::Str(key) => Ok((below(key), *value)),
                    Value::Int(key) => Ok((below(&key.to_string()), *value)),
                    other => Err(format!("has a {} as a key", other.kind())),
                };
                items.iter().map(child).collect::<Result<_, String>>()?
            }
            _ => {
                let name = if name.is_empty() {
                    "tensor".to_owned()
                } else {
                    name
                };
                if found.contains_key(&name) {
                    return Err(format!("has two values named `{name}`"));
                }
                found.insert(name, id);
                continue;
            }
        };
        let length: usize = children.iter().map(|(name, _)| 1 + name.len() / 64).sum();
        left = left
            .checked_sub(length)
            .ok_or("has values that contain each other")?;
        open.extend(children);
    }
    Ok(found)
}
