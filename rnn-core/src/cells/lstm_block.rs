//! The LSTM of TensorFlow's block kernel.

use backend_api::{Backend, DType, Result};
use serde::Deserialize;

use super::same_as::same_as_inner;
use super::{LstmCell, LstmCellBuilder, LstmState};
use crate::{CellConfig, Initializer, Module, Visitor};

backend_api::shared_doc! { lstm_block_cell_doc:
/// The LSTM that TensorFlow computes in one kernel (Zaremba et al. 2014,
/// <https://arxiv.org/abs/1409.2329>; `tf.contrib.rnn.LSTMBlockCell`): an [`LstmCell`] with tanh,
/// without projection, and with a clip that its gradient ignores. With `i, j, f, o` the four parts
/// of `[x, h] · kernel + bias`, and optional terms in brackets:
///
/// `c' = clip(σ(f + forget_bias [+ w_f_diag * c]) * c + σ(i [+ w_i_diag * c]) * tanh(j))`,
/// `h' = σ(o [+ w_o_diag * c']) * tanh(c')`; the output is `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + units, 4 units]`, rows `x, h`, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]` | 0 |
/// | `w_f_diag`, `w_i_diag`, `w_o_diag` | `[units]`, with peepholes | Glorot uniform |
///
/// Input `[batch, input]`, state [`LstmState`](crate::LstmState), output `[batch, units]`. The
/// scope is `lstm_cell`, so that both cells can read each other's checkpoints.
///
/// ```
/// use recurrent::cells::LstmBlockCellBuilder;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = LstmBlockCellBuilder::new(3, 8)
///     .use_peephole(true)
///     .cell_clip(3.0)
///     .build(&Device::cpu())?;
/// assert_eq!(cell.zero_state(2)?.c.shape().dims(), [2, 8]);
/// # Ok(()) }
/// ```
}

#[doc = lstm_block_cell_doc!()]
#[derive(Clone, Debug)]
pub struct LstmBlockCell<B: Backend> {
    cell: LstmCell<B>,
}

impl<B: Backend> LstmBlockCell<B> {
    /// Creates a cell with TensorFlow's defaults: `forget_bias` 1, no peepholes, no clipping,
    /// `f32`.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn new(device: &B, input_size: usize, num_units: usize) -> Result<Self> {
        LstmBlockCellBuilder::new(input_size, num_units).build(device)
    }

    /// Returns a builder with TensorFlow's defaults.
    pub fn builder(input_size: usize, num_units: usize) -> LstmBlockCellBuilder {
        LstmBlockCellBuilder::new(input_size, num_units)
    }
}

/// Options of an [`LstmBlockCell`]: each method sets one.
///
/// `LstmBlockCell::builder(input_size, num_units)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::LstmBlockCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = LstmBlockCell::builder(3, 8).use_peephole(true);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LstmBlockCellBuilder {
    #[serde(skip)]
    input_size: usize,
    #[serde(skip)]
    dtype: DType,
    num_units: usize,
    #[serde(default = "one")]
    forget_bias: f64,
    #[serde(default)]
    cell_clip: Option<f64>,
    #[serde(default)]
    use_peephole: bool,
    #[serde(default)]
    kernel_initializer: Option<Initializer>,
}

fn one() -> f64 {
    1.0
}

impl LstmBlockCellBuilder {
    /// Creates a builder with TensorFlow's defaults.
    pub fn new(input_size: usize, num_units: usize) -> Self {
        Self {
            input_size,
            dtype: DType::F32,
            num_units,
            forget_bias: 1.0,
            cell_clip: None,
            use_peephole: false,
            kernel_initializer: None,
        }
    }

    /// Value added to the forget gate before its sigmoid. Default: 1.
    pub fn forget_bias(mut self, forget_bias: f64) -> Self {
        self.forget_bias = forget_bias;
        self
    }

    /// Clips the new cell state to `±clip`; 0 or less means no limit, as in TensorFlow. The
    /// gradient ignores the clipping.
    pub fn cell_clip(mut self, clip: f64) -> Self {
        self.cell_clip = Some(clip);
        self
    }

    /// Whether the gates depend on the cell state.
    pub fn use_peephole(mut self, use_peephole: bool) -> Self {
        self.use_peephole = use_peephole;
        self
    }

    /// Initializer of the kernel and the peepholes. Default: Glorot uniform.
    pub fn kernel_initializer(mut self, initializer: Initializer) -> Self {
        self.kernel_initializer = Some(initializer);
        self
    }

    /// Sets the element type. Default: `f32`. TensorFlow's kernel has no `f64`.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the clip is NaN, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<LstmBlockCell<B>> {
        let mut inner = LstmCellBuilder::new(self.input_size, self.num_units)
            .forget_bias(self.forget_bias)
            .use_peepholes(self.use_peephole)
            .initializer(self.kernel_initializer.unwrap_or_default())
            .dtype(self.dtype);
        // Keep NaN, so that the check in `build_as` refuses it.
        if let Some(clip) = self.cell_clip.filter(|clip| *clip > 0.0 || clip.is_nan()) {
            inner = inner.cell_clip(clip);
        }
        let cell = inner.build_as("lstm_block_cell", true, device)?;
        Ok(LstmBlockCell { cell })
    }
}

impl CellConfig for LstmBlockCellBuilder {
    const CLASS: &'static str = "LSTMBlockCell";
    type Cell<B: Backend> = LstmBlockCell<B>;

    fn build_for<B: Backend>(
        mut self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<LstmBlockCell<B>> {
        self.input_size = input_size;
        self.dtype(dtype).build(device)
    }
}

impl<B: Backend> Module for LstmBlockCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.cell.params(v);
    }
}

same_as_inner!(LstmBlockCell, LstmState<B>, "lstm_cell");
