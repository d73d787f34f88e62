//! Weights from and to other frameworks: [`pytorch`], [`keras`].
//!
//! A layer of the other framework becomes one or more cells with the same numbers, and back. The
//! frameworks save weights as safetensors, which [`Weights`] reads and writes:
//!
//! ```python
//! safetensors.torch.save_file(model.state_dict(), "model.safetensors")  # PyTorch
//!
//! names = ["kernel", "recurrent_kernel", "bias"]                        # Keras: one layer
//! safetensors.numpy.save_file(dict(zip(names, layer.get_weights())), "layer.safetensors")
//! ```
//!
//! No entry is skipped: a missing entry, an unexpected one or one of the wrong shape is an error
//! that names it.

pub mod keras;
mod parts;
pub mod pytorch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use backend_api::{Backend, DType, Error, Result, Tensor};

use crate::arrays::listed;
pub use crate::arrays::{Array, Arrays};
use crate::checkpoint::file::{self, Stored};

/// Reads the tensors of a safetensors file, without a device.
///
/// ```
/// use recurrent::checkpoint::save_params;
/// use recurrent::convert::read_arrays;
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-read-arrays.safetensors");
/// save_params(&path, &Dense::new(&Device::cpu(), 3, 2)?)?;
/// let arrays = read_arrays(&path)?;
/// assert_eq!(arrays.names().collect::<Vec<_>>(), ["bias", "kernel"]);
/// assert_eq!(arrays.get("kernel").map(|array| array.dims()), Some(&[3usize, 2][..]));
/// # Ok(()) }
/// ```
///
/// # Errors
/// The file cannot be read, is damaged, or has a tensor of an unsupported element type.
pub fn read_arrays(path: impl AsRef<Path>) -> Result<Arrays> {
    Ok(Stored::read(path.as_ref())?.arrays)
}

/// Writes a safetensors file atomically, in the place of a regular file only.
///
/// ```
/// use recurrent::checkpoint::load_params;
/// use recurrent::convert::{Array, Arrays, write_arrays};
/// use recurrent::{Dense, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let path = std::env::temp_dir().join("recurrent-write-arrays.safetensors");
/// let ones = |shape: &[usize]| Array::of(&Tensor::ones(&device, shape)?);
/// let named = [("kernel".to_owned(), ones(&[3, 2])?), ("bias".to_owned(), ones(&[2])?)];
/// write_arrays(&path, &Arrays::new("mine", named))?;
/// let mut dense = Dense::new(&device, 3, 2)?;
/// load_params(&path, &mut dense)?;
/// let y = dense.forward(&Tensor::ones(&device, &[1, 3])?)?;
/// assert_eq!(y.to_vec::<f32>()?, [4.0, 4.0]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `path` is not a regular file, or the system failed.
pub fn write_arrays(path: impl AsRef<Path>, arrays: &Arrays) -> Result<()> {
    file::write(path.as_ref(), None, arrays.map())
}

/// Named tensors.
///
/// ```
/// use recurrent::convert::Weights;
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let bias = Tensor::from_slice(&device, &[0.5f32, 1.5], &[2])?;
/// let model = Weights::new([("encoder.bias".to_owned(), bias)]);
/// let encoder = model.under("encoder.")?;
/// assert_eq!(encoder.get("bias")?.shape().dims(), [2]);
/// assert!(model.under("decoder.").is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Weights<B: Backend> {
    tensors: BTreeMap<String, Tensor<B>>,
}

