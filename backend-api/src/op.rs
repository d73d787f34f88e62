//! Operations as data: everything a device can compute.
//!
//! The variants of [`Op`] define the interface of a backend, which must implement each of them.
//! Each [`Op::Fused`] operation has a default implementation ([`crate::compose`]); a backend
//! implements those for which it has a faster kernel and passes the others to `compose`.
//!
//! Unless a variant says otherwise:
//! * Inputs may have any strides that a [`Layout`](crate::Layout) can express, and may alias one
//!   another. A stride of 0 is possible, but only decorators use it. Outputs never alias inputs.
//! * Element-wise operations broadcast their inputs; axes are aligned at the end.
//! * Sums are accumulated in the element type or wider, in an order that does not depend on the
//!   device's other work, so that equal inputs give bit-identical results.
//! * 16-bit floats are read as `f32`, computed in `f32` (constants included), and each result is
//!   rounded once to its type, to nearest, ties to even. A cast and [`Op::Fill`] round once from
//!   any type ([`crate::rounding`]). [`run_widened`](crate::run_widened) implements this for any
//!   operation.
//! * [`Op::infer`](Op::infer) has checked shapes and types before a backend receives the operation.
//! * A backend may return before the operation has finished if later operations on the same buffers
//!   wait for it.

use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use crate::trace::ScanPlan;
use crate::{Activation, DType, Meta, Precision};

/// One operation. Operands are listed in order, with their shapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `() -> meta`: every element is `value`, converted to the element type. For `bool`,
    /// `value != 0`.
    Fill {
        /// The value of every element.
        value: f64,
        /// Shape and type of the result.
        meta: Meta,
    },
    /// `() -> meta`: random numbers. They are a function of `key`, the element's index and the
    /// distribution only, and are identical on every device (see [`crate::philox`]). Floats only.
    /// A number that rounding would take to the excluded upper end of a range is the largest one
    /// below it.
    Random {
        /// Selects the random stream.
        key: u64,
        /// The distribution of the numbers.
        distribution: Distribution,
        /// Shape and type of the result.
        meta: Meta,
    },
    /// `(x: S) -> S`: copies the elements, row-major and without gaps. Any type.
    Copy,
    /// `(x: S) -> S` in another type. Floats to integers round toward zero and saturate (NaN gives
    /// 0). Any number to `bool` is `x != 0`; `bool` to a number gives 0 or 1.
    Cast {
        /// The type of the result.
        to: DType,
    },
    /// `(x: S) -> S`, element by element. Floats.
    Unary(Unary),
    /// `(x: S) -> S`: `x * mul + add`. Floats; the constants are rounded to the element type first.
    Affine {
        /// The factor.
        mul: f64,
        /// The summand.
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
    /// `(a: S1, b: S2) -> broadcast(S1, S2)` as `bool`. Numbers of one type. Comparisons with NaN
    /// are false, except `Ne`.
    Compare(Compare),
    /// `(condition: S1 bool, a: S2, b: S3) -> broadcast(S1, S2, S3)`: `a` where the condition is
    /// true, else `b`. The value that is not selected has no effect, even if it is NaN. `a` and `b`
    /// have one type; any type.
    Select,
    /// `(x: [.., n, ..]) -> [.., ..]`: reduces one axis and removes it. Numbers. The sum over an
    /// empty axis is 0; the maximum over an empty axis is an error.
    Reduce {
        /// The reduction.
        kind: Reduce,
        /// The axis to reduce.
        axis: usize,
    },
    /// `(x: [.., n, ..]) -> [.., ..] i64`: the index of the largest element along an axis, the
    /// first one if several are equal. Numbers; n > 0. A NaN counts as smaller than any number.
    ArgMax {
        /// The axis to reduce.
        axis: usize,
    },
    /// `(a: [.., m, k], b: [.., k, n]) -> [.., m, n]`: `alpha * a b`, or with a third operand
    /// `(.., c: [.., m, n])`: `alpha * a b + c`. Floats of one type. Leading axes are equal, or `b`
    /// has exactly two axes and is used for every `a`. Products are accumulated in the element type
    /// or wider. `k = 0` gives 0 (or `c`).
    MatMul {
        /// The factor of the product.
        alpha: f64,
        /// The required precision of the products.
        precision: Precision,
    },
    /// `(x0: [.., n0, ..], x1: [.., n1, ..], ..) -> [.., n0 + n1 + .., ..]`: concatenates one or
    /// more operands of one type that have equal shapes except in one axis. Any type.
    Concat {
        /// The axis along which the operands are concatenated.
        axis: usize,
    },
    /// `(x: S, lengths: [B] int) -> S`: reverses the first `lengths[b]` elements along axis `time`
    /// of each row `b` (of axis `batch`). The rest is unchanged. A length outside `0..=T` is an
    /// error. Any type of `x`.
    Reverse {
        /// The axis along which rows are reversed.
        time: usize,
        /// The axis of the rows.
        batch: usize,
    },
    /// `(table: [V, rest..], ids: S int) -> [S.., rest..]`: looks up rows of a table. An id outside
    /// `0..V` is an error. Any type of table.
    Gather,
    /// `(ids: S int, rows: [S.., rest..]) -> [V, rest..]`: starts from zeros and adds each row at
    /// its id. Rows with equal ids are added in the order of `ids`. An id outside `0..V` is an
    /// error. Floats.
    ScatterAdd {
        /// `V`, the number of rows of the result.
        rows: usize,
    },
    /// An operation with a default implementation.
    Fused(Fused),
}

