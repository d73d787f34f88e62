//! The element-wise operations as functions of numbers. The kernels of single operations and the
//! interpreter of tile programs both apply these, so that their results have the same bits.
//!
//! The macros evaluate an expression with a name for the function of an operation, which is of the
//! element type `$T`. They are macros, as loops are compiled for each function's own type.

use crate::element::Float;
use crate::simd::Pointwise;

macro_rules! choose {
    ($value:expr, $f:ident => $body:expr,
        {$($case:path: $function:expr),* $(,)?} $($other:pat => $otherwise:expr)?
    ) => {
        match $value {
            $($case => {
                let $f = $function;
                $body
            })*
            $($other => $otherwise,)?
        }
    };
}
pub(crate) use choose;

/// For a [`Unary`](backend_api::Unary) other than an activation, which has an arm of its own.
macro_rules! with_unary {
    ($unary:expr, $T:ty, $f:ident => $body:expr, $activation:pat => $otherwise:expr) => {
        $crate::functions::choose!($unary, $f => $body, {
            backend_api::Unary::Neg: <$T as $crate::element::Float>::neg,
            backend_api::Unary::Abs: <$T as $crate::element::Float>::abs,
            backend_api::Unary::Sign: $crate::functions::sign::<$T>,
            backend_api::Unary::Square: $crate::functions::square::<$T>,
            backend_api::Unary::Sqrt: <$T as $crate::element::Float>::sqrt,
            backend_api::Unary::Recip: $crate::functions::recip::<$T>,
            backend_api::Unary::Exp: <$T as $crate::element::Float>::exp,
            backend_api::Unary::Log: <$T as $crate::element::Float>::ln,
            backend_api::Unary::Floor: <$T as $crate::element::Float>::floor,
            backend_api::Unary::Sin: <$T as $crate::element::Float>::sin,
            backend_api::Unary::Cos: <$T as $crate::element::Float>::cos,
        } $activation => $otherwise)
    };
}
pub(crate) use with_unary;

/// For a [`Binary`](backend_api::Binary).
macro_rules! with_binary {
    ($binary:expr, $T:ty, $f:ident => $body:expr) => {
        $crate::functions::choose!($binary, $f => $body, {
            backend_api::Binary::Add: <$T as $crate::element::Number>::add,
            backend_api::Binary::Sub: <$T as $crate::element::Number>::sub,
            backend_api::Binary::Mul: <$T as $crate::element::Number>::mul,
            backend_api::Binary::Div: <$T as $crate::element::Number>::div,
            backend_api::Binary::Max: <$T as $crate::element::Number>::max,
            backend_api::Binary::Min: <$T as $crate::element::Number>::min,
            backend_api::Binary::FloorMod: <$T as $crate::element::Number>::floor_mod,
        })
    };
}
pub(crate) use with_binary;

/// For a [`Compare`](backend_api::Compare).
macro_rules! with_compare {
    ($compare:expr, $T:ty, $f:ident => $body:expr) => {
        $crate::functions::choose!($compare, $f => $body, {
            backend_api::Compare::Eq: |a: $T, b: $T| a == b,
            backend_api::Compare::Ne: |a: $T, b: $T| a != b,
            backend_api::Compare::Lt: |a: $T, b: $T| a < b,
            backend_api::Compare::Le: |a: $T, b: $T| a <= b,
            backend_api::Compare::Gt: |a: $T, b: $T| a > b,
            backend_api::Compare::Ge: |a: $T, b: $T| a >= b,
        })
    };
}
pub(crate) use with_compare;

#[inline(always)]
pub(crate) fn sign<T: Float>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        T::ONE.neg()
    } else {
        // 0 and NaN.
        x
    }
}

#[inline(always)]
pub(crate) fn square<T: Float>(x: T) -> T {
    x.mul(x)
}

#[inline(always)]
pub(crate) fn recip<T: Float>(x: T) -> T {
    T::ONE.div(x)
}

/// `x * mul + add`, rounded twice.
#[inline(always)]
pub(crate) fn affine<T: Float>(mul: f64, add: f64) -> impl Fn(T) -> T + Copy + Send + Sync {
    let (mul, add) = (T::from_f64(mul), T::from_f64(add));
    move |x| x.mul(mul).add(add)
}

/// `x`, clamped to `min..=max`; NaN stays NaN.
#[inline(always)]
pub(crate) fn clamp<T: Float>(min: f64, max: f64) -> impl Fn(T) -> T + Copy + Send + Sync {
    let (min, max) = (T::from_f64(min), T::from_f64(max));
    move |x| {
        let x = if x < min { min } else { x };
        if x > max { max } else { x }
    }
}

/// A function of one number.
#[derive(Clone, Copy)]
pub(crate) struct One<F>(pub(crate) F);

impl<T: Float, F: Fn(T) -> T + Copy + Send + Sync> Pointwise<T, 1, 1> for One<F> {
    #[inline(always)]
    fn at(self, [a]: [T; 1]) -> [T; 1] {
        [(self.0)(a)]
    }
}

/// A function of two numbers.
#[derive(Clone, Copy)]
pub(crate) struct Two<F>(pub(crate) F);

impl<T: Float, F: Fn(T, T) -> T + Copy + Send + Sync> Pointwise<T, 2, 1> for Two<F> {
    #[inline(always)]
    fn at(self, [a, b]: [T; 2]) -> [T; 1] {
        [(self.0)(a, b)]
    }
}

/// A comparison of two numbers, as 1 or 0.
#[derive(Clone, Copy)]
pub(crate) struct Truth<F>(pub(crate) F);

impl<T: Float, F: Fn(T, T) -> bool + Copy + Send + Sync> Pointwise<T, 2, 1> for Truth<F> {
    #[inline(always)]
    fn at(self, [a, b]: [T; 2]) -> [T; 1] {
        [if (self.0)(a, b) { T::ONE } else { T::ZERO }]
    }
}

/// A function of three numbers.
#[derive(Clone, Copy)]
pub(crate) struct Three<F>(pub(crate) F);

impl<T: Float, F: Fn(T, T, T) -> T + Copy + Send + Sync> Pointwise<T, 3, 1> for Three<F> {
    #[inline(always)]
    fn at(self, [a, b, c]: [T; 3]) -> [T; 1] {
        [(self.0)(a, b, c)]
    }
}
