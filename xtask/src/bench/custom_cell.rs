//! A user's own cell.

use backend_api::{Backend, DType, Meta, Result, Shape, Tensor};
use rnn_core::{Cell, Dense, Initializer, Param, StepContext};

/// The minimal gated unit (Zhou et al. 2016), as in the example `custom_cell`:
/// `f = σ([x, h] · gate)`, `q = tanh(x · input + (f * h) · recurrent)`,
/// `h' = (1 - f) * h + f * q`.
#[derive(Clone, Debug)]
pub(super) struct MinimalGatedUnit<B: Backend> {
    gate: Dense<B>,
    input: Dense<B>,
    recurrent: Param<B>,
}

impl<B: Backend> MinimalGatedUnit<B> {
    pub(super) fn new(device: &B, depth: usize, units: usize) -> Result<Self> {
        let glorot = Initializer::GlorotUniform;
        Ok(Self {
            gate: Dense::new(device, depth + units, units)?,
            input: Dense::new(device, depth, units)?,
            recurrent: Param::new(device, glorot, &[units, units], DType::F32)?,
        })
    }
}

rnn_core::module!(MinimalGatedUnit<B> { gate, input, recurrent });

impl<B: Backend> Cell for MinimalGatedUnit<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn zero_state(&self, batch: usize) -> Result<Tensor<B>> {
        let shape = Shape::new(&[batch, self.recurrent.shape()[0]])?;
        Tensor::zeros(self.recurrent.device(), Meta::new(shape, DType::F32))
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.zero_state(batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        h: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        let f = self.gate.forward(&Tensor::concat(&[x, h], 1)?)?.sigmoid()?;
        let q = f
            .mul(h)?
            .matmul(&self.recurrent)?
            .add(&self.input.forward(x)?)?
            .tanh()?;
        let h = h.add(&f.mul(&q.sub(h)?)?)?;
        Ok((h.clone(), h))
    }
}
