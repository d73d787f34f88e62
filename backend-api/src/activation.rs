//! The activation functions of cells. Each is defined once, in the table below: its name in
//! configurations, its value, and its gradient as a function of the value. CPU kernels evaluate the
//! definitions on numbers. The default bodies evaluate them on tensors, and the CUDA backend prints
//! them as source text; both use [`Expr`](crate::expr::Expr).

use std::ops::{Add, Div, Mul, Sub};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The arithmetic that activations are defined with.
pub trait Arithmetic:
    Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// A constant.
    fn number(x: f64) -> Self;
    /// The magnitude.
    fn abs(self) -> Self;
    /// `e^self`
    fn exp(self) -> Self;
    /// `e^self - 1`
    fn exp_m1(self) -> Self;
    /// `log(1 + self)`
    fn ln_1p(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The logistic function.
    fn sigmoid(self) -> Self;
    /// `yes` where `self < limit`, else `no`; `no` if either is NaN.
    fn if_less(self, limit: Self, yes: Self, no: Self) -> Self;
}

/// An activation as a type, so that loops can be compiled for each function.
pub trait ActivationFn: Copy + Default + Send + Sync {
    /// The function of `x`.
    fn value<A: Arithmetic>(x: A) -> A;
    /// `dy` times the derivative, from the function's value `y`.
    fn gradient<A: Arithmetic>(y: A, dy: A) -> A;
}

macro_rules! activation_type {
    ($name:ident, $x:ident, $value:expr, $y:ident, $dy:ident, $gradient:expr) => {
        #[doc = concat!("[`Activation::", stringify!($name), "`](super::Activation).")]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl super::ActivationFn for $name {
            #[inline(always)]
            fn value<A: super::Arithmetic>($x: A) -> A {
                $value
            }
            #[inline(always)]
            fn gradient<A: super::Arithmetic>($y: A, $dy: A) -> A {
                $gradient
            }
        }
    };
}

