//! The independently recurrent cell.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::{CellSize, First, Independent};
use crate::{Cell, Initializer, Module, StepContext, Visitor};

backend_api::shared_doc! { ind_rnn_cell_doc:
/// The independently recurrent cell (Li et al. 2018, <https://arxiv.org/abs/1803.04831>;
/// TensorFlow's `tf.contrib.rnn.IndRNNCell`): `h' = act(x · kernel_w + h * kernel_u + bias)`;
/// output and state are `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel_w` | `[input, units]` | Glorot uniform |
/// | `kernel_u` | `[1, units]` | uniform in `[-1, 1)` |
/// | `bias` | `[units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::cells::IndRnnCell;
/// use recurrent::{Cell, Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = IndRnnCell::new(&Device::cpu(), 3, 5)?;
/// assert_eq!(cell.zero_state(2)?.shape().dims(), [2, 5]);
/// assert_eq!(cell.param_count(), 3 * 5 + 5 + 5);
/// # Ok(()) }
/// ```
}

#[doc = ind_rnn_cell_doc!()]
#[derive(Clone, Debug)]
pub struct IndRnnCell<B: Backend> {
    sizes: CellSize,
    activation: Activation,
    kernels: Independent<B>,
}

cell_builder! {
    IndRnnCellBuilder builds IndRnnCell, TensorFlow "IndRNNCell", scope "ind_rnn_cell";
    num_units;
    /// Activation of the cell. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of `kernel_w`. Default: Glorot uniform.
    kernel_initializer: Initializer,
}

impl IndRnnCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<IndRnnCell<B>> {
        let sizes = self.sizes()?;
        Ok(IndRnnCell {
            sizes,
            activation: self.activation,
            kernels: Independent::new(
                device,
                sizes,
                "kernel_w",
                1,
                First::kernel(self.kernel_initializer),
            )?,
        })
    }
}

impl<B: Backend> Module for IndRnnCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        self.kernels.params(v);
    }
}

impl<B: Backend> Cell for IndRnnCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "ind_rnn_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.kernels.device(), batch)
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
        let batch = self.sizes.input(x)?;
        self.sizes.state("state", h, batch)?;
        let h = self.kernels.apply(x, h)?.activate(self.activation)?;
        Ok((h.clone(), h))
    }
}
