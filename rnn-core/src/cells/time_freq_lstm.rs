//! The LSTM over time and frequency.

use backend_api::{Backend, DType, Error, Result, Tensor};
use serde::Deserialize;

use super::frequency::{check_clip, clip, count};
use super::{Affine, CellSize, First};
use crate::{Cell, CellConfig, Initializer, Module, Param, StepContext, Visitor};

backend_api::shared_doc! { time_freq_lstm_cell_doc:
/// The time-frequency LSTM (Sainath & Li 2016, "Modeling Time-Frequency Patterns with LSTM vs.
/// Convolutional Architectures for LVCSR Tasks"; TensorFlow's `tf.contrib.rnn.TimeFreqLSTMCell`).
///
/// The input is split into windows of `feature_size` features, `frequency_skip` apart, and one LSTM
/// iterates over them. For window `k`, let `c, m` be its state of the previous step, `m_before` the
/// `m` of the previous window (0 for the first), and `i, j, f, o` the four parts of
/// `[x_k, m, m_before] · W_0 + B`. With optional terms in brackets:
///
/// `c' = clip(σ(f + forget_bias [+ W_F_diag * c]) * c + σ(i [+ W_I_diag * c]) * tanh(j))`,
/// `m' = σ(o [+ W_O_diag * c']) * tanh(c')`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `W_0` | `[feature_size + 2 units, 4 units]`, columns `i, j, f, o` | Glorot uniform |
/// | `B` | `[4 units]` | 0 |
/// | `W_F_diag`, `W_I_diag`, `W_O_diag` | `[units]`, with peepholes | Glorot uniform |
///
/// Input `[batch, input]`; state `[batch, 2 windows * units]`, the `c, m` of each window; output
/// `[batch, windows * units]`, the `m` of each window. TensorFlow's cell declares the sizes of a
/// single window, so that its drivers support only one; here the declared sizes are those of all
/// windows.
///
/// ```
/// use recurrent::cells::TimeFreqLstmCellBuilder;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// // 7 features in windows of 3, 2 apart: 3 windows.
/// let cell = TimeFreqLstmCellBuilder::new(7, 5, 3).frequency_skip(2).build(&Device::cpu())?;
/// assert_eq!(cell.zero_output(2)?.shape().dims(), [2, 15]);
/// # Ok(()) }
/// ```
}

#[doc = time_freq_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct TimeFreqLstmCell<B: Backend> {
    sizes: CellSize,
    windows: usize,
    feature_size: usize,
    frequency_skip: usize,
    forget_bias: f64,
    cell_clip: Option<f64>,
    affine: Affine<B>,
    /// Peephole weights of the forget, input and output gate.
    peepholes: Option<[Param<B>; 3]>,
}

impl<B: Backend> TimeFreqLstmCell<B> {
    /// Creates a cell with TensorFlow's defaults: windows one feature apart, `forget_bias` 1, no
    /// peepholes, no clipping, `f32`.
    ///
    /// # Errors
    /// As [`TimeFreqLstmCellBuilder::build`].
    pub fn new(
        device: &B,
        input_size: usize,
        num_units: usize,
        feature_size: usize,
    ) -> Result<Self> {
        TimeFreqLstmCellBuilder::new(input_size, num_units, feature_size).build(device)
    }

    /// Returns a builder with TensorFlow's defaults.
    pub fn builder(
        input_size: usize,
        num_units: usize,
        feature_size: usize,
    ) -> TimeFreqLstmCellBuilder {
        TimeFreqLstmCellBuilder::new(input_size, num_units, feature_size)
    }

    /// The sizes of a tensor with `count` times the units of each window.
    fn wide(&self, count: usize) -> CellSize {
        CellSize {
            units: count * self.windows * self.sizes.units,
            ..self.sizes
        }
    }
}

/// Options of a [`TimeFreqLstmCell`]: each method sets one.
///
/// `TimeFreqLstmCell::builder(input_size, num_units, feature_size)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::TimeFreqLstmCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = TimeFreqLstmCell::builder(6, 4, 2).use_peepholes(true);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeFreqLstmCellBuilder {
    #[serde(skip)]
    input_size: usize,
    #[serde(skip)]
    dtype: DType,
    num_units: usize,
    #[serde(default)]
    use_peepholes: bool,
    #[serde(default)]
    cell_clip: Option<f64>,
    #[serde(default = "one")]
    forget_bias: f64,
    feature_size: usize,
    #[serde(default = "skip")]
    frequency_skip: usize,
    #[serde(default)]
    blocks: Option<usize>,
    #[serde(default)]
    initializer: Option<Initializer>,
}

fn one() -> f64 {
    1.0
}

fn skip() -> usize {
    1
}

impl TimeFreqLstmCellBuilder {
    /// Creates a builder with TensorFlow's defaults.
    pub fn new(input_size: usize, num_units: usize, feature_size: usize) -> Self {
        Self {
            input_size,
            dtype: DType::F32,
            num_units,
            use_peepholes: false,
            cell_clip: None,
            forget_bias: 1.0,
            feature_size,
            frequency_skip: 1,
            blocks: None,
            initializer: None,
        }
    }

