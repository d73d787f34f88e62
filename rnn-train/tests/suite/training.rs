use std::cell::RefCell;

use backend_api::{DType, Error, Result, Tensor};
use rnn_core::Module;
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{Batches, InOrder, Remainder, Source};
use rnn_train::losses::mean_squared_error;
use rnn_train::optim::{Adam, Optimizer, Schedule, Sgd};
use rnn_train::training::{EpochReport, TrainStep, Trainer};
use rnn_train::value_and_grad;
use tempfile::tempdir;

use crate::common::{Classifier, Device, ITEMS, assert_says, contents, device, memory, tensor};

const EPOCHS: u64 = 3;

fn start() -> (Classifier, Adam<Device>, Batches) {
    (
        Classifier::new(&device(), 5, DType::F32),
        Adam::new(0.01),
        Batches::new(ITEMS, 4, Remainder::Keep, 11).unwrap(),
    )
}

fn trainer() -> Trainer<Device> {
    Trainer::new(1).clip_norm(0.5).show_progress(false)
}

/// A loss that also depends on the seed of the step.
fn loss(model: &Classifier, items: &[usize], step: TrainStep) -> Result<Tensor<Device>> {
    let scale = 1.0 + (step.seed % 1000) as f64 / 5000.0;
    model.loss(items)?.affine(scale, 0.0)
}

#[test]
fn training_learns_and_reports() {
    let (mut model, mut adam, mut batches) = start();
    let mut trainer = trainer();
    let mut reports = Vec::new();
    for _ in 0..60 {
        let loss = |m: &Classifier, b: &Vec<usize>, _| m.loss(b);
        reports.push(
            trainer
                .run_epoch(&mut model, &mut adam, &mut batches, loss)
                .unwrap(),
        );
    }
    assert_eq!((reports[1].epoch, reports[1].steps), (2, 6));
    assert_eq!((trainer.state().epoch, trainer.state().step), (60, 360));
    let (first, last) = (reports[0].mean_loss, reports[59].mean_loss);
    assert!(first < 1.0 && last < 0.6 * first, "{first} {last}");
}

#[test]
fn a_run_resumed_at_any_step_ends_with_the_same_bits() {
    let whole = {
        let (mut model, mut adam, mut batches) = start();
        let mut trainer = trainer();
        let reports = finish(&mut trainer, &mut model, &mut adam, &mut batches, u64::MAX).unwrap();
        (contents(&model), memory(&model, &adam), reports)
    };
    for stop in 1..=EPOCHS * 6 {
        let folder = tempdir().unwrap();
        let again = || {
            trainer()
                .save_to(Checkpoints::new(folder.path()))
                .save_every(1)
        };
        let (mut model, mut adam, mut batches) = start();
        let stopped = finish(&mut again(), &mut model, &mut adam, &mut batches, stop);
        stopped.unwrap_err();

        // Everything except the folder is new.
        let (mut model, ..) = start();
        model.initialize(1000 + stop).unwrap();
        let mut adam = Adam::new(0.7);
        let mut batches = Batches::new(ITEMS, 4, Remainder::Keep, 999).unwrap();
        let mut trainer = Trainer::new(77)
            .clip_norm(0.5)
            .show_progress(false)
            .save_to(Checkpoints::new(folder.path()))
            .save_every(1);
        let resumed = trainer.resume(&mut model, &mut adam, &mut batches).unwrap();
        assert_eq!(resumed, stop > 1);
        if !resumed {
            // The first step was never taken, so this is a new run.
            (model, adam, batches) = start();
            trainer = again();
        }
        assert_eq!(trainer.state().step, stop - 1);
        let reports = finish(&mut trainer, &mut model, &mut adam, &mut batches, u64::MAX).unwrap();
        assert_eq!(contents(&model), whole.0, "stopped at step {stop}");
        assert_eq!(memory(&model, &adam), whole.1);
        let all = &whole.2;
        assert_eq!(reports, all[all.len() - reports.len()..]);
    }
}

/// Trains to the end, or to a step whose loss fails.
fn finish(
    trainer: &mut Trainer<Device>,
    model: &mut Classifier,
    adam: &mut Adam<Device>,
    batches: &mut Batches,
    stop: u64,
) -> Result<Vec<EpochReport>> {
    let mut reports = Vec::new();
    while trainer.state().epoch < EPOCHS {
        reports.push(trainer.run_epoch(model, adam, batches, |m, items, step| {
            if step.step == stop {
                return Err(Error::Gradient("the power failed".into()));
            }
            loss(m, items, step)
        })?);
    }
    Ok(reports)
}