/// Constants are hashed by their bits.
impl Hash for Op {
    fn hash<H: Hasher>(&self, state: &mut H) {
        discriminant(self).hash(state);
        match self {
            Self::Fill { value, meta } => (value.to_bits(), meta).hash(state),
            Self::Random {
                key,
                distribution,
                meta,
            } => (key, distribution, meta).hash(state),
            Self::Copy | Self::Select | Self::Gather => {}
            Self::Cast { to } => to.hash(state),
            Self::Unary(f) => f.hash(state),
            Self::Affine { mul, add } => (mul.to_bits(), add.to_bits()).hash(state),
            Self::Clamp { min, max } => (min.to_bits(), max.to_bits()).hash(state),
            Self::Binary(f) => f.hash(state),
            Self::Compare(f) => f.hash(state),
            Self::Reduce { kind, axis } => (kind, axis).hash(state),
            Self::ArgMax { axis } | Self::Concat { axis } => axis.hash(state),
            Self::MatMul { alpha, precision } => (alpha.to_bits(), precision).hash(state),
            Self::Reverse { time, batch } => (time, batch).hash(state),
            Self::ScatterAdd { rows } => rows.hash(state),
            // Their constants are nested deeper, and there are few in a step: the text of a float
            // determines its bits, except those of NaN.
            Self::Fused(fused) => format!("{fused:?}").hash(state),
        }
    }
}

/// The distribution of random numbers.
///
/// ```
/// use recurrent::{Device, Distribution, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let die = Distribution::uniform(1.0, 7.0);
/// let rolls = Tensor::random(&Device::cpu(), 42, die, &[1000])?.floor()?;
/// assert_eq!(rolls.max(0)?.item()?, 6.0);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower end, inclusive.
        low: f64,
        /// Upper end, exclusive.
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

impl Distribution {
    /// [`Uniform`](Self::Uniform) in `[low, high)`.
    pub const fn uniform(low: f64, high: f64) -> Self {
        Self::Uniform { low, high }
    }

    /// [`Normal`](Self::Normal) with a mean and a standard deviation.
    pub const fn normal(mean: f64, std: f64) -> Self {
        Self::Normal { mean, std }
    }
}

/// By the bits of the constants.
impl Hash for Distribution {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (kind, a, b) = match self {
            Self::Uniform { low, high } => (0u8, low, high),
            Self::Normal { mean, std } => (1, mean, std),
        };
        (kind, a.to_bits(), b.to_bits()).hash(state);
    }
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
    /// The largest integer not above `x`.
    Floor,
    /// The sine.
    Sin,
    /// The cosine.
    Cos,
    /// An activation function of a cell.
    Activation(Activation),
}

