//! What an optimizer remembers.

use std::collections::HashMap;

use backend_api::{Backend, Result, Tensor};
use rnn_core::{Param, ParamId};

/// One tensor that an optimizer keeps for each parameter, of the parameter's shape and type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// TensorFlow's name: a checkpoint has the slot as `<parameter>/<name>`.
    pub name: &'static str,
    /// Every element before the first step.
    pub start: f64,
}

/// The steps taken, and the slots of the parameters that had a gradient so far.
#[derive(Clone, Debug)]
pub struct OptimizerState<B: Backend> {
    pub(crate) steps: u64,
    /// By identity and not by name, so that a part of a model and the whole share them.
    pub(crate) slots: HashMap<ParamId, Vec<Tensor<B>>>,
}

// Derived, this would ask `B: Default`.
impl<B: Backend> Default for OptimizerState<B> {
    fn default() -> Self {
        Self {
            steps: 0,
            slots: HashMap::new(),
        }
    }
}

impl<B: Backend> OptimizerState<B> {
    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The slots of a parameter; `None` before its first gradient.
    pub fn get(&self, id: ParamId) -> Option<&[Tensor<B>]> {
        self.slots.get(&id).map(Vec::as_slice)
    }

    /// The slots of a parameter, on its device.
    pub(super) fn of(&self, param: &Param<B>, slots: &[Slot]) -> Result<Vec<Tensor<B>>> {
        let device = param.device();
        match self.slots.get(&param.id()) {
            // The model may have moved since.
            Some(kept) => kept.iter().map(|slot| slot.to(device)).collect(),
            None => slots
                .iter()
                .map(|slot| Tensor::full(device, slot.start, param.meta()))
                .collect(),
        }
    }
}
