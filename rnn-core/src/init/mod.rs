//! Initial values of parameters.

mod config;
mod drawn;

use backend_api::{Backend, Distribution, Error, Meta, Result, Shape, Tensor};
use serde::Deserialize;

use crate::ParamId;

/// The initializer of a parameter. The initial value is a function of a key, and identical on every
/// device.
///
/// In the JSON options of a cell, an initializer is an object: `type` is TensorFlow's name, the
/// other fields are TensorFlow's arguments. The name alone selects the defaults.
///
/// | JSON | variant | defaults |
/// |---|---|---|
/// | `"zeros"`, `"ones"` | [`ZEROS`](Self::ZEROS), [`ONES`](Self::ONES) | |
/// | `constant` | [`Constant`](Self::Constant) | `value` 0 |
/// | `random_uniform` | [`Uniform`](Self::Uniform) | `minval` 0, `maxval` 1 |
/// | `random_normal` | [`Normal`](Self::Normal) | `mean` 0, `stddev` 1 |
/// | `truncated_normal` | [`TruncatedNormal`](Self::TruncatedNormal) | `mean` 0, `stddev` 1 |
/// | `"glorot_uniform"` | [`GlorotUniform`](Self::GlorotUniform) | |
/// | `"glorot_normal"` | [`GlorotNormal`](Self::GlorotNormal) | |
/// | `orthogonal` | [`Orthogonal`](Self::Orthogonal) | `gain` 1 |
/// | `identity` | [`Identity`](Self::Identity) | `gain` 1 |
/// | `variance_scaling` | [`VarianceScaling`](Self::VarianceScaling) | `scale` 1 |
///
/// In `variance_scaling`, `mode` defaults to `"fan_in"` and `distribution` to `"truncated_normal"`.
///
/// ```
/// use recurrent::{DType, Device, GruCell, Initializer, Module, cell_from_config, serde_json};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let orthogonal = Initializer::orthogonal(1.0);
/// let mut cell = GruCell::builder(3, 5).kernel_initializer(orthogonal).build(&device)?;
/// cell.initialize(7)?;
///
/// let options = serde_json::json!({
///     "type": "GRUCell",
///     "num_units": 5,
///     "kernel_initializer": "orthogonal",
///     "bias_initializer": { "type": "constant", "value": 0.5 },
/// });
/// let cell = cell_from_config(&device, &options, 3, DType::F32)?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Initializer {
    /// The same value for every element.
    Constant(f64),
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower end, inclusive.
        low: f64,
        /// Upper end, exclusive.
        high: f64,
    },
    /// The logarithm is uniform between `ln(low)` and `ln(high)`; both limits are positive.
    LogUniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// Uniform in `[0, p)`, where `p` are the elements of another parameter of the same shape that
    /// the module visits earlier. [`tensor`](Self::tensor) alone draws in `[0, 1)`;
    /// [`Module::initialize`](crate::Module::initialize) multiplies by `p`.
    UniformBelow(ParamId),
    /// Normally distributed.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Normally distributed; values two standard deviations or more from the mean are redrawn.
    TruncatedNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation before truncation.
        std: f64,
    },
    /// Uniform in `±sqrt(6 / (fan_in + fan_out))` (Glorot & Bengio 2010). TensorFlow's default.
    ///
    /// The fans of a matrix are its numbers of rows and columns; both fans of a vector are its
    /// length. With more axes, the fans of the last two are multiplied by the product of all other
    /// axes.
    #[default]
    GlorotUniform,
    /// [`VarianceScaling`](Self::VarianceScaling) with the average of the fans.
    GlorotNormal,
    /// Zero mean and variance `scale / fan`, with the fans of
    /// [`GlorotUniform`](Self::GlorotUniform) (He et al. 2015 and others).
    VarianceScaling {
        /// The factor of the variance, above 0.
        scale: f64,
        /// The fan to divide by.
        mode: Fan,
        /// The shape of the distribution.
        distribution: Scaled,
    },
    /// A matrix with orthonormal rows or columns, whichever are fewer, times `gain`, uniformly
    /// distributed over all such matrices (Saxe et al. 2014, <https://arxiv.org/abs/1312.6120>).
    /// All axes but the last are flattened to rows.
    Orthogonal {
        /// The factor.
        gain: f64,
    },
    /// A matrix with `gain` on the diagonal, and 0 elsewhere.
    Identity {
        /// The factor.
        gain: f64,
    },
}

