//! Loss scaling, which keeps the gradients of 16-bit floats in range.

use backend_api::{Backend, Error, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::Gradients;

/// Dynamic loss scaling for training in `f16` (Micikevicius et al. 2018, "Mixed precision
/// training").
///
/// The loss is multiplied by a factor, so that small gradients do not underflow to 0 during
/// back-propagation. The gradients are divided by the factor. If a gradient is not finite, the step
/// is skipped and the factor is halved. After many good steps in a row the factor is doubled.
///
/// In mixed precision the parameters stay in `f32`, and the loss uses a 16-bit copy of them. The
/// cast returns the gradients in `f32`, so the optimizer, clipping and checkpoints work as usual.
/// [`Trainer::loss_scale`](crate::training::Trainer::loss_scale) applies it to each step.
///
/// `bf16` has the range of `f32` and needs no loss scale; there, `to_dtype` is enough.
///
/// ```
/// use recurrent::losses::softmax_cross_entropy;
/// use recurrent::optim::{LossScale, Optimizer};
/// use recurrent::{
///     Adam, DType, Dense, Device, DynamicRnn, LstmCell, Module, Tensor, value_and_grad,
/// };
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut model = (LstmCell::new(&device, 3, 8)?, Dense::new(&device, 8, 2)?);
/// let mut adam = Adam::new(0.05);
/// let mut scale = LossScale::new();
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 4 * 3], &[2, 4, 3])?.cast(DType::F16)?;
/// let labels = Tensor::from_slice(&device, &[1, 1], &[2])?;
/// for step in 1..=20 {
///     let (loss, grads) = value_and_grad(&model, |model| {
///         let (cell, dense) = model.to_dtype(DType::F16)?;
///         let logits = dense.forward(&DynamicRnn::new(&cell).run(&x)?.state.h)?;
///         // The loss itself in `f32`.
///         let loss = softmax_cross_entropy(&logits.cast(DType::F32)?, &labels)?;
///         scale.apply(&loss)
///     })?;
///     println!("step {step}: loss {}", loss.item()? / scale.factor());
///     if let Some(grads) = scale.unscale(&grads)? {
///         adam.step(&mut model, &grads.clip_by_global_norm(5.0)?)?;
///     }
/// }
/// assert_eq!(model.1.named_params()[0].1.dtype(), DType::F32);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct LossScale {
    factor: f64,
    growth_interval: u64,
    /// Good steps since the last change of the factor.
    good_steps: u64,
}

/// A [`LossScale`] from JSON before its settings are checked.
#[derive(Deserialize)]
struct Saved {
    factor: f64,
    growth_interval: u64,
    good_steps: u64,
}

impl TryFrom<Saved> for LossScale {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self> {
        let scale = Self {
            good_steps: saved.good_steps,
            ..Self::new()
        };
        scale
            .with_factor(saved.factor)?
            .with_growth_interval(saved.growth_interval)
    }
}

/// Limits of the factor. Far beyond them, neither the loss nor the gradients are finite.
const SMALLEST: f64 = 1.0 / (1u64 << 32) as f64;
const LARGEST: f64 = (1u64 << 32) as f64;

impl LossScale {
    /// Starts with a factor of 32768, and doubles it after 2000 good steps.
    pub fn new() -> Self {
        Self {
            factor: 32768.0,
            growth_interval: 2000,
            good_steps: 0,
        }
    }

    /// Sets the initial factor. A power of 2 is best, because scaling by it is exact.
    ///
    /// # Errors
    /// The factor is not positive or not finite.
    pub fn with_factor(mut self, factor: f64) -> Result<Self> {
        if !(factor > 0.0 && factor.is_finite()) {
            let problem = format!("is {factor}, but must be a positive number");
            return Err(Error::argument("loss_scale", "factor", problem));
        }
        self.factor = factor;
        Ok(self)
    }

    /// Number of good steps in a row after which the factor is doubled.
    ///
    /// # Errors
    /// `steps` is 0.
    pub fn with_growth_interval(mut self, steps: u64) -> Result<Self> {
        if steps == 0 {
            let problem = "must not be 0";
            return Err(Error::argument("loss_scale", "growth_interval", problem));
        }
        self.growth_interval = steps;
        Ok(self)
    }

    /// The factor that the next loss is multiplied by.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Multiplies the loss by the factor. A loss of 16-bit floats becomes `f32`.
    ///
    /// # Errors
    /// The device failed.
    pub fn apply<B: Backend>(&self, loss: &Tensor<B>) -> Result<Tensor<B>> {
        let wide = loss.cast(loss.dtype().computed_in())?;
        wide.affine(self.factor, 0.0)
    }

    /// Divides the gradients by the factor and updates the factor for the next step. Returns `None`
    /// if a gradient is not finite; the caller then skips the step. Gradients of 16-bit floats
    /// become `f32`, which optimizers accept.
    ///
    /// # Errors
    /// There is no gradient at all, or the device failed.
    pub fn unscale<B: Backend>(&mut self, grads: &Gradients<B>) -> Result<Option<Gradients<B>>> {
        // In 16 bits the quotients would underflow, which the factor prevents.
        let grads = grads.wide()?.scale(1.0 / self.factor)?;
        if !grads.global_norm()?.item()?.is_finite() {
            self.change(0.5);
            return Ok(None);
        }
        self.good_steps += 1;
        if self.good_steps >= self.growth_interval {
            self.change(2.0);
        }
        Ok(Some(grads))
    }

    /// Whether the factor cannot fall any more: gradients are not finite for another reason then.
    pub(crate) fn is_smallest(&self) -> bool {
        self.factor <= SMALLEST
    }

    fn change(&mut self, by: f64) {
        self.good_steps = 0;
        self.factor = (self.factor * by).clamp(SMALLEST, LARGEST);
    }
}

impl Default for LossScale {
    fn default() -> Self {
        Self::new()
    }
}
