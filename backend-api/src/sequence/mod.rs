//! Whole recurrent sequences as operations: what devices are asked for, and how they may go about it.

mod compose;
mod infer;

use smallvec::SmallVec;

#[cfg(doc)]
use crate::Fused;
use crate::{Activation, DType, Error, LstmGates, Result, Shape};

pub(crate) use compose::{sequence, sequence_grad};

/// The recurrences that have a fused description: what happens in a step once the input
/// has been projected and the bias added.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Recurrence {
    /// `h' = act(z)`; one gate, state `h`.
    Basic {
        /// The activation.
        activation: Activation,
    },
    /// [`Fused::LstmStep`]; four gates, state `c, h`.
    Lstm(LstmGates),
    /// The LSTM with peepholes, clipping and projection; four gates, state `c, h`.
    ExtendedLstm(ExtendedLstm),
    /// [`Fused::GruGates`] and [`Fused::GruOutput`]; three gates (`r`, `u`, candidate), state `h`.
    Gru {
        /// The candidate's activation.
        activation: Activation,
    },
    /// The GRU that resets after the product (Cho et al. 2014 in its first version; cuDNN's and PyTorch's):
    /// `q = act(z + r (h · W + b))`, else as [`Gru`](Self::Gru).
    GruResetAfter {
        /// The candidate's activation.
        activation: Activation,
    },
}

/// What TensorFlow's `LSTMCell` has besides the plain LSTM (Gers & Schmidhuber 2000; Sak et al. 2014,
/// <https://arxiv.org/abs/1402.1128>). With `i, j, f, o` the four parts of `z`:
///
/// `c' = clip(c σ(f + forget_bias + w_f c) + σ(i + w_i c) act(j))`,
/// `h' = clip((σ(o + w_o c') act(c')) · projection)`.
///
/// What is not asked for is left out. In the gradient a number that is saved as large as its limit, or larger, has met it: for
/// 16-bit floats a limit that they cannot hold, or numbers that round to it, are told wrong, so that cells do not ask for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExtendedLstm {
    /// As of the plain LSTM.
    pub gates: LstmGates,
    /// Whether the gates see the cell state through `w_f`, `w_i` and `w_o`.
    pub peepholes: bool,
    /// The limit of the cell state's absolute value. Where it is met, no gradient passes.
    pub cell_clip: Option<f64>,
    /// Whether the output is projected.
    pub projection: bool,
    /// The limit of the projected output's absolute value.
    pub proj_clip: Option<f64>,
}

/// The most tensors that a [`Recurrence`] has besides the input's kernel and the bias.
type Parameters = SmallVec<[(&'static str, Shape); 5]>;

impl Recurrence {
    /// The activation of the step.
    pub const fn activation(&self) -> Activation {
        match self {
            Self::Basic { activation }
            | Self::Gru { activation }
            | Self::GruResetAfter { activation } => *activation,
            Self::Lstm(gates) => gates.activation,
            Self::ExtendedLstm(lstm) => lstm.gates.activation,
        }
    }

    /// Number of gates, which is the width of the projected input in units.
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

    /// Whether `h` may have another width than there are units.
    pub const fn is_projected(&self) -> bool {
        matches!(self, Self::ExtendedLstm(lstm) if lstm.projection)
    }

    /// The widths, in units, of the values that a sequence saves for its gradient.
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

    /// The name and shape of what meets the state, in the order of the operands. `n` is the number of units, `p` the
    /// width of `h`, which is `n` but for a projection:
    ///
    /// | recurrence | parameters |
    /// |---|---|
    /// | basic | kernel `[n, n]` |
    /// | LSTM | kernel `[n, 4n]` |
    /// | extended LSTM | kernel `[p, 4n]`; projection `[n, p]`, if any; peepholes `w_f`, `w_i`, `w_o`: `[n]`, if any |
    /// | GRU | gates' kernel `[n, 2n]`, candidate's kernel `[n, n]` |
    /// | GRU, reset after | the same, and the bias of the candidate's product `[n]` |
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

/// What a cell wants to run as one operation over a whole sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceRequest {
    /// The cell's step.
    pub recurrence: Recurrence,
    /// `I`.
    pub inputs: usize,
    /// `T`.
    pub steps: usize,
    /// `B`.
    pub batch: usize,
    /// `n`.
    pub units: usize,
    /// Whether rows have lengths of their own.
    pub ragged: bool,
    /// Whether the same weights are going to be used again before they change: what is made of them is then worth keeping.
    pub reuse: bool,
    /// The element type.
    pub dtype: DType,
}

/// How a device is going to run a whole sequence: a layer with its input's product. Time is the first axis.
///
/// [`Fused::Sequence`] takes, in this order,
/// * `x: [T, B, I]`, the inputs;
/// * the input's kernel `[I, gates n]` and the bias `[gates n]`: `z = x · kernel + bias` is the projected input;
/// * the [parameters](Recurrence::parameters) that meet the state;
/// * the initial state: `h: [B, n]`, or `c: [B, n]` and `h: [B, p]` (LSTMs);
/// * if [`ragged`](Self::ragged): `lengths: [B]` int, not negative; more than `T` counts as `T`;
///
/// and gives
/// * `outputs: [T, B, p]`, zero at and after a row's length;
/// * the final state, as of each row's last step, in the initial state's form;
/// * if [`save`](Self::save), the saved values: nothing (basic); `gates: [T, B, 4n]`, the activated gates in the order of
///   [`Fused::LstmStep`], and `cs: [T, B, n]`, the new cell states (LSTMs); `gates: [T, B, 3n]`, that is `r, u, q` (GRU), and
///   `[T, B, 4n]` with the candidate's recurrent product, bias added, as the fourth (GRU, reset after). At and after
///   a row's length they are unspecified but finite.
///
/// [`Fused::SequenceGrad`] takes all operands of the sequence, then `outputs`, the saved values, `doutputs: [T, B, p]` and the
/// gradient of the final state. It gives the gradients of the inputs if [`input_grad`](Self::input_grad), of the input's
/// kernel, of the bias, of the parameters and of the initial state. What stands in the inputs at and after a row's
/// length never matters, be it NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequencePlan {
    /// The cell's step.
    pub recurrence: Recurrence,
    /// Which way the device takes.
    pub path: SequencePath,
    /// Whether there is a `lengths` operand.
    pub ragged: bool,
    /// Whether the values that the gradient needs are among the results. A request is made
    /// without; automatic differentiation sets it when something is tracked.
    pub save: bool,
    /// Whether the device keeps what it makes of the weights, for as long as they are there; never changes a number.
    pub reuse: bool,
    /// Whether the gradient of the inputs is among the results of the gradient. Automatic differentiation clears it where
    /// nobody asks.
    pub input_grad: bool,
}

impl SequencePlan {
    /// The plan of the default body: step by step.
    pub fn stepwise(request: &SequenceRequest) -> Self {
        Self {
            recurrence: request.recurrence,
            path: SequencePath::Stepwise,
            ragged: request.ragged,
            save: false,
            reuse: request.reuse,
            input_grad: true,
        }
    }

    /// Number of saved results: as many as the recurrence has if [`save`](Self::save) is set.
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

/// The ways of running a whole sequence, from slow to fast. All give the same numbers
/// within the stated tolerance; which one ran is never hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SequencePath {
    /// The default body: the inputs' product of all steps, then one step after the other.
    Stepwise,
    /// One kernel of the backend's own for all steps.
    Whole,
}
