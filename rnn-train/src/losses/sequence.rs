//! Losses over sequences with a weight for each step.

use backend_api::{Backend, Compare, DType, Error, Result, Tensor};

use super::{softmax_cross_entropy_each, wide};

/// How a [`SequenceLoss`] reduces an axis.
///
/// ```
/// use recurrent::losses::{Reduction, SequenceLoss};
/// use recurrent::{DType, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let logits = Tensor::zeros(&device, &[2, 3, 4])?; // [batch, time, classes]
/// let targets = Tensor::zeros(&device, (&[2, 3], DType::I32))?;
/// let weights = Tensor::from_slice(&device, &[1.0f32, 1.0, 1.0, 1.0, 0.0, 0.0], &[2, 3])?;
/// let each = SequenceLoss { batch: Reduction::None, ..SequenceLoss::default() };
/// let each = each.of(&logits, &targets, &weights)?;
/// assert_eq!(each.dims()[..], [2]); // the mean over the steps of each row that count
/// assert!((each.at(1)?.item()? - 4f64.ln()).abs() < 1e-6);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Keeps the axis.
    None,
    /// The sum over the axis divided by the sum of the weights; TensorFlow's `average_across_*`.
    #[default]
    Average,
    /// The sum over the axis divided by the number of nonzero weights; TensorFlow's `sum_over_*`.
    Sum,
}

/// Weighted cross entropy for sequences of labels; TensorFlow's `seq2seq.sequence_loss`.
///
/// The default averages over time and batch and returns a scalar, `Σ w ce / Σ w`. If one axis is
/// kept, the result is `[batch]` or `[time]`. If both are kept, it is `[batch, time]`, weighted but
/// not divided. Where all weights are 0, the result is 0. If one axis is averaged and the other
/// summed, averaging takes precedence and the summed axis is kept, as in TensorFlow.
///
/// ```
/// use recurrent::losses::{SequenceLoss, sequence_mask};
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let logits = Tensor::from_slice(&device, &[0.0f32; 2 * 3 * 4], &[2, 3, 4])?;
/// let targets = Tensor::from_slice(&device, &[1i32, 2, 0, 3, 0, 0], &[2, 3])?;
/// let lengths = Tensor::from_slice(&device, &[3i32, 1], &[2])?;
/// let weights = sequence_mask(&lengths, 3)?.cast(logits.dtype())?;
/// let loss = SequenceLoss::default().of(&logits, &targets, &weights)?;
/// assert!((loss.item()? - 4f64.ln()).abs() < 1e-6);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceLoss {
    /// Reduction of the time axis.
    pub timesteps: Reduction,
    /// Reduction of the batch axis.
    pub batch: Reduction,
}

impl SequenceLoss {
    /// The loss of `logits [batch, time, classes]`, `targets [batch, time]` and
    /// `weights [batch, time]`.
    ///
    /// # Errors
    /// A tensor has the wrong rank or shape, or a target is not a class.
    pub fn of<B: Backend>(
        &self,
        logits: &Tensor<B>,
        targets: &Tensor<B>,
        weights: &Tensor<B>,
    ) -> Result<Tensor<B>> {
        let op = "sequence_loss";
        if logits.shape().rank() != 3 {
            let expected = "[batch, time, classes] is needed";
            return Err(Error::shape(op, "logits", logits.shape(), expected));
        }
        let rows = logits.shape().without(2)?;
        for (arg, t) in [("targets", targets), ("weights", weights)] {
            if t.shape() != rows {
                let expected = format!("logits are {}, so {rows} is needed", logits.shape());
                return Err(Error::shape(op, arg, t.shape(), expected));
            }
        }
        let weights = &wide(weights)?;
        let each = softmax_cross_entropy_each(logits, targets)?.mul(weights)?;
        use Reduction::{Average, None, Sum};
        match (self.timesteps, self.batch) {
            (Average, Average) => divide(&each.sum_all()?, &weights.sum_all()?),
            (Sum, Sum) => divide(&each.sum_all()?, &nonzero(weights)?.sum_all()?),
            (None, None) => Ok(each),
            (_, Average) => divide(&each.sum(0)?, &weights.sum(0)?),
            (Average, _) => divide(&each.sum(1)?, &weights.sum(1)?),
            (_, Sum) => divide(&each.sum(0)?, &nonzero(weights)?.sum(0)?),
            (Sum, _) => divide(&each.sum(1)?, &nonzero(weights)?.sum(1)?),
        }
    }
}

/// `a / b`, or 0 where `b` is 0.
fn divide<B: Backend>(a: &Tensor<B>, b: &Tensor<B>) -> Result<Tensor<B>> {
    let zero = Tensor::scalar(b.device(), 0.0, b.dtype())?;
    let one = Tensor::scalar(b.device(), 1.0, b.dtype())?;
    let none = b.compare(Compare::Eq, &zero)?;
    none.select_from(&zero, &a.div(&none.select_from(&one, b)?)?)
}

