//! The plain recurrent cell.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::{Affine, CellSize, First};
use crate::{Cell, Initializer, Module, StepContext, Visitor};

backend_api::shared_doc! { basic_rnn_cell_doc:
/// The most basic cell (Elman 1990; TensorFlow's `BasicRNNCell`):
/// `h' = act([x, h] · kernel + bias)`; output and state are `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + units, units]`, rows `x, h` | Glorot uniform |
/// | `bias` | `[units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::{BasicRnnCell, Cell, Device, StepContext, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicRnnCell::new(&device, 3, 5)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3])?;
/// let (output, state) = cell.step(&StepContext::default(), &x, &cell.zero_state(2)?)?;
/// assert_eq!(output.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
}

#[doc = basic_rnn_cell_doc!()]
#[derive(Clone, Debug)]
pub struct BasicRnnCell<B: Backend> {
    sizes: CellSize,
    activation: Activation,
    affine: Affine<B>,
}

cell_builder! {
    BasicRnnCellBuilder builds BasicRnnCell, TensorFlow "BasicRNNCell", scope "basic_rnn_cell";
    num_units;
    /// Activation of the cell. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of the kernel. Default: Glorot uniform.
    kernel_initializer: Initializer,
}

impl BasicRnnCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<BasicRnnCell<B>> {
        let sizes = self.sizes()?;
        Ok(BasicRnnCell {
            sizes,
            activation: self.activation,
            affine: Affine::new(
                device,
                sizes,
                sizes.units,
                First::kernel(self.kernel_initializer),
            )?,
        })
    }
}

impl<B: Backend> BasicRnnCell<B> {
    /// The activation of the cell.
    pub fn activation(&self) -> Activation {
        self.activation
    }
}

impl<B: Backend> Module for BasicRnnCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        self.affine.params(v);
    }
}

impl<B: Backend> Cell for BasicRnnCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "basic_rnn_cell".into()
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
        let batch = self.sizes.input(x)?;
        self.sizes.state("state", h, batch)?;
        let h = self.affine.apply(x, h)?.activate(self.activation)?;
        Ok((h.clone(), h))
    }
}
