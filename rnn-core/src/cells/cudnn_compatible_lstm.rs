//! The LSTM that cuDNN computes.

use backend_api::{Backend, DType, Result};
use serde::Deserialize;

use super::same_as::same_as_inner;
use super::{LstmCell, LstmCellBuilder, LstmState};
use crate::{CellConfig, Initializer, Module, Visitor};

backend_api::shared_doc! { cudnn_compatible_lstm_cell_doc:
/// The LSTM that cuDNN computes (TensorFlow's `tf.contrib.cudnn_rnn.CudnnCompatibleLSTMCell`): an
/// [`LstmBlockCell`](crate::cells::LstmBlockCell) without a forget bias, peepholes and clipping.
/// With `i, j, f, o` the four parts of `[x, h] · kernel + bias`:
///
/// `c' = σ(f) * c + σ(i) * tanh(j)`, `h' = σ(o) * tanh(c')`; the output is `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input + units, 4 units]`, rows `x, h`, columns `i, j, f, o` | Glorot uniform |
/// | `bias` | `[4 units]` | 0 |
///
/// Input `[batch, input]`, state [`LstmState`](crate::LstmState), output `[batch, units]`.
///
/// ```
/// use recurrent::cells::CudnnCompatibleLstmCell;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = CudnnCompatibleLstmCell::new(&Device::cpu(), 3, 5)?;
/// assert_eq!(cell.zero_state(2)?.h.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
}

#[doc = cudnn_compatible_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct CudnnCompatibleLstmCell<B: Backend> {
    cell: LstmCell<B>,
}

impl<B: Backend> CudnnCompatibleLstmCell<B> {
    /// Creates a cell in `f32`.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn new(device: &B, input_size: usize, num_units: usize) -> Result<Self> {
        CudnnCompatibleLstmCellBuilder::new(input_size, num_units).build(device)
    }

    /// Returns a builder with TensorFlow's defaults.
    pub fn builder(input_size: usize, num_units: usize) -> CudnnCompatibleLstmCellBuilder {
        CudnnCompatibleLstmCellBuilder::new(input_size, num_units)
    }
}

/// Options of a [`CudnnCompatibleLstmCell`]: each method sets one.
///
/// `CudnnCompatibleLstmCell::builder(input_size, num_units)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::CudnnCompatibleLstmCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = CudnnCompatibleLstmCell::builder(3, 8);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudnnCompatibleLstmCellBuilder {
    #[serde(skip)]
    input_size: usize,
    #[serde(skip)]
    dtype: DType,
    num_units: usize,
    #[serde(default)]
    kernel_initializer: Option<Initializer>,
}

impl CudnnCompatibleLstmCellBuilder {
    /// Creates a builder with TensorFlow's defaults.
    pub fn new(input_size: usize, num_units: usize) -> Self {
        Self {
            input_size,
            dtype: DType::F32,
            num_units,
            kernel_initializer: None,
        }
    }

    /// Initializer of the kernel. Default: Glorot uniform.
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
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<CudnnCompatibleLstmCell<B>> {
        let cell = LstmCellBuilder::new(self.input_size, self.num_units)
            .forget_bias(0.0)
            .initializer(self.kernel_initializer.unwrap_or_default())
            .dtype(self.dtype)
            .build_as("cudnn_compatible_lstm_cell", false, device)?;
        Ok(CudnnCompatibleLstmCell { cell })
    }
}

impl CellConfig for CudnnCompatibleLstmCellBuilder {
    const CLASS: &'static str = "CudnnCompatibleLSTMCell";
    type Cell<B: Backend> = CudnnCompatibleLstmCell<B>;

    fn build_for<B: Backend>(
        mut self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<CudnnCompatibleLstmCell<B>> {
        self.input_size = input_size;
        self.dtype(dtype).build(device)
    }
}

impl<B: Backend> Module for CudnnCompatibleLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.cell.params(v);
    }
}

same_as_inner!(
    CudnnCompatibleLstmCell,
    LstmState<B>,
    "cudnn_compatible_lstm_cell"
);
