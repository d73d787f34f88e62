//! Training on several ranks, which are threads here. Processes are tested in `distributed`.

use std::path::Path;

use backend_api::{DType, Error, Result, Tensor};
use rnn_core::{Cell, Dense, DynamicRnn, GruCell, Initializer, Module, Param};
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{Batches, InOrder, Remainder, Source, SourceExt, SplitState};
use rnn_train::optim::{Adam, LossScale, Momentum, Optimizer};
use rnn_train::parallel::{Collective, DataParallel, Local};
use rnn_train::training::{Interrupt, Mean, TrainEvent, TrainStep, Trainer};
use tempfile::tempdir;

use crate::common::{Classifier, Device, ITEMS, assert_says, contents, device, memory, tensor};

/// Bytes of parameters and slots.
type Bits = (Vec<(String, DType, Vec<u8>)>, (u64, Vec<Vec<u8>>));

const BATCHES: u64 = 6;

/// Trains for four epochs, the last step of each with fewer batches than the others.
fn train(ranks: Option<DataParallel>, dtype: DType) -> Result<(Bits, Vec<f64>)> {
    let mut model = Classifier::new(&device(), 5, dtype);
    let (mut adam, mut batches) = (Adam::new(0.02), batches());
    let mut trainer = Trainer::new(1)
        .clip_norm(0.3)
        .accumulate(BATCHES)
        .show_progress(false);
    if dtype == DType::F16 {
        trainer = trainer.loss_scale(LossScale::new());
    }
    if let Some(ranks) = &ranks {
        // Only rank 0 has the parameters to begin with.
        model.initialize(7 + ranks.rank() as u64)?;
        trainer = trainer.across(ranks);
    }
    let mut losses = Vec::new();
    while trainer.state().epoch < 4 {
        losses.push(
            trainer
                .run_epoch(&mut model, &mut adam, &mut batches, |m, items, step| {
                    loss(m, items, step)
                })?
                .mean_loss,
        );
    }
    Ok(((contents(&model), memory(&model, &adam)), losses))
}

fn batches() -> Batches {
    Batches::new(ITEMS, 2, Remainder::Keep, 11).unwrap()
}

/// A loss that depends on the random numbers of its batch.
fn loss(model: &Classifier, items: &[usize], step: TrainStep) -> Result<Tensor<Device>> {
    let scale = 1.0 + (step.seed % 1000) as f64 / 5000.0;
    model.loss(items)?.affine(scale, 0.0)
}

fn across(size: usize, bucket_bytes: usize, dtype: DType) -> Vec<(Bits, Vec<f64>)> {
    Local::run(size, |rank| {
        train(
            Some(DataParallel::new(rank)?.bucket_bytes(bucket_bytes)),
            dtype,
        )
    })
    .unwrap()
}

#[test]
fn any_number_of_ranks_gives_the_bits_of_a_single_process() {
    for dtype in [DType::F32, DType::F64, DType::F16] {
        let alone = train(None, dtype).unwrap();
        for size in [1, 2, 3, 4, 6] {
            for bucket_bytes in [1, 100, 25 << 20] {
                for of_rank in across(size, bucket_bytes, dtype) {
                    assert!(
                        of_rank == alone,
                        "{dtype}, {size} ranks, {bucket_bytes} bytes"
                    );
                }
            }
        }
    }
}

/// A table of which only rows are looked up, or, in the batches with an odd item, all of it.
type Words = (Param<Device>, Dense<Device>);

fn of_words(mixed: bool) -> impl Fn(&Words, &Vec<usize>, TrainStep) -> Result<Tensor<Device>> {
    move |(table, dense), items, _| {
        let ids: Vec<i64> = items.iter().map(|&item| (item * item % 7) as i64).collect();
        let ids = tensor(table.device(), &ids, &[ids.len()]);
        let loss = dense.forward(&table.gather(&ids)?)?.tanh()?.mean_all()?;
        match mixed && items[0] % 2 == 1 {
            true => loss.add(&table.square()?.mean_all()?),
            false => Ok(loss),
        }
    }
}