#[test]
fn carried_state_is_saved_and_reset_at_each_epoch() {
    let windows = [0usize, 3, 6, 9, 12];
    let seen = RefCell::new(Vec::new());
    let run = |folder: &std::path::Path, stop: u64| -> Result<_> {
        let (mut model, _, _) = start();
        let mut sgd = Sgd::new(0.1);
        let mut source = InOrder::new(windows.into_iter());
        let mut trainer = trainer().save_to(Checkpoints::new(folder)).save_every(2);
        trainer.resume(&mut model, &mut sgd, &mut source)?;
        let initial = tensor(model.named_params()[0].1.device(), &[0f32], &[1]);
        while trainer.state().epoch < 2 {
            trainer.run_epoch_carrying(
                &mut model,
                &mut sgd,
                &mut source,
                &initial,
                |model, &window, carried, step| {
                    if step.step == stop {
                        return Err(Error::Gradient("the power failed".into()));
                    }
                    seen.borrow_mut().push((step.step, carried.item()?));
                    let loss = model.loss(&[window, window + 1])?;
                    // The carried value and the loss depend on each other, but no gradient flows
                    // between steps.
                    let next = carried.affine(0.5, 0.0)?.add(&loss)?;
                    let loss = mean_squared_error(&loss, &carried.reshape(&[])?)?;
                    Ok((loss, next))
                },
            )?;
        }
        Ok(contents(&model))
    };
    let folder = tempdir().unwrap();
    let whole = run(folder.path(), u64::MAX).unwrap();
    let all = seen.take();
    assert_eq!(all.len(), 10);
    // Steps 1 and 6 start an epoch.
    assert!(
        all.iter()
            .all(|(step, carried)| (*carried == 0.0) == (*step == 1 || *step == 6))
    );
    for stop in 1..=10 {
        let folder = tempdir().unwrap();
        run(folder.path(), stop).unwrap_err();
        seen.take();
        assert_eq!(
            run(folder.path(), u64::MAX).unwrap(),
            whole,
            "stopped at step {stop}"
        );
        let rest = seen.take();
        assert_eq!(rest[..], all[all.len() - rest.len()..]);
    }
}

#[test]
fn a_non_finite_loss_is_an_error_without_a_step() {
    for bad in [f64::NAN, f64::INFINITY] {
        let folder = tempdir().unwrap();
        let (mut model, mut adam, mut batches) = start();
        let mut trainer = trainer()
            .save_to(Checkpoints::new(folder.path()))
            .save_every(1);
        let mut before = None;
        let error = trainer
            .run_epoch(&mut model, &mut adam, &mut batches, |m, items, step| {
                if step.step < 3 {
                    return loss(m, items, step);
                }
                before = Some(contents(m));
                m.loss(items)?.affine(1.0, bad)
            })
            .unwrap_err();
        assert!(
            matches!(error, Error::NonFiniteLoss { step: 3, loss, .. } if !loss.is_finite()),
            "{error}"
        );
        assert_says(&error, &["step 3"]);
        assert_eq!(contents(&model), before.unwrap());
        assert_eq!((adam.state().steps(), trainer.state().step), (2, 2));
        let latest = Checkpoints::new(folder.path()).latest().unwrap().unwrap();
        assert!(latest.path().ends_with("step-00000002.safetensors"));
    }
}

