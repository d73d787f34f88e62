//! The basic LSTM cell with layer normalization and recurrent dropout.

use backend_api::{Activation, Backend, Error, Result, Tensor};

use super::builder::cell_builder;
use super::layer_norm::GateNorms;
use super::lstm_core::{CandidateDropout, LstmCore, LstmOptions};
use super::{CellSize, LstmState};
use crate::{Cell, Initializer, Module, Param, StepContext, Visitor};

backend_api::shared_doc! { layer_norm_basic_lstm_cell_doc:
/// The basic LSTM cell with layer normalization (Ba et al. 2016) and recurrent dropout (Semeniuta
/// et al. 2016); TensorFlow's `tf.contrib.rnn.LayerNormBasicLSTMCell`. With `i, j, f, o` the four
/// parts of `[x, h] · kernel`, each normalized over its units:
///
/// `c' = LN(c * σ(f + forget_bias) + σ(i) * dropout(act(j)))`, `h' = act(c') * σ(o)`; the output is
/// `h'`.
///
/// `LN(v) = (v - mean) / sqrt(variance + 1e-12) * gamma + beta`. Each use has its own `gamma` and
/// `beta`, in these scopes: `input` for `i`, `transform` for `j`, `forget` for `f`, `output` for
/// `o`, `state` for `c'`. Dropout acts in training only.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + units, 4 units]`, rows `x, h`, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]`, without layer normalization | Glorot uniform, as in TensorFlow |
/// | `{input,transform,forget,output,state}/gamma` | `[units]`, if normalized | `norm_gain` |
/// | `{input,transform,forget,output,state}/beta` | `[units]`, if normalized | `norm_shift` |
///
/// Input `[batch, input]`, state [`LstmState`](crate::LstmState), output `[batch, units]`.
///
/// ```
/// use recurrent::cells::LayerNormBasicLstmCellBuilder;
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = LayerNormBasicLstmCellBuilder::new(3, 8).dropout_keep_prob(0.9).build(&device)?;
/// assert_eq!(cell.param_count(), 11 * 32 + 5 * 2 * 8);
/// # Ok(()) }
/// ```
}

#[doc = layer_norm_basic_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct LayerNormBasicLstmCell<B: Backend> {
    sizes: CellSize,
    core: LstmCore<B>,
    kernel: Param<B>,
    bias: Option<Param<B>>,
}

cell_builder! {
    LayerNormBasicLstmCellBuilder builds LayerNormBasicLstmCell,
    TensorFlow "LayerNormBasicLSTMCell", scope "layer_norm_basic_lstm_cell";
    num_units;
    /// Value added to the forget gate before its sigmoid. Default: 1.
    forget_bias: f64 = 1.0,
    /// Activation of the candidate and of the new cell state. Default: tanh.
    activation: Activation = Activation::Tanh,
    /// Whether to apply layer normalization. Default: true.
    layer_norm: bool = true,
    /// Initial value of every `gamma`. Default: 1.
    norm_gain: f64 = 1.0,
    /// Initial value of every `beta`. Default: 0.
    norm_shift: f64 = 0.0,
    /// Probability that an element of the candidate is kept. Default: 1.
    dropout_keep_prob: f64 = 1.0,
    ;
    /// Additional seed that makes this cell's dropout independent of other cells'; combined with
    /// the seed of the run.
    dropout_prob_seed: i64,
    /// Initializer of the kernel, and of the bias that the cell has without layer normalization.
    /// Default: Glorot uniform.
    kernel_initializer: Initializer,
}

