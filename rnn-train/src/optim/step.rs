//! A step over the parameters of a model.
//!
//! Everything that can be refused, or needs much memory, comes first and changes nothing. Then the
//! values and slots move out of the model and the state, so that no other handle shares them, are
//! updated in place, and move back.

use std::mem;

use backend_api::{Backend, DType, Error, Fused, Meta, Op, Result, Tensor, TensorUpdate};
use rnn_core::{Module, Param, ParamId};

use super::state::OptimizerState;
use super::{Optimizer, within};
use crate::{Gradient, Gradients, IndexedSlices};

/// Updates every parameter that has a gradient and, by its name, a rule.
pub(super) fn take<'r, B, M, O>(
    state: &mut OptimizerState<B>,
    model: &mut M,
    grads: &Gradients<B>,
    rule_of: &dyn Fn(&str) -> Option<&'r O>,
) -> Result<()>
where
    B: Backend,
    M: Module<Backend = B>,
    O: Optimizer<B> + 'r,
{
    state.check_complete()?;
    let grads = grads.by_id();
    let mut changes: Vec<Change<B>> = Vec::new();
    model.each_param(&mut |name, param| {
        let (Some(grad), Some(rule)) = (grads.get(&param.id()), rule_of(name)) else {
            return Ok(());
        };
        fits(name, param, grad)?;
        if changes.iter().all(|change| change.id != param.id()) {
            changes.push(Change::new(state, rule, param, grad)?);
        }
        Ok(())
    })?;
    if changes.is_empty() {
        let problem = "no parameter that is trained has a gradient".to_owned();
        return Err(Error::Gradient(problem));
    }
    let mut moved = Moved::out_of(model, state, changes)?;
    update_in_place(&mut moved.changes)?;
    moved.complete();
    Ok(())
}

/// The change of a parameter and its slots.
struct Change<B: Backend> {
    id: ParamId,
    value: Tensor<B>,
    slots: Vec<Tensor<B>>,
    how: How<B>,
}

enum How<B: Backend> {
    /// The value and the slots are the new ones.
    Done,
    /// An operation replaces them, given the gradient.
    Operation(Fused, Tensor<B>),
    /// Rows of a table, and of its slots, have new values.
    Rows {
        ids: Tensor<B>,
        value: Tensor<B>,
        slots: Vec<Tensor<B>>,
    },
}

impl<B: Backend> Change<B> {
    fn new<O: Optimizer<B>>(
        state: &OptimizerState<B>,
        rule: &O,
        param: &Param<B>,
        grad: &Gradient<B>,
    ) -> Result<Self> {
        let (step, l2) = (state.steps() + 1, rule.l2());
        within("weight_decay", l2, 0.0..f64::INFINITY)?;
        let slots = state.of(param, &rule.slots())?;
        // Otherwise the graph of the new value would contain those of all earlier steps.
        let value = param.value().detach();
        // A running mean of 16-bit floats would stand still, and squares would overflow.
        let wide = |t: &Tensor<B>| t.detach().cast(t.dtype().computed_in());
        let grad = grad.map_values(wide)?;
        let change = |value, slots, how| {
            let id = param.id();
            Ok(Self {
                id,
                value,
                slots,
                how,
            })
        };
        if let Gradient::Sparse(rows) = &grad
            && rule.row_wise()
            && l2 == 0.0
        {
            let how = new_rows(rule, step, &value, &slots, rows)?;
            return change(value, slots, how);
        }
        let mut grad = grad.to_dense()?;
        if l2 != 0.0 {
            grad = grad.add(&wide(&value)?.affine(l2, 0.0)?)?;
        }
        match rule.operation(step) {
            Some(op) if value.dtype() == grad.dtype() => {
                change(value, slots, How::Operation(op, grad))
            }
            _ => {
                let (new, slots) = rule.update(step, &wide(&value)?, &slots, &grad)?;
                change(new.cast(value.dtype())?, slots, How::Done)
            }
        }
    }
}

