//! The walk: newest node first, so that every gradient is complete when its turn comes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use backend_api::{Backend, Error, Layout, Meta, Op, Result, Tensor};

use super::node::{Input, Inputs, Node, Source, Work};
use super::{Autodiff, TrackedBuffer, rules};
use crate::{Gradient, IndexedSlices};

/// Nodes that a gradient has reached, by number.
type Frontier<B> = BTreeMap<u64, Reached<B>>;

struct Reached<B: Backend> {
    node: Arc<Node<B>>,
    /// The gradient of each result's buffer, as far as it has come.
    grads: Vec<Option<B::Buffer>>,
    /// What lookups in a leaf gave it besides, newest first.
    lookups: Vec<IndexedSlices<B>>,
}

pub(super) fn gradients<B: Backend>(
    device: &Autodiff<B>,
    loss: &Tensor<Autodiff<B>>,
    leaves: &[&Tensor<Autodiff<B>>],
) -> Result<Vec<Option<Gradient<Autodiff<B>>>>> {
    if loss.shape().count() != 1 {
        let expected = "the gradient of a scalar is asked for";
        return Err(Error::shape("backward", "loss", loss.shape(), expected));
    }
    let Some(source) = &loss.buffer().source else {
        return Err(Error::Gradient(
            "the loss depends on nothing that is tracked; compute it from the model that \
             `value_and_grad` or `tracked` gives"
                .into(),
        ));
    };
    let mut wanted: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, leaf) in leaves.iter().enumerate() {
        let whole = *leaf.layout() == Layout::contiguous(leaf.shape());
        match &leaf.buffer().source {
            Some(source)
                if source.node.is_leaf()
                    && whole
                    && source.node.out_meta(0).shape == leaf.shape() =>
            {
                wanted.entry(source.node.number).or_default().push(i);
            }
            _ => {
                return Err(Error::Gradient(format!(
                    "leaf {i} is not the start of a record"
                )));
            }
        }
    }
    let inner = device.inner();
    let one = Tensor::full(inner, 1.0, loss.meta())?;
    let mut frontier = Frontier::new();
    add(inner, &mut frontier, source, loss.layout(), one)?;
    let mut found: Vec<Option<Gradient<Autodiff<B>>>> = leaves.iter().map(|_| None).collect();
    while let Some((number, reached)) = frontier.pop_last() {
        if reached.node.is_leaf() {
            // Leaves stay: another record may start from the same one.
            if let Some(places) = wanted.get(&number) {
                let grad = arrived(inner, reached)?;
                let grad = grad.map(|grad| grad.on(|t| untracked(device, t)));
                for &i in places {
                    found[i].clone_from(&grad);
                }
            }
            continue;
        }
        let Reached { node, grads, .. } = reached;
        // What the next nodes need can travel while this one is computed.
        node.fetch(inner)?;
        for parent in node.parents() {
            parent.fetch(inner)?;
        }
        match node.take()? {
            (Work::Op(op), inputs) => {
                let args = Arguments {
                    device: inner,
                    node: &node,
                    inputs: &inputs,
                    grads: &grads,
                };
                if op == Op::Gather
                    && let Some(table) = looked_up(&inputs[0])
                {
                    let rows = table.out_meta(0).shape[0];
                    let slices = IndexedSlices::new(&args.input(1)?, &args.grad(0)?, rows)?;
                    reach(&mut frontier, table).lookups.push(slices);
                    node.release();
                    continue;
                }
                let input_grads = rules::gradient(&op, &args)?;
                node.release();
                for (input, grad) in inputs.iter().zip(input_grads) {
                    if let (Some(source), Some(grad)) = (&input.source, grad) {
                        add(inner, &mut frontier, source, &input.layout, grad)?;
                    }
                }
            }
            (Work::Segment(body), inputs) => {
                again(device, &mut frontier, &node, body, &inputs, grads)?;
            }
            (Work::Leaf | Work::Spent, _) => {}
        }
    }
    Ok(found)
}

/// The leaf that an operand of a lookup is, whole and in its own shape.
fn looked_up<B: Backend>(table: &Input<B>) -> Option<&Arc<Node<B>>> {
    let node = &table.source.as_ref()?.node;
    let whole = Layout::contiguous(node.out_meta(0).shape);
    (node.is_leaf() && table.layout == whole).then_some(node)
}

