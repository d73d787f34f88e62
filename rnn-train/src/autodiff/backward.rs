//! The backward pass. It visits the newest node first, so that a node's gradient is complete when
//! the pass reaches it. That of a leaf is complete earlier: when all nodes that are left are older
//! than the first that has used the leaf.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use backend_api::{Backend, Error, Layout, Meta, Op, Result, Tensor, is_arithmetic};

use super::arguments::Arguments;
use super::node::{Graph, Input, Inputs, Node, Source, Work};
use super::{Autodiff, TrackedBuffer, rules};
use crate::{Gradient, IndexedSlices};

/// Nodes that have received a gradient and were not visited yet, by number.
type Frontier<B> = BTreeMap<u64, Reached<B>>;

struct Reached<B: Backend> {
    node: Arc<Node<B>>,
    /// The gradient of each result's buffer, accumulated so far: a row-major tensor or a
    /// broadcast, of the buffer's shape, in the type of the result or in the wider one that sums of
    /// 16-bit floats are accumulated in.
    grads: Vec<Option<Tensor<B>>>,
    /// Sparse gradients from lookups in a leaf, newest first.
    lookups: Vec<IndexedSlices<B>>,
}

/// The tensors that a loss may depend on.
///
/// ```
/// use recurrent::{Device, Differentiable, Reach, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let leaf = |x: f32| device.leaf(&Tensor::from_slice(&device, &[x], &[])?);
/// let (outer, inner) = (leaf(2.0)?, leaf(3.0)?);
/// let product = || outer.mul(&inner);
/// let grads = |reach| {
///     device.gradients_of(&[&product()?], &[&inner], reach, &mut |_, _, _| Ok(()))
/// };
/// assert!(grads(Reach::Anything).is_ok());
/// assert!(grads(Reach::Newer).is_err()); // `outer` was tracked before `inner`
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any.
    Anything,
    /// No tensor that was tracked before the first of the wanted leaves: none of an enclosing
    /// computation, which would not see that the gradients depend on it.
    Newer,
}

/// What takes gradients: the index of the loss, that of the leaf, and the gradient, which is `None`
/// if the loss does not depend on the leaf. An error ends the backward pass.
///
/// ```
/// use recurrent::{Device, Differentiable, Reach, TakeGradient, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let x = device.leaf(&Tensor::from_slice(&device, &[3.0f32], &[])?)?;
/// let mut found = Vec::new();
/// let take: &mut TakeGradient<'_, Device> = &mut |loss, leaf, grad| {
///     found.push((loss, leaf, grad.expect("x is used").to_dense()?.item()?));
///     Ok(())
/// };
/// device.gradients_of(&[&x.square()?], &[&x], Reach::Anything, take)?;
/// assert_eq!(found, [(0, 0, 6.0)]);
/// # Ok(()) }
/// ```
pub type TakeGradient<'a, B> = dyn FnMut(usize, usize, Option<Gradient<B>>) -> Result<()> + 'a;

/// Passes on the gradients of each loss; the last pass consumes the graph.
pub(super) fn gradients<B: Backend>(
    device: &Autodiff<B>,
    losses: &[&Tensor<Autodiff<B>>],
    leaves: &[&Tensor<Autodiff<B>>],
    reach: Reach,
    take: &mut TakeGradient<'_, Autodiff<B>>,
) -> Result<()> {
    let seeds: Vec<_> = losses
        .iter()
        .map(|loss| Ok((*loss, seed(device, loss)?)))
        .collect::<Result<_>>()?;
    let last = losses.len().saturating_sub(1);
    seeds.into_iter().enumerate().try_for_each(|(i, seed)| {
        let graph = match i == last {
            true => Graph::Consumed,
            false => Graph::Kept,
        };
        let take = &mut |leaf, grad| take(i, leaf, grad);
        vjp(device, vec![seed], leaves, reach, graph, take)
    })
}

