//! The activation functions of cells, as types and by name.

use backend_api::Activation;

use crate::element::Float;

/// An activation function as a type, so that loops are compiled for each function.
pub(crate) trait ActivationFn: Copy + Default + Send + Sync {
    fn value<T: Float>(x: T) -> T;
    /// The derivative, from the function's value `y`.
    fn slope<T: Float>(y: T) -> T;
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Tanh;
#[derive(Clone, Copy, Default)]
pub(crate) struct Sigmoid;
#[derive(Clone, Copy, Default)]
pub(crate) struct Relu;
#[derive(Clone, Copy, Default)]
pub(crate) struct Softsign;
#[derive(Clone, Copy, Default)]
pub(crate) struct Identity;

impl ActivationFn for Tanh {
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        x.tanh()
    }
    #[inline(always)]
    fn slope<T: Float>(y: T) -> T {
        T::ONE.sub(y.mul(y))
    }
}

impl ActivationFn for Sigmoid {
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        x.sigmoid()
    }
    #[inline(always)]
    fn slope<T: Float>(y: T) -> T {
        y.mul(T::ONE.sub(y))
    }
}

impl ActivationFn for Relu {
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        // Written so that NaN stays NaN.
        if x < T::ZERO { T::ZERO } else { x }
    }
    #[inline(always)]
    fn slope<T: Float>(y: T) -> T {
        if y > T::ZERO { T::ONE } else { T::ZERO }
    }
}

impl ActivationFn for Softsign {
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        x.div(T::ONE.add(x.abs()))
    }
    #[inline(always)]
    fn slope<T: Float>(y: T) -> T {
        let rest = T::ONE.sub(y.abs());
        rest.mul(rest)
    }
}

impl ActivationFn for Identity {
    #[inline(always)]
    fn value<T: Float>(x: T) -> T {
        x
    }
    #[inline(always)]
    fn slope<T: Float>(_: T) -> T {
        T::ONE
    }
}

/// The activations that are not [common](Activation::is_common). They have no derivative here:
/// fused operations that use one are composed from simpler operations.
pub(crate) fn uncommon<T: Float>(f: Activation) -> Option<fn(T) -> T> {
    /// Clamps to `0..=top`; NaN stays NaN.
    fn clip<T: Float>(x: T, top: T) -> T {
        let x = if x < T::ZERO { T::ZERO } else { x };
        if x > top { top } else { x }
    }
    Some(match f {
        Activation::Elu => |x| if x < T::ZERO { x.exp_m1() } else { x },
        Activation::Selu => |x| {
            let y = if x < T::ZERO {
                T::from_f64(Activation::SELU_ALPHA).mul(x.exp_m1())
            } else {
                x
            };
            T::from_f64(Activation::SELU_SCALE).mul(y)
        },
        Activation::Softplus => |x| {
            let small = x.abs().neg().exp().ln_1p();
            if x > T::ZERO { x.add(small) } else { small }
        },
        Activation::Exponential => T::exp,
        Activation::HardSigmoid => |x| clip(x.mul(T::from_f64(0.2)).add(T::from_f64(0.5)), T::ONE),
        Activation::Relu6 => |x| clip(x, T::from_f64(6.0)),
        _ => return None,
    })
}

/// Evaluates an expression with a type alias for the [`ActivationFn`] of an
/// [`Activation`](backend_api::Activation). This is a macro, as closures cannot be generic over a
/// type.
macro_rules! with_activation {
    ($activation:expr, $curve:ident => $body:expr) => {{
        use backend_api::Activation;
        use $crate::activations as curves;
        match $activation {
            Activation::Tanh => {
                type $curve = curves::Tanh;
                $body
            }
            Activation::Sigmoid => {
                type $curve = curves::Sigmoid;
                $body
            }
            Activation::Relu => {
                type $curve = curves::Relu;
                $body
            }
            Activation::Softsign => {
                type $curve = curves::Softsign;
                $body
            }
            Activation::Identity => {
                type $curve = curves::Identity;
                $body
            }
            other => {
                return Err(backend_api::Error::argument(
                    "activation",
                    format!("{other:?}"),
                    "is not supported by the CPU backend",
                ));
            }
        }
    }};
}
pub(crate) use with_activation;
