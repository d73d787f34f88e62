//! Operations as data: everything a device can be asked to compute.
//!
//! The variants of [`Op`] are the contract of a backend: it must do each of them.
//! [`Op::Fused`] operations have a default body each ([`crate::compose`]); a backend
//! matches those it does better itself and hands the rest on.
//!
//! Unless a variant says otherwise:
//! * inputs may have any strides a [`Layout`](crate::Layout) can express (stride 0 included,
//!   which only decorators use) and may alias one another; outputs never alias inputs;
//! * element-wise operations broadcast their inputs, axes aligned at the end;
//! * sums are accumulated in the element type or wider, in an order that does not depend on
//!   what else the device is doing, so that equal inputs give equal bits;
//! * 16-bit floats, those among them that a cast reads or makes too, are read as `f32` and computed in `f32`, constants
//!   included, and each result is rounded to its type, to nearest, ties to even ([`run_widened`](crate::run_widened) is
//!   that for any operation);
//! * shapes and types have been checked by [`Op::infer`](Op::infer) before a backend sees them;
//! * a backend may return before the work is done, as long as later operations on the same
//!   buffers wait for it.

use serde::{Deserialize, Serialize};

use crate::{DType, Meta, SequencePlan};

/// One operation. Operands are listed in order, with their shapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `() -> meta`: every element is `value`, converted to the element type
    /// (for `bool`: whether it is not 0).
    Fill {
        /// The value.
        value: f64,
        /// Shape and type of the result.
        meta: Meta,
    },
    /// `() -> meta`: random numbers, a function of `key`, the element's index and the
    /// distribution alone, the same on every device (see [`crate::philox`]). Floats only. Rounding to a 16-bit type
    /// may give the upper end of a range.
    Random {
        /// Names the stream of numbers.
        key: u64,
        /// How the numbers are distributed.
        distribution: Distribution,
        /// Shape and type of the result.
        meta: Meta,
    },
    /// `(x: S) -> S`: the same elements, row-major and without gaps. Any type.
    Copy,
    /// `(x: S) -> S` in another type. Floats to integers round toward zero and saturate (NaN
    /// gives 0); anything to `bool` asks whether it is not 0; `bool` gives 0 or 1.
    Cast {
        /// The type of the result.
        to: DType,
    },
    /// `(x: S) -> S`, element by element. Floats.
    Unary(Unary),
    /// `(x: S) -> S`: `x * mul + add`. Floats; constants are rounded to the element type first.
    Affine {
        /// Factor.
        mul: f64,
        /// Summand.
        add: f64,
    },
    /// `(x: S) -> S`: `x` limited to `min..=max`; NaN stays NaN. Floats.
    Clamp {
        /// Lower limit.
        min: f64,
        /// Upper limit.
        max: f64,
    },
    /// `(a: S1, b: S2) -> broadcast(S1, S2)`, element by element. Numbers of one type.
    Binary(Binary),
    /// `(a: S1, b: S2) -> broadcast(S1, S2)` as `bool`. Numbers of one type. Comparisons with
    /// NaN are false, but for `Ne`.
    Compare(Compare),
    /// `(condition: S1 bool, a: S2, b: S3) -> broadcast(S1, S2, S3)`: `a` where the condition
    /// holds, else `b` (the value not taken never matters, NaN included). `a` and `b` of one type.
    Select,
    /// `(x: [.., n, ..]) -> [.., ..]`: one axis goes. Numbers. The sum of nothing is 0; the
    /// maximum of nothing is refused.
    Reduce {
        /// How.
        kind: Reduce,
        /// The axis that goes.
        axis: usize,
    },
    /// `(x: [.., n, ..]) -> [.., ..] i64`: the index of the largest element along an axis, the
    /// first one if several are equal. Numbers; n > 0. A NaN counts as smaller than any number.
    ArgMax {
        /// The axis that goes.
        axis: usize,
    },
    /// `(a: [.., m, k], b: [.., k, n]) -> [.., m, n]`: `alpha * a b`, or with a third operand
    /// `(.., c: [.., m, n])`: `alpha * a b + c`. Floats of one type; leading axes are equal, or `b` has
    /// exactly two axes and serves every `a`. Products of floats are accumulated in the
    /// element type or wider. `k = 0` gives 0 (or `c`).
    MatMul {
        /// Factor of the product.
        alpha: f64,
        /// How exact the products are.
        precision: Precision,
    },
    /// `(x0: [.., n0, ..], x1: [.., n1, ..], ..) -> [.., n0 + n1 + .., ..]`: one or more operands,
    /// of one type and equal but for one axis. Any type.
    Concat {
        /// The axis that grows.
        axis: usize,
    },
    /// `(x: S, lengths: [B] int) -> S`: row `b` (of axis `batch`) has its first `lengths[b]`
    /// places along axis `time` in reverse order, the rest as they were. A length outside
    /// `0..=T` is refused. Any type of `x`.
    Reverse {
        /// The axis along which rows are reversed.
        time: usize,
        /// The axis that counts rows.
        batch: usize,
    },
    /// `(table: [V, rest..], ids: S int) -> [S.., rest..]`: rows of a table. An id outside
    /// `0..V` is refused. Any type of table.
    Gather,
    /// `(ids: S int, rows: [S.., rest..]) -> [V, rest..]`: zeros, and each row added at its id;
    /// equal ids add up, in the order of `ids`. An id outside `0..V` is refused. Floats.
    ScatterAdd {
        /// `V`, the number of rows of the result.
        rows: usize,
    },
    /// An operation with a default body.
    Fused(Fused),
}

