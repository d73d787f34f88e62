//! Named arrays in host memory.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backend_api::{Backend, DType, Error, IntoMeta, Meta, Result, Tensor};

/// A tensor in host memory: a type, a shape and the elements as little-endian bytes in row-major
/// order. A clone shares the bytes.
///
/// ```
/// use recurrent::convert::Array;
/// use recurrent::{DType, Meta, Shape};
///
/// # fn main() -> recurrent::Result<()> {
/// let meta = Meta::new(Shape::new(&[2])?, DType::I32);
/// let array = Array::new(meta, vec![7, 0, 0, 0, 255, 255, 255, 255])?;
/// assert_eq!(array.meta().dtype, DType::I32);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Array {
    meta: Meta,
    /// May have other arrays, too.
    buffer: Arc<Vec<u8>>,
    start: usize,
}

impl Array {
    /// Creates an array from little-endian bytes.
    ///
    /// # Errors
    /// The number of bytes is not that of the shape and type, or a `bool` is neither 0 nor 1.
    pub fn new(meta: impl IntoMeta, bytes: Vec<u8>) -> Result<Self> {
        let meta = meta.into_meta()?;
        if bytes.len() != meta.bytes() {
            let Meta { shape, dtype } = meta;
            let (found, needed) = (bytes.len(), meta.bytes());
            let problem = format!("are {found}, but {dtype} {shape} has {needed}");
            return Err(Error::argument("array", "bytes", problem));
        }
        let array = Self::view(meta, &Arc::new(bytes), 0);
        match array.not_bool() {
            None => Ok(array),
            Some(problem) => Err(Error::argument("array", "bytes", problem)),
        }
    }

    /// A part of a buffer, which the caller has found to be long enough.
    pub(crate) fn view(meta: Meta, buffer: &Arc<Vec<u8>>, start: usize) -> Self {
        let buffer = buffer.clone();
        Self {
            meta,
            buffer,
            start,
        }
    }

    /// Copies a tensor from its device.
    ///
    /// # Errors
    /// The device failed.
    pub fn of<B: Backend>(tensor: &Tensor<B>) -> Result<Self> {
        let meta = tensor.meta();
        let bytes = swap_on_big_endian(tensor.to_bytes()?, meta.dtype);
        Ok(Self::view(meta, &Arc::new(bytes), 0))
    }

    /// Type and shape.
    pub fn meta(&self) -> Meta {
        self.meta
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.meta.shape.dims()
    }

    /// The elements, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.meta.bytes()]
    }

    /// Why the bytes are not of the type.
    fn not_bool(&self) -> Option<String> {
        if self.meta.dtype != DType::Bool {
            return None;
        }
        let bytes = self.bytes();
        let at = bytes.iter().position(|&byte| byte > 1)?;
        let byte = bytes[at];
        Some(format!(
            "has byte {byte} at index {at}, but a bool is 0 or 1"
        ))
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        self.meta == other.meta && self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.meta.dtype, self.meta.shape)
    }
}

/// Named arrays of one file or model, in host memory: weights that are not on a device yet.
///
/// ```
/// use recurrent::convert::{Array, Arrays, Weights, read_arrays, write_arrays};
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let bias = Array::of(&Tensor::from_slice(&device, &[0.5f32, 1.5], &[2])?)?;
/// let path = std::env::temp_dir().join("recurrent-arrays.safetensors");
/// write_arrays(&path, &Arrays::new("model", [("bias".to_owned(), bias)]))?;
/// let weights = Weights::of_arrays(&device, &read_arrays(&path)?)?;
/// assert_eq!(weights.get("bias")?.to_vec::<f32>()?, [0.5, 1.5]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Arrays {
    path: PathBuf,
    arrays: BTreeMap<String, Array>,
}

impl Arrays {
    /// Creates a collection; messages of errors name `source`, such as the path of a file.
    pub fn new(
        source: impl AsRef<Path>,
        arrays: impl IntoIterator<Item = (String, Array)>,
    ) -> Self {
        Self {
            path: source.as_ref().to_owned(),
            arrays: arrays.into_iter().collect(),
        }
    }

    /// Where the arrays come from.
    pub fn source(&self) -> &Path {
        &self.path
    }

    /// The array with this name.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.arrays.get(name)
    }

    /// Names and arrays, in sorted order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Array)> {
        self.arrays
            .iter()
            .map(|(name, array)| (name.as_str(), array))
    }

    /// The names, in sorted order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    pub(crate) fn map(&self) -> &BTreeMap<String, Array> {
        &self.arrays
    }

    /// Copies an array to a device.
    ///
    /// # Errors
    /// No array has this name, or the device is out of memory.
    pub fn tensor<B: Backend>(&self, device: &B, name: &str) -> Result<Tensor<B>> {
        let array = self.found(name)?;
        if let Some(problem) = array.not_bool() {
            return Err(Error::format(&self.path, format!("`{name}` {problem}")));
        }
        let bytes = array.bytes().to_vec();
        let bytes = swap_on_big_endian(bytes, array.meta.dtype);
        Tensor::from_bytes(device, &bytes, array.meta)
    }

    /// Copies an array, which must have the given shape and type, to a device.
    pub(crate) fn tensor_of<B: Backend>(
        &self,
        device: &B,
        expected: Meta,
        name: &str,
    ) -> Result<Tensor<B>> {
        let found = self.found(name)?.meta;
        if found != expected {
            let problem = format!(
                "`{name}` is {} {} in the file, but {} {} in the model",
                found.dtype, found.shape, expected.dtype, expected.shape
            );
            return Err(Error::format(&self.path, problem));
        }
        self.tensor(device, name)
    }

    fn found(&self, name: &str) -> Result<&Array> {
        self.arrays.get(name).ok_or_else(|| {
            let names = listed(self.names());
            let problem = format!("has no `{name}`, which the model needs; the file has {names}");
            Error::format(&self.path, problem)
        })
    }
}

/// Names for a message: the first ones.
pub fn listed<'n>(mut names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN: usize = 12;
    let first: Vec<&str> = names.by_ref().take(SHOWN).collect();
    match (first.is_empty(), names.count()) {
        (true, _) => "no names".to_owned(),
        (false, 0) => first.join(", "),
        (false, more) => format!("{} and {more} more", first.join(", ")),
    }
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
