//! The LSTM cell with peepholes, clipping, projection and weight normalization.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::lstm_core::{LstmCore, LstmOptions};
use super::math::l2_normalize;
use super::{Affine, First, LstmState};
use crate::{Cell, Initializer, Module, Param, StepContext, Visitor};

backend_api::shared_doc! { weight_norm_lstm_cell_doc:
/// [`LstmCell`](crate::cells::LstmCell) with weight normalization (Salimans & Kingma 2016;
/// TensorFlow's `tf.contrib.rnn.WeightNormLSTMCell`). Every matrix `w` is replaced by
/// `w / |w| * norm`, where `|w|` is the norm of each column and `norm` has one element per column.
/// The rows of the kernel for the input (`norm_0`) and for the state (`norm_1`) are normalized
/// separately. A sequence normalizes its matrices once, not in each step. The other equations are
/// those of the plain cell:
///
/// `c' = clip(σ(f + forget_bias [+ w_f_diag * c]) * c + σ(i [+ w_i_diag * c]) * act(j))`,
/// `h' = clip(σ(o [+ w_o_diag * c']) * act(c') [· projection])`; the output is `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + p, 4 units]`, rows `x, h`, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]` | 0 |
/// | `norm_0`, `norm_1` | `[4 units]`, unless `norm` is off | Glorot uniform, as in TensorFlow |
/// | `w_f_diag`, `w_i_diag`, `w_o_diag` | `[units]`, with peepholes | Glorot uniform |
/// | `projection/kernel` | `[units, p]`, with a projection | Glorot uniform |
/// | `projection/norm_0` | `[p]`, with a projection, unless `norm` is off | Glorot uniform |
///
/// `p` is `num_proj`, or `units` without a projection. Input `[batch, input]`; state `c`
/// `[batch, units]`, `h` `[batch, p]`; output `[batch, p]`.
///
/// ```
/// use recurrent::cells::WeightNormLstmCellBuilder;
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = WeightNormLstmCellBuilder::new(3, 8).num_proj(5).build(&Device::cpu())?;
/// assert_eq!(cell.param_count(), 8 * 32 + 32 + 2 * 32 + 8 * 5 + 5);
/// # Ok(()) }
/// ```
}

#[doc = weight_norm_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct WeightNormLstmCell<B: Backend> {
    affine: Affine<B>,
    norms: Option<[Param<B>; 2]>,
    core: LstmCore<B>,
    projection: Option<Projection<B>>,
}

#[derive(Clone, Debug)]
struct Projection<B: Backend> {
    kernel: Param<B>,
    norm: Option<Param<B>>,
}

cell_builder! {
    WeightNormLstmCellBuilder builds WeightNormLstmCell,
    TensorFlow "WeightNormLSTMCell", scope "wn_lstm_cell";
    num_units;
    /// Whether to apply weight normalization. Default: true.
    norm: bool = true,
    /// Whether the gates depend on the cell state (Gers & Schmidhuber 2000).
    use_peepholes: bool = false,
    /// Value added to the forget gate before its sigmoid. Default: 1.
    forget_bias: f64 = 1.0,
    /// Activation of the candidate and of the new cell state. Default: tanh.
    activation: Activation = Activation::Tanh,
    ;
    /// Clips the new cell state to `±cell_clip`.
    cell_clip: f64,
    /// Width of the output projection. Default: no projection.
    num_proj: usize,
    /// Clips the projected output to `±proj_clip`. No effect without a projection, as in
    /// TensorFlow.
    proj_clip: f64,
    /// Initializer of the kernel, the norms, the peepholes and the projection. Default: Glorot
    /// uniform.
    initializer: Initializer,
}

impl WeightNormLstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, a clip is negative or NaN, the type is not a float, or the device is out of
    /// memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<WeightNormLstmCell<B>> {
        let sizes = self.sizes()?;
        let core = LstmOptions {
            use_peepholes: self.use_peepholes,
            cell_clip: self.cell_clip,
            num_proj: self.num_proj,
            proj_clip: self.proj_clip,
            forget_bias: self.forget_bias,
            activation: self.activation,
            initializer: self.initializer,
        }
        .build(device, sizes, None)?;
        let (output, width) = (core.sizes.output(), 4 * sizes.units);
        let first = First::kernel(self.initializer);
        let param = |dims: &[usize]| Param::new(device, first.kernel, dims, sizes.dtype);
        let norms = || Ok([param(&[width])?, param(&[width])?]);
        let projection = |p| {
            Ok(Projection {
                kernel: param(&[sizes.units, p])?,
                norm: self.norm.then(|| param(&[p])).transpose()?,
            })
        };
        Ok(WeightNormLstmCell {
            affine: Affine::with_state(device, sizes, output, width, first)?,
            norms: self.norm.then(norms).transpose()?,
            core,
            projection: self.num_proj.map(projection).transpose()?,
        })
    }
}

/// A matrix whose columns have the norms `norm`; unchanged without `norm`.
fn normalized<B: Backend>(kernel: Tensor<B>, norm: Option<&Param<B>>) -> Result<Tensor<B>> {
    match norm {
        Some(norm) => {
            // In 16 bits the squares of small weights, and the epsilon, would be 0.
            let wide = |t: &Tensor<B>| t.cast(t.dtype().computed_in());
            let columns = l2_normalize(&wide(&kernel)?)?;
            columns.mul(&wide(norm)?)?.cast(kernel.dtype())
        }
        None => Ok(kernel),
    }
}

impl<B: Backend> Module for WeightNormLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.affine.params(v);
        if let Some([input, state]) = &mut self.norms {
            v.param("norm_0", input);
            v.param("norm_1", state);
        }
        self.core.params(v);
        if let Some(projection) = &mut self.projection {
            v.param("projection/kernel", &mut projection.kernel);
            if let Some(norm) = &mut projection.norm {
                v.param("projection/norm_0", norm);
            }
        }
    }
}

impl<B: Backend> Cell for WeightNormLstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    /// TensorFlow's class opens a scope with its own name inside its scope.
    fn scope(&self) -> String {
        "wn_lstm_cell/wn_lstm_cell".into()
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
        let norm = |i: usize| self.norms.as_ref().map(|norms| &norms[i]);
        let of_x = normalized(self.affine.input_kernel()?, norm(0))?;
        let of_h = normalized(self.affine.recurrent_kernel()?, norm(1))?;
        let z = x.matmul(&of_x)?.add(self.affine.bias())?;
        let z = state.h.matmul_add(&of_h, &z)?;
        let projection = |p: &Projection<B>| normalized(p.kernel.value().clone(), p.norm.as_ref());
        let projection = self.projection.as_ref().map(projection).transpose()?;
        self.core.step(cx, &z, projection.as_ref(), state)
    }
}