/// How random numbers are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower end, included.
        low: f64,
        /// Upper end, not included.
        high: f64,
    },
    /// Normal, by the Box-Muller transform.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// -1, 0 or 1; NaN stays NaN.
    Sign,
    /// `x * x`
    Square,
    /// The square root; NaN below 0.
    Sqrt,
    /// `1 / x`
    Recip,
    /// `e^x`
    Exp,
    /// The natural logarithm.
    Log,
    /// The largest whole number not above `x`.
    Floor,
    /// The sine.
    Sin,
    /// The cosine.
    Cos,
    /// An activation function of a cell.
    Activation(Activation),
}

/// The activation functions that cells know by name. The slope of each can be computed from
/// its value alone, so back-propagation keeps the value and not the argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Activation {
    /// The hyperbolic tangent; slope `1 - y²`.
    #[default]
    Tanh,
    /// The logistic function `1 / (1 + e^-x)`; slope `y (1 - y)`.
    Sigmoid,
    /// `max(x, 0)`; slope 1 where `y > 0`, else 0.
    Relu,
    /// `x / (1 + |x|)`; slope `(1 - |y|)²`.
    Softsign,
    /// `x` itself; slope 1.
    #[serde(alias = "linear")]
    Identity,
    /// `e^x - 1` where `x < 0`, else `x`; slope `y + 1` where `y < 0`, else 1.
    Elu,
    /// [`SELU_SCALE`](Self::SELU_SCALE) times [`SELU_ALPHA`](Self::SELU_ALPHA)` (e^x - 1)` where `x < 0`, else times
    /// `x`; slope `y` plus both constants' product where `y < 0`, else the scale.
    Selu,
    /// `log(1 + e^x)`; slope `1 - e^-y`.
    Softplus,
    /// `e^x`; slope `y`.
    Exponential,
    /// Keras's `max(0, min(1, 0.2 x + 0.5))`; slope 0.2 where `0 < y < 1`, else 0.
    #[serde(rename = "hard_sigmoid")]
    HardSigmoid,
    /// `min(max(x, 0), 6)`; slope 1 where `0 < y < 6`, else 0.
    Relu6,
}

impl Activation {
    /// All of them: what a test of a device has to try.
    pub const ALL: [Self; 11] = [
        Self::Tanh,
        Self::Sigmoid,
        Self::Relu,
        Self::Softsign,
        Self::Identity,
        Self::Elu,
        Self::Selu,
        Self::Softplus,
        Self::Exponential,
        Self::HardSigmoid,
        Self::Relu6,
    ];
    /// Those that cells are mostly used with. Backends may count on a fused operation having one of them, and leave
    /// the others to [`compose`](crate::compose).
    pub const COMMON: [Self; 5] = [
        Self::Tanh,
        Self::Sigmoid,
        Self::Relu,
        Self::Softsign,
        Self::Identity,
    ];
    /// The factor of [`Self::Selu`].
    pub const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
    /// How far below 0 [`Self::Selu`] goes, before the factor.
    pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

