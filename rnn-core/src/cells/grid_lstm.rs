//! The LSTM on a grid of time and frequency.

use backend_api::{Backend, DType, Error, Result};
use serde::Deserialize;

use super::GridLstmState;
use super::grid::{Grid, GridOptions};
use super::same_as::same_as_inner;
use crate::{CellConfig, Module, Visitor};

backend_api::shared_doc! { grid_lstm_cell_doc:
/// The grid LSTM (Kalchbrenner et al. 2015, <https://arxiv.org/abs/1507.01526>, with the peepholes
/// of Sainath & Li 2016; TensorFlow's `tf.contrib.rnn.GridLSTMCell`): two LSTMs, one along time and
/// one along frequency, that read each other's state.
///
/// The input is split into blocks, and each block `b` into windows of `feature_size` features,
/// `frequency_skip` apart. For window `x_k`, let `c_t, m_t` be the window's state of the previous
/// step, `c_f, m_f` the state of the previous window (0 for the first), `i, j, f, o` the four parts
/// of `[x_k, m_t, m_f] · W_f_b_0 + B_f_b`, and `i', j', f', o'` those of
/// `[x_k, m_t, m_f] · W_t_b_0 + B_t_b`:
///
/// `c_f* = clip(σ(f + forget_bias) * c_f + σ(i) * tanh(j))`, `m_f* = σ(o) * tanh(c_f*)`,
/// `c_t* = clip(σ(f' + forget_bias) * c_t + σ(i') * tanh(j'))`, `m_t* = σ(o') * tanh(c_t*)`.
///
/// `c_f*, m_f*` are passed to the next window, `c_t*, m_t*` to the next step.
///
/// * With peepholes, each frequency gate `G` adds
///   `W_G_diag_freqf_b * c_f + W_G_diag_freqt_b * c_t`, and each time gate
///   `W_G_diag_timef_b * c_f + W_G_diag_timet_b * c_t`. Input and forget gates use the old cell
///   states, the output gate the new ones.
/// * With coupled gates, `σ(f + ..)` is `1 - σ(i)`, and there are three parts.
/// * With shared weights, the time gates use the weights of the frequency gates.
///
/// | parameter, for each block `b` | shape | initial value |
/// |---|---|---|
/// | `W_f_b_0`, `W_t_b_0` | `[feature_size + 2 units, gates * units]` | Glorot uniform |
/// | `B_f_b`, `B_t_b` | `[gates * units]` | 0 |
/// | `W_G_diag_freqf_b`, .. | `[units]`, with peepholes | Glorot uniform |
///
/// The columns of the kernels are `i, j, f, o`, or `i, j, o` with coupled gates. `G` is `F`, `I`,
/// `O`, or `I`, `O`. Input `[batch, input]`; state [`GridLstmState`](crate::cells::GridLstmState);
/// output `[batch, 2 windows * units]`: `m_t*, m_f*` of each window of each block.
///
/// ```
/// use recurrent::cells::GridLstmCell;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// // 7 features in windows of 3, 2 apart: 3 windows.
/// let cell = GridLstmCell::new(&Device::cpu(), 7, 5, 3, 2, &[3])?;
/// assert_eq!(cell.zero_output(2)?.shape().dims(), [2, 30]);
/// let state = cell.zero_state(2)?;
/// assert_eq!(state.names()[5], "state_f02_b00_m");
/// # Ok(()) }
/// ```
}

#[doc = grid_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct GridLstmCell<B: Backend> {
    cell: Grid<B>,
}

impl<B: Backend> Module for GridLstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.cell.params(v);
    }
}

same_as_inner!(GridLstmCell, GridLstmState<B>, "grid_lstm_cell");

