//! The inputs of a gradient rule.

use backend_api::{Backend, Error, Layout, Meta, Result, Tensor};

use super::node::{Inputs, Node};

/// The inputs of a gradient rule.
pub(super) struct Arguments<'a, B: Backend> {
    pub(super) device: &'a B,
    pub(super) node: &'a Node<B>,
    pub(super) inputs: &'a Inputs<B>,
    pub(super) grads: &'a [Option<B::Buffer>],
}

impl<B: Backend> Arguments<'_, B> {
    /// Operand `i`, which [`needs`](super::rules::needs) must have requested.
    pub(super) fn input(&self, i: usize) -> Result<Tensor<B>> {
        let input = &self.inputs[i];
        let buffer = input.buffer(self.device)?;
        Ok(Tensor::from_parts(
            self.device,
            buffer,
            input.layout,
            input.dtype,
        ))
    }

    /// Number of operands.
    pub(super) fn count(&self) -> usize {
        self.inputs.len()
    }

    /// Shape and type of operand `i`.
    pub(super) fn meta(&self, i: usize) -> Meta {
        Meta::new(self.inputs[i].layout.shape(), self.inputs[i].dtype)
    }

    /// Whether operand `i` needs a gradient.
    pub(super) fn tracked(&self, i: usize) -> bool {
        self.inputs[i].source.is_some()
    }

    /// Result `k`, which [`needs`](super::rules::needs) must have requested.
    pub(super) fn output(&self, k: usize) -> Result<Tensor<B>> {
        let buffer = self.node.kept(self.device, k)?;
        Ok(self.as_result(k, buffer))
    }

    /// The gradient of result `k`; zeros if the loss does not depend on it.
    pub(super) fn grad(&self, k: usize) -> Result<Tensor<B>> {
        match &self.grads[k] {
            Some(grad) => Ok(self.as_result(k, grad.clone())),
            None => Tensor::zeros(self.device, self.node.out_meta(k)),
        }
    }

    /// Fails if result `k`, which exists only for the gradients of other results, has a gradient
    /// itself.
    pub(super) fn saved(&self, k: usize, op: &str) -> Result<()> {
        match self.grads[k] {
            None => Ok(()),
            Some(_) => Err(Error::Gradient(format!(
                "{op}: the loss depends on its saved result {k}, which has no gradient"
            ))),
        }
    }

    fn as_result(&self, k: usize, buffer: B::Buffer) -> Tensor<B> {
        let meta = self.node.out_meta(k);
        Tensor::from_parts(
            self.device,
            buffer,
            Layout::contiguous(meta.shape),
            meta.dtype,
        )
    }
}
