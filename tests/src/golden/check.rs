//! Comparison with the results of TensorFlow.

use std::collections::BTreeSet;

use backend_api::{Backend, DType, Error, Result, Tensor};
use rnn_core::{Module, Nest};
use rnn_train::Differentiable;

use super::Trouble;
use super::file::GoldenFile;

/// The largest error so far, as a fraction of its tolerance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Worst(pub(super) f64);

/// Compares the numbers of a case with its file, and tracks which tensors were not compared yet.
pub(super) struct Check<'f> {
    file: &'f GoldenFile,
    dtype: DType,
    worst: Worst,
    left: BTreeSet<&'f str>,
}

impl<'f> Check<'f> {
    /// Starts with every result tensor of the file uncompared.
    pub(super) fn new(file: &'f GoldenFile, dtype: DType) -> Self {
        let given = |key: &str| {
            let whole = [
                "sequence_length",
                "initial_state",
                "labels",
                "logits",
                "targets",
            ];
            let parts = [
                "input/",
                "weights/",
                "R/",
                "initial_state/",
                "mask/",
                "noise/",
            ];
            whole.contains(&key) || parts.iter().any(|p| key.starts_with(p))
        };
        Self {
            file,
            dtype,
            worst: Worst::default(),
            left: file.keys().filter(|key| !given(key)).collect(),
        }
    }

    /// Compares a tensor with the one in the file: `|a - b| / (1 + |b|)`.
    pub(super) fn tensor<B: Backend>(
        &mut self,
        key: &str,
        found: &Tensor<B>,
    ) -> Result<(), Trouble> {
        let expected = self.file.tensor(found.device(), key)?;
        if expected.shape().count() != found.shape().count()
            || (expected.shape() != found.shape() && found.shape().rank() != 0)
        {
            let (is, should) = (found.shape(), expected.shape());
            return Err(Trouble::Wrong(format!("{key} is {is}, not {should}")));
        }
        self.left.remove(key);
        let tolerance = match (self.dtype, key.contains("grad/")) {
            (DType::F64, _) => 1e-10,
            (_, false) => 1e-5,
            (_, true) => 5e-5,
        };
        let (found, expected) = (found.to_f64_vec()?, expected.to_f64_vec()?);
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            let error = (a - b).abs() / (1.0 + b.abs());
            // Not `error > tolerance`, because a NaN must not pass.
            if !(error <= tolerance) {
                let text = format!("{key}[{i}] is {a}, not {b} (error {error:.1e})");
                return Err(Trouble::Wrong(text));
            }
            self.worst.0 = self.worst.0.max(error / tolerance);
        }
        Ok(())
    }

    /// Marks a tensor of the file as an input, not a result.
    pub(super) fn given(&mut self, key: &str) {
        self.left.remove(key);
    }

    /// Ends the comparison.
    pub(super) fn finish(self) -> Result<Worst, Trouble> {
        match self.left.first() {
            None => Ok(self.worst),
            Some(key) => Err(Trouble::Unsupported(format!(
                "no result corresponds to `{key}`"
            ))),
        }
    }
}

/// The terms of a loss: results that contribute, and leaves whose gradients are compared.
pub(super) struct Graph<B: Backend> {
    leaves: Vec<(String, Tensor<B>)>,
    results: Vec<(String, Tensor<B>)>,
}

impl<B: Differentiable> Graph<B> {
    pub(super) fn new() -> Self {
        Self {
            leaves: Vec::new(),
            results: Vec::new(),
        }
    }

    /// A tensor of the file as a leaf. Integers have no gradient and do not become leaves.
    pub(super) fn leaf(&mut self, file: &GoldenFile, device: &B, key: &str) -> Result<Tensor<B>> {
        let tensor = file.tensor(device, key)?;
        if !tensor.dtype().is_float() {
            return Ok(tensor);
        }
        let leaf = device.leaf(&tensor)?;
        self.leaves.push((key.into(), leaf.clone()));
        Ok(leaf)
    }

