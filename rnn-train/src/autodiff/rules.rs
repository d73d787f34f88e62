//! The gradient of each operation, in terms of operations.

use backend_api::{
    Activation, Backend, Binary, Compare, DType, Error, Fused, Meta, Op, Precision, Reduce, Result,
    Tensor, Unary,
};
use smallvec::{SmallVec, smallvec};

use super::arguments::{Arguments, InputGrads, Needs};
use super::scan;

/// Whether the results of an operation depend differentiably on an operand. Other operations are
/// not recorded.
pub(super) fn differentiable(op: &Op) -> bool {
    match op {
        Op::Fill { .. } | Op::Random { .. } | Op::Compare(_) | Op::ArgMax { .. } => false,
        Op::Unary(f) => !matches!(f, Unary::Sign | Unary::Floor),
        Op::Cast { to } => to.is_float(),
        Op::Copy
        | Op::Affine { .. }
        | Op::Clamp { .. }
        | Op::Binary(_)
        | Op::Select
        | Op::Reduce { .. }
        | Op::MatMul { .. }
        | Op::Concat { .. }
        | Op::Reverse { .. }
        | Op::Gather
        | Op::ScatterAdd { .. }
        | Op::Fused(_) => true,
    }
}

/// Whether a fused operation has its own gradient rule. For the others, the operations of the
/// default body are recorded.
pub(super) fn has_rule(fused: &Fused) -> bool {
    matches!(
        fused,
        Fused::BiasActivation { .. }
            | Fused::LstmStep(_)
            | Fused::GruGates { .. }
            | Fused::GruOutput { .. }
            | Fused::MaskedUpdate { .. }
            | Fused::SoftmaxCrossEntropy
            | Fused::SquaredNorm
    ) || matches!(fused, Fused::Scan(plan) if scan::is_derived(plan))
}

/// The values that [`gradient`] reads, given which operands are tracked.
pub(super) fn needs(op: &Op, tracked: &[bool]) -> Needs {
    let none = Needs::default();
    match op {
        Op::Unary(f) => match f {
            Unary::Abs | Unary::Square | Unary::Log | Unary::Sin | Unary::Cos => {
                Needs::inputs(&[0])
            }
            Unary::Sqrt | Unary::Recip | Unary::Exp | Unary::Activation(_) => {
                none.and_outputs(&[0])
            }
            Unary::Neg | Unary::Sign | Unary::Floor => none,
        },
        Op::Clamp { .. } => Needs::inputs(&[0]),
        Op::Binary(f) => match f {
            Binary::Add | Binary::Sub => none,
            // The gradient of each side reads the other side.
            Binary::Mul => Needs::of_pair([tracked[1], tracked[0]]),
            Binary::Div if tracked[1] => Needs::inputs(&[1]).and_outputs(&[0]),
            Binary::Div => Needs::inputs(&[1]),
            Binary::Max | Binary::Min | Binary::FloorMod => Needs::inputs(&[0, 1]),
        },
        Op::Select => Needs::inputs(&[0]),
        Op::Reduce {
            kind: Reduce::Max, ..
        } => Needs::inputs(&[0]).and_outputs(&[0]),
        Op::MatMul { .. } => Needs::of_pair([tracked[1], tracked[0]]),
        Op::Reverse { .. } | Op::Gather => Needs::inputs(&[1]),
        Op::ScatterAdd { .. } => Needs::inputs(&[0]),
        Op::Fused(fused) => match fused {
            Fused::BiasActivation { .. } => none.and_outputs(&[0]),
            Fused::LstmStep(_) => Needs::inputs(&[1]).and_outputs(&[0, 2]),
            Fused::GruGates { .. } => Needs::inputs(&[1]).and_outputs(&[0, 2]),
            Fused::GruOutput { .. } => Needs::inputs(&[1, 2]).and_outputs(&[1]),
            Fused::MaskedUpdate { .. } => Needs::inputs(&[0]),
            Fused::Scan(plan) => scan::needs(plan),
            Fused::SoftmaxCrossEntropy => Needs::inputs(&[0, 1]),
            Fused::SquaredNorm => Needs::all_inputs(),
            _ => none,
        },
        Op::Fill { .. }
        | Op::Random { .. }
        | Op::Copy
        | Op::Cast { .. }
        | Op::Affine { .. }
        | Op::Compare(_)
        | Op::Reduce { .. }
        | Op::ArgMax { .. }
        | Op::Concat { .. } => none,
    }
}

