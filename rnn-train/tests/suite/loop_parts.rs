//! The parts of a training loop, alone and in a trainer.

use std::cell::Cell;

use backend_api::{DType, Error, Result, Tensor};
use rnn_core::{Mode, Module};
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{Batches, InOrder, Remainder, Source, SourceExt};
use rnn_train::optim::{Adam, LossScale, Optimizer, ParamGroups, Schedule, Sgd};
use rnn_train::training::{
    EarlyStopping, Interrupt, Mean, StepReport, TrainEvent, TrainStep, Trainer, evaluate, lr_find,
};
use tempfile::tempdir;

use crate::common::{Classifier, Device, ITEMS, assert_says, contents, device, memory};

fn model() -> Classifier {
    Classifier::new(&device(), 5, DType::F32)
}

fn batches(size: usize) -> Batches {
    Batches::new(ITEMS, size, Remainder::Keep, 11).unwrap()
}

fn trainer() -> Trainer<Device> {
    Trainer::new(1).show_progress(false)
}

#[allow(clippy::ptr_arg, reason = "the items of the source")]
fn loss(model: &Classifier, items: &Vec<usize>, _: TrainStep) -> Result<Tensor<Device>> {
    model.loss(items)
}

#[track_caller]
fn step<S: Source<Item = Vec<usize>>>(
    trainer: &mut Trainer<Device>,
    model: &mut Classifier,
    optimizer: &mut impl Optimizer<Device>,
    source: &mut S,
    loss: impl FnMut(&Classifier, &Vec<usize>, TrainStep) -> Result<Tensor<Device>>,
) -> StepReport<Device> {
    match trainer.step(model, optimizer, source, loss).unwrap() {
        TrainEvent::Step(report) => report,
        TrainEvent::Epoch(report) => panic!("{report:?}"),
    }
}

#[test]
fn a_step_with_the_gradients_of_several_batches_is_that_of_a_large_one() {
    let run = |batches: Vec<Vec<usize>>, accumulate: u64| {
        let (mut model, mut sgd) = (model(), Sgd::new(0.5));
        let mut source = InOrder::new(batches.into_iter());
        let mut trainer = trainer().accumulate(accumulate).clip_norm(0.1);
        let report = trainer
            .run_epoch(&mut model, &mut sgd, &mut source, loss)
            .unwrap();
        assert_eq!(sgd.state().steps(), report.steps);
        let numbers = model.named_params();
        let numbers = numbers.iter().flat_map(|(_, p)| p.to_f64_vec().unwrap());
        (report, numbers.collect::<Vec<_>>())
    };
    let items: Vec<usize> = (0..20).collect();
    let small: Vec<Vec<usize>> = items.chunks(2).map(<[usize]>::to_vec).collect();
    let large: Vec<Vec<usize>> = items.chunks(8).map(<[usize]>::to_vec).collect();
    let (of_small, small) = run(small, 4);
    let (of_large, large) = run(large, 1);
    // The last step has the two batches that are left.
    assert_eq!((of_small.steps, of_large.steps), (3, 3));
    assert!((of_small.mean_loss - of_large.mean_loss).abs() < 1e-6);
    for (a, b) in small.iter().zip(&large) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn every_batch_of_a_step_has_a_seed_of_its_own() {
    let (mut model, mut sgd, mut source) = (model(), Sgd::new(0.5), batches(4));
    let mut seen = Vec::new();
    trainer()
        .accumulate(4)
        .run_epoch(&mut model, &mut sgd, &mut source, |model, items, step| {
            seen.push((step.step, step.batch, step.seed));
            model.loss(items)
        })
        .unwrap();
    let numbers: Vec<_> = seen.iter().map(|&(step, batch, _)| (step, batch)).collect();
    assert_eq!(numbers, [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)]);
    let mut seeds: Vec<_> = seen.iter().map(|&(.., seed)| seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 6);
}