    /// Whether it is one of [`Self::COMMON`].
    pub fn is_common(self) -> bool {
        Self::COMMON.contains(&self)
    }
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`; integers round toward zero, and division of an integer by 0 gives 0.
    Div,
    /// The larger one; NaN if either is.
    Max,
    /// The smaller one; NaN if either is.
    Min,
    /// `a - b * floor(a / b)`: the remainder with the sign of `b`. Floats; integers by 0 give 0.
    FloorMod,
}

/// A relation of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// `a == b`
    Eq,
    /// `a != b`
    Ne,
    /// `a < b`
    Lt,
    /// `a <= b`
    Le,
    /// `a > b`
    Gt,
    /// `a >= b`
    Ge,
}

/// How an axis is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// The sum.
    Sum,
    /// The largest element; NaN if any is.
    Max,
}

/// How exact the products of a matrix multiplication of `f32` are, at least: a device computes more exactly where it has
/// nothing faster to offer. Products of `f64` are always exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// Products and sums in the element type or wider.
    #[default]
    Exact,
    /// Operands rounded to TensorFloat-32 (10 bits after the point), sums in `f32`.
    Tf32,
    /// Operands rounded to bfloat16 (7 bits after the point), sums in `f32`.
    Bf16,
}

/// Operations that have a default body in terms of the others, and that a backend may do faster.
///
/// `n` is the number of units, `B` the batch, `T` the steps. Gates lie side by side on the last
/// axis in TensorFlow's order: LSTM `i, j, f, o` (`j` the candidate), GRU `r, u`. Outputs called
/// *saved* are there for the gradient; they are not differentiable themselves.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fused {
    /// `(x: [.., n], bias: [n]) -> [.., n]`: `activation(x + bias)`.
    BiasActivation {
        /// The activation.
        activation: Activation,
    },
    /// `(y: S, dy: S) -> S`: the gradient of an activation, from its value.
    ActivationGrad {
        /// The activation.
        activation: Activation,
    },
    /// `(z: [B, 4n], c: [B, n]) -> (c': [B, n], h': [B, n], saved gates: [B, 4n])`
    ///
    /// With `i, j, f, o` the four parts of `z`: `c' = c σ(f + forget_bias) + σ(i) act(j)`,
    /// `h' = act(c') σ(o)`; gates are `σ(i), act(j), σ(f + forget_bias), σ(o)`.
    /// Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, as
    /// TensorFlow's `BasicLSTMCell` computes it.
    LstmStep(LstmGates),
    /// `(gates: [B, 4n], c: [B, n], c': [B, n], dc': [B, n], dh': [B, n]) -> (dz: [B, 4n], dc: [B, n])`
    LstmStepGrad(LstmGates),
    /// `(z: [B, 2n], h: [B, n]) -> (u: [B, n], rh: [B, n], saved r: [B, n])`: `r, u = σ(z)`, `rh = r h`.
    ///
    /// The first half of a GRU step (Cho et al. 2014, reset before the product).
    GruGates,
    /// `(r: [B, n], u: [B, n], h: [B, n], du: [B, n], drh: [B, n]) -> (dz: [B, 2n], dh: [B, n])`
    GruGatesGrad,
    /// `(z: [B, n], u: [B, n], h: [B, n]) -> (h': [B, n], saved q: [B, n])`: `q = act(z)`,
    /// `h' = u h + (1 - u) q`.
    GruOutput {
        /// The candidate's activation.
        activation: Activation,
    },
    /// `(q: [B, n], u: [B, n], h: [B, n], dh': [B, n]) -> (dz: [B, n], du: [B, n], dh: [B, n])`
    GruOutputGrad {
        /// The candidate's activation.
        activation: Activation,
    },
    /// `(lengths: [B] int, new: [B, rest..], old: [B, rest..]) -> [B, rest..]`: row `b` is `new`
    /// while `time < lengths[b]`, and `old` after that. Any type.
    MaskedUpdate {
        /// The step, counted from 0.
        time: usize,
    },
    /// `(table: [V, rest..], ids: S int, rows: [S.., rest..]) -> [V, rest..]`: the table with the rows of
    /// these ids replaced; of equal ids the last one counts. An id outside `0..V` is refused. Any
    /// type of table. The inverse of [`Op::Gather`].
    ScatterUpdate,
    /// A whole recurrent sequence; see [`SequencePlan`] for operands and results.
    Sequence(SequencePlan),
    /// The gradient of a whole recurrent sequence; see [`SequencePlan`].
    SequenceGrad(SequencePlan),
    /// `(logits: [.., V], labels: [..] int) -> [..]`: `-log softmax(logits)[label]`. A label
    /// outside `0..V` is refused where the device can tell without waiting, else gives NaN.
    SoftmaxCrossEntropy,
    /// `(logits: [.., V], labels: [..] int, dloss: [..]) -> [.., V]`: `(softmax - onehot) dloss`.
    SoftmaxCrossEntropyGrad,
    /// `(x0: S0, x1: S1, ..) -> []`: the sum of the squares of all elements. One float type.
    SquaredNorm,
    /// `(w: S, g: S) -> S`: `w - lr g`. Gradient descent.
    Sgd {
        /// Learning rate.
        lr: f64,
    },
    /// `(w: S, m: S, v: S, g: S) -> (w': S, m': S, v': S)`: Adam (Kingma & Ba 2015) in
    /// TensorFlow's form: `m' = β1 m + (1 - β1) g`, `v' = β2 v + (1 - β2) g²`,
    /// `w' = w - lr sqrt(1 - β2^t) / (1 - β1^t) m' / (sqrt(v') + ε)`.
    Adam(AdamStep),
}

/// The constants of an LSTM step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LstmGates {
    /// Added to the forget gate before its sigmoid; not stored in the bias.
    pub forget_bias: f64,
    /// Of the candidate and of the new cell state.
    pub activation: Activation,
}

/// The constants of one Adam step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate, before the correction.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment, outside the correction.
    pub epsilon: f64,
    /// The step `t`, counted from 1.
    pub step: u64,
}

impl AdamStep {
    /// The learning rate with the bias correction of this step:
    /// `lr sqrt(1 - β2^t) / (1 - β1^t)`.
    pub fn corrected_lr(&self) -> f64 {
        let t = self.step as f64;
        self.lr * (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t))
    }
}
impl Fused {
    /// The activation of the operation, if it has one.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Self::BiasActivation { activation }
            | Self::ActivationGrad { activation }
            | Self::GruOutput { activation }
            | Self::GruOutputGrad { activation } => Some(*activation),
            Self::LstmStep(gates) | Self::LstmStepGrad(gates) => Some(gates.activation),
            Self::Sequence(plan) | Self::SequenceGrad(plan) => Some(plan.recurrence.activation()),
            _ => None,
        }
    }
}
