//! Which values of a step consist of independent rows.

use super::graph::{Operand, StepGraph, Value, Work};
use crate::{Fused, Layout, Op};

/// For each value of a step, whether its first axis is the batch and row `b` of it depends on row
/// `b` of the step's inputs and state only.
#[derive(Debug)]
pub(super) struct Rows {
    batch: usize,
    nodes: Vec<bool>,
}

/// For each node of a step, whether the first axis of its results is the batch, and row `b` of them
/// depends on row `b` of the step's inputs and state only.
pub fn row_nodes(graph: &StepGraph) -> Vec<bool> {
    Rows::new(graph).nodes
}

impl Rows {
    pub(super) fn new(graph: &StepGraph) -> Self {
        let mut rows = Self {
            batch: graph.batch(),
            nodes: Vec::with_capacity(graph.nodes.len()),
        };
        for node in &graph.nodes {
            let operands = &node.operands[..];
            let batch = rows.batch;
            let has_batch = |layout: &Layout| layout.shape().dims().first() == Some(&batch);
            let is_row = |o: &Operand| rows.contains(graph, o);
            // A constant is the same for every step, and broadcasts or has the batch axis.
            let is_constant = |o: &Operand| match o.value {
                Value::Captured(_) => true,
                Value::Node(node, _) => {
                    matches!(graph.nodes[node].work, Work::Op(Op::Fill { .. }))
                }
                Value::Input(_) | Value::State(_) => false,
            };
            let fits = |o: &Operand| is_row(o) || is_constant(o);
            let rank = node.results[0].shape.rank();
            let aligned = |o: &Operand| !is_row(o) || o.layout.shape().rank() == rank;
            let found = match &node.work {
                Work::Op(op) => match op {
                    Op::Unary(_) | Op::Affine { .. } | Op::Clamp { .. } | Op::Copy => {
                        is_row(&operands[0])
                    }
                    Op::Cast { .. } => is_row(&operands[0]),
                    Op::Binary(_) | Op::Compare(_) | Op::Select => {
                        operands.iter().any(is_row)
                            && operands.iter().all(fits)
                            && operands.iter().all(aligned)
                    }
                    Op::Reduce { axis, .. } | Op::ArgMax { axis } => {
                        *axis > 0 && is_row(&operands[0])
                    }
                    Op::Concat { axis } => {
                        let part = |o: &Operand| fits(o) && has_batch(&o.layout);
                        *axis > 0 && operands.iter().all(part)
                    }
                    Op::MatMul { .. } => match operands {
                        [a, b, c @ ..] => {
                            let right = match b.layout.shape().rank() {
                                2 => matches!(b.value, Value::Captured(_)),
                                _ => is_row(b),
                            };
                            let added = |c: &Operand| fits(c) && has_batch(&c.layout);
                            is_row(a) && right && c.iter().all(added)
                        }
                        _ => false,
                    },
                    Op::Gather => {
                        matches!(operands[0].value, Value::Captured(_)) && is_row(&operands[1])
                    }
                    Op::Fused(Fused::BiasActivation { .. }) => {
                        is_row(&operands[0]) && fits(&operands[1])
                    }
                    Op::Fused(fused)
                        if fused.is_of_rows() || matches!(fused, Fused::ActivationGrad { .. }) =>
                    {
                        operands.iter().all(|o| fits(o) && has_batch(&o.layout))
                    }
                    Op::Fill { meta, .. } => meta.shape.dims().first() == Some(&batch),
                    _ => false,
                },
                Work::AddAt(layout) => {
                    let whole = Layout::contiguous(node.results[0].shape);
                    let part = |o: &Operand| fits(o) && has_batch(&o.layout);
                    within_rows(layout, &whole, batch) && operands.iter().all(part)
                }
                Work::Detach => is_row(&operands[0]),
                Work::Noise { .. } => node.results[0].shape.dims().first() == Some(&batch),
            };
            rows.nodes.push(found);
        }
        rows
    }