#[test]
fn rows_of_tables_are_exchanged_and_sum_to_the_same_bits() {
    for mixed in [false, true] {
        let train = |ranks: Option<DataParallel>| -> Result<Bits> {
            let device = device();
            let table = Param::new(
                &device,
                Initializer::uniform(-1.0, 1.0),
                &[9, 3],
                DType::F32,
            )?;
            let mut model = (table, Dense::new(&device, 3, 2)?);
            model.initialize(3)?;
            let mut momentum = Momentum::new(0.1, 0.9);
            let mut batches = batches();
            let mut trainer = Trainer::new(1).accumulate(4).show_progress(false);
            if let Some(ranks) = &ranks {
                trainer = trainer.across(ranks);
            }
            for _ in 0..3 {
                trainer.run_epoch(&mut model, &mut momentum, &mut batches, of_words(mixed))?;
            }
            Ok((contents(&model), memory(&model, &momentum)))
        };
        let alone = train(None).unwrap();
        for size in 1..=4 {
            let ranks = Local::run(size, |rank| train(Some(DataParallel::new(rank)?)));
            assert_eq!(
                ranks.unwrap(),
                vec![alone.clone(); size],
                "{size} ranks, {mixed}"
            );
        }
    }
}

#[test]
fn a_run_resumes_on_another_number_of_ranks() {
    let whole = train(None, DType::F32).unwrap().0;
    for (before, after) in [(1, 3), (2, 1), (3, 2)] {
        let folder = tempdir().unwrap();
        let run = |rank: Local, epochs: u64| {
            let ranks = DataParallel::new(rank)?;
            let mut model = Classifier::new(&device(), 5, DType::F32);
            let (mut adam, mut batches) = (Adam::new(0.02), batches());
            let mut trainer = Trainer::new(1)
                .clip_norm(0.3)
                .accumulate(BATCHES)
                .save_to(Checkpoints::new(folder.path()))
                .save_every(1)
                .across(&ranks);
            trainer.resume(&mut model, &mut adam, &mut batches)?;
            while trainer.state().epoch < epochs {
                trainer.run_epoch(&mut model, &mut adam, &mut batches, |m, items, step| {
                    loss(m, items, step)
                })?;
            }
            Ok((contents(&model), memory(&model, &adam)))
        };
        Local::run(before, |rank| run(rank, 2)).unwrap();
        let ended = Local::run(after, |rank| run(rank, 4)).unwrap();
        assert!(ended.iter().all(|bits| *bits == whole), "{before} {after}");
    }
}

/// Takes one step on three ranks, with a loss and settings that may differ.
fn step(
    job: impl Fn(usize, &mut Trainer<Device>, &mut Classifier) -> Result<()> + Sync,
    loss: impl Fn(usize, &Classifier, &[usize]) -> Result<Tensor<Device>> + Sync,
) -> Vec<Result<TrainEvent<Device>>> {
    Local::run(3, |rank| {
        let ranks = DataParallel::new(rank)?;
        let mut model = Classifier::new(&device(), 5, DType::F32);
        let (mut adam, mut batches) = (Adam::new(0.02), batches());
        let mut trainer = Trainer::new(1)
            .accumulate(3)
            .show_progress(false)
            .across(&ranks);
        job(ranks.rank(), &mut trainer, &mut model)?;
        let before = (contents(&model), batches.state());
        let event = trainer.step(&mut model, &mut adam, &mut batches, |model, items, _| {
            loss(ranks.rank(), model, items)
        });
        if event.is_err() {
            assert_eq!(batches.state(), before.1);
            assert_eq!((trainer.state().step, adam.state().steps()), (0, 0));
        }
        Ok(event)
    })
    .unwrap()
}

fn assert_all_say(events: Vec<Result<TrainEvent<Device>>>, parts: &[&str]) {
    for event in events {
        assert_says(&event.unwrap_err(), parts);
    }
}

