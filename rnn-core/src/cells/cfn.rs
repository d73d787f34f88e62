//! The chaos free network cell.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::{CellSize, First};
use crate::{Cell, Initializer, Param, StepContext};

backend_api::shared_doc! { cfn_cell_doc:
/// The chaos free network cell (Laurent & von Brecht 2017; TensorFlow's `tf.contrib.rnn.CFNCell`).
/// Without input, its state decays to zero. With `a` the first `2 units` columns of `kernel` and
/// `b` the others:
///
/// `θ, η = σ(x · a + h · recurrent_kernel + bias)`, `h' = θ * act(h) + (1 - η) * act(x · b)`;
/// output and state are `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input, 3 units]`, columns `θ, η`, candidate | Glorot uniform |
/// | `recurrent_kernel` | `[units, 2 units]`, columns `θ, η` | Glorot uniform |
/// | `bias` | `[2 units]` | 1 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::cells::CfnCell;
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = CfnCell::new(&Device::cpu(), 3, 5)?;
/// assert_eq!(cell.param_count(), 3 * 15 + 5 * 10 + 10);
/// # Ok(()) }
/// ```
}

#[doc = cfn_cell_doc!()]
#[derive(Clone, Debug)]
pub struct CfnCell<B: Backend> {
    sizes: CellSize,
    activation: Activation,
    kernel: Param<B>,
    recurrent_kernel: Param<B>,
    bias: Param<B>,
}

cell_builder! {
    CfnCellBuilder builds CfnCell, TensorFlow "CFNCell", scope "cfn_cell";
    #[serde(alias = "num_units")]
    units;
    /// Activation of the state and of the candidate. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of the kernels. Default: Glorot uniform.
    kernel_initializer: Initializer,
    /// Initializer of the bias. Default: 1.
    bias_initializer: Initializer,
}

impl CfnCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<CfnCell<B>> {
        let sizes = self.sizes()?;
        let units = sizes.units;
        let param =
            |initializer, dims: &[usize]| Param::new(device, initializer, dims, sizes.dtype);
        let ones = Initializer::ONES;
        let first = First::new(self.kernel_initializer, self.bias_initializer, ones);
        Ok(CfnCell {
            sizes,
            activation: self.activation,
            kernel: param(first.kernel, &[sizes.input, 3 * units])?,
            recurrent_kernel: param(first.kernel, &[units, 2 * units])?,
            bias: param(first.bias, &[2 * units])?,
        })
    }
}

crate::module!(CfnCell<B> { kernel, recurrent_kernel, bias; dtype sizes.dtype });

impl<B: Backend> Cell for CfnCell<B> {
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
        let units = self.sizes.units;
        let a = self.kernel.slice(1, 0..2 * units)?;
        let b = self.kernel.slice(1, 2 * units..3 * units)?;
        let z = x.matmul(&a)?.add(&self.bias)?;
        let z = h.matmul_add(&self.recurrent_kernel, &z)?;
        let gates = z.sigmoid()?.split_last(2)?;
        let kept = gates[0].mul(&h.activate(self.activation)?)?;
        let candidate = x.matmul(&b)?.activate(self.activation)?;
        let h = kept.add(&gates[1].affine(-1.0, 1.0)?.mul(&candidate)?)?;
        Ok((h.clone(), h))
    }
}
