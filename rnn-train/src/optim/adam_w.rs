//! Adam with decoupled weight decay.

use backend_api::{AdamStep, Backend, Fused, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerState, Slot, within};

backend_api::shared_doc! { adam_w_doc:
/// AdamW: Adam whose weight decay bypasses the running means (Loshchilov & Hutter 2019), as PyTorch
/// computes it:
///
/// `w -= lr λ w`, `m = β1 m + (1 - β1) g`, `v = β2 v + (1 - β2) g²`,
/// `w -= lr / (1 - β1^t) m / (sqrt(v / (1 - β2^t)) + ε)`
///
/// where `t` is the step number, counted from 1. `ε` is inside of the bias correction, as in the
/// paper; that of `Adam` is outside, as in TensorFlow. The decay of `tf.contrib.opt.AdamWOptimizer`
/// is not multiplied by the learning rate: divide it by the rate.
///
/// Often biases do not decay; [`ParamGroups`](crate::optim::ParamGroups) leaves them out.
///
/// ```
/// use recurrent::optim::Optimizer;
/// use recurrent::{AdamW, Dense, Device, Module, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut model = Dense::new(&device, 2, 1)?;
/// let kernel = |model: &Dense| model.named_params()[0].1.to_vec::<f32>();
/// let before = kernel(&model)?;
/// let x = Tensor::zeros(&device, &[1, 2])?; // so that the kernel's gradient is 0
/// let mut optimizer = AdamW::new(0.5).weight_decay(0.5);
/// let (_, grads) = value_and_grad(&model, |model| model.forward(&x)?.square()?.sum_all())?;
/// optimizer.step(&mut model, &grads)?;
/// assert_eq!(kernel(&model)?, [0.75 * before[0], 0.75 * before[1]]); // 1 - 0.5 * 0.5
/// # Ok(()) }
/// ```
///
/// # Errors
/// `step` checks the hyperparameters first. It changes nothing if one of them is out of its range,
/// or a gradient has another shape or type than its parameter.
}

#[doc = adam_w_doc!()]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct AdamW<B: Backend> {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    #[serde(skip)]
    state: OptimizerState<B>,
}

impl<B: Backend> AdamW<B> {
    /// Creates the optimizer with PyTorch's `β1` 0.9, `β2` 0.999, `ε` 1e-8 and `λ` 0.01.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            state: OptimizerState::default(),
        }
    }

    has_moments!();

    /// Weight decay `λ`: each step takes `lr λ w` from each parameter `w` that has a gradient.
    #[must_use]
    pub fn weight_decay(mut self, factor: f64) -> Self {
        self.weight_decay = factor;
        self
    }
}

/// Learning rate 1e-3, as in PyTorch, and the defaults of [`AdamW::new`].
impl<B: Backend> Default for AdamW<B> {
    fn default() -> Self {
        Self::new(1e-3)
    }
}

impl<B: Backend> Optimizer<B> for AdamW<B> {
    fn name(&self) -> &'static str {
        "AdamW"
    }

    fn slots(&self) -> Vec<Slot> {
        // As in TensorFlow: m and v.
        ["AdamW", "AdamW_1"]
            .map(|name| Slot { name, start: 0.0 })
            .to_vec()
    }

    keeps_state!();

    fn check(&self) -> Result<()> {
        within("learning_rate", self.learning_rate, 0.0..f64::INFINITY)?;
        within("beta1", self.beta1, 0.0..1.0)?;
        within("beta2", self.beta2, 0.0..1.0)?;
        within("epsilon", self.epsilon, f64::MIN_POSITIVE..f64::INFINITY)?;
        within("weight_decay", self.weight_decay, 0.0..f64::INFINITY)
    }

    runs_one_operation!(|self, step| Fused::Adam(AdamStep {
        lr: self.learning_rate,
        beta1: self.beta1,
        beta2: self.beta2,
        // The operation adds it outside of the bias correction.
        epsilon: self.epsilon * (1.0 - self.beta2.powf(step as f64)).sqrt(),
        step,
        keep: 1.0 - self.learning_rate * self.weight_decay,
    }));
}
