//! Checks shapes and types of all operations.

use smallvec::smallvec;

use crate::operands::Args;
use crate::{DType, Error, Fused, Meta, Metas, Op, Reduce, Result, Shape};

impl Op {
    /// The shapes and types of the results, given those of the operands.
    ///
    /// # Errors
    /// The operands do not fit the operation or each other. The message names the operation, the
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
                Ok(smallvec![Meta::new(x.shape.without(*axis)?, x.dtype)])
            }
            Self::ArgMax { axis } => {
                let [x] = args.take()?;
                args.check_number("x", x.dtype)?;
                args.check_axis("x", x, *axis)?;
                args.not_empty("x", x, *axis)?;
                Ok(smallvec![Meta::new(x.shape.without(*axis)?, DType::I64)])
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
            Self::GruGates { .. } => {
                let [z, h] = args.take()?;
                let wide = args.gates("h", h, 2)?;
                args.same("z", z, wide)?;
                Ok(smallvec![h, h, h])
            }
            Self::GruGatesGrad { .. } => {
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
            Self::Scan(plan) => plan.infer(args),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Binary, Precision};

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
            "mul: b is f64, but f32 is needed"
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
}
