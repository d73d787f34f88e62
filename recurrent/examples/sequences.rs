//! Labels each step of sequences that are stored as records, like TensorFlow's tutorial on
//! `SequenceExample`.
//!
//! Writes ragged sequences of tokens and labels to TFRecord files, reads them back, groups
//! sequences of similar length, pads them, runs a GRU with their lengths, and masks the padding in
//! the loss. The label of a step is the last marker seen so far, which may be long ago.

mod support;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use recurrent::data::{
    Batch, Compression, ExampleSpec, Field, FixedLenSequence, Pad, RecordFiles, RecordWriter,
    Remainder, Sample, SequenceExample, Source, SourceExt, files_with_extension,
};
use recurrent::losses::{SequenceLoss, weighted_accuracy};
use recurrent::prelude::*;
use recurrent::{Initializer, Param};
use support::{Error, Options};

const HELP: &str = "\
Labels each step of sequences that are stored as TFRecord files of SequenceExamples.

Options, with their defaults in parentheses:
  --data DIR         folder of the files; missing files are written (a temporary folder)
  --sequences N      number of training sequences to write (2000)
  --units N          hidden units of the GRU (64)
  --epochs N         number of passes over the data (6)
  --device NAME      cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --seed N           seed of the data, of the initialization and of the order (0)
";

/// Tokens below this value are markers, and so are the labels. Label 0 means that no marker has
/// been seen yet.
const MARKERS: i64 = 5;
const TOKENS: usize = 30;
const BATCH: usize = 32;
const BOUNDARIES: [usize; 4] = [15, 30, 60, 90];
/// Fraction of the steps of new sequences that are labelled correctly after training.
pub const STATED_ACCURACY: f64 = 0.99;

/// An embedding of tokens, a GRU, and an output layer over the labels.
#[derive(Clone, Debug)]
struct Tagger {
    embedding: Param,
    cell: GruCell,
    logits: Dense,
}

recurrent::module!(Tagger { embedding, cell as "rnn/gru_cell", logits as "dense" });

impl Tagger {
    fn new(device: &Device, units: usize, seed: u64) -> recurrent::Result<Self> {
        let uniform = Initializer::uniform(-0.5, 0.5);
        let mut model = Self {
            embedding: Param::new(device, uniform, &[TOKENS, 16], DType::F32)?,
            cell: GruCell::new(device, 16, units)?,
            logits: Dense::new(device, units, MARKERS as usize)?,
        };
        model.initialize(seed)?;
        Ok(model)
    }

    /// Maps ids `[batch, time]` to logits `[batch, time, labels]`.
    fn forward(&self, tokens: &Tensor, lengths: &[i64]) -> recurrent::Result<Tensor> {
        let vectors = self.embedding.gather(tokens)?;
        let rnn = DynamicRnn::new(&self.cell).sequence_length(lengths);
        self.logits.forward(&rnn.run(&vectors)?.outputs)
    }
}

/// The fields of a record.
struct Fields {
    spec: ExampleSpec,
    tokens: Field<i64>,
    labels: Field<i64>,
}

impl Fields {
    fn new() -> recurrent::Result<Self> {
        let mut spec = ExampleSpec::new();
        Ok(Self {
            tokens: spec.sequence(FixedLenSequence::<i64>::new("tokens", &[]))?,
            labels: spec.sequence(FixedLenSequence::<i64>::new("labels", &[]))?,
            spec,
        })
    }

    /// Logits, labels and weights of a batch; the weights are 0 in the padding.
    fn scores(
        &self,
        device: &Device,
        model: &Tagger,
        batch: &Batch,
    ) -> recurrent::Result<(Tensor, Tensor, Tensor)> {
        let lengths = batch.lengths(self.tokens)?;
        let tokens = batch.tensor(device, self.tokens)?;
        let labels = batch.tensor(device, self.labels)?;
        let logits = model.forward(&tokens, lengths)?;
        let weights = batch.mask(device, self.tokens, DType::F32)?;
        Ok((logits, labels, weights))
    }
}

/// A sequence of 5 to 120 tokens, usually short, and its labels.
fn sequence(draw: &mut impl FnMut(usize) -> usize) -> SequenceExample {
    let longest = [15, 30, 60, 120][draw(4)];
    let steps = 5 + draw(longest - 4);
    let mut tokens = Vec::with_capacity(steps);
    let mut labels = Vec::with_capacity(steps);
    let mut marker = 0;
    for _ in 0..steps {
        // One token in eight is a marker.
        let token = match draw(8) {
            0 => 1 + draw(MARKERS as usize - 1) as i64,
            _ => MARKERS + draw(TOKENS - MARKERS as usize) as i64,
        };
        if token < MARKERS {
            marker = token;
        }
        tokens.push([token]);
        labels.push([marker]);
    }
    SequenceExample::new()
        .feature_list("tokens", tokens)
        .feature_list("labels", labels)
}

