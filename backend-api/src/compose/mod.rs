//! The default implementation of each fused operation, written once over [`Tensor`].
//!
//! On a plain backend this code computes the results. On the automatic differentiation backend it
//! is recorded operation by operation; tests compare hand-written gradients against these composed
//! ones.

use smallvec::{SmallVec, smallvec};

use crate::activation::ActivationFn;
use crate::expr::Expr;
use crate::trace::scan;
use crate::{
    Activation, AdamStep, Backend, Buffers, Compare, DType, Dest, Dests, Error, Fused, Layout,
    LstmGates, Meta, Op, Result, Shape, Tensor, View, is_widened, run_widened,
};

type Results<B> = SmallVec<[Tensor<B>; 3]>;

/// Runs the default implementation of a fused operation: for operations that a backend does not
/// implement.
pub fn compose<B: Backend>(
    device: &B,
    fused: &Fused,
    ins: &[View<'_, B::Buffer>],
    outs: Dests<B::Buffer>,
) -> Result<Buffers<B::Buffer>> {
    let op = Op::Fused(fused.clone());
    if is_widened(&op, ins) {
        return run_widened(device, &op, ins, outs);
    }
    let ins = ins.iter().map(|v| Tensor::of_view(device, v));
    let ins = ins.collect::<Result<Vec<_>>>()?;
    body(device, fused, &ins)?
        .into_iter()
        .zip(outs)
        .map(|(result, dest)| write_result(device, result, dest))
        .collect()
}

/// Writes a result to its destination.
fn write_result<B: Backend>(
    device: &B,
    result: Tensor<B>,
    dest: Dest<B::Buffer>,
) -> Result<B::Buffer> {
    match dest {
        Dest::New(meta) => {
            // A body may return a view, but the caller reads the buffer contiguously from its
            // start.
            let as_read = *result.layout() == Layout::contiguous(meta.shape);
            let result = if as_read { result } else { result.copy()? };
            result.into_buffer()
        }
        into @ Dest::Into(_) => {
            let mut outs = device.run(&Op::Copy, &[result.view()?], smallvec![into])?;
            Ok(outs.swap_remove(0))
        }
    }
}

fn body<B: Backend>(device: &B, fused: &Fused, ins: &[Tensor<B>]) -> Result<Results<B>> {
    Ok(match (fused, ins) {
        (Fused::BiasActivation { activation }, [x, bias]) => {
            smallvec![x.add(bias)?.activate(*activation)?]
        }
        (Fused::ActivationGrad { activation }, [y, dy]) => {
            smallvec![activation_grad(*activation, y, dy)?]
        }
        (Fused::LstmStep(gates), [z, c]) => lstm_step(*gates, z, c)?,
        (Fused::LstmStepGrad(gates), [saved, c, c_new, dc, dh]) => {
            lstm_step_grad(*gates, saved, c, c_new, dc, dh)?
        }
        (Fused::GruGates { activation }, [z, h]) => {
            let [r, u] = two(&z.activate(*activation)?)?;
            let rh = r.mul(h)?;
            smallvec![u, rh, r]
        }
        (Fused::GruGatesGrad { activation }, [r, u, h, du, drh]) => {
            let dr = activation_grad(*activation, r, &drh.mul(h)?)?;
            let du = activation_grad(*activation, u, du)?;
            smallvec![Tensor::concat(&[&dr, &du], 1)?, drh.mul(r)?]
        }
        (Fused::GruOutput { activation }, [z, u, h]) => {
            let q = z.activate(*activation)?;
            let new = u.mul(h)?.add(&u.affine(-1.0, 1.0)?.mul(&q)?)?;
            smallvec![new, q]
        }
        (Fused::GruOutputGrad { activation }, [q, u, h, dh]) => {
            let dq = u.affine(-1.0, 1.0)?.mul(dh)?;
            let dz = activation_grad(*activation, q, &dq)?;
            smallvec![dz, h.sub(q)?.mul(dh)?, u.mul(dh)?]
        }
        (Fused::MaskedUpdate { time }, [lengths, new, old]) => {
            smallvec![masked_update(*time, lengths, new, old)?]
        }
        (Fused::ScatterUpdate, [table, ids, rows]) => {
            smallvec![scatter_update(table, ids, rows)?]
        }
        (Fused::Scan(plan), ins) => scan(device, plan, ins)?,
        (Fused::SoftmaxCrossEntropy, [logits, labels]) => {
            let axis = logits.shape().rank() - 1;
            let log_p = logits.log_softmax(logits.shape().rank() - 1)?;
            let zero = Tensor::zeros(device, logits.meta())?;
            smallvec![
                one_hot(fused.name(), labels, logits)?
                    .select_from(&log_p, &zero)?
                    .sum(axis)?
                    .neg()?
            ]
        }
        (Fused::SoftmaxCrossEntropyGrad, [logits, labels, dloss]) => {
            let axis = logits.shape().rank() - 1;
            let p = logits.log_softmax(logits.shape().rank() - 1)?.exp()?;
            let hit = p.affine(1.0, -1.0)?;
            let grad = one_hot(fused.name(), labels, logits)?.select_from(&hit, &p)?;
            smallvec![grad.mul(&dloss.unsqueeze(axis)?)?]
        }
        (Fused::SquaredNorm, [first, rest @ ..]) => {
            let mut sum = first.square()?.sum_all()?;
            for x in rest {
                sum = sum.add(&x.square()?.sum_all()?)?;
            }
            smallvec![sum]
        }
        (Fused::Sgd { lr }, [w, g]) => smallvec![w.sub(&g.affine(*lr, 0.0)?)?],
        (Fused::Adam(step), [w, m, v, g]) => adam(step, w, m, v, g)?,
        // `infer` has checked the number of operands.
        (_, ins) => unreachable!("{fused:?} with {} operands", ins.len()),
    })
}

fn two<B: Backend>(t: &Tensor<B>) -> Result<[Tensor<B>; 2]> {
    let half = t.shape().last() / 2;
    let axis = t.shape().rank() - 1;
    Ok([t.slice(axis, 0..half)?, t.slice(axis, half..2 * half)?])
}

/// `dy` times the derivative of the activation, computed from its value `y`.
fn activation_grad<B: Backend>(f: Activation, y: &Tensor<B>, dy: &Tensor<B>) -> Result<Tensor<B>> {
    let (name, other) = (Expr::argument("y"), Expr::argument("dy"));
    let gradient = with_activation!(f, F => F::gradient(name, other));
    gradient.evaluate(&[("y", y), ("dy", dy)])
}

fn lstm_step<B: Backend>(g: LstmGates, z: &Tensor<B>, c: &Tensor<B>) -> Result<Results<B>> {
    let parts = z.split_last(4)?;
    let gate = |z: &Tensor<B>| z.activate(g.recurrent_activation);
    let i = gate(&parts[0])?;
    let j = parts[1].activate(g.activation)?;
    let f = gate(&parts[2].affine(1.0, g.forget_bias)?)?;
    let o = gate(&parts[3])?;
    let c_new = c.mul(&f)?.add(&i.mul(&j)?)?;
    let h = c_new.activate(g.activation)?.mul(&o)?;
    Ok(smallvec![c_new, h, Tensor::concat(&[&i, &j, &f, &o], 1)?])
}

fn lstm_step_grad<B: Backend>(
    g: LstmGates,
    gates: &Tensor<B>,
    c: &Tensor<B>,
    c_new: &Tensor<B>,
    dc: &Tensor<B>,
    dh: &Tensor<B>,
) -> Result<Results<B>> {
    let parts = gates.split_last(4)?;
    let [i, j, f, o] = [&parts[0], &parts[1], &parts[2], &parts[3]];
    let a = c_new.activate(g.activation)?;
    let dc = dc.add(&activation_grad(g.activation, &a, &dh.mul(o)?)?)?;
    let gate = |y: &Tensor<B>, dy: &Tensor<B>| activation_grad(g.recurrent_activation, y, dy);
    let di = gate(i, &dc.mul(j)?)?;
    let dj = activation_grad(g.activation, j, &dc.mul(i)?)?;
    let df = gate(f, &dc.mul(c)?)?;
    let d_o = gate(o, &dh.mul(&a)?)?;
    Ok(smallvec![
        Tensor::concat(&[&di, &dj, &df, &d_o], 1)?,
        dc.mul(f)?
    ])
}

fn masked_update<B: Backend>(
    time: usize,
    lengths: &Tensor<B>,
    new: &Tensor<B>,
    old: &Tensor<B>,
) -> Result<Tensor<B>> {
    let now = Tensor::full(
        lengths.device(),
        time as f64,
        Meta::new(Shape::SCALAR, lengths.dtype()),
    )?;
    let mut dims = lengths.dims();
    dims.resize(new.shape().rank(), 1);
    let running = lengths.compare(Compare::Gt, &now)?.reshape(&dims)?;
    running.select_from(new, old)
}

/// Gathers each row of the result from the concatenation of the table and the new rows. The row
/// indices are computed on the host. Rows are only copied: a sum would lose the sign of a zero.
fn scatter_update<B: Backend>(
    table: &Tensor<B>,
    ids: &Tensor<B>,
    rows: &Tensor<B>,
) -> Result<Tensor<B>> {
    let ids: Vec<i64> = ids.cast(DType::I64)?.to_vec()?;
    let mut dims = table.dims();
    let mut from: Vec<i64> = (0..dims[0] as i64).collect();
    for (position, &id) in ids.iter().enumerate() {
        let to = usize::try_from(id).ok().and_then(|id| from.get_mut(id));
        let Some(to) = to else {
            let rows = dims[0] as i64;
            return Err(Error::out_of_range(
                "scatter_update",
                "ids",
                position,
                id,
                rows,
            ));
        };
        *to = (dims[0] + position) as i64;
    }
    let from = Tensor::from_slice(table.device(), &from, &[dims[0]])?;
    dims[0] = ids.len();
    Tensor::concat(&[table, &rows.reshape(&dims)?], 0)?.gather(&from)
}

/// `[.., V] bool`: whether each index equals the label.
fn one_hot<B: Backend>(
    op: &'static str,
    labels: &Tensor<B>,
    logits: &Tensor<B>,
) -> Result<Tensor<B>> {
    let classes = logits.shape().last();
    let ids: Vec<i64> = (0..classes as i64).collect();
    let ids = Tensor::from_slice(logits.device(), &ids, &[classes])?;
    // Gathering from `0..classes` returns the labels and refuses a label outside that range.
    let labels = ids.gather(labels).map_err(|error| match error {
        Error::Argument { problem, .. } => Error::argument(op, "labels", problem),
        other => other,
    })?;
    labels.is_class(&ids)
}

fn adam<B: Backend>(
    step: &AdamStep,
    w: &Tensor<B>,
    m: &Tensor<B>,
    v: &Tensor<B>,
    g: &Tensor<B>,
) -> Result<Results<B>> {
    let m = m
        .affine(step.beta1, 0.0)?
        .add(&g.affine(1.0 - step.beta1, 0.0)?)?;
    let v = v
        .affine(step.beta2, 0.0)?
        .add(&g.square()?.affine(1.0 - step.beta2, 0.0)?)?;
    let denominator = v.sqrt()?.affine(1.0, step.epsilon)?;
    let change = m.affine(step.corrected_lr(), 0.0)?.div(&denominator)?;
    let kept = match step.keep {
        1.0 => w.clone(),
        keep => w.affine(keep, 0.0)?,
    };
    Ok(smallvec![kept.sub(&change)?, m, v])
}
