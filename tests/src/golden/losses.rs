//! A file of losses, masks and clipping results for one batch of logits.

use backend_api::{Compare, DType, Result as ApiResult, Tensor};
use rnn_train::Differentiable;
use rnn_train::losses::{
    Reduction, SequenceLoss, legacy_sequence_loss, mean_squared_error, sequence_loss_by_example,
    sequence_mask, softmax_cross_entropy_each,
};

use super::Trouble;
use super::case::LossesCase;
use super::check::{Check, Worst, extent};
use super::file::GoldenFile;
use super::static_rnn::unstack;
use crate::devices::TestDevice;

type T = Tensor<TestDevice>;

/// The forms of a sequence loss in the file, by name.
const FORMS: [&str; 11] = [
    "none",
    "avg_time_avg_batch",
    "avg_time",
    "avg_batch",
    "sum_time_sum_batch",
    "sum_time",
    "sum_batch",
    "legacy_by_example_avg",
    "legacy_by_example_sum",
    "legacy_sum_batch",
    "legacy_avg_batch",
];

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &LossesCase,
) -> Result<Worst, Trouble> {
    file.lengths(case.sequence_length.as_deref())?;
    let mut check = Check::new(file, case.dtype.dtype());
    let logits = file.tensor(device, "logits")?;
    let targets = file.tensor(device, "targets")?;
    for weights in ["ones", "mask", "fractional"] {
        let w = file.tensor(device, &format!("weights/{weights}"))?;
        for form in FORMS {
            let key = format!("sequence_loss/{weights}/{form}");
            let leaf = device.leaf(&logits)?;
            let loss = sequence_loss(form, &leaf, &targets, &w)?;
            check.tensor(&key, &loss)?;
            let grads = device.backward(&loss.sum_all()?, &[&leaf])?;
            let grad = match &grads[0] {
                Some(grad) => grad.clone(),
                None => Tensor::zeros(device, logits.meta())?,
            };
            check.tensor(&format!("grad/{key}"), &grad)?;
        }
    }
    check.tensor("crossent", &softmax_cross_entropy_each(&logits, &targets)?)?;
    let softmax = logits.softmax(2)?;
    check.tensor("softmax", &softmax)?;
    check.tensor(
        "softmax_crossent_dense",
        &dense_cross_entropy(&logits, &softmax)?,
    )?;
    let quarter = Tensor::full(device, 0.25, logits.meta())?;
    check.tensor("mse", &mean_squared_error(&logits, &quarter)?)?;
    let best = logits.argmax(2)?.cast(targets.dtype())?;
    let hits = best.compare(Compare::Eq, &targets)?;
    check.tensor("in_top_1", &hits.reshape(&[hits.shape().count()])?)?;
    masks(&mut check, device, file, &targets, &logits)?;
    clips(&mut check, device, file, &logits)?;
    check.finish()
}

fn sequence_loss(form: &str, logits: &T, targets: &T, weights: &T) -> ApiResult<T> {
    use Reduction::{Average, None, Sum};
    let of = |timesteps, batch| SequenceLoss { timesteps, batch }.of(logits, targets, weights);
    let lists = || {
        Ok((
            unstack(logits, false)?,
            unstack(targets, false)?,
            unstack(weights, false)?,
        ))
    };
    match form {
        "avg_time_avg_batch" => of(Average, Average),
        "avg_time" => of(Average, None),
        "avg_batch" => of(None, Average),
        "sum_time_sum_batch" => of(Sum, Sum),
        "sum_time" => of(Sum, None),
        "sum_batch" => of(None, Sum),
        "legacy_by_example_avg" | "legacy_by_example_sum" => {
            let (l, t, w) = lists()?;
            sequence_loss_by_example(&l, &t, &w, form.ends_with("avg"))
        }
        "legacy_sum_batch" | "legacy_avg_batch" => {
            let (l, t, w) = lists()?;
            legacy_sequence_loss(&l, &t, &w, true, form == "legacy_avg_batch")
        }
        _ => of(None, None),
    }
}

/// Cross entropy with the softmax, reversed along time, as labels.
fn dense_cross_entropy(logits: &T, softmax: &T) -> ApiResult<T> {
    let (rows, steps) = (extent(softmax, 0)?, extent(softmax, 1)?);
    let lengths = Tensor::from_slice(logits.device(), &vec![steps as i64; rows], &[rows])?;
    let labels = softmax.reverse(&lengths, 1, 0)?;
    labels.mul(&logits.log_softmax(2)?)?.sum(2)?.neg()
}

fn masks(
    check: &mut Check<'_>,
    device: &TestDevice,
    file: &GoldenFile,
    targets: &T,
    logits: &T,
) -> Result<(), Trouble> {
    let lengths = file.tensor(device, "sequence_length")?;
    check.tensor(
        "sequence_mask",
        &sequence_mask(&lengths, extent(targets, 1)?)?,
    )?;
    let longest = lengths.to_f64_vec()?.into_iter().fold(0.0, f64::max) as usize;
    check.tensor(
        "sequence_mask_default_maxlen",
        &sequence_mask(&lengths, longest)?,
    )?;
    check.tensor("sign_mask", &targets.cast(logits.dtype())?.sign()?)?;
    check.tensor(
        "reverse_sequence/batch_major",
        &logits.reverse(&lengths, 1, 0)?,
    )?;
    let turned = logits.transpose(0, 1)?.reverse(&lengths, 0, 1)?;
    check.tensor("reverse_sequence/time_major", &turned)
}

fn clips(
    check: &mut Check<'_>,
    device: &TestDevice,
    file: &GoldenFile,
    logits: &T,
) -> Result<(), Trouble> {
    check.tensor("clip_by_value", &logits.clamp(-0.7, 0.9)?)?;
    let norm = logits.square()?.sum_all()?.sqrt()?.item()?;
    check.tensor("clip_by_norm", &logits.affine(2.0 / norm.max(2.0), 0.0)?)?;
    let other = file
        .tensor(device, "weights/fractional")?
        .cast(DType::F64)?;
    let both = norm.powi(2) + other.square()?.sum_all()?.item()?;
    let both = both.sqrt();
    for (kind, limit) in [("active", 1.5), ("inactive", 1000.0)] {
        let key = |part: &str| format!("clip_by_global_norm/{kind}/{part}");
        let scale = limit / both.max(limit);
        check.tensor(&key("0"), &logits.affine(scale, 0.0)?)?;
        check.tensor(&key("1"), &other.affine(scale, 0.0)?)?;
        check.tensor(&key("norm"), &Tensor::scalar(device, both, DType::F64)?)?;
    }
    Ok(())
}
