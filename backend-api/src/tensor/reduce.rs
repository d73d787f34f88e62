//! Reductions of an axis.

use crate::{Backend, Error, Op, Reduce, Result, Tensor};

/// Reductions. Each removes the axis.
impl<B: Backend> Tensor<B> {
    /// Sums over `axis` and removes it.
    ///
    /// # Errors
    /// The tensor has no axis `axis`, or its elements are not numbers.
    pub fn sum(&self, axis: usize) -> Result<Self> {
        let kind = Reduce::Sum;
        Self::call(&self.device, &Op::Reduce { kind, axis }, &[self])
    }

    /// Takes the maximum over `axis` and removes it.
    ///
    /// # Errors
    /// The tensor has no axis `axis`, the axis has length 0, or the elements are not numbers.
    pub fn max(&self, axis: usize) -> Result<Self> {
        let kind = Reduce::Max;
        Self::call(&self.device, &Op::Reduce { kind, axis }, &[self])
    }

    /// The sum of all elements, as a scalar.
    pub fn sum_all(&self) -> Result<Self> {
        self.reshape(&[self.shape().count()])?.sum(0)
    }

    /// The mean of all elements, as a scalar.
    pub fn mean_all(&self) -> Result<Self> {
        let count = self.shape().count();
        // The sum of many 16-bit floats can overflow even if their mean does not.
        let sum = self.cast(self.dtype.computed_in())?.sum_all()?;
        sum.affine(1.0 / count as f64, 0.0)?.cast(self.dtype)
    }

    /// The index of the maximum over `axis`, as `i64`; removes `axis`.
    ///
    /// # Errors
    /// The tensor has no axis `axis`, the axis has length 0, or the elements are not numbers.
    pub fn argmax(&self, axis: usize) -> Result<Self> {
        Self::call(&self.device, &Op::ArgMax { axis }, &[self])
    }

    /// Averages over `axis` and removes it.
    ///
    /// # Errors
    /// The axis does not exist, its length is 0, or the elements are not floats.
    pub fn mean(&self, axis: usize) -> Result<Self> {
        let count = self.check_mean("mean", axis)?;
        // The sum of many 16-bit floats can overflow even if their mean does not.
        let sum = self.cast(self.dtype().computed_in())?.sum(axis)?;
        sum.affine(1.0 / count as f64, 0.0)?.cast(self.dtype())
    }

    /// The variance along `axis`, which it removes: the mean of the squared deviations from the
    /// mean, as in TensorFlow's `moments` and `reduce_variance`.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 3.0, 2.0, 2.0], &[2, 2])?;
    /// assert_eq!(x.var(1)?.to_vec::<f32>()?, [1.0, 0.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`mean`](Self::mean).
    pub fn var(&self, axis: usize) -> Result<Self> {
        self.check_mean("var", axis)?;
        let x = self.cast(self.dtype().computed_in())?;
        let deviations = x.sub(x.mean(axis)?.unsqueeze(axis)?)?;
        deviations.square()?.mean(axis)?.cast(self.dtype())
    }

    /// The length of an axis of floats that is not empty.
    fn check_mean(&self, op: &'static str, axis: usize) -> Result<usize> {
        let shape = self.shape();
        let Some(&count) = shape.dims().get(axis).filter(|&&count| count > 0) else {
            let expected = format!("a mean along axis {axis} needs an element");
            return Err(Error::shape(op, "input", shape, expected));
        };
        self.check_floats(op)?;
        Ok(count)
    }

    pub(super) fn check_floats(&self, op: &'static str) -> Result<()> {
        match self.dtype.is_float() {
            true => Ok(()),
            false => Err(Error::dtype(op, "input", self.dtype, "floats are needed")),
        }
    }
}
