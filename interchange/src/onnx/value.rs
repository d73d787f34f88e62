//! Values between nodes: tensors, and integers of shape arithmetic on the host.

use backend_api::{Backend, DType, Error, Result, Tensor};

use super::array::Array;

/// A value of a graph.
#[derive(Clone, Debug)]
pub(super) enum Value<B: Backend> {
    Tensor(Tensor<B>),
    /// Integers known on the host: shapes, axes, indices. Devices need not be read for them.
    Ints(Ints),
}

/// An integer or a list of integers.
#[derive(Clone, Debug)]
pub(super) struct Ints {
    pub(super) values: Vec<i64>,
    pub(super) scalar: bool,
    pub(super) dtype: DType,
}

impl Ints {
    pub(super) fn list(values: Vec<i64>) -> Self {
        Self {
            values,
            scalar: false,
            dtype: DType::I64,
        }
    }

    pub(super) fn dims(&self) -> Vec<usize> {
        if self.scalar {
            vec![]
        } else {
            vec![self.values.len()]
        }
    }

    /// The integers of an array, if it is one or a list.
    fn of(array: &Array) -> Option<Self> {
        let values: Vec<i64> = match array.dtype() {
            DType::I64 => array.to_vec::<i64>().ok()?,
            DType::I32 => array
                .to_vec::<i32>()
                .ok()?
                .into_iter()
                .map(i64::from)
                .collect(),
            DType::Bool => array.bytes().iter().map(|&b| i64::from(b)).collect(),
            _ => return None,
        };
        (array.dims().len() < 2).then_some(Self {
            values,
            scalar: array.dims().is_empty(),
            dtype: array.dtype(),
        })
    }
}

impl<B: Backend> Value<B> {
    pub(super) fn of(array: &Array, device: &B) -> Result<Self> {
        match Ints::of(array) {
            Some(ints) => Ok(Self::Ints(ints)),
            None => array.to_tensor(device).map(Self::Tensor),
        }
    }

    pub(super) fn tensor(&self, device: &B) -> Result<Tensor<B>> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone()),
            Self::Ints(ints) => {
                Tensor::from_slice(device, &ints.values, &ints.dims())?.cast(ints.dtype)
            }
        }
    }

    pub(super) fn dims(&self) -> Vec<usize> {
        match self {
            Self::Tensor(tensor) => tensor.dims().to_vec(),
            Self::Ints(ints) => ints.dims(),
        }
    }

    /// The number of elements.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Tensor(tensor) => tensor.shape().count(),
            Self::Ints(ints) => ints.values.len(),
        }
    }

    /// The integers, which are read from the device if they are there.
    pub(super) fn ints(&self, what: &str) -> Result<Ints> {
        let tensor = match self {
            Self::Ints(ints) => return Ok(ints.clone()),
            Self::Tensor(tensor) => tensor,
        };
        if tensor.dtype().is_float() || tensor.shape().rank() > 1 {
            let expected = "one integer or a list of integers is needed";
            return Err(match tensor.dtype().is_float() {
                true => Error::dtype("onnx", what, tensor.dtype(), expected),
                false => Error::shape("onnx", what, tensor.shape(), expected),
            });
        }
        Ok(Ints {
            values: tensor.cast(DType::I64)?.to_vec()?,
            scalar: tensor.shape().rank() == 0,
            dtype: tensor.dtype(),
        })
    }
}
