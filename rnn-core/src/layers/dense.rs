//! The fully connected layer.

use backend_api::{Activation, Backend, DType, Error, Meta, Result, Shape, Tensor};

use crate::limits::{check_elements, check_sizes};
use crate::{Initializer, Module, Param, Visitor};

backend_api::shared_doc! { dense_doc:
/// `y = act(x · kernel + bias)` on the last axis; TensorFlow's `tf.layers.dense`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input, units]` | Glorot uniform |
/// | `bias` | `[units]` | 0 |
///
/// ```
/// use recurrent::{Dense, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let layer = Dense::new(&device, 3, 10)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 24], &[2, 4, 3])?;
/// assert_eq!(layer.forward(&x)?.shape().dims(), [2, 4, 10]);
/// # Ok(()) }
/// ```
}

#[doc = dense_doc!()]
#[derive(Clone, Debug)]
pub struct Dense<B: Backend> {
    activation: Activation,
    kernel: Param<B>,
    bias: Param<B>,
}

impl<B: Backend> Dense<B> {
    /// Creates a layer without an activation, in `f32`.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn new(device: &B, input_size: usize, units: usize) -> Result<Self> {
        Self::with(device, input_size, units, Activation::Identity, DType::F32)
    }

    /// Creates a layer with an activation and an element type.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn with(
        device: &B,
        input_size: usize,
        units: usize,
        activation: Activation,
        dtype: DType,
    ) -> Result<Self> {
        check_sizes("dense", [("input_size", input_size), ("units", units)])?;
        check_elements("dense", "units", &[input_size, units])?;
        let glorot = Initializer::GlorotUniform;
        Ok(Self {
            activation,
            kernel: Param::new(device, glorot, &[input_size, units], dtype)?,
            bias: Param::new(device, Initializer::ZEROS, &[units], dtype)?,
        })
    }

    /// Sets the initializer of the kernel and draws a new kernel.
    ///
    /// # Errors
    /// The initializer does not fit the shape, or the device is out of memory.
    pub fn kernel_initializer(mut self, initializer: Initializer) -> Result<Self> {
        self.kernel = redrawn(&self.kernel, initializer)?;
        Ok(self)
    }

    /// Sets the initializer of the bias and draws a new bias.
    ///
    /// # Errors
    /// The initializer does not fit the shape, or the device is out of memory.
    pub fn bias_initializer(mut self, initializer: Initializer) -> Result<Self> {
        self.bias = redrawn(&self.bias, initializer)?;
        Ok(self)
    }

    /// Applies the layer: `[.., input] -> [.., units]`.
    ///
    /// # Errors
    /// The last axis of `x` differs from the input size of the layer, or the types differ.
    pub fn forward(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        let depth = self.kernel.shape()[0];
        if x.shape().rank() == 0 || x.shape().last() != depth {
            let expected = format!("the kernel expects input depth {depth}");
            return Err(Error::shape("dense", "x", x.shape(), expected));
        }
        if x.dtype() != self.kernel.dtype() {
            let expected = format!("the kernel is {}", self.kernel.dtype());
            return Err(Error::dtype("dense", "x", x.dtype(), expected));
        }
        let mut dims = x.dims();
        let rows = x.shape().count() / depth;
        let flat = x.reshape(&[rows, depth])?;
        let y = flat
            .matmul(&self.kernel)?
            .add(&self.bias)?
            .activate(self.activation)?;
        if let Some(last) = dims.last_mut() {
            *last = self.kernel.shape()[1];
        }
        y.reshape(&dims)
    }

    /// Zeros in the shape of the layer's output, `[batch, units]`.
    pub(crate) fn zeros(&self, batch: usize) -> Result<Tensor<B>> {
        let shape = Shape::new(&[batch, self.bias.shape()[0]])?;
        Tensor::zeros(self.bias.device(), Meta::new(shape, self.bias.dtype()))
    }
}

fn redrawn<B: Backend>(param: &Param<B>, initializer: Initializer) -> Result<Param<B>> {
    Param::new(param.device(), initializer, &param.dims(), param.dtype())
}

impl<B: Backend> Module for Dense<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.param("kernel", &mut self.kernel);
        v.param("bias", &mut self.bias);
    }
}
