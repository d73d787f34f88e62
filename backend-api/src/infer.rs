//! The one place where shapes and types of operations are checked.

use smallvec::smallvec;

use crate::operands::Args;
use crate::{
    DType, Error, Fused, Meta, Metas, Op, Recurrence, Reduce, Result, SequencePlan, Shape,
};

impl Op {
    /// Shapes and types of the results, given those of the operands.
    ///
    /// # Errors
    /// The operands do not fit the operation or one another. The message names the operation, the
    /// operand and both shapes.
    pub fn infer(&self, ins: &[Meta]) -> Result<Metas> {
        let args = Args {
            op: self.name(),
            ins,
        };
        match self {
            Self::Fill { meta, .. } => {
                args.count(0)?;
                Ok(smallvec![*meta])
            }
            Self::Random { meta, .. } => {
                args.count(0)?;
                args.check_float("result", meta.dtype)?;
                Ok(smallvec![*meta])
            }
            Self::Copy => {
                let [x] = args.take()?;
                Ok(smallvec![x])
            }
            Self::Cast { to } => {
                let [x] = args.take()?;
                Ok(smallvec![Meta::new(x.shape, *to)])
            }
            Self::Unary(_) | Self::Affine { .. } | Self::Clamp { .. } => {
                let [x] = args.take()?;
                args.check_float("x", x.dtype)?;
                Ok(smallvec![x])
            }
            Self::Binary(_) => {
                let [a, b] = args.take()?;
                args.check_number("a", a.dtype)?;
                Ok(smallvec![Meta::new(
                    args.broadcast("b", b, a.shape, a.dtype)?,
                    a.dtype
                )])
            }
            Self::Compare(_) => {
                let [a, b] = args.take()?;
                args.check_number("a", a.dtype)?;
                Ok(smallvec![Meta::new(
                    args.broadcast("b", b, a.shape, a.dtype)?,
                    DType::Bool
                )])
            }
            Self::Select => {
                let [condition, a, b] = args.take()?;
                args.same_type("condition", condition, DType::Bool)?;
                let shape = args.broadcast("a", a, condition.shape, a.dtype)?;
                Ok(smallvec![Meta::new(
                    args.broadcast("b", b, shape, a.dtype)?,
                    a.dtype
                )])
            }
            Self::Reduce { kind, axis } => {
                let [x] = args.take()?;
                args.check_number("x", x.dtype)?;
                args.check_axis("x", x, *axis)?;
                if *kind == Reduce::Max {
                    args.not_empty("x", x, *axis)?;
                }
                Ok(smallvec![Meta::new(x.shape.without(*axis), x.dtype)])
            }
            Self::ArgMax { axis } => {
                let [x] = args.take()?;
                args.check_number("x", x.dtype)?;
                args.check_axis("x", x, *axis)?;
                args.not_empty("x", x, *axis)?;
                Ok(smallvec![Meta::new(x.shape.without(*axis), DType::I64)])
            }
            Self::MatMul { .. } => args.matmul(),
            Self::Concat { axis } => args.concat(*axis),
            Self::Reverse { time, batch } => {
                let [x, lengths] = args.take()?;
                args.check_axis("x", x, *time)?;
                args.check_axis("x", x, *batch)?;
                if time == batch {
                    return Err(Error::argument(
                        args.op,
                        "time",
                        format!("and batch are both axis {time}"),
                    ));
                }
                args.check_lengths(lengths, x.shape[*batch])?;
                Ok(smallvec![x])
            }
            Self::Gather => {
                let [table, ids] = args.take()?;
                Ok(smallvec![args.gather(table, ids)?])
            }
            Self::ScatterAdd { rows } => {
                let [ids, values] = args.take()?;
                args.check_int("ids", ids.dtype)?;
                args.check_float("rows", values.dtype)?;
                let lead = ids.shape.dims();
                if !values.shape.dims().starts_with(lead) {
                    return Err(Error::shape(
                        args.op,
                        "rows",
                        values.shape,
                        format!("ids are {}", ids.shape),
                    ));
                }
                let mut dims = vec![*rows];
                dims.extend_from_slice(&values.shape.dims()[lead.len()..]);
                Ok(smallvec![Meta::new(Shape::new(&dims)?, values.dtype)])
            }
            Self::Fused(fused) => fused.infer(&args),
        }
    }
}

