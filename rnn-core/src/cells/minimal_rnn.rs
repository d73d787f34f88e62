//! The minimal recurrent cell.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::math::mix;
use super::{CellSize, First};
use crate::{Cell, Initializer, Param, StepContext};

backend_api::shared_doc! { minimal_rnn_cell_doc:
/// The minimal RNN (Chen 2017; TensorFlow's `tf.contrib.rnn.MinimalRNNCell`): one gate between the
/// state and an encoding of the input. With `a, b, c` the rows of `kernel` for `x`, `z` and `h`:
///
/// `z = act(x · a)`, `u = σ(z · b + h · c + bias)`, `h' = u * h + (1 - u) * z`; output and state
/// are `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + 2 units, units]`, rows of `x`, `z`, `h` | Glorot uniform |
/// | `bias` | `[units]` | 1 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::cells::MinimalRnnCell;
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = MinimalRnnCell::new(&Device::cpu(), 3, 5)?;
/// assert_eq!(cell.param_count(), 13 * 5 + 5);
/// # Ok(()) }
/// ```
}

#[doc = minimal_rnn_cell_doc!()]
#[derive(Clone, Debug)]
pub struct MinimalRnnCell<B: Backend> {
    sizes: CellSize,
    activation: Activation,
    kernel: Param<B>,
    bias: Param<B>,
}

cell_builder! {
    MinimalRnnCellBuilder builds MinimalRnnCell, TensorFlow "MinimalRNNCell",
        scope "minimal_rnn_cell";
    #[serde(alias = "num_units")]
    units;
    /// Activation of the input's encoding. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of the kernel. Default: Glorot uniform.
    kernel_initializer: Initializer,
    /// Initializer of the bias. Default: 1.
    bias_initializer: Initializer,
}

impl MinimalRnnCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<MinimalRnnCell<B>> {
        let sizes = self.sizes()?;
        let (units, dtype) = (sizes.units, sizes.dtype);
        let rows = sizes.input + 2 * units;
        let ones = Initializer::ONES;
        let first = First::new(self.kernel_initializer, self.bias_initializer, ones);
        Ok(MinimalRnnCell {
            sizes,
            activation: self.activation,
            kernel: Param::new(device, first.kernel, &[rows, units], dtype)?,
            bias: Param::new(device, first.bias, &[units], dtype)?,
        })
    }
}

crate::module!(MinimalRnnCell<B> { kernel, bias; dtype sizes.dtype });

impl<B: Backend> Cell for MinimalRnnCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        self.sizes.cell.into()
    }

    fn zero_state(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.kernel.device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.zero_state(batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        h: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        self.sizes.state("state", h, self.sizes.input(x)?)?;
        let (input, units) = (self.sizes.input, self.sizes.units);
        let a = self.kernel.slice(0, 0..input)?;
        let b = self.kernel.slice(0, input..input + units)?;
        let c = self.kernel.slice(0, input + units..input + 2 * units)?;
        let z = x.matmul(&a)?.activate(self.activation)?;
        let u = h
            .matmul_add(&c, &z.matmul(&b)?.add(&self.bias)?)?
            .sigmoid()?;
        let h = mix(&u, h, &z)?;
        Ok((h.clone(), h))
    }
}
