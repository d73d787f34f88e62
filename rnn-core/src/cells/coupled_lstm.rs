//! The LSTM cell with coupled input and forget gates.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::layer_norm::GateNorms;
use super::lstm_core::LstmSizes;
use super::math::{check_limit, clip, mix};
use super::sharded::Sharded;
use super::{CellSize, LstmState};
use crate::{Cell, Initializer, Module, Param, StepContext, Visitor};

backend_api::shared_doc! { coupled_input_forget_gate_lstm_cell_doc:
/// The LSTM cell with coupled input and forget gates (Greff et al. 2015; TensorFlow's
/// `tf.contrib.rnn.CoupledInputForgetGateLSTMCell`): the input gate is 1 minus the forget gate.
/// With `j, f, o` the three parts of `[x, h] · W + B`, and optional terms in brackets:
///
/// `s = σ(f + forget_bias [+ W_F_diag * c])`, `c' = s * c + (1 - s) * act(j)`,
/// `h' = clip(σ(o [+ W_O_diag * c']) * act(c') [· W_P])`; the output is `h'`.
///
/// With layer normalization, `B` is unused, and `j` (`transform`), `f` (`forget`), `o` (`output`)
/// and `c'` (`state`) are replaced by `(v - mean) / sqrt(variance + 1e-12) * gamma + beta`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `W_0`, `W_1`, .. | together `[input + p, 3 units]`, columns `j, f, o` | Glorot uniform |
/// | `B` | `[3 units]`; unused with layer normalization, as in TensorFlow | 0 |
/// | `{transform,forget,output,state}/gamma` | `[units]`, with layer normalization | `norm_gain` |
/// | `{transform,forget,output,state}/beta` | `[units]`, with layer normalization | `norm_shift` |
/// | `W_F_diag`, `W_O_diag` | `[units]`, with peepholes | Glorot uniform |
/// | `W_P_0`, `W_P_1`, .. | together `[units, p]`, with a projection | Glorot uniform |
///
/// `p` is `num_proj`, or `units` without a projection. The first rows of `W` are multiplied by `x`,
/// the others by `h`. Input `[batch, input]`; state `c` `[batch, units]`, `h` `[batch, p]`; output
/// `[batch, p]`.
///
/// ```
/// use recurrent::cells::CoupledInputForgetGateLstmCellBuilder;
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = CoupledInputForgetGateLstmCellBuilder::new(3, 8)
///     .num_unit_shards(2)
///     .build(&Device::cpu())?;
/// let params = cell.named_params();
/// let names: Vec<_> = params.iter().map(|(name, _)| name.as_str()).collect();
/// assert_eq!(names, ["W_0", "W_1", "B"]);
/// # Ok(()) }
/// ```
}

#[doc = coupled_input_forget_gate_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct CoupledInputForgetGateLstmCell<B: Backend> {
    input: usize,
    sizes: LstmSizes,
    forget_bias: f64,
    activation: Activation,
    proj_clip: Option<f64>,
    kernel: Sharded<B>,
    bias: Param<B>,
    norms: Option<GateNorms<B>>,
    /// Peephole weights of the forget and the output gate.
    peepholes: Option<[Param<B>; 2]>,
    projection: Option<Sharded<B>>,
}

cell_builder! {
    CoupledInputForgetGateLstmCellBuilder builds CoupledInputForgetGateLstmCell,
    TensorFlow "CoupledInputForgetGateLSTMCell", scope "coupled_input_forget_gate_lstm_cell";
    num_units;
    /// Whether the forget and the output gate depend on the cell state (Gers & Schmidhuber 2000).
    use_peepholes: bool = false,
    /// Number of variables that the kernel is split into. Default: 1.
    num_unit_shards: usize = 1,
    /// Number of variables that the projection is split into. Default: 1.
    num_proj_shards: usize = 1,
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
    /// Width of the output projection. Default: no projection.
    num_proj: usize,
    /// Clips the projected output to `±proj_clip`. No effect without a projection, as in
    /// TensorFlow.
    proj_clip: f64,
    /// Initializer of the kernel, the peepholes and the projection. Default: Glorot uniform.
    /// TensorFlow's cell accepts one and ignores it.
    initializer: Initializer,
}

impl CoupledInputForgetGateLstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, there are more shards than rows, the clip is negative or NaN, the type is not a
    /// float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<CoupledInputForgetGateLstmCell<B>> {
        let cell = self.sizes()?;
        let sizes = LstmSizes::new(cell, self.num_proj)?;
        check_limit(cell.cell, "proj_clip", self.proj_clip)?;
        let CellSize {
            input,
            units,
            dtype,
            ..
        } = cell;
        let kernel = [input + sizes.output(), 3 * units];
        let kernel_shards = ("num_unit_shards", self.num_unit_shards);
        let projection_shards = ("num_proj_shards", self.num_proj_shards);
        let first = self.initializer.unwrap_or_default();
        let projection = |p| Sharded::new(device, cell, [units, p], projection_shards, first);
        let names = ["transform", "forget", "output"];
        let norms = || GateNorms::new(device, cell, &names, self.norm_gain, self.norm_shift);
        let peephole = || Param::new(device, first, &[units], dtype);
        let peepholes = || Ok([peephole()?, peephole()?]);
        Ok(CoupledInputForgetGateLstmCell {
            input,
            sizes,
            forget_bias: self.forget_bias,
            activation: self.activation,
            proj_clip: self.proj_clip,
            kernel: Sharded::new(device, cell, kernel, kernel_shards, first)?,
            bias: Param::new(device, Initializer::ZEROS, &[3 * units], dtype)?,
            norms: self.layer_norm.then(norms).transpose()?,
            peepholes: self.use_peepholes.then(peepholes).transpose()?,
            projection: self.num_proj.map(projection).transpose()?,
        })
    }
}

impl<B: Backend> Module for CoupledInputForgetGateLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.sizes.params(v);
        self.kernel.params("W", v);
        v.param("B", &mut self.bias);
        if let Some(norms) = &mut self.norms {
            norms.params(v);
        }
        if let Some([f, o]) = &mut self.peepholes {
            v.param("W_F_diag", f);
            v.param("W_O_diag", o);
        }
        if let Some(projection) = &mut self.projection {
            projection.params("W_P", v);
        }
    }
}

impl<B: Backend> Cell for CoupledInputForgetGateLstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "coupled_input_forget_gate_lstm_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        self.sizes.zero_state(self.bias.device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zero_output(self.bias.device(), batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        self.sizes.step(x, state)?;
        let kernel = self.kernel.matrix()?;
        let of_x = kernel.slice(0, 0..self.input)?;
        let of_h = kernel.slice(0, self.input..kernel.shape()[0])?;
        let mut z = x.matmul(&of_x)?;
        if self.norms.is_none() {
            z = z.add(&self.bias)?;
        }
        let mut z = state.h.matmul_add(&of_h, &z)?.split_last(3)?;
        if let Some(norms) = &self.norms {
            z = norms.gates(&z)?;
        }
        let [j, f, o] = [&z[0], &z[1], &z[2]];
        let mut f = f.affine(1.0, self.forget_bias)?;
        if let Some([w, _]) = &self.peepholes {
            f = f.add(&state.c.mul(w)?)?;
        }
        let mut c = mix(&f.sigmoid()?, &state.c, &j.activate(self.activation)?)?;
        if let Some(norms) = &self.norms {
            c = norms.state(&c)?;
        }
        let o = match &self.peepholes {
            Some([_, w]) => o.add(&c.mul(w)?)?,
            None => o.clone(),
        };
        let mut h = o.sigmoid()?.mul(&c.activate(self.activation)?)?;
        if let Some(projection) = &self.projection {
            h = clip(h.matmul(&projection.matrix()?)?, self.proj_clip)?;
        }
        Ok((h.clone(), LstmState { c, h }))
    }
}
