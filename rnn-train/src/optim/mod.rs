//! Optimizers, which update parameters from gradients.
//!
//! | optimizer | update of a parameter `w` with gradient `g` |
//! |---|---|
//! | [`Sgd`] | `w -= lr g` |
//! | [`Momentum`] | `a = μ a + g`, `w -= lr a` (Nesterov: `w -= lr (g + μ a)`) |
//! | [`RmsProp`] | `v = ρ v + (1 - ρ) g²`, `m = μ m + lr g / sqrt(v + ε)`, `w -= m` |
//! | [`Adagrad`] | `v += g²`, `w -= lr g / sqrt(v)` |
//! | [`Adam`] | `w -= lr sqrt(1 - β2^t) / (1 - β1^t) m / (sqrt(v) + ε)` |
//! | [`AdamW`] | `w -= lr λ w`, then Adam with `ε` inside of the bias correction |
//!
//! All but `AdamW` have `weight_decay`, which adds `λ w` to `g`, as in PyTorch. [`ParamGroups`]
//! gives parts of a model rules of their own, or freezes them.
//!
//! For an embedding table of which the loss looks up only some rows, `Adam` updates every row. The
//! other optimizers update only the rows that were looked up, as in TensorFlow; the slots of the
//! remaining rows do not decay. With a weight decay, every row has a gradient and is updated.
//!
//! Slots of a parameter of 16-bit floats are `f32`, in which every optimizer computes; the new
//! value is rounded once. A change of less than half a unit of the parameter's last place is lost:
//! to keep it, train parameters in `f32` in mixed precision ([`LossScale`] has an example).
//!
//! A custom optimizer implements [`Optimizer`]: its hyperparameters, its state per parameter (its
//! [`Slot`]s) and [`update`](Optimizer::update). The trait then provides the traversal of the
//! model, checkpoints and resuming. A [`Schedule`] computes the learning rate of each step: give it
//! to [`Trainer::schedule`](crate::training::Trainer::schedule), or pass its rate to
//! [`set_learning_rate`](Optimizer::set_learning_rate) before the step. [`LossScale`] is for
//! training in 16-bit floats.

/// Implements the accessors of [`Optimizer`] for the fields `learning_rate` and `state`.
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

/// Implements `update` and `operation` of an [`Optimizer`] that runs one operation.
macro_rules! runs_one_operation {
    (|$self:ident, $step:ident| $operation:expr) => {
        fn update(
            &self,
            step: u64,
            value: &Tensor<B>,
            slots: &[Tensor<B>],
            grad: &Tensor<B>,
        ) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
            let operation = self.operation(step).expect("defined below");
            super::run(operation, value, slots, grad)
        }

        fn operation(&$self, $step: u64) -> Option<Fused> {
            Some($operation)
        }
    };
}

/// Implements the builder's method of the field `weight_decay`.
macro_rules! has_weight_decay {
    () => {
        /// Weight decay `λ` as a term of the loss (L2 regularization): `λ w` is added to the
        /// gradient of each parameter `w` that has one; PyTorch's `weight_decay`. 0 is the default.
        #[must_use]
        pub fn weight_decay(mut self, factor: f64) -> Self {
            self.weight_decay = factor;
            self
        }
    };
}

/// Implements the builder's methods of the fields of optimizers with two means.
macro_rules! has_moments {
    () => {
        /// Decay of the mean of the gradients, in `0..1`.
        #[must_use]
        pub fn beta1(mut self, beta1: f64) -> Self {
            self.beta1 = beta1;
            self
        }

        /// Decay of the mean of the squared gradients, in `0..1`.
        #[must_use]
        pub fn beta2(mut self, beta2: f64) -> Self {
            self.beta2 = beta2;
            self
        }

        /// Added to the denominator to keep the quotient finite; above 0.
        #[must_use]
        pub fn epsilon(mut self, epsilon: f64) -> Self {
            self.epsilon = epsilon;
            self
        }
    };
}

mod adagrad;
mod adam;
mod adam_w;
mod groups;
mod loss_scale;
mod momentum;
mod rms_prop;
mod schedule;
mod sgd;
mod state;
mod step;

use std::{fmt, mem};

use backend_api::{Backend, Error, Fused, Op, Result, Tensor};
use rnn_core::Module;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adam_w::AdamW;
pub use groups::ParamGroups;
pub use loss_scale::LossScale;
pub use momentum::Momentum;
pub use rms_prop::RmsProp;
pub use schedule::Schedule;
pub use sgd::Sgd;
pub use state::{OptimizerState, Slot};

use crate::Gradients;

