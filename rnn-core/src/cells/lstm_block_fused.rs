//! The LSTM of TensorFlow's block kernel for whole sequences.

use backend_api::{Backend, DType, Result, Tensor};
use serde::Deserialize;

use super::{LstmBlockCell, LstmBlockCellBuilder, LstmState};
use crate::{FusedRnnCell, FusedRnnCellAdaptor, Lengths, Module, RnnOutput, Visitor};

backend_api::shared_doc! { lstm_block_fused_cell_doc:
/// The LSTM that TensorFlow computes in one kernel for a whole sequence
/// (`tf.contrib.rnn.LSTMBlockFusedCell`): an [`LstmBlockCell`] over `[time, batch, depth]`, with
/// its parameters in the scope `lstm_fused_cell`.
///
/// ```
/// use recurrent::cells::LstmBlockFusedCell;
/// use recurrent::{Device, FusedRnnCell, Lengths, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = LstmBlockFusedCell::new(&device, 3, 8)?;
/// let x = Tensor::from_slice(&device, &[0.1f32; 5 * 2 * 3], &[5, 2, 3])?;
/// let rnn = cell.run(&x, None, Some(&Lengths::from(&[5, 2])))?;
/// assert_eq!(rnn.outputs.shape().dims(), [5, 2, 8]);
/// # Ok(()) }
/// ```
}

#[doc = lstm_block_fused_cell_doc!()]
#[derive(Clone, Debug)]
pub struct LstmBlockFusedCell<B: Backend> {
    cell: FusedRnnCellAdaptor<LstmBlockCell<B>>,
}

impl<B: Backend> LstmBlockFusedCell<B> {
    /// TensorFlow's name of the variable scope.
    pub const SCOPE: &'static str = "lstm_fused_cell";

    /// Creates a cell with TensorFlow's defaults, in `f32`.
    ///
    /// # Errors
    /// As [`LstmBlockFusedCellBuilder::build`].
    pub fn new(device: &B, input_size: usize, num_units: usize) -> Result<Self> {
        Self::builder(input_size, num_units).build(device)
    }

    /// Returns a builder with TensorFlow's defaults.
    pub fn builder(input_size: usize, num_units: usize) -> LstmBlockFusedCellBuilder {
        LstmBlockFusedCellBuilder::new(input_size, num_units)
    }
}

/// Options of an [`LstmBlockFusedCell`]: those of an [`LstmBlockCell`].
///
/// `LstmBlockFusedCell::builder(input_size, num_units)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::LstmBlockFusedCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = LstmBlockFusedCell::builder(3, 8);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct LstmBlockFusedCellBuilder(LstmBlockCellBuilder);

impl LstmBlockFusedCellBuilder {
    /// Creates a builder with TensorFlow's defaults.
    pub fn new(input_size: usize, num_units: usize) -> Self {
        Self(LstmBlockCellBuilder::new(input_size, num_units))
    }

    /// Creates a builder from the options of a block cell.
    pub fn with(options: LstmBlockCellBuilder) -> Self {
        Self(options)
    }

    /// Builds the cell.
    ///
    /// # Errors
    /// As [`LstmBlockCellBuilder::build`].
    pub fn build<B: Backend>(self, device: &B) -> Result<LstmBlockFusedCell<B>> {
        Ok(LstmBlockFusedCell {
            cell: FusedRnnCellAdaptor(self.0.build(device)?),
        })
    }

    /// Builds the cell for inputs of the given depth and type: for options deserialized from JSON.
    ///
    /// # Errors
    /// As [`LstmBlockCellBuilder::build`].
    pub fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<LstmBlockFusedCell<B>> {
        let cell = crate::CellConfig::build_for(self.0, device, input_size, dtype)?;
        Ok(LstmBlockFusedCell {
            cell: FusedRnnCellAdaptor(cell),
        })
    }
}

impl<B: Backend> Module for LstmBlockFusedCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.cell.0.params(v);
    }
}

impl<B: Backend> FusedRnnCell for LstmBlockFusedCell<B> {
    type Backend = B;
    type State = LstmState<B>;

    fn run(
        &self,
        inputs: &Tensor<B>,
        initial_state: Option<&LstmState<B>>,
        sequence_length: Option<&Lengths<B>>,
    ) -> Result<RnnOutput<Tensor<B>, LstmState<B>>> {
        self.cell.run(inputs, initial_state, sequence_length)
    }
}