    /// The leaves so far, with their keys.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (&str, &Tensor<B>)> {
        self.leaves.iter().map(|(key, t)| (key.as_str(), t))
    }

    /// A nest of the form of `like` whose tensors are leaves from the file, named `key` or
    /// `key/path`.
    pub(super) fn leaf_nest<N: Nest<B>>(
        &mut self,
        file: &GoldenFile,
        key: &str,
        like: &N,
    ) -> Result<N> {
        let mut leaves = Vec::new();
        for (path, t) in like.named_leaves() {
            leaves.push(self.leaf(file, t.device(), &join(key, &path))?);
        }
        like.rebuild(&leaves)
    }

    /// The model with its parameters from the file as leaves, named `weights/scope/name`.
    pub(super) fn model<M: Module<Backend = B>>(
        &mut self,
        file: &GoldenFile,
        scope: &str,
        model: &M,
    ) -> Result<M, Trouble> {
        let mut model = model.clone();
        model.each_param(&mut |name, param| {
            let key = format!("weights/{}", join(scope, name));
            param.set(self.leaf(file, &param.device().clone(), &key)?)
        })?;
        Ok(model)
    }

    /// Adds results that contribute to the loss, named `key` or `key/path`.
    pub(super) fn results<N: Nest<B>>(&mut self, key: &str, nest: &N) {
        for (path, t) in nest.named_leaves() {
            self.results.push((join(key, &path), t.clone()));
        }
    }

    /// The gradient of each leaf; zeros where the loss does not depend on one.
    pub(super) fn gradients(&self, loss: &Tensor<B>) -> Result<Vec<Tensor<B>>> {
        let leaves: Vec<&Tensor<B>> = self.leaves.iter().map(|(_, t)| t).collect();
        let grads = if loss.is_recorded() {
            loss.device().backward(loss, &leaves)?
        } else {
            // All rows are empty.
            leaves.iter().map(|_| None).collect()
        };
        let or_zeros = |(leaf, grad): (&&Tensor<B>, Option<Tensor<B>>)| match grad {
            Some(grad) => Ok(grad),
            None => Tensor::zeros(leaf.device(), leaf.meta()),
        };
        leaves.iter().zip(grads).map(or_zeros).collect()
    }

    /// Compares results, loss and gradients.
    pub(super) fn compare(
        self,
        file: &GoldenFile,
        dtype: DType,
        no_gradient: &[String],
    ) -> Result<Worst, Trouble> {
        let used: BTreeSet<&str> = self.leaves.iter().map(|(key, _)| key.as_str()).collect();
        let unused = |key: &&str| key.starts_with("weights/") && !used.contains(key);
        if let Some(key) = file.keys().find(unused) {
            return Err(Trouble::Unsupported(format!(
                "no parameter corresponds to `{key}`"
            )));
        }
        let mut check = Check::new(file, dtype);
        let mut loss: Option<Tensor<B>> = None;
        for (key, result) in &self.results {
            check.tensor(key, result)?;
            let weight = format!("R/{key}");
            if !file.has(&weight) {
                continue;
            }
            let weights = file.tensor(result.device(), &weight)?;
            if weights.shape() != result.shape() {
                let (is, should) = (weights.shape(), result.shape());
                return Err(Trouble::Wrong(format!("{weight} is {is}, not {should}")));
            }
            let share = result.mul(&weights)?.sum_all()?;
            loss = Some(match loss {
                Some(loss) => loss.add(&share)?,
                None => share,
            });
        }
        let loss =
            loss.ok_or_else(|| Error::argument("golden", "R", "is the weight of no result"))?;
        check.tensor("loss", &loss)?;
        for ((key, _), grad) in self.leaves.iter().zip(self.gradients(&loss)?) {
            let grad_key = format!("grad/{key}");
            if no_gradient.contains(key) || no_gradient.contains(&grad_key) {
                if grad.to_f64_vec()?.iter().any(|g| *g != 0.0) {
                    return Err(Trouble::Wrong(format!("{grad_key} is not zero")));
                }
            } else {
                check.tensor(&grad_key, &grad)?;
            }
        }
        check.finish()
    }
}

/// The length of an axis of an input. A malformed file may lack the axis.
pub(super) fn extent<B: Backend>(x: &Tensor<B>, axis: usize) -> Result<usize> {
    let length = x.shape().dims().get(axis).copied();
    length.ok_or_else(|| {
        let expected = format!("axis {axis} is needed");
        Error::shape("golden", "input", x.shape(), expected)
    })
}

/// `key/path`, or the part that is not empty.
pub(super) fn join(key: &str, path: &str) -> String {
    match (key, path) {
        ("", path) => path.into(),
        (key, "") => key.into(),
        (key, path) => format!("{key}/{path}"),
    }
}
