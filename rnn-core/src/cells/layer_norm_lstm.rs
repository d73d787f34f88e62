//! The LSTM cell with everything and layer normalization.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::layer_norm::GateNorms;
use super::lstm_core::{LstmCore, LstmKernels, LstmOptions};
use super::math::product;
use super::{Affine, First, LstmState};
use crate::{Cell, Initializer, Module, Param, Step, Unroll, Visitor};

/// The LSTM cell of [`LstmCell`](super::LstmCell) with layer normalization (Ba et al. 2016; TensorFlow's
/// `tf.contrib.rnn.LayerNormLSTMCell`). With `i, j, f, o` the four parts of `[x, h] · kernel`, each normalized over
/// its units, and the parts in brackets as options ask for them:
///
/// `c' = clip(LN(σ(f + forget_bias [+ w_f_diag * c]) * c + σ(i [+ w_i_diag * c]) * act(j)))`,
/// `h' = clip(σ(o [+ w_o_diag * c']) * act(c') [· projection])`; the output is `h'`.
///
/// `LN(v) = (v - mean) / sqrt(variance + 1e-12) * gamma + beta`, with a `gamma` and a `beta` for each use: those of `i`
/// are in `input`, of `j` in `transform`, of `f` in `forget`, of `o` in `output`, of `c'` in `state`.
///
/// | parameter | shape | first value |
/// |---|---|---|
/// | `kernel` | `[input + p, 4 units]`, rows of the input first, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]`; unused with layer normalization, as in TensorFlow | 0 |
/// | `{input,transform,forget,output,state}/gamma` | `[units]`, with layer normalization | `norm_gain` |
/// | `{input,transform,forget,output,state}/beta` | `[units]`, with layer normalization | `norm_shift` |
/// | `w_f_diag`, `w_i_diag`, `w_o_diag` | `[units]`, with peepholes | Glorot uniform |
/// | `projection/kernel` | `[units, p]`, with a projection | Glorot uniform |
///
/// `p` is `num_proj`, or `units` without a projection. Input `[batch, input]`; state `c` `[batch, units]`, `h`
/// `[batch, p]`; output `[batch, p]`.
///
/// ```
/// use backend_cpu::Cpu;
/// use rnn_core::Module;
/// use rnn_core::cells::{LayerNormLstmCell, LayerNormLstmCellBuilder};
///
/// # fn main() -> backend_api::Result<()> {
/// let device = Cpu::new();
/// let cell = LayerNormLstmCellBuilder::new(3, 8).layer_norm(true).build(&device)?;
/// assert_eq!(cell.param_count(), 11 * 32 + 32 + 5 * 2 * 8);
/// // TensorFlow's default is an LSTM without normalization.
/// assert_eq!(LayerNormLstmCell::new(&device, 3, 8)?.param_count(), 11 * 32 + 32);
/// # Ok(()) }
/// ```
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
    /// Whether the gates look at the cell state (Gers & Schmidhuber 2000).
    use_peepholes: bool = false,
    /// What is added to the forget gate before its sigmoid; 1 if not given.
    forget_bias: f64 = 1.0,
    /// The activation of the candidate and of the new cell state; tanh if not given.
    activation: Activation = Activation::Tanh,
    /// Whether there is layer normalization; if not given, there is none.
    layer_norm: bool = false,
    /// The first value of every `gamma`; 1 if not given.
    norm_gain: f64 = 1.0,
    /// The first value of every `beta`; 0 if not given.
    norm_shift: f64 = 0.0,
    ;
    /// The new cell state is cut at `±cell_clip`.
    cell_clip: f64,
    /// The width that the output is projected to.
    num_proj: usize,
    /// The projected output is cut at `±proj_clip`. Without a projection it has no effect, as in TensorFlow.
    proj_clip: f64,
    /// The first values of the kernel, the peepholes and the projection; Glorot uniform if not given.
    initializer: Initializer,
}

impl LayerNormLstmCellBuilder {
    /// The cell.
    ///
    /// # Errors
    /// A size is 0, a clip is negative or NaN, the type is no float, or the device has no room.
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

impl<B: Backend> LayerNormLstmCell<B> {
    fn project(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        if self.core.is_normalized() {
            product(x, &self.affine.input_kernel()?)
        } else {
            self.affine.project(x)
        }
    }

    fn kernels(&self) -> Result<LstmKernels<B>> {
        Ok(LstmKernels {
            recurrent: self.affine.recurrent_kernel()?,
            projection: self.projection.as_deref().cloned(),
        })
    }
}

impl<B: Backend> Module for LayerNormLstmCell<B> {
    type B = B;
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
        cx: &Step,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        self.core.sizes.step(x, state)?;
        let z = self.project(x)?;
        self.core.step(cx, &z, &self.kernels()?, state)
    }

    fn unroll(
        &self,
        u: &Unroll<B>,
        xs: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        self.core.sizes.sequence(xs, state)?;
        let cell = self.clone();
        u.segments(xs, state, move |u, xs, state| {
            let z = cell.project(xs)?;
            cell.core.unroll(u, &z, &cell.kernels()?, state)
        })
    }
}
