//! The activations of ONNX's recurrent operators, with their parameters.

use backend_api::{Activation, Backend, Result, Tensor};

/// An activation with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::onnx) enum Function {
    Plain(Activation),
    /// `alpha x + beta`
    Affine(f64, f64),
    /// `x`, or `alpha x` where `x < 0`
    LeakyRelu(f64),
    /// `x` where `x > alpha`, else 0
    ThresholdedRelu(f64),
    /// `alpha tanh(beta x)`
    ScaledTanh(f64, f64),
    /// `alpha x + beta`, at least 0 and at most 1
    HardSigmoid(f64, f64),
    /// `x`, or `alpha (e^x - 1)` where `x < 0`
    Elu(f64),
}

/// The numbers of a list in turn, for those functions that have a parameter.
pub(super) type Numbers<'a> = std::slice::Iter<'a, f32>;

impl Function {
    /// The function with a name, in any case, whose parameters are the next of the lists, or ONNX's
    /// defaults.
    pub(super) fn of_name(
        name: &str,
        alphas: &mut Numbers<'_>,
        betas: &mut Numbers<'_>,
    ) -> Option<Self> {
        let next = |list: &mut Numbers<'_>, default: f32| {
            f64::from(list.next().copied().unwrap_or(default))
        };
        Some(match &*name.to_ascii_lowercase() {
            "relu" => Self::Plain(Activation::Relu),
            "tanh" => Self::Plain(Activation::Tanh),
            "sigmoid" => Self::Plain(Activation::Sigmoid),
            "softsign" => Self::Plain(Activation::Softsign),
            "softplus" => Self::Plain(Activation::Softplus),
            "affine" => Self::Affine(next(alphas, 1.0), next(betas, 0.0)),
            "leakyrelu" => Self::LeakyRelu(next(alphas, 0.01)),
            "thresholdedrelu" => Self::ThresholdedRelu(next(alphas, 1.0)),
            "scaledtanh" => Self::ScaledTanh(next(alphas, 1.0), next(betas, 1.0)),
            "hardsigmoid" => Self::HardSigmoid(next(alphas, 0.2), next(betas, 0.5)),
            "elu" => Self::Elu(next(alphas, 1.0)),
            _ => return None,
        })
    }

    /// The activation that cells know, if this is one.
    pub(super) fn plain(self) -> Option<Activation> {
        match self {
            Self::Plain(activation) => Some(activation),
            Self::Affine(1.0, 0.0) => Some(Activation::Identity),
            Self::Elu(1.0) => Some(Activation::Elu),
            Self::HardSigmoid(alpha, 0.5) if alpha as f32 == 0.2 => Some(Activation::HardSigmoid),
            _ => None,
        }
    }

    pub(in crate::onnx) fn of<B: Backend>(self, x: &Tensor<B>) -> Result<Tensor<B>> {
        if let Some(activation) = self.plain() {
            return x.activate(activation);
        }
        // The parts above and below 0, of which one is 0.
        let halves = || Ok::<_, backend_api::Error>((x.relu()?, x.neg()?.relu()?.neg()?));
        match self {
            Self::Plain(activation) => x.activate(activation),
            Self::Affine(alpha, beta) => x.affine(alpha, beta),
            Self::LeakyRelu(alpha) => {
                let (above, below) = halves()?;
                above.add(&below.affine(alpha, 0.0)?)
            }
            Self::Elu(alpha) => {
                let (above, below) = halves()?;
                above.add(&below.activate(Activation::Elu)?.affine(alpha, 0.0)?)
            }
            Self::ThresholdedRelu(alpha) => x.greater(alpha)?.select_from(x, 0.0),
            Self::ScaledTanh(alpha, beta) => x.affine(beta, 0.0)?.tanh()?.affine(alpha, 0.0),
            Self::HardSigmoid(alpha, beta) => x.affine(alpha, beta)?.clamp(0.0, 1.0),
        }
    }
}