/// A rule that updates parameters from gradients, with its state for each parameter.
///
/// The serde representation of an optimizer is its configuration, such as the learning rate. A
/// checkpoint stores it separately from the state, so the state must be skipped:
///
/// ```
/// use recurrent::backend::Tensor;
/// use recurrent::optim::{Optimizer, OptimizerState, Slot};
/// use recurrent::{Backend, Result};
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
    /// TensorFlow's name of the optimizer. A checkpoint can only be resumed with the same
    /// optimizer.
    fn name(&self) -> &'static str;

    /// The slots of each parameter, in the order in which [`update`](Self::update) takes and
    /// returns them.
    fn slots(&self) -> Vec<Slot>;

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate, starting with the next step.
    fn set_learning_rate(&mut self, learning_rate: f64);

    /// The number of steps taken, and the slots.
    fn state(&self) -> &OptimizerState<B>;

    /// Mutable access to the state, for [`step`](Self::step) and checkpoints.
    fn state_mut(&mut self) -> &mut OptimizerState<B>;

    /// Validates the configuration; called before anything changes.
    ///
    /// # Errors
    /// The configuration is invalid. The default implementation requires a learning rate that is
    /// finite and not negative.
    fn check(&self) -> Result<()> {
        let rate = self.learning_rate();
        if rate.is_finite() && rate >= 0.0 {
            return Ok(());
        }
        let problem = format!("is {rate}, but must be finite and not negative");
        Err(Error::argument("optimizer", "learning_rate", problem))
    }

    /// Whether a sparse gradient updates only the table rows that were looked up, and their slots.
    /// [`update`](Self::update) then receives only these rows, so it must treat each element
    /// independently. Otherwise it receives the whole table, with a gradient of 0 for the other
    /// rows. The default is `false`.
    fn row_wise(&self) -> bool {
        false
    }

    /// Weight decay as a term of the loss: [`step`](Self::step) adds the parameter times this
    /// factor to its gradient, which makes a sparse gradient dense. The default is 0.
    fn l2(&self) -> f64 {
        0.0
    }

    /// Whether the parameter with this name is updated. A [`Trainer`](crate::training::Trainer)
    /// computes no gradient of the others. The default is `true`.
    fn trains(&self, name: &str) -> bool {
        let _ = name;
        true
    }

    /// Returns the new value and the new slots of a parameter. All have the shape and type of
    /// `grad`: that of the parameter, or of some of its rows (see [`row_wise`](Self::row_wise)).
    /// For a parameter of 16-bit floats they are `f32`; [`step`](Self::step) rounds the new value.
    /// `step` is the number of this step, counted from 1 and equal for all parameters.
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

    /// The operation of [`update`](Self::update), if it is a single one: it takes the value, the
    /// slots and the gradient, and results in the new value and the new slots.
    /// [`step`](Self::step) then runs it in the memory of the old ones, for all parameters at once.
    /// The default is `None`.
    fn operation(&self, step: u64) -> Option<Fused> {
        let _ = step;
        None
    }

    /// Updates every parameter of the model that has a gradient and leaves the others unchanged.
    /// `model` may be a part of the model that was differentiated.
    ///
    /// An [`operation`](Self::operation) updates parameters and slots in place, and looked-up rows
    /// are replaced in place ([`row_wise`](Self::row_wise)). Tensors that share memory with
    /// another, such as the parameters of a cloned model, get memory of their own. Otherwise the
    /// new values are computed before the old ones are freed, so for a moment both exist.
    ///
    /// # Errors
    /// The configuration is invalid, a gradient does not match its parameter, no parameter has a
    /// gradient, or the device failed. On an error nothing has changed, unless the device failed
    /// during the update in place. Some parameters then have changed and others have not; later
    /// steps and checkpoints of this optimizer are refused.
    fn step<M: Module<Backend = B>>(&mut self, model: &mut M, grads: &Gradients<B>) -> Result<()> {
        self.check()?;
        let mut state = mem::replace(self.state_mut(), OptimizerState::in_use());
        let taken = step::take(&mut state, model, grads, &|_| Some(&*self));
        *self.state_mut() = state;
        taken
    }
}

/// Runs the operation of a rule.
fn run<B: Backend>(
    operation: Fused,
    value: &Tensor<B>,
    slots: &[Tensor<B>],
    grad: &Tensor<B>,
) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
    let ins: Vec<_> = [value].into_iter().chain(slots).chain([grad]).collect();
    let mut new = Tensor::call_all(value.device(), &Op::Fused(operation), &ins)?.into_vec();
    Ok((new.remove(0), new))
}

/// Fails if a number is not in `range`. NaN is in no range.
fn within(arg: &str, value: f64, range: std::ops::Range<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let problem = format!("is {value}, but must be in {}..{}", range.start, range.end);
    Err(Error::argument("optimizer", arg, problem))
}
