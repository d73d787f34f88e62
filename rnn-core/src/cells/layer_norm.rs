//! Layer normalization of an LSTM.

use backend_api::{Backend, Error, Result, Tensor};

use super::CellSize;
use crate::{LayerNorm, Module, Visitor};

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
        let norm = || LayerNorm::scaled(device, sizes.units, sizes.dtype, [gain, shift]);
        let gates = names.iter().map(|&name| Ok((name, norm()?)));
        Ok(Self {
            gates: gates.collect::<Result<_>>()?,
            state: norm()?,
        })
    }

    /// The normalized gates.
    pub(crate) fn gates(&self, parts: &[Tensor<B>]) -> Result<Vec<Tensor<B>>> {
        let norms = self.gates.iter().map(|(_, norm)| norm);
        norms.zip(parts).map(|(norm, z)| norm.forward(z)).collect()
    }

    /// The normalized new cell state.
    pub(crate) fn state(&self, c: &Tensor<B>) -> Result<Tensor<B>> {
        self.state.forward(c)
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