/// The gradients of an operation's operands, given the gradients of its results.
pub(super) fn gradient<B: Backend>(op: &Op, a: &Arguments<'_, B>) -> Result<InputGrads<B>> {
    Ok(match op {
        Op::Copy | Op::Affine { mul: 1.0, .. } => smallvec![Some(a.grad(0)?)],
        Op::Cast { .. } => {
            let to = a.meta(0).dtype;
            // A sum of 16-bit floats is accumulated in `f32`, to which the gradient may belong.
            let to = to.computed_in();
            smallvec![to.is_float().then(|| a.grad(0)?.cast(to)).transpose()?]
        }
        Op::Unary(f) => smallvec![Some(unary(*f, a)?)],
        Op::Affine { mul, .. } => smallvec![Some(a.grad(0)?.affine(*mul, 0.0)?)],
        Op::Clamp { min, max } => smallvec![Some(clamp(*min, *max, a)?)],
        Op::Binary(f) => binary(*f, a)?,
        Op::Select => {
            let (condition, g) = (a.input(0)?, a.grad(0)?);
            let zero = scalar(&g, 0.0)?;
            let take = |i: usize, yes: &Tensor<B>, no: &Tensor<B>| {
                wanted(a, i, || sum_to(condition.select_from(yes, no)?, a.meta(i)))
            };
            smallvec![None, take(1, &g, &zero)?, take(2, &zero, &g)?]
        }
        Op::Reduce { kind, axis } => smallvec![Some(reduce(*kind, *axis, a)?)],
        Op::MatMul { alpha, .. } => matmul(*alpha, a)?,
        Op::Concat { axis } => {
            let g = a.grad(0)?;
            let mut start = 0;
            let mut grads = InputGrads::new();
            for i in 0..a.count() {
                let end = start + a.meta(i).shape[*axis];
                grads.push(wanted(a, i, || g.slice(*axis, start..end))?);
                start = end;
            }
            grads
        }
        Op::Reverse { time, batch } => {
            smallvec![Some(a.grad(0)?.reverse(&a.input(1)?, *time, *batch)?), None]
        }
        Op::Gather => {
            let rows = a.meta(0).shape[0];
            let op = Op::ScatterAdd { rows };
            let grad = Tensor::call(a.device, &op, &[&a.input(1)?, &wide(&a.grad(0)?)?])?;
            smallvec![Some(grad), None]
        }
        Op::ScatterAdd { .. } => smallvec![None, Some(a.grad(0)?.gather(&a.input(0)?)?)],
        Op::Fused(fused) => self::fused(fused, a)?,
        Op::Fill { .. } | Op::Random { .. } | Op::Compare(_) | Op::ArgMax { .. } => {
            return Err(no_rule(op.name()));
        }
    })
}

fn no_rule(op: &str) -> Error {
    Error::Gradient(format!("{op} has no gradient"))
}

/// The gradient of operand `i`, or `None` if it is not tracked.
fn wanted<B: Backend>(
    a: &Arguments<'_, B>,
    i: usize,
    grad: impl FnOnce() -> Result<Tensor<B>>,
) -> Result<Option<Tensor<B>>> {
    a.tracked(i).then(grad).transpose()
}

fn scalar<B: Backend>(like: &Tensor<B>, value: f64) -> Result<Tensor<B>> {
    Tensor::scalar(like.device(), value, like.dtype())
}

/// The numbers in the type that sums of them are accumulated in.
fn wide<B: Backend>(t: &Tensor<B>) -> Result<Tensor<B>> {
    t.cast(t.dtype().computed_in())
}

/// Sums over the axes along which the operand was broadcast.
fn sum_to<B: Backend>(mut grad: Tensor<B>, operand: Meta) -> Result<Tensor<B>> {
    if grad.shape() != operand.shape {
        grad = wide(&grad)?;
    }
    while grad.shape().rank() > operand.shape.rank() {
        grad = grad.sum(0)?;
    }
    for axis in 0..operand.shape.rank() {
        if operand.shape[axis] == 1 && grad.shape()[axis] != 1 {
            grad = grad.sum(axis)?.unsqueeze(axis)?;
        }
    }
    Ok(grad)
}

