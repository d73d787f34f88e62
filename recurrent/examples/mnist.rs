//! Classifies handwritten digits, each read as 28 rows of 28 pixels, with a recurrent network of
//! 150 hidden units.
//!
//! Run it with `cargo run --release --example mnist`. The first run downloads MNIST to `data/`.
//! Several processes train together with `mpirun -n 4 target/release/examples/mnist --distributed
//! mpi`.

#[path = "support/saving.rs"]
mod saving;
mod support;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Instant;

use datasets::{dataset, default_root};
use recurrent::data::{Batches, Idx, Remainder};
use recurrent::distributed::Mpi;
use recurrent::losses::{accuracy, softmax_cross_entropy};
use recurrent::parallel::DataParallel;
use recurrent::prelude::*;
use recurrent::training::Mean;
use recurrent::wrappers::DropoutWrapper;
use saving::Saving;
use support::{Error, Options};

const HELP: &str = "\
Classifies MNIST digits, row by row.

Options, with their defaults in parentheses:
  --cell basic|lstm|gru   type of cell (basic)
  --keep-prob X           probability that an output of the cell is kept in training (1)
  --epochs N              number of passes over the training set (10)
  --device NAME           cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --seed N                seed of the initialization and of the order of the images (0)
  --evaluate NAME,..      more devices to evaluate the trained model on, such as cpu@int8 (none)
  --clip-norm X           clip gradients to this global norm; 0 disables clipping (1)
  --save DIR              save a checkpoint in DIR after each epoch, and at Ctrl-C
  --resume DIR            resume from the newest checkpoint in DIR, and save there
  --distributed ENGINE    train together with the other processes of a job: mpi, or nccl if built
                          with the feature nccl (alone)
  --shards N              parts of a step, which several processes compute; the run depends on
                          their number, and not on that of the processes (1, or 8 in a job)
";

const ROWS: usize = 28;
const COLUMNS: usize = 28;
const UNITS: usize = 150;
const CLASSES: usize = 10;
const BATCH: usize = 150;
const LEARNING_RATE: f64 = 0.001;

/// A recurrent network and an output layer on its last output.
#[derive(Clone, Debug)]
struct Classifier {
    cell: AnyCell,
    logits: Dense,
}

impl Module for Classifier {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_>) {
        v.child(&self.cell.scope(), &mut self.cell);
        v.child("dense", &mut self.logits);
    }
}

impl Classifier {
    fn new(device: &Device, kind: &str, keep_prob: f64) -> Result<Self, Error> {
        let cell = match kind {
            "basic" => AnyCell::new(BasicRnnCell::new(device, COLUMNS, UNITS)?),
            "lstm" => AnyCell::new(BasicLstmCell::new(device, COLUMNS, UNITS)?),
            "gru" => AnyCell::new(GruCell::new(device, COLUMNS, UNITS)?),
            _ => return Err(format!("--cell {kind}: must be basic, lstm or gru").into()),
        };
        // Drops in the loss of each step, and nothing when the accuracy is measured.
        let cell = DropoutWrapper::builder(cell).output_keep_prob(keep_prob);
        let cell = AnyCell::new(cell.build()?);
        let logits = Dense::new(device, UNITS, CLASSES)?;
        Ok(Self { cell, logits })
    }

    /// `[batch, rows, columns] -> [batch, classes]`
    fn forward(&self, images: &Tensor) -> recurrent::Result<Tensor> {
        let rnn = DynamicRnn::new(&self.cell).run(images)?;
        self.logits.forward(&rnn.outputs.select(1, ROWS - 1)?)
    }
}

/// Images and their labels.
struct Digits {
    images: Idx,
    labels: Idx,
}

impl Digits {
    fn open(part: &str) -> Result<Self, Error> {
        let folder = dataset("mnist")?.ensure(&default_root())?;
        let images = Idx::open(folder.join(format!("{part}-images-idx3-ubyte")))?;
        let labels = Idx::open(folder.join(format!("{part}-labels-idx1-ubyte")))?;
        if images.len() != labels.len() || images.shape()[1..] != [ROWS, COLUMNS] {
            return Err(format!(
                "{part}: {:?} images, {} labels",
                images.shape(),
                labels.len()
            )
            .into());
        }
        Ok(Self { images, labels })
    }

    /// The given items: pixels in `0..=1`, and labels.
    fn batch(&self, device: &Device, items: &[usize]) -> recurrent::Result<(Tensor, Tensor)> {
        let pixels = self.images.gather(items, |byte| f32::from(byte) / 255.0)?;
        let labels = self.labels.gather(items, i32::from)?;
        Ok((
            Tensor::from_slice(device, &pixels, &[items.len(), ROWS, COLUMNS])?,
            Tensor::from_slice(device, &labels, &[items.len()])?,
        ))
    }

