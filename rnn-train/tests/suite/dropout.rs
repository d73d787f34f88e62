//! Dropout: on in training, with other numbers in each step, and off in evaluation, or an error.

use std::sync::LazyLock;

use backend_api::{DType, MemoryPolicy, Result, Tensor};
use rnn_core::cells::LayerNormBasicLstmCell;
use rnn_core::{
    BidirectionalDynamicRnn, Cell, DropoutWrapper, DynamicRnn, GruCell, Mode, Module, RawRnnStep,
    StackBidirectionalDynamicRnn, StaticRnn, StepContext, StreamingRnn, raw_rnn,
};
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{Batches, Remainder};
use rnn_train::optim::Adam;
use rnn_train::training::{EpochReport, Trainer};
use rnn_train::{Gradients, tracked, value_and_grad};
use tempfile::tempdir;

use crate::common::{Device, assert_says, contents, tensor};

type Dropped = DropoutWrapper<GruCell<Device>>;
type T = Tensor<Device>;

const BATCH: usize = 2;
const STEPS: usize = 5;
const DEPTH: usize = 4;

/// One device for all: tensors of different devices do not mix.
fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(crate::common::device);
    &DEVICE
}

fn cell() -> Dropped {
    let mut gru = GruCell::new(device(), DEPTH, DEPTH).unwrap();
    gru.initialize(3).unwrap();
    let wrapper = DropoutWrapper::builder(gru).output_keep_prob(0.5);
    wrapper.build().unwrap()
}

fn inputs() -> T {
    let numbers: Vec<f64> = (0..BATCH * STEPS * DEPTH)
        .map(|i| (i as f64).sin())
        .collect();
    tensor(device(), &numbers, &[BATCH, STEPS, DEPTH])
        .cast(DType::F32)
        .unwrap()
}

fn numbers(t: &T) -> Vec<f32> {
    t.to_vec().unwrap()
}

/// The outputs in the loss of one step.
fn step<C: Cell<Backend = Device>>(cell: &C, run: impl FnOnce(&C) -> Result<T>) -> Vec<f32> {
    let mut outputs = Vec::new();
    let (_, grads) = value_and_grad(cell, |cell| {
        let result = run(cell)?;
        outputs = result.to_vec()?;
        result.square()?.sum_all()
    })
    .unwrap();
    assert!(grads.iter().all(|(_, grad)| grad.is_some()));
    outputs
}

fn run<C>(cell: &C) -> Result<T>
where
    C: Cell<Backend = Device, Input = T, Output = T>,
{
    Ok(DynamicRnn::new(cell).run(&inputs())?.outputs)
}

fn zeros(numbers: &[f32]) -> usize {
    numbers.iter().filter(|&&x| x == 0.0).count()
}

#[test]
fn the_obvious_loop_drops_other_elements_in_each_step() {
    let cell = cell();
    let steps = [step(&cell, run), step(&cell, run), step(&cell, run)];
    for numbers in &steps {
        let count = zeros(numbers);
        assert!((8..=32).contains(&count), "{count} of {}", numbers.len());
    }
    assert!(steps[0] != steps[1] && steps[1] != steps[2] && steps[0] != steps[2]);
    assert_eq!(zeros(&numbers(&run(&cell).unwrap())), 0);

    let builder = LayerNormBasicLstmCell::<Device>::builder(DEPTH, 3).dropout_keep_prob(0.5);
    let normed = builder.build(device()).unwrap();
    assert_ne!(step(&normed, run), step(&normed, run));
    assert_eq!(
        numbers(&run(&normed).unwrap()),
        numbers(&run(&normed).unwrap())
    );
}

#[test]
fn runs_of_one_step_draw_different_numbers() {
    let cell = cell();
    let mut all = Vec::new();
    step(&cell, |cell| {
        let rnn = DynamicRnn::new(cell);
        let (a, b) = (rnn.run(&inputs())?.outputs, run(cell)?);
        all.extend([
            numbers(&a),
            numbers(&b),
            numbers(&rnn.run(&inputs())?.outputs),
        ]);
        a.add(&b)
    });
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
}

