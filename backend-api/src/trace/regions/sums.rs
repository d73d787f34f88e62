//! Sums over all steps: which rows they read.

use smallvec::{SmallVec, smallvec};

use super::Regions;
use crate::trace::graph::{Operand, Value, Work};
use crate::{Binary, Op, Reduce, Unary};

/// How a value is summed over all steps.
pub(super) enum Sum {
    /// The sum of an operation's results is the operation on the sums of its operands.
    Linear,
    /// `aᵀ b`, where `[a, b]` are rows: one product over the rows of all steps.
    Product([Operand; 2], Box<Op>),
    /// The sum of the rows of all steps.
    Rows(Operand),
    /// The value of each step first.
    Each,
    /// A constant.
    Zero,
}

/// Whether a product has no factor.
pub(super) fn is_plain(product: &Op) -> bool {
    matches!(product, Op::MatMul { alpha: 1.0, .. })
}

impl Regions {
    /// How a value is summed over all steps.
    pub(super) fn sum_of(&self, value: Value) -> Sum {
        let Value::Node(node, 0) = value else {
            return Sum::Each;
        };
        let node = &self.graph.nodes[node];
        let batch = self.graph.batch();
        let is_row = |o: &Operand| {
            let shape = o.layout.shape();
            shape.rank() == 2 && shape[0] == batch && self.uses.is_timed(o.value)
        };
        match (&node.work, &node.operands[..]) {
            (Work::Op(op @ Op::MatMul { .. }), [a, b]) if a.layout.shape().rank() == 2 => {
                let turned = a.layout.permute(&[1, 0]);
                match turned.map(|layout| Operand { layout, ..*a }) {
                    Ok(a) if is_row(&a) && is_row(b) => Sum::Product([a, *b], Box::new(op.clone())),
                    _ => Sum::Each,
                }
            }
            (
                Work::Op(Op::Reduce {
                    kind: Reduce::Sum,
                    axis,
                }),
                [x],
            ) => match *axis == 0 && is_row(x) {
                true => Sum::Rows(*x),
                false => Sum::Linear,
            },
            (Work::Op(Op::Binary(Binary::Add | Binary::Sub)), [a, b])
                if a.layout.shape() == b.layout.shape() =>
            {
                Sum::Linear
            }
            (
                Work::Op(
                    Op::Affine { add: 0.0, .. }
                    | Op::Unary(Unary::Neg)
                    | Op::Copy
                    | Op::Concat { .. },
                )
                | Work::AddAt(_),
                _,
            ) => Sum::Linear,
            (Work::Op(Op::Fill { value: 0.0, .. }), _) => Sum::Zero,
            _ => Sum::Each,
        }
    }

    /// Calls `found` with the operands that the sum of a value reads, and whether they are the rows
    /// of a sum.
    pub(super) fn summands(
        &self,
        value: Value,
        found: &mut impl FnMut(SmallVec<[Operand; 2]>, bool),
    ) {
        let mut left = vec![value];
        while let Some(value) = left.pop() {
            match (self.sum_of(value), value) {
                (Sum::Linear, Value::Node(node, _)) => {
                    left.extend(self.graph.nodes[node].operands.iter().map(|o| o.value));
                }
                (Sum::Product(ab, op), _) => found(ab.into(), is_plain(&op)),
                (Sum::Rows(x), _) => found(smallvec![x], true),
                (Sum::Zero, _) => {}
                (_, value) => {
                    let whole = Operand::whole(value, self.graph.meta_of(value));
                    found(smallvec![whole], false);
                }
            }
        }
    }

    /// Whether the steps' operation sums rows over all steps: some are known in the steps only.
    pub(super) fn is_summed_inside(&self, rows: &[Operand]) -> bool {
        let whole = |o: &Operand| *o == Operand::whole(o.value, self.graph.meta_of(o.value));
        rows.iter().any(|o| !self.is_outside(o.value))
            && rows.iter().all(|o| !self.is_outside(o.value) || whole(o))
    }
}
