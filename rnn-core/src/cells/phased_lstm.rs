//! The LSTM with a time gate.

use backend_api::{Backend, Compare, DType, Error, Meta, Result, Tensor};
use serde::Deserialize;

use super::math::mix;
use super::{Affine, CellSize, First, LstmState};
use crate::{Cell, Initializer, Param, StepContext};

backend_api::shared_doc! { phased_lstm_cell_doc:
/// The phased LSTM (Neil et al. 2016, <https://arxiv.org/abs/1610.09513>; TensorFlow's
/// `tf.contrib.rnn.PhasedLSTMCell`), for events at irregular times: each unit is updated only while
/// its time gate `k` is open. With terms for peepholes in brackets:
///
/// `i, f = σ([x, h(, c)] · mask_gates)`, `j = tanh([x, h] · new_input)`, `c~ = c * f + i * j`,
/// `o = σ([x, h(, c~)] · output_gate)`, `h~ = tanh(c~) * o`;
///
/// `r = mod(t - phase, period) / period`, `k = 2 r / ratio_on` if `r < ratio_on / 2`, else
/// `2 - 2 r / ratio_on` if `r < ratio_on`, else `leak * r`;
///
/// `c' = k * c~ + (1 - k) * c`, `h' = k * h~ + (1 - k) * h`; the output is `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `mask_gates/kernel` | `[input + units (+ units), 2 units]`, columns `i, f` | Glorot uniform |
/// | `new_input/kernel` | `[input + units, units]` | Glorot uniform |
/// | `output_gate/kernel` | `[input + units (+ units), units]` | Glorot uniform |
/// | `mask_gates/bias`, `new_input/bias`, `output_gate/bias` | as wide as their kernels | 0 |
/// | `period` | `[units]` | log-uniform between `period_init_min` and `period_init_max` |
/// | `phase` | `[units]` | uniform between 0 and the unit's period |
/// | `ratio_on` | `[units]` | the option `ratio_on` |
///
/// The gradient of `mod` is TensorFlow's: 1 for its first argument and 0 for its second, so that
/// `period` is trained through the division only. The input is `(t, x)`: times `[batch, 1]`, whose
/// float type may differ from the cell's, and `[batch, input]`. State
/// [`LstmState`](crate::LstmState), output `[batch, units]`.
///
/// ```
/// use recurrent::cells::PhasedLstmCell;
/// use recurrent::{Cell, Device, StepContext, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = PhasedLstmCell::new(&device, 3, 5)?;
/// let t = Tensor::from_slice(&device, &[0.25f64, 17.5], &[2, 1])?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3])?;
/// let (output, state) = cell.step(&StepContext::default(), &(t, x), &cell.zero_state(2)?)?;
/// assert_eq!(output.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
}

#[doc = phased_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct PhasedLstmCell<B: Backend> {
    sizes: CellSize,
    use_peepholes: bool,
    leak: f64,
    trainable_ratio_on: bool,
    mask_gates: Affine<B>,
    new_input: Affine<B>,
    output_gate: Affine<B>,
    period: Param<B>,
    phase: Param<B>,
    ratio_on: Param<B>,
}