/// Trains for three epochs with everything whose state a checkpoint must have. The program ends
/// after `stop` calls of the loss, and evaluations are repeated as a program repeats them.
fn run(folder: &std::path::Path, stop: u64) -> Result<(Vec<u8>, EarlyStopping)> {
    let (mut model, mut adam, mut source) = (model(), Adam::new(0.01), batches(4));
    let mut trainer = trainer()
        .accumulate(4)
        .loss_scale(LossScale::new().with_growth_interval(3)?)
        .schedule(Schedule::cosine(0.02, 6).warmup(2))
        .save_to(Checkpoints::new(folder))
        .save_every(1);
    trainer.resume(&mut model, &mut adam, &mut source)?;
    let mut stopping = match trainer.recall("stopping")? {
        Some(stopping) => stopping,
        None => EarlyStopping::new(2),
    };
    let calls = Cell::new(0);
    let die = || {
        calls.set(calls.get() + 1);
        match calls.get() > stop {
            true => Err(Error::Gradient("the power failed".into())),
            false => Ok(()),
        }
    };
    while trainer.state().epoch < 3 {
        trainer.run_epoch(&mut model, &mut adam, &mut source, |model, items, step| {
            die()?;
            let scale = 1.0 + (step.seed % 1000) as f64 / 5000.0;
            model.loss(items)?.affine(scale, 0.0)
        })?;
        die()?;
        let mut all = InOrder::new(0..ITEMS).group(ITEMS, Remainder::Keep)?;
        let [mean] = evaluate(&model, &mut all, |model, items| {
            Ok([Mean::of(model.loss(items)?.item()?, items.len() as f64)])
        })?;
        if stopping.update(mean.value()) {
            trainer.save_best(&model, &adam, &source)?;
        }
        trainer.remember("stopping", &stopping)?;
    }
    let (steps, slots) = memory(&model, &adam);
    assert_eq!(steps, 6);
    let scale = trainer.state().loss_scale.clone().unwrap();
    assert_eq!(scale.factor(), 4.0 * 32768.0);
    let mut bytes = slots.concat();
    bytes.extend(contents(&model).into_iter().flat_map(|(.., bytes)| bytes));
    let best = Checkpoints::new(folder).best()?.unwrap();
    bytes.extend(best.restore(&mut model, &mut adam)?.step.to_le_bytes());
    Ok((bytes, stopping))
}

#[test]
fn a_run_with_all_parts_ends_with_the_same_bits_wherever_it_stops() {
    let whole = run(tempdir().unwrap().path(), u64::MAX).unwrap();
    let mut stops = 0;
    for stop in 0.. {
        let folder = tempdir().unwrap();
        if run(folder.path(), stop).is_ok() {
            break;
        }
        // Stops again as early as the program can without getting nowhere.
        let mut result = run(folder.path(), 5);
        while result.is_err() {
            result = run(folder.path(), 5);
        }
        assert_eq!(result.unwrap(), whole, "stopped after {stop}");
        stops += 1;
    }
    assert_eq!(stops, 3 * 7); // six batches and an evaluation
}

#[test]
fn a_step_whose_scaled_gradient_overflows_is_skipped() {
    let (mut model, mut sgd, mut source) = (model(), Sgd::new(0.1), batches(ITEMS));
    let mut trainer = trainer().loss_scale(LossScale::new().with_factor(1e30).unwrap());
    // The factor is limited to 2^32.
    let mut overflowing =
        |model: &Classifier, items: &Vec<usize>, _: TrainStep| model.loss(items)?.affine(1e30, 0.0);
    let before = contents(&model);
    let report = step(
        &mut trainer,
        &mut model,
        &mut sgd,
        &mut source,
        &mut overflowing,
    );
    assert!(report.skipped && report.loss.is_finite() && !report.gradient_norm.is_finite());
    assert_eq!(contents(&model), before);
    assert_eq!((trainer.state().step, sgd.state().steps()), (1, 0));
    assert!(trainer.state().loss_scale.as_ref().unwrap().factor() < 1e30);

    // A gradient that no factor helps ends the run.
    let mut trainer = self::trainer().loss_scale(LossScale::new());
    let mut source = batches(4);
    let error = loop {
        let event = trainer.step(&mut model, &mut sgd, &mut source, |model, items, _| {
            model.loss(items)?.affine(0.0, 0.0)?.sqrt()
        });
        if let Err(error) = event {
            break error;
        }
        assert!(trainer.state().step < 1000);
    };
    assert_says(&error, &["gradient", "`rnn/basic_lstm_cell/kernel`"]);
    assert_eq!(contents(&model), before);
}

#[test]
fn the_loss_scale_does_not_change_the_step() {
    let trained = |trainer: Trainer<Device>| {
        let (mut model, mut sgd, mut source) = (model(), Sgd::new(0.1), batches(ITEMS));
        let mut trainer = trainer;
        let report = step(&mut trainer, &mut model, &mut sgd, &mut source, loss);
        (contents(&model), report.loss, report.gradient_norm)
    };
    // Powers of two are exact.
    assert_eq!(
        trained(trainer().loss_scale(LossScale::new())),
        trained(trainer())
    );
}

