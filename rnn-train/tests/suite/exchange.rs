//! The exchange of gradients between ranks, while the walk backwards goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backend_api::{Backend, DType, Error, MemoryPolicy, Result, Tensor};
use rnn_core::{Dense, Module};
use rnn_train::data::{InOrder, Source};
use rnn_train::optim::{Momentum, ParamGroups};
use rnn_train::parallel::{Collective, DataParallel, Local};
use rnn_train::training::{TrainEvent, TrainStep, Trainer};

use crate::common::{Device, assert_says, contents, device, tensor};

/// Counts the exchanges that have ended.
#[derive(Debug)]
struct Counting {
    engine: Local,
    exchanges: Arc<AtomicUsize>,
}

impl Collective for Counting {
    fn rank(&self) -> usize {
        self.engine.rank()
    }

    fn size(&self) -> usize {
        self.engine.size()
    }

    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let received = self.engine.exchange(parts)?;
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        Ok(received)
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.engine.all_gather(mine)
    }
}

/// Where a rank fails in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fails {
    Never,
    /// In the loss.
    Early,
    /// In the walk, when the gradients of the last layer are complete, and those of the first are
    /// not.
    InTheWalk,
    /// After the walk, since the loss is not finite.
    Late,
}

type Layers = (Dense<Device>, Dense<Device>);

/// The buckets of the last layer if each parameter is one.
const BUCKETS: usize = 2;
const BATCHES: u64 = 4;

struct Rank {
    ranks: DataParallel,
    exchanges: Arc<AtomicUsize>,
    model: Layers,
    momentum: Momentum<Device>,
    source: InOrder<std::ops::Range<usize>>,
    trainer: Trainer<Device>,
}

impl Rank {
    fn new(engine: Local, bucket_bytes: usize) -> Result<Self> {
        let exchanges = Arc::new(AtomicUsize::new(0));
        let engine = Counting {
            engine,
            exchanges: exchanges.clone(),
        };
        let ranks = DataParallel::new(engine)?.bucket_bytes(bucket_bytes);
        let device = device();
        let mut model = (Dense::new(&device, 3, 5)?, Dense::new(&device, 5, 2)?);
        model.initialize(4)?;
        let trainer = Trainer::new(3).accumulate(BATCHES).show_progress(false);
        Ok(Self {
            trainer: trainer.across(&ranks),
            ranks,
            exchanges,
            model,
            momentum: Momentum::new(0.1, 0.9),
            source: InOrder::new(0..1000),
        })
    }

    /// Takes a step. With `wait`, the walk does not go beyond the last layer before the gradients
    /// of that layer were exchanged.
    fn step(&mut self, fails: Fails, wait: bool) -> Result<TrainEvent<Device>> {
        let exchanges = self.exchanges.clone();
        let enough = exchanges.load(Ordering::SeqCst) + BUCKETS;
        let share = self.ranks.share(BATCHES as usize);
        let last = share.end - 1;
        let loss = |model: &Layers, item: &usize, step: TrainStep| {
            let is_last = step.batch == last as u64;
            let problem = move || Error::argument("layer", "it", format!("fails {fails:?}"));
            if fails == Fails::Early {
                return Err(problem());
            }
            let device = model.0.named_params()[0].1.device().clone();
            let x: Vec<f32> = (0..6)
                .map(|i| ((item * 7 + i * 5) % 11) as f32 / 11.0)
                .collect();
            let x = tensor(&device, &x, &[2, 3]);
            let (layer, runs, exchanges) =
                (model.0.clone(), AtomicUsize::new(0), exchanges.clone());
            let first = move |_: &Device, inputs: &[Tensor<Device>]| {
                let in_the_walk = runs.fetch_add(1, Ordering::SeqCst) == 1;
                let start = Instant::now();
                while in_the_walk && is_last && wait && exchanges.load(Ordering::SeqCst) < enough {
                    assert!(
                        start.elapsed() < Duration::from_secs(60),
                        "nothing is exchanged"
                    );
                    std::thread::yield_now();
                }
                if in_the_walk && is_last && fails == Fails::InTheWalk {
                    return Err(problem());
                }
                Ok(vec![layer.forward(&inputs[0])?.tanh()?])
            };
            let h = device.segment(MemoryPolicy::Recompute, &[x], Arc::new(first))?;
            let loss = model.1.forward(&h[0])?.square()?.mean_all()?;
            match fails {
                Fails::Late if is_last => loss.affine(f64::INFINITY, 0.0),
                _ => Ok(loss),
            }
        };
        let Self {
            model,
            momentum,
            source,
            trainer,
            ..
        } = self;
        trainer.step(model, momentum, source, loss)
    }
}

