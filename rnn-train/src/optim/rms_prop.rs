//! RMSProp.

use backend_api::{Backend, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerState, Slot, within};

backend_api::shared_doc! { rms_prop_doc:
/// RMSProp (Tieleman & Hinton 2012), as TensorFlow's `RMSPropOptimizer` computes it:
///
/// `v = ρ v + (1 - ρ) g²`, `m = μ m + lr g / sqrt(v + ε)`, `w -= m`
///
/// `ε` is inside the root, and `v` starts at 1. With [`centered`](crate::optim::RmsProp::centered),
/// the square of the mean gradient is subtracted from `v` inside the root.
///
/// ```
/// use recurrent::optim::Optimizer;
/// use recurrent::{Dense, Device, RmsProp, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut model = Dense::new(&device, 2, 1)?;
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[1, 2])?;
/// let mut optimizer = RmsProp::new(0.001).decay(0.9).momentum(0.5);
/// let (_, grads) = value_and_grad(&model, |model| model.forward(&x)?.square()?.sum_all())?;
/// optimizer.step(&mut model, &grads)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// `step` checks the hyperparameters first. It changes nothing if one of them is out of its range,
/// or a gradient has another shape or type than its parameter.
}

#[doc = rms_prop_doc!()]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct RmsProp<B: Backend> {
    learning_rate: f64,
    decay: f64,
    momentum: f64,
    epsilon: f64,
    centered: bool,
    #[serde(default)]
    weight_decay: f64,
    #[serde(skip)]
    state: OptimizerState<B>,
}

impl<B: Backend> RmsProp<B> {
    /// Creates the optimizer with `ρ` 0.9, `μ` 0 and `ε` 1e-10.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            decay: 0.9,
            momentum: 0.0,
            epsilon: 1e-10,
            centered: false,
            weight_decay: 0.0,
            state: OptimizerState::default(),
        }
    }

    has_weight_decay!();

    /// Decay `ρ` of the mean of the squared gradients, in `0..1`.
    #[must_use]
    pub fn decay(mut self, decay: f64) -> Self {
        self.decay = decay;
        self
    }

    /// Momentum `μ`, in `0..1`.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Added under the root to keep the quotient finite; above 0.
    #[must_use]
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Whether to divide by the root of the gradient's variance instead of its mean square.
    #[must_use]
    pub fn centered(mut self, centered: bool) -> Self {
        self.centered = centered;
        self
    }
}

impl<B: Backend> Optimizer<B> for RmsProp<B> {
    fn name(&self) -> &'static str {
        "RMSProp"
    }

    fn slots(&self) -> Vec<Slot> {
        // TensorFlow creates v, then the mean gradient if it is used, then m.
        let slot = |name, start| Slot { name, start };
        let mut slots = vec![slot("RMSProp", 1.0), slot("RMSProp_1", 0.0)];
        if self.centered {
            slots.push(slot("RMSProp_2", 0.0));
        }
        slots
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
        within("decay", self.decay, 0.0..1.0)?;
        within("momentum", self.momentum, 0.0..1.0)?;
        within("epsilon", self.epsilon, f64::MIN_POSITIVE..f64::INFINITY)
    }

    fn update(
        &self,
        _step: u64,
        value: &Tensor<B>,
        slots: &[Tensor<B>],
        grad: &Tensor<B>,
    ) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
        let mean = |old: &Tensor<B>, new: &Tensor<B>| {
            old.affine(self.decay, 0.0)?
                .add(&new.affine(1.0 - self.decay, 0.0)?)
        };
        let squares = mean(&slots[0], &grad.square()?)?;
        let mut new = vec![squares.clone()];
        let mut spread = squares;
        if self.centered {
            let grads = mean(&slots[1], grad)?;
            // Rounding can make the variance of a steady gradient negative.
            let variance = spread.sub(&grads.square()?)?;
            spread = variance.clamp(0.0, f64::INFINITY)?;
            new.push(grads);
        }
        let root = spread.affine(1.0, self.epsilon)?.sqrt()?;
        let step = grad.affine(self.learning_rate, 0.0)?.div(&root)?;
        let step = slots[slots.len() - 1]
            .affine(self.momentum, 0.0)?
            .add(&step)?;
        let value = value.sub(&step)?;
        new.push(step);
        Ok((value, new))
    }
}
