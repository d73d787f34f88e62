//! Optimizer steps: in place, all tensors in one launch.

use backend_api::{Backend, Error, Tensor};
use backend_cuda::Cuda;
use recurrent_tests::devices::simulator;
use rnn_core::{Dense, Module};
use rnn_train::checkpoint::{Checkpoints, TrainState};
use rnn_train::optim::{Adam, Optimizer, Sgd};
use rnn_train::{Autodiff, Gradients, value_and_grad};

use crate::case::cuda;

type Device = Autodiff<Cuda>;
type Model = (Dense<Device>, (Dense<Device>, Dense<Device>));

fn model(device: &Device, width: usize) -> (Model, Gradients<Device>) {
    let layer = || Dense::new(device, width, width).unwrap();
    let model = (layer(), (layer(), layer()));
    let x = Tensor::ones(device, &[1, width]).unwrap();
    let (_, grads) = value_and_grad(&model, |(first, (second, third))| {
        let hidden = second.forward(&first.forward(&x)?)?;
        third.forward(&hidden)?.sum_all()
    })
    .unwrap();
    (model, grads)
}

#[test]
fn a_step_is_one_launch() {
    fn check(mut optimizer: impl Optimizer<Device>) {
        let (_sim, cuda) = cuda();
        let (mut model, grads) = model(&Autodiff::new(cuda.clone()), 5);
        // Makes the slots.
        optimizer.step(&mut model, &grads).unwrap();
        let (before, memory) = (cuda.launches(), cuda.memory());
        optimizer.step(&mut model, &grads).unwrap();
        assert_eq!(cuda.launches() - before, 1);
        assert_eq!(cuda.memory().in_use, memory.in_use);
    }
    check(Sgd::new(0.1));
    check(Adam::new(0.1));
}

#[test]
fn after_a_step_that_failed_in_the_middle_the_optimizer_is_refused() {
    let Some(sim) = simulator() else {
        return;
    };
    let cuda = Cuda::new(0).unwrap();
    let (mut model, grads) = model(&Autodiff::new(cuda.clone()), 700);
    let mut adam = Adam::new(0.1);
    adam.step(&mut model, &grads).unwrap();
    // The clone shares all memory, so that the next step needs a copy of it. There is room for that
    // of one matrix.
    let clone = (model.clone(), adam.clone());
    cuda.release_cached().unwrap();
    sim.set_memory_limit(sim.used_memory() + (3 << 20));
    let failed = adam.step(&mut model, &grads).unwrap_err();
    assert!(matches!(failed, Error::OutOfMemory { .. }), "{failed}");
    sim.set_memory_limit(1 << 32);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let refusals = [
        adam.step(&mut model, &grads),
        checkpoints
            .save(&model, &adam, &TrainState::new(1))
            .map(drop),
    ];
    for refused in refusals {
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("load the last checkpoint"), "{message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // The parameters are there, and the clone is as it was.
    assert_eq!(model.param_count(), 3 * (700 * 700 + 700));
    let (mut model, mut adam) = clone;
    adam.step(&mut model, &grads).unwrap();
}