/// The fan that [`Initializer::VarianceScaling`] divides by. Default: `"fan_in"`.
///
/// ```
/// use recurrent::{DType, Device, Fan, Initializer, Param, Scaled};
///
/// # fn main() -> recurrent::Result<()> {
/// // A limit of sqrt(3 / fan): 0.1 for 300 rows, 1 for 3 columns.
/// let limit = |fan| {
///     let initializer = Initializer::variance_scaling(1.0, fan, Scaled::Uniform);
///     let kernel = Param::new(&Device::cpu(), initializer, &[300, 3], DType::F32)?;
///     kernel.reshape(&[900])?.abs()?.max(0)?.item()
/// };
/// assert!((0.09..0.1001).contains(&limit(Fan::In)?));
/// assert!((0.9..1.001).contains(&limit(Fan::Out)?));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Fan {
    /// The number of rows.
    #[default]
    #[serde(rename = "fan_in")]
    In,
    /// The number of columns.
    #[serde(rename = "fan_out")]
    Out,
    /// The mean of both.
    #[serde(rename = "fan_avg")]
    Average,
}

/// The distribution of [`Initializer::VarianceScaling`], with mean 0. Default:
/// `"truncated_normal"`.
///
/// ```
/// use recurrent::{DType, Device, Fan, Initializer, Param, Scaled};
///
/// # fn main() -> recurrent::Result<()> {
/// // He's initialization for ReLU: normal, with a variance of 2 / fan_in.
/// let he = Initializer::variance_scaling(2.0, Fan::In, Scaled::UntruncatedNormal);
/// let kernel = Param::new(&Device::cpu(), he, &[200, 100], DType::F32)?;
/// let variance = kernel.square()?.mean_all()?.item()?;
/// assert!((variance - 2.0 / 200.0).abs() < 1e-3);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaled {
    /// Normal, truncated at two standard deviations of the untruncated distribution.
    #[default]
    #[serde(alias = "normal")]
    TruncatedNormal,
    /// Normal.
    UntruncatedNormal,
    /// Uniform.
    Uniform,
}

/// The standard deviation of a standard normal distribution truncated at ±2.
const CUT_STD: f64 = 0.879_625_661_034_239_8;

impl Initializer {
    /// All zeros.
    pub const ZEROS: Self = Self::Constant(0.0);
    /// All ones.
    pub const ONES: Self = Self::Constant(1.0);

    /// [`Uniform`](Self::Uniform) in `[low, high)`; TensorFlow's `random_uniform_initializer`.
    #[doc(alias = "random_uniform_initializer")]
    pub const fn uniform(low: f64, high: f64) -> Self {
        Self::Uniform { low, high }
    }

    /// [`LogUniform`](Self::LogUniform) between two positive limits.
    pub const fn log_uniform(low: f64, high: f64) -> Self {
        Self::LogUniform { low, high }
    }

    /// [`Normal`](Self::Normal); TensorFlow's `random_normal_initializer`.
    #[doc(alias = "random_normal_initializer")]
    pub const fn normal(mean: f64, std: f64) -> Self {
        Self::Normal { mean, std }
    }

    /// [`TruncatedNormal`](Self::TruncatedNormal); TensorFlow's `truncated_normal_initializer`.
    #[doc(alias = "truncated_normal_initializer")]
    pub const fn truncated_normal(mean: f64, std: f64) -> Self {
        Self::TruncatedNormal { mean, std }
    }

