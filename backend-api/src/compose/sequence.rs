//! The default implementation of whole sequences: the input projection of all steps as one matmul,
//! then step by step.

use smallvec::{SmallVec, smallvec};

use super::{Results, activation_grad};
use crate::sequence::{ExtendedLstm, Recurrence, SequencePlan};
use crate::{Activation, Backend, Compare, Fused, Meta, Op, Result, Shape, Stacker, Tensor};

/// The operands of a whole sequence by name, in the order of [`SequencePlan`].
struct Operands<'a, B: Backend> {
    /// The inputs, with padding set to zero.
    x: Tensor<B>,
    kernel: &'a Tensor<B>,
    bias: &'a Tensor<B>,
    parameters: &'a [Tensor<B>],
    initial: &'a [Tensor<B>],
    lengths: Option<&'a Tensor<B>>,
    rest: &'a [Tensor<B>],
}

impl<'a, B: Backend> Operands<'a, B> {
    fn new(plan: &SequencePlan, ins: &'a [Tensor<B>]) -> Result<Self> {
        let (first, ins) = ins.split_at(3);
        let (parameters, ins) = ins.split_at(plan.recurrence.parameter_count());
        let (initial, ins) = ins.split_at(plan.recurrence.states());
        let (lengths, rest) = ins.split_at(usize::from(plan.ragged));
        let lengths = lengths.first();
        let x = match lengths {
            Some(lengths) => first[0].mask_padding(lengths, 0)?,
            None => first[0].clone(),
        };
        Ok(Self {
            x,
            kernel: &first[1],
            bias: &first[2],
            parameters,
            initial,
            lengths,
            rest,
        })
    }

    fn steps(&self) -> usize {
        self.x.shape()[0]
    }

    fn units(&self) -> usize {
        self.initial[0].shape()[1]
    }

    /// The initial `h`.
    fn h0(&self) -> &'a Tensor<B> {
        &self.initial[self.initial.len() - 1]
    }

    /// `new` for the rows that are still running at step `t`, else `old`.
    fn masked(&self, t: usize, new: Tensor<B>, old: &Tensor<B>) -> Result<Tensor<B>> {
        match self.lengths {
            Some(lengths) => lengths.fused(Fused::MaskedUpdate { time: t }, &[&new, old]),
            None => Ok(new),
        }
    }

    /// The peephole weights `w_f`, `w_i`, `w_o`, if enabled.
    fn peepholes(&self, lstm: &ExtendedLstm) -> Option<&'a [Tensor<B>]> {
        let first = 1 + usize::from(lstm.projection);
        lstm.peepholes.then(|| &self.parameters[first..])
    }
}

fn clip<B: Backend>(x: Tensor<B>, limit: Option<f64>) -> Result<Tensor<B>> {
    match limit {
        Some(limit) => x.clamp(-limit, limit),
        None => Ok(x),
    }
}

/// The gradient of a clipped value: 0 where the value is at its limit.
fn unclipped<B: Backend>(grad: Tensor<B>, x: &Tensor<B>, limit: Option<f64>) -> Result<Tensor<B>> {
    let Some(limit) = limit else {
        return Ok(grad);
    };
    let scalar = Meta::new(Shape::SCALAR, x.dtype());
    let limit = Tensor::full(x.device(), limit, scalar)?;
    let zero = Tensor::zeros(x.device(), scalar)?;
    x.abs()?
        .compare(Compare::Lt, &limit)?
        .select_from(&grad, &zero)
}

