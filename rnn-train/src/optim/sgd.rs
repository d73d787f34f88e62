//! Gradient descent.

use backend_api::{Backend, Fused, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerState, Slot};

backend_api::shared_doc! { sgd_doc:
/// Gradient descent, `w -= lr g`; TensorFlow's `GradientDescentOptimizer`.
///
/// ```
/// use recurrent::optim::Optimizer;
/// use recurrent::{Dense, Device, Sgd, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut model = Dense::new(&device, 2, 1)?;
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[1, 2])?;
/// let mut optimizer = Sgd::new(0.1);
/// let (_, grads) = value_and_grad(&model, |model| model.forward(&x)?.square()?.sum_all())?;
/// optimizer.step(&mut model, &grads)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// `step` checks the hyperparameters first. It changes nothing if the learning rate is negative or
/// NaN, or a gradient has another shape or type than its parameter.
}

#[doc = sgd_doc!()]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct Sgd<B: Backend> {
    learning_rate: f64,
    #[serde(default)]
    weight_decay: f64,
    #[serde(skip)]
    state: OptimizerState<B>,
}

impl<B: Backend> Sgd<B> {
    /// Creates the optimizer with a learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            weight_decay: 0.0,
            state: OptimizerState::default(),
        }
    }

    has_weight_decay!();
}

impl<B: Backend> Optimizer<B> for Sgd<B> {
    fn name(&self) -> &'static str {
        "GradientDescent"
    }

    fn slots(&self) -> Vec<Slot> {
        Vec::new()
    }

    keeps_state!();

    fn l2(&self) -> f64 {
        self.weight_decay
    }

    fn row_wise(&self) -> bool {
        true
    }

    runs_one_operation!(|self, _step| Fused::Sgd {
        lr: self.learning_rate
    });
}
