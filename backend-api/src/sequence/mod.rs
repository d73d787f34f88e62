//! Whole recurrent sequences as single operations: requests, plans and operands.

mod infer;

use smallvec::SmallVec;

#[cfg(doc)]
use crate::Fused;
use crate::{Activation, DType, Error, LstmGates, Result, Shape};

/// A recurrence that devices can run as one operation: the computation of a step after the input
/// projection and the bias.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Recurrence {
    /// `h' = act(z)`; one gate, state `h`.
    Basic {
        /// The activation.
        activation: Activation,
    },
    /// The LSTM, [`Fused::LstmStep`]; four gates, state `c, h`.
    Lstm(LstmGates),
    /// The LSTM with peepholes, clipping and projection; four gates, state `c, h`.
    ExtendedLstm(ExtendedLstm),
    /// The GRU, [`Fused::GruGates`] and [`Fused::GruOutput`]; three gates (`r`, `u`, candidate),
    /// state `h`.
    Gru {
        /// The candidate's activation.
        activation: Activation,
    },
    /// The GRU that applies the reset gate after the matmul (the first version of Cho et al. 2014;
    /// also cuDNN's and PyTorch's): `q = act(z + r (h · W + b))`, otherwise as [`Gru`](Self::Gru).
    GruResetAfter {
        /// The candidate's activation.
        activation: Activation,
    },
}

/// The options of TensorFlow's `LSTMCell` that the plain LSTM lacks (Gers & Schmidhuber 2000; Sak
/// et al. 2014, <https://arxiv.org/abs/1402.1128>). With `i, j, f, o` the four parts of `z`:
///
/// `c' = clip(c σ(f + forget_bias + w_f c) + σ(i + w_i c) act(j))`,
/// `h' = clip((σ(o + w_o c') act(c')) · projection)`.
///
/// Terms of options that are off are omitted. The gradient treats a saved value as clipped if its
/// absolute value is at least the limit. In 16-bit floats this test is wrong if the type cannot
/// represent the limit, or if an unclipped value rounds to it; cells therefore do not request
/// `cell_clip` or `proj_clip` for these types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExtendedLstm {
    /// The constants of the plain LSTM.
    pub gates: LstmGates,
    /// Whether the gates depend on the cell state, through `w_f`, `w_i` and `w_o`.
    pub peepholes: bool,
    /// The limit of the cell state's absolute value. The gradient of a clipped value is 0.
    pub cell_clip: Option<f64>,
    /// Whether the output is multiplied by a projection matrix.
    pub projection: bool,
    /// The limit of the projected output's absolute value.
    pub proj_clip: Option<f64>,
}

/// The parameters of a [`Recurrence`] other than the input kernel and the bias: at most 5.
type Parameters = SmallVec<[(&'static str, Shape); 5]>;

impl Recurrence {
    /// The activation function of the step.
    pub const fn activation(&self) -> Activation {
        match self {
            Self::Basic { activation }
            | Self::Gru { activation }
            | Self::GruResetAfter { activation } => *activation,
            Self::Lstm(gates) => gates.activation,
            Self::ExtendedLstm(lstm) => lstm.gates.activation,
        }
    }

    /// Number of gates: the width of the projected input divided by the number of units.
    pub const fn gates(&self) -> usize {
        match self {
            Self::Basic { .. } => 1,
            Self::Lstm(_) | Self::ExtendedLstm(_) => 4,
            Self::Gru { .. } | Self::GruResetAfter { .. } => 3,
        }
    }

    /// Number of state tensors: 2 for LSTMs (`c` before `h`), else 1.
    pub const fn states(&self) -> usize {
        match self {
            Self::Lstm(_) | Self::ExtendedLstm(_) => 2,
            _ => 1,
        }
    }

    /// Whether the width of `h` may differ from the number of units.
    pub const fn is_projected(&self) -> bool {
        matches!(self, Self::ExtendedLstm(lstm) if lstm.projection)
    }

    /// The widths of the values that a sequence saves for its gradient, in units.
    pub const fn saved_widths(&self) -> &'static [usize] {
        match self {
            Self::Basic { .. } => &[],
            Self::Lstm(_) | Self::ExtendedLstm(_) => &[4, 1],
            Self::Gru { .. } => &[3],
            Self::GruResetAfter { .. } => &[4],
        }
    }

    /// Number of [`parameters`](Self::parameters).
    pub const fn parameter_count(&self) -> usize {
        match self {
            Self::Basic { .. } | Self::Lstm(_) => 1,
            Self::ExtendedLstm(lstm) => {
                1 + lstm.projection as usize + if lstm.peepholes { 3 } else { 0 }
            }
            Self::Gru { .. } => 2,
            Self::GruResetAfter { .. } => 3,
        }
    }

    /// The names and shapes of the recurrent parameters, in the order of the operands. `n` is the
    /// number of units, `p` the width of `h` (`n` without a projection):
    ///
    /// | recurrence | parameters |
    /// |---|---|
    /// | basic | kernel `[n, n]` |
    /// | LSTM | kernel `[n, 4n]` |
    /// | extended LSTM | kernel `[p, 4n]`; projection `[n, p]`; `w_f`, `w_i`, `w_o`: `[n]` each |
    /// | GRU | kernel of the gates `[n, 2n]`, kernel of the candidate `[n, n]` |
    /// | GRU, reset after | those of the GRU, and the bias of the candidate's matmul `[n]` |
    ///
    /// # Errors
    /// A shape has too many elements.
    pub fn parameters(&self, n: usize, p: usize) -> Result<Parameters> {
        const KERNEL: &str = "recurrent kernel";
        let mut all = Parameters::new();
        let mut add = |name, dims: &[usize]| {
            all.push((name, Shape::new(dims)?));
            Ok::<_, Error>(())
        };
        match self {
            Self::Basic { .. } | Self::Lstm(_) => add(KERNEL, &[n, self.gates() * n])?,
            Self::ExtendedLstm(lstm) => {
                add(KERNEL, &[p, 4 * n])?;
                if lstm.projection {
                    add("projection", &[n, p])?;
                }
                if lstm.peepholes {
                    for name in ["w_f", "w_i", "w_o"] {
                        add(name, &[n])?;
                    }
                }
            }
            Self::Gru { .. } | Self::GruResetAfter { .. } => {
                add(KERNEL, &[n, 2 * n])?;
                add("recurrent kernel of the candidate", &[n, n])?;
                if let Self::GruResetAfter { .. } = self {
                    add("recurrent bias of the candidate", &[n])?;
                }
            }
        }
        Ok(all)
    }
}

/// A cell's request to run a whole sequence as one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceRequest {
    /// The cell's step.
    pub recurrence: Recurrence,
    /// Depth of the inputs, `I`.
    pub inputs: usize,
    /// Number of steps, `T`.
    pub steps: usize,
    /// Batch size, `B`.
    pub batch: usize,
    /// Number of hidden units, `n`.
    pub units: usize,
    /// Whether rows have individual lengths.
    pub ragged: bool,
    /// Whether the same weights will be used again before they change, so that the device should
    /// cache their packed form.
    pub reuse: bool,
    /// The element type.
    pub dtype: DType,
}