#[test]
fn the_parameter_at_fault_is_named() {
    let (mut model, mut sgd, mut source) = (model(), Sgd::new(0.1), batches(4));
    let mut failing = |bad: fn(&Tensor<Device>) -> Result<Tensor<Device>>| {
        let before = contents(&model);
        let taken = trainer().step(&mut model, &mut sgd, &mut source, |model, items, _| {
            let bias = model.named_params()[3].1.value().clone();
            model.loss(items)?.add(&bad(&bias)?)
        });
        assert_eq!(contents(&model), before);
        taken.unwrap_err()
    };
    // The bias is 0: a loss that is finite, and one that is not.
    let error = failing(|bias| bias.abs()?.sqrt()?.sum_all());
    assert_says(&error, &["`dense/bias` at step 1"]);
    let error = failing(|bias| bias.abs()?.log()?.sum_all()?.mul(0.0));
    assert!(
        matches!(&error, Error::NonFiniteLoss { step: 1, .. }),
        "{error}"
    );
    assert_says(&error, &["step 1 is NaN", "the gradient of `dense/bias`"]);
}

#[test]
fn frozen_parameters_have_no_gradient_in_a_trainer() {
    let (mut model, mut source) = (model(), batches(4));
    let mut groups = ParamGroups::new(Sgd::new(0.1)).freeze("rnn");
    let mut trainer = trainer().keep_gradients(true);
    let before = contents(&model);
    let report = step(
        &mut trainer,
        &mut model,
        &mut groups,
        &mut source,
        |model, items, _| {
            assert!(!model.named_params()[0].1.is_recorded());
            model.loss(items)
        },
    );
    let grads = report.gradients.unwrap();
    let names: Vec<&str> = grads.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["dense/kernel", "dense/bias"]);
    let changed: Vec<bool> = contents(&model)
        .iter()
        .zip(&before)
        .map(|(a, b)| a != b)
        .collect();
    assert_eq!(changed, [false, false, true, true]);
}

#[test]
fn an_interrupted_run_saves_and_resumes() {
    let whole = {
        let (mut model, mut sgd, mut source) = (model(), Sgd::new(0.1), batches(4));
        let mut trainer = trainer();
        for _ in 0..2 {
            trainer
                .run_epoch(&mut model, &mut sgd, &mut source, loss)
                .unwrap();
        }
        contents(&model)
    };
    let folder = tempdir().unwrap();
    let start = |interrupt: &Interrupt| {
        let trainer = trainer().save_to(Checkpoints::new(folder.path()));
        (
            model(),
            Sgd::new(0.1),
            batches(4),
            trainer.stop_on(interrupt.clone()),
        )
    };
    for stop in [1, 3, 6, 9] {
        let interrupt = Interrupt::new();
        let (mut model, mut sgd, mut source, mut trainer) = start(&interrupt);
        trainer.resume(&mut model, &mut sgd, &mut source).unwrap();
        let error = loop {
            let epoch = trainer.run_epoch(&mut model, &mut sgd, &mut source, |m, items, step| {
                if step.step == stop {
                    interrupt.request();
                }
                m.loss(items)
            });
            if let Err(error) = epoch {
                break error;
            }
        };
        let saved = folder.path().join(format!("step-{stop:08}.safetensors"));
        assert!(
            matches!(&error, Error::Interrupted { step, checkpoint: Some(path) }
                if *step == stop && *path == saved),
            "{error}"
        );
        assert_says(&error, &[&format!("step {stop}"), "is saved"]);
    }
    let (mut model, mut sgd, mut source, mut trainer) = start(&Interrupt::new());
    trainer.resume(&mut model, &mut sgd, &mut source).unwrap();
    while trainer.state().epoch < 2 {
        trainer
            .run_epoch(&mut model, &mut sgd, &mut source, loss)
            .unwrap();
    }
    assert_eq!(contents(&model), whole);

    // Without a folder.
    let interrupt = Interrupt::new();
    interrupt.request();
    let mut trainer = self::trainer().stop_on(interrupt);
    let error = trainer
        .step(&mut model, &mut sgd, &mut source, loss)
        .unwrap_err();
    assert_says(&error, &["nothing is saved"]);
}

