//! Where a run is.

use backend_api::{Backend, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a training run is, apart from the model and the optimizer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct TrainState<B: Backend> {
    /// Steps taken.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Steps taken in this epoch.
    pub epoch_steps: u64,
    /// The sum of the losses of these steps.
    pub epoch_loss: f64,
    /// What the random numbers of every step are made from.
    pub seed: u64,
    /// Where the data source is ([`Source::State`](crate::data::Source::State)).
    pub data: Value,
    /// The recurrent state that the next batch starts from, leaf by leaf; nothing if batches do not depend on one
    /// another.
    #[serde(skip)]
    pub carry: Vec<Tensor<B>>,
}

impl<B: Backend> TrainState<B> {
    /// The start of a run.
    pub fn new(seed: u64) -> Self {
        Self {
            step: 0,
            epoch: 0,
            epoch_steps: 0,
            epoch_loss: 0.0,
            seed,
            data: Value::Null,
            carry: Vec::new(),
        }
    }
}