/// The gradient of a loss with respect to itself.
fn seed<B: Backend>(device: &Autodiff<B>, loss: &Tensor<Autodiff<B>>) -> Result<Tensor<B>> {
    if loss.shape().count() != 1 {
        let expected = "a scalar is needed";
        return Err(Error::shape("backward", "loss", loss.shape(), expected));
    }
    if loss.buffer()?.source.is_none() {
        return Err(Error::Gradient(
            "the loss does not depend on a tracked tensor; compute it from the model that \
             `value_and_grad` passes or `tracked` returns, by operations that have a gradient: \
             comparisons, `argmax` and casts to integers have none"
                .into(),
        ));
    }
    Tensor::full(device.inner(), 1.0, loss.meta())
}

/// Leaves whose gradients are wanted and not complete, those that were used last at the end: the
/// number of the first node that has used the leaf, that of the leaf, and its index.
type Open = Vec<(u64, u64, usize)>;

fn open<B: Backend>(leaves: &[&Tensor<Autodiff<B>>]) -> Result<Open> {
    let mut open = Vec::new();
    for (i, leaf) in leaves.iter().enumerate() {
        let whole = *leaf.layout() == Layout::contiguous(leaf.shape());
        match &leaf.buffer()?.source {
            Some(Source { node, .. })
                if node.is_leaf() && whole && node.out_meta(0).shape == leaf.shape() =>
            {
                open.push((node.first_use(), node.number, i));
            }
            _ => {
                return Err(Error::Gradient(format!(
                    "leaf {i} is not a leaf of the recorded computation"
                )));
            }
        }
    }
    open.sort_unstable();
    Ok(open)
}

/// Passes on the gradients of leaves, given the gradients of some tensors that depend on them: a
/// vector-Jacobian product. Tensors that depend on no leaf have no effect. Each gradient is passed
/// to `take`, with the index of the leaf, as soon as it is complete.
pub(super) fn vjp<B: Backend>(
    device: &Autodiff<B>,
    seeds: Vec<(&Tensor<Autodiff<B>>, Tensor<B>)>,
    leaves: &[&Tensor<Autodiff<B>>],
    reach: Reach,
    graph: Graph,
    take: &mut dyn FnMut(usize, Option<Gradient<Autodiff<B>>>) -> Result<()>,
) -> Result<()> {
    let mut open = open(leaves)?;
    let oldest = match reach {
        Reach::Anything => 0,
        Reach::Newer => open.iter().map(|leaf| leaf.1).min().unwrap_or(0),
    };
    // A wanted leaf leaves the frontier when its gradient is passed on, and must not come back.
    let wanted: HashSet<u64> = open.iter().map(|leaf| leaf.1).collect();
    let inner = device.inner();
    let mut frontier = Frontier::new();
    for (tensor, grad) in seeds {
        if let Some(source) = &tensor.buffer()?.source {
            add(inner, &mut frontier, source, tensor.layout(), grad)?;
        }
    }
    loop {
        pass_on(device, &mut frontier, &mut open, take)?;
        let Some((number, reached)) = frontier.pop_last() else {
            return Ok(());
        };
        if number < oldest {
            return Err(Error::Gradient(
                "the loss depends on a tensor that was tracked outside of this `value_and_grad`. \
                 The gradients would be constants for an enclosing `value_and_grad`, since there \
                 are no second derivatives; detach the tensor if it is a constant here"
                    .into(),
            ));
        }
        // Leaves are not consumed: another graph may start from the same leaf.
        if reached.node.is_leaf() {
            if wanted.contains(&number) {
                return Err(Error::Gradient(
                    "a segment that was run again has used a parameter that its first run had not"
                        .into(),
                ));
            }
            continue;
        }
        let Reached { node, grads, .. } = reached;
        let grads = rounded(&node, grads)?;
        // Overlaps the transfer of values for the next node with the computation of this one.
        node.fetch(inner)?;
        let waiting = frontier.last_key_value().map(|(_, next)| next.node.clone());
        if let Some(next) = node
            .parents()
            .into_iter()
            .chain(waiting)
            .max_by_key(|n| n.number)
        {
            next.fetch(inner)?;
        }
        match node.work(graph)? {
            (Work::Op(op), inputs) => {
                let args = Arguments {
                    device: inner,
                    node: &node,
                    inputs: &inputs,
                    grads: &grads,
                    wide: is_arithmetic(&op),
                };
                if op == Op::Gather
                    && let Some(table) = looked_up(&inputs[0])
                {
                    let rows = table.out_meta(0).shape[0];
                    let slices = IndexedSlices::new(&args.input(1)?, &args.grad(0)?, rows)?;
                    entry(&mut frontier, table).lookups.push(slices);
                    node.release(graph);
                    continue;
                }
                let input_grads = rules::gradient(&op, &args)?;
                node.release(graph);
                // The parts of a concatenation are its whole gradient: copies would double it.
                let views = matches!(op, Op::Concat { .. });
                for (input, grad) in inputs.iter().zip(input_grads) {
                    if let (Some(source), Some(grad)) = (&input.source, grad) {
                        add_view(inner, &mut frontier, source, &input.layout, grad, views)?;
                    }
                }
            }
            (Work::Segment(body), inputs) => {
                again(device, &mut frontier, body, &inputs, grads)?;
            }
            (Work::Leaf | Work::Spent, _) => {}
        }
    }
}

