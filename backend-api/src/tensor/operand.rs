//! Operands of binary operations: tensors, references to them, their results, and numbers of Rust.

use std::ops::Deref;

use crate::{Backend, DType, Error, Result, Tensor};

/// A number of Rust: an operand as in `x.mul(2.0)`, or a bound of [`Tensor::arange`].
///
/// ```
/// use std::ops::Range;
/// use recurrent::{DType, Device, Result, Scalar, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// fn grid<S: Scalar>(range: Range<S>, step: S) -> Result<Vec<f32>> {
///     Tensor::arange(&Device::cpu(), range, step, DType::F32)?.to_vec()
/// }
/// assert_eq!(grid(0..6, 2)?, [0.0, 2.0, 4.0]);
/// assert_eq!(grid(0.0..1.0, 0.5)?, [0.0, 0.5]);
/// assert_eq!(i64::MAX.number(), None); // no `f64` has this value
/// # Ok(()) }
/// ```
pub trait Scalar: Copy {
    /// The number as `f64`. `None` if `f64` cannot represent it, as some integers beyond 2^53.
    fn number(self) -> Option<f64>;
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(impl Scalar for $type {
            fn number(self) -> Option<f64> {
                let number = self as f64;
                (number as i128 == self as i128).then_some(number)
            }
        })*
    };
}

integers!(i32 i64 isize u8 u32 u64 usize);

impl Scalar for f32 {
    fn number(self) -> Option<f64> {
        Some(self.into())
    }
}

impl Scalar for f64 {
    fn number(self) -> Option<f64> {
        Some(self)
    }
}

/// The number as `f64`, checked to be one of the type.
pub(super) fn checked(op: &'static str, arg: &str, x: impl Scalar, dtype: DType) -> Result<f64> {
    let refuse = |text: String| Err(Error::argument(op, arg, text));
    let Some(x) = x.number() else {
        return refuse("is an integer above 2^53; such numbers need a tensor".into());
    };
    let (low, high) = match dtype {
        DType::I32 => (i32::MIN.into(), i32::MAX.into()),
        DType::U8 => (0.0, u8::MAX.into()),
        DType::I64 => (f64::MIN, f64::MAX),
        DType::Bool => return refuse(format!("is {x}, but the other operand is bool")),
        _ => return Ok(x),
    };
    if x.fract() == 0.0 && (low..=high).contains(&x) {
        return Ok(x);
    }
    refuse(format!(
        "is {x}, which is no {dtype}; cast the tensor first"
    ))
}

/// What a binary operation takes beside its first tensor: a tensor, a reference to one, the
/// `Result` of an operation, or a number of Rust, which takes the type of the first tensor.
///
/// ```
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0], &[3])?;
/// assert_eq!(x.mul(2.0)?.add(&x)?.to_vec::<f32>()?, [3.0, 6.0, 9.0]);
/// // The same with operators, whose results are `Result`s too.
/// assert_eq!((&x * 2.0 + &x)?.to_vec::<f32>()?, [3.0, 6.0, 9.0]);
/// assert_eq!((1.0 - x.square()?)?.to_vec::<f32>()?, [0.0, -3.0, -8.0]);
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operand of a tensor",
    note = "operands are tensors, references to tensors, results of operations, and numbers"
)]
pub trait Operand<B: Backend> {
    /// Passes the operand, as a tensor that fits `first`, to `run`.
    ///
    /// # Errors
    /// The operand is a number that the type of `first` does not have, or an error itself; or an
    /// error of `run`.
    fn with<R>(
        self,
        op: &'static str,
        first: &Tensor<B>,
        run: impl FnOnce(&Tensor<B>) -> Result<R>,
    ) -> Result<R>;

    /// The operand, if it is a number.
    fn number(&self) -> Option<f64> {
        None
    }
}

impl<B: Backend> Operand<B> for &Tensor<B> {
    fn with<R>(
        self,
        _: &'static str,
        _: &Tensor<B>,
        run: impl FnOnce(&Tensor<B>) -> Result<R>,
    ) -> Result<R> {
        run(self)
    }
}

/// Parameters, and references to references.
impl<B: Backend, T: Deref<Target = Tensor<B>>> Operand<B> for &T {
    fn with<R>(
        self,
        _: &'static str,
        _: &Tensor<B>,
        run: impl FnOnce(&Tensor<B>) -> Result<R>,
    ) -> Result<R> {
        run(self)
    }
}

impl<B: Backend> Operand<B> for Tensor<B> {
    fn with<R>(
        self,
        _: &'static str,
        _: &Tensor<B>,
        run: impl FnOnce(&Tensor<B>) -> Result<R>,
    ) -> Result<R> {
        run(&self)
    }
}

impl<B: Backend> Operand<B> for Result<Tensor<B>> {
    fn with<R>(
        self,
        _: &'static str,
        _: &Tensor<B>,
        run: impl FnOnce(&Tensor<B>) -> Result<R>,
    ) -> Result<R> {
        run(&self?)
    }
}

macro_rules! scalar_operands {
    ($($type:ty)*) => {
        $(impl<B: Backend> Operand<B> for $type {
            fn with<R>(
                self,
                op: &'static str,
                first: &Tensor<B>,
                run: impl FnOnce(&Tensor<B>) -> Result<R>,
            ) -> Result<R> {
                run(&scalar_beside(op, self, first)?)
            }

            fn number(&self) -> Option<f64> {
                Scalar::number(*self)
            }
        })*
    };
}

scalar_operands!(i32 i64 isize u8 u32 u64 usize f32 f64);

fn scalar_beside<B: Backend>(
    op: &'static str,
    number: impl Scalar,
    first: &Tensor<B>,
) -> Result<Tensor<B>> {
    let number = checked(op, "the number", number, first.dtype())?;
    Tensor::scalar(first.device(), number, first.dtype())
}