#[test]
fn evaluation_weights_batches_and_leaves_the_source() {
    let mut source = InOrder::new(0..10).group(4, Remainder::Keep).unwrap();
    source.next_item().unwrap();
    let [mean, mode] = evaluate(&(), &mut source, |(), items| {
        let training = Mode::take().unwrap().is_training();
        let mean = items.iter().sum::<i32>() as f64 / items.len() as f64;
        Ok([
            Mean::of(mean, items.len() as f64),
            Mean::of(f64::from(training), 1.0),
        ])
    })
    .unwrap();
    assert_eq!((mean.value(), mean.weight(), mode.value()), (6.5, 6.0, 0.0));
    assert_eq!(source.next_item().unwrap(), Some(vec![4, 5, 6, 7]));
    // Errors of the metrics leave it, too.
    let failed = evaluate(&(), &mut source, |(), _| -> Result<[Mean; 1]> {
        Err(Error::Gradient("no".into()))
    });
    failed.unwrap_err();
    assert_eq!(source.next_item().unwrap(), Some(vec![8, 9]));
    let error = evaluate(&(), &mut source, |(), _| Ok([Mean::default()])).unwrap_err();
    assert_says(&error, &["evaluate", "no item"]);
    let mut mean = Mean::of(f64::NAN, 0.0);
    assert!(mean.value().is_nan());
    mean.add(Mean::of(2.0, 3.0));
    assert_eq!(mean.value(), 2.0);
}

#[test]
fn early_stopping_counts_what_does_not_improve() {
    let run = |mut stopping: EarlyStopping, values: &[f64]| {
        let improved: Vec<bool> = values.iter().map(|&v| stopping.update(v)).collect();
        (improved, stopping.best(), stopping.is_over())
    };
    let (t, f) = (true, false);
    let lower = EarlyStopping::new(3).min_delta(0.1);
    assert_eq!(
        run(lower, &[1.0, 0.95, f64::NAN, 0.8, 0.75, 0.9]),
        (vec![t, f, f, t, f, f], Some(0.8), f)
    );
    assert_eq!(run(lower, &[1.0, 0.95, f64::NAN, 1.0]).2, t);
    let higher = EarlyStopping::new(1).higher_is_better();
    assert_eq!(run(higher, &[0.5, 0.6]), (vec![t, t], Some(0.6), f));
    assert_eq!(run(higher, &[0.5, 0.5]), (vec![t, f], Some(0.5), t));
    assert_eq!(run(EarlyStopping::new(0), &[]), (vec![], None, f));
    assert_eq!(run(lower, &[f64::NEG_INFINITY]).1, None);
}

#[test]
fn the_search_for_a_rate_changes_nothing() {
    let (model, mut adam) = (model(), Adam::new(0.3));
    adam.step(&mut model.clone(), &gradients(&model)).unwrap();
    let mut source = batches(4);
    source.next_item().unwrap();
    let before = (contents(&model), memory(&model, &adam), source.state());
    let mut find =
        |rates, steps| lr_find(&model, &adam, &mut source, rates, steps, |m, b| m.loss(b));
    let found = find(1e-4..=10.0, 30).unwrap();
    assert_eq!(find(1e-4..=10.0, 30).unwrap(), found);
    assert!((found[0].0 - 1e-4).abs() < 1e-15 && found.len() > 10);
    let factor = found[1].0 / found[0].0;
    assert!((factor - 1e5f64.powf(1.0 / 29.0)).abs() < 1e-9);
    let least = found.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    assert!(least < 0.8 * found[0].1);
    assert_says(&find(0.0..=1.0, 10).unwrap_err(), &["rates are 0 to 1"]);
    assert_says(&find(1.0..=1.0, 10).unwrap_err(), &["rates"]);
    assert_says(&find(0.1..=1.0, 1).unwrap_err(), &["steps"]);
    assert_eq!(
        (contents(&model), memory(&model, &adam), source.state()),
        before
    );
    assert_eq!(adam.learning_rate(), 0.3);
}

fn gradients(model: &Classifier) -> rnn_train::Gradients<Device> {
    rnn_train::value_and_grad(model, |m| m.loss(&[1, 2]))
        .unwrap()
        .1
}

#[test]
fn what_a_program_remembers_has_its_type() {
    let mut trainer = trainer();
    trainer.remember("best", &0.5).unwrap();
    assert_eq!(trainer.recall("best").unwrap(), Some(0.5));
    assert_eq!(trainer.recall::<f64>("worst").unwrap(), None);
    assert_says(
        &trainer.recall::<EarlyStopping>("best").unwrap_err(),
        &["best", "another type"],
    );
    assert_says(
        &trainer.remember("best", &f64::NAN).unwrap_err(),
        &["best is NaN"],
    );
    assert_eq!(trainer.recall("best").unwrap(), Some(0.5));
}