impl<B: Backend> Weights<B> {
    /// Creates weights from named tensors.
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor<B>)>) -> Self {
        let tensors = tensors.into_iter().collect();
        Self { tensors }
    }

    /// Reads the tensors of a safetensors file to a device.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or has a tensor of an unsupported element type (an
    /// 8-bit float, for example); or the device is out of memory.
    pub fn read(device: &B, path: impl AsRef<Path>) -> Result<Self> {
        Self::of_arrays(device, &read_arrays(path)?)
    }

    /// Copies arrays to a device.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn of_arrays(device: &B, arrays: &Arrays) -> Result<Self> {
        let tensor = |name: &str| Ok((name.to_owned(), arrays.tensor(device, name)?));
        let tensors = arrays.names().map(tensor).collect::<Result<_>>()?;
        Ok(Self { tensors })
    }

    /// Copies the tensors from their device. Messages of errors name `source`.
    ///
    /// # Errors
    /// The device failed.
    pub fn to_arrays(&self, source: impl AsRef<Path>) -> Result<Arrays> {
        let array = |(name, tensor): (&String, &Tensor<B>)| Ok((name.clone(), Array::of(tensor)?));
        let arrays: Vec<_> = self.tensors.iter().map(array).collect::<Result<_>>()?;
        Ok(Arrays::new(source, arrays))
    }

    /// Writes a safetensors file atomically, in the place of a regular file only.
    ///
    /// # Errors
    /// `path` is not a regular file, or the device or the system failed.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_arrays(&path, &self.to_arrays(&path)?)
    }

    /// The tensors whose names start with `prefix`, with the prefix removed: those of one layer of
    /// a model.
    ///
    /// # Errors
    /// No name starts with `prefix`.
    pub fn under(&self, prefix: &str) -> Result<Self> {
        let inside = self.tensors.iter().filter_map(|(name, tensor)| {
            let name = name.strip_prefix(prefix)?;
            Some((name.to_owned(), tensor.clone()))
        });
        let inside = Self::new(inside);
        if inside.tensors.is_empty() {
            let problem = format!(
                "is `{prefix}`, but no name starts with it; {}",
                self.entry_names()
            );
            return Err(Error::argument("weights", "prefix", problem));
        }
        Ok(inside)
    }

    /// The weights of several layers, with a prefix before the names of each: a model, from which
    /// [`under`](Self::under) takes the layers.
    ///
    /// ```
    /// use recurrent::convert::{Weights, keras};
    /// use recurrent::{Device, GruCell, LstmCell};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let (lstm, gru) = (LstmCell::builder(3, 8).forget_bias(0.0), GruCell::builder(8, 4));
    /// let model = Weights::join([
    ///     ("layers/lstm/cell/vars/", keras::from_lstm(&lstm.build(&device)?)?),
    ///     ("layers/gru/cell/vars/", keras::from_gru(&gru.build(&device)?)?),
    /// ])?;
    /// assert_eq!(model.get("layers/gru/cell/vars/kernel")?.dims()[..], [8, 12]);
    /// // interchange::Format::Keras.write("model.weights.h5", &model.to_arrays("model")?)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Two layers give the same name.
    pub fn join<'a>(layers: impl IntoIterator<Item = (&'a str, Self)>) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (prefix, layer) in layers {
            for (name, tensor) in layer.tensors {
                let name = format!("{prefix}{name}");
                if all.insert(name.clone(), tensor).is_some() {
                    let problem = format!("give the name `{name}` twice");
                    return Err(Error::argument("weights", "layers", problem));
                }
            }
        }
        Ok(Self { tensors: all })
    }

    /// The tensor with this name.
    ///
    /// # Errors
    /// No tensor has this name.
    pub fn get(&self, name: &str) -> Result<&Tensor<B>> {
        self.tensors
            .get(name)
            .ok_or_else(|| self.missing("weights", name))
    }

    /// The names, in sorted order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    fn missing(&self, op: &'static str, name: &str) -> Error {
        Error::argument(op, name, format!("is missing; {}", self.entry_names()))
    }

    fn entry_names(&self) -> String {
        format!("the entries are {}", listed(self.names()))
    }
}

/// Weights of which every entry must be taken exactly once.
struct Entries<'w, B: Backend> {
    op: &'static str,
    weights: &'w Weights<B>,
    taken: BTreeSet<String>,
    /// The type of the first entry taken, which all others must share.
    dtype: Option<DType>,
}

impl<'w, B: Backend> Entries<'w, B> {
    fn new(op: &'static str, weights: &'w Weights<B>) -> Self {
        Self {
            op,
            weights,
            taken: BTreeSet::new(),
            dtype: None,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.weights.tensors.contains_key(name)
    }

    fn get(&self, name: &str) -> Result<&'w Tensor<B>> {
        let found = self.weights.tensors.get(name);
        found.ok_or_else(|| self.weights.missing(self.op, name))
    }

    /// Rows and columns of an entry, without taking it.
    fn matrix(&self, name: &str) -> Result<[usize; 2]> {
        let entry = self.get(name)?;
        match *entry.shape().dims() {
            [rows, columns] => Ok([rows, columns]),
            _ => Err(self.misshaped(name, "a matrix is needed")),
        }
    }

    /// The length of an entry, without taking it.
    fn vector(&self, name: &str) -> Result<usize> {
        let entry = self.get(name)?;
        match *entry.shape().dims() {
            [length] => Ok(length),
            _ => Err(self.misshaped(name, "a vector is needed")),
        }
    }

    fn misshaped(&self, name: &str, expected: impl Into<String>) -> Error {
        match self.get(name) {
            Ok(entry) => Error::shape(self.op, name, entry.shape(), expected),
            Err(missing) => missing,
        }
    }

    /// Takes an entry, which must have the given shape.
    fn take(&mut self, name: &str, dims: &[usize]) -> Result<Tensor<B>> {
        let entry = self.get(name)?;
        if entry.shape().dims() != dims {
            return Err(self.misshaped(name, format!("{dims:?} is needed")));
        }
        let dtype = *self.dtype.get_or_insert(entry.dtype());
        if entry.dtype() != dtype {
            let expected = format!("another entry is {dtype}");
            return Err(Error::dtype(self.op, name, entry.dtype(), expected));
        }
        self.taken.insert(name.to_owned());
        Ok(entry.clone())
    }

    /// Fails if an entry was not taken.
    fn finish(self) -> Result<()> {
        match self
            .weights
            .names()
            .find(|name| !self.taken.contains(*name))
        {
            None => Ok(()),
            Some(name) => {
                let problem = "is unused: the layer has no entry of that name";
                Err(Error::argument(self.op, name, problem))
            }
        }
    }
}
