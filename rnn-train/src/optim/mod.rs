//! Optimizers: how a gradient changes a parameter.
//!
//! | optimizer | update of a parameter `w` with gradient `g` |
//! |---|---|
//! | [`Sgd`] | `w -= lr g` |
//! | [`Momentum`] | `a = μ a + g`, `w -= lr a` (Nesterov: `w -= lr (g + μ a)`) |
//! | [`RmsProp`] | `v = ρ v + (1 - ρ) g²`, `m = μ m + lr g / sqrt(v + ε)`, `w -= m` |
//! | [`Adagrad`] | `v += g²`, `w -= lr g / sqrt(v)` |
//! | [`Adam`] | `w -= lr sqrt(1 - β2^t) / (1 - β1^t) m / (sqrt(v) + ε)` |
//!
//! Of an embedding table, of which a loss only looks some rows up, `Adam` changes every row and the others those
//! that were looked up, as in TensorFlow: what they remember of the other rows does not fade.
//!
//! A rule of one's own implements [`Optimizer`]: its numbers, what it remembers of each parameter (its
//! [`Slot`]s) and [`update`](Optimizer::update). Walking over a model, checkpoints and resuming then
//! work as they do for these. A [`Schedule`] gives the learning rate of each step, for
//! [`set_learning_rate`](Optimizer::set_learning_rate) before it. [`LossScale`] is for training in 16-bit floats.

/// The methods of [`Optimizer`] that hand out the fields `learning_rate` and `state`.
macro_rules! keeps_state {
    () => {
        fn learning_rate(&self) -> f64 {
            self.learning_rate
        }

        fn set_learning_rate(&mut self, learning_rate: f64) {
            self.learning_rate = learning_rate;
        }

        fn state(&self) -> &OptimizerState<B> {
            &self.state
        }

        fn state_mut(&mut self) -> &mut OptimizerState<B> {
            &mut self.state
        }
    };
}

mod adagrad;
mod adam;
mod loss_scale;
mod momentum;
mod rms_prop;
mod schedule;
mod sgd;
mod state;

use std::fmt;

use backend_api::{Backend, Error, Meta, Result, Tensor};
use rnn_core::{Module, Param};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use loss_scale::LossScale;
pub use momentum::Momentum;
pub use rms_prop::RmsProp;
pub use schedule::Schedule;
pub use sgd::Sgd;
pub use state::{OptimizerState, Slot};

use crate::{Gradient, Gradients, IndexedSlices};

/// A rule for changing parameters by their gradients, and what it remembers of them.
///
/// What serde sees of an optimizer is its configuration (learning rate and the like), which
/// a checkpoint keeps beside the state; so the state must be skipped:
///
/// ```
/// use backend_api::{Backend, Result, Tensor};
/// use rnn_train::optim::{Optimizer, OptimizerState, Slot};
/// use serde::{Deserialize, Serialize};
///
/// /// Steps of one size, each against the sign of the gradient's running mean.
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(bound = "")]
/// struct SignOfMean<B: Backend> {
///     learning_rate: f64,
///     decay: f64,
///     #[serde(skip)]
///     state: OptimizerState<B>,
/// }
///
/// impl<B: Backend> Optimizer<B> for SignOfMean<B> {
///     fn name(&self) -> &'static str {
///         "SignOfMean"
///     }
///     fn slots(&self) -> Vec<Slot> {
///         vec![Slot { name: "SignOfMean", start: 0.0 }]
///     }
///     fn learning_rate(&self) -> f64 {
///         self.learning_rate
///     }
///     fn set_learning_rate(&mut self, learning_rate: f64) {
///         self.learning_rate = learning_rate;
///     }
///     fn state(&self) -> &OptimizerState<B> {
///         &self.state
///     }
///     fn state_mut(&mut self) -> &mut OptimizerState<B> {
///         &mut self.state
///     }
///     fn update(
///         &self,
///         _step: u64,
///         value: &Tensor<B>,
///         slots: &[Tensor<B>],
///         grad: &Tensor<B>,
///     ) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
///         let mean = slots[0].affine(self.decay, 0.0)?.add(&grad.affine(1.0 - self.decay, 0.0)?)?;
///         let value = value.sub(&mean.sign()?.affine(self.learning_rate, 0.0)?)?;
///         Ok((value, vec![mean]))
///     }
/// }
/// ```
pub trait Optimizer<B: Backend>: Clone + fmt::Debug + Serialize + DeserializeOwned {
    /// TensorFlow's name of the rule. A checkpoint of one rule is not for another.
    fn name(&self) -> &'static str;

