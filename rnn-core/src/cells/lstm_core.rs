//! The common part of LSTMs with peepholes, clipping, projection or normalization: everything
//! except the kernel and the bias.

use backend_api::{Activation, Backend, Distribution, LstmGates, Result, Tensor};

use super::layer_norm::GateNorms;
use super::math::{check_limit, clip};
use super::{CellSize, LstmState};
use crate::limits::{check_elements, check_sizes};
use crate::{Initializer, Module, Param, StepContext, Visitor};

/// The sizes of a cell whose state is an [`LstmState`], and checks against them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LstmSizes {
    cell: CellSize,
    /// The sizes of `h`, whose width a projection changes.
    output: CellSize,
}

impl LstmSizes {
    pub(crate) fn new(cell: CellSize, num_proj: Option<usize>) -> Result<Self> {
        if let Some(p) = num_proj {
            check_sizes(cell.cell, [("num_proj", p)])?;
            check_elements(cell.cell, "num_proj", &[p, cell.units])?;
        }
        let units = num_proj.unwrap_or(cell.units);
        Ok(Self {
            cell,
            output: CellSize { units, ..cell },
        })
    }

    /// The width of `h`.
    pub(crate) fn output(self) -> usize {
        self.output.units
    }

    /// Visits the element type.
    pub(crate) fn params<B: Backend>(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.cell.dtype);
        v.dtype(&mut self.output.dtype);
    }

    /// Checks the operands of one step.
    pub(crate) fn step<B: Backend>(self, x: &Tensor<B>, state: &LstmState<B>) -> Result<()> {
        self.state(state, self.cell.input(x)?)
    }

    fn state<B: Backend>(self, state: &LstmState<B>, batch: usize) -> Result<()> {
        self.cell.state("state c", &state.c, batch)?;
        self.output.state("state h", &state.h, batch)
    }

    pub(crate) fn zero_state<B: Backend>(self, device: &B, batch: usize) -> Result<LstmState<B>> {
        Ok(LstmState {
            c: self.cell.zeros(device, batch)?,
            h: self.zero_output(device, batch)?,
        })
    }

    pub(crate) fn zero_output<B: Backend>(self, device: &B, batch: usize) -> Result<Tensor<B>> {
        self.output.zeros(device, batch)
    }
}

/// Peephole weights: how the gates depend on the cell state (Gers & Schmidhuber 2000).
#[derive(Clone, Debug)]
pub(crate) struct Peepholes<B: Backend> {
    f: Param<B>,
    i: Param<B>,
    o: Param<B>,
}

impl<B: Backend> Peepholes<B> {
    fn new(device: &B, sizes: CellSize, initializer: Initializer) -> Result<Self> {
        let vector = || Param::new(device, initializer, &[sizes.units], sizes.dtype);
        Ok(Self {
            f: vector()?,
            i: vector()?,
            o: vector()?,
        })
    }
}

/// Recurrent dropout (Semeniuta et al. 2016) of the candidate, in training only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CandidateDropout {
    pub(crate) keep_prob: f64,
    pub(crate) seed: i64,
}

impl CandidateDropout {
    fn apply<B: Backend>(self, cx: &StepContext, g: Tensor<B>) -> Result<Tensor<B>> {
        if !cx.is_training() {
            return Ok(g);
        }
        let key = cx.key("recurrent_dropout").salted(self.seed as u64);
        let keep = self.keep_prob;
        let uniform = Distribution::Uniform {
            low: keep,
            high: keep + 1.0,
        };
        // 1 with probability `keep`, else 0. Not drawn in 16 bits: rounding would change the
        // probability.
        let (dtype, wide) = (g.dtype(), g.cast(g.dtype().computed_in())?);
        let mask = Tensor::random(g.device(), key, uniform, wide.meta())?.floor()?;
        wide.mul(&mask.affine(1.0 / keep, 0.0)?)?.cast(dtype)
    }
}

/// The options that LSTMs have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LstmOptions {
    pub(crate) use_peepholes: bool,
    pub(crate) cell_clip: Option<f64>,
    pub(crate) num_proj: Option<usize>,
    pub(crate) proj_clip: Option<f64>,
    pub(crate) forget_bias: f64,
    pub(crate) activation: Activation,
    /// The initializer of the peepholes.
    pub(crate) initializer: Option<Initializer>,
}