#[test]
fn a_failed_step_leaves_the_source_before_its_batch() {
    let faults: [fn(&Classifier, &[usize]) -> Result<Tensor<Device>>; 3] = [
        |m, items| m.loss(items)?.affine(1.0, f64::NAN),
        |m, items| m.loss(items)?.affine(0.0, 0.0)?.sqrt(),
        |_, _| Err(Error::Gradient("the power failed".into())),
    ];
    // An epoch of one batch, and one of six.
    for (batch, fails_at) in [(ITEMS, 1), (ITEMS, 2), (4, 1), (4, 3), (4, 6), (4, 7)] {
        let new = || {
            let (model, adam, _) = start();
            let batches = Batches::new(ITEMS, batch, Remainder::Keep, 11).unwrap();
            (model, adam, batches, trainer())
        };
        let whole = {
            let (mut model, mut adam, mut batches, mut trainer) = new();
            finish(&mut trainer, &mut model, &mut adam, &mut batches, u64::MAX).unwrap();
            contents(&model)
        };
        for fault in faults {
            let (mut model, mut adam, mut batches, mut trainer) = new();
            let mut fail = || loop {
                let mut failed = None;
                let epoch = trainer.run_epoch(&mut model, &mut adam, &mut batches, |m, b, step| {
                    if step.step == fails_at {
                        failed = Some(b.clone());
                        return fault(m, b);
                    }
                    loss(m, b, step)
                });
                if let Err(error) = epoch {
                    assert_eq!(trainer.state().step, fails_at - 1);
                    // The failed batch is the next one.
                    assert_eq!(batches.clone().next(), failed);
                    return (batches.state(), error.to_string());
                }
            };
            // A second attempt fails in the same way.
            let first = fail();
            assert_eq!(fail(), first);
            // Once the fault is gone, the run ends as if there had been none.
            finish(&mut trainer, &mut model, &mut adam, &mut batches, u64::MAX).unwrap();
            assert_eq!(contents(&model), whole, "{batch} {fails_at}");
        }
    }
}

#[test]
fn a_non_finite_gradient_is_an_error_without_a_step() {
    let (mut model, mut adam, mut batches) = start();
    let before = contents(&model);
    let error = Trainer::new(0)
        .show_progress(false)
        .run_epoch(&mut model, &mut adam, &mut batches, |m, items, _| {
            // The square root has no finite slope at 0.
            m.loss(items)?.affine(0.0, 0.0)?.sqrt()
        })
        .unwrap_err();
    assert!(matches!(error, Error::Gradient(_)), "{error}");
    assert_says(&error, &["`rnn/basic_lstm_cell/kernel` at step 1"]);
    assert_eq!(contents(&model), before);
}

#[test]
fn other_data_than_the_checkpoint_is_rejected_and_changes_nothing() {
    let folder = tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let (mut model, mut adam, mut batches) = start();
    let mut first = trainer().save_to(checkpoints.clone()).save_every(1);
    finish(&mut first, &mut model, &mut adam, &mut batches, 3).unwrap_err();

    let (mut model, mut adam, _) = start();
    let before = (contents(&model), memory(&model, &adam));
    let mut again = trainer().save_to(checkpoints);
    let mut fives = Batches::new(ITEMS, 5, Remainder::Keep, 1).unwrap();
    let error = again.resume(&mut model, &mut adam, &mut fives).unwrap_err();
    assert_says(
        &error,
        &[
            "batches of 4 out of 22 items",
            "batches of 5 out of 22 items",
        ],
    );
    assert_eq!(fives.state().position, 0);
    let mut windows = InOrder::new(0..3);
    assert_says(
        &again
            .resume(&mut model, &mut adam, &mut windows)
            .unwrap_err(),
        &["another data source"],
    );
    assert_eq!((contents(&model), memory(&model, &adam)), before);
    assert_eq!(again.state().step, 0);
}

#[test]
fn an_epoch_without_a_batch_is_rejected() {
    let (mut model, mut adam, _) = start();
    let mut nothing = InOrder::new(std::iter::empty::<Vec<usize>>());
    let error = trainer()
        .run_epoch(&mut model, &mut adam, &mut nothing, |m, items, _| {
            m.loss(items)
        })
        .unwrap_err();
    assert_says(&error, &["no batch"]);

    // The source is as before.
    let mut nothing = RecordsOfNoEpoch(0);
    let error = trainer()
        .run_epoch(&mut model, &mut adam, &mut nothing, |m, items, _| {
            m.loss(items)
        })
        .unwrap_err();
    assert_says(&error, &["no batch"]);
    assert_eq!(nothing.0, 0);
}

/// Counts its epochs, which have no items.
struct RecordsOfNoEpoch(u64);

impl Source for RecordsOfNoEpoch {
    type Item = Vec<usize>;
    type State = u64;
    fn next_item(&mut self) -> Result<Option<Vec<usize>>> {
        self.0 += 1;
        Ok(None)
    }
    fn state(&self) -> u64 {
        self.0
    }
    fn restore(&mut self, state: u64) -> Result<()> {
        self.0 = state;
        Ok(())
    }
}

