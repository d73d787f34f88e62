//! The kernel and bias of most cells.

use backend_api::{Backend, Result, Tensor};

use super::CellSize;
use crate::{Initializer, Module, Param, Visitor};

/// `[x, h] · kernel + bias`. The kernel's first rows are multiplied by the input, the others by the
/// state, as in TensorFlow.
#[derive(Clone, Debug)]
pub(crate) struct Affine<B: Backend> {
    input: usize,
    kernel: Param<B>,
    bias: Param<B>,
}

/// Initializers of a kernel and its bias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    pub(crate) kernel: Initializer,
    pub(crate) bias: Initializer,
}

impl First {
    /// The initializers that the caller gave, or the defaults of TensorFlow's cell.
    pub(crate) fn new(
        kernel: Option<Initializer>,
        bias: Option<Initializer>,
        default_bias: Initializer,
    ) -> Self {
        Self {
            kernel: kernel.unwrap_or_default(),
            bias: bias.unwrap_or(default_bias),
        }
    }

    /// The given initializer of the kernel, and a bias of zeros.
    pub(crate) fn kernel(kernel: Option<Initializer>) -> Self {
        Self::new(kernel, None, Initializer::ZEROS)
    }
}

impl<B: Backend> Affine<B> {
    /// A kernel `[input + units, width]` and a bias `[width]`.
    pub(crate) fn new(device: &B, sizes: CellSize, width: usize, first: First) -> Result<Self> {
        Self::with_state(device, sizes, sizes.units, width, first)
    }

    /// As [`new`](Self::new), for a state whose width is not the number of units.
    pub(crate) fn with_state(
        device: &B,
        sizes: CellSize,
        state: usize,
        width: usize,
        first: First,
    ) -> Result<Self> {
        let rows = sizes.input + state;
        Ok(Self {
            input: sizes.input,
            kernel: Param::new(device, first.kernel, &[rows, width], sizes.dtype)?,
            bias: Param::new(device, first.bias, &[width], sizes.dtype)?,
        })
    }

    /// The device of the parameters.
    pub(crate) fn device(&self) -> &B {
        self.kernel.device()
    }

    /// The rows of the kernel that are multiplied by the input.
    pub(crate) fn input_kernel(&self) -> Result<Tensor<B>> {
        self.kernel.slice(0, 0..self.input)
    }

    /// The rows of the kernel that are multiplied by the state.
    pub(crate) fn recurrent_kernel(&self) -> Result<Tensor<B>> {
        self.kernel.slice(0, self.input..self.kernel.shape()[0])
    }

    pub(crate) fn bias(&self) -> &Tensor<B> {
        &self.bias
    }

    /// `[x, h] · kernel + bias`, `[batch, width]`.
    pub(crate) fn apply(&self, x: &Tensor<B>, h: &Tensor<B>) -> Result<Tensor<B>> {
        h.matmul_add(&self.recurrent_kernel()?, &self.project(x)?)
    }

    /// `[x, h] · kernel`.
    pub(crate) fn product(&self, x: &Tensor<B>, h: &Tensor<B>) -> Result<Tensor<B>> {
        h.matmul_add(&self.recurrent_kernel()?, &x.matmul(&self.input_kernel()?)?)
    }

    /// `x · kernel + bias`, for the rows of the kernel that are multiplied by the input.
    pub(crate) fn project(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        x.matmul(&self.input_kernel()?)?.add(&self.bias)
    }
}

impl<B: Backend> Affine<B> {
    /// Visits the parameters under other names than `kernel` and `bias`.
    pub(crate) fn params_as(&mut self, v: &mut Visitor<'_, B>, kernel: &str, bias: &str) {
        v.param(kernel, &mut self.kernel);
        v.param(bias, &mut self.bias);
    }
}

impl<B: Backend> Module for Affine<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.params_as(v, "kernel", "bias");
    }
}