/// The new state of a step, and the values it saves. `z` is the projected input of the step.
fn step<B: Backend>(
    plan: &SequencePlan,
    ops: &Operands<'_, B>,
    z: &Tensor<B>,
    state: &[Tensor<B>],
) -> Result<(Results<B>, Results<B>)> {
    let device = z.device();
    let n = ops.units();
    let h = &state[state.len() - 1];
    let kernel = &ops.parameters[0];
    Ok(match plan.recurrence {
        Recurrence::Basic { activation } => {
            let h = h.matmul_add(kernel, z)?.activate(activation)?;
            (smallvec![h], smallvec![])
        }
        Recurrence::Lstm(g) => {
            let z = h.matmul_add(kernel, z)?;
            let op = Op::Fused(Fused::LstmStep(g));
            let mut outs = Tensor::call_all(device, &op, &[&z, &state[0]])?;
            let gates = outs.swap_remove(2);
            let c = outs[0].clone();
            (outs, smallvec![gates, c])
        }
        Recurrence::ExtendedLstm(lstm) => {
            extended_lstm_step(&lstm, ops, &h.matmul_add(kernel, z)?, &state[0])?
        }
        Recurrence::Gru { activation } => {
            let zg = h.matmul_add(kernel, &z.slice(1, 0..2 * n)?)?;
            let outs = Tensor::call_all(device, &Op::Fused(Fused::GruGates), &[&zg, h])?;
            let [u, rh, r] = [&outs[0], &outs[1], &outs[2]];
            let zq = rh.matmul_add(&ops.parameters[1], &z.slice(1, 2 * n..3 * n)?)?;
            let op = Op::Fused(Fused::GruOutput { activation });
            let outs = Tensor::call_all(device, &op, &[&zq, u, h])?;
            let gates = Tensor::concat(&[r, u, &outs[1]], 1)?;
            (smallvec![outs[0].clone()], smallvec![gates])
        }
        Recurrence::GruResetAfter { activation } => {
            let zg = h.matmul_add(kernel, &z.slice(1, 0..2 * n)?)?;
            let m = h.matmul(&ops.parameters[1])?.add(&ops.parameters[2])?;
            let outs = Tensor::call_all(device, &Op::Fused(Fused::GruGates), &[&zg, &m])?;
            let [u, rm, r] = [&outs[0], &outs[1], &outs[2]];
            let zq = z.slice(1, 2 * n..3 * n)?.add(rm)?;
            let op = Op::Fused(Fused::GruOutput { activation });
            let outs = Tensor::call_all(device, &op, &[&zq, u, h])?;
            let gates = Tensor::concat(&[r, u, &outs[1], &m], 1)?;
            (smallvec![outs[0].clone()], smallvec![gates])
        }
    })
}

fn extended_lstm_step<B: Backend>(
    lstm: &ExtendedLstm,
    ops: &Operands<'_, B>,
    z: &Tensor<B>,
    c: &Tensor<B>,
) -> Result<(Results<B>, Results<B>)> {
    let parts = z.split_last(4)?;
    let [mut i, j, mut f, mut o] = [0, 1, 2, 3].map(|k| parts[k].clone());
    f = f.affine(1.0, lstm.gates.forget_bias)?;
    let peepholes = ops.peepholes(lstm);
    if let Some([w_f, w_i, _]) = peepholes {
        i = i.add(&c.mul(w_i)?)?;
        f = f.add(&c.mul(w_f)?)?;
    }
    let (i, j, f) = (
        i.sigmoid()?,
        j.activate(lstm.gates.activation)?,
        f.sigmoid()?,
    );
    let c = clip(c.mul(&f)?.add(&i.mul(&j)?)?, lstm.cell_clip)?;
    if let Some([_, _, w_o]) = peepholes {
        o = o.add(&c.mul(w_o)?)?;
    }
    let o = o.sigmoid()?;
    let mut h = o.mul(&c.activate(lstm.gates.activation)?)?;
    if lstm.projection {
        h = clip(h.matmul(&ops.parameters[1])?, lstm.proj_clip)?;
    }
    let gates = Tensor::concat(&[&i, &j, &f, &o], 1)?;
    Ok((smallvec![c.clone(), h], smallvec![gates, c]))
}

/// The input projection of all steps as one matmul, then step by step.
pub(crate) fn sequence<B: Backend>(
    device: &B,
    plan: &SequencePlan,
    ins: &[Tensor<B>],
) -> Result<Results<B>> {
    let ops = Operands::new(plan, ins)?;
    let z = ops.x.matmul(ops.kernel)?.add(ops.bias)?;
    let steps = ops.steps();
    let mut state: Vec<Tensor<B>> = ops.initial.to_vec();
    let zero = Tensor::zeros(device, ops.h0().meta())?;
    let mut outputs = Stacker::new(steps);
    let widths = plan.recurrence.saved_widths();
    let mut saved: Vec<_> = widths.iter().map(|_| Stacker::new(steps)).collect();
    for t in 0..steps {
        let (new, values) = step(plan, &ops, &z.select(0, t)?, &state)?;
        for (stack, value) in saved.iter_mut().zip(values) {
            stack.push(value)?;
        }
        let last = new.len() - 1;
        outputs.push(ops.masked(t, new[last].clone(), &zero)?)?;
        state = new
            .into_iter()
            .zip(&state)
            .map(|(new, old)| ops.masked(t, new, old))
            .collect::<Result<_>>()?;
    }
    let mut results: Results<B> = smallvec![outputs.finish(&zero)?];
    results.extend(state);
    for (stack, width) in saved.into_iter().zip(widths).take(plan.saved()) {
        results.push(stack.finish(&wide(device, &ops, *width)?)?);
    }
    Ok(results)
}