#[test]
fn what_fails_on_one_rank_fails_on_all_and_changes_nothing() {
    let nothing = |_: usize, _: &mut Trainer<Device>, _: &mut Classifier| Ok(());
    let events = step(nothing, |rank, model, items| match rank {
        1 => model.loss(items)?.affine(f64::NAN, 0.0),
        _ => model.loss(items),
    });
    assert!(matches!(
        events[1],
        Err(Error::NonFiniteLoss { step: 1, .. })
    ));
    assert_says(events[0].as_ref().unwrap_err(), &["rank 1: a step failed"]);
    assert_all_say(events, &["the loss at step 1 is NaN"]);
}

#[test]
fn ranks_that_begin_differently_are_refused() {
    let same = |_: usize, model: &Classifier, items: &[usize]| model.loss(items);
    let of_rank_2 = |rank: usize, changed: Trainer<Device>, trainer: &mut Trainer<Device>| {
        if rank == 2 {
            *trainer = changed;
        }
    };
    let events = step(
        |rank, trainer, _| {
            let other = trainer.clone().accumulate(6);
            of_rank_2(rank, other, trainer);
            Ok(())
        },
        same,
    );
    assert_all_say(
        events,
        &[
            "rank 2",
            r#""batches_of_a_step":6"#,
            r#""batches_of_a_step":3"#,
        ],
    );

    let events = step(
        |rank, _, model| {
            if rank == 2 {
                *model = Classifier::new(&device(), 4, DType::F32);
            }
            Ok(())
        },
        same,
    );
    for event in events {
        assert_says(
            &event.unwrap_err(),
            &["`rnn/basic_lstm_cell/kernel`", "[8, 20]", "[7, 16]"],
        );
    }
}

#[test]
fn a_step_has_a_batch_for_each_rank() {
    let events = step(
        |_, trainer, _| {
            *trainer = trainer.clone().accumulate(2);
            Ok(())
        },
        |_, model, items| model.loss(items),
    );
    assert_all_say(events, &["accumulate is 2, but there are 3 ranks"]);
}

#[test]
fn ranks_at_different_actions_say_so() {
    let outcomes = Local::run(2, |rank| {
        let ranks = DataParallel::new(rank)?;
        Ok(match ranks.rank() {
            0 => ranks.means([Mean::of(1.0, 1.0)]).map(|_| ()),
            _ => ranks.agree("lunch", Ok(1)).map(|_| ()),
        })
    });
    let [first, second] = &outcomes.unwrap()[..] else {
        panic!("two ranks");
    };
    assert_says(
        first.as_ref().unwrap_err(),
        &["rank 1", "lunch", "rank 0 at means"],
    );
    assert_says(
        second.as_ref().unwrap_err(),
        &["rank 0", "means", "rank 1 at lunch"],
    );
}

#[test]
fn a_request_on_one_rank_stops_all_after_a_checkpoint() {
    let folder = tempdir().unwrap();
    let stopped = Local::run(2, |rank| {
        let ranks = DataParallel::new(rank)?;
        let mut model = Classifier::new(&device(), 5, DType::F32);
        let (mut adam, mut batches) = (Adam::new(0.02), batches());
        let interrupt = Interrupt::new();
        let mut trainer = Trainer::new(1)
            .accumulate(2)
            .save_to(Checkpoints::new(folder.path()))
            .stop_on(interrupt.clone())
            .across(&ranks);
        let epoch = trainer.run_epoch(&mut model, &mut adam, &mut batches, |model, items, step| {
            if step.step == 3 && ranks.rank() == 1 {
                interrupt.request();
            }
            model.loss(items)
        });
        Ok(epoch.unwrap_err())
    });
    let path = folder.path().join("step-00000003.safetensors");
    for error in stopped.unwrap() {
        let Error::Interrupted { step, checkpoint } = error else {
            panic!("{error}");
        };
        assert_eq!((step, checkpoint.as_deref()), (3, Some(&*path)));
    }
}