impl LayerNormBasicLstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the probability is not in `(0, 1]` or its inverse is infinite, the type is not
    /// a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<LayerNormBasicLstmCell<B>> {
        let sizes = self.sizes()?;
        let keep_prob = self.dropout_keep_prob;
        let finite = (1.0 / keep_prob as f32).is_finite();
        if !(keep_prob > 0.0 && keep_prob <= 1.0 && finite) {
            let problem =
                format!("is {keep_prob}, but must be above 0 and at most 1, with a finite inverse");
            return Err(Error::argument(sizes.cell, "dropout_keep_prob", problem));
        }
        let names = ["input", "transform", "forget", "output"];
        let norms = || GateNorms::new(device, sizes, &names, self.norm_gain, self.norm_shift);
        let mut core = LstmOptions {
            use_peepholes: false,
            cell_clip: None,
            num_proj: None,
            proj_clip: None,
            forget_bias: self.forget_bias,
            activation: self.activation,
            initializer: None,
        }
        .build(device, sizes, self.layer_norm.then(norms).transpose()?)?;
        core.dropout = (keep_prob < 1.0).then(|| CandidateDropout {
            keep_prob,
            seed: self.dropout_prob_seed.unwrap_or(0),
        });
        let first = self.kernel_initializer.unwrap_or_default();
        let param = |dims: &[usize]| Param::new(device, first, dims, sizes.dtype);
        let (rows, width) = (sizes.input + sizes.units, 4 * sizes.units);
        Ok(LayerNormBasicLstmCell {
            sizes,
            core,
            kernel: param(&[rows, width])?,
            bias: (!self.layer_norm).then(|| param(&[width])).transpose()?,
        })
    }
}

impl<B: Backend> Module for LayerNormBasicLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        v.param("kernel", &mut self.kernel);
        if let Some(bias) = &mut self.bias {
            v.param("bias", bias);
        }
        self.core.params(v);
    }
}

impl<B: Backend> Cell for LayerNormBasicLstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        self.sizes.cell.into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        self.core.sizes.zero_state(self.kernel.device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.core.sizes.zero_output(self.kernel.device(), batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        self.core.sizes.step(x, state)?;
        let (input, rows) = (self.sizes.input, self.kernel.shape()[0]);
        let mut z = x.matmul(&self.kernel.slice(0, 0..input)?)?;
        if let Some(bias) = &self.bias {
            z = z.add(bias)?;
        }
        let z = state
            .h
            .matmul_add(&self.kernel.slice(0, input..rows)?, &z)?;
        if self.core.dropout.is_some() {
            cx.mode(self)?;
        }
        self.core.step(cx, &z, None, state)
    }
}

#[cfg(test)]
mod tests {
    use backend_cpu::Cpu;

    use super::*;
    use crate::Mode;

    #[test]
    fn dropout_acts_on_the_candidate_in_training_only() {
        let device = Cpu::new();
        let builder = LayerNormBasicLstmCell::<Cpu>::builder(3, 50).layer_norm(false);
        let mut cell = builder.dropout_keep_prob(0.5).build(&device).unwrap();
        cell.initialize(3).unwrap();
        let x = Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3]).unwrap();
        let c = |mode, time| {
            let zero = cell.zero_state(2).unwrap();
            let cx = StepContext::new(mode).at(time);
            let (_, state) = cell.step(&cx, &x, &zero).unwrap();
            state.c.to_vec::<f32>().unwrap()
        };
        let training = Mode::Training { seed: 1 };
        let whole = c(Mode::Evaluation, 0);
        let dropped = c(training, 0);
        assert!(whole.iter().all(|&c| c != 0.0));
        // From a zero state, dropped elements are 0 and the others are doubled.
        for (&whole, &dropped) in whole.iter().zip(&dropped) {
            assert!(dropped == 0.0 || (dropped - 2.0 * whole).abs() < 1e-6);
        }
        let zeros = dropped.iter().filter(|&&c| c == 0.0).count();
        assert!((25..=75).contains(&zeros), "{zeros} of 100");
        assert_eq!(dropped, c(training, 0));
        assert_ne!(dropped, c(training, 1));
    }

    #[test]
    fn invalid_probabilities_are_rejected() {
        for keep_prob in [0.0, 1e-40, 1.5, f64::NAN] {
            let builder = LayerNormBasicLstmCell::<Cpu>::builder(3, 5);
            let cell = builder.dropout_keep_prob(keep_prob).build(&Cpu::new());
            let message = cell.unwrap_err().to_string();
            assert!(message.contains("dropout_keep_prob"), "{message}");
        }
    }
}
