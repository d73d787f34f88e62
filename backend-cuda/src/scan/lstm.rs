//! Which steps are those of a plain LSTM.

use backend_api::trace::{Node, Operand, StepGraph, Value, Work};
use backend_api::{Activation, Binary, DType, Fused, LstmGates, Op};

/// A step `x · w0 + w1 + h · w2`, then [`Fused::LstmStep`], with the states `c` and `h`.
#[derive(Clone, Debug)]
pub(super) struct PlainLstm {
    pub(super) gates: LstmGates,
    /// What each output of the step is.
    pub(super) outputs: Vec<Saved>,
}

/// A value of an LSTM's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Output,
    Cell,
    Gates,
    /// The state before the step.
    CellBefore,
    OutputBefore,
}

impl PlainLstm {
    /// The LSTM of which a graph is the step.
    pub(super) fn of(graph: &StepGraph) -> Option<Self> {
        let [x] = graph.inputs[..] else { return None };
        let ([c, h], [w0, w1, w2]) = (&graph.states[..], &graph.captured[..]) else {
            return None;
        };
        let [product, sum, recurrent, step] = &graph.nodes[..] else {
            return None;
        };
        let Work::Op(Op::Fused(Fused::LstmStep(gates))) = step.work else {
            return None;
        };
        let value = |value| Operand::whole(value, graph.meta_of(value));
        let of_node = |node, result| value(Value::Node(node, result));
        let is = |node: &Node, operands: &[Operand]| node.operands[..] == *operands;
        let multiplies =
            |node: &Node| matches!(node.work, Work::Op(Op::MatMul { alpha, .. }) if alpha == 1.0);
        let captured = |i| value(Value::Captured(i));
        let rows = [x, *c, *h].iter().all(|meta| meta.shape.rank() == 2);
        let fits = rows
            && [w0, w2].iter().all(|meta| meta.shape.rank() == 2)
            && w1.shape.rank() == 1
            && c == h
            && x.dtype == DType::F32
            && gates.recurrent_activation == Activation::Sigmoid
            && multiplies(product)
            && is(product, &[value(Value::Input(0)), captured(0)])
            && sum.work == Work::Op(Op::Binary(Binary::Add))
            && is(sum, &[of_node(0, 0), captured(1)])
            && multiplies(recurrent)
            && is(
                recurrent,
                &[value(Value::State(1)), captured(2), of_node(1, 0)],
            )
            && is(step, &[of_node(2, 0), value(Value::State(0))])
            && graph.new_states == [of_node(3, 0), of_node(3, 1)];
        if !fits {
            return None;
        }
        let saved = |operand: &Operand| {
            let known = [
                (of_node(3, 1), Saved::Output),
                (of_node(3, 0), Saved::Cell),
                (of_node(3, 2), Saved::Gates),
                (value(Value::State(0)), Saved::CellBefore),
                (value(Value::State(1)), Saved::OutputBefore),
            ];
            let found = known.iter().find(|(known, _)| known == operand)?;
            Some(found.1)
        };
        Some(Self {
            gates,
            outputs: graph.outputs.iter().map(saved).collect::<Option<_>>()?,
        })
    }
}
