//! Joining tensors, and taking them apart.

use super::operand::{Scalar, checked};
use crate::{Backend, Error, Op, Result, Tensor};

/// Joining and splitting.
impl<B: Backend> Tensor<B> {
    /// Concatenates tensors along `axis`.
    ///
    /// # Errors
    /// `parts` is empty, or the parts differ in type or in the length of another axis.
    pub fn concat(parts: &[&Self], axis: usize) -> Result<Self> {
        match parts {
            [] => Err(Error::argument("concat", "parts", "are missing")),
            [only] if axis < only.shape().rank() => Ok((*only).clone()),
            [first, ..] => Self::call(&first.device, &Op::Concat { axis }, parts),
        }
    }

    /// Splits the last axis into `count` equal parts.
    ///
    /// # Errors
    /// `count` is 0 or does not divide the length of the last axis, or it is more than 65,536 and
    /// more than the number of elements.
    pub fn split_last(&self, count: usize) -> Result<Vec<Self>> {
        let axis = self.shape().rank().wrapping_sub(1);
        let width = self.shape().last();
        let fits = count > 0 && width.is_multiple_of(count) && self.has_parts(count);
        if self.shape().rank() == 0 || !fits {
            let expected = format!("{count} equal parts of the last axis are requested");
            return Err(Error::shape("split", "tensor", self.shape(), expected));
        }
        let part = width / count;
        (0..count)
            .map(|i| self.slice(axis, i * part..(i + 1) * part))
            .collect()
    }

    /// Whether a list of `count` parts is reasonable. Without a limit, a tensor without elements
    /// would have any number of parts.
    pub(crate) fn has_parts(&self, count: usize) -> bool {
        count <= (1 << 16).max(self.shape().count())
    }

    /// The slices along `axis`, without that axis: the inverse of [`stack`](Self::stack).
    ///
    /// # Errors
    /// The axis does not exist, or has more than 65,536 slices but no elements.
    pub fn unstack(&self, axis: usize) -> Result<Vec<Self>> {
        let shape = self.shape();
        let count = shape.dims().get(axis).copied();
        let Some(count) = count.filter(|&count| self.has_parts(count)) else {
            let expected = format!("the slices along axis {axis} are requested");
            return Err(Error::shape("unstack", "input", shape, expected));
        };
        (0..count).map(|index| self.select(axis, index)).collect()
    }

    /// Stacks tensors of one shape along a new axis.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let a = Tensor::from_slice(&device, &[1i32, 1, 1], &[3])?;
    /// let b = Tensor::from_slice(&device, &[2i32, 2, 2], &[3])?;
    /// let stacked = Tensor::stack(&[&a, &b], 1)?;
    /// assert_eq!(stacked.to_vec::<i32>()?, [1, 2, 1, 2, 1, 2]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `parts` is empty, the parts differ in shape or type, or `axis` is above their number of
    /// axes.
    pub fn stack(parts: &[&Self], axis: usize) -> Result<Self> {
        let parts: Vec<Self> = parts
            .iter()
            .map(|part| part.unsqueeze(axis))
            .collect::<Result<_>>()?;
        Self::concat(&parts.iter().collect::<Vec<_>>(), axis)
    }

    /// Adds elements of `value` before and after each axis: TensorFlow's `pad` with constants.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::from_slice(&Device::cpu(), &[1i32, 2], &[1, 2])?;
    /// let padded = x.pad(&[(0, 1), (1, 0)], 9)?;
    /// assert_eq!(padded.dims()[..], [2, 3]);
    /// assert_eq!(padded.to_vec::<i32>()?, [9, 1, 2, 9, 9, 9]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `paddings` does not have a pair for each axis, the result is too large, or the element type
    /// does not have `value`.
    pub fn pad(&self, paddings: &[(usize, usize)], value: impl Scalar) -> Result<Self> {
        let op = "pad";
        if paddings.len() != self.shape().rank() {
            let expected = format!("there are {} pairs of paddings", paddings.len());
            return Err(Error::shape(op, "tensor", self.shape(), expected));
        }
        let value = checked(op, "value", value, self.dtype)?;
        let mut padded = self.clone();
        for (axis, &(before, after)) in paddings.iter().enumerate() {
            let fill = |count| {
                let shape = padded.shape().with(axis, count)?;
                Self::full(&self.device, value, (shape, self.dtype))
            };
            padded = match (before, after) {
                (0, 0) => continue,
                (_, 0) => Self::concat(&[&fill(before)?, &padded], axis)?,
                (0, _) => Self::concat(&[&padded, &fill(after)?], axis)?,
                _ => Self::concat(&[&fill(before)?, &padded, &fill(after)?], axis)?,
            };
        }
        Ok(padded)
    }
}