/// Passes on the gradients that are complete: those of leaves that no node of the frontier can have
/// used.
fn pass_on<B: Backend>(
    device: &Autodiff<B>,
    frontier: &mut Frontier<B>,
    open: &mut Open,
    take: &mut dyn FnMut(usize, Option<Gradient<Autodiff<B>>>) -> Result<()>,
) -> Result<()> {
    let newest = frontier.last_key_value().map_or(0, |(number, _)| *number);
    while let Some((_, number, i)) = open.pop_if(|(first_use, ..)| *first_use > newest) {
        let grad = frontier.remove(&number);
        let grad = grad.map(|reached| arrived(device.inner(), reached));
        let grad = grad.transpose()?.flatten();
        let grad = grad.map(|grad| grad.on(|t| untracked(device, t)));
        let grad = grad.transpose()?;
        // A leaf may be wanted twice.
        while let Some((.., again)) = open.pop_if(|leaf| leaf.1 == number) {
            take(again, grad.clone())?;
        }
        take(i, grad)?;
    }
    Ok(())
}

/// The leaf that a lookup reads, if the operand is the whole leaf in its own shape.
fn looked_up<B: Backend>(table: &Input<B>) -> Option<&Arc<Node<B>>> {
    let node = &table.source.as_ref()?.node;
    let whole = Layout::contiguous(node.out_meta(0).shape);
    (node.is_leaf() && table.layout == whole).then_some(node)
}

/// The total gradient of a leaf: sparse if it has only lookups, else dense.
fn arrived<B: Backend>(device: &B, reached: Reached<B>) -> Result<Option<Gradient<B>>> {
    let rows = match &reached.lookups[..] {
        [] => None,
        lookups => Some(IndexedSlices::concat(lookups)?),
    };
    let Some(dense) = reached.grads.into_iter().next().flatten() else {
        return Ok(rows.map(Gradient::Sparse));
    };
    let layout = Layout::contiguous(dense.shape());
    let dense = match rows {
        None => plain(dense)?,
        Some(rows) => accumulate(device, dense, &layout, &rows.to_dense()?)?,
    };
    let dense = dense.cast(reached.node.out_meta(0).dtype)?;
    Ok(Some(Gradient::Dense(dense)))
}

/// The tensor on the inner device, without its graph.
fn untracked<B: Backend>(device: &Autodiff<B>, t: &Tensor<B>) -> Result<Tensor<Autodiff<B>>> {
    t.map_buffer(device, |buffer| Autodiff::wrap(buffer.clone()))
}

/// Recomputes a segment, attached to its original graph, and continues with the gradients of its
/// results. The recomputed nodes are newer than all others, so the pass visits them next.
fn again<B: Backend>(
    device: &Autodiff<B>,
    frontier: &mut Frontier<B>,
    body: backend_api::SegmentBody<Autodiff<B>>,
    inputs: &Inputs<B>,
    grads: Vec<Option<Tensor<B>>>,
) -> Result<()> {
    let inner = device.inner();
    let inputs = inputs
        .iter()
        .map(|input| {
            let buffer = TrackedBuffer {
                inner: input.buffer(inner)?,
                source: input.source.clone(),
            };
            Tensor::from_parts(device, buffer, input.layout, input.dtype)
        })
        .collect::<Result<Vec<_>>>()?;
    let outputs = body(device, &inputs)?;
    for (output, grad) in outputs.iter().zip(grads) {
        if let (Some(source), Some(grad)) = (&output.buffer()?.source, grad) {
            add(inner, frontier, source, output.layout(), grad)?;
        }
    }
    Ok(())
}

