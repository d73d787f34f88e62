//! Products of concatenations.

use smallvec::SmallVec;

use super::places::Uses;
use crate::Op;
use crate::trace::graph::{Node, Operand, StepGraph, Value, Work};

/// Turns the product of a concatenation into a sum of products, so that the parts that no state
/// reaches can leave the steps.
pub(super) fn split_products(graph: StepGraph) -> StepGraph {
    let uses = Uses::new(&graph);
    let concatenated = |operand: &Operand| -> Option<&Node> {
        let Value::Node(i, _) = operand.value else {
            return None;
        };
        let node = &graph.nodes[i];
        let whole = *operand == Operand::whole(operand.value, node.results[0]);
        let last = Op::Concat {
            axis: node.results[0].shape.rank().wrapping_sub(1),
        };
        let is_stateful = |o: &Operand| uses.is_stateful(o.value);
        let mixed = node.operands.iter().any(is_stateful)
            && node
                .operands
                .iter()
                .any(|o| !is_stateful(o) && uses.is_timed(o.value));
        (whole && node.work == Work::Op(last) && mixed).then_some(node)
    };
    if !graph.nodes.iter().any(|n| {
        matches!(n.work, Work::Op(Op::MatMul { .. })) && concatenated(&n.operands[0]).is_some()
    }) {
        return graph;
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len() + 4);
    let mut at = Vec::with_capacity(graph.nodes.len());
    let renamed = |at: &[usize], o: &Operand| match o.value {
        Value::Node(node, k) => Operand {
            value: Value::Node(at[node], k),
            ..*o
        },
        _ => *o,
    };
    for node in &graph.nodes {
        let parts = match (&node.work, &node.operands[..]) {
            (Work::Op(Op::MatMul { alpha: 1.0, .. }), [a, b, ..])
                if b.layout.shape().rank() == 2 =>
            {
                concatenated(a)
            }
            _ => None,
        };
        let Some(parts) = parts else {
            nodes.push(Node {
                operands: node.operands.iter().map(|o| renamed(&at, o)).collect(),
                ..node.clone()
            });
            at.push(nodes.len() - 1);
            continue;
        };
        let mut sum = node.operands.get(2).map(|c| renamed(&at, c));
        let mut row = 0;
        let mut pieces: Vec<(Operand, Operand)> = Vec::new();
        for part in &parts.operands {
            let rows = part.layout.shape().last();
            if let Ok(layout) = node.operands[1].layout.slice(0, row..row + rows) {
                let b = Operand {
                    layout,
                    ..node.operands[1]
                };
                pieces.push((*part, renamed(&at, &b)));
            }
            row += rows;
        }
        pieces.sort_by_key(|(part, _)| uses.is_stateful(part.value));
        for (part, b) in pieces {
            let mut operands: SmallVec<[Operand; 3]> = SmallVec::new();
            operands.extend([renamed(&at, &part), b]);
            operands.extend(sum);
            nodes.push(Node {
                work: node.work.clone(),
                operands,
                results: node.results.clone(),
            });
            sum = Some(Operand::whole(
                Value::Node(nodes.len() - 1, 0),
                node.results[0],
            ));
        }
        at.push(nodes.len() - 1);
    }
    let all = |operands: &[Operand]| operands.iter().map(|o| renamed(&at, o)).collect();
    StepGraph {
        outputs: all(&graph.outputs),
        new_states: all(&graph.new_states),
        sums: all(&graph.sums),
        nodes,
        inputs: graph.inputs.clone(),
        states: graph.states.clone(),
        captured: graph.captured.clone(),
    }
}
