//! Number types of kernels.

use std::any::TypeId;
use std::fmt::Debug;

use backend_api::rounding;
use bytemuck::Pod;

/// An element type of tensors.
pub(crate) trait Number: Pod + PartialOrd + Debug + Send + Sync {
    const ZERO: Self;
    const IS_FLOAT: bool;
    /// The type that sums are accumulated in.
    type Wide: Number;

    fn widen(self) -> Self::Wide;
    fn narrow(wide: Self::Wide) -> Self;

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn floor_mod(self, other: Self) -> Self;
    fn is_nan(self) -> bool;

    fn to_f64(self) -> f64;
    fn to_i64(self) -> i64;
    /// Rounds toward zero and saturates; NaN gives 0.
    fn from_f64(value: f64) -> Self;
    fn from_i64(value: i64) -> Self;
    /// See [`rounding::to_odd`].
    fn to_odd(self) -> f32;

    /// The larger one; NaN if either is.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self > other || self.is_nan() {
            self
        } else {
            other
        }
    }

    /// The smaller one; NaN if either is.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if self < other || self.is_nan() {
            self
        } else {
            other
        }
    }
}

/// A floating-point number.
pub(crate) trait Float: Number + crate::lanes::Lanes + crate::gemm::Gemm {
    const ONE: Self;
    const INFINITY: Self;

    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    fn floor(self) -> Self;
    fn ln(self) -> Self;
    fn ln_1p(self) -> Self;
    fn exp_m1(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;

    /// See [`crate::math`] for the error bounds of these three.
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
    fn sigmoid(self) -> Self;
}

/// Rust has no trait for the operations of integers, which differ only in their type.
macro_rules! integer {
    ($($int:ty),*) => {$(
        impl Number for $int {
            const ZERO: Self = 0;
            const IS_FLOAT: bool = false;
            type Wide = Self;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }
            #[inline(always)]
            fn narrow(wide: Self) -> Self {
                wide
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            #[inline(always)]
            #[allow(unused_comparisons, reason = "one of the types is unsigned")]
            fn floor_mod(self, other: Self) -> Self {
                if other == 0 {
                    return 0;
                }
                let rest = self.wrapping_rem(other);
                if rest != 0 && (rest < 0) != (other < 0) { rest.wrapping_add(other) } else { rest }
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                self as i64
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn from_i64(value: i64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn to_odd(self) -> f32 {
                rounding::int_to_odd(self as i64)
            }
        }
    )*};
}

integer!(i32, i64, u8);

macro_rules! float {
    ($float:ident, $to_odd:expr) => {
        impl Number for $float {
            const ZERO: Self = 0.0;
            const IS_FLOAT: bool = true;
            type Wide = f64;

            #[inline(always)]
            fn widen(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn narrow(wide: f64) -> Self {
                wide as Self
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self - other
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                self / other
            }
            #[inline(always)]
            fn floor_mod(self, other: Self) -> Self {
                // Rust's remainder is exact, and has the sign of `self`.
                let rest = self % other;
                if rest != 0.0 && (rest < 0.0) != (other < 0.0) {
                    rest + other
                } else {
                    rest
                }
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                self as i64
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn from_i64(value: i64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn to_odd(self) -> f32 {
                $to_odd(self)
            }
        }

        impl Float for $float {
            const ONE: Self = 1.0;
            const INFINITY: Self = Self::INFINITY;

            #[inline(always)]
            fn neg(self) -> Self {
                -self
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn floor(self) -> Self {
                self.floor()
            }
            #[inline(always)]
            fn ln(self) -> Self {
                self.ln()
            }
            #[inline(always)]
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            #[inline(always)]
            fn exp_m1(self) -> Self {
                self.exp_m1()
            }
            #[inline(always)]
            fn sin(self) -> Self {
                self.sin()
            }
            #[inline(always)]
            fn cos(self) -> Self {
                self.cos()
            }
            #[inline(always)]
            fn exp(self) -> Self {
                crate::math::$float::exp(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                crate::math::$float::tanh(self)
            }
            #[inline(always)]
            fn sigmoid(self) -> Self {
                crate::math::$float::sigmoid(self)
            }
        }
    };
}

float!(f32, std::convert::identity);
float!(f64, rounding::to_odd);

/// The slice as `f32` if that is its element type.
pub(crate) fn singles<T: Float>(data: &[T]) -> Option<&[f32]> {
    (TypeId::of::<T>() == TypeId::of::<f32>()).then(|| bytemuck::cast_slice(data))
}

pub(crate) fn singles_mut<T: Float>(data: &mut [T]) -> Option<&mut [f32]> {
    (TypeId::of::<T>() == TypeId::of::<f32>()).then(|| bytemuck::cast_slice_mut(data))
}
