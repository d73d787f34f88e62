//! The independently recurrent LSTM.

use backend_api::{Activation, Backend, LstmGates, Result, Tensor};

use super::builder::cell_builder;
use super::{CellSize, First, Independent, LstmState};
use crate::{Cell, Initializer, Module, StepContext, Visitor};

backend_api::shared_doc! { indy_lstm_cell_doc:
/// The LSTM with independent units: each unit depends only on its own state (after Li et al. 2018,
/// <https://arxiv.org/abs/1803.04831>; TensorFlow's `tf.contrib.rnn.IndyLSTMCell`). With
/// `i, j, f, o` the four parts of `x · kernel_w + h * kernel_u + bias`, where `*` repeats `h` for
/// each part:
///
/// `c' = c * σ(f + forget_bias) + σ(i) * act(j)`, `h' = act(c') * σ(o)`; the output is `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel_w` | `[input, 4 units]`, columns `i, j, f, o` | Glorot uniform |
/// | `kernel_u` | `[1, 4 units]` | uniform in `[-1, 1)` |
/// | `bias` | `[4 units]` | 0 |
///
/// `forget_bias` is added at run time and is not part of `bias`.
/// Input `[batch, input]`, state [`LstmState`](crate::LstmState), output `[batch, units]`.
///
/// ```
/// use recurrent::cells::IndyLstmCell;
/// use recurrent::{Cell, Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = IndyLstmCell::new(&Device::cpu(), 3, 5)?;
/// assert_eq!(cell.zero_state(2)?.c.shape().dims(), [2, 5]);
/// assert_eq!(cell.param_count(), 4 * (3 * 5 + 5 + 5));
/// # Ok(()) }
/// ```
}

#[doc = indy_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct IndyLstmCell<B: Backend> {
    sizes: CellSize,
    gates: LstmGates,
    kernels: Independent<B>,
}

cell_builder! {
    IndyLstmCellBuilder builds IndyLstmCell, TensorFlow "IndyLSTMCell", scope "indy_lstm_cell";
    num_units;
    /// Value added to the forget gate before its sigmoid. Default: 1.
    forget_bias: f64 = 1.0,
    /// Activation of the candidate and of the new cell state. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of the input kernel. Default: Glorot uniform.
    kernel_initializer: Initializer,
    /// Initializer of the bias. Default: 0.
    bias_initializer: Initializer,
}

impl IndyLstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<IndyLstmCell<B>> {
        let sizes = self.sizes()?;
        let zeros = Initializer::ZEROS;
        let first = First::new(self.kernel_initializer, self.bias_initializer, zeros);
        Ok(IndyLstmCell {
            sizes,
            gates: LstmGates {
                recurrent_activation: Activation::Sigmoid,
                forget_bias: self.forget_bias,
                activation: self.activation,
            },
            kernels: Independent::new(device, sizes, "kernel_w", 4, first)?,
        })
    }
}

impl<B: Backend> Module for IndyLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        self.kernels.params(v);
    }
}

impl<B: Backend> Cell for IndyLstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "indy_lstm_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        let zeros = self.zero_output(batch)?;
        Ok(LstmState {
            c: zeros.clone(),
            h: zeros,
        })
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.kernels.device(), batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        let batch = self.sizes.input(x)?;
        self.sizes.state("state c", &state.c, batch)?;
        self.sizes.state("state h", &state.h, batch)?;
        let z = self.kernels.apply(x, &state.h)?;
        let state = LstmState::next(self.gates, &z, &state.c)?;
        Ok((state.h.clone(), state))
    }
}
