//! The simple recurrent unit.

use backend_api::{Activation, Backend, Result, Tensor};

use super::CellSize;
use super::builder::cell_builder;
use super::math::mix;
use crate::{Cell, Initializer, Param, StepContext};

backend_api::shared_doc! { sru_cell_doc:
/// The simple recurrent unit (Lei & Zhang 2017; TensorFlow's `tf.contrib.rnn.SRUCell`). Its gates
/// do not depend on the state, so a sequence needs only one matmul, before the first step. With
/// `xb, f, r, xt` the four parts of `x · kernel` and `bf, br` those of `bias`:
///
/// `c' = σ(f + bf) * c + (1 - σ(f + bf)) * xb`,
/// `output = σ(r + br) * act(c') + (1 - σ(r + br)) * xt`; the state is `c'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input, 4 units]`, columns `xb, f, r, xt` | Glorot uniform |
/// | `bias` | `[2 units]`, for `f, r` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::cells::SruCell;
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = SruCell::new(&Device::cpu(), 3, 5)?;
/// assert_eq!(cell.param_count(), 3 * 20 + 10);
/// # Ok(()) }
/// ```
}

#[doc = sru_cell_doc!()]
#[derive(Clone, Debug)]
pub struct SruCell<B: Backend> {
    sizes: CellSize,
    activation: Activation,
    kernel: Param<B>,
    bias: Param<B>,
}

cell_builder! {
    SruCellBuilder builds SruCell, TensorFlow "SRUCell", scope "sru_cell";
    num_units;
    /// Activation of the new state in the output. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of the kernel. Default: Glorot uniform.
    kernel_initializer: Initializer,
}

impl SruCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<SruCell<B>> {
        let sizes = self.sizes()?;
        let (rows, units, dtype) = (sizes.input, sizes.units, sizes.dtype);
        let first = self.kernel_initializer.unwrap_or_default();
        Ok(SruCell {
            sizes,
            activation: self.activation,
            kernel: Param::new(device, first, &[rows, 4 * units], dtype)?,
            bias: Param::new(device, Initializer::ZEROS, &[2 * units], dtype)?,
        })
    }
}

crate::module!(SruCell<B> { kernel, bias; dtype sizes.dtype });

impl<B: Backend> Cell for SruCell<B> {
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
        c: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        self.sizes.state("state", c, self.sizes.input(x)?)?;
        let units = self.sizes.units;
        let z = x.matmul(&self.kernel)?;
        let (xb, xt) = (z.slice(1, 0..units)?, z.slice(1, 3 * units..4 * units)?);
        let gates = z.slice(1, units..3 * units)?.add(&self.bias)?.sigmoid()?;
        let gates = gates.split_last(2)?;
        let [f, r] = [&gates[0], &gates[1]];
        let c = mix(f, c, &xb)?;
        let output = mix(r, &c.activate(self.activation)?, &xt)?;
        Ok((output, c))
    }
}
