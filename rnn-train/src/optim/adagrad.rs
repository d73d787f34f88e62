//! Adagrad.

use backend_api::{Backend, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerState, Slot, within};

backend_api::shared_doc! { adagrad_doc:
/// Adagrad (Duchi et al. 2011), `v += g²`, `w -= lr g / sqrt(v)`; TensorFlow's `AdagradOptimizer`.
/// `v` starts at 0.1.
///
/// ```
/// use recurrent::optim::Optimizer;
/// use recurrent::{Adagrad, Dense, Device, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut model = Dense::new(&device, 2, 1)?;
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[1, 2])?;
/// let mut optimizer = Adagrad::new(0.1).initial_accumulator_value(0.5);
/// let (_, grads) = value_and_grad(&model, |model| model.forward(&x)?.square()?.sum_all())?;
/// optimizer.step(&mut model, &grads)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// `step` checks the hyperparameters first. It changes nothing if one of them is out of its range,
/// or a gradient has another shape or type than its parameter.
}

#[doc = adagrad_doc!()]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct Adagrad<B: Backend> {
    learning_rate: f64,
    initial_accumulator_value: f64,
    #[serde(default)]
    weight_decay: f64,
    #[serde(skip)]
    state: OptimizerState<B>,
}

impl<B: Backend> Adagrad<B> {
    /// Creates the optimizer with a learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            initial_accumulator_value: 0.1,
            weight_decay: 0.0,
            state: OptimizerState::default(),
        }
    }

    has_weight_decay!();

    /// Initial value of `v`; above 0.
    #[must_use]
    pub fn initial_accumulator_value(mut self, value: f64) -> Self {
        self.initial_accumulator_value = value;
        self
    }
}

impl<B: Backend> Optimizer<B> for Adagrad<B> {
    fn name(&self) -> &'static str {
        "Adagrad"
    }

    fn slots(&self) -> Vec<Slot> {
        vec![Slot {
            name: "Adagrad",
            start: self.initial_accumulator_value,
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
        let range = f64::MIN_POSITIVE..f64::INFINITY;
        within(
            "initial_accumulator_value",
            self.initial_accumulator_value,
            range,
        )
    }

    fn update(
        &self,
        _step: u64,
        value: &Tensor<B>,
        slots: &[Tensor<B>],
        grad: &Tensor<B>,
    ) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
        let squares = slots[0].add(&grad.square()?)?;
        let step = grad
            .affine(self.learning_rate, 0.0)?
            .div(&squares.sqrt()?)?;
        Ok((value.sub(&step)?, vec![squares]))
    }
}
