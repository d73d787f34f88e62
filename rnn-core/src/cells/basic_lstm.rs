//! The LSTM cell without peepholes, clipping or projection.

use backend_api::{Activation, Backend, Error, Fused, LstmGates, Op, Result, Tensor};

use super::builder::cell_builder;
use super::{Affine, CellSize, First};
use crate::{Cell, Initializer, Module, StepContext, Visitor, nest};

backend_api::shared_doc! { lstm_state_doc:
/// The state of an LSTM; TensorFlow's `LSTMStateTuple`, with the same order of fields.
///
/// ```
/// use recurrent::{BasicLstmCell, Device, DynamicRnn, LstmState, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicLstmCell::new(&device, 4, 8)?;
/// let (c, h) = (Tensor::ones(&device, &[2, 8])?, Tensor::zeros(&device, &[2, 8])?);
/// let rnn = DynamicRnn::new(&cell).initial_state(LstmState { c, h });
/// let LstmState { h, .. } = rnn.run(&Tensor::ones(&device, &[2, 5, 4])?)?.state;
/// assert_eq!(h.shape().dims(), [2, 8]);
/// # Ok(()) }
/// ```
}

nest! {
    #[doc = lstm_state_doc!()]
    pub struct LstmState<B> {
        /// The cell state, `[batch, units]`.
        c: Tensor<B>,
        /// The hidden state, which is also the output, `[batch, units]`.
        h: Tensor<B>,
    }
}

impl<B: Backend> LstmState<B> {
    /// The next state, from the gates before their activations and the old cell state.
    pub(crate) fn next(gates: LstmGates, z: &Tensor<B>, c: &Tensor<B>) -> Result<Self> {
        let op = Op::Fused(Fused::LstmStep(gates));
        let mut results = Tensor::call_all(z.device(), &op, &[z, c])?;
        results.truncate(2);
        match (results.pop(), results.pop()) {
            (Some(h), Some(c)) => Ok(Self { c, h }),
            _ => Err(Error::argument("lstm_step", "results", "are missing")),
        }
    }
}

backend_api::shared_doc! { basic_lstm_cell_doc:
/// The basic LSTM cell (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000;
/// TensorFlow's `BasicLSTMCell`). With `i, j, f, o` the four parts of `[x, h] · kernel + bias`:
///
/// `c' = c * σ(f + forget_bias) + σ(i) * act(j)`, `h' = act(c') * σ(o)`; the output is `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + units, 4 units]`, rows `x, h`, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]` | 0 |
///
/// `forget_bias` is added at run time and is not part of `bias`.
/// Input `[batch, input]`, state [`LstmState`](crate::LstmState), output `[batch, units]`.
///
/// ```
/// use recurrent::{BasicLstmCell, Cell, Device, StepContext, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicLstmCell::new(&device, 3, 5)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3])?;
/// let (output, state) = cell.step(&StepContext::default(), &x, &cell.zero_state(2)?)?;
/// assert_eq!(output.to_vec::<f32>()?, state.h.to_vec::<f32>()?);
/// # Ok(()) }
/// ```
}

#[doc = basic_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct BasicLstmCell<B: Backend> {
    sizes: CellSize,
    gates: LstmGates,
    affine: Affine<B>,
}

impl<B: Backend> BasicLstmCell<B> {
    /// Value added to the forget gate before its sigmoid; it is not part of the bias.
    pub fn forget_bias(&self) -> f64 {
        self.gates.forget_bias
    }

    /// The activation of the candidate and of the new cell state.
    pub fn activation(&self) -> Activation {
        self.gates.activation
    }

    fn check_state(&self, state: &LstmState<B>, batch: usize) -> Result<()> {
        self.sizes.state("state c", &state.c, batch)?;
        self.sizes.state("state h", &state.h, batch)
    }
}

cell_builder! {
    BasicLstmCellBuilder builds BasicLstmCell, TensorFlow "BasicLSTMCell", scope "basic_lstm_cell";
    num_units;
    /// Value added to the forget gate before its sigmoid. Default: 1, so that the cell initially
    /// keeps its state.
    forget_bias: f64 = 1.0,
    /// Activation of the candidate and of the new cell state. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Initializer of the kernel. Default: Glorot uniform.
    kernel_initializer: Initializer,
}

impl BasicLstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<BasicLstmCell<B>> {
        let sizes = self.sizes()?;
        Ok(BasicLstmCell {
            sizes,
            gates: LstmGates {
                recurrent_activation: Activation::Sigmoid,
                forget_bias: self.forget_bias,
                activation: self.activation,
            },
            affine: Affine::new(
                device,
                sizes,
                4 * sizes.units,
                First::kernel(self.kernel_initializer),
            )?,
        })
    }
}

impl<B: Backend> Module for BasicLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        self.affine.params(v);
    }
}

impl<B: Backend> Cell for BasicLstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "basic_lstm_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        let zeros = self.zero_output(batch)?;
        Ok(LstmState {
            c: zeros.clone(),
            h: zeros,
        })
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.affine.device(), batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        let batch = self.sizes.input(x)?;
        self.check_state(state, batch)?;
        let z = self.affine.apply(x, &state.h)?;
        let state = LstmState::next(self.gates, &z, &state.c)?;
        Ok((state.h.clone(), state))
    }
}