impl Fused {
    fn infer(&self, args: &Args<'_>) -> Result<Metas> {
        match self {
            Self::BiasActivation { .. } => {
                let [x, bias] = args.take()?;
                args.check_float("x", x.dtype)?;
                args.min_rank("x", x, 1)?;
                args.same(
                    "bias",
                    bias,
                    Meta::new(Shape::of(&[x.shape.last()]), x.dtype),
                )?;
                Ok(smallvec![x])
            }
            Self::ActivationGrad { .. } | Self::Sgd { .. } => {
                let [x, g] = args.take()?;
                args.check_float("x", x.dtype)?;
                args.same("g", g, x)?;
                Ok(smallvec![x])
            }
            Self::LstmStep(_) => {
                let [z, c] = args.take()?;
                let wide = args.gates("c", c, 4)?;
                args.same("z", z, wide)?;
                Ok(smallvec![c, c, wide])
            }
            Self::LstmStepGrad(_) => {
                let [gates, c, c_new, dc, dh] = args.take()?;
                let wide = args.gates("c", c, 4)?;
                args.same("gates", gates, wide)?;
                args.all_same(&[("c'", c_new), ("dc'", dc), ("dh'", dh)], c)?;
                Ok(smallvec![wide, c])
            }
            Self::GruGates => {
                let [z, h] = args.take()?;
                let wide = args.gates("h", h, 2)?;
                args.same("z", z, wide)?;
                Ok(smallvec![h, h, h])
            }
            Self::GruGatesGrad => {
                let [r, u, h, du, drh] = args.take()?;
                let wide = args.gates("h", h, 2)?;
                args.all_same(&[("r", r), ("u", u), ("du", du), ("drh", drh)], h)?;
                Ok(smallvec![wide, h])
            }
            Self::GruOutput { .. } => {
                let [z, u, h] = args.take()?;
                args.gates("h", h, 1)?;
                args.all_same(&[("z", z), ("u", u)], h)?;
                Ok(smallvec![h, h])
            }
            Self::GruOutputGrad { .. } => {
                let [q, u, h, dh] = args.take()?;
                args.gates("h", h, 1)?;
                args.all_same(&[("q", q), ("u", u), ("dh'", dh)], h)?;
                Ok(smallvec![h, h, h])
            }
            Self::MaskedUpdate { .. } => {
                let [lengths, new, old] = args.take()?;
                args.min_rank("new", new, 1)?;
                args.check_lengths(lengths, new.shape[0])?;
                args.same("old", old, new)?;
                Ok(smallvec![new])
            }
            Self::ScatterUpdate => {
                let [table, ids, rows] = args.take()?;
                args.same("rows", rows, args.gather(table, ids)?)?;
                Ok(smallvec![table])
            }
            Self::Sequence(plan) => Ok(plan.operands(args, false)?.results()),
            Self::SequenceGrad(plan) => Ok(plan.operands(args, true)?.gradients()),
            Self::SoftmaxCrossEntropy => {
                let [logits, labels] = args.take()?;
                Ok(smallvec![args.per_row(logits, labels)?])
            }
            Self::SoftmaxCrossEntropyGrad => {
                let [logits, labels, grad] = args.take()?;
                let per_row = args.per_row(logits, labels)?;
                args.same("dloss", grad, per_row)?;
                Ok(smallvec![logits])
            }
            Self::SquaredNorm => {
                let Some(first) = args.ins.first() else {
                    return Err(Error::argument(args.op, "operands", "are missing"));
                };
                args.check_float("x0", first.dtype)?;
                for (i, x) in args.ins.iter().enumerate() {
                    args.same_type(&format!("x{i}"), *x, first.dtype)?;
                }
                Ok(smallvec![Meta::new(Shape::SCALAR, first.dtype)])
            }
            Self::Adam(_) => {
                let [w, m, v, g] = args.take()?;
                args.check_float("w", w.dtype)?;
                args.all_same(&[("m", m), ("v", v), ("g", g)], w)?;
                Ok(smallvec![w, w, w])
            }
        }
    }
}

/// The parts of a whole sequence, checked.
struct SequenceParts {
    z: Meta,
    kernels: Metas,
    state: Meta,
    outputs: Meta,
    plan: SequencePlan,
}