#[test]
fn a_mode_that_the_driver_sets_wins() {
    let cell = cell();
    let seeded = |cell: &Dropped| Ok(DynamicRnn::new(cell).training(9).run(&inputs())?.outputs);
    assert_eq!(step(&cell, seeded), step(&cell, seeded));
    assert_eq!(step(&cell, seeded), numbers(&seeded(&cell).unwrap()));
    let evaluated = |cell: &Dropped| {
        let rnn = DynamicRnn::new(cell).mode(Mode::Evaluation);
        Ok(rnn.run(&inputs())?.outputs)
    };
    assert_eq!(step(&cell, evaluated), numbers(&run(&cell).unwrap()));
    // A scope is a choice, too, around the loss and in it.
    let quiet = Mode::Evaluation.scope(|| step(&cell, run));
    assert_eq!(quiet, numbers(&run(&cell).unwrap()));
    let inside = |cell: &Dropped| Mode::Evaluation.scope(|| run(cell));
    assert_eq!(step(&cell, inside), quiet);
    let scope = Mode::Training { seed: 4 };
    let first = scope.scope(|| (step(&cell, run), step(&cell, run)));
    assert_eq!(first, scope.scope(|| (step(&cell, run), step(&cell, run))));
    assert_ne!(first.0, first.1);
}

/// Runs a cell under a driver, with the outputs as one tensor.
type Driver = fn(&Dropped) -> Result<T>;

fn by_list(cell: &Dropped) -> Result<T> {
    let steps = (0..STEPS).map(|t| inputs().select(1, t));
    let steps: Vec<T> = steps.collect::<Result<_>>()?;
    let outputs = StaticRnn::new(cell).run(&steps)?.outputs;
    Tensor::concat(&outputs.iter().collect::<Vec<_>>(), 0)
}

fn both_ways(cell: &Dropped) -> Result<T> {
    let outputs = BidirectionalDynamicRnn::shared(cell)
        .run(&inputs())?
        .outputs;
    outputs.0.add(&outputs.1)
}

fn as_layers(cell: &Dropped) -> Result<T> {
    let other = [self::cell()];
    let layers = [cell.clone()];
    let rnn = StackBidirectionalDynamicRnn::new(&layers, &other);
    Ok(rnn.run(&inputs())?.outputs)
}

fn in_a_loop(cell: &Dropped) -> Result<T> {
    let at = |steps: usize| tensor(device(), &[steps as f64; BATCH], &[BATCH]);
    let done = |steps: usize| at(steps).compare(backend_api::Compare::Ge, at(STEPS));
    let input = inputs().select(1, 0)?;
    let start = RawRnnStep {
        finished: done(0)?,
        input: input.clone(),
        state: cell.zero_state(BATCH)?,
        emit: cell.zero_output(BATCH)?,
        loop_state: (),
    };
    let result = raw_rnn(
        cell,
        StepContext::default(),
        start,
        |steps, output, state, ()| {
            Ok(RawRnnStep {
                finished: done(steps)?,
                input: input.clone(),
                state: state.clone(),
                emit: output.clone(),
                loop_state: (),
            })
        },
    )?;
    Ok(result.emits)
}

fn one_step(cell: &Dropped) -> Result<T> {
    let zero = cell.zero_state(BATCH)?;
    let (output, _) = cell.step(&StepContext::default(), &inputs().select(1, 0)?, &zero)?;
    Ok(output)
}

const DRIVERS: [Driver; 6] = [run, by_list, both_ways, as_layers, in_a_loop, one_step];

#[test]
fn every_driver_drops_in_the_loss_only() {
    let cell = cell();
    for (i, driver) in DRIVERS.into_iter().enumerate() {
        assert_ne!(step(&cell, driver), step(&cell, driver), "driver {i}");
        let evaluate = || numbers(&driver(&cell).unwrap());
        assert_eq!(zeros(&evaluate()), 0, "driver {i}");
        assert_eq!(evaluate(), evaluate(), "driver {i}");
    }
    let mut stream = StreamingRnn::new(&cell, BATCH).unwrap();
    let output = Mode::Training { seed: 1 }.scope(|| stream.step(&inputs().select(1, 0)?));
    assert_eq!(zeros(&numbers(&output.unwrap())), 0);
}

#[test]
fn a_forgotten_mode_is_an_error() {
    let advice = ["mode is not chosen", "value_and_grad", "training(seed)"];
    let cell = tracked(&cell()).unwrap();
    for driver in DRIVERS {
        assert_says(&driver(&cell).unwrap_err(), &advice);
        assert!(Mode::Training { seed: 1 }.scope(|| driver(&cell)).is_ok());
        assert!(Mode::Evaluation.scope(|| driver(&cell)).is_ok());
    }
    let builder = LayerNormBasicLstmCell::<Device>::builder(DEPTH, 3).dropout_keep_prob(0.5);
    let normed = tracked(&builder.build(device()).unwrap()).unwrap();
    assert_says(&run(&normed).unwrap_err(), &advice);
    // A scope is of one thread.
    let elsewhere = value_and_grad(&self::cell(), |cell| {
        std::thread::scope(|s| s.spawn(|| run(cell)).join().unwrap())
    });
    assert_says(&elsewhere.unwrap_err(), &advice);
    // Without dropout there is nothing to choose.
    let plain = tracked(&GruCell::new(device(), DEPTH, 3).unwrap()).unwrap();
    assert!(run(&plain).is_ok());
}

