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
