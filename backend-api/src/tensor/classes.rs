//! Tensor methods for classes and probabilities, composed of other operations.

use crate::operands::Args;
use crate::{Backend, Compare, DType, Error, Meta, Result, Shape, Tensor};

/// Classes and probabilities.
impl<B: Backend> Tensor<B> {
    /// The softmax along `axis`. Shifts the inputs first, so that no exponential overflows.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let logits = Tensor::from_slice(&Device::cpu(), &[1000.0f32, 1000.0], &[1, 2])?;
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
        self.check_floats(op)?;
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
    /// use recurrent::{DType, Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let ids = Tensor::from_slice(&Device::cpu(), &[2i32, -1], &[2])?;
    /// let one_hot = ids.one_hot(3, DType::F32)?;
    /// assert_eq!(one_hot.to_vec::<f32>()?, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The elements are not integers, the result is too large, or the device is out of memory.
    pub fn one_hot(&self, depth: usize, dtype: DType) -> Result<Self> {
        let args = Args {
            op: "one_hot",
            ins: &[],
        };
        args.check_int("ids", self.dtype())?;
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

    /// The `k` largest elements along the last axis, from the largest to the smallest, and their
    /// indices (`i64`): `[.., n]` to two tensors `[.., k]`. Of equal elements, the one with the
    /// lower index comes first. A NaN counts as the smallest number. TensorFlow's `nn.top_k`.
    ///
    /// The time grows with `k` times `n`.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let scores = Tensor::from_slice(&Device::cpu(), &[0.1f32, 0.7, 0.2, 0.7], &[4])?;
    /// let (values, indices) = scores.top_k(3)?;
    /// assert_eq!(values.to_vec::<f32>()?, [0.7, 0.7, 0.2]);
    /// assert_eq!(indices.to_vec::<i64>()?, [1, 3, 2]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// There is no axis, the last axis is shorter than `k`, or the elements are `bool`.
    pub fn top_k(&self, k: usize) -> Result<(Self, Self)> {
        let op = "top_k";
        let (lead, n) = self.classes(op, "input")?;
        if k > n {
            let expected = format!("{k} elements of the last axis are requested");
            return Err(Error::shape(op, "input", self.shape(), expected));
        }
        if self.dtype() == DType::Bool {
            return Err(Error::dtype(op, "input", DType::Bool, "numbers are needed"));
        }
        let shape = lead.insert(lead.rank(), k)?;
        let (device, rows) = (self.device(), lead.count());
        if shape.count() == 0 {
            let indices = Self::zeros(device, (shape, DType::I64))?;
            return Ok((Self::zeros(device, (shape, self.dtype()))?, indices));
        }
        let table = self.reshape(&[rows, n])?;
        let classes = Self::integers(device, 0..n as i64)?;
        let (mut left, taken) = table.detach().ranked()?;
        let mut best = Vec::with_capacity(k);
        for _ in 0..k {
            let largest = left.argmax(1)?;
            left = largest.is_class(&classes)?.select_from(&taken, &left)?;
            best.push(largest);
        }
        let indices = Self::stack(&best.iter().collect::<Vec<_>>(), 1)?;
        let starts = Self::integers(device, 0..rows as i64)?
            .mul(n)?
            .unsqueeze(1)?;
        let values = table.reshape(&[rows * n])?.gather(&starts.add(&indices)?)?;
        Ok((
            values.reshape(shape.dims())?,
            indices.reshape(shape.dims())?,
        ))
    }

    /// The elements as numbers above a mark for those that are taken already, and the mark.
    fn ranked(&self) -> Result<(Self, Self)> {
        let device = self.device();
        if self.dtype().is_float() {
            // `argmax` takes a NaN for smaller than any number, so it marks what is taken.
            let ranked = self.equal(self)?.select_from(self, f64::NEG_INFINITY)?;
            return Ok((ranked, Self::scalar(device, f64::NAN, self.dtype())?));
        }
        let least = Self::from_slice(device, &[i64::MIN + 1], &[])?;
        let taken = Self::from_slice(device, &[i64::MIN], &[])?;
        Ok((self.cast(DType::I64)?.maximum(&least)?, taken))
    }

    /// Whether the target of each row is among the `k` largest predictions: `predictions [.., n]`
    /// and integer `targets [..]` to `bool [..]`. Predictions that equal the `k`-th are all among
    /// the largest. False if a prediction of the row is not finite, or the target is no class.
    /// TensorFlow's `nn.in_top_k`.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let scores = Tensor::from_slice(&device, &[0.1f32, 0.7, 0.2, 0.5, 0.4, 0.1], &[2, 3])?;
    /// let targets = Tensor::from_slice(&device, &[2, 2], &[2])?;
    /// assert_eq!(scores.in_top_k(&targets, 2)?.to_bools()?, [true, false]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The predictions are not floats, the targets are not integers, or the shapes do not fit.
    pub fn in_top_k(&self, targets: &Self, k: usize) -> Result<Self> {
        let op = "in_top_k";
        let (lead, n) = self.classes(op, "predictions")?;
        self.check_floats(op)?;
        let args = Args { op, ins: &[] };
        args.check_int("targets", targets.dtype())?;
        if targets.shape() != lead {
            let expected = format!("the predictions are {}", self.shape());
            return Err(Error::shape(op, "targets", targets.shape(), expected));
        }
        let (x, axis) = (self.detach(), lead.rank());
        let classes = Self::integers(self.device(), 0..n as i64)?;
        let hit = targets.cast(DType::I64)?.is_class(&classes)?;
        let target = hit.select_from(&x, 0.0)?.sum(axis)?.unsqueeze(axis)?;
        let larger = x.greater(&target)?.cast(DType::I64)?.sum(axis)?;
        // Only of a number that is not finite, the difference to itself is not 0.
        let finite = x.sub(&x)?.equal(0.0)?.all(axis)?;
        let within = larger.less(k.min(n.saturating_add(1)))?;
        within.and(finite)?.and(hit.any(axis)?)
    }

    /// The axes before the last, and the length of the last.
    fn classes(&self, op: &'static str, arg: &str) -> Result<(Shape, usize)> {
        let shape = self.shape();
        match shape.dims().split_last() {
            Some((&n, _)) => Ok((shape.without(shape.rank() - 1)?, n)),
            None => Err(Error::shape(op, arg, shape, "an axis of classes is needed")),
        }
    }
}
