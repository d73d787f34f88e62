//! The independently recurrent GRU.

use backend_api::{Activation, Backend, Fused, Op, Result, Tensor};

use super::builder::cell_builder;
use super::{CellSize, First, Independent};
use crate::{Cell, Initializer, StepContext};

backend_api::shared_doc! { indy_gru_cell_doc:
/// The GRU with independent units: each unit depends only on its own state (after Li et al. 2018,
/// <https://arxiv.org/abs/1803.04831>; TensorFlow's `tf.contrib.rnn.IndyGRUCell`). `*` repeats `h`
/// for each gate:
///
/// `r, u = σ(x · gates/kernel_w + h * gates/kernel_u + gates/bias)`,
/// `q = act(x · candidate/kernel + (r * h) * candidate/kernel_u + candidate/bias)`,
/// `h' = u * h + (1 - u) * q`; output and state are `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `gates/kernel_w` | `[input, 2 units]`, columns `r, u` | Glorot uniform |
/// | `gates/kernel_u` | `[1, 2 units]` | uniform in `[-1, 1)` |
/// | `gates/bias` | `[2 units]` | 1 |
/// | `candidate/kernel` | `[input, units]` | Glorot uniform |
/// | `candidate/kernel_u` | `[1, units]` | uniform in `[-1, 1)` |
/// | `candidate/bias` | `[units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::cells::IndyGruCell;
/// use recurrent::{Cell, Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = IndyGruCell::new(&Device::cpu(), 3, 5)?;
/// assert_eq!(cell.zero_state(2)?.shape().dims(), [2, 5]);
/// assert_eq!(cell.param_count(), 3 * (3 * 5 + 5 + 5));
/// # Ok(()) }
/// ```
}

#[doc = indy_gru_cell_doc!()]
#[derive(Clone, Debug)]
pub struct IndyGruCell<B: Backend> {
    sizes: CellSize,
    activation: Activation,
    gates: Independent<B>,
    candidate: Independent<B>,
}

cell_builder! {
    IndyGruCellBuilder builds IndyGruCell, TensorFlow "IndyGRUCell", scope "indy_gru_cell";
    num_units;
    /// Activation of the candidate. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of the input kernels. Default: Glorot uniform.
    kernel_initializer: Initializer,
    /// Initializer of all biases. Default: those in the cell's table.
    bias_initializer: Initializer,
}

impl IndyGruCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<IndyGruCell<B>> {
        let sizes = self.sizes()?;
        let first = |bias| First::new(self.kernel_initializer, self.bias_initializer, bias);
        let [ones, zeros] = [Initializer::ONES, Initializer::ZEROS].map(first);
        Ok(IndyGruCell {
            sizes,
            activation: self.activation,
            gates: Independent::new(device, sizes, "kernel_w", 2, ones)?,
            candidate: Independent::new(device, sizes, "kernel", 1, zeros)?,
        })
    }
}

crate::module!(IndyGruCell<B> { gates, candidate; dtype sizes.dtype });

impl<B: Backend> Cell for IndyGruCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "indy_gru_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.gates.device(), batch)
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
        let device = h.device();
        let z = self.gates.apply(x, h)?;
        // `u`, and `r * h`.
        let activation = Activation::Sigmoid;
        let op = Op::Fused(Fused::GruGates { activation });
        let gates = Tensor::call_all(device, &op, &[&z, h])?;
        let z = self.candidate.apply(x, &gates[1])?;
        let op = Op::Fused(Fused::GruOutput {
            activation: self.activation,
        });
        let h = Tensor::call_all(device, &op, &[&z, &gates[0], h])?.swap_remove(0);
        Ok((h.clone(), h))
    }
}
