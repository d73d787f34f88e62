//! Tensor methods for classes and probabilities, composed of other operations.

use crate::{Backend, Compare, DType, Error, Meta, Result, Tensor};

/// Classes and probabilities.
impl<B: Backend> Tensor<B> {
    /// The softmax along `axis`. Shifts the inputs first, so that no exponential overflows.
    ///
    /// ```
    /// use backend_api::Tensor;
    /// use backend_cpu::Cpu;
    ///
    /// # fn main() -> backend_api::Result<()> {
    /// let logits = Tensor::from_slice(&Cpu::new(), &[1000.0f32, 1000.0], &[1, 2])?;
    /// assert_eq!(logits.softmax(1)?.to_vec::<f32>()?, [0.5, 0.5]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The axis does not exist, or the elements are not floats.
    pub fn softmax(&self, axis: usize) -> Result<Self> {
        let exponentials = self.shifted("softmax", axis)?.exp()?;
        let shares = exponentials.div(&exponentials.sum(axis)?.unsqueeze(axis)?)?;
        shares.cast(self.dtype())
    }

    /// The logarithm of [`softmax`](Self::softmax). Accurate even where the softmax underflows to
    /// 0.
    ///
    /// # Errors
    /// The axis does not exist, or the elements are not floats.
    pub fn log_softmax(&self, axis: usize) -> Result<Self> {
        let shifted = self.shifted("log_softmax", axis)?;
        let log_sum = shifted.exp()?.sum(axis)?.log()?;
        shifted.sub(&log_sum.unsqueeze(axis)?)?.cast(self.dtype())
    }

    /// Subtracts the maximum along `axis`. 16-bit floats become `f32`, for the sums that follow.
    fn shifted(&self, op: &'static str, axis: usize) -> Result<Self> {
        let shape = self.shape();
        if axis >= shape.rank() {
            let expected = format!("axis {axis} is requested");
            return Err(Error::shape(op, "logits", shape, expected));
        }
        if !self.dtype().is_float() {
            let expected = "floats are needed";
            return Err(Error::dtype(op, "logits", self.dtype(), expected));
        }
        let wide = self.cast(self.dtype().computed_in())?;
        if shape.dims()[axis] == 0 {
            // An empty axis has no maximum, and no element to shift.
            return Ok(wide);
        }
        // The maximum is treated as a constant: its gradient would cancel.
        wide.sub(&wide.detach().max(axis)?.unsqueeze(axis)?)
    }

    /// One-hot encoding of integers, `[..]` to `[.., depth]`: 1 at the index that an element gives,
    /// and 0 elsewhere. An element outside `0..depth` gives only zeros. TensorFlow's `one_hot`.
    ///
    /// ```
    /// use backend_api::{DType, Tensor};
    /// use backend_cpu::Cpu;
    ///
    /// # fn main() -> backend_api::Result<()> {
    /// let ids = Tensor::from_slice(&Cpu::new(), &[2i32, -1], &[2])?;
    /// let one_hot = ids.one_hot(3, DType::F32)?;
    /// assert_eq!(one_hot.to_vec::<f32>()?, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The elements are not integers, the result is too large, or the device is out of memory.
    pub fn one_hot(&self, depth: usize, dtype: DType) -> Result<Self> {
        if !self.dtype().is_int() {
            let expected = "integers are needed";
            return Err(Error::dtype("one_hot", "ids", self.dtype(), expected));
        }
        let shape = self.shape().insert(self.shape().rank(), depth)?;
        if shape.count() == 0 {
            return Self::zeros(self.device(), Meta::new(shape, dtype));
        }
        let classes = Self::integers(self.device(), 0..depth as i64)?;
        self.cast(DType::I64)?.is_class(&classes)?.cast(dtype)
    }

    /// `[.., classes]` of `bool`: whether each element equals each class.
    pub(crate) fn is_class(&self, classes: &Self) -> Result<Self> {
        let last = self.shape().rank();
        self.unsqueeze(last)?.compare(Compare::Eq, classes)
    }

    /// Averages over `axis` and removes it.
    ///
    /// # Errors
    /// The axis does not exist, its length is 0, or the elements are not floats.
    pub fn mean(&self, axis: usize) -> Result<Self> {
        let shape = self.shape();
        let count = shape.dims().get(axis).copied().filter(|&count| count > 0);
        let Some(count) = count else {
            let expected = format!("a mean along axis {axis} needs an element");
            return Err(Error::shape("mean", "input", shape, expected));
        };
        // The sum of many 16-bit floats can overflow even if their mean does not.
        let sum = self.cast(self.dtype().computed_in())?.sum(axis)?;
        sum.affine(1.0 / count as f64, 0.0)?.cast(self.dtype())
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
    /// use backend_api::Tensor;
    /// use backend_cpu::Cpu;
    ///
    /// # fn main() -> backend_api::Result<()> {
    /// let device = Cpu::new();
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
}
