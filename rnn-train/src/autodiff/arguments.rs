//! The inputs and results of a gradient rule.

use backend_api::{Backend, Error, Layout, Meta, Result, Tensor};

use smallvec::SmallVec;

use super::node::{Inputs, Node};

/// The inputs of a gradient rule.
///
/// If the operation does arithmetic, its rule reads 16-bit floats as `f32` and computes in `f32`,
/// as the operation itself does; the walk rounds the sum of the gradients of a tensor once.
pub(super) struct Arguments<'a, B: Backend> {
    pub(super) device: &'a B,
    pub(super) node: &'a Node<B>,
    pub(super) inputs: &'a Inputs<B>,
    pub(super) grads: &'a [Option<Tensor<B>>],
    /// Whether 16-bit floats are read as `f32`.
    pub(super) wide: bool,
}

impl<B: Backend> Arguments<'_, B> {
    /// Operand `i`, which [`needs`](super::rules::needs) must have requested.
    pub(super) fn input(&self, i: usize) -> Result<Tensor<B>> {
        let input = &self.inputs[i];
        let buffer = input.buffer(self.device)?;
        let (layout, dtype) = (input.layout, input.dtype);
        self.read(Tensor::from_parts(self.device, buffer, layout, dtype)?)
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
        let meta = self.node.out_meta(k);
        let layout = Layout::contiguous(meta.shape);
        self.read(Tensor::from_parts(self.device, buffer, layout, meta.dtype)?)
    }

    /// The gradient of result `k`; zeros if the loss does not depend on it.
    pub(super) fn grad(&self, k: usize) -> Result<Tensor<B>> {
        self.read(match &self.grads[k] {
            Some(grad) => grad.clone(),
            None => Tensor::zeros(self.device, self.node.out_meta(k))?,
        })
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

    fn read(&self, t: Tensor<B>) -> Result<Tensor<B>> {
        match self.wide {
            true => t.cast(t.dtype().computed_in()),
            false => Ok(t),
        }
    }
}

/// One gradient per operand; `None` if the operand has no gradient or needs none.
pub(super) type InputGrads<B> = SmallVec<[Option<Tensor<B>>; 4]>;

/// The operands and results that a gradient reads.
#[derive(Clone, Default)]
pub(super) struct Needs {
    inputs: SmallVec<[usize; 8]>,
    outputs: SmallVec<[usize; 8]>,
    all_inputs: bool,
}

impl Needs {
    pub(super) fn inputs(indices: &[usize]) -> Self {
        Self {
            inputs: SmallVec::from_slice(indices),
            ..Self::default()
        }
    }

    pub(super) fn and_outputs(self, indices: &[usize]) -> Self {
        Self {
            outputs: SmallVec::from_slice(indices),
            ..self
        }
    }

    /// The operands `0` and `1` whose flags are set.
    pub(super) fn of_pair(flags: [bool; 2]) -> Self {
        let set = (0..2).filter(|&i| flags[i]);
        Self::inputs(&set.collect::<SmallVec<[usize; 2]>>())
    }

    /// Every operand, whatever their number.
    pub(super) fn all_inputs() -> Self {
        Self {
            all_inputs: true,
            ..Self::default()
        }
    }

    pub(super) fn input(&self, i: usize) -> bool {
        self.all_inputs || self.inputs.contains(&i)
    }

    pub(super) fn output(&self, k: usize) -> bool {
        self.outputs.contains(&k)
    }
}
