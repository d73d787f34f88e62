//! The kernels of cells with independent units.

use backend_api::{Backend, Result, Tensor};

use super::{CellSize, First};
use crate::{Initializer, Module, Param, Visitor};

/// `x · w + h * u + bias` for one or several gates: each unit depends only on its own state (Li et
/// al. 2018).
#[derive(Clone, Debug)]
pub(crate) struct Independent<B: Backend> {
    /// TensorFlow's name of `w`, which differs between cells.
    name: &'static str,
    w: Param<B>,
    u: Param<B>,
    bias: Param<B>,
}

impl<B: Backend> Independent<B> {
    /// `w` is `[input, gates * units]`, `u` is `[1, gates * units]`, always uniform in ±1; and a
    /// bias.
    pub(crate) fn new(
        device: &B,
        sizes: CellSize,
        name: &'static str,
        gates: usize,
        first: First,
    ) -> Result<Self> {
        let width = gates * sizes.units;
        let unit = Initializer::Uniform {
            low: -1.0,
            high: 1.0,
        };
        let param = |first, dims: &[usize]| Param::new(device, first, dims, sizes.dtype);
        Ok(Self {
            name,
            w: param(first.kernel, &[sizes.input, width])?,
            u: param(unit, &[1, width])?,
            bias: param(first.bias, &[width])?,
        })
    }

    pub(crate) fn device(&self) -> &B {
        self.w.device()
    }

    /// `x · w + h * u + bias`, with the state `h` `[batch, units]` repeated for each gate.
    pub(crate) fn apply(&self, x: &Tensor<B>, h: &Tensor<B>) -> Result<Tensor<B>> {
        let (batch, units) = (h.shape()[0], h.shape()[1]);
        let width = self.u.shape()[1];
        let u = self.u.reshape(&[width / units, units])?;
        let kept = h.unsqueeze(1)?.mul(&u)?.reshape(&[batch, width])?;
        x.matmul(&self.w)?.add(&self.bias)?.add(&kept)
    }
}

impl<B: Backend> Module for Independent<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.param(self.name, &mut self.w);
        v.param("kernel_u", &mut self.u);
        v.param("bias", &mut self.bias);
    }
}
