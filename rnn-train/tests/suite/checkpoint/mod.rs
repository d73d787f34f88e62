//! Checkpoints.

mod loading;
mod saving;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use backend_api::{DType, Error, Tensor};
use rnn_core::{BasicLstmCell, Dense, Module};
use rnn_train::checkpoint::{
    self, Checkpoint, Checkpoints, TrainState, load_params, load_params_under, save_params,
};
use rnn_train::optim::{Adam, LossScale, Optimizer, OptimizerState, Sgd, Slot};
use rnn_train::value_and_grad;
use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::common::{Classifier, DEPTH, Device, assert_says, contents, device, memory, tensor};

pub(super) fn train(model: &mut Classifier, optimizer: &mut impl Optimizer<Device>, steps: usize) {
    for step in 0..steps {
        let (_, grads) = value_and_grad(model, |m| m.loss(&[step, step + 1, step + 5])).unwrap();
        optimizer.step(model, &grads).unwrap();
    }
}

pub(super) fn trained(dtype: DType) -> (Classifier, Adam<Device>) {
    let mut model = Classifier::new(&device(), 5, dtype);
    let mut adam = Adam::new(0.01);
    train(&mut model, &mut adam, 3);
    (model, adam)
}

pub(super) fn at(step: u64) -> TrainState<Device> {
    TrainState {
        step,
        ..TrainState::new(0)
    }
}

pub(super) fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
