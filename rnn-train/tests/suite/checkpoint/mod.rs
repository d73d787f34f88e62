//! Checkpoints.

mod loading;
mod saving;
use std::fs;
use std::path::Path;

use backend_api::DType;
use rnn_train::checkpoint::TrainState;
use rnn_train::optim::{Adam, Optimizer};
use rnn_train::value_and_grad;

use crate::common::{Classifier, Device, device};

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
