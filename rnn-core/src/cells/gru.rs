//! The gated recurrent unit.

use backend_api::{Activation, Backend, Fused, Op, Result, Tensor};

use super::builder::cell_builder;
use super::{Affine, CellSize, First};
use crate::{Cell, Initializer, Module, StepContext, Visitor};

backend_api::shared_doc! { gru_cell_doc:
/// The gated recurrent unit (Cho et al. 2014, <https://arxiv.org/abs/1406.1078>; TensorFlow's
/// `GRUCell`). The reset gate is applied before the matmul:
///
/// `r, u = σ([x, h] · gates/kernel + gates/bias)`,
/// `q = act([x, r * h] · candidate/kernel + candidate/bias)`, `h' = u * h + (1 - u) * q`; output
/// and state are `h'`.
///
/// With [`reset_after`](crate::cells::GruCellBuilder::reset_after), which TensorFlow's cell does
/// not have, the reset gate is applied after the matmul, as in Keras (`reset_after=True`), PyTorch,
/// cuDNN and the first version of the paper. With `Wx`, `bx` the kernel and bias of
/// `candidate/input_projection`, and `Wh`, `bh` those of `candidate/hidden_projection`:
///
/// `q = act(x · Wx + bx + r * (h · Wh + bh))`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `gates/kernel` | `[input + units, 2 units]`, rows `x, h`, columns `r, u` | Glorot uniform |
/// | `gates/bias` | `[2 units]` | 1, so that the cell initially keeps its state |
/// | `candidate/kernel` | `[input + units, units]` | Glorot uniform |
/// | `candidate/bias` | `[units]` | 0 |
///
/// With `reset_after`, the candidate has the parameters of TensorFlow's `CudnnCompatibleGRUCell`:
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `candidate/input_projection/kernel` | `[input, units]` | Glorot uniform |
/// | `candidate/hidden_projection/kernel` | `[units, units]` | Glorot uniform |
/// | `candidate/input_projection/bias` | `[units]` | 0 |
/// | `candidate/hidden_projection/bias` | `[units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::{Cell, Device, GruCell, StepContext, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 3, 5)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3])?;
/// let (output, state) = cell.step(&StepContext::default(), &x, &cell.zero_state(2)?)?;
/// assert_eq!(output.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
}

#[doc = gru_cell_doc!()]
#[derive(Clone, Debug)]
pub struct GruCell<B: Backend> {
    pub(super) sizes: CellSize,
    activation: Activation,
    recurrent_activation: Activation,
    gates: Affine<B>,
    /// The candidate's weights for input and state; for the input only if `hidden` is set.
    candidate: Affine<B>,
    /// With `reset_after`, the candidate's weights for the state.
    hidden: Option<Affine<B>>,
}

impl<B: Backend> GruCell<B> {
    /// The activation of the candidate.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// The activation of the gates.
    pub fn recurrent_activation(&self) -> Activation {
        self.recurrent_activation
    }

    /// The cell with another activation of the gates and the same parameters.
    ///
    /// ```
    /// use recurrent::{Activation, Device, GruCell};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let cell = GruCell::new(&Device::cpu(), 3, 8)?;
    /// let cell = cell.with_recurrent_activation(Activation::HardSigmoid);
    /// assert_eq!(cell.recurrent_activation(), Activation::HardSigmoid);
    /// # Ok(()) }
    /// ```
    pub fn with_recurrent_activation(mut self, activation: Activation) -> Self {
        self.recurrent_activation = activation;
        self
    }
}

cell_builder! {
    GruCellBuilder builds GruCell, TensorFlow "GRUCell", scope "gru_cell";
    num_units;
    /// Activation of the candidate. Default: tanh.
    activation: Activation = Activation::Tanh,
    /// Activation of the gates, `σ` in the equations. Default: sigmoid. Models of Keras have
    /// others.
    recurrent_activation: Activation = Activation::Sigmoid,
    /// Whether to apply the reset gate after the matmul with the state instead of before it.
    /// Default: false, as in TensorFlow.
    reset_after: bool = false,
    ;
    /// Initializer of the kernels. Default: Glorot uniform.
    kernel_initializer: Initializer,
    /// Initializer of all biases. Default: those in the cell's table.
    bias_initializer: Initializer,
}

impl GruCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<GruCell<B>> {
        let sizes = self.sizes()?;
        self.build_sized(device, sizes)
    }

    /// Builds the cell under the name in `sizes`.
    pub(super) fn build_sized<B: Backend>(self, device: &B, sizes: CellSize) -> Result<GruCell<B>> {
        let units = sizes.units;
        let first = |bias| First::new(self.kernel_initializer, self.bias_initializer, bias);
        let gates = Affine::new(device, sizes, 2 * units, first(Initializer::ONES))?;
        let first = first(Initializer::ZEROS);
        let rows_of_state = if self.reset_after { 0 } else { units };
        let hidden = || {
            let of_state = CellSize {
                input: units,
                ..sizes
            };
            Affine::with_state(device, of_state, 0, units, first)
        };
        Ok(GruCell {
            sizes,
            activation: self.activation,
            recurrent_activation: self.recurrent_activation,
            gates,
            candidate: Affine::with_state(device, sizes, rows_of_state, units, first)?,
            hidden: self.reset_after.then(hidden).transpose()?,
        })
    }
}

impl<B: Backend> Module for GruCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        v.child("gates", &mut self.gates);
        let Some(hidden) = &mut self.hidden else {
            return v.child("candidate", &mut self.candidate);
        };
        v.child("candidate/input_projection", &mut self.candidate);
        v.child("candidate/hidden_projection", hidden);
    }
}

impl<B: Backend> Cell for GruCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "gru_cell".into()
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
        // `u`, and `r` times the operand.
        let op = Op::Fused(Fused::GruGates {
            activation: self.recurrent_activation,
        });
        let gates = |of: &Tensor<B>| Tensor::call_all(device, &op, &[&z, of]);
        let (gates, z) = match &self.hidden {
            None => {
                let gates = gates(h)?;
                let z = self.candidate.apply(x, &gates[1])?;
                (gates, z)
            }
            Some(hidden) => {
                let gates = gates(&hidden.project(h)?)?;
                let z = self.candidate.project(x)?.add(&gates[1])?;
                (gates, z)
            }
        };
        let op = Op::Fused(Fused::GruOutput {
            activation: self.activation,
        });
        let h = Tensor::call_all(device, &op, &[&z, &gates[0], h])?.swap_remove(0);
        Ok((h.clone(), h))
    }
}