/// A cell whose step runs another cell over a sequence, with the mode of the step or without one.
#[derive(Clone, Debug)]
struct Outer {
    inner: Dropped,
    passes_mode: bool,
}

rnn_core::module!(Outer on Device { inner });

impl Cell for Outer {
    type Input = T;
    type State = T;
    type Output = T;

    fn zero_state(&self, batch: usize) -> Result<T> {
        self.inner.zero_output(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<T> {
        self.inner.zero_output(batch)
    }

    fn step(&self, cx: &StepContext, x: &T, h: &T) -> Result<(T, T)> {
        let rnn = DynamicRnn::new(&self.inner).time_major(true);
        let rnn = match self.passes_mode {
            true => rnn.mode(cx.mode(self)?),
            false => rnn,
        };
        let h = rnn.run(&x.add(h)?.unsqueeze(0)?)?.outputs.select(0, 0)?;
        Ok((h.clone(), h))
    }
}

/// A cell may run again during the backward pass, outside of the scope of the loss.
#[test]
fn a_cell_in_a_cell_needs_a_mode() {
    let outer = |passes_mode| Outer {
        inner: cell(),
        passes_mode,
    };
    let forgotten = value_and_grad(&outer(false), |outer| run(outer)?.sum_all());
    assert_says(&forgotten.unwrap_err(), &["mode is not chosen"]);
    assert!(zeros(&step(&outer(true), run)) > 0);
}

fn dense(grads: &Gradients<Device>) -> Vec<Vec<f32>> {
    let values = |grad: &rnn_train::Gradient<Device>| grad.to_dense().unwrap().to_vec().unwrap();
    grads
        .iter()
        .filter_map(|(_, grad)| grad.map(values))
        .collect()
}

#[test]
fn recomputed_steps_drop_the_same_elements() {
    let cell = cell();
    let grads = |policy| {
        let step = || {
            value_and_grad(&cell, |cell| {
                let rnn = DynamicRnn::new(cell)
                    .memory_policy(policy)
                    .segment_length(2);
                rnn.run(&inputs())?.outputs.square()?.sum_all()
            })
        };
        let (_, grads) = Mode::Training { seed: 5 }.scope(step).unwrap();
        dense(&grads)
    };
    let stored = grads(MemoryPolicy::Store);
    assert_eq!(grads(MemoryPolicy::Recompute), stored);
    assert_eq!(grads(MemoryPolicy::Offload), stored);
}

/// Two epochs; the loss fails at step `stop`.
fn train(trainer: &mut Trainer<Device>, cell: &mut Dropped, stop: u64) -> Result<Vec<EpochReport>> {
    let mut adam = Adam::new(0.01);
    let mut batches = Batches::new(6, 2, Remainder::Drop, 1)?;
    trainer.resume(cell, &mut adam, &mut batches)?;
    let mut reports = Vec::new();
    while trainer.state().epoch < 2 {
        let loss = |cell: &Dropped, _: &Vec<usize>, step: rnn_train::training::TrainStep| match step
            .step
            < stop
        {
            true => run(cell)?.affine(1.0, -0.5)?.square()?.mean_all(),
            false => Err(backend_api::Error::argument("test", "step", "is the last")),
        };
        reports.push(trainer.run_epoch(cell, &mut adam, &mut batches, loss)?);
    }
    Ok(reports)
}

#[test]
fn a_resumed_run_drops_the_same_elements() {
    let trainer = |seed| Trainer::new(seed).show_progress(false);
    let (mut whole, mut other) = (cell(), cell());
    let reports = train(&mut trainer(1), &mut whole, u64::MAX).unwrap();
    train(&mut trainer(2), &mut other, u64::MAX).unwrap();
    assert_ne!(contents(&whole), contents(&other));
    for stop in 2..=6 {
        let folder = tempdir().unwrap();
        let saving = |seed| {
            let checkpoints = Checkpoints::new(folder.path());
            trainer(seed).save_to(checkpoints).save_every(1)
        };
        train(&mut saving(1), &mut cell(), stop).unwrap_err();
        let mut resumed = cell();
        let last = train(&mut saving(77), &mut resumed, u64::MAX).unwrap();
        assert_eq!(contents(&resumed), contents(&whole), "stopped at {stop}");
        assert_eq!(last.last(), reports.last(), "stopped at {stop}");
    }
}