/// A function of two numbers.
///
/// ```
/// use recurrent::backend::Op;
/// use recurrent::{Binary, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let a = Tensor::from_slice(&device, &[1.0f32, 5.0], &[2])?;
/// let b = Tensor::from_slice(&device, &[3.0f32, 2.0], &[2])?;
/// // What `a.maximum(&b)` runs on the device.
/// let larger = Tensor::call(&device, &Op::Binary(Binary::Max), &[&a, &b])?;
/// assert_eq!(larger.to_vec::<f32>()?, [3.0, 5.0]);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`. Integers round toward zero; an integer divided by 0 gives 0.
    Div,
    /// The larger number; NaN if either is NaN.
    Max,
    /// The smaller number; NaN if either is NaN.
    Min,
    /// The remainder with the sign of `b`, as TensorFlow's and Python's: the exact remainder of
    /// the division rounded toward zero, plus `b` if it is not 0 and has the other sign. It is
    /// `a` if `b` is infinite and of the same sign, and NaN if `a` is infinite or `b` is 0. For
    /// integers, 0 if `b` is 0.
    FloorMod,
}

/// A comparison of two numbers.
///
/// ```
/// use recurrent::{Compare, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let x = Tensor::from_slice(&Device::cpu(), &[1i32, 2, 3], &[3])?;
/// let above = |strict| if strict { Compare::Gt } else { Compare::Ge };
/// assert_eq!(x.compare(above(true), 2)?.to_bools()?, [false, false, true]);
/// assert_eq!(x.compare(above(false), 2)?.to_bools()?, [false, true, true]);
/// # Ok(()) }
/// ```
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

/// How to reduce an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// The sum.
    Sum,
    /// The largest element; NaN if any element is NaN.
    Max,
}

/// Operations that have a default implementation in terms of other operations, and for which a
/// backend may have a faster kernel.
///
/// `n` is the number of hidden units, `B` the batch size, `T` the number of steps. The gates are
/// concatenated on the last axis in TensorFlow's order: LSTM `i, j, f, o` (`j` is the candidate),
/// GRU `r, u`. Outputs called *saved* are operands of the gradient operation; they are not
/// differentiable themselves.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fused {
    /// `(x: [.., n], bias: [n]) -> [.., n]`: `activation(x + bias)`.
    BiasActivation {
        /// The activation.
        activation: Activation,
    },
    /// `(y: S, dy: S) -> S`: the gradient of an activation, computed from its value `y`.
    ActivationGrad {
        /// The activation.
        activation: Activation,
    },
    /// `(z: [B, 4n], c: [B, n]) -> (c': [B, n], h': [B, n], saved gates: [B, 4n])`
    ///
    /// With `i, j, f, o` the four parts of `z`: `c' = c σ(f + forget_bias) + σ(i) act(j)`,
    /// `h' = act(c') σ(o)`. The saved gates are `σ(i), act(j), σ(f + forget_bias), σ(o)`. `σ` is
    /// the sigmoid or another activation.
    /// Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, as TensorFlow's
    /// `BasicLSTMCell` computes it.
    LstmStep(LstmGates),
    /// `(gates: [B, 4n], c: [B, n], c': [B, n], dc': [B, n], dh': [B, n])`
    /// `-> (dz: [B, 4n], dc: [B, n])`
    LstmStepGrad(LstmGates),
    /// `(z: [B, 2n], h: [B, n]) -> (u: [B, n], rh: [B, n], saved r: [B, n])`: `r, u = σ(z)`,
    /// `rh = r h`. `σ` is the sigmoid or another activation.
    ///
    /// The first half of a GRU step (Cho et al. 2014, with the reset gate applied before the
    /// matmul).
    GruGates {
        /// The activation of the gates.
        activation: Activation,
    },
    /// `(r: [B, n], u: [B, n], h: [B, n], du: [B, n], drh: [B, n]) -> (dz: [B, 2n], dh: [B, n])`
    GruGatesGrad {
        /// The activation of the gates.
        activation: Activation,
    },
    /// `(z: [B, n], u: [B, n], h: [B, n]) -> (h': [B, n], saved q: [B, n])`: `q = act(z)`,
    /// `h' = u h + (1 - u) q`.
    ///
    /// The second half of a GRU step.
    GruOutput {
        /// The candidate's activation.
        activation: Activation,
    },
    /// `(q: [B, n], u: [B, n], h: [B, n], dh': [B, n]) -> (dz: [B, n], du: [B, n], dh: [B, n])`
    GruOutputGrad {
        /// The candidate's activation.
        activation: Activation,
    },
    /// `(lengths: [B] int, new: [B, rest..], old: [B, rest..]) -> [B, rest..]`: row `b` is `new` if
    /// `time < lengths[b]`, else `old`. Any type.
    MaskedUpdate {
        /// The index of the step, from 0.
        time: usize,
    },
    /// `(table: [V, rest..], ids: S int, rows: [S.., rest..]) -> [V, rest..]`: replaces the rows of
    /// the table at `ids`. If an id occurs more than once, its last row is used. An id outside
    /// `0..V` is an error. Any type of table. The inverse of [`Op::Gather`].
    ScatterUpdate,
    /// A recurrence over all steps, given as a graph; see [`ScanPlan`] for operands and results.
    Scan(ScanPlan),
    /// `(logits: [.., V], labels: [..] int) -> [..]`: `-log softmax(logits)[label]`. A label
    /// outside `0..V` is an error where the device can detect it without synchronising; otherwise
    /// it gives NaN.
    SoftmaxCrossEntropy,
    /// `(logits: [.., V], labels: [..] int, dloss: [..]) -> [.., V]`: `(softmax - onehot) dloss`.
    SoftmaxCrossEntropyGrad,
    /// `(x0: S0, x1: S1, ..) -> []`: the sum of the squares of all elements. One float type.
    SquaredNorm,
    /// `(w: S, g: S) -> S`: `w - lr g`, a step of gradient descent.
    Sgd {
        /// Learning rate.
        lr: f64,
    },
    /// `(w: S, m: S, v: S, g: S) -> (w': S, m': S, v': S)`: Adam (Kingma & Ba 2015) in
    /// TensorFlow's form: `m' = β1 m + (1 - β1) g`, `v' = β2 v + (1 - β2) g²`,
    /// `w' = keep w - lr sqrt(1 - β2^t) / (1 - β1^t) m' / (sqrt(v') + ε)`.
    Adam(AdamStep),
}

