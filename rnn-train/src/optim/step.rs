//! A step over the parameters of a model.

use backend_api::{Backend, Error, Meta, Result, Tensor};
use rnn_core::{Module, Param};

use super::state::{OptimizerState, Slots};
use super::{Optimizer, within};
use crate::{Gradient, Gradients, IndexedSlices};

/// The model after a step, and the slots that have changed.
pub(super) struct Taken<M: Module> {
    pub(super) model: M,
    pub(super) slots: Slots<M::Backend>,
}

/// Updates every parameter that has a gradient and, by its name, a rule.
pub(super) fn take<'r, B, M, O>(
    state: &OptimizerState<B>,
    model: &M,
    grads: &Gradients<B>,
    rule_of: &dyn Fn(&str) -> Option<&'r O>,
) -> Result<Taken<M>>
where
    B: Backend,
    M: Module<Backend = B>,
    O: Optimizer<B> + 'r,
{
    let grads = grads.by_id();
    let mut next = model.clone();
    let mut slots = Slots::new();
    next.each_param(&mut |name, param| {
        let (Some(grad), Some(rule)) = (grads.get(&param.id()), rule_of(name)) else {
            return Ok(());
        };
        fits(name, param, grad)?;
        let old = state.of(param, &rule.slots())?;
        let (value, new) = update(rule, state.steps() + 1, param, &old, grad)?;
        param.set(value)?;
        slots.insert(param.id(), new);
        Ok(())
    })?;
    if slots.is_empty() {
        let problem = "no parameter that is trained has a gradient".to_owned();
        return Err(Error::Gradient(problem));
    }
    Ok(Taken { model: next, slots })
}

/// The new value and the new slots of a parameter.
fn update<B: Backend, O: Optimizer<B>>(
    rule: &O,
    step: u64,
    param: &Param<B>,
    slots: &[Tensor<B>],
    grad: &Gradient<B>,
) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
    let l2 = rule.l2();
    within("weight_decay", l2, 0.0..f64::INFINITY)?;
    // Otherwise the graph of the new value would contain those of all earlier steps.
    let value = param.value().detach();
    // A running mean of 16-bit floats would stand still, and squares would overflow.
    let wide = |t: &Tensor<B>| t.detach().cast(t.dtype().computed_in());
    let (value, slots) = match grad.map_values(wide)? {
        Gradient::Sparse(rows) if rule.row_wise() && l2 == 0.0 => {
            update_rows(rule, step, &value, slots, &rows)?
        }
        grad => {
            let (value, mut grad) = (wide(&value)?, grad.to_dense()?);
            if l2 != 0.0 {
                grad = grad.add(&value.affine(l2, 0.0)?)?;
            }
            rule.update(step, &value, slots, &grad)?
        }
    };
    Ok((value.cast(param.dtype())?, slots))
}

/// Updates only the looked-up rows. The gradients of a row that was looked up several times are
/// summed, and the row takes one step.
fn update_rows<B: Backend, O: Optimizer<B>>(
    rule: &O,
    step: u64,
    value: &Tensor<B>,
    slots: &[Tensor<B>],
    grad: &IndexedSlices<B>,
) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
    let grad = grad.summed()?;
    let ids = grad.indices();
    let old: Vec<_> = slots.iter().map(|s| s.gather(ids)).collect::<Result<_>>()?;
    let rows = value.gather(ids)?.cast(grad.values().dtype())?;
    let (rows, new) = rule.update(step, &rows, &old, grad.values())?;
    let slots = slots.iter().zip(&new);
    let slots = slots.map(|(slot, new)| slot.scatter_update(ids, new));
    Ok((
        value.scatter_update(ids, &rows.cast(value.dtype())?)?,
        slots.collect::<Result<_>>()?,
    ))
}

fn fits<B: Backend>(name: &str, param: &Param<B>, grad: &Gradient<B>) -> Result<()> {
    let arg = || format!("gradient of `{name}`");
    let Meta { shape, dtype } = grad.meta();
    if shape != param.shape() {
        let expected = format!("the parameter is {}", param.shape());
        return Err(Error::shape("optimizer", arg(), shape, expected));
    }
    // A gradient of 16-bit floats may be `f32`, as `LossScale` makes it.
    if dtype != param.dtype() && dtype != param.dtype().computed_in() {
        let expected = format!("the parameter is {}", param.dtype());
        return Err(Error::dtype("optimizer", arg(), dtype, expected));
    }
    Ok(())
}
