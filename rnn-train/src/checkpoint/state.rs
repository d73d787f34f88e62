//! The position of a run.

use std::collections::BTreeMap;

use backend_api::{Backend, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::optim::LossScale;

/// The state of a training run, apart from the model and the optimizer.
///
/// ```
/// use recurrent::checkpoint::{TrainState, resume, save};
/// use recurrent::{Dense, Device, Sgd};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-train-state");
/// # let _ = std::fs::remove_dir_all(&folder);
/// let (mut model, mut sgd) = (Dense::new(&Device::cpu(), 3, 2)?, Sgd::new(0.1));
/// let mut state = TrainState::new(42);
/// state.step = 300; // a training loop of the user's own counts
/// save(&folder, &model, &sgd, &state)?;
/// let resumed = resume(&folder, &mut model, &mut sgd)?.expect("a checkpoint");
/// assert_eq!((resumed.step, resumed.seed), (300, 42));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct TrainState<B: Backend> {
    /// Steps taken.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Steps taken in this epoch.
    pub epoch_steps: u64,
    /// Sum of the losses of these steps.
    pub epoch_loss: f64,
    /// Whether the data of this epoch has ended, and a [`Trainer`](crate::training::Trainer) is
    /// about to report the epoch.
    #[serde(default)]
    pub epoch_ended: bool,
    /// The loss scale, if the run has one.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// Values of the program, by name.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
    /// Seed of the random numbers of every step.
    pub seed: u64,
    /// Position of the data source ([`Source::State`](crate::data::Source::State)).
    pub data: Value,
    /// The leaves of the recurrent state that the next batch starts from; empty if batches are
    /// independent.
    #[serde(skip)]
    pub carry: Vec<Tensor<B>>,
}

impl<B: Backend> TrainState<B> {
    /// The state at the start of a run.
    pub fn new(seed: u64) -> Self {
        Self {
            step: 0,
            epoch: 0,
            epoch_steps: 0,
            epoch_loss: 0.0,
            epoch_ended: false,
            loss_scale: None,
            extra: BTreeMap::new(),
            seed,
            data: Value::Null,
            carry: Vec::new(),
        }
    }
}
