//! The grid LSTM in both directions along the frequency axis.

use backend_api::{Backend, DType, Result};
use serde::Deserialize;

use super::GridLstmState;
use super::grid::{Grid, GridOptions};
use super::grid_lstm::grid_builder;
use super::same_as::same_as_inner;
use crate::{CellConfig, Module, Visitor};

backend_api::shared_doc! { bidirectional_grid_lstm_cell_doc:
/// Two [`GridLstmCell`](crate::cells::GridLstmCell)s with separate weights, one from low to high
/// frequencies and one from high to low (after Kalchbrenner et al. 2015,
/// <https://arxiv.org/abs/1507.01526>; TensorFlow's `tf.contrib.rnn.BidirectionalGridLSTMCell`).
/// The time direction is the same for both.
///
/// The windows of the backward direction can be shifted by `backward_slice_offset` features;
/// features beyond the input are 0.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `fwd/..`, `bwd/..` | those of a grid LSTM | as there |
///
/// Input `[batch, input]`. State [`GridLstmState`](crate::cells::GridLstmState) with the names
/// `fwd_state_..` and `bwd_state_..`, where `f00` is the first window of that direction. Output
/// `[batch, 4 windows * units]`, forward before backward.
///
/// ```
/// use recurrent::cells::BidirectionalGridLstmCell;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = BidirectionalGridLstmCell::new(&Device::cpu(), 7, 5, 3, 2, &[3])?;
/// assert_eq!(cell.zero_output(2)?.shape().dims(), [2, 60]);
/// assert!(cell.zero_state(2)?.get("bwd_state_f02_b00_c").is_some());
/// # Ok(()) }
/// ```
}

#[doc = bidirectional_grid_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct BidirectionalGridLstmCell<B: Backend> {
    cell: Grid<B>,
}

impl<B: Backend> Module for BidirectionalGridLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.cell.params(v);
    }
}

same_as_inner!(
    BidirectionalGridLstmCell,
    GridLstmState<B>,
    "bidirectional_grid_lstm_cell"
);

/// Options of a [`BidirectionalGridLstmCell`]: each method sets one.
///
/// `BidirectionalGridLstmCell::builder(..)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::BidirectionalGridLstmCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = BidirectionalGridLstmCell::builder(7, 5, 3, 2, &[3]).backward_slice_offset(1);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct BidirectionalGridLstmCellBuilder(GridOptions);

grid_builder!(BidirectionalGridLstmCellBuilder builds BidirectionalGridLstmCell);

impl BidirectionalGridLstmCellBuilder {
    /// Shifts the windows of the backward direction by `offset` features to higher frequencies.
    /// Default: 0.
    pub fn backward_slice_offset(mut self, offset: isize) -> Self {
        self.0.backward_slice_offset = Some(offset);
        self
    }

    /// Builds the cell.
    ///
    /// # Errors
    /// As [`GridLstmCellBuilder::build`](super::GridLstmCellBuilder::build).
    pub fn build<B: Backend>(self, device: &B) -> Result<BidirectionalGridLstmCell<B>> {
        let offset = self.0.backward_slice_offset.unwrap_or(0);
        let directions = [
            ("fwd", "fwd_state", false, 0),
            ("bwd", "bwd_state", true, offset),
        ];
        let name = "bidirectional_grid_lstm_cell";
        let cell = self.0.build(name, &directions, device)?;
        Ok(BidirectionalGridLstmCell { cell })
    }
}

impl CellConfig for BidirectionalGridLstmCellBuilder {
    const CLASS: &'static str = "BidirectionalGridLSTMCell";
    type Cell<B: Backend> = BidirectionalGridLstmCell<B>;

    fn build_for<B: Backend>(
        mut self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<BidirectionalGridLstmCell<B>> {
        self.0.input_size = input_size;
        self.dtype(dtype).build(device)
    }
}
