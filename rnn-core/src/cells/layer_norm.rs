//! Layer normalization.

use backend_api::{Backend, Error, Result, Tensor};

use super::CellSize;
use crate::{Initializer, Module, Param, Visitor};

/// Layer normalization over the last axis (Ba et al. 2016), as in `tf.contrib.layers.layer_norm`:
/// `(x - mean) / sqrt(variance + 1e-12) * gamma + beta`.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm<B: Backend> {
    gamma: Param<B>,
    beta: Param<B>,
}

impl<B: Backend> LayerNorm<B> {
    fn new(device: &B, sizes: CellSize, gain: f64, shift: f64) -> Result<Self> {
        let vector = |value| {
            Param::new(
                device,
                Initializer::Constant(value),
                &[sizes.units],
                sizes.dtype,
            )
        };
        Ok(Self {
            gamma: vector(gain)?,
            beta: vector(shift)?,
        })
    }

    pub(crate) fn apply(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        let axis = x.shape().rank() - 1;
        let mean = |t: &Tensor<B>| {
            let sum = t.sum(axis)?.unsqueeze(axis)?;
            sum.affine(1.0 / t.shape().last() as f64, 0.0)
        };
        // Sums and differences in 16 bits would lose the deviations from the mean.
        let dtype = x.dtype();
        let wide = |t: &Tensor<B>| t.cast(dtype.computed_in());
        let x = &wide(x)?;
        let centred = x.sub(&mean(x)?)?;
        let deviation = mean(&centred.square()?)?.affine(1.0, 1e-12)?.sqrt()?;
        let normalized = centred.div(&deviation)?.mul(&wide(&self.gamma)?)?;
        normalized.add(&wide(&self.beta)?)?.cast(dtype)
    }
}

crate::module!(LayerNorm<B> { gamma, beta });

/// The layer normalizations of an LSTM: one per gate, and one for the new cell state.
#[derive(Clone, Debug)]
pub(crate) struct GateNorms<B: Backend> {
    gates: Vec<(&'static str, LayerNorm<B>)>,
    state: LayerNorm<B>,
}

impl<B: Backend> GateNorms<B> {
    /// Normalizations of the gates with the given names, in the order of the gates in the matmul.
    pub(crate) fn new(
        device: &B,
        sizes: CellSize,
        names: &[&'static str],
        gain: f64,
        shift: f64,
    ) -> Result<Self> {
        for (arg, value) in [("norm_gain", gain), ("norm_shift", shift)] {
            if !value.is_finite() {
                let problem = format!("is {value}, but must be finite");
                return Err(Error::argument(sizes.cell, arg, problem));
            }
        }
        let norm = || LayerNorm::new(device, sizes, gain, shift);
        let gates = names.iter().map(|&name| Ok((name, norm()?)));
        Ok(Self {
            gates: gates.collect::<Result<_>>()?,
            state: norm()?,
        })
    }

    /// The normalized gates.
    pub(crate) fn gates(&self, parts: &[Tensor<B>]) -> Result<Vec<Tensor<B>>> {
        let norms = self.gates.iter().map(|(_, norm)| norm);
        norms.zip(parts).map(|(norm, z)| norm.apply(z)).collect()
    }

    /// The normalized new cell state.
    pub(crate) fn state(&self, c: &Tensor<B>) -> Result<Tensor<B>> {
        self.state.apply(c)
    }
}

impl<B: Backend> Module for GateNorms<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        for (name, norm) in &mut self.gates {
            v.child(name, norm);
        }
        v.child("state", &mut self.state);
    }
}
