//! Creating tensors.

use std::ops::Range;

use super::operand::{Scalar, checked};
use super::read::host_zeros;
use crate::check::check_bytes;
use crate::trace::Key;
use crate::{
    Backend, DType, Distribution, Element, Error, IntoMeta, Meta, Op, Result, Shape, Tensor,
};

/// Creating tensors. The shape is a reference to an array, `&[2, 3]`, and the elements are `f32`;
/// a pair has another type, `(&[2, 3], DType::I64)`. See [`IntoMeta`].
impl<B: Backend> Tensor<B> {
    /// Creates a tensor from elements in row-major order.
    ///
    /// # Errors
    /// `shape` does not have `data.len()` elements, or the device is out of memory.
    pub fn from_slice<T: Element>(device: &B, data: &[T], shape: &[usize]) -> Result<Self> {
        let shape = Shape::new(shape)?;
        if shape.count() != data.len() {
            return Err(Error::shape(
                "tensor",
                "shape",
                shape,
                format!("{} elements are given", data.len()),
            ));
        }
        Self::upload(
            device,
            bytemuck::cast_slice(data),
            Meta::new(shape, T::DTYPE),
        )
    }

    /// Creates a tensor from the bytes of its elements, in the host's byte order.
    ///
    /// # Errors
    /// `bytes` does not have [`meta.bytes()`](Meta::bytes) bytes, a `bool` is neither 0 nor 1, or
    /// the device is out of memory.
    pub fn from_bytes(device: &B, bytes: &[u8], meta: impl IntoMeta) -> Result<Self> {
        let meta = meta.into_meta()?;
        check_bytes("tensor", meta, bytes.len())?;
        // Kernels rely on it: any other byte would be neither `true` nor `false`.
        if meta.dtype == DType::Bool
            && let Some(index) = bytes.iter().position(|&byte| byte > 1)
        {
            let problem = format!(
                "have {} at index {index}, but a bool is 0 or 1",
                bytes[index]
            );
            return Err(Error::argument("tensor", "bytes", problem));
        }
        Self::upload(device, bytes, meta)
    }

    fn upload(device: &B, bytes: &[u8], meta: Meta) -> Result<Self> {
        let buffer = device.upload(bytes, meta)?;
        Self::whole(device, buffer, meta)
    }

