//! Layer normalization.

use backend_api::{Backend, DType, Error, Result, Tensor};

use crate::limits::check_sizes;
use crate::{Initializer, Param};

backend_api::shared_doc! { layer_norm_doc:
/// Layer normalization over the last axis (Ba et al. 2016), as in `tf.contrib.layers.layer_norm`:
/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `gamma` | `[size]` | 1 |
/// | `beta` | `[size]` | 0 |
///
/// ```
/// use recurrent::{Device, LayerNorm, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let norm = LayerNorm::new(&device, 2)?;
/// let x = Tensor::from_slice(&device, &[1.0f32, 3.0, 10.0, 30.0], &[2, 2])?;
/// assert_eq!(norm.forward(&x)?.to_vec::<f32>()?, [-1.0, 1.0, -1.0, 1.0]);
/// # Ok(()) }
/// ```
}

#[doc = layer_norm_doc!()]
#[derive(Clone, Debug)]
pub struct LayerNorm<B: Backend> {
    epsilon: f64,
    gamma: Param<B>,
    beta: Param<B>,
}

crate::module!(LayerNorm<B> { gamma, beta });

impl<B: Backend> LayerNorm<B> {
    /// TensorFlow's `epsilon`.
    const EPSILON: f64 = 1e-12;

    /// Creates a layer for a last axis of `size` elements, in `f32`, with the `epsilon` of
    /// `tf.contrib.layers`: 1e-12.
    ///
    /// # Errors
    /// The size is 0, or the device is out of memory.
    pub fn new(device: &B, size: usize) -> Result<Self> {
        Self::with(device, size, Self::EPSILON, DType::F32)
    }

    /// Creates a layer with another `epsilon` (1e-5 in PyTorch, 1e-3 in Keras) and element type.
    ///
    /// # Errors
    /// The size is 0, `epsilon` is negative or not finite, the type is not a float, or the device
    /// is out of memory.
    pub fn with(device: &B, size: usize, epsilon: f64, dtype: DType) -> Result<Self> {
        check_sizes("layer_norm", [("size", size)])?;
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            let problem = format!("is {epsilon}, but must be at least 0 and finite");
            return Err(Error::argument("layer_norm", "epsilon", problem));
        }
        let layer = Self::scaled(device, size, dtype, [1.0, 0.0])?;
        Ok(Self { epsilon, ..layer })
    }

    /// A layer with constants in `gamma` and `beta`.
    pub(crate) fn scaled(
        device: &B,
        size: usize,
        dtype: DType,
        [gamma, beta]: [f64; 2],
    ) -> Result<Self> {
        let vector = |value| Param::new(device, Initializer::Constant(value), &[size], dtype);
        Ok(Self {
            epsilon: Self::EPSILON,
            gamma: vector(gamma)?,
            beta: vector(beta)?,
        })
    }

    /// Normalizes the last axis: `[.., size] -> [.., size]`.
    ///
    /// # Errors
    /// The last axis of `x` has another size, or the types differ.
    pub fn forward(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        let size = self.gamma.shape()[0];
        if x.shape().rank() == 0 || x.shape().last() != size {
            let expected = format!("the layer normalizes {size} elements");
            return Err(Error::shape("layer_norm", "x", x.shape(), expected));
        }
        if x.dtype() != self.gamma.dtype() {
            let expected = format!("gamma is {}", self.gamma.dtype());
            return Err(Error::dtype("layer_norm", "x", x.dtype(), expected));
        }
        let axis = x.shape().rank() - 1;
        let mean = |t: &Tensor<B>| {
            let sum = t.sum(axis)?.unsqueeze(axis)?;
            sum.affine(1.0 / size as f64, 0.0)
        };
        // Sums and differences in 16 bits would lose the deviations from the mean.
        let dtype = x.dtype();
        let wide = |t: &Tensor<B>| t.cast(dtype.computed_in());
        let x = &wide(x)?;
        let centred = x.sub(&mean(x)?)?;
        let variance = mean(&centred.square()?)?;
        let deviation = variance.affine(1.0, self.epsilon)?.sqrt()?;
        let normalized = centred.div(&deviation)?.mul(&wide(&self.gamma)?)?;
        normalized.add(&wide(&self.beta)?)?.cast(dtype)
    }
}