/// New values of the looked-up rows only. The gradients of a row that was looked up several times
/// are summed, and the row takes one step.
fn new_rows<B: Backend, O: Optimizer<B>>(
    rule: &O,
    step: u64,
    value: &Tensor<B>,
    slots: &[Tensor<B>],
    grad: &IndexedSlices<B>,
) -> Result<How<B>> {
    let grad = grad.summed()?;
    let ids = grad.indices().clone();
    let old: Vec<_> = slots
        .iter()
        .map(|s| s.gather(&ids))
        .collect::<Result<_>>()?;
    let rows = value.gather(&ids)?.cast(grad.values().dtype())?;
    let (rows, slots) = rule.update(step, &rows, &old, grad.values())?;
    let value = rows.cast(value.dtype())?;
    Ok(How::Rows { ids, value, slots })
}

/// Applies the changes that are not done. All with one operation and one type are one update.
fn update_in_place<'c, B: Backend>(changes: &'c mut [Change<B>]) -> Result<()> {
    let mut updates: Vec<(Op, DType, Vec<TensorUpdate<'c, B>>)> = Vec::new();
    let mut add = |op, update: TensorUpdate<'c, B>| {
        let dtype = update.state[0].dtype();
        match updates.iter_mut().find(|(o, d, _)| (o, *d) == (&op, dtype)) {
            Some((_, _, updates)) => updates.push(update),
            None => updates.push((op, dtype, vec![update])),
        }
    };
    for Change {
        value, slots, how, ..
    } in changes
    {
        match how {
            How::Done => {}
            How::Operation(op, grad) => {
                let state = [value].into_iter().chain(slots).collect();
                let others = [&*grad].into_iter().collect();
                add(Op::Fused(op.clone()), TensorUpdate { state, others });
            }
            How::Rows {
                ids,
                value: rows,
                slots: slot_rows,
            } => {
                let tables = [value].into_iter().chain(slots);
                let rows = [&*rows].into_iter().chain(&*slot_rows);
                for (table, rows) in tables.zip(rows) {
                    let state = [table].into_iter().collect();
                    let others = [&*ids, rows].into_iter().collect();
                    add(
                        Op::Fused(Fused::ScatterUpdate),
                        TensorUpdate { state, others },
                    );
                }
            }
        }
    }
    for (op, _, mut updates) in updates {
        let device = updates[0].state[0].device().clone();
        Tensor::update(&device, &op, &mut updates)?;
    }
    Ok(())
}

/// Values and slots that have moved out of a model and a state, to which they return when this is
/// dropped. Until [`complete`](Self::complete) has been called, the state counts as incomplete.
struct Moved<'a, M: Module> {
    model: &'a mut M,
    state: &'a mut OptimizerState<M::Backend>,
    changes: Vec<Change<M::Backend>>,
}

impl<'a, M: Module> Moved<'a, M> {
    fn out_of(
        model: &'a mut M,
        state: &'a mut OptimizerState<M::Backend>,
        changes: Vec<Change<M::Backend>>,
    ) -> Result<Self> {
        let device = changes[0].value.device();
        let nothing = Tensor::zeros(device, &[0])?;
        model.each_param(&mut |_, param| {
            if changes.iter().any(|change| change.id == param.id()) {
                param.swap(&mut nothing.clone());
            }
            Ok(())
        })?;
        for change in &changes {
            state.slots.remove(&change.id);
        }
        state.incomplete = true;
        Ok(Self {
            model,
            state,
            changes,
        })
    }

    fn complete(self) {
        self.state.incomplete = false;
        self.state.steps += 1;
    }
}

impl<M: Module> Drop for Moved<'_, M> {
    fn drop(&mut self) {
        let Self {
            model,
            state,
            changes,
        } = self;
        let returned = model.each_param(&mut |_, param| {
            if let Some(change) = changes.iter().find(|change| change.id == param.id()) {
                param.swap(&mut change.value.clone());
            }
            Ok(())
        });
        debug_assert!(returned.is_ok(), "the closure above never fails");
        for change in mem::take(changes) {
            state.slots.insert(change.id, change.slots);
        }
    }
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
