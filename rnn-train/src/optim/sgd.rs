//! Gradient descent.

use backend_api::{Backend, Fused, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerState, Slot};

/// Gradient descent, `w -= lr g`; TensorFlow's `GradientDescentOptimizer`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct Sgd<B: Backend> {
    learning_rate: f64,
    #[serde(skip)]
    state: OptimizerState<B>,
}

impl<B: Backend> Sgd<B> {
    /// Creates the optimizer with a learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            state: OptimizerState::default(),
        }
    }
}

impl<B: Backend> Optimizer<B> for Sgd<B> {
    fn name(&self) -> &'static str {
        "GradientDescent"
    }

    fn slots(&self) -> Vec<Slot> {
        Vec::new()
    }

    keeps_state!();

    fn row_wise(&self) -> bool {
        true
    }

    fn update(
        &self,
        _step: u64,
        value: &Tensor<B>,
        _slots: &[Tensor<B>],
        grad: &Tensor<B>,
    ) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
        let lr = self.learning_rate;
        Ok((value.fused(Fused::Sgd { lr }, &[grad])?, Vec::new()))
    }
}
