//! Element types, and the Rust number types that correspond to them.

use std::fmt;

/// The type of a tensor's elements.
///
/// The 16-bit floats are storage types: operations read them as `f32`, compute in `f32` and round
/// each result to the nearest number of the type, ties to even.
///
/// ```
/// use recurrent::{DType, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.7], &[2])?;
/// assert_eq!(x.dtype(), DType::F32);
/// assert_eq!(x.cast(DType::I32)?.to_vec::<i32>()?, [1, 2]); // toward zero
/// assert_eq!(x.cast(DType::Bf16)?.to_string(), "[1.  2.7]"); // 2.703125, in fewest digits
/// assert_eq!(DType::Bf16.computed_in(), DType::F32);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE float: the default of every cell.
    #[default]
    F32,
    /// 64-bit IEEE float: the reference precision of the test suite.
    F64,
    /// 16-bit IEEE float: 10 mantissa bits, up to 65504; larger values become infinite.
    F16,
    /// bfloat16: the upper half of an `f32`, 7 mantissa bits.
    Bf16,
    /// 32-bit signed integer: lengths, labels, ids.
    I32,
    /// 64-bit signed integer: lengths, labels, ids, results of `ArgMax`.
    I64,
    /// Unsigned byte: images, text.
    U8,
    /// Boolean, one byte, 0 or 1: results of comparisons.
    Bool,
}

impl DType {
    /// Size of one element in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether the type is a floating-point type. Only these have gradients.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// The type in which operations on this type compute: `f32` for 16-bit floats, else the type
    /// itself.
    pub const fn computed_in(self) -> Self {
        match self {
            Self::F16 | Self::Bf16 => Self::F32,
            other => other,
        }
    }

    /// Whether the type is an integer type for ids, labels and lengths.
    pub const fn is_int(self) -> bool {
        matches!(self, Self::I32 | Self::I64)
    }

    /// The type's name in messages: `f32`, `i64`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust number type that can be the element type of a tensor.
///
/// ```
/// use recurrent::{Device, Element, Result, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// /// The first element, in any type that the caller names.
/// fn first<T: Element>(x: &Tensor) -> Result<T> {
///     Ok(x.cast(T::DTYPE)?.to_vec::<T>()?[0])
/// }
/// let x = Tensor::from_slice(&Device::cpu(), &[2.5f64, 4.0], &[2])?;
/// assert_eq!((first::<f32>(&x)?, first::<i64>(&x)?), (2.5, 2));
/// # Ok(()) }
/// ```
pub trait Element: bytemuck::Pod + fmt::Debug + PartialEq + Send + Sync {
    /// The corresponding [`DType`].
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),*) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}

element! {
    half::f16 => F16, half::bf16 => Bf16, f32 => F32, f64 => F64, i32 => I32, i64 => I64, u8 => U8
}