/// Zeros like one step of a saved value `width` units wide: for sequences without steps.
fn wide<B: Backend>(device: &B, ops: &Operands<'_, B>, width: usize) -> Result<Tensor<B>> {
    let c0 = &ops.initial[0];
    let shape = Shape::new(&[c0.shape()[0], width * ops.units()])?;
    Tensor::zeros(device, Meta::new(shape, c0.dtype()))
}

/// The tensors of a state, or their gradients.
type Passed<B> = SmallVec<[Tensor<B>; 2]>;

/// The gradients of one step: of the projected input, and of the previous state. With a projection,
/// also the gradient before the projection's clipping.
struct StepGrad<B: Backend> {
    dz: Tensor<B>,
    before: Passed<B>,
    projected: Option<Tensor<B>>,
}

/// The operands of the gradient operation that follow those of the sequence.
struct SavedForward<'a, B: Backend> {
    outputs: &'a Tensor<B>,
    saved: &'a [Tensor<B>],
    doutputs: &'a Tensor<B>,
    dfinal: &'a [Tensor<B>],
    /// The recurrent parameters; matrices are transposed.
    transposed: Vec<Tensor<B>>,
}

/// `dh` includes the gradient of the step's output.
fn step_grad<B: Backend>(
    plan: &SequencePlan,
    ops: &Operands<'_, B>,
    saved_forward: &SavedForward<'_, B>,
    t: usize,
    dstate: &[Tensor<B>],
    dh: &Tensor<B>,
) -> Result<StepGrad<B>> {
    let device = dh.device();
    let previous = |first: &Tensor<B>, rest: &Tensor<B>| match t {
        0 => Ok(first.clone()),
        _ => rest.select(0, t - 1),
    };
    let mut projected = None;
    let (dz, before): (_, Passed<B>) = match plan.recurrence {
        Recurrence::Basic { activation } => {
            let dz = activation_grad(activation, &saved_forward.outputs.select(0, t)?, dh)?;
            let dh = dz.matmul(&saved_forward.transposed[0])?;
            (dz, smallvec![dh])
        }
        Recurrence::Lstm(g) => {
            let c = previous(&ops.initial[0], &saved_forward.saved[1])?;
            let (gates, c_new) = (
                saved_forward.saved[0].select(0, t)?,
                saved_forward.saved[1].select(0, t)?,
            );
            let op = Op::Fused(Fused::LstmStepGrad(g));
            let outs = Tensor::call_all(device, &op, &[&gates, &c, &c_new, &dstate[0], dh])?;
            let dh = outs[0].matmul(&saved_forward.transposed[0])?;
            (outs[0].clone(), smallvec![outs[1].clone(), dh])
        }
        Recurrence::ExtendedLstm(lstm) => {
            let mut dm = dh.clone();
            if lstm.projection {
                let through = unclipped(dm, &saved_forward.outputs.select(0, t)?, lstm.proj_clip)?;
                dm = through.matmul(&saved_forward.transposed[1])?;
                projected = Some(through);
            }
            let c = previous(&ops.initial[0], &saved_forward.saved[1])?;
            let (dz, dc) = extended_lstm_grad(&lstm, ops, saved_forward, t, [&c, &dstate[0], &dm])?;
            let dh = dz.matmul(&saved_forward.transposed[0])?;
            (dz, smallvec![dc, dh])
        }
        Recurrence::Gru { activation } => {
            let h = previous(ops.h0(), saved_forward.outputs)?;
            let parts = saved_forward.saved[0].select(0, t)?.split_last(3)?;
            let [r, u, q] = [&parts[0], &parts[1], &parts[2]];
            let op = Op::Fused(Fused::GruOutputGrad { activation });
            let outs = Tensor::call_all(device, &op, &[q, u, &h, dh])?;
            let [dzq, du, dh_direct] = [&outs[0], &outs[1], &outs[2]];
            let drh = dzq.matmul(&saved_forward.transposed[1])?;
            let op = Op::Fused(Fused::GruGatesGrad);
            let outs_g = Tensor::call_all(device, &op, &[r, u, &h, du, &drh])?;
            let dh = outs_g[0]
                .matmul_add(&saved_forward.transposed[0], &outs_g[1])?
                .add(dh_direct)?;
            (Tensor::concat(&[&outs_g[0], dzq], 1)?, smallvec![dh])
        }
        Recurrence::GruResetAfter { activation } => {
            let h = previous(ops.h0(), saved_forward.outputs)?;
            let parts = saved_forward.saved[0].select(0, t)?.split_last(4)?;
            let [r, u, q, m] = [&parts[0], &parts[1], &parts[2], &parts[3]];
            let op = Op::Fused(Fused::GruOutputGrad { activation });
            let outs = Tensor::call_all(device, &op, &[q, u, &h, dh])?;
            let [dzq, du, dh_direct] = [&outs[0], &outs[1], &outs[2]];
            // The reset gate multiplies `m`, so the gradient of `r m` is that of the candidate's
            // sum.
            let op = Op::Fused(Fused::GruGatesGrad);
            let outs_g = Tensor::call_all(device, &op, &[r, u, m, du, dzq])?;
            let dh = outs_g[0]
                .matmul_add(&saved_forward.transposed[0], dh_direct)?
                .add(&outs_g[1].matmul(&saved_forward.transposed[1])?)?;
            (Tensor::concat(&[&outs_g[0], dzq], 1)?, smallvec![dh])
        }
    };
    Ok(StepGrad {
        dz,
        before,
        projected,
    })
}