/// How a device runs a whole sequence: the input projection and the recurrence of one layer. Time
/// is the first axis.
///
/// The operands of [`Fused::Sequence`] are, in this order:
/// * `x: [T, B, I]`, the inputs;
/// * the input kernel `[I, gates n]` and the bias `[gates n]`; `z = x · kernel + bias` is the
///   projected input;
/// * the [recurrent parameters](Recurrence::parameters);
/// * the initial state: `h: [B, n]`, or `c: [B, n]` and `h: [B, p]` (LSTMs);
/// * if [`ragged`](Self::ragged), `lengths: [B]` int, not negative; a length above `T` counts as
///   `T`.
///
/// The results are:
/// * `outputs: [T, B, p]`, zero at and after a row's length;
/// * the final state, after each row's last step, in the form of the initial state;
/// * if [`save`](Self::save), the saved values of the table. At and after a row's length they are
///   unspecified but finite.
///
/// | recurrence | saved values |
/// |---|---|
/// | basic | none |
/// | LSTMs | `gates: [T, B, 4n]`, as in [`Fused::LstmStep`]; `cs: [T, B, n]`, the new cell states |
/// | GRU | `gates: [T, B, 3n]`: `r, u, q` |
/// | GRU, reset after | `gates: [T, B, 4n]`: `r, u, q` and the candidate's `h · W + b` |
///
/// The operands of [`Fused::SequenceGrad`] are all operands of the sequence, then `outputs`, the
/// saved values, `doutputs: [T, B, p]` and the gradient of the final state. The results are the
/// gradients of the inputs (if [`input_grad`](Self::input_grad)), the input kernel, the bias, the
/// recurrent parameters and the initial state. Inputs at and after a row's length have no effect,
/// even if they are NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequencePlan {
    /// The cell's step.
    pub recurrence: Recurrence,
    /// How the device runs the sequence.
    pub path: SequencePath,
    /// Whether the operands include `lengths`.
    pub ragged: bool,
    /// Whether the results include the values that the gradient needs.
    /// [`Backend::plan_sequence`](crate::Backend::plan_sequence) returns `false` here; automatic
    /// differentiation sets it if an operand is tracked.
    pub save: bool,
    /// Whether the device caches the packed weights as long as their buffers live. Does not affect
    /// results.
    pub reuse: bool,
    /// Whether the results of the gradient include the gradient of the inputs. Automatic
    /// differentiation clears it if the inputs are not tracked.
    pub input_grad: bool,
}

impl SequencePlan {
    /// The plan of the default implementation.
    pub fn composed(request: &SequenceRequest) -> Self {
        Self {
            recurrence: request.recurrence,
            path: SequencePath::Composed,
            ragged: request.ragged,
            save: false,
            reuse: request.reuse,
            input_grad: true,
        }
    }

    /// Number of saved results; 0 unless [`save`](Self::save) is set.
    pub const fn saved(&self) -> usize {
        if self.save {
            self.recurrence.saved_widths().len()
        } else {
            0
        }
    }

    /// Number of operands of the sequence.
    pub const fn operands(&self) -> usize {
        3 + self.recurrence.parameter_count() + self.recurrence.states() + self.ragged as usize
    }
}

/// How a whole sequence is run, from slow to fast. All paths give the same results within the
/// documented tolerance. [`SequencePlan::path`] states which one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SequencePath {
    /// The default implementation: the input projection of all steps as one matmul, then step by
    /// step, operation by operation.
    Composed,
    /// Kernels of the backend, a few for each step.
    Stepwise,
    /// One kernel of the backend for all steps.
    Whole,
}