/// The entry of a node in the frontier; an empty one if no gradient has reached it yet.
fn entry<'a, B: Backend>(frontier: &'a mut Frontier<B>, node: &Arc<Node<B>>) -> &'a mut Reached<B> {
    frontier.entry(node.number).or_insert_with(|| Reached {
        node: node.clone(),
        grads: (0..node.out_count()).map(|_| None).collect(),
        lookups: Vec::new(),
    })
}

/// Accumulates a gradient into the part of a result's buffer that an operand views.
fn add<B: Backend>(
    device: &B,
    frontier: &mut Frontier<B>,
    source: &Source<B>,
    at: &Layout,
    grad: Tensor<B>,
) -> Result<()> {
    add_view(device, frontier, source, at, grad, false)
}

/// As [`add`]. With `views`, a gradient may be a row-major part of a larger buffer.
fn add_view<B: Backend>(
    device: &B,
    frontier: &mut Frontier<B>,
    source: &Source<B>,
    at: &Layout,
    grad: Tensor<B>,
    views: bool,
) -> Result<()> {
    let node = &source.node;
    let slot = &mut entry(frontier, node).grads[source.out];
    let whole = node.out_meta(source.out);
    if slot.is_none() && at.is_whole(whole.shape.count()) {
        // A view of a larger buffer would keep all of it alive. A broadcast stays one as long as
        // nothing is added to it: the gradient of a mean over all steps needs no memory.
        let (extent, _) = device.extent(grad.buffer()?)?;
        let small = extent < grad.shape().count();
        let kept = small || (views && grad.layout().is_contiguous());
        let grad = if kept { grad } else { plain(grad)? };
        // The shape of the buffer, of which the operand may have been a view.
        *slot = Some(grad.reshape(whole.shape.dims())?);
        return Ok(());
    }
    let so_far = match slot.take() {
        Some(so_far) => so_far,
        None => Tensor::zeros(device, Meta::new(whole.shape, whole.dtype.computed_in()))?,
    };
    *slot = Some(accumulate(device, so_far, at, &grad)?);
    Ok(())
}

/// The tensor in a buffer of its own, row-major.
fn plain<B: Backend>(t: Tensor<B>) -> Result<Tensor<B>> {
    match *t.layout() == Layout::contiguous(t.shape()) {
        true => Ok(t),
        false => t.copy(),
    }
}

/// Adds to the part `at` of a sum. A tensor may be used thousands of times, so that the sum of
/// 16-bit floats is an `f32`.
fn accumulate<B: Backend>(
    device: &B,
    so_far: Tensor<B>,
    at: &Layout,
    grad: &Tensor<B>,
) -> Result<Tensor<B>> {
    let wide = grad.dtype().computed_in();
    // A second handle of the buffer would make the sum a copy.
    let so_far = if so_far.dtype() == wide {
        plain(so_far)?
    } else {
        plain(so_far.cast(wide)?)?
    };
    let layout = *so_far.layout();
    let sum = device.accumulate(so_far.into_buffer()?, at, grad.cast(wide)?.view()?)?;
    Tensor::from_parts(device, sum, layout, wide)
}

/// The complete gradients of a node's results, in the types of the results.
fn rounded<B: Backend>(
    node: &Node<B>,
    grads: Vec<Option<Tensor<B>>>,
) -> Result<Vec<Option<Tensor<B>>>> {
    let grads = grads.into_iter().enumerate();
    grads
        .map(|(out, grad)| {
            let dtype = node.out_meta(out).dtype;
            grad.map(|grad| grad.cast(dtype)).transpose()
        })
        .collect()
}