/// The constructors of a grid cell, and the options that both builders have in common.
macro_rules! grid_builder {
    ($name:ident builds $cell:ident) => {
        impl<B: ::backend_api::Backend> $cell<B> {
            /// Creates a cell with TensorFlow's defaults, in `f32`.
            /// [`builder`](Self::builder) explains the arguments.
            ///
            /// # Errors
            /// Those of the builder's `build`.
            pub fn new(
                device: &B,
                input_size: usize,
                num_units: usize,
                feature_size: usize,
                frequency_skip: usize,
                num_frequency_blocks: &[usize],
            ) -> ::backend_api::Result<Self> {
                Self::builder(
                    input_size,
                    num_units,
                    feature_size,
                    frequency_skip,
                    num_frequency_blocks,
                )
                .build(device)
            }

            /// Returns a builder with TensorFlow's defaults: one block that covers the whole input,
            /// `forget_bias` 1, separate weights for time and frequency, separate gates, no
            /// peepholes, no clipping. `num_frequency_blocks` is the number of windows in each
            /// block.
            pub fn builder(
                input_size: usize,
                num_units: usize,
                feature_size: usize,
                frequency_skip: usize,
                num_frequency_blocks: &[usize],
            ) -> $name {
                $name::new(
                    input_size,
                    num_units,
                    feature_size,
                    frequency_skip,
                    num_frequency_blocks,
                )
            }
        }

        impl $name {
            #[doc = concat!("Creates a builder; see [`", stringify!($cell), "::builder`].")]
            pub fn new(
                input_size: usize,
                num_units: usize,
                feature_size: usize,
                frequency_skip: usize,
                num_frequency_blocks: &[usize],
            ) -> Self {
                Self($crate::cells::grid::GridOptions::new(
                    input_size,
                    num_units,
                    feature_size,
                    frequency_skip,
                    num_frequency_blocks,
                ))
            }

            /// Whether the gates depend on the cell states.
            pub fn use_peepholes(mut self, use_peepholes: bool) -> Self {
                self.0.use_peepholes = use_peepholes;
                self
            }

            /// Whether time uses the weights of frequency. Default: false.
            pub fn share_time_frequency_weights(mut self, share: bool) -> Self {
                self.0.share_time_frequency_weights = share;
                self
            }

            /// Clips the new cell states to `±clip`.
            pub fn cell_clip(mut self, clip: f64) -> Self {
                self.0.cell_clip = Some(clip);
                self
            }

            /// Value added to the forget gates before their sigmoid. Default: 1.
            pub fn forget_bias(mut self, forget_bias: f64) -> Self {
                self.0.forget_bias = forget_bias;
                self
            }

            /// Sets the first feature of each block, and the end of each block (exclusive).
            pub fn freqindex_lists(mut self, start: &[usize], end: &[usize]) -> Self {
                self.0.start_freqindex_list = Some(start.to_vec());
                self.0.end_freqindex_list = Some(end.to_vec());
                self
            }

            /// Whether the forget gates are 1 minus the input gates. Default: false.
            pub fn couple_input_forget_gates(mut self, couple: bool) -> Self {
                self.0.couple_input_forget_gates = couple;
                self
            }

            /// Initializer of the kernels and the peepholes. Default: Glorot uniform. TensorFlow's
            /// cell accepts one and ignores it.
            pub fn initializer(mut self, initializer: $crate::Initializer) -> Self {
                self.0.initializer = Some(initializer);
                self
            }

            /// Sets the element type. Default: `f32`.
            pub fn dtype(mut self, dtype: backend_api::DType) -> Self {
                self.0.dtype = dtype;
                self
            }
        }
    };
}

pub(super) use grid_builder;

/// Options of a [`GridLstmCell`]: each method sets one.
///
/// `GridLstmCell::builder(..)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::GridLstmCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = GridLstmCell::builder(7, 5, 3, 2, &[3]).use_peepholes(true);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct GridLstmCellBuilder(GridOptions);

grid_builder!(GridLstmCellBuilder builds GridLstmCell);

impl GridLstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, a block does not have the expected number of windows, its windows exceed the
    /// input, lists differ in length, the clip is negative or NaN, the type is not a float, or the
    /// device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<GridLstmCell<B>> {
        const NAME: &str = "grid_lstm_cell";
        if self.0.backward_slice_offset.is_some() {
            let text = "is an option of the bidirectional cell only";
            return Err(Error::argument(NAME, "backward_slice_offset", text));
        }
        let directions = [("", "state", false, 0)];
        let cell = self.0.build(NAME, &directions, device)?;
        Ok(GridLstmCell { cell })
    }
}

impl CellConfig for GridLstmCellBuilder {
    const CLASS: &'static str = "GridLSTMCell";
    type Cell<B: Backend> = GridLstmCell<B>;

    fn build_for<B: Backend>(
        mut self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<GridLstmCell<B>> {
        self.0.input_size = input_size;
        self.dtype(dtype).build(device)
    }
}