fn unary<B: Backend>(f: Unary, a: &Arguments<'_, B>) -> Result<Tensor<B>> {
    let g = a.grad(0)?;
    match f {
        Unary::Neg => g.neg(),
        Unary::Abs => g.mul(&a.input(0)?.sign()?),
        Unary::Square => g.mul(&a.input(0)?.affine(2.0, 0.0)?),
        Unary::Sqrt => g.div(&a.output(0)?.affine(2.0, 0.0)?),
        Unary::Recip => g.mul(&a.output(0)?.square()?)?.neg(),
        Unary::Exp => g.mul(&a.output(0)?),
        Unary::Log => g.div(&a.input(0)?),
        Unary::Sin => g.mul(&a.input(0)?.cos()?),
        Unary::Cos => g.mul(&a.input(0)?.sin()?)?.neg(),
        Unary::Activation(activation) => a
            .output(0)?
            .fused(Fused::ActivationGrad { activation }, &[&g]),
        Unary::Sign | Unary::Floor => Err(no_rule("a step function")),
    }
}

/// As in TensorFlow: the slope is 1 within the limits, including the limits themselves, and 0
/// outside.
fn clamp<B: Backend>(min: f64, max: f64, a: &Arguments<'_, B>) -> Result<Tensor<B>> {
    let (x, g) = (a.input(0)?, a.grad(0)?);
    let zero = scalar(&x, 0.0)?;
    let g = x
        .compare(Compare::Ge, &scalar(&x, min)?)?
        .select_from(&g, &zero)?;
    x.compare(Compare::Le, &scalar(&x, max)?)?
        .select_from(&g, &zero)
}

fn binary<B: Backend>(f: Binary, a: &Arguments<'_, B>) -> Result<InputGrads<B>> {
    let g = a.grad(0)?;
    let side = |i: usize, grad: &dyn Fn() -> Result<Tensor<B>>| {
        wanted(a, i, || sum_to(grad()?, a.meta(i)))
    };
    // Where both operands are equal, the first receives the whole gradient, as in TensorFlow.
    let chosen = |compare: Compare| {
        let first = a.input(0)?.compare(compare, &a.input(1)?)?;
        let zero = scalar(&g, 0.0)?;
        Ok::<_, Error>(smallvec![
            side(0, &|| first.select_from(&g, &zero))?,
            side(1, &|| first.select_from(&zero, &g))?
        ])
    };
    Ok(match f {
        Binary::Add => smallvec![side(0, &|| Ok(g.clone()))?, side(1, &|| Ok(g.clone()))?],
        Binary::Sub => smallvec![side(0, &|| Ok(g.clone()))?, side(1, &|| g.neg())?],
        Binary::Mul => smallvec![
            side(0, &|| g.mul(&a.input(1)?))?,
            side(1, &|| g.mul(&a.input(0)?))?
        ],
        Binary::Div => smallvec![
            side(0, &|| g.div(&a.input(1)?))?,
            side(1, &|| g.mul(&a.output(0)?)?.div(&a.input(1)?)?.neg())?
        ],
        Binary::Max => chosen(Compare::Ge)?,
        Binary::Min => chosen(Compare::Le)?,
        Binary::FloorMod => smallvec![
            side(0, &|| Ok(g.clone()))?,
            side(1, &|| g
                .mul(&a.input(0)?.div(&a.input(1)?)?.floor()?)?
                .neg())?
        ],
    })
}

fn reduce<B: Backend>(kind: Reduce, axis: usize, a: &Arguments<'_, B>) -> Result<Tensor<B>> {
    let shape = a.meta(0).shape;
    let g = a.grad(0)?.unsqueeze(axis)?;
    match kind {
        Reduce::Sum => g.stretch(shape),
        Reduce::Max => {
            // Elements that tie for the maximum share the gradient equally, as in TensorFlow.
            let x = a.input(0)?;
            let largest = x.compare(Compare::Eq, &a.output(0)?.unsqueeze(axis)?)?;
            let ones = largest.cast(x.dtype())?;
            let share = g.div(&ones.sum(axis)?.unsqueeze(axis)?)?;
            ones.mul(&share)
        }
    }
}

