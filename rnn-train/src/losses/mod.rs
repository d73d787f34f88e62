//! Loss functions and metrics.
//!
//! Means are over every element or label, regardless of the axes. The mean of an empty tensor is an
//! error, because it would be NaN and a NaN loss ends a run.
//!
//! Losses of 16-bit floats are computed in `f32` and are `f32`: a square, or a sum over labels, can
//! be too large for `f16`. Their gradients have the type of the arguments.

mod sequence;

use backend_api::{Backend, Compare, DType, Error, Fused, Result, Tensor};

pub use sequence::{
    Reduction, SequenceLoss, legacy_sequence_loss, sequence_loss_by_example, sequence_mask,
};

/// Mean cross entropy: `logits [.., V]`, integer `labels [..]`; a scalar.
///
/// See [`softmax_cross_entropy_each`].
///
/// ```
/// use recurrent::losses::softmax_cross_entropy;
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let logits = Tensor::from_slice(&device, &[0.0f32; 2 * 4], &[2, 4])?;
/// let labels = Tensor::from_slice(&device, &[3i32, 0], &[2])?;
/// let loss = softmax_cross_entropy(&logits, &labels)?;
/// assert!((loss.item()? - 4f64.ln()).abs() < 1e-6);
/// # Ok(()) }
/// ```
///
/// # Errors
/// There are no labels, or [`softmax_cross_entropy_each`] fails.
pub fn softmax_cross_entropy<B: Backend>(
    logits: &Tensor<B>,
    labels: &Tensor<B>,
) -> Result<Tensor<B>> {
    let each = softmax_cross_entropy_each(logits, labels)?;
    not_empty("softmax_cross_entropy", "labels", labels)?;
    each.mean_all()
}

/// Cross entropy of each label, `-log softmax(logits)[label]`: `logits [.., V]`, integer
/// `labels [..]`; the result is `[..]`.
///
/// A label outside `0..V` is an error if the device can check it without waiting. Otherwise its
/// result is NaN.
///
/// ```
/// use recurrent::losses::softmax_cross_entropy_each;
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let logits = Tensor::zeros(&device, &[2, 5, 4])?; // [batch, time, classes]
/// let labels = Tensor::from_ints(&device, &[3; 10], &[2, 5])?;
/// let each = softmax_cross_entropy_each(&logits, &labels)?; // [batch, time]
/// assert!((each.at((1, 4))?.item()? - 4f64.ln()).abs() < 1e-6);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The shapes do not match, the labels are not integers, or the device failed.
pub fn softmax_cross_entropy_each<B: Backend>(
    logits: &Tensor<B>,
    labels: &Tensor<B>,
) -> Result<Tensor<B>> {
    wide(logits)?.fused(Fused::SoftmaxCrossEntropy, &[labels])
}

/// The numbers in the type that a loss is computed in.
fn wide<B: Backend>(t: &Tensor<B>) -> Result<Tensor<B>> {
    t.cast(t.dtype().computed_in())
}

/// Mean of the squared differences between two tensors of equal shape; a scalar.
///
/// ```
/// use recurrent::losses::mean_squared_error;
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let prediction = Tensor::from_slice(&device, &[1.0f32, 2.0], &[2, 1])?;
/// let target = Tensor::from_slice(&device, &[1.0f32, 5.0], &[2, 1])?;
/// assert_eq!(mean_squared_error(&prediction, &target)?.item()?, 4.5);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The shapes or types differ (there is no broadcasting), the tensors are empty, or the device
/// failed.
pub fn mean_squared_error<B: Backend>(
    prediction: &Tensor<B>,
    target: &Tensor<B>,
) -> Result<Tensor<B>> {
    let op = "mean_squared_error";
    if target.shape() != prediction.shape() {
        let expected = format!("the prediction is {}", prediction.shape());
        return Err(Error::shape(op, "target", target.shape(), expected));
    }
    not_empty(op, "prediction", prediction)?;
    if target.dtype() != prediction.dtype() {
        let expected = format!("the prediction is {}", prediction.dtype());
        return Err(Error::dtype(op, "target", target.dtype(), expected));
    }
    let difference = wide(prediction)?.sub(&wide(target)?)?;
    difference.square()?.mean_all()
}

