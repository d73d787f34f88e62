//! The header of a safetensors file: JSON that says where the tensors are.
//!
//! Nothing here trusts the file. The header is read straight into its entries, so that its size
//! limits the memory that it takes: about 3 bytes for one of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use backend_api::{DType, MAX_RANK, Meta, Shape};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use smallvec::SmallVec;

/// The longest header in bytes; the safetensors crate writes no longer ones.
const MAX_HEADER: usize = 100_000_000;

/// The longest text of this crate's metadata in bytes. Values of unknown structure can take 16
/// times the memory of their text.
const MAX_METADATA: usize = 16 << 20;

/// The key of the metadata of the file, beside the names of tensors.
pub(super) const METADATA: &str = "__metadata__";

/// The key of this crate's metadata.
pub(super) const KEY: &str = "recurrent";

/// Type, shape and byte range of a tensor in the file.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) meta: Meta,
    pub(super) bytes: Range<usize>,
}

/// A header whose entries cover the file.
#[derive(Debug)]
pub(super) struct Header {
    /// This crate's metadata.
    pub(super) metadata: Option<String>,
    pub(super) entries: BTreeMap<String, Entry>,
}

/// Reads the header of a file and checks it against the length of the file.
pub(super) fn read(file: &[u8]) -> Result<Header, String> {
    let header = text(file)?;
    let broken = |e: String| format!("is not a safetensors file, or is damaged: {e}");
    let mut found: Header =
        serde_json::from_slice(header).map_err(|e| broken(format!("its header: {e}")))?;
    let start = 8 + header.len();
    cover(&mut found.entries, start, file.len())?;
    Ok(found)
}

/// The JSON of the header.
fn text(file: &[u8]) -> Result<&[u8], String> {
    let Some((length, rest)) = file.split_first_chunk() else {
        return Err(format!("is truncated: it has {} bytes", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok();
    let Some(header) = header.and_then(|length| rest.get(..length)) else {
        let found = rest.len();
        return Err(format!(
            "is truncated, or is not a safetensors file: its header claims {length} bytes, but \
             only {found} follow"
        ));
    };
    if header.len() > MAX_HEADER {
        return Err(format!(
            "has a header of {length} bytes; at most {MAX_HEADER} are read"
        ));
    }
    Ok(header)
}

/// Checks that the tensors cover the data without gaps, and makes their ranges those of the file.
fn cover(entries: &mut BTreeMap<String, Entry>, start: usize, file: usize) -> Result<(), String> {
    let data = file - start;
    let mut ranges = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let Range { start: from, end } = entry.bytes;
        if end > data {
            return Err(format!(
                "is truncated: `{name}` ends at byte {end} of the data, which has {data} bytes"
            ));
        }
        let Meta { shape, dtype } = entry.meta;
        if end.checked_sub(from) != Some(entry.meta.bytes()) {
            let needed = entry.meta.bytes();
            return Err(format!(
                "is not a safetensors file, or is damaged: `{name}` is {dtype} {shape}, which has \
                 {needed} bytes, but is stored in bytes {from} to {end}"
            ));
        }
        ranges.push((from, end));
        entry.bytes = start + from..start + end;
    }
    ranges.sort_unstable();
    let mut covered = 0;
    for (from, end) in ranges {
        if from != covered {
            return Err(format!(
                "is not a safetensors file, or is damaged: a tensor starts at byte {from} of the \
                 data, but those before it end at byte {covered}"
            ));
        }
        covered = end;
    }
    if covered != data {
        return Err(format!(
            "is not a safetensors file, or is damaged: it has {data} bytes of data, but its \
             tensors end at byte {covered}"
        ));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Tensors)
    }
}

struct Tensors;

impl<'de> Visitor<'de> for Tensors {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut metadata = None;
        let mut entries = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                if metadata.is_some() {
                    return Err(A::Error::custom(format!("has `{METADATA}` twice")));
                }
                metadata = Some(map.next_value_seed(Metadata)?);
                continue;
            }
            let info: Info<'de> = map.next_value()?;
            let refuse = |problem: String| A::Error::custom(format!("`{name}` {problem}"));
            let dtype = dtype(&info.dtype)
                .ok_or_else(|| refuse(format!("is {}, which is not supported", info.dtype)))?;
            let shape = Shape::new(&info.shape.0).map_err(|e| refuse(format!("has: {e}")))?;
            let entry = Entry {
                meta: Meta::new(shape, dtype),
                bytes: info.data_offsets.0..info.data_offsets.1,
            };
            if entries.contains_key(&name) {
                return Err(refuse("is the name of two tensors".to_owned()));
            }
            entries.insert(name, entry);
        }
        Ok(Header {
            metadata: metadata.flatten(),
            entries,
        })
    }
}