    /// Whether an operand consists of rows.
    pub(super) fn contains(&self, graph: &StepGraph, operand: &Operand) -> bool {
        let known = match operand.value {
            Value::Input(_) | Value::State(_) => true,
            Value::Captured(_) => false,
            Value::Node(node, _) => self.nodes[node],
        };
        let whole = Layout::contiguous(graph.meta_of(operand.value).shape);
        known && within_rows(&operand.layout, &whole, self.batch)
    }
}

/// A node that computes a value of a row from the state of other rows, if there is one. Rows past
/// their length take part in it, so that it has to see what the steps compute for them.
pub(super) fn mixing_node(graph: &StepGraph) -> Option<usize> {
    let batch = graph.batch();
    if batch <= 1 {
        return None;
    }
    // For each node that a state reaches, the distance of two rows in its elements.
    let mut distances: Vec<Option<usize>> = Vec::with_capacity(graph.nodes.len());
    for (i, node) in graph.nodes.iter().enumerate() {
        let result = Layout::contiguous(node.results[0].shape);
        let mut distance = None;
        for (k, operand) in node.operands.iter().enumerate() {
            let rows = match operand.value {
                Value::State(state) => Some(graph.states[state].shape.count() / batch),
                Value::Node(node, _) => distances[node],
                Value::Input(_) | Value::Captured(_) => None,
            };
            let Some(rows) = rows else {
                continue;
            };
            let found = rows_axis(&operand.layout, rows, batch)
                .and_then(|axis| axis_after(&node.work, k, &operand.layout, axis, &result))
                .and_then(|axis| {
                    let extent = *result.shape().dims().get(axis)?;
                    extent
                        .is_multiple_of(batch)
                        .then(|| result.strides()[axis] * (extent / batch))
                });
            if found.is_none() {
                return Some(i);
            }
            distance = found;
        }
        distances.push(distance);
    }
    None
}

/// The axis of a view along which the rows follow each other. It may have several elements of each.
fn rows_axis(view: &Layout, distance: usize, batch: usize) -> Option<usize> {
    let (shape, strides) = (view.shape(), view.strides());
    (0..shape.rank()).find(|&axis| {
        let extent = shape[axis];
        extent > 0 && extent % batch == 0 && strides[axis] * (extent / batch) == distance
    })
}

/// The axis of the rows in the result of an operation whose operand `k` has its rows along `axis`.
/// `None` if the operation mixes rows.
fn axis_after(
    work: &Work,
    k: usize,
    operand: &Layout,
    axis: usize,
    result: &Layout,
) -> Option<usize> {
    let (rank, after) = (operand.shape().rank(), result.shape().rank());
    match work {
        Work::Op(Op::Reduce { axis: gone, .. } | Op::ArgMax { axis: gone }) if *gone != axis => {
            Some(axis - usize::from(after < rank && *gone < axis))
        }
        Work::Op(Op::Concat { axis: joined }) if *joined != axis => Some(axis),
        Work::Op(Op::Reduce { .. } | Op::ArgMax { .. } | Op::Concat { .. }) => None,
        Work::Op(Op::MatMul { .. }) => match (k, rank, axis) {
            (0, 2, 0) | (0, 3, 0 | 1) | (1, 3, 0) => Some(axis),
            (0 | 1, ..) => None,
            _ => Some(axis + after.saturating_sub(rank)),
        },
        Work::Op(Op::Gather) if k == 0 => None,
        _ => Some(axis + after.saturating_sub(rank)),
    }
}

/// Whether a view of a value selects the same elements of each of its rows.
fn within_rows(view: &Layout, whole: &Layout, batch: usize) -> bool {
    let (shape, strides) = (view.shape(), view.strides());
    let row = whole.shape().count() / batch.max(1);
    let span: usize = (1..shape.rank())
        .map(|axis| strides[axis] * shape[axis].saturating_sub(1))
        .sum();
    shape.dims().first() == Some(&batch)
        && (batch <= 1 || strides[0] == row)
        && (shape.count() == 0 || view.offset() + span < row.max(1))
}