#[test]
fn a_position_that_could_not_be_restored_is_not_saved() {
    /// A source with a number in its state that JSON does not have.
    struct Endless;
    impl Source for Endless {
        type Item = Vec<usize>;
        type State = (u64, f64);
        fn next_item(&mut self) -> Result<Option<Vec<usize>>> {
            Ok(Some(vec![1, 2]))
        }
        fn state(&self) -> (u64, f64) {
            (1, f64::INFINITY)
        }
        fn restore(&mut self, _: (u64, f64)) -> Result<()> {
            Ok(())
        }
    }
    let folder = tempdir().unwrap();
    let (mut model, mut adam, _) = start();
    let mut trainer = trainer()
        .save_to(Checkpoints::new(folder.path()))
        .save_every(1);
    let error = trainer
        .run_epoch(&mut model, &mut adam, &mut Endless, |m, items, _| {
            m.loss(items)
        })
        .unwrap_err();
    assert_says(&error, &["source.state[1] is inf"]);
    assert!(Checkpoints::new(folder.path()).latest().unwrap().is_none());
}

#[test]
fn every_step_has_a_seed_of_its_own() {
    let seeds = |seed| {
        let (mut model, mut adam, mut batches) = start();
        let mut seeds = Vec::new();
        let mut trainer = Trainer::new(seed).show_progress(false);
        for _ in 0..2 {
            trainer
                .run_epoch(&mut model, &mut adam, &mut batches, |m, items, step| {
                    seeds.push(step.seed);
                    m.loss(items)
                })
                .unwrap();
        }
        seeds
    };
    let (a, b) = (seeds(1), seeds(2));
    let mut all = [a.clone(), b].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 24);
    assert_eq!(seeds(1), a);
}

#[test]
fn an_ordered_source_resumes_at_its_position() {
    let mut source = InOrder::new(0..3);
    assert_eq!(source.items_per_epoch(), Some(3));
    for expected in [Some(0), Some(1), Some(2), None, Some(0)] {
        let mut copy = InOrder::new(0..3);
        copy.restore(source.state()).unwrap();
        assert_eq!(copy.next_item().unwrap(), expected);
        assert_eq!(source.next_item().unwrap(), expected);
    }
    assert_says(&source.restore(4).unwrap_err(), &["4"]);
    assert_eq!(source.state(), 1);
}

/// A rate that becomes invalid after `valid` steps.
fn falling(valid: u64) -> Schedule {
    Schedule::Piecewise {
        boundaries: vec![2, valid - 1],
        values: vec![0.1, 0.02, f64::NAN],
    }
}

#[test]
fn a_schedule_sets_the_rate_of_each_step() {
    let by_hand = {
        let (mut model, _, mut batches) = start();
        let (mut adam, mut step) = (Adam::new(0.7), 0);
        let mut next = || batches.next_item().unwrap();
        while let Some(batch) = next() {
            adam.set_learning_rate(falling(100).at(step));
            let (_, grads) = value_and_grad(&model, |m| m.loss(&batch)).unwrap();
            let grads = grads.clip_by_global_norm(0.5).unwrap();
            adam.step(&mut model, &grads).unwrap();
            step += 1;
        }
        contents(&model)
    };
    let (mut model, _, mut batches) = start();
    let mut adam = Adam::new(0.7);
    let loss = |m: &Classifier, b: &Vec<usize>, _: TrainStep| m.loss(b);
    let mut scheduled = trainer().schedule(falling(100));
    scheduled
        .run_epoch(&mut model, &mut adam, &mut batches, loss)
        .unwrap();
    assert_eq!(contents(&model), by_hand);
    assert_eq!(adam.learning_rate(), 0.02);

    // The rate of a step that fails is not kept.
    let (mut model, _, mut batches) = start();
    let mut adam = Adam::new(0.7);
    let mut scheduled = trainer().schedule(falling(4));
    let failed = scheduled.run_epoch(&mut model, &mut adam, &mut batches, loss);
    assert_says(&failed.unwrap_err(), &["learning_rate is NaN"]);
    assert_eq!((scheduled.state().step, adam.learning_rate()), (4, 0.02));
}