    /// [`VarianceScaling`](Self::VarianceScaling); TensorFlow's `variance_scaling_initializer`.
    #[doc(alias = "variance_scaling_initializer")]
    pub const fn variance_scaling(scale: f64, mode: Fan, distribution: Scaled) -> Self {
        Self::VarianceScaling {
            scale,
            mode,
            distribution,
        }
    }

    /// [`Orthogonal`](Self::Orthogonal) times a factor; TensorFlow's `orthogonal_initializer`.
    #[doc(alias = "orthogonal_initializer")]
    pub const fn orthogonal(gain: f64) -> Self {
        Self::Orthogonal { gain }
    }

    /// [`Identity`](Self::Identity) times a factor; TensorFlow's `identity_initializer`.
    #[doc(alias = "identity_initializer")]
    pub const fn identity(gain: f64) -> Self {
        Self::Identity { gain }
    }

    /// Checks the arguments.
    fn check(self) -> Result<()> {
        match self {
            Self::Uniform { low, high } => {
                check_range("random_uniform", [("minval", low), ("maxval", high)])
            }
            Self::LogUniform { low, high } => {
                let op = "log_uniform";
                check_range(op, [("low", low), ("high", high)])?;
                if low > 0.0 {
                    return Ok(());
                }
                let problem = format!("is {low}, but must be above 0");
                Err(Error::argument(op, "low", problem))
            }
            Self::Normal { mean, std } => check_deviation("random_normal", mean, std),
            Self::TruncatedNormal { mean, std } => check_deviation("truncated_normal", mean, std),
            Self::VarianceScaling { scale, .. } => check_scale(scale),
            Self::Orthogonal { gain } => check_finite("orthogonal", "gain", gain),
            Self::Identity { gain } => check_finite("identity", "gain", gain),
            Self::Constant(_)
            | Self::UniformBelow(_)
            | Self::GlorotUniform
            | Self::GlorotNormal => Ok(()),
        }
    }

    /// Computes an initial value from a key, identically on every device.
    ///
    /// # Errors
    /// The shape has too few axes, an argument is out of its range, the type is not a float, or the
    /// device is out of memory.
    pub fn tensor<B: Backend>(self, device: &B, key: u64, meta: Meta) -> Result<Tensor<B>> {
        self.check()?;
        let distribution = match self {
            Self::Constant(value) => return Tensor::full(device, value, meta),
            Self::Uniform { low, high } => Distribution::Uniform { low, high },
            Self::LogUniform { low, high } => {
                let log = Distribution::Uniform {
                    low: low.ln(),
                    high: high.ln(),
                };
                // A logarithm in 16 bits has few digits.
                let wide = Meta::new(meta.shape, meta.dtype.computed_in());
                let numbers = Tensor::random(device, key, log, wide)?.exp()?;
                // The exponential of a rounded limit can be outside.
                return numbers.clamp(low, high)?.cast(meta.dtype);
            }
            Self::UniformBelow(_) => Distribution::Uniform {
                low: 0.0,
                high: 1.0,
            },
            Self::Normal { mean, std } => Distribution::Normal { mean, std },
            Self::TruncatedNormal { mean, std } => {
                let numbers = drawn::truncated_normal(key, meta.shape.count());
                let numbers = numbers.map(|x| mean + std * x).collect();
                return upload(device, "truncated_normal", numbers, meta);
            }
            Self::GlorotUniform => {
                let (mode, distribution) = (Fan::Average, Scaled::Uniform);
                return scaled(1.0, mode, distribution, &meta.shape)?.tensor(device, key, meta);
            }
            Self::GlorotNormal => {
                let (mode, distribution) = (Fan::Average, Scaled::TruncatedNormal);
                return scaled(1.0, mode, distribution, &meta.shape)?.tensor(device, key, meta);
            }
            Self::VarianceScaling {
                scale,
                mode,
                distribution,
            } => {
                return scaled(scale, mode, distribution, &meta.shape)?.tensor(device, key, meta);
            }
            Self::Orthogonal { gain } => {
                let (rows, columns) = matrix("orthogonal", &meta.shape)?;
                let mut numbers = drawn::orthogonal(key, rows, columns);
                numbers.iter_mut().for_each(|x| *x *= gain);
                return upload(device, "orthogonal", numbers, meta);
            }
            Self::Identity { gain } => {
                let (rows, columns) = matrix("identity", &meta.shape)?;
                if meta.shape.rank() != 2 {
                    let expected = "a matrix is needed";
                    return Err(Error::shape("identity", "shape", meta.shape, expected));
                }
                let on_diagonal = |i| i / columns == i % columns;
                let numbers = (0..rows * columns).map(|i| f64::from(on_diagonal(i)) * gain);
                return upload(device, "identity", numbers.collect(), meta);
            }
        };
        Tensor::random(device, key, distribution, meta)
    }
}