#[test]
fn gradients_are_exchanged_while_those_of_earlier_layers_are_computed() {
    for size in [1, 2, 4] {
        let ended = Local::run(size, |engine| {
            let mut rank = Rank::new(engine, 1)?;
            for _ in 0..3 {
                rank.step(Fails::Never, true)?;
            }
            Ok(contents(&rank.model))
        });
        let alone = Local::run(1, |engine| {
            let mut rank = Rank::new(engine, usize::MAX)?;
            for _ in 0..3 {
                rank.step(Fails::Never, false)?;
            }
            Ok(contents(&rank.model))
        });
        let (ended, alone) = (ended.unwrap(), alone.unwrap());
        assert!(ended.iter().all(|bits| *bits == alone[0]), "{size} ranks");
    }
}

#[test]
fn what_fails_in_the_walk_with_buckets_on_their_way_fails_on_all() {
    for failing in 0..3 {
        Local::run(3, |engine| {
            let mut rank = Rank::new(engine, 1)?;
            let here = rank.ranks.rank() == failing;
            let fails = if here { Fails::InTheWalk } else { Fails::Never };
            let before = contents(&rank.model);
            let error = rank.step(fails, true).unwrap_err();
            let place = format!("rank {failing}: a step failed");
            let parts: &[&str] = if here {
                &["it fails InTheWalk"]
            } else {
                &[&place, "InTheWalk"]
            };
            assert_says(&error, parts);
            assert!(contents(&rank.model) == before);
            assert_eq!((rank.trainer.state().step, rank.source.state()), (0, 0));
            // The failed step left nothing behind.
            rank.step(Fails::Never, true)?;
            Ok(contents(&rank.model))
        })
        .unwrap();
    }
}

/// Takes steps in which the ranks fail as given, and then steps that do not fail.
fn run(
    size: usize,
    bucket_bytes: usize,
    steps: &[Vec<Fails>],
) -> Vec<Vec<(String, DType, Vec<u8>)>> {
    let ended = Local::run(size, |engine| {
        let mut rank = Rank::new(engine, bucket_bytes)?;
        for fails in steps {
            let mine = fails[rank.ranks.rank()];
            let error = rank.step(mine, false).unwrap_err();
            match mine {
                Fails::Never => assert_says(&error, &["a step failed"]),
                Fails::Late => assert_says(&error, &["the loss at step 1 is inf"]),
                _ => assert_says(&error, &[&format!("it fails {mine:?}")]),
            }
        }
        for _ in 0..2 {
            rank.step(Fails::Never, false)?;
        }
        Ok(contents(&rank.model))
    });
    ended.unwrap()
}

#[test]
fn any_number_of_ranks_may_fail_anywhere() {
    let kinds = [Fails::Never, Fails::Early, Fails::InTheWalk, Fails::Late];
    let whole = run(1, 1, &[]);
    for size in 2..=3usize {
        let all = kinds.len().pow(size as u32);
        // The first is that no rank fails.
        let steps: Vec<Vec<Fails>> = (1..all)
            .map(|n| {
                (0..size).map(move |rank| kinds[n / kinds.len().pow(rank as u32) % kinds.len()])
            })
            .map(Iterator::collect)
            .collect();
        for bucket_bytes in [1, 50, usize::MAX] {
            for bits in run(size, bucket_bytes, &steps) {
                assert!(bits == whole[0], "{size} ranks, {bucket_bytes} bytes");
            }
        }
    }
}

#[test]
fn ranks_with_other_buckets_or_parameters_are_refused() {
    let problems = Local::run(2, |engine| {
        let bucket_bytes = [1, 50][engine.rank()];
        Ok(Rank::new(engine, bucket_bytes)?
            .step(Fails::Never, false)
            .unwrap_err())
    });
    for error in problems.unwrap() {
        assert_says(
            &error,
            &["the 4 parameters of this rank", "buckets of another size"],
        );
    }
    // Rank 1 trains the last layer only.
    let problems = Local::run(2, |engine| {
        let mut rank = Rank::new(engine, 1)?;
        let mut groups = ParamGroups::new(Momentum::new(0.1, 0.9));
        if rank.ranks.rank() == 1 {
            groups = groups.freeze("0");
        }
        let (model, source) = (&mut rank.model, &mut rank.source);
        let step = rank
            .trainer
            .step(model, &mut groups, source, |model, _, _| {
                let x = Tensor::ones(model.0.named_params()[0].1.device(), &[1, 3])?;
                model.1.forward(&model.0.forward(&x)?)?.mean_all()
            });
        Ok(step.unwrap_err())
    });
    for error in problems.unwrap() {
        assert_says(&error, &["parameters of this rank"]);
    }
}