/// Writes four files for training and one for testing, each with a quarter of `sequences`.
fn write(folder: &Path, sequences: usize, seed: u64) -> Result<(), Error> {
    let mut random = seed;
    let mut draw = |below: usize| {
        // SplitMix64.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    };
    for name in ["train-0", "train-1", "train-2", "train-3", "test"] {
        let path = folder.join(name).with_extension("tfrecord");
        let mut writer = RecordWriter::create(path, Compression::Gzip)?;
        for _ in 0..sequences.div_ceil(4) {
            writer.write(&sequence(&mut draw).to_bytes())?;
        }
        writer.finish()?;
    }
    Ok(())
}

/// Fraction of padding among the steps of an epoch's batches.
fn padding(batches: &mut impl Source<Item = Batch>, tokens: Field<i64>) -> Result<f64, Error> {
    let (mut all, mut real) = (0, 0);
    while let Some(batch) = batches.next_item()? {
        all += batch.get(tokens)?.len();
        real += batch.lengths(tokens)?.iter().sum::<i64>() as usize;
    }
    Ok(1.0 - real as f64 / all as f64)
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let known = ["data", "sequences", "units", "epochs", "device", "seed"];
    let options = Options::read(HELP, &known)?;
    let device = options.device()?;
    let temporary = std::env::temp_dir().join(format!("sequences-{}", std::process::id()));
    let folder = options
        .text("data")
        .map_or(temporary.clone(), PathBuf::from);
    let result = train(
        &device,
        &folder,
        options.get("sequences", 2000)?,
        options.get("units", 64)?,
        options.get("epochs", 6)?,
        options.get("seed", 0)?,
    );
    // Remove the data if the program generated it. An error of the training is the one to report.
    let removed = match temporary.exists() {
        true => std::fs::remove_dir_all(&temporary),
        false => Ok(()),
    };
    result?;
    Ok(removed?)
}

/// Generates the data if it does not exist, trains, and returns the accuracy on new sequences.
pub fn train(
    device: &Device,
    folder: &Path,
    sequences: usize,
    units: usize,
    epochs: u64,
    seed: u64,
) -> Result<f64, Error> {
    let test = folder.join("test.tfrecord");
    if !test.exists() {
        std::fs::create_dir_all(folder)?;
        write(folder, sequences, seed)?;
    }
    let train: Vec<PathBuf> = files_with_extension(folder, "tfrecord")?
        .into_iter()
        .filter(|path| *path != test)
        .collect();
    let fields = Fields::new()?;
    let (tokens, spec) = (fields.tokens, &fields.spec);
    let samples = |files: &[PathBuf]| Ok::<_, Error>(RecordFiles::open(files)?.parse(spec.clone()));
    let steps = |sample: &Sample| sample.steps(tokens);

    let mut in_order = samples(&train)?
        .group(BATCH, Remainder::Keep)?
        .pad(Pad::new());
    let without = padding(&mut in_order, tokens)?;
    let mut batches = RecordFiles::open(&train)?
        .shuffle_files(seed)
        .parse(spec.clone())
        .shuffle(500, seed)?
        .bucket_by_sequence_length(steps, &BOUNDARIES, &[BATCH], Remainder::Keep)?
        .pad(Pad::new());
    let with = padding(&mut batches, tokens)?;
    writeln!(
        stdout(),
        "padding: {:.1} % of the steps in file order, {:.1} % in buckets: {:.0} % less",
        100.0 * without,
        100.0 * with,
        100.0 * (1.0 - with / without)
    )?;

    let mut model = Tagger::new(device, units, seed)?;
    let mut adam = Adam::new(0.005);
    let mut trainer = Trainer::new(seed).clip_norm(5.0);
    let mut accuracy = 0.0;
    while trainer.state().epoch < epochs {
        let start = Instant::now();
        let report =
            trainer.run_epoch(&mut model, &mut adam, &mut batches, |model, batch, _| {
                let (logits, labels, weights) = fields.scores(device, model, batch)?;
                SequenceLoss::default().of(&logits, &labels, &weights)
            })?;
        // Weighted by the number of steps, which differs between batches.
        let mut held_out = samples(std::slice::from_ref(&test))?
            .group(BATCH, Remainder::Keep)?
            .pad(Pad::new());
        let (mut right, mut all) = (0.0, 0.0);
        while let Some(batch) = held_out.next_item()? {
            let (logits, labels, weights) = fields.scores(device, &model, &batch)?;
            let steps = weights.sum_all()?.item()?;
            right += steps * weighted_accuracy(&logits, &labels, &weights)?;
            all += steps;
        }
        accuracy = right / all;
        writeln!(
            stdout(),
            "epoch {} loss {:.4} test_accuracy {accuracy:.4} seconds {:.1}",
            report.epoch,
            report.mean_loss,
            start.elapsed().as_secs_f64()
        )?;
    }
    if accuracy < STATED_ACCURACY {
        let text = format!("the accuracy is {accuracy:.4}, below the stated {STATED_ACCURACY}");
        return Err(text.into());
    }
    Ok(accuracy)
}
