//! The LSTM cell with everything: peepholes, clipping, projection.

use backend_api::{Activation, Backend, DType, Result, Tensor};
use serde::Deserialize;

use super::lstm_core::{LstmCore, LstmKernels, LstmOptions};
use super::{Affine, LstmState, Sizes};
use crate::{Cell, CellConfig, Initializer, Module, Param, Step, Unroll, Visitor};

/// The LSTM cell (Sak et al. 2014; TensorFlow's `LSTMCell`). With `i, j, f, o` the four parts of
/// `[x, h] · kernel + bias`, the parts in brackets as options ask for them:
///
/// `c' = clip(σ(f + forget_bias [+ w_f_diag * c]) * c + σ(i [+ w_i_diag * c]) * act(j))`,
/// `h' = clip(σ(o [+ w_o_diag * c']) * act(c') [· projection])`; the output is `h'`.
///
/// | parameter | shape | first value |
/// |---|---|---|
/// | `kernel` | `[input + p, 4 units]`, rows of the input first, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]` | 0 |
/// | `w_f_diag`, `w_i_diag`, `w_o_diag` | `[units]`, with peepholes | Glorot uniform |
/// | `projection/kernel` | `[units, p]`, with a projection | Glorot uniform |
///
/// `p` is `num_proj`, or `units` without a projection. Input `[batch, input]`; state `c` `[batch, units]`, `h`
/// `[batch, p]`; output `[batch, p]`. The gradient of a clipped value is 0 where it was cut.
///
/// ```
/// use backend_cpu::Cpu;
/// use rnn_core::Cell;
/// use rnn_core::cells::LstmCellBuilder;
///
/// # fn main() -> backend_api::Result<()> {
/// let cell = LstmCellBuilder::new(3, 8).use_peepholes(true).num_proj(5).build(&Cpu::new())?;
/// let state = cell.zero_state(2)?;
/// assert_eq!((state.c.shape().dims(), state.h.shape().dims()), (&[2, 8][..], &[2, 5][..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LstmCell<B: Backend> {
    affine: Affine<B>,
    core: LstmCore<B>,
    projection: Option<Param<B>>,
}

impl<B: Backend> LstmCell<B> {
    /// A cell with TensorFlow's defaults: `forget_bias` 1, tanh, no peepholes, clipping or projection, `f32`.
    ///
    /// # Errors
    /// A size is 0, or the device has no room.
    pub fn new(device: &B, input_size: usize, num_units: usize) -> Result<Self> {
        LstmCellBuilder::new(input_size, num_units).build(device)
    }

    /// A cell with options.
    pub fn builder(input_size: usize, num_units: usize) -> LstmCellBuilder {
        LstmCellBuilder::new(input_size, num_units)
    }

    fn kernels(&self) -> Result<LstmKernels<B>> {
        Ok(LstmKernels {
            recurrent: self.affine.recurrent_kernel()?,
            projection: self.projection.as_deref().cloned(),
        })
    }
}

/// Options of an [`LstmCell`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LstmCellBuilder {
    #[serde(skip)]
    input_size: usize,
    #[serde(skip)]
    dtype: DType,
    num_units: usize,
    #[serde(default)]
    use_peepholes: bool,
    #[serde(default)]
    cell_clip: Option<f64>,
    #[serde(default)]
    num_proj: Option<usize>,
    #[serde(default)]
    proj_clip: Option<f64>,
    #[serde(default = "one")]
    forget_bias: f64,
    #[serde(default)]
    activation: Activation,
}

fn one() -> f64 {
    1.0
}

impl LstmCellBuilder {
    /// TensorFlow's defaults.
    pub fn new(input_size: usize, num_units: usize) -> Self {
        Self {
            input_size,
            dtype: DType::F32,
            num_units,
            use_peepholes: false,
            cell_clip: None,
            num_proj: None,
            proj_clip: None,
            forget_bias: 1.0,
            activation: Activation::Tanh,
        }
    }

    /// Whether the gates look at the cell state (Gers & Schmidhuber 2000).
    pub fn use_peepholes(mut self, use_peepholes: bool) -> Self {
        self.use_peepholes = use_peepholes;
        self
    }

    /// The new cell state is cut at `±clip`.
    pub fn cell_clip(mut self, clip: f64) -> Self {
        self.cell_clip = Some(clip);
        self
    }

    /// The width that the output is projected to.
    pub fn num_proj(mut self, num_proj: usize) -> Self {
        self.num_proj = Some(num_proj);
        self
    }

    /// The projected output is cut at `±clip`. Without a projection it has no effect, as in TensorFlow.
    pub fn proj_clip(mut self, clip: f64) -> Self {
        self.proj_clip = Some(clip);
        self
    }

    /// What is added to the forget gate before its sigmoid; 1 if not given.
    pub fn forget_bias(mut self, forget_bias: f64) -> Self {
        self.forget_bias = forget_bias;
        self
    }

    /// The activation of the candidate and of the new cell state; tanh if not given.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The element type; `f32` if not given.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The cell.
    ///
    /// # Errors
    /// A size is 0, a clip is negative or NaN, the type is no float, or the device has no room.
    pub fn build<B: Backend>(self, device: &B) -> Result<LstmCell<B>> {
        self.build_as("lstm_cell", false, device)
    }

    /// The same for a cell that computes what this one does: under another name in messages, and with
    /// a gradient that ignores `cell_clip` if it is `straight_through`.
    pub(crate) fn build_as<B: Backend>(
        self,
        cell: &'static str,
        straight_through: bool,
        device: &B,
    ) -> Result<LstmCell<B>> {
        let sizes = Sizes {
            cell,
            input: self.input_size,
            units: self.num_units,
            dtype: self.dtype,
        }
        .check()?;
        let mut core = LstmOptions {
            use_peepholes: self.use_peepholes,
            cell_clip: self.cell_clip,
            num_proj: self.num_proj,
            proj_clip: self.proj_clip,
            forget_bias: self.forget_bias,
            activation: self.activation,
        }
        .build(device, sizes, None)?;
        core.straight_through = straight_through;
        let (units, output) = (sizes.units, core.sizes.output());
        let glorot = Initializer::GlorotUniform;
        let projection = |p| Param::new(device, glorot, &[units, p], sizes.dtype);
        Ok(LstmCell {
            affine: Affine::with_state(device, sizes, output, 4 * units, Initializer::ZEROS)?,
            core,
            projection: self.num_proj.map(projection).transpose()?,
        })
    }
}

impl CellConfig for LstmCellBuilder {
    const CLASS: &'static str = "LSTMCell";
    type Cell<B: Backend> = LstmCell<B>;

    fn build_for<B: Backend>(
        mut self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<LstmCell<B>> {
        self.input_size = input_size;
        self.dtype(dtype).build(device)
    }
}

impl<B: Backend> Module for LstmCell<B> {
    type B = B;
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
        cx: &Step,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        self.core.sizes.step(x, state)?;
        let z = self.affine.project(x)?;
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
            let z = cell.affine.project(xs)?;
            cell.core.unroll(u, &z, &cell.kernels()?, state)
        })
    }
}