/// Fraction of rows whose largest logit is at the label: `logits [.., V]`, integer `labels [..]`.
/// Of equal logits, the first counts as the largest. A row with a NaN has no largest logit, and so
/// does not count as correct.
///
/// ```
/// use recurrent::losses::accuracy;
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let logits = Tensor::from_slice(&device, &[0.1f32, 0.9, 0.8, 0.2], &[2, 2])?;
/// let labels = Tensor::from_ints(&device, &[1, 1], &[2])?;
/// assert_eq!(accuracy(&logits, &labels)?, 0.5);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The shapes do not match, the labels are not integers, there are no labels, or the device failed.
pub fn accuracy<B: Backend>(logits: &Tensor<B>, labels: &Tensor<B>) -> Result<f64> {
    not_empty("accuracy", "labels", labels)?;
    hits("accuracy", logits, labels)?.mean_all()?.item()
}

/// [`accuracy`] with a weight for each label, `Σ w hit / Σ w`; TensorFlow's
/// `metrics.accuracy(weights=..)`. With a [`sequence_mask`] as `weights [..]`, padding does not
/// count.
///
/// ```
/// use recurrent::losses::{sequence_mask, weighted_accuracy};
/// use recurrent::{DType, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let labels = Tensor::from_slice(&device, &[1i64, 0, 1, 1], &[2, 2])?;
/// let logits = labels.one_hot(2, DType::F32)?.neg()?; // wrong everywhere
/// let lengths = Tensor::from_slice(&device, &[2i64, 1], &[2])?;
/// let mask = sequence_mask(&lengths, 2)?;
/// assert_eq!(weighted_accuracy(&logits, &labels, &mask)?, 0.0);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`accuracy`] fails, the weights have another shape than the labels, or they sum to 0.
pub fn weighted_accuracy<B: Backend>(
    logits: &Tensor<B>,
    labels: &Tensor<B>,
    weights: &Tensor<B>,
) -> Result<f64> {
    let op = "weighted_accuracy";
    if weights.shape() != labels.shape() {
        let expected = format!("the labels are {}", labels.shape());
        return Err(Error::shape(op, "weights", weights.shape(), expected));
    }
    let hits = hits(op, logits, labels)?;
    let weights = weights.detach().cast(DType::F64)?;
    let total = weights.sum_all()?.item()?;
    if total == 0.0 {
        return Err(Error::argument(op, "weights", "sum to 0"));
    }
    Ok(hits.mul(&weights)?.sum_all()?.item()? / total)
}

/// 1 where the largest logit is at the label, else 0, as `f64`.
fn hits<B: Backend>(op: &'static str, logits: &Tensor<B>, labels: &Tensor<B>) -> Result<Tensor<B>> {
    let shape = logits.shape();
    let Some((_, rows)) = shape.dims().split_last() else {
        let expected = "an axis of classes is needed";
        return Err(Error::shape(op, "logits", shape, expected));
    };
    if labels.shape().dims() != rows {
        let expected = format!("the logits are {shape}");
        return Err(Error::shape(op, "labels", labels.shape(), expected));
    }
    if !labels.dtype().is_int() {
        let expected = "i32 or i64 is needed";
        return Err(Error::dtype(op, "labels", labels.dtype(), expected));
    }
    let logits = logits.detach();
    let predicted = logits.argmax(rows.len())?;
    let hits = predicted.compare(Compare::Eq, &labels.cast(DType::I64)?)?;
    // The maximum of a row with a NaN is NaN, which does not equal itself.
    let largest = logits.max(rows.len())?;
    let numbers = largest.compare(Compare::Eq, &largest)?;
    hits.cast(DType::F64)?.mul(&numbers.cast(DType::F64)?)
}

fn not_empty<B: Backend>(op: &'static str, arg: &str, t: &Tensor<B>) -> Result<()> {
    match t.shape().count() {
        0 => Err(Error::shape(op, arg, t.shape(), "a mean needs an element")),
        _ => Ok(()),
    }
}
