//! Comparisons, and tensors of `bool`.

use super::operand::Operand;
use super::read::host_zeros;
use crate::operands::Args;
use crate::{Backend, Compare, DType, Error, Op, Reduce, Result, Tensor};

/// Comparisons and logic. The second operand of a comparison is a tensor or a number.
impl<B: Backend> Tensor<B> {
    /// Compares element by element; the result is a tensor of `bool`.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0], &[3])?;
    /// let inside = (x.greater(1)? & x.less_equal(2.5)?)?;
    /// assert_eq!(inside.to_bools()?, [false, true, false]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The shapes or types do not fit, or the elements are `bool`.
    pub fn compare(&self, f: Compare, other: impl Operand<B>) -> Result<Self> {
        let op = Op::Compare(f);
        other.with(op.name(), self, |other| {
            Self::call(&self.device, &op, &[self, other])
        })
    }

    /// `self == other`
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn equal(&self, other: impl Operand<B>) -> Result<Self> {
        self.compare(Compare::Eq, other)
    }

    /// `self != other`
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn not_equal(&self, other: impl Operand<B>) -> Result<Self> {
        self.compare(Compare::Ne, other)
    }

    /// `self < other`
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn less(&self, other: impl Operand<B>) -> Result<Self> {
        self.compare(Compare::Lt, other)
    }

    /// `self <= other`
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn less_equal(&self, other: impl Operand<B>) -> Result<Self> {
        self.compare(Compare::Le, other)
    }

    /// `self > other`
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn greater(&self, other: impl Operand<B>) -> Result<Self> {
        self.compare(Compare::Gt, other)
    }

    /// `self >= other`
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn greater_equal(&self, other: impl Operand<B>) -> Result<Self> {
        self.compare(Compare::Ge, other)
    }

    /// Selects element by element: `a` where `self` (of `bool`) is true, else `b`. One of them can
    /// be a number.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, -2.0, f32::NAN], &[3])?;
    /// let known = x.equal(&x)?.select_from(&x, 0.0)?;
    /// assert_eq!(known.to_vec::<f32>()?, [1.0, -2.0, 0.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `self` is not `bool`, the shapes or types do not fit, or both are numbers.
    pub fn select_from(&self, a: impl Operand<B>, b: impl Operand<B>) -> Result<Self> {
        let op = Op::Select;
        let run = |a: &Self, b: &Self| Self::call(&self.device, &op, &[self, a, b]);
        // A number takes the type of the tensor.
        match a.number() {
            None => a.with(op.name(), self, |a| b.with(op.name(), a, |b| run(a, b))),
            Some(_) => b.with(op.name(), self, |b| a.with(op.name(), b, |a| run(a, b))),
        }
    }

    /// Whether both are true.
    ///
    /// # Errors
    /// The elements are not `bool`, or the shapes do not fit.
    pub fn and(&self, other: impl Operand<B>) -> Result<Self> {
        self.check_bools("and")?;
        other.with("and", self, |other| {
            self.same_type("and", "other", other)?;
            self.select_from(other, self)
        })
    }

    /// Whether one of the two is true, or both are.
    ///
    /// # Errors
    /// As [`and`](Self::and).
    pub fn or(&self, other: impl Operand<B>) -> Result<Self> {
        self.check_bools("or")?;
        other.with("or", self, |other| {
            self.same_type("or", "other", other)?;
            self.select_from(self, other)
        })
    }

    /// Whether it is false.
    ///
    /// # Errors
    /// The elements are not `bool`.
    pub fn not(&self) -> Result<Self> {
        self.check_bools("not")?;
        // As floats, which compiled steps have.
        self.cast(DType::F32)?.affine(-1.0, 1.0)?.cast(DType::Bool)
    }

    /// Whether an element along `axis` is true; removes the axis. False for an empty axis.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, -2.0, 3.0, 4.0], &[2, 2])?;
    /// let positive = x.greater(0)?;
    /// assert_eq!(positive.any(1)?.to_bools()?, [true, true]);
    /// assert_eq!(positive.all(1)?.to_bools()?, [false, true]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The axis does not exist, or the elements are not `bool`.
    pub fn any(&self, axis: usize) -> Result<Self> {
        self.some("any", axis)
    }

    /// Whether all elements along `axis` are true; removes the axis. True for an empty axis.
    ///
    /// # Errors
    /// As [`any`](Self::any).
    pub fn all(&self, axis: usize) -> Result<Self> {
        self.check_bools("all")?;
        self.not()?.some("all", axis)?.not()
    }

    fn some(&self, op: &'static str, axis: usize) -> Result<Self> {
        self.check_bools(op)?;
        let shape = self.shape();
        let kind = match shape.dims().get(axis) {
            None => {
                let expected = format!("axis {axis} is requested");
                return Err(Error::shape(op, "input", shape, expected));
            }
            // An empty axis has no maximum, but a sum.
            Some(0) => Reduce::Sum,
            Some(_) => Reduce::Max,
        };
        let numbers = self.cast(DType::F32)?;
        Self::call(&self.device, &Op::Reduce { kind, axis }, &[&numbers])?.cast(DType::Bool)
    }

    pub(super) fn same_type(&self, op: &'static str, arg: &str, other: &Self) -> Result<()> {
        Args { op, ins: &[] }.same_type(arg, other.meta(), self.dtype)
    }

    fn check_bools(&self, op: &'static str) -> Result<()> {
        match self.dtype {
            DType::Bool => Ok(()),
            other => Err(Error::dtype(op, "input", other, "bool is needed")),
        }
    }

    /// The positions of the elements that are true (of numbers, not 0): `[count, rank]` of `i64`,
    /// in row-major order. TensorFlow's `where` of one argument.
    ///
    /// It reads the elements, so that a device finishes its work first, and a cell's step that
    /// calls it is not compiled.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, -2.0, 3.0, 4.0], &[2, 2])?;
    /// let positions = x.greater(2)?.where_true()?;
    /// assert_eq!(positions.dims()[..], [2, 2]);
    /// assert_eq!(positions.to_vec::<i64>()?, [1, 0, 1, 1]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The device or the host is out of memory, or the device failed.
    pub fn where_true(&self) -> Result<Self> {
        let shape = self.shape();
        let found = self.cast(DType::Bool)?.to_bytes()?;
        let count = found.iter().filter(|&&b| b != 0).count();
        let mut positions = host_zeros::<i64>(count * shape.rank())?;
        let hits = found.iter().enumerate().filter(|(_, b)| **b != 0);
        for (to, (mut at, _)) in positions.chunks_mut(shape.rank().max(1)).zip(hits) {
            for (to, &len) in to.iter_mut().zip(shape.dims()).rev() {
                *to = (at % len) as i64;
                at /= len;
            }
        }
        Self::from_slice(&self.device, &positions, &[count, shape.rank()])
    }
}