impl<B: Backend> PhasedLstmCell<B> {
    /// Creates a cell with TensorFlow's defaults: no peepholes, `leak` 0.001, `ratio_on` 0.1,
    /// periods from 1 to 1000, `f32`.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn new(device: &B, input_size: usize, num_units: usize) -> Result<Self> {
        PhasedLstmCellBuilder::new(input_size, num_units).build(device)
    }

    /// Returns a builder with TensorFlow's defaults.
    pub fn builder(input_size: usize, num_units: usize) -> PhasedLstmCellBuilder {
        PhasedLstmCellBuilder::new(input_size, num_units)
    }

    /// `[batch, 1] -> [batch, units]`: the openness `k` of the time gates.
    fn openness(&self, time: &Tensor<B>) -> Result<Tensor<B>> {
        // In the type of the times, which may need more digits than the cell's.
        let period = self.period.cast(time.dtype())?;
        let passed = time.sub(&self.phase.cast(time.dtype())?)?;
        let r = passed.floor_mod(period.detach())?.div(&period)?;
        let r = r.cast(self.sizes.dtype)?;
        let on = if self.trainable_ratio_on {
            self.ratio_on.value().clone()
        } else {
            self.ratio_on.detach()
        };
        let rising = r.affine(2.0, 0.0)?.div(&on)?;
        let falling = rising.affine(-1.0, 2.0)?;
        let closed = r.affine(self.leak, 0.0)?;
        let k = r
            .compare(Compare::Lt, &on)?
            .select_from(&falling, &closed)?;
        let early = r.compare(Compare::Lt, &on.affine(0.5, 0.0)?)?;
        early.select_from(&rising, &k)
    }

    /// Checks the times and the state of a step against the batch size of `x`.
    fn check(&self, time: Meta, state: &LstmState<B>, batch: usize) -> Result<()> {
        let cell = self.sizes.cell;
        if !time.dtype.is_float() {
            return Err(Error::dtype(cell, "time", time.dtype, "a float is needed"));
        }
        if time.shape.dims() != [batch, 1] {
            let expected = format!("[{batch}, 1] is needed");
            return Err(Error::shape(cell, "time", time.shape, expected));
        }
        self.sizes.state("state c", &state.c, batch)?;
        self.sizes.state("state h", &state.h, batch)
    }
}

/// Options of a [`PhasedLstmCell`]: each method sets one.
///
/// `PhasedLstmCell::builder(input_size, num_units)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::PhasedLstmCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = PhasedLstmCell::builder(3, 8).use_peepholes(true);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhasedLstmCellBuilder {
    #[serde(skip)]
    input_size: usize,
    #[serde(skip)]
    dtype: DType,
    num_units: usize,
    #[serde(default)]
    use_peepholes: bool,
    #[serde(default = "defaults::leak")]
    leak: f64,
    #[serde(default = "defaults::ratio_on")]
    ratio_on: f64,
    #[serde(default = "defaults::trainable_ratio_on")]
    trainable_ratio_on: bool,
    #[serde(default = "defaults::period_init_min")]
    period_init_min: f64,
    #[serde(default = "defaults::period_init_max")]
    period_init_max: f64,
    #[serde(default)]
    kernel_initializer: Option<Initializer>,
}

mod defaults {
    pub(super) fn leak() -> f64 {
        0.001
    }
    pub(super) fn ratio_on() -> f64 {
        0.1
    }
    pub(super) fn trainable_ratio_on() -> bool {
        true
    }
    pub(super) fn period_init_min() -> f64 {
        1.0
    }
    pub(super) fn period_init_max() -> f64 {
        1000.0
    }
}

impl PhasedLstmCellBuilder {
    /// Creates a builder with TensorFlow's defaults.
    pub fn new(input_size: usize, num_units: usize) -> Self {
        Self {
            input_size,
            dtype: DType::F32,
            num_units,
            use_peepholes: false,
            leak: defaults::leak(),
            ratio_on: defaults::ratio_on(),
            trainable_ratio_on: defaults::trainable_ratio_on(),
            period_init_min: defaults::period_init_min(),
            period_init_max: defaults::period_init_max(),
            kernel_initializer: None,
        }
    }

    /// Sets the depth of the input: for options deserialized from JSON.
    pub fn input_size(mut self, input_size: usize) -> Self {
        self.input_size = input_size;
        self
    }

    /// Whether the gates depend on the cell state.
    pub fn use_peepholes(mut self, use_peepholes: bool) -> Self {
        self.use_peepholes = use_peepholes;
        self
    }

    /// The slope of a closed time gate: `k = leak * r`. Default: 0.001.
    pub fn leak(mut self, leak: f64) -> Self {
        self.leak = leak;
        self
    }

