//! Files of named tensors with a checksum in the header.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use backend_api::{Backend, DType, Error, Meta, Result, Shape, Tensor};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FORMAT, atomic, seal};

/// The only key of the metadata.
const KEY: &str = "recurrent";

/// The metadata. `sha256` must be the first field; see [`seal`].
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    sha256: String,
    format: u64,
    written_by: String,
    /// Present in checkpoints, absent in files of parameters.
    run: Option<Value>,
}

/// A tensor to be written to a file.
#[derive(Debug)]
pub(crate) struct Content {
    meta: Meta,
    /// Little-endian elements.
    bytes: Vec<u8>,
}

impl Content {
    pub(crate) fn of<B: Backend>(tensor: &Tensor<B>) -> Result<Self> {
        let meta = tensor.meta();
        let bytes = swap_on_big_endian(tensor.to_bytes()?, meta.dtype);
        Ok(Self { meta, bytes })
    }
}

impl View for &Content {
    fn dtype(&self) -> Dtype {
        match self.meta.dtype {
            DType::F64 => Dtype::F64,
            DType::F16 => Dtype::F16,
            DType::Bf16 => Dtype::BF16,
            DType::I32 => Dtype::I32,
            DType::I64 => Dtype::I64,
            DType::U8 => Dtype::U8,
            DType::Bool => Dtype::BOOL,
            DType::F32 => Dtype::F32,
            // A new element type needs a line here before it can be saved.
            other => unreachable!("{other} has no name in safetensors yet"),
        }
    }
    fn shape(&self) -> &[usize] {
        self.meta.shape.dims()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors and, for a checkpoint, the state of its run to a file.
pub(crate) fn write(
    path: &Path,
    run: Option<Value>,
    tensors: &BTreeMap<String, Content>,
) -> Result<()> {
    let refuse = |problem: String| Error::format(path, format!("cannot be written: {problem}"));
    let header = Header {
        sha256: seal::BLANK.to_owned(),
        format: FORMAT,
        written_by: concat!("rnn-train ", env!("CARGO_PKG_VERSION")).to_owned(),
        run,
    };
    let header = serde_json::to_string(&header).map_err(|e| refuse(e.to_string()))?;
    let metadata = HashMap::from([(KEY.to_owned(), header)]);
    let mut bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|e| refuse(e.to_string()))?;
    if !seal::seal(&mut bytes) {
        return Err(refuse("the metadata is not at the start".to_owned()));
    }
    atomic::write(path, &bytes)
}

/// A file that was read and whose checksum, if it has one, is correct.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(super) path: PathBuf,
    /// Present in checkpoints, absent in files of parameters.
    pub(super) run: Option<Value>,
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
}

/// Type, shape and byte range of a tensor in the file.
#[derive(Debug)]
struct Entry {
    meta: Meta,
    bytes: Range<usize>,
}

impl Stored {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        // Reading a device or a pipe might never end.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(Error::format(path, "is not a file"));
        }
        let bytes = fs::read(path).map_err(io)?;
        parse(path, bytes).map_err(|problem| Error::format(path, problem))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Copies a tensor of the file to a device.
    pub(crate) fn tensor<B: Backend>(&self, device: &B, name: &str) -> Result<Tensor<B>> {
        let entry = self.entry(name)?;
        let bytes = self.bytes[entry.bytes.clone()].to_vec();
        let bytes = swap_on_big_endian(bytes, entry.meta.dtype);
        Tensor::from_bytes(device, &bytes, entry.meta)
    }

    /// Copies a tensor of the file to the device of `like`, whose shape and type it must have.
    pub(super) fn tensor_like<B: Backend>(
        &self,
        like: &Tensor<B>,
        name: &str,
    ) -> Result<Tensor<B>> {
        let (found, expected) = (self.entry(name)?.meta, like.meta());
        if found != expected {
            let problem = format!(
                "`{name}` is {} {} in the file, but {} {} in the model",
                found.dtype, found.shape, expected.dtype, expected.shape
            );
            return Err(Error::format(&self.path, problem));
        }
        self.tensor(like.device(), name)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            let problem = format!("has no `{name}`, which the model needs");
            Error::format(&self.path, problem)
        })
    }
}

/// Nothing here trusts the content before the checksum is verified; a file without one is never
/// trusted.
fn parse(path: &Path, bytes: Vec<u8>) -> Result<Stored, String> {
    if seal::is_whole(&bytes) == Some(false) {
        return Err("is damaged or truncated: its checksum does not match its content".to_owned());
    }
    let header = header(&bytes)?;
    check_extents(header, bytes.len() - 8 - header.len())?;
    let unreadable = |e| format!("is not a safetensors file, or is damaged: {e}");
    let (length, metadata) = SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
    let run = match metadata.metadata().as_ref().and_then(|m| m.get(KEY)) {
        Some(_) if seal::is_whole(&bytes).is_none() => {
            return Err(
                "is damaged, or was rewritten by another program: its checksum is missing"
                    .to_owned(),
            );
        }
        Some(json) => parse_header(json)?,
        None => None,
    };
    let mut entries = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let dtype = dtype(info.dtype)
            .ok_or_else(|| format!("`{name}` is {:?}, which is not supported", info.dtype))?;
        let shape = Shape::new(&info.shape).map_err(|e| format!("`{name}`: {e}"))?;
        let (start, end) = info.data_offsets;
        let entry = Entry {
            meta: Meta::new(shape, dtype),
            bytes: 8 + length + start..8 + length + end,
        };
        entries.insert(name, entry);
    }
    Ok(Stored {
        path: path.to_owned(),
        run,
        bytes,
        entries,
    })
}

fn parse_header(json: &str) -> Result<Option<Value>, String> {
    let broken = |e: serde_json::Error| format!("has invalid metadata: {e}");
    // Check the version first: another version may structure the rest differently.
    let header: Value = serde_json::from_str(json).map_err(broken)?;
    match header["format"].as_u64() {
        Some(1..=FORMAT) => {}
        Some(newer @ FORMAT..) => {
            let by = header["written_by"].as_str().unwrap_or("a newer version");
            return Err(format!(
                "has format {newer}, written by {by}; this version reads formats up to {FORMAT}"
            ));
        }
        _ => return Err("has metadata without a format version".to_owned()),
    }
    let header: Header = serde_json::from_value(header).map_err(broken)?;
    Ok(header.run)
}

fn header(bytes: &[u8]) -> Result<&[u8], String> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Err(format!("is truncated: it has {} bytes", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| {
            let found = rest.len();
            format!(
                "is truncated, or is not a safetensors file: its header claims {length} bytes, \
                 but only {found} follow"
            )
        })
}

/// Checks that no tensor claims bytes outside the file. The safetensors crate sums the claimed
/// sizes before it compares them with the length of the file, and that sum may overflow.
fn check_extents(header: &[u8], data: usize) -> Result<(), String> {
    let broken = |e| format!("is not a safetensors file, or is damaged: its header: {e}");
    let header: HashMap<String, Value> = serde_json::from_slice(header).map_err(broken)?;
    for (name, info) in &header {
        let end = info["data_offsets"][1].as_u64().unwrap_or(0);
        if end > data as u64 {
            return Err(format!(
                "is truncated: `{name}` ends at byte {end} of the data, which has {data} bytes"
            ));
        }
    }
    Ok(())
}

fn dtype(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}

/// Converts between the host's byte order and little-endian.
fn swap_on_big_endian(mut bytes: Vec<u8>, dtype: DType) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        bytes
            .chunks_exact_mut(dtype.size())
            .for_each(<[u8]>::reverse);
    }
    bytes
}