impl LstmOptions {
    pub(crate) fn build<B: Backend>(
        self,
        device: &B,
        sizes: CellSize,
        norms: Option<GateNorms<B>>,
    ) -> Result<LstmCore<B>> {
        check_limit(sizes.cell, "cell_clip", self.cell_clip)?;
        check_limit(sizes.cell, "proj_clip", self.proj_clip)?;
        let initializer = self.initializer.unwrap_or_default();
        let peepholes = || Peepholes::new(device, sizes, initializer);
        Ok(LstmCore {
            sizes: LstmSizes::new(sizes, self.num_proj)?,
            gates: LstmGates {
                recurrent_activation: Activation::Sigmoid,
                forget_bias: self.forget_bias,
                activation: self.activation,
            },
            cell_clip: self.cell_clip,
            proj_clip: self.proj_clip,
            norms,
            peepholes: self.use_peepholes.then(peepholes).transpose()?,
            dropout: None,
            straight_through: false,
        })
    }
}

/// An LSTM without its kernel and bias.
#[derive(Clone, Debug)]
pub(crate) struct LstmCore<B: Backend> {
    pub(crate) sizes: LstmSizes,
    pub(crate) gates: LstmGates,
    cell_clip: Option<f64>,
    proj_clip: Option<f64>,
    norms: Option<GateNorms<B>>,
    peepholes: Option<Peepholes<B>>,
    pub(crate) dropout: Option<CandidateDropout>,
    /// Whether the gradient ignores `cell_clip`.
    pub(crate) straight_through: bool,
}

impl<B: Backend> LstmCore<B> {
    pub(crate) fn forget_bias(&self) -> f64 {
        self.gates.forget_bias
    }

    pub(crate) fn activation(&self) -> Activation {
        self.gates.activation
    }

    pub(crate) fn cell_clip(&self) -> Option<f64> {
        self.cell_clip
    }

    pub(crate) fn proj_clip(&self) -> Option<f64> {
        self.proj_clip
    }

    /// Whether the gates are normalized; their bias is then unused.
    pub(crate) fn is_normalized(&self) -> bool {
        self.norms.is_some()
    }

    /// Whether this is the plain LSTM, for which devices have kernels.
    fn is_plain(&self, projects: bool) -> bool {
        self.norms.is_none()
            && self.peepholes.is_none()
            && self.cell_clip.is_none()
            && self.dropout.is_none()
            && !projects
    }

    /// One step from the gates before their activations, `z = [x, h] · kernel + bias`.
    pub(crate) fn step(
        &self,
        cx: &StepContext,
        z: &Tensor<B>,
        projection: Option<&Tensor<B>>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        if self.is_plain(projection.is_some()) {
            let state = LstmState::next(self.gates, z, &state.c)?;
            return Ok((state.h.clone(), state));
        }
        let activation = self.gates.activation;
        let gate = |z: &Tensor<B>| z.activate(self.gates.recurrent_activation);
        let mut z = z.split_last(4)?;
        if let Some(norms) = &self.norms {
            z = norms.gates(&z)?;
        }
        let [i, j, f, o] = [&z[0], &z[1], &z[2], &z[3]];
        let f = f.affine(1.0, self.gates.forget_bias)?;
        let (i, f) = match &self.peepholes {
            Some(w) => (i.add(&state.c.mul(&w.i)?)?, f.add(&state.c.mul(&w.f)?)?),
            None => (i.clone(), f),
        };
        let mut g = j.activate(activation)?;
        if let Some(dropout) = self.dropout {
            g = dropout.apply(cx, g)?;
        }
        let kept = state.c.mul(&gate(&f)?)?;
        let mut c = kept.add(&gate(&i)?.mul(&g)?)?;
        if let Some(norms) = &self.norms {
            c = norms.state(&c)?;
        }
        let c = if self.straight_through {
            let cut = clip(c.detach(), self.cell_clip)?;
            c.add(&cut.sub(c.detach())?)?
        } else {
            clip(c, self.cell_clip)?
        };
        let o = match &self.peepholes {
            Some(w) => o.add(&c.mul(&w.o)?)?,
            None => o.clone(),
        };
        let mut h = gate(&o)?.mul(&c.activate(activation)?)?;
        if let Some(projection) = projection {
            h = clip(h.matmul(projection)?, self.proj_clip)?;
        }
        Ok((h.clone(), LstmState { c, h }))
    }
}

impl<B: Backend> Module for LstmCore<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.sizes.params(v);
        if let Some(norms) = &mut self.norms {
            norms.params(v);
        }
        if let Some(w) = &mut self.peepholes {
            v.param("w_f_diag", &mut w.f);
            v.param("w_i_diag", &mut w.i);
            v.param("w_o_diag", &mut w.o);
        }
    }
}