/// What the header says of a tensor.
#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Dims,
    data_offsets: (usize, usize),
}

/// A shape of any length, of which no more is kept than a tensor can have.
struct Dims(SmallVec<[usize; MAX_RANK + 1]>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Axes)
    }
}

struct Axes;

impl<'de> Visitor<'de> for Axes {
    type Value = Dims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of lengths")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dims, A::Error> {
        let mut dims = Dims(SmallVec::new());
        while let Some(length) = seq.next_element()? {
            if dims.0.len() == MAX_RANK {
                let problem = format!("a tensor has more than {MAX_RANK} axes");
                return Err(A::Error::custom(problem));
            }
            dims.0.push(length);
        }
        Ok(dims)
    }
}

/// Reads the metadata of the file, and keeps this crate's.
struct Metadata;

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<String>, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let mut own = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key != KEY {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let text: String = map.next_value()?;
            if text.len() > MAX_METADATA {
                let length = text.len();
                let problem =
                    format!("has metadata of {length} bytes; at most {MAX_METADATA} are read");
                return Err(A::Error::custom(problem));
            }
            if own.replace(text).is_some() {
                return Err(A::Error::custom(format!("has metadata `{KEY}` twice")));
            }
        }
        Ok(own)
    }
}

fn dtype(stored: &str) -> Option<DType> {
    Some(match stored {
        "F32" => DType::F32,
        "F64" => DType::F64,
        "F16" => DType::F16,
        "BF16" => DType::Bf16,
        "I32" => DType::I32,
        "I64" => DType::I64,
        "U8" => DType::U8,
        "BOOL" => DType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn names_that_occur_twice_are_rejected() {
        let entry = |name: &str, from: usize| {
            let to = from + 1;
            format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{from},{to}]}}"#)
        };
        let header = format!("{{{},{}}}", entry("a", 0), entry("b", 1));
        let read_back = read(&file(&header, 2)).unwrap();
        assert_eq!(read_back.entries.len(), 2);
        let own = r#""__metadata__":{"recurrent":"{}"}"#;
        for (header, part) in [
            (
                format!("{{{},{}}}", entry("a", 0), entry("a", 0)),
                "`a` is the name of two tensors",
            ),
            (
                // An escape is another spelling of the name.
                format!("{{{},{}}}", entry("a", 0), entry("\\u0061", 1)),
                "`a` is the name of two tensors",
            ),
            (format!("{{{own},{own}}}"), "`__metadata__` twice"),
            (
                r#"{"__metadata__":{"recurrent":"a","recurrent":"b"}}"#.to_owned(),
                "`recurrent` twice",
            ),
            (
                r#"{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.to_owned(),
                "duplicate field",
            ),
        ] {
            let problem = read(&file(&header, 2)).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn a_long_header_is_refused_before_it_is_parsed() {
        // Not even JSON.
        let bytes = file(&"[".repeat(MAX_HEADER + 1), 0);
        let problem = read(&bytes).unwrap_err();
        assert!(
            problem.contains("100000001 bytes; at most 100000000 are read"),
            "{problem}"
        );
        let text = "0".repeat(MAX_METADATA + 1);
        let header = format!(r#"{{"__metadata__":{{"recurrent":"{text}"}}}}"#);
        let problem = read(&file(&header, 0)).unwrap_err();
        assert!(problem.contains("at most 16777216 are read"), "{problem}");
    }

    #[test]
    fn arrays_of_any_length_take_no_memory() {
        let many = "0,".repeat(1_000_000);
        for header in [
            format!(r#"{{"a":{{"dtype":"U8","shape":[{many}0],"data_offsets":[0,0]}}}}"#),
            format!(r#"{{"a":{{"dtype":"U8","shape":[0],"data_offsets":[{many}0]}}}}"#),
            format!(r#"{{"a":[{many}0]}}"#),
        ] {
            let problem = read(&file(&header, 0)).unwrap_err();
            assert!(problem.contains("its header: "), "{problem}");
        }
    }
}