/// Fails if the limits of a distribution are not finite, or reversed.
fn check_range(op: &'static str, [low, high]: [(&str, f64); 2]) -> Result<()> {
    check_finite(op, low.0, low.1)?;
    check_finite(op, high.0, high.1)?;
    if low.1 > high.1 || !(high.1 - low.1).is_finite() {
        let problem = format!(
            "is {}, but must be at most {}, {}, with a finite difference",
            low.1, high.0, high.1
        );
        return Err(Error::argument(op, low.0, problem));
    }
    Ok(())
}

fn check_finite(op: &'static str, arg: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    let problem = format!("is {value}, but must be finite");
    Err(Error::argument(op, arg, problem))
}

fn check_scale(scale: f64) -> Result<()> {
    if scale > 0.0 && scale.is_finite() {
        return Ok(());
    }
    let problem = format!("is {scale}, but must be above 0 and finite");
    Err(Error::argument("variance_scaling", "scale", problem))
}

fn check_deviation(op: &'static str, mean: f64, std: f64) -> Result<()> {
    check_finite(op, "mean", mean)?;
    if std >= 0.0 && std.is_finite() {
        return Ok(());
    }
    let problem = format!("is {std}, but must be finite and not negative");
    Err(Error::argument(op, "stddev", problem))
}

/// [`Initializer::VarianceScaling`] for a shape, as a concrete distribution.
fn scaled(scale: f64, mode: Fan, distribution: Scaled, shape: &Shape) -> Result<Initializer> {
    check_scale(scale)?;
    let (fan_in, fan_out) = fans(shape);
    let fan = match mode {
        Fan::In => fan_in,
        Fan::Out => fan_out,
        Fan::Average => (fan_in + fan_out) / 2.0,
    };
    let variance = scale / fan.max(1.0);
    let (mean, std) = (0.0, variance.sqrt());
    Ok(match distribution {
        Scaled::Uniform => {
            let limit = (3.0 * variance).sqrt();
            Initializer::Uniform {
                low: -limit,
                high: limit,
            }
        }
        Scaled::UntruncatedNormal => Initializer::Normal { mean, std },
        Scaled::TruncatedNormal => Initializer::TruncatedNormal {
            mean,
            std: std / CUT_STD,
        },
    })
}

/// Rows and columns of a matrix; all axes but the last are flattened to rows.
fn matrix(op: &'static str, shape: &Shape) -> Result<(usize, usize)> {
    match shape.dims() {
        [rows @ .., columns] if !rows.is_empty() => Ok((rows.iter().product(), *columns)),
        _ => {
            let expected = "at least two axes are needed";
            Err(Error::shape(op, "shape", *shape, expected))
        }
    }
}

fn upload<B: Backend>(
    device: &B,
    op: &'static str,
    numbers: Vec<f64>,
    meta: Meta,
) -> Result<Tensor<B>> {
    if !meta.dtype.is_float() {
        return Err(Error::dtype(op, "dtype", meta.dtype, "a float is needed"));
    }
    Tensor::from_slice(device, &numbers, meta.shape.dims())?.cast(meta.dtype)
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