impl SequencePlan {
    /// Checks the operands of a sequence, or of its gradient.
    fn operands(&self, args: &Args<'_>, grad: bool) -> Result<SequenceParts> {
        let r = self.recurrence;
        let (kernels, states) = (r.kernels(), r.states());
        let saved = Self {
            save: true,
            ..*self
        }
        .saved();
        let head = usize::from(!grad);
        let lengths_at = head + kernels + states;
        let outputs_at = lengths_at + usize::from(self.ragged);
        let expected = if grad {
            outputs_at + 1 + saved + 1 + states
        } else {
            outputs_at
        };
        args.count(expected)?;
        // The state has the sizes that the others are checked against.
        let state = args.ins[head + kernels];
        args.gates("initial state", state, 1)?;
        let (batch, units) = (state.shape[0], state.shape[1]);
        let steps_from = if grad {
            args.ins[outputs_at]
        } else {
            args.ins[0]
        };
        args.rank(if grad { "outputs" } else { "z" }, steps_from, 3)?;
        let steps = steps_from.shape[0];
        let sequence = |width: usize| {
            Ok::<_, Error>(Meta::new(Shape::new(&[steps, batch, width])?, state.dtype))
        };
        let (z, outputs) = (sequence(r.gates() * units)?, sequence(units)?);
        let widths: &[usize] = match r {
            Recurrence::Basic { .. } => &[1],
            Recurrence::Lstm(_) => &[4],
            Recurrence::Gru { .. } => &[2, 1],
        };
        let mut kernel_metas = Metas::new();
        for (i, width) in widths.iter().enumerate() {
            let meta = Meta::new(Shape::new(&[units, width * units])?, state.dtype);
            args.same("recurrent kernel", args.ins[head + i], meta)?;
            kernel_metas.push(meta);
        }
        for i in 0..states {
            args.same("initial state", args.ins[head + kernels + i], state)?;
        }
        if self.ragged {
            args.check_lengths(args.ins[lengths_at], batch)?;
        }
        if grad {
            args.same("outputs", args.ins[outputs_at], outputs)?;
            if saved > 0 {
                args.same("saved gates", args.ins[outputs_at + 1], z)?;
            }
            if saved > 1 {
                args.same("saved cell states", args.ins[outputs_at + 2], outputs)?;
            }
            args.same("doutputs", args.ins[outputs_at + 1 + saved], outputs)?;
            for i in 0..states {
                let at = outputs_at + 2 + saved + i;
                args.same("gradient of the final state", args.ins[at], state)?;
            }
        } else {
            args.same("z", args.ins[0], z)?;
        }
        Ok(SequenceParts {
            z,
            kernels: kernel_metas,
            state,
            outputs,
            plan: *self,
        })
    }
}

impl SequenceParts {
    fn results(&self) -> Metas {
        let mut all: Metas = smallvec![self.outputs];
        all.extend(std::iter::repeat_n(
            self.state,
            self.plan.recurrence.states(),
        ));
        let saved = [self.z, self.outputs];
        all.extend(saved.into_iter().take(self.plan.saved()));
        all
    }

    fn gradients(&self) -> Metas {
        let mut all: Metas = smallvec![self.z];
        all.extend(self.kernels.iter().copied());
        all.extend(std::iter::repeat_n(
            self.state,
            self.plan.recurrence.states(),
        ));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, Binary, LstmGates, Precision, SequencePath};

    fn f32(dims: &[usize]) -> Meta {
        Meta::new(Shape::new(dims).unwrap(), DType::F32)
    }

    fn matmul() -> Op {
        Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        }
    }

    fn message(op: &Op, ins: &[Meta]) -> String {
        op.infer(ins).unwrap_err().to_string()
    }

    #[test]
    fn messages_name_the_argument_and_both_shapes() {
        assert_eq!(
            message(&Op::Binary(Binary::Add), &[f32(&[2, 3]), f32(&[4])]),
            "add: b is [4], but the other operand is [2, 3]"
        );
        assert_eq!(
            message(&matmul(), &[f32(&[32, 10]), f32(&[12, 5])]),
            "matmul: a is [32, 10], but b is [12, 5]"
        );
        assert_eq!(
            message(&Op::Concat { axis: 1 }, &[f32(&[2, 3]), f32(&[3, 3])]),
            "concat: x1 is [3, 3], but x0 is [2, 3], and only axis 1 may differ"
        );
        let doubles = Meta::new(Shape::new(&[2, 3]).unwrap(), DType::F64);
        assert_eq!(
            message(&Op::Binary(Binary::Mul), &[f32(&[2, 3]), doubles]),
            "mul: b is f64, but f32 is needed there"
        );
    }

    #[test]
    fn matmul_batches() {
        let dims = |a: &[usize], b: &[usize]| {
            matmul()
                .infer(&[f32(a), f32(b)])
                .map(|m| m[0].shape.dims().to_vec())
        };
        assert_eq!(dims(&[7, 2, 3], &[3, 4]).unwrap(), [7, 2, 4]);
        assert_eq!(dims(&[7, 2, 3], &[7, 3, 4]).unwrap(), [7, 2, 4]);
        assert!(dims(&[7, 2, 3], &[6, 3, 4]).is_err());
        assert!(dims(&[3], &[3, 4]).is_err());
    }

    #[test]
    fn sequences_say_what_they_save() {
        let mut plan = SequencePlan {
            recurrence: Recurrence::Lstm(LstmGates {
                forget_bias: 1.0,
                activation: Activation::Tanh,
            }),
            path: SequencePath::Stepwise,
            ragged: false,
            save: false,
        };
        let ins = [f32(&[5, 2, 12]), f32(&[3, 12]), f32(&[2, 3]), f32(&[2, 3])];
        let count = |plan| Op::Fused(Fused::Sequence(plan)).infer(&ins).unwrap().len();
        assert_eq!(count(plan), 3);
        plan.save = true;
        assert_eq!(count(plan), 5);
        let wrong = [f32(&[5, 2, 12]), f32(&[3, 9]), f32(&[2, 3]), f32(&[2, 3])];
        assert_eq!(
            message(&Op::Fused(Fused::Sequence(plan)), &wrong),
            "lstm_sequence: recurrent kernel is [3, 9], but [3, 12] is needed there"
        );
    }
}
