//! The activation functions on numbers of kernels.

use std::ops::{Add, Div, Mul, Sub};

use backend_api::activation::{ActivationFn, Arithmetic};
use backend_api::{Activation, Error};

use crate::element::Float;

/// A number with the operators that activations are defined with.
#[derive(Clone, Copy)]
struct Scalar<T>(T);

macro_rules! operator {
    ($($operator:ident $method:ident),*) => {$(
        impl<T: Float> $operator for Scalar<T> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0))
            }
        }
    )*};
}

operator!(Add add, Sub sub, Mul mul, Div div);

macro_rules! function {
    ($($function:ident),*) => {$(
        #[inline(always)]
        fn $function(self) -> Self {
            Self(self.0.$function())
        }
    )*};
}

impl<T: Float> Arithmetic for Scalar<T> {
    #[inline(always)]
    fn number(x: f64) -> Self {
        Self(T::from_f64(x))
    }

    function!(abs, exp, exp_m1, ln_1p, tanh, sigmoid);

    #[inline(always)]
    fn if_less(self, limit: Self, yes: Self, no: Self) -> Self {
        if self.0 < limit.0 { yes } else { no }
    }
}

/// The activation of `x`.
#[inline(always)]
pub(crate) fn value<F: ActivationFn, T: Float>(x: T) -> T {
    F::value(Scalar(x)).0
}

/// `dy` times the derivative of the activation, from its value `y`.
#[inline(always)]
pub(crate) fn gradient<F: ActivationFn, T: Float>(y: T, dy: T) -> T {
    F::gradient(Scalar(y), Scalar(dy)).0
}

pub(crate) fn uncommon(activation: Activation) -> Error {
    let problem = "has no fused kernel in the CPU backend";
    Error::argument("activation", activation.name(), problem)
}