    /// What is remembered of each parameter, in the order that [`update`](Self::update) takes and gives it.
    fn slots(&self) -> Vec<Slot>;

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64;

    /// Changes the learning rate, from the next step on.
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// The steps taken, and the slots.
    fn state(&self) -> &OptimizerState<B>;

    /// The same, to change: for [`step`](Self::step) and for checkpoints.
    fn state_mut(&mut self) -> &mut OptimizerState<B>;

    /// Whether the configuration makes sense; asked before anything is changed.
    ///
    /// # Errors
    /// It does not. The default asks that the learning rate is finite and not negative.
    fn check(&self) -> Result<()> {
        let rate = self.learning_rate();
        if rate.is_finite() && rate >= 0.0 {
            return Ok(());
        }
        let problem = format!("is {rate}, but must be finite and not negative");
        Err(Error::argument("optimizer", "learning_rate", problem))
    }

    /// Whether of a table only the rows that were looked up change, with their slots. [`update`](Self::update) is then
    /// given just these rows, so it must treat each element by itself; else it is given the whole table, with a
    /// gradient of 0 for the other rows. It is not so by default.
    fn row_wise(&self) -> bool {
        false
    }

    /// The new value and the new slots of a parameter, all of the shape and type of its gradient: the parameter's,
    /// or that of some of its rows ([`row_wise`](Self::row_wise)).
    /// `step` is the number of this step, counted from 1, the same for all parameters.
    ///
    /// # Errors
    /// The device failed.
    fn update(
        &self,
        step: u64,
        value: &Tensor<B>,
        slots: &[Tensor<B>],
        grad: &Tensor<B>,
    ) -> Result<(Tensor<B>, Vec<Tensor<B>>)>;

    /// Changes every parameter of the model that has a gradient, and leaves the others alone. The model may be a
    /// part of the one that the gradients are of. If anything fails, nothing has changed.
    ///
    /// New values are made beside the old ones, so for a moment there are two of each.
    ///
    /// # Errors
    /// The configuration makes no sense, a gradient does not fit its parameter, no parameter has
    /// a gradient, or the device failed.
    fn step<M: Module<B = B>>(&mut self, model: &mut M, grads: &Gradients<B>) -> Result<()> {
        self.check()?;
        let grads = grads.by_id();
        let step = self.state().steps + 1;
        let slots = self.slots();
        let mut next = model.clone();
        let mut updated = Vec::new();
        next.each_param(&mut |name, param| {
            let Some(grad) = grads.get(&param.id()) else {
                return Ok(());
            };
            fits(name, param, grad)?;
            // Else the new value would remember how it was made, step after step.
            let value = param.value().detach();
            let old = self.state().of(param, &slots)?;
            let (value, new) = match grad {
                Gradient::Sparse(rows) if self.row_wise() => {
                    update_rows(self, step, &value, &old, rows)?
                }
                grad => self.update(step, &value, &old, &grad.to_dense()?.detach())?,
            };
            param.set(value)?;
            updated.push((param.id(), new));
            Ok(())
        })?;
        if updated.is_empty() {
            let problem = "there is none for any parameter of the model".to_owned();
            return Err(Error::Gradient(problem));
        }
        *model = next;
        let state = self.state_mut();
        state.steps = step;
        state.slots.extend(updated);
        Ok(())
    }
}

/// The update of the looked-up rows alone. One that was looked up twice has the sum as its gradient, and one step.
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
    let (rows, new) = rule.update(step, &value.gather(ids)?, &old, &grad.values().detach())?;
    let slots = slots.iter().zip(&new);
    let slots = slots.map(|(slot, new)| slot.scatter_update(ids, new));
    Ok((
        value.scatter_update(ids, &rows)?,
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
    if dtype != param.dtype() {
        let expected = format!("the parameter is {}", param.dtype());
        return Err(Error::dtype("optimizer", arg(), dtype, expected));
    }
    Ok(())
}

/// Refuses a number that is not in `range`; NaN is in none.
fn within(arg: &str, value: f64, range: std::ops::Range<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let problem = format!("is {value}, but must be in {}..{}", range.start, range.end);
    Err(Error::argument("optimizer", arg, problem))
}
