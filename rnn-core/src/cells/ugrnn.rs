//! The update gate recurrent cell.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::math::mix;
use super::{Affine, CellSize, First};
use crate::{Cell, Initializer, Module, StepContext, Visitor};

backend_api::shared_doc! { ugrnn_cell_doc:
/// The update gate RNN (Collins et al. 2017; TensorFlow's `tf.contrib.rnn.UGRNNCell`): a GRU
/// without a reset gate. With `g, q` the two parts of `[x, h] · kernel + bias`:
///
/// `u = σ(g + forget_bias)`, `h' = u * h + (1 - u) * act(q)`; output and state are `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + units, 2 units]`, rows `x, h`, columns `g, q` | Glorot uniform |
/// | `bias` | `[2 units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::cells::UgrnnCellBuilder;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = UgrnnCellBuilder::new(3, 5).forget_bias(0.5).build(&Device::cpu())?;
/// assert_eq!(cell.zero_state(2)?.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
}

#[doc = ugrnn_cell_doc!()]
#[derive(Clone, Debug)]
pub struct UgrnnCell<B: Backend> {
    sizes: CellSize,
    forget_bias: f64,
    activation: Activation,
    affine: Affine<B>,
}

cell_builder! {
    UgrnnCellBuilder builds UgrnnCell, TensorFlow "UGRNNCell", scope "ugrnn_cell";
    num_units;
    /// Value added to the gate before its sigmoid. Default: 1.
    forget_bias: f64 = 1.0,
    /// Activation of the candidate. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of the kernel. Default: Glorot uniform.
    initializer: Initializer,
}

impl UgrnnCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<UgrnnCell<B>> {
        let sizes = self.sizes()?;
        Ok(UgrnnCell {
            sizes,
            forget_bias: self.forget_bias,
            activation: self.activation,
            affine: Affine::new(
                device,
                sizes,
                2 * sizes.units,
                First::kernel(self.initializer),
            )?,
        })
    }
}

impl<B: Backend> Module for UgrnnCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        self.affine.params(v);
    }
}

impl<B: Backend> Cell for UgrnnCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        self.sizes.cell.into()
    }

    fn zero_state(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.affine.device(), batch)
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
        let z = self.affine.apply(x, h)?.split_last(2)?;
        let u = z[0].affine(1.0, self.forget_bias)?.sigmoid()?;
        let h = mix(&u, h, &z[1].activate(self.activation)?)?;
        Ok((h.clone(), h))
    }
}
