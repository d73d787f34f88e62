//! The LSTM cell with peepholes, clipping, projection and layer normalization.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::layer_norm::GateNorms;
use super::lstm_core::{LstmCore, LstmOptions};
use super::{Affine, First, LstmState};
use crate::{Cell, Initializer, Module, Param, StepContext, Visitor};

backend_api::shared_doc! { layer_norm_lstm_cell_doc:
/// [`LstmCell`](crate::cells::LstmCell) with layer normalization (Ba et al. 2016; TensorFlow's
/// `tf.contrib.rnn.LayerNormLSTMCell`). With `i, j, f, o` the four parts of `[x, h] · kernel`, each
/// normalized over its units, and optional terms in brackets:
///
/// `c' = clip(LN(σ(f + forget_bias [+ w_f_diag * c]) * c + σ(i [+ w_i_diag * c]) * act(j)))`,
/// `h' = clip(σ(o [+ w_o_diag * c']) * act(c') [· projection])`; the output is `h'`.
///
/// `LN(v) = (v - mean) / sqrt(variance + 1e-12) * gamma + beta`. Each use has its own `gamma` and
/// `beta`, in these scopes: `input` for `i`, `transform` for `j`, `forget` for `f`, `output` for
/// `o`, `state` for `c'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + p, 4 units]`, rows `x, h`, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]`; unused with layer normalization, as in TensorFlow | 0 |
/// | `{input,transform,forget,output,state}/gamma` | `[units]`, if normalized | `norm_gain` |
/// | `{input,transform,forget,output,state}/beta` | `[units]`, if normalized | `norm_shift` |
/// | `w_f_diag`, `w_i_diag`, `w_o_diag` | `[units]`, with peepholes | Glorot uniform |
/// | `projection/kernel` | `[units, p]`, with a projection | Glorot uniform |
///
/// `p` is `num_proj`, or `units` without a projection. Input `[batch, input]`; state `c`
/// `[batch, units]`, `h` `[batch, p]`; output `[batch, p]`.
///
/// ```
/// use recurrent::cells::{LayerNormLstmCell, LayerNormLstmCellBuilder};
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = LayerNormLstmCellBuilder::new(3, 8).layer_norm(true).build(&device)?;
/// assert_eq!(cell.param_count(), 11 * 32 + 32 + 5 * 2 * 8);
/// // TensorFlow's default is an LSTM without normalization.
/// assert_eq!(LayerNormLstmCell::new(&device, 3, 8)?.param_count(), 11 * 32 + 32);
/// # Ok(()) }
/// ```
}

#[doc = layer_norm_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct LayerNormLstmCell<B: Backend> {
    affine: Affine<B>,
    core: LstmCore<B>,
    projection: Option<Param<B>>,
}

cell_builder! {
    LayerNormLstmCellBuilder builds LayerNormLstmCell,
    TensorFlow "LayerNormLSTMCell", scope "layer_norm_lstm_cell";
    num_units;
    /// Whether the gates depend on the cell state (Gers & Schmidhuber 2000).
    use_peepholes: bool = false,
    /// Value added to the forget gate before its sigmoid. Default: 1.
    forget_bias: f64 = 1.0,
    /// Activation of the candidate and of the new cell state. Default: tanh.
    activation: Activation = Activation::Tanh,
    /// Whether to apply layer normalization. Default: false.
    layer_norm: bool = false,
    /// Initial value of every `gamma`. Default: 1.
    norm_gain: f64 = 1.0,
    /// Initial value of every `beta`. Default: 0.
    norm_shift: f64 = 0.0,
    ;
    /// Clips the new cell state to `±cell_clip`.
    cell_clip: f64,
    /// Width of the output projection. Default: no projection.
    num_proj: usize,
    /// Clips the projected output to `±proj_clip`. No effect without a projection, as in
    /// TensorFlow.
    proj_clip: f64,
    /// Initializer of the kernel, the peepholes and the projection. Default: Glorot uniform.
    initializer: Initializer,
}

impl LayerNormLstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, a clip is negative or NaN, the type is not a float, or the device is out of
    /// memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<LayerNormLstmCell<B>> {
        let sizes = self.sizes()?;
        let names = ["input", "transform", "forget", "output"];
        let norms = || GateNorms::new(device, sizes, &names, self.norm_gain, self.norm_shift);
        let core = LstmOptions {
            use_peepholes: self.use_peepholes,
            cell_clip: self.cell_clip,
            num_proj: self.num_proj,
            proj_clip: self.proj_clip,
            forget_bias: self.forget_bias,
            activation: self.activation,
            initializer: self.initializer,
        }
        .build(device, sizes, self.layer_norm.then(norms).transpose()?)?;
        let (units, output) = (sizes.units, core.sizes.output());
        let first = First::kernel(self.initializer);
        let projection = |p| Param::new(device, first.kernel, &[units, p], sizes.dtype);
        Ok(LayerNormLstmCell {
            affine: Affine::with_state(device, sizes, output, 4 * units, first)?,
            core,
            projection: self.num_proj.map(projection).transpose()?,
        })
    }
}

impl<B: Backend> Module for LayerNormLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.affine.params(v);
        self.core.params(v);
        if let Some(projection) = &mut self.projection {
            v.param("projection/kernel", projection);
        }
    }
}

impl<B: Backend> Cell for LayerNormLstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "layer_norm_lstm_cell".into()
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
        let z = match self.core.is_normalized() {
            true => self.affine.product(x, &state.h)?,
            false => self.affine.apply(x, &state.h)?,
        };
        self.core.step(cx, &z, self.projection.as_deref(), state)
    }
}
