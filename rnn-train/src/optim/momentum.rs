//! Gradient descent with momentum.

use backend_api::{Backend, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerState, Slot, within};

backend_api::shared_doc! { momentum_doc:
/// Gradient descent with momentum (Polyak 1964), `a = μ a + g`, `w -= lr a`; TensorFlow's
/// `MomentumOptimizer`. With [`nesterov`](crate::optim::Momentum::nesterov), `w -= lr (g + μ a)`.
///
/// ```
/// use recurrent::optim::Optimizer;
/// use recurrent::{Dense, Device, Momentum, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut model = Dense::new(&device, 2, 1)?;
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[1, 2])?;
/// let mut optimizer = Momentum::new(0.1, 0.9).nesterov(true);
/// let (_, grads) = value_and_grad(&model, |model| model.forward(&x)?.square()?.sum_all())?;
/// optimizer.step(&mut model, &grads)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// `step` checks the hyperparameters first. It changes nothing if the learning rate is negative or
/// NaN, `μ` is outside of `0..1`, or a gradient has another shape or type than its parameter.
}

#[doc = momentum_doc!()]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct Momentum<B: Backend> {
    learning_rate: f64,
    momentum: f64,
    nesterov: bool,
    #[serde(default)]
    weight_decay: f64,
    #[serde(skip)]
    state: OptimizerState<B>,
}

impl<B: Backend> Momentum<B> {
    /// Creates the optimizer with a learning rate and `μ` in `0..1`.
    pub fn new(learning_rate: f64, momentum: f64) -> Self {
        Self {
            learning_rate,
            momentum,
            nesterov: false,
            weight_decay: 0.0,
            state: OptimizerState::default(),
        }
    }

    has_weight_decay!();

    /// Whether to use Nesterov momentum (Nesterov 1983, in the form of Sutskever et al. 2013).
    #[must_use]
    pub fn nesterov(mut self, nesterov: bool) -> Self {
        self.nesterov = nesterov;
        self
    }
}

impl<B: Backend> Optimizer<B> for Momentum<B> {
    fn name(&self) -> &'static str {
        "Momentum"
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot {
            name: "Momentum",
            start: 0.0,
        }]
    }

    keeps_state!();

    fn l2(&self) -> f64 {
        self.weight_decay
    }

    fn row_wise(&self) -> bool {
        true
    }

    fn check(&self) -> Result<()> {
        within("learning_rate", self.learning_rate, 0.0..f64::INFINITY)?;
        within("momentum", self.momentum, 0.0..1.0)
    }

    fn update(
        &self,
        _step: u64,
        value: &Tensor<B>,
        slots: &[Tensor<B>],
        grad: &Tensor<B>,
    ) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
        let sum = slots[0].affine(self.momentum, 0.0)?.add(grad)?;
        let direction = if self.nesterov {
            grad.add(&sum.affine(self.momentum, 0.0)?)?
        } else {
            sum.clone()
        };
        let value = value.sub(&direction.affine(self.learning_rate, 0.0)?)?;
        Ok((value, vec![sum]))
    }
}
