//! The LSTM cell with peepholes, clipping and projection.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::lstm_core::{LstmCore, LstmOptions};
use super::{Affine, CellSize, First, LstmState};
use crate::{Cell, Initializer, Module, Param, StepContext, Visitor};

backend_api::shared_doc! { lstm_cell_doc:
/// The LSTM cell (Sak et al. 2014; TensorFlow's `LSTMCell`). With `i, j, f, o` the four parts of
/// `[x, h] · kernel + bias`, and optional terms in brackets:
///
/// `c' = clip(σ(f + forget_bias [+ w_f_diag * c]) * c + σ(i [+ w_i_diag * c]) * act(j))`,
/// `h' = clip(σ(o [+ w_o_diag * c']) * act(c') [· projection])`; the output is `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + p, 4 units]`, rows `x, h`, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]` | 0 |
/// | `w_f_diag`, `w_i_diag`, `w_o_diag` | `[units]`, with peepholes | Glorot uniform |
/// | `projection/kernel` | `[units, p]`, with a projection | Glorot uniform |
///
/// `p` is `num_proj`, or `units` without a projection. Input `[batch, input]`; state `c`
/// `[batch, units]`, `h` `[batch, p]`; output `[batch, p]`. The gradient of a clipped value is 0.
///
/// ```
/// use recurrent::cells::LstmCellBuilder;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = LstmCellBuilder::new(3, 8).use_peepholes(true).num_proj(5).build(&Device::cpu())?;
/// let state = cell.zero_state(2)?;
/// assert_eq!((state.c.shape().dims(), state.h.shape().dims()), (&[2, 8][..], &[2, 5][..]));
/// # Ok(()) }
/// ```
}

#[doc = lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct LstmCell<B: Backend> {
    affine: Affine<B>,
    core: LstmCore<B>,
    projection: Option<Param<B>>,
}

cell_builder! {
    LstmCellBuilder builds LstmCell, TensorFlow "LSTMCell", scope "lstm_cell";
    num_units;
    /// Whether the gates depend on the cell state (Gers & Schmidhuber 2000).
    use_peepholes: bool = false,
    /// Value added to the forget gate before its sigmoid. Default: 1.
    forget_bias: f64 = 1.0,
    /// Activation of the candidate and of the new cell state. Default: tanh.
    activation: Activation = Activation::Tanh,
    /// Activation of the gates, `σ` in the equations. Default: sigmoid. Models of Keras have
    /// others.
    recurrent_activation: Activation = Activation::Sigmoid,
    ;
    /// Clips the new cell state to `±clip`.
    cell_clip: f64,
    /// Width of the output projection. Default: no projection.
    num_proj: usize,
    /// Clips the projected output to `±clip`. No effect without a projection, as in TensorFlow.
    proj_clip: f64,
    /// Initializer of the kernel, the peepholes and the projection. Default: Glorot uniform.
    initializer: Initializer,
}

impl LstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, a clip is negative or NaN, the type is not a float, or the device is out of
    /// memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<LstmCell<B>> {
        self.sizes()
            .and_then(|sizes| self.build_with(sizes, false, device))
    }

    /// Builds the cell for a class that computes the same. `cell` is its name in messages. With
    /// `straight_through`, the gradient ignores `cell_clip`.
    pub(crate) fn build_as<B: Backend>(
        self,
        cell: &'static str,
        straight_through: bool,
        device: &B,
    ) -> Result<LstmCell<B>> {
        self.sizes_as(cell)
            .and_then(|sizes| self.build_with(sizes, straight_through, device))
    }

    fn build_with<B: Backend>(
        self,
        sizes: CellSize,
        straight_through: bool,
        device: &B,
    ) -> Result<LstmCell<B>> {
        let mut core = LstmOptions {
            use_peepholes: self.use_peepholes,
            cell_clip: self.cell_clip,
            num_proj: self.num_proj,
            proj_clip: self.proj_clip,
            forget_bias: self.forget_bias,
            activation: self.activation,
            initializer: self.initializer,
        }
        .build(device, sizes, None)?;
        core.straight_through = straight_through;
        core.gates.recurrent_activation = self.recurrent_activation;
        let (units, output) = (sizes.units, core.sizes.output());
        let first = First::kernel(self.initializer);
        let projection = |p| Param::new(device, first.kernel, &[units, p], sizes.dtype);
        Ok(LstmCell {
            affine: Affine::with_state(device, sizes, output, 4 * units, first)?,
            core,
            projection: self.num_proj.map(projection).transpose()?,
        })
    }
}

impl<B: Backend> LstmCell<B> {
    /// Value added to the forget gate before its sigmoid; it is not part of the bias.
    pub fn forget_bias(&self) -> f64 {
        self.core.forget_bias()
    }

    /// The activation of the candidate and of the new cell state.
    pub fn activation(&self) -> Activation {
        self.core.activation()
    }

    /// The activation of the gates.
    pub fn recurrent_activation(&self) -> Activation {
        self.core.gates.recurrent_activation
    }

    /// The cell with another activation of the gates and the same parameters.
    ///
    /// ```
    /// use recurrent::{Activation, Device, LstmCell};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let cell = LstmCell::new(&Device::cpu(), 3, 8)?;
    /// let cell = cell.with_recurrent_activation(Activation::HardSigmoid);
    /// assert_eq!(cell.recurrent_activation(), Activation::HardSigmoid);
    /// # Ok(()) }
    /// ```
    pub fn with_recurrent_activation(mut self, activation: Activation) -> Self {
        self.core.gates.recurrent_activation = activation;
        self
    }

    /// The limit of the new cell state, if there is one.
    pub fn cell_clip(&self) -> Option<f64> {
        self.core.cell_clip()
    }

    /// The limit of the projected output, if there is one.
    pub fn proj_clip(&self) -> Option<f64> {
        self.core.proj_clip()
    }
}

impl<B: Backend> Module for LstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.affine.params(v);
        self.core.params(v);
        if let Some(projection) = &mut self.projection {
            v.param("projection/kernel", projection);
        }
    }
}

impl<B: Backend> Cell for LstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "lstm_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        self.core.sizes.zero_state(self.affine.device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.core.sizes.zero_output(self.affine.device(), batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        self.core.sizes.step(x, state)?;
        let z = self.affine.apply(x, &state.h)?;
        self.core.step(cx, &z, self.projection.as_deref(), state)
    }
}
