//! The state of an optimizer.

use std::collections::HashMap;

use backend_api::{Backend, Error, Meta, Result, Tensor};
use rnn_core::{Param, ParamId};

/// One tensor that an optimizer keeps for each parameter. It has the parameter's shape and type, or
/// is `f32` if the parameter is a 16-bit float.
///
/// ```
/// use recurrent::optim::{Optimizer, Slot};
/// use recurrent::{Device, Momentum};
///
/// let momentum = Momentum::new(0.1, 0.9);
/// let slots = Optimizer::<Device>::slots(&momentum);
/// assert_eq!(slots, [Slot { name: "Momentum", start: 0.0 }]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// TensorFlow's name; a checkpoint stores the slot as `<parameter>/<name>`.
    pub name: &'static str,
    /// Initial value of every element.
    pub start: f64,
}

impl Slot {
    /// Shape and type of a parameter's slots.
    pub(crate) fn meta<B: Backend>(param: &Tensor<B>) -> Meta {
        Meta::new(param.shape(), param.dtype().computed_in())
    }
}

/// Slots of some parameters. Keyed by id, not by name, so that a model and a part of it share them.
pub(crate) type Slots<B> = HashMap<ParamId, Vec<Tensor<B>>>;

/// The number of steps taken, and the slots of the parameters that have had a gradient.
///
/// ```
/// use recurrent::optim::Optimizer;
/// use recurrent::{Adam, Dense, Device, Module, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let (mut model, mut adam) = (Dense::new(&device, 3, 2)?, Adam::new(0.1));
/// let x = Tensor::ones(&device, &[1, 3])?;
/// let (_, grads) = value_and_grad(&model, |model| model.forward(&x)?.sum_all())?;
/// adam.step(&mut model, &grads)?;
/// assert_eq!(adam.state().steps(), 1);
/// let kernel = model.named_params()[0].1.id();
/// let slots = adam.state().get(kernel).expect("the kernel had a gradient");
/// assert_eq!(slots.len(), adam.slots().len());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct OptimizerState<B: Backend> {
    pub(crate) steps: u64,
    pub(crate) slots: Slots<B>,
    /// Whether a step failed in the middle.
    pub(super) incomplete: bool,
}

// A derived implementation would require `B: Default`.
impl<B: Backend> Default for OptimizerState<B> {
    fn default() -> Self {
        Self::new(0, Slots::new())
    }
}

impl<B: Backend> OptimizerState<B> {
    pub(crate) fn new(steps: u64, slots: Slots<B>) -> Self {
        Self {
            steps,
            slots,
            incomplete: false,
        }
    }

    /// Number of steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The slots of a parameter; `None` before its first gradient.
    pub fn get(&self, id: ParamId) -> Option<&[Tensor<B>]> {
        self.slots.get(&id).map(Vec::as_slice)
    }

    /// The state while a step uses the real one.
    pub(super) fn in_use() -> Self {
        Self {
            incomplete: true,
            ..Self::default()
        }
    }

    /// Fails if a step failed in the middle.
    pub(crate) fn check_complete(&self) -> Result<()> {
        if !self.incomplete {
            return Ok(());
        }
        let problem = "is incomplete, because the device failed in the middle of a step; load the \
                       last checkpoint";
        Err(Error::argument("optimizer", "state", problem))
    }

    /// The slots of a parameter, on the parameter's device.
    pub(super) fn of(&self, param: &Param<B>, slots: &[Slot]) -> Result<Vec<Tensor<B>>> {
        let device = param.device();
        match self.slots.get(&param.id()) {
            // The model may have moved to another device since the last step.
            Some(kept) => kept.iter().map(|slot| slot.to(device)).collect(),
            None => slots
                .iter()
                .map(|slot| Tensor::full(device, slot.start, Slot::meta(param)))
                .collect(),
        }
    }
}
