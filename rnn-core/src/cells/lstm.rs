//! The LSTM cell with everything: peepholes, clipping, projection.

use backend_api::{Activation, Backend, DType, Error, LstmGates, Recurrence, Result, Tensor};
use serde::Deserialize;

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
    sizes: Sizes,
    gates: LstmGates,
    cell_clip: Option<f64>,
    proj_clip: Option<f64>,
    /// Whether the gradient ignores `cell_clip`.
    straight_through: bool,
    affine: Affine<B>,
    peepholes: Option<Peepholes<B>>,
    projection: Option<Param<B>>,
}

/// How the gates look at the cell state.
#[derive(Clone, Debug)]
struct Peepholes<B: Backend> {
    f: Param<B>,
    i: Param<B>,
    o: Param<B>,
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

    /// The width of `h`.
    fn output_size(&self) -> usize {
        match &self.projection {
            Some(projection) => projection.shape()[1],
            None => self.sizes.units,
        }
    }

    /// Whether this is the plain LSTM that devices have kernels for.
    fn is_plain(&self) -> bool {
        self.peepholes.is_none() && self.projection.is_none() && self.cell_clip.is_none()
    }

    /// A step from the projected input.
    fn gated(
        &self,
        z: &Tensor<B>,
        kernel: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        if self.is_plain() {
            let state = state.step(self.gates, z, kernel)?;
            return Ok((state.h.clone(), state));
        }
        let activation = self.gates.activation;
        let z = state.h.matmul_add(kernel, z)?.split_last(4)?;
        let [i, j, f, o] = [&z[0], &z[1], &z[2], &z[3]];
        let f = f.affine(1.0, self.gates.forget_bias)?;
        let (i, f) = match &self.peepholes {
            Some(w) => (i.add(&state.c.mul(&w.i)?)?, f.add(&state.c.mul(&w.f)?)?),
            None => (i.clone(), f),
        };
        let kept = state.c.mul(&f.sigmoid()?)?;
        let c = kept.add(&i.sigmoid()?.mul(&j.activate(activation)?)?)?;
        let c = if self.straight_through {
            let cut = clip(c.detach(), self.cell_clip)?;
            c.add(&cut.sub(&c.detach())?)?
        } else {
            clip(c, self.cell_clip)?
        };
        let o = match &self.peepholes {
            Some(w) => o.add(&c.mul(&w.o)?)?,
            None => o.clone(),
        };
        let mut h = o.sigmoid()?.mul(&c.activate(activation)?)?;
        if let Some(projection) = &self.projection {
            h = clip(h.matmul(projection)?, self.proj_clip)?;
        }
        Ok((h.clone(), LstmState { c, h }))
    }

    fn check_state(&self, state: &LstmState<B>, batch: usize) -> Result<()> {
        self.sizes.state("state c", &state.c, batch)?;
        let wide = Sizes {
            units: self.output_size(),
            ..self.sizes
        };
        wide.state("state h", &state.h, batch)
    }
}

fn clip<B: Backend>(t: Tensor<B>, limit: Option<f64>) -> Result<Tensor<B>> {
    match limit {
        Some(limit) => t.clamp(-limit, limit),
        None => Ok(t),
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
        for (arg, clip) in [("cell_clip", self.cell_clip), ("proj_clip", self.proj_clip)] {
            if clip.is_some_and(|clip| !(clip >= 0.0)) {
                return Err(Error::argument(
                    sizes.cell,
                    arg,
                    "must not be negative or NaN",
                ));
            }
        }
        if self.num_proj == Some(0) {
            return Err(Error::argument(sizes.cell, "num_proj", "must not be 0"));
        }
        let units = sizes.units;
        let state = self.num_proj.unwrap_or(units);
        let glorot =
            |dims: &[usize]| Param::new(device, Initializer::GlorotUniform, dims, sizes.dtype);
        let peepholes = || {
            Ok::<_, Error>(Peepholes {
                f: glorot(&[units])?,
                i: glorot(&[units])?,
                o: glorot(&[units])?,
            })
        };
        Ok(LstmCell {
            sizes,
            gates: LstmGates {
                forget_bias: self.forget_bias,
                activation: self.activation,
            },
            cell_clip: self.cell_clip,
            proj_clip: self.proj_clip,
            straight_through,
            affine: Affine::with_state(device, sizes, state, 4 * units, Initializer::ZEROS)?,
            peepholes: self.use_peepholes.then(peepholes).transpose()?,
            projection: self.num_proj.map(|p| glorot(&[units, p])).transpose()?,
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
        if let Some(w) = &mut self.peepholes {
            v.param("w_f_diag", &mut w.f);
            v.param("w_i_diag", &mut w.i);
            v.param("w_o_diag", &mut w.o);
        }
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
        Ok(LstmState {
            c: self.sizes.zeros(self.affine.device(), batch)?,
            h: self.zero_output(batch)?,
        })
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        let wide = Sizes {
            units: self.output_size(),
            ..self.sizes
        };
        wide.zeros(self.affine.device(), batch)
    }

    fn step(
        &self,
        _: &Step,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        let batch = self.sizes.input(x)?;
        self.check_state(state, batch)?;
        let z = self.affine.project(x)?;
        self.gated(&z, &self.affine.recurrent_kernel()?, state)
    }

    fn unroll(
        &self,
        u: &Unroll<B>,
        xs: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        let batch = self.sizes.sequence(xs)?;
        self.check_state(state, batch)?;
        let cell = self.clone();
        u.segments(xs, state, move |u, xs, state| {
            let z = cell.affine.project(xs)?;
            let kernel = cell.affine.recurrent_kernel()?;
            if cell.is_plain()
                && let Some(result) =
                    state.sequence(u, Recurrence::Lstm(cell.gates), &z, &kernel)?
            {
                return Ok(result);
            }
            let zero = cell.zero_output(u.batch())?;
            u.scan(&z, state, &zero, |_, z, state| {
                cell.gated(z, &kernel, state)
            })
        })
    }
}
