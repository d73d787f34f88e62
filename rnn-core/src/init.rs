//! First values of parameters.

use backend_api::{Backend, Distribution, Meta, Result, Shape, Tensor};

use crate::ParamId;

/// How a parameter gets its first value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Initializer {
    /// Every element the same.
    Constant(f64),
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// The logarithm is uniform between those of `low` and `high`, which are above 0.
    LogUniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// Uniform in `[0, p)` with `p` the elements of another parameter of the same shape, which the module shows
    /// before. What knows no other parameters draws in `[0, 1)`: [`Module::initialize`](crate::Module::initialize)
    /// multiplies.
    UniformBelow(ParamId),
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in `±sqrt(6 / (fan_in + fan_out))` (Glorot & Bengio 2010): TensorFlow's default.
    ///
    /// Fans are rows and columns of a matrix; both are the length of a vector; with more axes, the product
    /// of all but the last two multiplies the last two.
    GlorotUniform,
}

impl Initializer {
    /// All zeros.
    pub const ZEROS: Self = Self::Constant(0.0);
    /// All ones.
    pub const ONES: Self = Self::Constant(1.0);

    /// A tensor of first values: a function of the key, the same on every device.
    ///
    /// # Errors
    /// The type is no float, or the device has no room.
    pub fn tensor<B: Backend>(self, device: &B, key: u64, meta: Meta) -> Result<Tensor<B>> {
        let distribution = match self {
            Self::Constant(value) => return Tensor::full(device, value, meta),
            Self::Uniform { low, high } => Distribution::Uniform { low, high },
            Self::LogUniform { low, high } => {
                let (low, high) = (low.ln(), high.ln());
                let log = Distribution::Uniform { low, high };
                return Tensor::random(device, key, log, meta)?.exp();
            }
            Self::UniformBelow(_) => Distribution::Uniform {
                low: 0.0,
                high: 1.0,
            },
            Self::Normal { mean, std } => Distribution::Normal { mean, std },
            Self::GlorotUniform => {
                let (fan_in, fan_out) = fans(&meta.shape);
                let limit = (6.0 / (fan_in + fan_out)).sqrt();
                Distribution::Uniform {
                    low: -limit,
                    high: limit,
                }
            }
        };
        Tensor::random(device, key, distribution, meta)
    }
}

fn fans(shape: &Shape) -> (f64, f64) {
    match shape.dims() {
        [] => (1.0, 1.0),
        [n] => (*n as f64, *n as f64),
        [field @ .., rows, columns] => {
            let field = field.iter().product::<usize>() as f64;
            (field * *rows as f64, field * *columns as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fans_follow_tensorflow() {
        let of = |dims: &[usize]| fans(&Shape::new(dims).unwrap());
        assert_eq!(of(&[3, 5]), (3.0, 5.0));
        assert_eq!(of(&[7]), (7.0, 7.0));
        assert_eq!(of(&[2, 4, 3, 5]), (24.0, 40.0));
        assert_eq!(of(&[]), (1.0, 1.0));
    }
}
