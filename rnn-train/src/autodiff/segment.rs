//! Segments: memory policies for the values that the backward pass reads.

use std::collections::HashSet;
use std::sync::Arc;

use backend_api::{Backend, MemoryPolicy, Metas, Result, SegmentBody, Stored, Tensor};

use super::node::{Input, Node, Source, next_number};
use super::{Autodiff, TrackedBuffer};

pub(super) fn run<B: Backend>(
    device: &Autodiff<B>,
    memory_policy: MemoryPolicy,
    inputs: &[Tensor<Autodiff<B>>],
    body: SegmentBody<Autodiff<B>>,
) -> Result<Vec<Tensor<Autodiff<B>>>> {
    match memory_policy {
        MemoryPolicy::Store => body(device, inputs),
        MemoryPolicy::Recompute => recompute(device, inputs, body),
        MemoryPolicy::Offload => swap(device, inputs, body),
    }
}

/// Runs the body, drops its graph, and creates a node that recomputes it.
///
/// The first run is recorded too. The body may capture tracked tensors (the parameters of a cell),
/// so only the recorded results show whether anything needs a gradient.
fn recompute<B: Backend>(
    device: &Autodiff<B>,
    inputs: &[Tensor<Autodiff<B>>],
    body: SegmentBody<Autodiff<B>>,
) -> Result<Vec<Tensor<Autodiff<B>>>> {
    let outputs = body(device, inputs)?;
    if outputs.iter().all(|t| !t.is_recorded()) {
        return Ok(outputs);
    }
    // Results must be contiguous because the node's results are read as whole buffers.
    let outputs: Vec<Tensor<Autodiff<B>>> = outputs
        .iter()
        .map(|t| t.detach().contiguous())
        .collect::<Result<_>>()?;
    let metas: Metas = outputs.iter().map(Tensor::meta).collect();
    let operands = inputs
        .iter()
        .map(|t| Ok(Input::new(&t.view()?, true)))
        .collect::<Result<_>>()?;
    let node = Node::segment(body, operands, metas);
    outputs
        .iter()
        .enumerate()
        .map(|(out, t)| {
            t.map_buffer(device, |buffer| TrackedBuffer {
                inner: buffer.inner.clone(),
                source: Some(Source {
                    node: node.clone(),
                    out,
                }),
            })
        })
        .collect()
}

/// Runs the body and moves the values stored for its gradients to host memory.
fn swap<B: Backend>(
    device: &Autodiff<B>,
    inputs: &[Tensor<Autodiff<B>>],
    body: SegmentBody<Autodiff<B>>,
) -> Result<Vec<Tensor<Autodiff<B>>>> {
    // Older nodes belong to the graph before the segment.
    let first = next_number();
    let outputs = body(device, inputs)?;
    for node in newer(&outputs.iter().collect::<Vec<_>>(), first) {
        node.swap_out(device.inner())?;
    }
    Ok(outputs)
}

/// The size of the values that the gradients of these tensors read.
pub(super) fn stored<B: Backend>(device: &B, tensors: &[&Tensor<Autodiff<B>>]) -> Stored {
    let mut stored = Stored::default();
    for node in newer(tensors, 0) {
        node.add_stored(device, &mut stored);
    }
    if !device.can_offload() {
        stored.device += std::mem::take(&mut stored.offloaded);
    }
    stored
}

/// The nodes that tensors depend on and that are newer than the number `first`.
fn newer<B: Backend>(tensors: &[&Tensor<Autodiff<B>>], first: u64) -> Vec<Arc<Node<B>>> {
    let mut seen = HashSet::new();
    let buffers = tensors.iter().filter_map(|t| t.buffer().ok());
    let sources = buffers.filter_map(|buffer| buffer.source.as_ref());
    let mut left: Vec<Arc<Node<B>>> = sources.map(|source| source.node.clone()).collect();
    let mut found = Vec::new();
    while let Some(node) = left.pop() {
        if node.number > first && seen.insert(node.number) {
            left.extend(node.parents());
            found.push(node);
        }
    }
    found
}