/// `dz` and the gradient of the old cell state, from those of the new cell state and of `h` before
/// the projection.
fn extended_lstm_grad<B: Backend>(
    lstm: &ExtendedLstm,
    ops: &Operands<'_, B>,
    saved_forward: &SavedForward<'_, B>,
    t: usize,
    [c, dc, dh]: [&Tensor<B>; 3],
) -> Result<(Tensor<B>, Tensor<B>)> {
    let parts = saved_forward.saved[0].select(0, t)?.split_last(4)?;
    let [i, j, f, o] = [&parts[0], &parts[1], &parts[2], &parts[3]];
    let c_new = saved_forward.saved[1].select(0, t)?;
    let activation = lstm.gates.activation;
    let sigmoid = |y: &Tensor<B>, dy: &Tensor<B>| activation_grad(Activation::Sigmoid, y, dy);
    let a = c_new.activate(activation)?;
    let d_o = sigmoid(o, &dh.mul(&a)?)?;
    let mut dc = dc.add(&activation_grad(activation, &a, &dh.mul(o)?)?)?;
    let peepholes = ops.peepholes(lstm);
    if let Some([_, _, w_o]) = peepholes {
        dc = dc.add(&d_o.mul(w_o)?)?;
    }
    let dc = unclipped(dc, &c_new, lstm.cell_clip)?;
    let di = sigmoid(i, &dc.mul(j)?)?;
    let dj = activation_grad(activation, j, &dc.mul(i)?)?;
    let df = sigmoid(f, &dc.mul(c)?)?;
    let mut before = dc.mul(f)?;
    if let Some([w_f, w_i, _]) = peepholes {
        before = before.add(&di.mul(w_i)?)?.add(&df.mul(w_f)?)?;
    }
    Ok((Tensor::concat(&[&di, &dj, &df, &d_o], 1)?, before))
}

pub(crate) fn sequence_grad<B: Backend>(
    device: &B,
    plan: &SequencePlan,
    ins: &[Tensor<B>],
) -> Result<Results<B>> {
    let ops = Operands::new(plan, ins)?;
    let widths = plan.recurrence.saved_widths();
    let (outputs, rest) = (&ops.rest[0], &ops.rest[1..]);
    let (saved, rest) = rest.split_at(widths.len());
    let transposed = ops.parameters.iter().map(|k| match k.shape().rank() {
        2 => k.transpose(0, 1),
        _ => Ok(k.clone()),
    });
    let saved_forward = SavedForward {
        outputs,
        saved,
        doutputs: &rest[0],
        dfinal: &rest[1..],
        transposed: transposed.collect::<Result<_>>()?,
    };
    let mut dstate: Vec<Tensor<B>> = saved_forward.dfinal.to_vec();
    let mut dz_newest_first = Vec::with_capacity(ops.steps());
    let mut projected_newest_first = Vec::new();
    for t in (0..ops.steps()).rev() {
        let last = dstate.len() - 1;
        // A row past its length passes its state through unchanged, and its output is constant.
        let dh = dstate[last].add(&saved_forward.doutputs.select(0, t)?)?;
        let grad = step_grad(plan, &ops, &saved_forward, t, &dstate, &dh)?;
        let masked = |x: Tensor<B>| match ops.lengths {
            Some(_) => {
                let zero = Tensor::zeros(device, x.meta())?;
                ops.masked(t, x, &zero)
            }
            None => Ok(x),
        };
        dz_newest_first.push(masked(grad.dz)?);
        if let Some(x) = grad.projected {
            projected_newest_first.push(masked(x)?);
        }
        dstate = grad
            .before
            .into_iter()
            .zip(&dstate)
            .map(|(new, old)| ops.masked(t, new, old))
            .collect::<Result<_>>()?;
    }
    let dz = stack(
        dz_newest_first,
        &wide(device, &ops, plan.recurrence.gates())?,
    )?;
    let mut results = Results::new();
    if plan.input_grad {
        results.push(dz.matmul(&ops.kernel.transpose(0, 1)?)?);
    }
    results.push(kernel_grad(&ops.x, &dz)?);
    results.push(sum_rows(&dz)?);
    let projected = stack(projected_newest_first, ops.h0())?;
    parameter_grads(plan, &ops, &saved_forward, &dz, &projected, &mut results)?;
    results.extend(dstate);
    Ok(results)
}