fn matmul<B: Backend>(alpha: f64, a: &Arguments<'_, B>) -> Result<InputGrads<B>> {
    let g = a.grad(0)?;
    let (left, right) = (a.meta(0).shape, a.meta(1).shape);
    // The operands of these products are the numbers that were 16-bit floats, which the faster
    // modes of a device do not round. So the products are exact in any mode.
    let precision = match a.meta(0).dtype {
        DType::F16 => Precision::Tf32,
        DType::Bf16 => Precision::Bf16,
        _ => Precision::Exact,
    };
    let product = |x: &Tensor<B>, y: &Tensor<B>| {
        Tensor::call(a.device, &Op::MatMul { alpha, precision }, &[x, y])
    };
    let turned = |t: &Tensor<B>| {
        let rank = t.shape().rank();
        t.transpose(rank - 2, rank - 1)
    };
    let da = wanted(a, 0, || product(&g, &turned(&a.input(1)?)?))?;
    let db = wanted(a, 1, || {
        let x = a.input(0)?;
        if right.rank() == left.rank() {
            return product(&turned(&x)?, &g);
        }
        // The batches share one right operand, so its gradient is one matmul over all rows.
        let rows = x.shape().count() / x.shape().last().max(1);
        let x = x.reshape(&[rows, x.shape().last()])?;
        let g = g.reshape(&[rows, g.shape().last()])?;
        product(&turned(&x)?, &g)
    })?;
    let mut grads: InputGrads<B> = smallvec![da, db];
    if a.count() == 3 {
        grads.push(wanted(a, 2, || Ok(g.clone()))?);
    }
    Ok(grads)
}

fn fused<B: Backend>(fused: &Fused, a: &Arguments<'_, B>) -> Result<InputGrads<B>> {
    let call = |f: Fused, ins: &[&Tensor<B>]| Tensor::call_all(a.device, &Op::Fused(f), ins);
    let all = |grads: SmallVec<[Tensor<B>; 3]>| grads.into_iter().map(Some).collect();
    Ok(match fused {
        Fused::BiasActivation { activation } => {
            let g = activation_grad(*activation, &a.output(0)?, &a.grad(0)?)?;
            let bias = wanted(a, 1, || sum_to(g.clone(), a.meta(1)))?;
            smallvec![Some(g), bias]
        }
        Fused::LstmStep(gates) => {
            a.saved(2, "lstm_step")?;
            let (saved, c, c_new) = (a.output(2)?, a.input(1)?, a.output(0)?);
            let (dc, dh) = (a.grad(0)?, a.grad(1)?);
            all(call(
                Fused::LstmStepGrad(*gates),
                &[&saved, &c, &c_new, &dc, &dh],
            )?)
        }
        Fused::GruGates { activation } => {
            a.saved(2, "gru_gates")?;
            let (r, u, h) = (a.output(2)?, a.output(0)?, a.input(1)?);
            let grad = Fused::GruGatesGrad {
                activation: *activation,
            };
            all(call(grad, &[&r, &u, &h, &a.grad(0)?, &a.grad(1)?])?)
        }
        Fused::GruOutput { activation } => {
            a.saved(1, "gru_output")?;
            let (q, u, h) = (a.output(1)?, a.input(1)?, a.input(2)?);
            let grad = Fused::GruOutputGrad {
                activation: *activation,
            };
            all(call(grad, &[&q, &u, &h, &a.grad(0)?])?)
        }
        Fused::MaskedUpdate { time } => {
            let (lengths, g) = (a.input(0)?, a.grad(0)?);
            let zero = Tensor::zeros(a.device, g.meta())?;
            let masked = |new: &Tensor<B>, old: &Tensor<B>| {
                lengths.fused(Fused::MaskedUpdate { time: *time }, &[new, old])
            };
            smallvec![
                None,
                wanted(a, 1, || masked(&g, &zero))?,
                wanted(a, 2, || masked(&zero, &g))?
            ]
        }
        Fused::Scan(plan) => scan::gradient(plan, a)?,
        Fused::SoftmaxCrossEntropy => {
            let (logits, labels, g) = (a.input(0)?, a.input(1)?, a.grad(0)?);
            let grad = logits.fused(Fused::SoftmaxCrossEntropyGrad, &[&labels, &g])?;
            smallvec![Some(grad), None]
        }
        Fused::SquaredNorm => {
            let twice = a.grad(0)?.affine(2.0, 0.0)?;
            (0..a.count())
                .map(|i| wanted(a, i, || a.input(i)?.mul(&twice)))
                .collect::<Result<_>>()?
        }
        other => return Err(no_rule(Op::Fused(other.clone()).name())),
    })
}

fn activation_grad<B: Backend>(
    activation: Activation,
    y: &Tensor<B>,
    g: &Tensor<B>,
) -> Result<Tensor<B>> {
    y.fused(Fused::ActivationGrad { activation }, &[g])
}
