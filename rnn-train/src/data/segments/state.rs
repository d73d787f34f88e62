//! The position in segments, with the saved states.

use std::fmt;

use backend_api::{Backend, Error, Meta, Result, Shape, Tensor};
use serde::{Deserialize, Serialize};

use crate::data::lookahead::LookaheadState;

/// The position of a [`Segments`](super::Segments).
///
/// ```
/// use recurrent::data::{ByteStrings, Column, InMemory, Schema, SegmentSpec, Segments, Source};
/// use recurrent::{Device, StateSaver, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut schema = Schema::new();
/// let key = schema.add::<ByteStrings>("key")?;
/// let x = schema.add::<f32>("x")?;
/// let columns = vec![
///     Column::scalar::<ByteStrings>("talk".into()),
///     Column::new(&[5], vec![0.5f32; 5])?,
/// ];
/// let sequences = InMemory::new(vec![schema.sample(columns)?])?;
/// let zero = Tensor::zeros(&Device::cpu(), &[2])?;
/// let new = || {
///     let spec = SegmentSpec::new(key, 3, 1).sequence(x);
///     Segments::new(sequences.clone(), spec, &[("h", zero.clone())])
/// };
/// let mut segments = new()?;
/// let mut first = segments.next_item()?.expect("two segments");
/// first.save_state("h", first.state("h")?.add(1.0)?)?;
/// // The state has the saved states of the sequences that are not finished.
/// let mut resumed = new()?;
/// resumed.restore(segments.state())?;
/// let second = resumed.next_item()?.expect("a second segment");
/// assert_eq!(second.state("h")?.to_vec::<f32>()?, [1.0, 1.0]);
/// # Ok(()) }
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct SegmentsState<T, B: Backend> {
    pub(super) unroll: u64,
    pub(super) batch_size: u64,
    pub(super) names: Vec<String>,
    pub(super) ahead: LookaheadState<T>,
    pub(super) open: Vec<OpenState<B>>,
    pub(super) read: u64,
    pub(super) inserted: u64,
}

impl<T: fmt::Debug, B: Backend> fmt::Debug for SegmentsState<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentsState")
            .field("ahead", &self.ahead)
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct OpenState<B: Backend> {
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) segment: u64,
    pub(super) states: Vec<StoredTensor<B>>,
}

/// A tensor that is read from its device when the state is written.
#[derive(Clone)]
pub(super) enum StoredTensor<B: Backend> {
    Device(Tensor<B>),
    Host(HostTensor),
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct HostTensor {
    dtype: String,
    dims: Vec<usize>,
    /// Little endian, two hexadecimal digits a byte.
    bytes: String,
}

impl<B: Backend> StoredTensor<B> {
    /// The tensor, on the device of `like`, whose shape and type it must have.
    pub(super) fn tensor(&self, like: &Tensor<B>) -> Result<Tensor<B>> {
        let other = |problem: String| Error::argument("restore", "state", problem);
        let tensor = match self {
            Self::Device(tensor) => tensor.to(like.device())?,
            Self::Host(host) => {
                let dtype = like.dtype();
                let shape = Shape::new(&host.dims)?;
                if host.dtype != dtype.to_string() {
                    return Err(other(format!(
                        "has a {} tensor, but {dtype} is needed",
                        host.dtype
                    )));
                }
                let bytes = from_hex(&host.bytes);
                let bytes =
                    bytes.ok_or_else(|| other("has bytes that are not hexadecimal".into()))?;
                Tensor::from_bytes(like.device(), &bytes, Meta::new(shape, dtype))?
            }
        };
        match tensor.meta() == like.meta() {
            true => Ok(tensor),
            false => Err(other(format!(
                "has a tensor of shape {}, but {} is needed",
                tensor.shape(),
                like.shape()
            ))),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |&[high, low]: &[u8; 2]| Some((digit(high)? * 16 + digit(low)?) as u8);
    pairs.iter().map(byte).collect()
}

impl<B: Backend> Serialize for StoredTensor<B> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Host(host) => host.serialize(serializer),
            Self::Device(tensor) => HostTensor {
                dtype: tensor.dtype().to_string(),
                dims: tensor.dims().to_vec(),
                bytes: to_hex(&tensor.to_bytes().map_err(serde::ser::Error::custom)?),
            }
            .serialize(serializer),
        }
    }
}

impl<'de, B: Backend> Deserialize<'de> for StoredTensor<B> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HostTensor::deserialize(deserializer).map(Self::Host)
    }
}
