//! Files of named tensors with a checksum in the header.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use backend_api::{Backend, DType, Error, Meta, Result, Tensor};
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::header::{self, Entry, KEY, METADATA};
use super::{FORMAT, atomic, seal};
use crate::regular;

/// The metadata. `sha256` must be the first field; see [`seal`].
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    sha256: String,
    format: u64,
    written_by: String,
    /// Present in checkpoints, absent in files of parameters.
    run: Option<Value>,
}

/// The part of the metadata that every version has.
#[derive(Debug, Deserialize)]
struct Version {
    format: Option<Value>,
    written_by: Option<Value>,
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
    if tensors.contains_key(METADATA) {
        return Err(refuse(format!(
            "`{METADATA}` cannot be the name of a tensor"
        )));
    }
    let header = Header {
        sha256: seal::BLANK.to_owned(),
        format: FORMAT,
        written_by: concat!("rnn-train ", env!("CARGO_PKG_VERSION")).to_owned(),
        run,
    };
    let text = serde_json::to_string(&header).map_err(|e| refuse(e.to_string()))?;
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    let mut bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|e| refuse(e.to_string()))?;
    if !seal::seal(&mut bytes) {
        return Err(refuse("the metadata is not at the start".to_owned()));
    }
    // A file that cannot be loaded must not replace one that can.
    let unlike = |problem: &str| refuse(format!("it could not be read back: {problem}"));
    let (run, entries) = index(&bytes).map_err(|problem| unlike(&problem))?;
    if run != header.run {
        return Err(unlike("the metadata differ"));
    }
    let metas = entries.iter().map(|(name, entry)| (name, entry.meta));
    if !metas.eq(tensors.iter().map(|(name, content)| (name, content.meta))) {
        return Err(unlike("the tensors differ"));
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

impl Stored {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let read = regular::open(path)?.read_to_end(&mut bytes);
        read.map_err(|e| Error::io(path, e))?;
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
        let bytes = &self.bytes[entry.bytes.clone()];
        if entry.meta.dtype == DType::Bool
            && let Some(at) = bytes.iter().position(|&byte| byte > 1)
        {
            let problem = format!(
                "`{name}` has byte {} at index {at}, but a bool is 0 or 1",
                bytes[at]
            );
            return Err(Error::format(&self.path, problem));
        }
        let bytes = bytes.to_vec();
        let bytes = swap_on_big_endian(bytes, entry.meta.dtype);
        Tensor::from_bytes(device, &bytes, entry.meta)
    }

    /// Copies a tensor of the file, which must have the given shape and type, to a device.
    pub(super) fn tensor_of<B: Backend>(
        &self,
        device: &B,
        expected: Meta,
        name: &str,
    ) -> Result<Tensor<B>> {
        let found = self.entry(name)?.meta;
        if found != expected {
            let problem = format!(
                "`{name}` is {} {} in the file, but {} {} in the model",
                found.dtype, found.shape, expected.dtype, expected.shape
            );
            return Err(Error::format(&self.path, problem));
        }
        self.tensor(device, name)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            let names = listed(self.names());
            let problem = format!("has no `{name}`, which the model needs; the file has {names}");
            Error::format(&self.path, problem)
        })
    }
}

/// Names for a message: the first ones.
pub(crate) fn listed<'n>(mut names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN: usize = 12;
    let first: Vec<&str> = names.by_ref().take(SHOWN).collect();
    match (first.is_empty(), names.count()) {
        (true, _) => "no names".to_owned(),
        (false, 0) => first.join(", "),
        (false, more) => format!("{} and {more} more", first.join(", ")),
    }
}

/// Nothing here trusts the content before the checksum is verified; a file without one is never
/// trusted.
fn parse(path: &Path, bytes: Vec<u8>) -> Result<Stored, String> {
    if seal::is_whole(&bytes) == Some(false) {
        return Err("is damaged or truncated: its checksum does not match its content".to_owned());
    }
    let (run, entries) = index(&bytes)?;
    Ok(Stored {
        path: path.to_owned(),
        run,
        bytes,
        entries,
    })
}

/// The state of the run and the tensors of a file whose checksum, if it has one, is correct.
fn index(bytes: &[u8]) -> Result<(Option<Value>, BTreeMap<String, Entry>), String> {
    let header = header::read(bytes)?;
    let run = match header.metadata {
        Some(_) if !seal::is_sealed(bytes) => {
            return Err(
                "is damaged, or was rewritten by another program: its checksum is missing"
                    .to_owned(),
            );
        }
        Some(json) => parse_header(&json)?,
        None => None,
    };
    Ok((run, header.entries))
}

fn parse_header(json: &str) -> Result<Option<Value>, String> {
    let broken = |e: serde_json::Error| format!("has invalid metadata: {e}");
    // Check the version first: another version may structure the rest differently.
    let version: Version = serde_json::from_str(json).map_err(broken)?;
    match version.format.as_ref().and_then(Value::as_u64) {
        Some(1..=FORMAT) => {}
        Some(newer @ FORMAT..) => {
            let by = version.written_by.as_ref().and_then(Value::as_str);
            let by = by.unwrap_or("a newer version");
            return Err(format!(
                "has format {newer}, written by {by}; this version reads formats up to {FORMAT}"
            ));
        }
        _ => return Err("has metadata without a format version".to_owned()),
    }
    let header: Header = serde_json::from_str(json).map_err(broken)?;
    Ok(header.run)
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