/// The constants of an LSTM step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LstmGates {
    /// Added to the forget gate before its activation; not part of the bias parameter.
    pub forget_bias: f64,
    /// Activation of the gates, `σ`.
    pub recurrent_activation: Activation,
    /// Activation of the candidate and of the new cell state.
    pub activation: Activation,
}

/// The constants of one Adam step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate, before the bias correction.
    pub lr: f64,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to `sqrt(v')`, outside the bias correction.
    pub epsilon: f64,
    /// The step number `t`, from 1.
    pub step: u64,
    /// Factor of `w` before the step: 1, or less for a decay of the weights.
    pub keep: f64,
}

impl AdamStep {
    /// The learning rate with the bias correction of this step: `lr sqrt(1 - β2^t) / (1 - β1^t)`.
    pub fn corrected_lr(&self) -> f64 {
        let t = self.step as f64;
        self.lr * (1.0 - self.beta2.powf(t)).sqrt() / (1.0 - self.beta1.powf(t))
    }
}

impl Fused {
    /// Whether all operands and results are matrices with a row for each row of the batch, which
    /// the operation treats independently.
    pub(crate) fn is_of_rows(&self) -> bool {
        matches!(
            self,
            Self::LstmStep(_)
                | Self::LstmStepGrad(_)
                | Self::GruGates { .. }
                | Self::GruGatesGrad { .. }
                | Self::GruOutput { .. }
                | Self::GruOutputGrad { .. }
        )
    }

    /// The activation of the gates, if the operation has gates.
    pub fn recurrent_activation(&self) -> Option<Activation> {
        match self {
            Self::LstmStep(gates) | Self::LstmStepGrad(gates) => Some(gates.recurrent_activation),
            Self::GruGates { activation } | Self::GruGatesGrad { activation } => Some(*activation),
            _ => None,
        }
    }

    /// The activation of the operation other than that of gates, if it has one.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Self::BiasActivation { activation }
            | Self::ActivationGrad { activation }
            | Self::GruOutput { activation }
            | Self::GruOutputGrad { activation } => Some(*activation),
            Self::LstmStep(gates) | Self::LstmStepGrad(gates) => Some(gates.activation),
            _ => None,
        }
    }
}