    /// Creates a scalar, a tensor without axes.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn scalar(device: &B, value: f64, dtype: DType) -> Result<Self> {
        Self::full(device, value, Meta::new(Shape::SCALAR, dtype))
    }

    /// Creates a tensor whose elements are all `value`.
    ///
    /// ```
    /// use recurrent::{DType, Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let halves = Tensor::full(&Device::cpu(), 0.5, &[2, 3])?;
    /// assert_eq!(halves.dims()[..], [2, 3]);
    /// let sevens = Tensor::full(&Device::cpu(), 7.0, (&[2], DType::I64))?;
    /// assert_eq!(sevens.to_vec::<i64>()?, [7, 7]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The shape is too large, or the device is out of memory.
    pub fn full(device: &B, value: f64, meta: impl IntoMeta) -> Result<Self> {
        let meta = meta.into_meta()?;
        Self::call(device, &Op::Fill { value, meta }, &[])
    }

    /// Creates a tensor of zeros.
    ///
    /// # Errors
    /// As [`full`](Self::full).
    pub fn zeros(device: &B, meta: impl IntoMeta) -> Result<Self> {
        Self::full(device, 0.0, meta)
    }

    /// Creates a tensor of ones.
    ///
    /// # Errors
    /// As [`full`](Self::full).
    pub fn ones(device: &B, meta: impl IntoMeta) -> Result<Self> {
        Self::full(device, 1.0, meta)
    }

    /// Creates a matrix with ones on its diagonal.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let eye = Tensor::eye(&Device::cpu(), &[2, 3])?;
    /// assert_eq!(eye.to_vec::<f32>()?, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The shape does not have two axes, or as [`full`](Self::full).
    pub fn eye(device: &B, meta: impl IntoMeta) -> Result<Self> {
        let Meta { shape, dtype } = meta.into_meta()?;
        let [rows, columns] = *shape.dims() else {
            let expected = "a matrix has two axes";
            return Err(Error::shape("eye", "shape", shape, expected));
        };
        let rows = Self::integers(device, 0..rows as i64)?;
        rows.one_hot(columns, dtype)
    }

    /// Creates a vector of the numbers `start`, `start + step`, .. below `end` (above it, if
    /// `step` is negative): TensorFlow's `range`, NumPy's `arange`.
    ///
    /// ```
    /// use recurrent::{DType, Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let odd = Tensor::arange(&device, 1..8, 2, DType::I64)?;
    /// assert_eq!(odd.to_vec::<i64>()?, [1, 3, 5, 7]);
    /// let times = Tensor::arange(&device, 0.0..1.0, 0.25, DType::F32)?;
    /// assert_eq!(times.to_vec::<f32>()?, [0.0, 0.25, 0.5, 0.75]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `step` is 0 or leads away from `end`, `dtype` does not have the numbers, or the device is
    /// out of memory.
    pub fn arange<S: Scalar>(device: &B, range: Range<S>, step: S, dtype: DType) -> Result<Self> {
        let op = "arange";
        let start = checked(op, "start", range.start, dtype)?;
        let step = checked(op, "step", step, dtype)?;
        // The end is not one of the numbers.
        let end = checked(op, "end", range.end, DType::F64)?;
        let count = ((end - start) / step).ceil();
        if !count.is_finite() || count < 0.0 {
            let problem = format!("is {step}, which does not lead from {start} to {end}");
            return Err(Error::argument(op, "step", problem));
        }
        let mut numbers = host_zeros(count as usize)?;
        for (i, to) in numbers.iter_mut().enumerate() {
            *to = start + i as f64 * step;
        }
        if let Some(&last) = numbers.last() {
            checked(op, "end", last, dtype)?;
        }
        Self::from_slice(device, &numbers, &[numbers.len()])?.cast(dtype)
    }

    /// A vector of the integers of a range.
    pub(crate) fn integers(device: &B, range: Range<i64>) -> Result<Self> {
        let count = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut numbers = host_zeros(count)?;
        numbers.iter_mut().zip(range).for_each(|(to, i)| *to = i);
        Self::from_slice(device, &numbers, &[count])
    }

    /// Creates a tensor of labels, ids or lengths from integers of any type, in row-major order.
    /// The elements are `i64`.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let labels: Vec<usize> = vec![7, 1, 4];
    /// let labels = Tensor::from_ints(&Device::cpu(), &labels, &[3])?;
    /// assert_eq!(labels.to_vec::<i64>()?, [7, 1, 4]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An integer does not fit into `i64`, or as [`from_slice`](Self::from_slice).
    pub fn from_ints<I: Copy + TryInto<i64>>(
        device: &B,
        data: &[I],
        shape: &[usize],
    ) -> Result<Self> {
        let mut ints = host_zeros(data.len())?;
        for (i, (to, &from)) in ints.iter_mut().zip(data).enumerate() {
            let too_large =
                |_| Error::argument("from_ints", "data", format!("at index {i} exceed i64"));
            *to = from.try_into().map_err(too_large)?;
        }
        Self::from_slice(device, &ints, shape)
    }

    /// Creates a tensor of `bool` in row-major order.
    ///
    /// # Errors
    /// As [`from_slice`](Self::from_slice).
    pub fn from_bools(device: &B, data: &[bool], shape: &[usize]) -> Result<Self> {
        let bytes: Vec<u8> = data.iter().map(|&b| b.into()).collect();
        Self::from_slice(device, &bytes, shape)?.cast(DType::Bool)
    }

    /// Creates a tensor of random numbers. They depend only on `key`, `distribution` and `meta`,
    /// and are identical on every device.
    ///
    /// # Errors
    /// The elements are not floats, or as [`full`](Self::full).
    pub fn random(
        device: &B,
        key: impl Into<Key>,
        distribution: Distribution,
        meta: impl IntoMeta,
    ) -> Result<Self> {
        let (key, meta) = (key.into(), meta.into_meta()?);
        let symbolic = match key.resolve() {
            Err(recorder) => recorder.noise(&key, distribution, meta)?,
            Ok(key) => {
                let op = Op::Random {
                    key,
                    distribution,
                    meta,
                };
                return Self::call(device, &op, &[]);
            }
        };
        Ok(Self::symbol(device, symbolic, meta))
    }
}