/// The gradients of the recurrent parameters, from `dz` of all steps. `projected` is the gradient
/// of the projection's output for all steps.
fn parameter_grads<B: Backend>(
    plan: &SequencePlan,
    ops: &Operands<'_, B>,
    saved_forward: &SavedForward<'_, B>,
    dz: &Tensor<B>,
    projected: &Tensor<B>,
    results: &mut Results<B>,
) -> Result<()> {
    let n = ops.units();
    let h = before(ops.h0(), saved_forward.outputs)?;
    let part = |x: &Tensor<B>, i: usize| x.slice(2, i * n..(i + 1) * n);
    match plan.recurrence {
        Recurrence::Basic { .. } | Recurrence::Lstm(_) => results.push(kernel_grad(&h, dz)?),
        Recurrence::ExtendedLstm(lstm) => {
            results.push(kernel_grad(&h, dz)?);
            let (gates, cells) = (&saved_forward.saved[0], &saved_forward.saved[1]);
            if lstm.projection {
                let m = part(gates, 3)?.mul(&cells.activate(lstm.gates.activation)?)?;
                results.push(kernel_grad(&m, projected)?);
            }
            if lstm.peepholes {
                let c = before(&ops.initial[0], cells)?;
                for (gate, seen) in [(2, &c), (0, &c), (3, cells)] {
                    results.push(sum_rows(&part(dz, gate)?.mul(seen)?)?);
                }
            }
        }
        Recurrence::Gru { .. } => {
            let reset = part(&saved_forward.saved[0], 0)?.mul(&h)?;
            results.push(kernel_grad(&h, &dz.slice(2, 0..2 * n)?)?);
            results.push(kernel_grad(&reset, &part(dz, 2)?)?);
        }
        Recurrence::GruResetAfter { .. } => {
            let dm = part(&saved_forward.saved[0], 0)?.mul(&part(dz, 2)?)?;
            results.push(kernel_grad(&h, &dz.slice(2, 0..2 * n)?)?);
            results.push(kernel_grad(&h, &dm)?);
            results.push(sum_rows(&dm)?);
        }
    }
    Ok(())
}

fn stack<B: Backend>(newest_first: Vec<Tensor<B>>, like: &Tensor<B>) -> Result<Tensor<B>> {
    let mut stacker = Stacker::new(newest_first.len());
    for part in newest_first.into_iter().rev() {
        stacker.push(part)?;
    }
    stacker.finish(like)
}

/// `[T, B, n]`: the state at the start of each step.
///
/// Past a row's length this is 0 instead of the row's final state. This has no effect, because `dz`
/// is 0 there.
fn before<B: Backend>(first: &Tensor<B>, all: &Tensor<B>) -> Result<Tensor<B>> {
    let steps = all.shape()[0];
    if steps == 0 {
        return Ok(all.clone());
    }
    Tensor::concat(&[&first.unsqueeze(0)?, &all.slice(0, 0..steps - 1)?], 0)
}

/// `[T, B, n] -> [T B, n]`
fn rows<B: Backend>(x: &Tensor<B>) -> Result<Tensor<B>> {
    let shape = x.shape();
    x.reshape(&[shape[0] * shape[1], shape[2]])
}

/// The gradient of a kernel as one matmul over all steps: `Σ_t x_tᵀ dz_t`.
fn kernel_grad<B: Backend>(x: &Tensor<B>, dz: &Tensor<B>) -> Result<Tensor<B>> {
    rows(x)?.transpose(0, 1)?.matmul(&rows(dz)?)
}

/// Sums over all rows of all steps.
fn sum_rows<B: Backend>(x: &Tensor<B>) -> Result<Tensor<B>> {
    rows(x)?.sum(0)
}
