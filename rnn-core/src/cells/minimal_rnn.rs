//! The minimal recurrent cell.

use backend_api::{Activation, Backend, Result, Tensor};

use super::affine::project;
use super::builder::cell_builder;
use super::math::{mix, product};
use super::{CellSize, First};
use crate::{Cell, Initializer, Param, StepContext, Unroll};

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
/// use backend_cpu::Cpu;
/// use rnn_core::cells::MinimalRnnCell;
/// use rnn_core::Module;
///
/// # fn main() -> backend_api::Result<()> {
/// let cell = MinimalRnnCell::new(&Cpu::new(), 3, 5)?;
/// assert_eq!(cell.param_count(), 13 * 5 + 5);
/// # Ok(()) }
/// ```
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

impl<B: Backend> MinimalRnnCell<B> {
    /// `count` rows of the kernel, from row `first`.
    fn rows(&self, first: usize, count: usize) -> Result<Tensor<B>> {
        self.kernel.slice(0, first..first + count)
    }

    fn recurrent_kernel(&self) -> Result<Tensor<B>> {
        self.rows(self.sizes.input + self.sizes.units, self.sizes.units)
    }

    /// The encoding of the input and its part of the gate, including the bias.
    fn project(&self, x: &Tensor<B>) -> Result<(Tensor<B>, Tensor<B>)> {
        let (input, units) = (self.sizes.input, self.sizes.units);
        let z = product(x, &self.rows(0, input)?)?.activate(self.activation)?;
        let gate = project(&z, &self.rows(input, units)?, &self.bias)?;
        Ok((z, gate))
    }

    /// One step, from the projected input.
    fn gated(
        &self,
        (z, gate): &(Tensor<B>, Tensor<B>),
        kernel: &Tensor<B>,
        h: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        let gate = h.matmul_add(kernel, gate)?.sigmoid()?;
        let h = mix(&gate, h, z)?;
        Ok((h.clone(), h))
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
        self.gated(&self.project(x)?, &self.recurrent_kernel()?, h)
    }

    fn unroll(
        &self,
        u: &Unroll<B>,
        xs: &Tensor<B>,
        h: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        self.sizes.state("state", h, self.sizes.sequence(xs)?)?;
        let cell = self.clone();
        u.segments(xs, h, move |u, xs, h| {
            let kernel = cell.recurrent_kernel()?;
            let zero = cell.zero_output(u.batch())?;
            u.scan(&cell.project(xs)?, h, &zero, |_, z, h| {
                cell.gated(z, &kernel, h)
            })
        })
    }
}
