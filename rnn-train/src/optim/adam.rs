//! Adam.

use backend_api::{AdamStep, Backend, Fused, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerState, Slot, within};

backend_api::shared_doc! { adam_doc:
/// Adam (Kingma & Ba 2015), as TensorFlow's `AdamOptimizer` computes it:
///
/// `m = β1 m + (1 - β1) g`, `v = β2 v + (1 - β2) g²`,
/// `w -= lr sqrt(1 - β2^t) / (1 - β1^t) m / (sqrt(v) + ε)`
///
/// where `t` is the step number, counted from 1. In the paper `ε` is inside the bias correction;
/// here it is outside.
///
/// ```
/// use recurrent::losses::mean_squared_error;
/// use recurrent::optim::Optimizer;
/// use recurrent::{Adam, Dense, Device, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut model = Dense::new(&device, 2, 1)?;
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[1, 2])?;
/// let y = Tensor::from_slice(&device, &[3.0f32], &[1, 1])?;
///
/// let mut adam = Adam::new(0.1).beta2(0.99);
/// let mut losses = Vec::new();
/// for _ in 0..20 {
///     let loss = |model: &Dense| mean_squared_error(&model.forward(&x)?, &y);
///     let (loss, grads) = value_and_grad(&model, loss)?;
///     adam.step(&mut model, &grads.clip_by_global_norm(5.0)?)?;
///     losses.push(loss.item()?);
/// }
/// assert!(losses[19] < losses[0]);
/// # Ok(()) }
/// ```
}

#[doc = adam_doc!()]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct Adam<B: Backend> {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    #[serde(default)]
    weight_decay: f64,
    #[serde(skip)]
    state: OptimizerState<B>,
}

impl<B: Backend> Adam<B> {
    /// Creates the optimizer with `β1` 0.9, `β2` 0.999 and `ε` 1e-8.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            state: OptimizerState::default(),
        }
    }

    has_weight_decay!();

    has_moments!();
}

/// Learning rate 1e-3, as in TensorFlow, and the defaults of [`Adam::new`].
impl<B: Backend> Default for Adam<B> {
    fn default() -> Self {
        Self::new(1e-3)
    }
}

impl<B: Backend> Optimizer<B> for Adam<B> {
    fn name(&self) -> &'static str {
        "Adam"
    }

    fn slots(&self) -> Vec<Slot> {
        // TensorFlow numbers slots that have no name of their own; these are m and v.
        ["Adam", "Adam_1"]
            .map(|name| Slot { name, start: 0.0 })
            .to_vec()
    }

    keeps_state!();

    fn l2(&self) -> f64 {
        self.weight_decay
    }

    fn check(&self) -> Result<()> {
        within("learning_rate", self.learning_rate, 0.0..f64::INFINITY)?;
        within("beta1", self.beta1, 0.0..1.0)?;
        within("beta2", self.beta2, 0.0..1.0)?;
        within("epsilon", self.epsilon, f64::MIN_POSITIVE..f64::INFINITY)
    }

    runs_one_operation!(|self, step| Fused::Adam(AdamStep {
        lr: self.learning_rate,
        beta1: self.beta1,
        beta2: self.beta2,
        epsilon: self.epsilon,
        step,
        keep: 1.0,
    }));
}
