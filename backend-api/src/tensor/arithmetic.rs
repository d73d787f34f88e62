//! Arithmetic, element by element, and products.

use super::operand::Operand;
use crate::{Activation, Backend, Binary, DType, Op, Precision, Result, Tensor, Unary};

/// Arithmetic. Binary operations broadcast; axes are aligned at the end. Their second operand is a
/// tensor or a number, see [`Operand`].
///
/// # Errors
/// * Binary operations: the shapes do not broadcast to one, the element types differ, the elements
///   are booleans, or the tensors are on different devices.
/// * Functions of one tensor, such as `exp`, `affine` and `tanh`: the elements are not floats.
/// * All: the device is out of memory.
impl<B: Backend> Tensor<B> {
    /// Copies the elements into a new buffer, row-major and without gaps.
    pub fn copy(&self) -> Result<Self> {
        Self::call(&self.device, &Op::Copy, &[self])
    }

    /// The tensor itself if it is row-major without gaps, else a contiguous copy.
    pub fn contiguous(&self) -> Result<Self> {
        if self.layout.is_contiguous() {
            Ok(self.clone())
        } else {
            self.copy()
        }
    }

    /// Converts the elements to another type.
    pub fn cast(&self, to: DType) -> Result<Self> {
        if to == self.dtype {
            return Ok(self.clone());
        }
        Self::call(&self.device, &Op::Cast { to }, &[self])
    }

    /// `self * mul + add`
    pub fn affine(&self, mul: f64, add: f64) -> Result<Self> {
        Self::call(&self.device, &Op::Affine { mul, add }, &[self])
    }

    /// Limits each element to `min..=max`.
    pub fn clamp(&self, min: f64, max: f64) -> Result<Self> {
        Self::call(&self.device, &Op::Clamp { min, max }, &[self])
    }

    /// `self + other`
    pub fn add(&self, other: impl Operand<B>) -> Result<Self> {
        self.operate(Binary::Add, other)
    }

    /// `self - other`
    pub fn sub(&self, other: impl Operand<B>) -> Result<Self> {
        self.operate(Binary::Sub, other)
    }

    /// `self * other`, element by element.
    pub fn mul(&self, other: impl Operand<B>) -> Result<Self> {
        self.operate(Binary::Mul, other)
    }

    /// `self / other`, element by element.
    pub fn div(&self, other: impl Operand<B>) -> Result<Self> {
        self.operate(Binary::Div, other)
    }

    /// The element-wise maximum.
    pub fn maximum(&self, other: impl Operand<B>) -> Result<Self> {
        self.operate(Binary::Max, other)
    }

    /// The element-wise minimum.
    pub fn minimum(&self, other: impl Operand<B>) -> Result<Self> {
        self.operate(Binary::Min, other)
    }

    /// The remainder of the division by `other`, with the sign of `other`.
    pub fn floor_mod(&self, other: impl Operand<B>) -> Result<Self> {
        self.operate(Binary::FloorMod, other)
    }

    /// A number is a constant of the operation, where it has one that gives the same result.
    fn operate(&self, f: Binary, other: impl Operand<B>) -> Result<Self> {
        if let (Some(number), true) = (other.number(), self.dtype.is_float()) {
            match f {
                Binary::Add => return self.affine(1.0, number),
                Binary::Sub => return self.affine(1.0, -number),
                // Adding a negative zero changes no number, not even the sign of a zero.
                Binary::Mul => return self.affine(number, -0.0),
                _ => {}
            }
        }
        other.with(Op::Binary(f).name(), self, |other| self.binary(f, other))
    }

    /// `-self`
    pub fn neg(&self) -> Result<Self> {
        self.unary(Unary::Neg)
    }

    /// `|self|`
    pub fn abs(&self) -> Result<Self> {
        self.unary(Unary::Abs)
    }

    /// `self²`
    pub fn square(&self) -> Result<Self> {
        self.unary(Unary::Square)
    }

    /// The square root.
    pub fn sqrt(&self) -> Result<Self> {
        self.unary(Unary::Sqrt)
    }

    /// `1 / self`
    pub fn recip(&self) -> Result<Self> {
        self.unary(Unary::Recip)
    }

    /// `e^self`
    pub fn exp(&self) -> Result<Self> {
        self.unary(Unary::Exp)
    }

    /// The natural logarithm.
    pub fn log(&self) -> Result<Self> {
        self.unary(Unary::Log)
    }

    /// The sine.
    pub fn sin(&self) -> Result<Self> {
        self.unary(Unary::Sin)
    }

    /// The cosine.
    pub fn cos(&self) -> Result<Self> {
        self.unary(Unary::Cos)
    }

    /// The sign: -1, 0 or 1.
    pub fn sign(&self) -> Result<Self> {
        self.unary(Unary::Sign)
    }

    /// The largest integer not above each element.
    pub fn floor(&self) -> Result<Self> {
        self.unary(Unary::Floor)
    }

    /// Applies an activation function.
    pub fn activate(&self, f: Activation) -> Result<Self> {
        if f == Activation::Identity {
            return Ok(self.clone());
        }
        self.unary(Unary::Activation(f))
    }

    /// The hyperbolic tangent.
    pub fn tanh(&self) -> Result<Self> {
        self.activate(Activation::Tanh)
    }

    /// The logistic function.
    pub fn sigmoid(&self) -> Result<Self> {
        self.activate(Activation::Sigmoid)
    }

    /// `max(self, 0)`
    pub fn relu(&self) -> Result<Self> {
        self.activate(Activation::Relu)
    }

    /// The matrix product `self · other`: `[.., m, k] · [.., k, n]`.
    ///
    /// # Errors
    /// A tensor has less than two axes, `k` differs, the axes before do not broadcast, or the
    /// element types differ or are not floats.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        let op = Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        };
        Self::call(&self.device, &op, &[self, other])
    }

    /// `self · other + addend`, where the addend has the result's shape.
    ///
    /// # Errors
    /// Those of [`matmul`](Self::matmul), or the addend has another shape than the product.
    pub fn matmul_add(&self, other: &Self, addend: &Self) -> Result<Self> {
        let op = Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        };
        Self::call(&self.device, &op, &[self, other, addend])
    }
}
