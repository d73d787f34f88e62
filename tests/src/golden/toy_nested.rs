//! A cell with nested inputs, outputs and states, which only the golden files use.

use backend_api::{Backend, DType, Meta, Result, Shape, Tensor};
use rnn_core::{Cell, Initializer, Param, StepContext};
use serde::Deserialize;
use serde_json::Value;

use super::Trouble;
use super::case::read;

/// Inputs `a: [batch, depth]` and `b: [batch, j, k]`, states `s1` and `s2` of the outputs' shapes:
///
/// `n1 = tanh(a · wa + s1 · us + b1)`, `n2 = s2 / 2 + tanh(b) * mean(n1)`, with the mean over the
/// hidden units. The outputs are `n1, n2 * v`.
#[derive(Clone, Debug)]
pub(crate) struct ToyNested<B: Backend> {
    wa: Param<B>,
    us: Param<B>,
    b1: Param<B>,
    v: Param<B>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    n: usize,
    j: usize,
    k: usize,
    #[serde(rename = "type")]
    class: String,
}

impl<B: Backend> ToyNested<B> {
    pub(super) fn from_config(
        device: &B,
        options: &Value,
        depth: usize,
        dtype: DType,
    ) -> Result<Self, Trouble> {
        let Options { n, j, k, class } = read(options.clone())?;
        if class != "ToyNested" {
            let what = format!("`{class}` with nested inputs");
            return Err(Trouble::Unsupported(what));
        }
        Ok(Self::new(device, depth, [n, j, k], dtype)?)
    }

    /// A cell for inputs `[batch, depth]` and `[batch, j, k]`.
    pub(crate) fn new(
        device: &B,
        depth: usize,
        [n, j, k]: [usize; 3],
        dtype: DType,
    ) -> Result<Self> {
        let param = |dims: &[usize]| Param::new(device, Initializer::ZEROS, dims, dtype);
        Ok(Self {
            wa: param(&[depth, n])?,
            us: param(&[n, n])?,
            b1: param(&[n])?,
            v: param(&[j, k])?,
        })
    }

    /// Zeros of the shapes of `n1` and `n2`.
    fn zeros(&self, batch: usize) -> Result<(Tensor<B>, Tensor<B>)> {
        let zeros = |dims: &[usize]| {
            let meta = Meta::new(Shape::new(dims)?, self.b1.dtype());
            Tensor::zeros(self.b1.device(), meta)
        };
        let v = self.v.shape();
        Ok((
            zeros(&[batch, self.b1.shape()[0]])?,
            zeros(&[batch, v[0], v[1]])?,
        ))
    }
}

rnn_core::module!(ToyNested<B> { wa, us, b1, v });

impl<B: Backend> Cell for ToyNested<B> {
    type Input = (Tensor<B>, Tensor<B>);
    type State = (Tensor<B>, (Tensor<B>,));
    type Output = (Tensor<B>, Tensor<B>);

    fn scope(&self) -> String {
        "toy_nested".into()
    }

    fn zero_state(&self, batch: usize) -> Result<Self::State> {
        let (n1, n2) = self.zeros(batch)?;
        Ok((n1, (n2,)))
    }

    fn zero_output(&self, batch: usize) -> Result<Self::Output> {
        self.zeros(batch)
    }

    fn step(
        &self,
        _: &StepContext,
        (a, b): &Self::Input,
        (s1, (s2,)): &Self::State,
    ) -> Result<(Self::Output, Self::State)> {
        let n1 = a.matmul(&self.wa)?.add(&s1.matmul(&self.us)?)?;
        let n1 = n1.add(&self.b1)?.tanh()?;
        let units = self.b1.shape()[0];
        let mean = n1.sum(1)?.affine(1.0 / units as f64, 0.0)?;
        let mean = mean.unsqueeze(1)?.unsqueeze(2)?;
        let n2 = s2.affine(0.5, 0.0)?.add(&b.tanh()?.mul(&mean)?)?;
        let output = (n1.clone(), n2.mul(&self.v)?);
        Ok((output, (n1, (n2,))))
    }
}