/// Defines the activations, common ones first. The first argument is `$`, because this macro
/// defines macros.
macro_rules! activations {
    ($d:tt
    common {$(
        $(#[$common_attribute:meta])*
        $common:ident $common_name:literal:
            |$common_x:ident| $common_value:expr,
            |$common_y:ident, $common_dy:ident| $common_gradient:expr;
    )*}
    uncommon {$(
        $(#[$attribute:meta])*
        $uncommon:ident $name:literal:
            |$x:ident| $value:expr,
            |$y:ident, $dy:ident| $gradient:expr;
    )*}) => {
        /// The activation functions of cells.
        ///
        /// The derivative of each is a function of its value alone, so back-propagation stores the
        /// value `y` and not the argument `x`.
        ///
        /// ```
        /// use recurrent::{Activation, BasicRnnCell, Device, Tensor};
        ///
        /// # fn main() -> recurrent::Result<()> {
        /// let device = Device::cpu();
        /// let x = Tensor::from_slice(&device, &[-2.0f32, 3.0], &[2])?;
        /// assert_eq!(x.activate(Activation::Relu)?.to_vec::<f32>()?, [0.0, 3.0]);
        /// let cell = BasicRnnCell::builder(2, 4).activation(Activation::Relu).build(&device)?;
        /// # let _ = cell;
        /// # Ok(()) }
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Activation {
            $($(#[$common_attribute])* #[serde(rename = $common_name)] $common,)*
            $($(#[$attribute])* #[serde(rename = $name)] $uncommon,)*
        }

        impl Activation {
            /// The activations that cells commonly use. A backend's fused kernels may support only
            /// these and leave the others to [`compose`](crate::compose).
            pub const COMMON: [Self; [$($common_name),*].len()] = [$(Self::$common),*];
            /// All activations, the common ones first.
            pub const ALL: [Self; [$($common_name,)* $($name),*].len()] =
                [$(Self::$common,)* $(Self::$uncommon),*];

            /// TensorFlow's name of the function, for example `tanh` or `hard_sigmoid`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$common => $common_name,)*
                    $(Self::$uncommon => $name,)*
                }
            }
        }

        /// The activations as types.
        pub mod functions {
            $(activation_type!(
                $common, $common_x, $common_value, $common_y, $common_dy, $common_gradient
            );)*
            $(activation_type!($uncommon, $x, $value, $y, $dy, $gradient);)*
        }

        /// Evaluates an expression with a type alias for the [`ActivationFn`] of an [`Activation`].
        /// This is a macro, as closures cannot be generic over a type.
        #[macro_export]
        macro_rules! with_activation {
            ($d activation:expr, $d f:ident => $d body:expr) => {
                match $d activation {
                    $($crate::Activation::$common => {
                        type $d f = $crate::activation::functions::$common;
                        $d body
                    })*
                    $($crate::Activation::$uncommon => {
                        type $d f = $crate::activation::functions::$uncommon;
                        $d body
                    })*
                    #[allow(unreachable_patterns, reason = "reachable for other crates only")]
                    _ => unreachable!("the arms above are all activations"),
                }
            };
        }

        /// Like [`with_activation!`], compiled for the [common](Activation::COMMON) activations
        /// alone. The expression after `else` is the value for the others.
        #[macro_export]
        macro_rules! with_common_activation {
            ($d activation:expr, $d f:ident => $d body:expr, else $d otherwise:expr) => {
                match $d activation {
                    $($crate::Activation::$common => {
                        type $d f = $crate::activation::functions::$common;
                        $d body
                    })*
                    _ => $d otherwise,
                }
            };
        }
    };
}

activations! {$
common {
    /// The hyperbolic tangent; derivative `1 - y²`.
    #[default]
    Tanh "tanh":
        |x| x.tanh(),
        |y, dy| (A::number(1.0) - y.clone() * y) * dy;
    /// The logistic function `1 / (1 + e^-x)`; derivative `y (1 - y)`.
    Sigmoid "sigmoid":
        |x| x.sigmoid(),
        |y, dy| y.clone() * (A::number(1.0) - y) * dy;
    /// `max(x, 0)`; derivative 1 where `y > 0`, else 0.
    Relu "relu":
        |x| x.clone().if_less(A::number(0.0), A::number(0.0), x),
        |y, dy| A::number(0.0).if_less(y, dy, A::number(0.0));
    /// `x / (1 + |x|)`; derivative `(1 - |y|)²`.
    Softsign "softsign":
        |x| x.clone() / (A::number(1.0) + x.abs()),
        |y, dy| super::square(A::number(1.0) - y.abs()) * dy;
    /// `x` itself; derivative 1.
    #[serde(alias = "linear")]
    Identity "identity":
        |x| x,
        |_y, dy| dy;
}
uncommon {
    /// `e^x - 1` where `x < 0`, else `x`; derivative `y + 1` where `y < 0`, else 1.
    Elu "elu":
        |x| x.clone().if_less(A::number(0.0), x.clone().exp_m1(), x),
        |y, dy| y.clone().if_less(A::number(0.0), (y + A::number(1.0)) * dy.clone(), dy);
    /// With `s` = [`SELU_SCALE`](Self::SELU_SCALE) and `a` = [`SELU_ALPHA`](Self::SELU_ALPHA):
    /// `s a (e^x - 1)` where `x < 0`, else `s x`; derivative `y + s a` where `y < 0`, else `s`.
    Selu "selu":
        |x| super::selu(x),
        |y, dy| super::selu_gradient(y, dy);
    /// `log(1 + e^x)`; derivative `1 - e^-y`.
    Softplus "softplus":
        |x| super::softplus(x),
        |y, dy| super::softplus_gradient(y, dy);
    /// `e^x`; derivative `y`.
    Exponential "exponential":
        |x| x.exp(),
        |y, dy| y * dy;
    /// Keras's `max(0, min(1, 0.2 x + 0.5))`; derivative 0.2 where `0 < y < 1`, else 0.
    HardSigmoid "hard_sigmoid":
        |x| super::clip(x * A::number(0.2) + A::number(0.5), 1.0),
        |y, dy| super::clip_gradient(y, dy * A::number(0.2), 1.0);
    /// `min(max(x, 0), 6)`; derivative 1 where `0 < y < 6`, else 0.
    Relu6 "relu6":
        |x| super::clip(x, 6.0),
        |y, dy| super::clip_gradient(y, dy, 6.0);
}}

impl Activation {
    /// The factor `s` of [`Self::Selu`].
    pub const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
    /// The factor `a` of [`Self::Selu`].
    pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

    /// Whether the activation is one of [`Self::COMMON`].
    pub fn is_common(self) -> bool {
        Self::COMMON.contains(&self)
    }
}

impl std::str::FromStr for Activation {
    type Err = Error;

    /// Parses a name that [`Activation::name`] returns, or `linear` for the identity.
    fn from_str(name: &str) -> Result<Self> {
        if name == "linear" {
            return Ok(Self::Identity);
        }
        let found = Self::ALL.into_iter().find(|f| f.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::argument(
                "activation",
                "name",
                format!("is `{name}`, but must be one of {known}"),
            )
        })
    }
}

#[inline(always)]
fn square<A: Arithmetic>(x: A) -> A {
    x.clone() * x
}

/// Clamps to `0..=top`; NaN stays NaN.
#[inline(always)]
fn clip<A: Arithmetic>(x: A, top: f64) -> A {
    let x = x.clone().if_less(A::number(0.0), A::number(0.0), x);
    A::number(top).if_less(x.clone(), A::number(top), x)
}

/// `dy` where `0 < y < top`, else 0.
#[inline(always)]
fn clip_gradient<A: Arithmetic>(y: A, dy: A, top: f64) -> A {
    let below = y.clone().if_less(A::number(top), dy, A::number(0.0));
    A::number(0.0).if_less(y, below, A::number(0.0))
}

#[inline(always)]
fn selu<A: Arithmetic>(x: A) -> A {
    let below = A::number(Activation::SELU_ALPHA) * x.clone().exp_m1();
    A::number(Activation::SELU_SCALE) * x.clone().if_less(A::number(0.0), below, x)
}

#[inline(always)]
fn selu_gradient<A: Arithmetic>(y: A, dy: A) -> A {
    let scale = Activation::SELU_SCALE;
    let below = (y.clone() + A::number(scale * Activation::SELU_ALPHA)) * dy.clone();
    y.if_less(A::number(0.0), below, dy * A::number(scale))
}

#[inline(always)]
fn softplus<A: Arithmetic>(x: A) -> A {
    let small = (A::number(0.0) - x.clone().abs()).exp().ln_1p();
    A::number(0.0).if_less(x.clone(), x + small.clone(), small)
}

/// The derivative `1 - e^-y` as `2 t / (1 + t)` with `t = tanh(y / 2)`, which is accurate near 0.
#[inline(always)]
fn softplus_gradient<A: Arithmetic>(y: A, dy: A) -> A {
    let t = (y * A::number(0.5)).tanh();
    (t.clone() * A::number(2.0)) / (t + A::number(1.0)) * dy
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Arithmetic for f64 {
        fn number(x: f64) -> Self {
            x
        }
        fn abs(self) -> Self {
            self.abs()
        }
        fn exp(self) -> Self {
            self.exp()
        }
        fn exp_m1(self) -> Self {
            self.exp_m1()
        }
        fn ln_1p(self) -> Self {
            self.ln_1p()
        }
        fn tanh(self) -> Self {
            self.tanh()
        }
        fn sigmoid(self) -> Self {
            1.0 / (1.0 + (-self).exp())
        }
        fn if_less(self, limit: Self, yes: Self, no: Self) -> Self {
            if self < limit { yes } else { no }
        }
    }

    #[test]
    fn gradients_are_derivatives_of_the_values() {
        for f in Activation::ALL {
            let value = |x: f64| with_activation!(f, F => F::value(x));
            let gradient = |y: f64| with_activation!(f, F => F::gradient(y, 3.0));
            // None of these arguments is at a bend of a function.
            for x in [-30.0, -2.6, -1.3, -0.01, 0.02, 0.7, 2.4, 5.9, 6.2] {
                let h = 1e-6;
                let expected = 3.0 * (value(x + h) - value(x - h)) / (2.0 * h);
                let found = gradient(value(x));
                let error = (found - expected).abs();
                assert!(
                    error < 1e-8 * (1.0 + expected.abs()),
                    "{f:?} at {x}: {found}"
                );
            }
        }
    }

    #[test]
    fn nan_stays_nan_and_clipped_values_have_no_gradient() {
        for f in Activation::ALL {
            let value = |x: f64| with_activation!(f, F => F::value(x));
            assert!(value(f64::NAN).is_nan(), "{f:?}");
        }
        for (f, y) in [
            (Activation::Relu, 0.0),
            (Activation::Relu6, 6.0),
            (Activation::HardSigmoid, 1.0),
        ] {
            let gradient = with_activation!(f, F => F::gradient(y, f64::INFINITY));
            assert_eq!(gradient, 0.0, "{f:?}");
        }
    }
}
