//! Files of named tensors with a checksum in the header.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use backend_api::{DType, Error, Result};
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::header::{self, Entry, KEY, METADATA};
use super::{FORMAT, atomic, seal};
use crate::arrays::{Array, Arrays};
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

/// An array as the crate `safetensors` writes it.
#[derive(Debug)]
struct Written<'a>(&'a Array);

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.meta().dtype {
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
        self.0.dims()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.bytes())
    }
    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}

/// Writes tensors and, for a checkpoint, the state of its run to a file.
pub(crate) fn write(
    path: &Path,
    run: Option<Value>,
    tensors: &BTreeMap<String, Array>,
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
    let written = tensors.iter().map(|(name, array)| (name, Written(array)));
    let mut bytes =
        safetensors::serialize(written, Some(metadata)).map_err(|e| refuse(e.to_string()))?;
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
    if !metas.eq(tensors.iter().map(|(name, content)| (name, content.meta()))) {
        return Err(unlike("the tensors differ"));
    }
    atomic::write(path, &bytes)
}

/// A file that was read and whose checksum, if it has one, is correct.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Present in checkpoints, absent in files of parameters.
    pub(super) run: Option<Value>,
    pub(crate) arrays: Arrays,
}

impl Stored {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let read = regular::open(path)?.read_to_end(&mut bytes);
        read.map_err(|e| Error::io(path, e))?;
        parse(path, bytes).map_err(|problem| Error::format(path, problem))
    }
}

/// Nothing here trusts the content before the checksum is verified; a file without one is never
/// trusted.
fn parse(path: &Path, bytes: Vec<u8>) -> Result<Stored, String> {
    if seal::is_whole(&bytes) == Some(false) {
        return Err("is damaged or truncated: its checksum does not match its content".to_owned());
    }
    let (run, entries) = index(&bytes)?;
    let bytes = Arc::new(bytes);
    let arrays = entries.into_iter().map(|(name, entry)| {
        let array = Array::view(entry.meta, &bytes, entry.bytes.start);
        (name, array)
    });
    let arrays = Arrays::new(path, arrays);
    Ok(Stored { run, arrays })
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