    /// Fraction of the first 10,000 items that the model classifies correctly. Each rank of a job
    /// counts in a part of them.
    fn accuracy(
        &self,
        model: &Classifier,
        device: &Device,
        ranks: Option<&DataParallel>,
    ) -> recurrent::Result<f64> {
        let count = self.images.len().min(10_000);
        let items: Vec<usize> = ranks.map_or(0..count, |ranks| ranks.share(count)).collect();
        let mut right = Mean::default();
        for chunk in items.chunks(1000) {
            let (images, labels) = self.batch(device, chunk)?;
            let fraction = accuracy(&model.forward(&images)?, &labels)?;
            right.add(Mean::of(fraction, chunk.len() as f64));
        }
        let right = match ranks {
            None => right,
            Some(ranks) => ranks.means([right])?[0],
        };
        Ok(right.value())
    }
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let known = [
        "cell",
        "keep-prob",
        "epochs",
        "device",
        "seed",
        "clip-norm",
        "save",
        "resume",
        "evaluate",
        "distributed",
        "shards",
    ];
    let options = Options::read(HELP, &known)?;
    match options.text("distributed") {
        None => train(&options, &options.device()?, None),
        Some("mpi") => Mpi::run(|mpi| {
            let ranks = DataParallel::new(mpi)?;
            train(&options, &options.device()?, Some(&ranks))
        }),
        #[cfg(feature = "nccl")]
        Some("nccl") => {
            let nccl = recurrent::distributed::Nccl::from_env()?;
            let device = Device::cuda(nccl.gpu())?;
            train(&options, &device, Some(&DataParallel::new(nccl)?))
        }
        Some(other) => Err(format!("--distributed {other}: unknown, or not built in").into()),
    }
}

fn train(options: &Options, device: &Device, ranks: Option<&DataParallel>) -> Result<(), Error> {
    let kind = options.get("cell", "basic".to_owned())?;
    let keep_prob: f64 = options.get("keep-prob", 1.0)?;
    let epochs: u64 = options.get("epochs", 10)?;
    let seed: u64 = options.get("seed", 0)?;
    // A plain recurrent network occasionally produces a gradient many times larger than usual.
    let clip_norm: f64 = options.get("clip-norm", 1.0)?;
    let shards: usize = options.get("shards", if ranks.is_some() { 8 } else { 1 })?;
    // One process of a job writes for all.
    let say = |text: String| match ranks.is_none_or(|ranks| ranks.rank() == 0) {
        true => writeln!(stdout(), "{text}"),
        false => Ok(()),
    };

    let (train, test) = (Digits::open("train")?, Digits::open("t10k")?);
    let mut model = Classifier::new(device, &kind, keep_prob)?;
    model.initialize(seed)?;
    let mut adam = Adam::new(LEARNING_RATE);
    let shard = BATCH.div_ceil(shards.max(1));
    let mut batches = Batches::new(train.images.len(), shard, Remainder::Drop, seed)?;
    let mut trainer = Trainer::new(seed).accumulate(shards as u64);
    if clip_norm != 0.0 {
        trainer = trainer.clip_norm(clip_norm);
    }
    if let Some(ranks) = ranks {
        trainer = trainer.across(ranks);
    }
    let saving = Saving::of(options)?;
    let mut trainer = saving.begin(trainer, &kind, &mut model, &mut adam, &mut batches)?;

    if trainer.state().epoch >= epochs {
        say(format!(
            "epoch {} is already complete",
            trainer.state().epoch
        ))?;
    }
    while trainer.state().epoch < epochs {
        let start = Instant::now();
        let report =
            trainer.run_epoch(&mut model, &mut adam, &mut batches, |model, items, _| {
                let (images, labels) = train.batch(device, items)?;
                softmax_cross_entropy(&model.forward(&images)?, &labels)
            })?;
        let seconds = start.elapsed().as_secs_f64();
        // The first 10,000 images estimate the accuracy about as well as all of them.
        let on_train = train.accuracy(&model, device, ranks)?;
        let on_test = test.accuracy(&model, device, ranks)?;
        say(format!(
            "epoch {} train_accuracy {on_train:.4} test_accuracy {on_test:.4} seconds {seconds:.1}",
            report.epoch
        ))?;
    }
    let others = options.text("evaluate").into_iter();
    for name in others.flat_map(|names| names.split(',')) {
        let device: Device = name.parse()?;
        let on_test = test.accuracy(&model.to(&device)?, &device, ranks)?;
        say(format!("{name} test_accuracy {on_test:.4}"))?;
    }
    Ok(())
}