    /// Initial value of `ratio_on`, the fraction of the period during which the time gate is open.
    /// Default: 0.1.
    pub fn ratio_on(mut self, ratio_on: f64) -> Self {
        self.ratio_on = ratio_on;
        self
    }

    /// Whether `ratio_on` is trainable. Default: true. If not, its gradient is 0.
    pub fn trainable_ratio_on(mut self, trainable: bool) -> Self {
        self.trainable_ratio_on = trainable;
        self
    }

    /// The smallest and the largest initial period. Default: 1 and 1000.
    pub fn period_init(mut self, min: f64, max: f64) -> Self {
        self.period_init_min = min;
        self.period_init_max = max;
        self
    }

    /// Initializer of the kernels. Default: Glorot uniform.
    pub fn kernel_initializer(mut self, initializer: Initializer) -> Self {
        self.kernel_initializer = Some(initializer);
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
    /// A size is 0, the initial periods are not a range of positive numbers, the type is not a
    /// float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<PhasedLstmCell<B>> {
        let sizes = CellSize {
            cell: "phased_lstm_cell",
            input: self.input_size,
            units: self.num_units,
            dtype: self.dtype,
        }
        .check()?;
        let (low, high) = (self.period_init_min, self.period_init_max);
        if !(low > 0.0 && low <= high && high.is_finite()) {
            let text = format!("is {low}, but must be above 0 and at most period_init_max, {high}");
            return Err(Error::argument(sizes.cell, "period_init_min", text));
        }
        let units = sizes.units;
        let state = if self.use_peepholes { 2 * units } else { units };
        let first = First::kernel(self.kernel_initializer);
        let affine = |state, width| Affine::with_state(device, sizes, state, width, first);
        let vector = |first| Param::new(device, first, &[units], sizes.dtype);
        let period = vector(Initializer::LogUniform { low, high })?;
        let mut phase = vector(Initializer::UniformBelow(period.id()))?;
        phase.set(phase.mul(&period)?)?;
        Ok(PhasedLstmCell {
            sizes,
            use_peepholes: self.use_peepholes,
            leak: self.leak,
            trainable_ratio_on: self.trainable_ratio_on,
            mask_gates: affine(state, 2 * units)?,
            new_input: affine(units, units)?,
            output_gate: affine(state, units)?,
            period,
            phase,
            ratio_on: vector(Initializer::Constant(self.ratio_on))?,
        })
    }
}

crate::module!(PhasedLstmCell<B> {
    mask_gates, new_input, output_gate, period, phase, ratio_on;
    dtype sizes.dtype
});

impl<B: Backend> Cell for PhasedLstmCell<B> {
    /// Times and inputs.
    type Input = (Tensor<B>, Tensor<B>);
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "phased_lstm_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        let zeros = self.zero_output(batch)?;
        Ok(LstmState {
            c: zeros.clone(),
            h: zeros,
        })
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.period.device(), batch)
    }

    fn step(
        &self,
        _: &StepContext,
        (time, x): &(Tensor<B>, Tensor<B>),
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        let batch = self.sizes.input(x)?;
        self.check(time.meta(), state, batch)?;
        let LstmState { c, h } = state;
        let looking = |at: &Tensor<B>| match self.use_peepholes {
            true => Tensor::concat(&[h, at], 1),
            false => Ok(h.clone()),
        };
        let mask = self.mask_gates.apply(x, &looking(c)?)?.sigmoid()?;
        let mask = mask.split_last(2)?;
        let [i, f] = [&mask[0], &mask[1]];
        let j = self.new_input.apply(x, h)?.tanh()?;
        let new_c = c.mul(f)?.add(&i.mul(&j)?)?;
        let o = self.output_gate.apply(x, &looking(&new_c)?)?.sigmoid()?;
        let new_h = new_c.tanh()?.mul(&o)?;
        let k = self.openness(time)?;
        let state = LstmState {
            c: mix(&k, &new_c, c)?,
            h: mix(&k, &new_h, h)?,
        };
        Ok((state.h.clone(), state))
    }
}