/// All that has come to a leaf: rows if there were only lookups, else a number for each element.
fn arrived<B: Backend>(device: &B, reached: Reached<B>) -> Result<Option<Gradient<B>>> {
    let rows = match &reached.lookups[..] {
        [] => None,
        lookups => Some(IndexedSlices::concat(lookups)?),
    };
    let Some(dense) = reached.grads.into_iter().next().flatten() else {
        return Ok(rows.map(Gradient::Sparse));
    };
    let meta = reached.node.out_meta(0);
    let layout = Layout::contiguous(meta.shape);
    let dense = match rows {
        None => dense,
        Some(rows) => device.accumulate(dense, &layout, rows.to_dense()?.view())?,
    };
    let dense = Tensor::from_parts(device, dense, layout, meta.dtype);
    Ok(Some(Gradient::Dense(dense)))
}

/// A tensor of the device inside, without a record.
fn untracked<B: Backend>(device: &Autodiff<B>, t: &Tensor<B>) -> Tensor<Autodiff<B>> {
    let buffer = Autodiff::wrap(t.buffer().clone());
    Tensor::from_parts(device, buffer, *t.layout(), t.dtype())
}

/// Computes a segment again, attached to its original history, and goes on with its results: their nodes are
/// newer than all that is left, so they come next.
fn again<B: Backend>(
    device: &Autodiff<B>,
    frontier: &mut Frontier<B>,
    node: &Node<B>,
    body: backend_api::SegmentBody<Autodiff<B>>,
    inputs: &Inputs<B>,
    grads: Vec<Option<B::Buffer>>,
) -> Result<()> {
    let inner = device.inner();
    let inputs = inputs
        .iter()
        .map(|input| {
            let buffer = TrackedBuffer {
                inner: input.buffer(inner)?,
                source: input.source.clone(),
            };
            Ok(Tensor::from_parts(
                device,
                buffer,
                input.layout,
                input.dtype,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let outputs = body(device, &inputs)?;
    for (out, (output, grad)) in outputs.iter().zip(grads).enumerate() {
        if let (Some(source), Some(grad)) = (&output.buffer().source, grad) {
            let meta = node.out_meta(out);
            let layout = Layout::contiguous(meta.shape);
            let grad = Tensor::from_parts(inner, grad, layout, meta.dtype);
            add(inner, frontier, source, output.layout(), grad)?;
        }
    }
    Ok(())
}

/// What has come to a node so far; nothing if it is reached for the first time.
fn reach<'a, B: Backend>(frontier: &'a mut Frontier<B>, node: &Arc<Node<B>>) -> &'a mut Reached<B> {
    frontier.entry(node.number).or_insert_with(|| Reached {
        node: node.clone(),
        grads: (0..node.out_count()).map(|_| None).collect(),
        lookups: Vec::new(),
    })
}

/// Adds a gradient to what has come to a place of a result's buffer so far.
fn add<B: Backend>(
    device: &B,
    frontier: &mut Frontier<B>,
    source: &Source<B>,
    at: &Layout,
    grad: Tensor<B>,
) -> Result<()> {
    let node = &source.node;
    let slot = &mut reach(frontier, node).grads[source.out];
    let whole = node.out_meta(source.out);
    if slot.is_none() && at.is_whole(whole.shape.count()) {
        // Gradients often are views of something larger, or stretched; the slot is just this one.
        let plain = *grad.layout() == Layout::contiguous(grad.shape());
        let grad = if plain { grad } else { grad.copy()? };
        *slot = Some(grad.into_buffer());
        return Ok(());
    }
    let so_far = match slot.take() {
        Some(buffer) => buffer,
        None => Tensor::zeros(device, whole)?.into_buffer(),
    };
    *slot = Some(device.accumulate(so_far, at, grad.view())?);
    Ok(())
}

/// What a gradient rule can ask for.
pub(super) struct Arguments<'a, B: Backend> {
    pub(super) device: &'a B,
    node: &'a Node<B>,
    inputs: &'a Inputs<B>,
    grads: &'a [Option<B::Buffer>],
}

impl<B: Backend> Arguments<'_, B> {
    /// Operand `i`, which [`rules::needs`] must have asked for.
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

    /// Whether the gradient of operand `i` is wanted.
    pub(super) fn tracked(&self, i: usize) -> bool {
        self.inputs[i].source.is_some()
    }

    /// Result `k`, which [`rules::needs`] must have asked for.
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

    /// Refuses a gradient of result `k`, which is there for other gradients only.
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