    /// Whether the gates depend on the cell state.
    pub fn use_peepholes(mut self, use_peepholes: bool) -> Self {
        self.use_peepholes = use_peepholes;
        self
    }

    /// Clips the new cell state to `±clip`.
    pub fn cell_clip(mut self, clip: f64) -> Self {
        self.cell_clip = Some(clip);
        self
    }

    /// Value added to the forget gate before its sigmoid. Default: 1.
    pub fn forget_bias(mut self, forget_bias: f64) -> Self {
        self.forget_bias = forget_bias;
        self
    }

    /// Distance between the starts of windows. Default: 1.
    pub fn frequency_skip(mut self, frequency_skip: usize) -> Self {
        self.frequency_skip = frequency_skip;
        self
    }

    /// Sets the expected number of windows; another number is an error. Not an option of
    /// TensorFlow.
    pub fn blocks(mut self, blocks: usize) -> Self {
        self.blocks = Some(blocks);
        self
    }

    /// Initializer of the kernel and the peepholes. Default: Glorot uniform. TensorFlow's cell
    /// accepts one and ignores it.
    pub fn initializer(mut self, initializer: Initializer) -> Self {
        self.initializer = Some(initializer);
        self
    }

    /// Sets the element type. Default: `f32`.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, a window is wider than the input, the number of windows is not the expected
    /// one, the clip is negative or NaN, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<TimeFreqLstmCell<B>> {
        let sizes = CellSize {
            cell: "time_freq_lstm_cell",
            input: self.input_size,
            units: self.num_units,
            dtype: self.dtype,
        }
        .check()?;
        check_clip(sizes, self.cell_clip)?;
        let windows = count(sizes, sizes.input, self.feature_size, self.frequency_skip)?;
        if let Some(blocks) = self.blocks.filter(|&blocks| blocks != windows) {
            let text = format!("is {blocks}, but {windows} windows fit into the input");
            return Err(Error::argument(sizes.cell, "blocks", text));
        }
        let units = sizes.units;
        let of_window = CellSize {
            input: self.feature_size,
            ..sizes
        };
        let first = First::kernel(self.initializer);
        let diag = || Param::new(device, first.kernel, &[units], sizes.dtype);
        let peepholes = || Ok::<_, Error>([diag()?, diag()?, diag()?]);
        Ok(TimeFreqLstmCell {
            sizes,
            windows,
            feature_size: self.feature_size,
            frequency_skip: self.frequency_skip,
            forget_bias: self.forget_bias,
            cell_clip: self.cell_clip,
            affine: Affine::with_state(device, of_window, 2 * units, 4 * units, first)?,
            peepholes: self.use_peepholes.then(peepholes).transpose()?,
        })
    }
}

impl CellConfig for TimeFreqLstmCellBuilder {
    const CLASS: &'static str = "TimeFreqLSTMCell";
    type Cell<B: Backend> = TimeFreqLstmCell<B>;

    fn build_for<B: Backend>(
        mut self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<TimeFreqLstmCell<B>> {
        self.input_size = input_size;
        self.dtype(dtype).build(device)
    }
}

impl<B: Backend> Module for TimeFreqLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        self.affine.params_as(v, "W_0", "B");
        if let Some(peepholes) = &mut self.peepholes {
            for (name, w) in ["W_F_diag", "W_I_diag", "W_O_diag"].iter().zip(peepholes) {
                v.param(name, w);
            }
        }
    }
}

impl<B: Backend> Cell for TimeFreqLstmCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "time_freq_lstm_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<Tensor<B>> {
        self.wide(2).zeros(self.affine.device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.wide(1).zeros(self.affine.device(), batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        state: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        let batch = self.sizes.input(x)?;
        self.wide(2).state("state", state, batch)?;
        let old = state.split_last(2 * self.windows)?;
        let mut before = self.sizes.zeros(x.device(), batch)?;
        let (mut outputs, mut states) = (Vec::new(), Vec::new());
        for k in 0..self.windows {
            let (c, m) = (&old[2 * k], &old[2 * k + 1]);
            let start = k * self.frequency_skip;
            let x = x.slice(1, start..start + self.feature_size)?;
            let z = self.affine.apply(&x, &Tensor::concat(&[m, &before], 1)?)?;
            let z = z.split_last(4)?;
            let [i, j, f, o] = [&z[0], &z[1], &z[2], &z[3]];
            let look = |gate: &Tensor<B>, which: usize, c: &Tensor<B>| match &self.peepholes {
                Some(w) => gate.add(&c.mul(&w[which])?),
                None => Ok(gate.clone()),
            };
            let kept = look(&f.affine(1.0, self.forget_bias)?, 0, c)?
                .sigmoid()?
                .mul(c)?;
            let added = look(i, 1, c)?.sigmoid()?.mul(&j.tanh()?)?;
            let c = clip(kept.add(&added)?, self.cell_clip)?;
            before = look(o, 2, &c)?.sigmoid()?.mul(&c.tanh()?)?;
            outputs.push(before.clone());
            states.extend([c, before.clone()]);
        }
        let join = |parts: &[Tensor<B>]| Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1);
        Ok((join(&outputs)?, join(&states)?))
    }
}