#[test]
fn a_checkpoint_that_cannot_be_saved_fails_on_all_ranks() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let failed = Local::run(2, |rank| {
        let ranks = DataParallel::new(rank)?;
        let (model, adam) = (Classifier::new(&device(), 5, DType::F32), Adam::new(0.02));
        let checkpoints = Checkpoints::new(file.join("run"));
        let mut trainer = Trainer::new(1).save_to(checkpoints).across(&ranks);
        Ok(trainer.save(&model, &adam, &batches()).unwrap_err())
    });
    for error in failed.unwrap() {
        assert_says(&error, &["file/run"]);
    }
}

#[test]
fn a_rank_that_panics_or_fails_ends_the_others() {
    let failed = Local::run(3, |rank| match rank.rank() {
        1 => Err(Error::argument("rank", "1", "has enough")),
        _ => DataParallel::new(rank)?.agree("waiting", Ok(())),
    });
    assert_says(&failed.unwrap_err(), &["has enough"]);
    let panicked = std::panic::catch_unwind(|| {
        Local::run(3, |rank| match rank.rank() {
            1 => panic!("a panic of the test"),
            _ => DataParallel::new(rank)?.agree("waiting", Ok(())),
        })
    });
    panicked.unwrap_err();
}

#[test]
fn every_item_is_computed_once_and_mapped_only_where_it_is() {
    let seen = Local::run(2, |rank| {
        let ranks = DataParallel::new(rank)?;
        let mut model = Classifier::new(&device(), 5, DType::F32);
        let (mut adam, mut mapped, mut seen) = (Adam::new(0.02), Vec::new(), Vec::new());
        let mut source = InOrder::new(0..10).group(1, Remainder::Keep)?.map(|items| {
            mapped.push(items[0]);
            Ok(items)
        });
        let mut trainer = Trainer::new(1)
            .accumulate(4)
            .show_progress(false)
            .across(&ranks);
        let report = trainer.run_epoch(&mut model, &mut adam, &mut source, |model, items, _| {
            seen.push(items[0]);
            model.loss(items)
        })?;
        assert_eq!(report.steps, 3);
        assert_eq!(mapped, seen);
        Ok(seen)
    });
    assert_eq!(seen.unwrap(), [vec![0, 1, 4, 5, 8, 9], vec![2, 3, 6, 7]]);
}

#[test]
fn what_the_engine_is_given_is_checked() {
    let outcomes = Local::run(2, |ranks| {
        let lengths = ranks.broadcast(0, &mut vec![0; 1 + ranks.rank()]);
        let values = ranks.all_reduce_sum(&mut vec![0.0; 1 + ranks.rank()]);
        let root = ranks.broadcast(2, &mut []);
        let parts = ranks.exchange(vec![Vec::new(); 3]).map(|_| ());
        Ok([lengths, values, root, parts])
    });
    let [_, second] = outcomes.unwrap().try_into().unwrap();
    let [lengths, values, root, parts] = second.map(|outcome| outcome.unwrap_err());
    assert_says(&lengths, &["have 2 bytes, but rank 0 sent 1"]);
    assert_says(&values, &["has 2 values, but rank 0 has 1"]);
    assert_says(&root, &["is 2, but there are 2 ranks"]);
    assert_says(&parts, &["are 3, but there are 2 ranks"]);
}

/// The numbers of 12 series, in windows of 4, cut into batches of a step.
fn windows(batches: usize) -> impl Source<Item = Vec<f32>, State = SplitState<u64>> {
    let window = |w: usize| {
        (0..48)
            .map(|i| ((i * 5 + w * 11) % 13) as f32 / 13.0)
            .collect()
    };
    let windows: Vec<Vec<f32>> = (0..5).map(window).collect();
    let rows = 12 / batches;
    InOrder::new(windows.into_iter())
        .split(batches, move |window, k| {
            Ok(window[k * rows * 4..][..rows * 4].to_vec())
        })
        .unwrap()
}

type Series = (GruCell<Device>, Dense<Device>);

