//! TensorFlow's messages, as far as they say something of tensors. Other fields are skipped.

use prost::Message;

use crate::element::Element;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Version {
    #[prost(int32, tag = "1")]
    pub(crate) producer: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BundleHeader {
    #[prost(int32, tag = "1")]
    pub(crate) num_shards: i32,
    /// 0 is little-endian.
    #[prost(int32, tag = "2")]
    pub(crate) endianness: i32,
    #[prost(message, optional, tag = "3")]
    pub(crate) version: Option<Version>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BundleEntry {
    #[prost(int32, tag = "1")]
    pub(crate) dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
    #[prost(int32, tag = "3")]
    pub(crate) shard_id: i32,
    #[prost(int64, tag = "4")]
    pub(crate) offset: i64,
    #[prost(int64, tag = "5")]
    pub(crate) size: i64,
    /// Masked.
    #[prost(fixed32, tag = "6")]
    pub(crate) crc32c: u32,
    /// The parts of a partitioned variable, whose entries have the data.
    #[prost(message, repeated, tag = "7")]
    pub(crate) slices: Vec<Slice>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Slice {
    #[prost(message, repeated, tag = "1")]
    pub(crate) extent: Vec<Extent>,
}

/// A range of an axis: the whole axis without a length.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Extent {
    #[prost(int64, tag = "1")]
    pub(crate) start: i64,
    #[prost(int64, optional, tag = "2")]
    pub(crate) length: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    pub(crate) dim: Vec<Dim>,
    #[prost(bool, tag = "3")]
    pub(crate) unknown_rank: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dim {
    #[prost(int64, tag = "1")]
    pub(crate) size: i64,
}

impl TensorShape {
    pub(crate) fn of(dims: &[usize]) -> Self {
        let dim = |&size: &usize| Dim { size: size as i64 };
        Self {
            dim: dims.iter().map(dim).collect(),
            unknown_rank: false,
        }
    }

    pub(crate) fn dims(&self) -> Result<Vec<usize>, String> {
        let size = |dim: &Dim| usize::try_from(dim.size);
        let dims: Result<_, _> = self.dim.iter().map(size).collect();
        match dims {
            Ok(dims) if !self.unknown_rank => Ok(dims),
            _ => Err("has an unknown shape".to_owned()),
        }
    }
}

/// A graph. Nodes are decoded one by one, so that those that do not matter take no memory.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) node: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "2")]
    pub(crate) library: Option<Library>,
    #[prost(message, optional, tag = "4")]
    pub(crate) versions: Option<Version>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Library {
    #[prost(message, repeated, tag = "1")]
    pub(crate) function: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(message, optional, tag = "1")]
    pub(crate) signature: Option<Signature>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(crate) node: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Signature {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) op: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attr: Vec<Attr>,
}

/// An entry of the map of attributes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attr {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    /// Boxed, as it is large: a damaged message can have very many.
    #[prost(message, optional, boxed, tag = "2")]
    pub(crate) value: Option<Box<AttrValue>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttrValue {
    #[prost(message, optional, tag = "8")]
    pub(crate) tensor: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(int32, tag = "1")]
    pub(crate) dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) tensor_shape: Option<TensorShape>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) tensor_content: Vec<u8>,
    #[prost(float, repeated, tag = "5")]
    pub(crate) float_val: Vec<f32>,
    #[prost(double, repeated, tag = "6")]
    pub(crate) double_val: Vec<f64>,
    #[prost(int32, repeated, tag = "7")]
    pub(crate) int_val: Vec<i32>,
    #[prost(int64, repeated, tag = "10")]
    pub(crate) int64_val: Vec<i64>,
    #[prost(bool, repeated, tag = "11")]
    pub(crate) bool_val: Vec<bool>,
    /// The bits of 16-bit floats.
    #[prost(int32, repeated, tag = "13")]
    pub(crate) half_val: Vec<i32>,
    #[prost(uint32, repeated, tag = "16")]
    pub(crate) uint32_val: Vec<u32>,
    #[prost(uint64, repeated, tag = "17")]
    pub(crate) uint64_val: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedModel {
    #[prost(int64, tag = "1")]
    pub(crate) saved_model_schema_version: i64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) meta_graphs: Vec<MetaGraph>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaGraph {
    #[prost(message, optional, boxed, tag = "2")]
    pub(crate) graph_def: Option<Box<Graph>>,
}

/// The numbers of `DataType`, of elements that are read.
const ELEMENTS: [(i32, Element); 13] = [
    (1, Element::F32),
    (2, Element::F64),
    (3, Element::I32),
    (4, Element::U8),
    (5, Element::I16),
    (6, Element::I8),
    (9, Element::I64),
    (10, Element::Bool),
    (14, Element::Bf16),
    (17, Element::U16),
    (19, Element::F16),
    (22, Element::U32),
    (23, Element::U64),
];

/// The element type, or the name of one that is not of numbers that are read.
pub(crate) fn element(dtype: i32) -> Result<Element, String> {
    // Variables of TensorFlow 1 are references.
    let found = ELEMENTS.iter().find(|(number, _)| *number == dtype % 100);
    found
        .map(|(_, element)| *element)
        .ok_or_else(|| match dtype {
            7 => "string".to_owned(),
            8 => "complex64".to_owned(),
            18 => "complex128".to_owned(),
            20 => "resource".to_owned(),
            21 => "variant".to_owned(),
            other => format!("DataType {other}"),
        })
}

/// The number of an element type.
pub(crate) fn number(element: Element) -> i32 {
    let found = ELEMENTS.iter().find(|(_, other)| *other == element);
    found.map_or(0, |(number, _)| *number)
}