/// 1 where a weight is nonzero, else 0.
fn nonzero<B: Backend>(weights: &Tensor<B>) -> Result<Tensor<B>> {
    let zero = Tensor::scalar(weights.device(), 0.0, weights.dtype())?;
    weights.compare(Compare::Ne, &zero)?.cast(weights.dtype())
}

/// Expands `lengths [batch]` to a `bool` mask `[batch, width]` that is true before each row's
/// length; TensorFlow's `sequence_mask`.
///
/// ```
/// use recurrent::losses::sequence_mask;
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let lengths = Tensor::from_ints(&Device::cpu(), &[3, 1], &[2])?;
/// let mask = sequence_mask(&lengths, 3)?;
/// assert_eq!(mask.to_bools()?, [true, true, true, true, false, false]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `lengths` is not a vector of integers.
pub fn sequence_mask<B: Backend>(lengths: &Tensor<B>, width: usize) -> Result<Tensor<B>> {
    let op = "sequence_mask";
    if lengths.shape().rank() != 1 {
        return Err(Error::shape(
            op,
            "lengths",
            lengths.shape(),
            "one axis is needed",
        ));
    }
    if !lengths.dtype().is_int() {
        let expected = "i32 or i64 is needed";
        return Err(Error::dtype(op, "lengths", lengths.dtype(), expected));
    }
    let steps = Tensor::arange(lengths.device(), 0..width, 1, DType::I64)?;
    lengths
        .cast(DType::I64)?
        .unsqueeze(1)?
        .compare(Compare::Gt, &steps)
}

/// The loss of each row from lists of steps: `Σ_t w ce`, divided by `Σ_t w + 1e-12` if averaged.
/// The result is `[batch]`; TensorFlow's `legacy_seq2seq.sequence_loss_by_example`.
///
/// Each step has `logits [batch, classes]`, `targets [batch]` and `weights [batch]`.
///
/// ```
/// use recurrent::losses::sequence_loss_by_example;
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let logits = vec![Tensor::zeros(&device, &[2, 4])?; 3]; // three steps of two rows
/// let targets = vec![Tensor::from_ints(&device, &[0, 3], &[2])?; 3];
/// let weights = vec![Tensor::ones(&device, &[2])?; 3];
/// let each = sequence_loss_by_example(&logits, &targets, &weights, true)?;
/// assert!((each.at(1)?.item()? - 4f64.ln()).abs() < 1e-6);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The lists are empty or differ in length, or the tensors of a step do not match.
pub fn sequence_loss_by_example<B: Backend>(
    logits: &[Tensor<B>],
    targets: &[Tensor<B>],
    weights: &[Tensor<B>],
    average_across_timesteps: bool,
) -> Result<Tensor<B>> {
    let op = "sequence_loss_by_example";
    let Some(first) = weights.first() else {
        return Err(Error::argument(op, "weights", "must not be empty"));
    };
    for (arg, count) in [("targets", targets.len()), ("weights", weights.len())] {
        if count != logits.len() {
            let problem = format!("have {count} steps, but logits have {}", logits.len());
            return Err(Error::argument(op, arg, problem));
        }
    }
    let mut total = Tensor::zeros(first.device(), wide(first)?.meta())?;
    let mut size = total.clone();
    for ((logits, targets), weights) in logits.iter().zip(targets).zip(weights) {
        let weights = wide(weights)?;
        total = total.add(&softmax_cross_entropy_each(logits, targets)?.mul(&weights)?)?;
        size = size.add(&weights)?;
    }
    if average_across_timesteps {
        total = total.div(&size.affine(1.0, 1e-12)?)?;
    }
    Ok(total)
}

/// The sum of [`sequence_loss_by_example`] over the batch, divided by the batch size if averaged,
/// so that a short row weighs as much as a long one. A scalar; TensorFlow's
/// `legacy_seq2seq.sequence_loss`.
///
/// ```
/// use recurrent::losses::legacy_sequence_loss;
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let logits = vec![Tensor::zeros(&device, &[2, 4])?; 3]; // three steps of two rows
/// let targets = vec![Tensor::from_ints(&device, &[0, 3], &[2])?; 3];
/// let weights = vec![Tensor::ones(&device, &[2])?; 3];
/// let mean = legacy_sequence_loss(&logits, &targets, &weights, true, true)?.item()?;
/// assert!((mean - 4f64.ln()).abs() < 1e-6);
/// let sum = legacy_sequence_loss(&logits, &targets, &weights, false, false)?.item()?;
/// assert!((sum - 6.0 * 4f64.ln()).abs() < 1e-5);
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`sequence_loss_by_example`].
pub fn legacy_sequence_loss<B: Backend>(
    logits: &[Tensor<B>],
    targets: &[Tensor<B>],
    weights: &[Tensor<B>],
    average_across_timesteps: bool,
    average_across_batch: bool,
) -> Result<Tensor<B>> {
    let each = sequence_loss_by_example(logits, targets, weights, average_across_timesteps)?;
    let rows = each.shape().count();
    let sum = each.sum_all()?;
    if average_across_batch && rows > 0 {
        return sum.affine(1.0 / rows as f64, 0.0);
    }
    Ok(sum)
}
