//! A loop in steady state makes no system allocations, and its launches are counted.

use backend_api::{Backend, Counting, Counts, MemoryPolicy, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::{
    BasicLstmCell, BasicRnnCell, Cell, Dense, DynamicRnn, GruCell, Module, StepContext, Visitor,
};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::{Adam, Optimizer};
use rnn_train::{Autodiff, value_and_grad};

type Device = Counting<Cpu>;

fn input<B: Backend>(device: &B, dims: &[usize]) -> Result<Tensor<B>> {
    let count = dims.iter().product();
    let data: Vec<f32> = (0..count).map(|i: usize| (i as f32 * 0.37).sin()).collect();
    Tensor::from_slice(device, &data, dims)
}

/// The counts of `count` calls of `call`, after ten calls to warm up.
fn warm(device: &Device, count: usize, mut call: impl FnMut() -> Result<()>) -> Result<Counts> {
    for _ in 0..10 {
        call()?;
    }
    let before = device.counts();
    for _ in 0..count {
        call()?;
    }
    Ok(device.counts().since(&before))
}

fn step_loop<C>(device: &Device, cell: &C) -> Result<Counts>
where
    C: Cell<Backend = Device, Input = Tensor<Device>>,
{
    let x = input(device, &[4, 3])?;
    let mut state = cell.zero_state(4)?;
    warm(device, 100, || {
        state = cell.step(&StepContext::default(), &x, &state)?.1;
        Ok(())
    })
}

#[test]
fn a_step_loop_allocates_nothing() {
    let device = Counting::new(Cpu::new());
    let counts = step_loop(&device, &BasicRnnCell::new(&device, 3, 8).unwrap()).unwrap();
    assert_eq!((counts.launches, counts.system_allocations), (400, 0));
    let counts = step_loop(&device, &BasicLstmCell::new(&device, 3, 8).unwrap()).unwrap();
    assert_eq!((counts.launches, counts.system_allocations), (400, 0));
    let counts = step_loop(&device, &GruCell::new(&device, 3, 8).unwrap()).unwrap();
    assert_eq!((counts.launches, counts.system_allocations), (800, 0));
}

#[test]
fn a_sequence_is_one_launch_for_every_length() {
    let device = Counting::new(Cpu::new());
    let cell = BasicLstmCell::new(&device, 3, 8).unwrap();
    let launches = |steps: usize| {
        let x = input(&device, &[4, steps, 3]).unwrap();
        let run = || DynamicRnn::new(&cell).run(&x).map(|_| ());
        warm(&device, 1, run).unwrap().launches
    };
    assert_eq!(launches(5), launches(50));
}

#[derive(Clone, Debug)]
struct Classifier<B: Backend> {
    cell: BasicRnnCell<B>,
    logits: Dense<B>,
}

impl<B: Backend> Module for Classifier<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.child("cell", &mut self.cell);
        v.child("logits", &mut self.logits);
    }
}

#[test]
fn a_training_loop_allocates_nothing() {
    let counting = Counting::new(Cpu::new());
    let device = Autodiff::new(counting.clone());
    let mut model = Classifier {
        cell: BasicRnnCell::new(&device, 3, 8).unwrap(),
        logits: Dense::new(&device, 8, 5).unwrap(),
    };
    let mut adam = Adam::new(0.01);
    let x = input(&device, &[4, 6, 3]).unwrap();
    let labels = Tensor::from_slice(&device, &[0i32, 4, 2, 2], &[4]).unwrap();
    let counts = warm(&counting, 50, || {
        let (_, grads) = value_and_grad(&model, |m| {
            let rnn = DynamicRnn::new(&m.cell)
                .sequence_length(&[6, 0, 3, 5])
                .run(&x)?;
            softmax_cross_entropy(&m.logits.forward(&rnn.state)?, &labels)
        })?;
        adam.step(&mut model, &grads.clip_by_global_norm(1.0)?)
    })
    .unwrap();
    assert_eq!(counts.system_allocations, 0);
    assert!(counting.memory().pooled > 0);
}

/// With segments, a training step holds the inputs, the outputs, and few values beside them: not
/// the outputs of each segment, nor a gradient for each.
#[test]
fn segments_hold_their_outputs_once() {
    let cpu = Cpu::new();
    let device = Autodiff::new(cpu.clone());
    let cell = BasicLstmCell::new(&device, 16, 16).unwrap();
    let x = input(&device, &[1600, 8, 16]).unwrap();
    let size = x.shape().count() * 4;
    let before = cpu.memory().in_use;
    value_and_grad(&cell, |cell| {
        let rnn = DynamicRnn::new(cell).time_major(true);
        let outputs = rnn.memory_policy(MemoryPolicy::Recompute).run(&x)?.outputs;
        let held = cpu.memory().in_use - before;
        assert!(
            held < size + size / 2,
            "{held} bytes, of {size} for the outputs"
        );
        outputs.mean_all()
    })
    .unwrap();
    // While the outputs are joined, they exist twice.
    let peak = cpu.memory().peak - before;
    assert!(
        peak < 2 * size + size / 2,
        "{peak} bytes, of {size} for the outputs"
    );
}