/// Trains for 12 steps of windows whose rows continue, resuming if there is a folder.
fn train_carrying(
    ranks: Option<&DataParallel>,
    batches: u64,
    folder: Option<&Path>,
    steps: u64,
) -> Result<(Vec<f64>, Vec<u8>)> {
    let device = device();
    let mut model: Series = (GruCell::new(&device, 1, 6)?, Dense::new(&device, 6, 1)?);
    model.initialize(5)?;
    let (mut adam, mut source) = (Adam::new(0.05), windows(batches as usize));
    let mut trainer = Trainer::new(1)
        .accumulate(batches)
        .lanes()
        .show_progress(false);
    if let Some(ranks) = ranks {
        trainer = trainer.across(ranks);
    }
    if let Some(folder) = folder {
        trainer = trainer.save_to(Checkpoints::new(folder)).save_every(1);
    }
    trainer.resume(&mut model, &mut adam, &mut source)?;
    let rows = 12 / batches as usize;
    let zero = model.0.zero_state(rows)?;
    while trainer.state().step < steps {
        trainer.step_carrying(
            &mut model,
            &mut adam,
            &mut source,
            &zero,
            |m, x, state, _| {
                let x = tensor(&device, x, &[rows, 4, 1]);
                let rnn = DynamicRnn::new(&m.0).initial_state(state.clone()).run(&x)?;
                let loss = m.1.forward(&rnn.outputs)?.sub(&x)?.square()?.mean_all()?;
                Ok((loss, rnn.state))
            },
        )?;
    }
    trainer.save(&model, &adam, &source)?;
    let params = model.named_params();
    let numbers = params
        .iter()
        .flat_map(|(_, p)| p.to_f64_vec().unwrap())
        .collect();
    Ok((
        numbers,
        contents(&model)
            .into_iter()
            .flat_map(|(.., bytes)| bytes)
            .collect(),
    ))
}

#[test]
fn each_batch_of_a_step_carries_its_own_value_on_any_number_of_ranks() {
    let whole = train_carrying(None, 1, None, 12).unwrap().0;
    let (cut, bits) = train_carrying(None, 4, None, 12).unwrap();
    // The rows are independent: cutting them changes rounding only.
    for (whole, cut) in whole.iter().zip(&cut) {
        assert!((whole - cut).abs() < 1e-4, "{whole} {cut}");
    }
    for size in 1..=4 {
        let ranks = Local::run(size, |rank| {
            train_carrying(Some(&DataParallel::new(rank)?), 4, None, 12)
        });
        assert!(
            ranks.unwrap().iter().all(|(_, of_rank)| *of_rank == bits),
            "{size} ranks"
        );
    }
    // A checkpoint has the values of all ranks, in the middle of an epoch.
    for (before, after) in [(2, 3), (4, 1), (1, 2)] {
        let folder = tempdir().unwrap();
        let run = |size, steps| {
            Local::run(size, |rank| {
                train_carrying(
                    Some(&DataParallel::new(rank)?),
                    4,
                    Some(folder.path()),
                    steps,
                )
            })
        };
        run(before, 7).unwrap();
        let ended = run(after, 12).unwrap();
        assert!(
            ended.iter().all(|(_, of_rank)| *of_rank == bits),
            "{before} {after}"
        );
    }
}

#[test]
fn a_value_for_the_next_batch_needs_lanes() {
    let refused = Local::run(1, |rank| {
        let ranks = DataParallel::new(rank)?;
        let device = device();
        let mut model: Series = (GruCell::new(&device, 1, 6)?, Dense::new(&device, 6, 1)?);
        let (mut adam, mut source) = (Adam::new(0.05), windows(4));
        let zero = model.0.zero_state(3)?;
        let mut trainer = Trainer::new(1).accumulate(4).across(&ranks);
        let step =
            trainer.step_carrying(&mut model, &mut adam, &mut source, &zero, |m, _, s, _| {
                Ok((m.1.forward(s)?.mean_all()?, s.clone()))
            });
        Ok(step.unwrap_err())
    });
    assert_says(&refused.unwrap()[0], &["initial has elements", "`lanes`"]);
}
