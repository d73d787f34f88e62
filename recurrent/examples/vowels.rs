//! Tells which of nine speakers uttered two Japanese vowels, from series of 12 numbers (cepstral
//! coefficients of the sound) of 7 to 29 steps.
//!
//! A GRU reads each utterance to its own last step, and its output there decides. Run it with
//! `cargo run --release --example vowels`; the first run downloads the data, with the usual 270
//! utterances for training and 370 for testing.

#[path = "support/epochs.rs"]
mod epochs;
#[path = "support/saving.rs"]
mod saving;
mod support;
#[path = "support/task.rs"]
mod task;

use std::path::Path;
use std::process::ExitCode;

use datasets::{dataset, default_root};
use recurrent::data::{Batch, Column, Field, InMemory, Pad, Remainder, Sample};
use recurrent::data::{Schema, SourceExt};
use recurrent::losses::accuracy;
use recurrent::optim::Schedule;
use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;
use support::{Error, Options};
pub(crate) use task::Run;

const HELP: &str = "\
Tells which of nine speakers uttered two Japanese vowels.

Options, with their defaults in parentheses:
  --epochs N          number of passes over the training utterances (60)
  --device NAME       cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --memory POLICY     what is kept for the gradient: store, or recompute for less memory (store)
  --seed N            seed of the initialization, of dropout and of the order (0)
  --evaluate NAME,..  more devices to evaluate the trained model on, such as cpu@int8 (none)
  --save DIR          save a checkpoint in DIR after each epoch, and at Ctrl-C
  --resume DIR        resume from the newest checkpoint in DIR, and save there
";

const CHANNELS: usize = 12;
const SPEAKERS: usize = 9;
const BATCH: usize = 30;
/// The units of the GRU.
pub(crate) const UNITS: usize = 64;
/// Enough to reach the stated accuracy.
pub(crate) const EPOCHS: u64 = 60;
const KEEP_PROB: f64 = 0.8;
const LEARNING_RATE: f64 = 0.003;

/// A GRU whose inputs are dropped in training, and an output layer on its last output.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    cell: DropoutWrapper<GruCell>,
    logits: Dense,
}

recurrent::module!(Listener { cell as "rnn/gru_cell", logits as "dense" });

impl Listener {
    fn new(device: &Device, units: usize) -> recurrent::Result<Self> {
        let cell = GruCell::new(device, CHANNELS, units)?;
        Ok(Self {
            cell: DropoutWrapper::builder(cell)
                .input_keep_prob(KEEP_PROB)
                .build()?,
            logits: Dense::new(device, units, SPEAKERS)?,
        })
    }

    /// Logits `[batch, speakers]` of frames `[batch, time, channels]`.
    fn forward(&self, run: &Run, frames: &Tensor, lengths: &[i64]) -> recurrent::Result<Tensor> {
        let rnn = DynamicRnn::new(&self.cell)
            .memory_policy(run.memory)
            .segment_length(Run::SEGMENT)
            .sequence_length(lengths)
            .run(frames)?;
        self.logits.forward(&rnn.state)
    }
}

/// Utterances as samples: the numbers of each step, and the speaker.
#[derive(Clone, Debug)]
pub(crate) struct Utterances {
    schema: Schema,
    frames: Field<f32>,
    speaker: Field<i64>,
    pub(crate) train: Vec<Sample>,
    pub(crate) test: Vec<Sample>,
}

impl Utterances {
    /// No utterances yet.
    pub(crate) fn new() -> recurrent::Result<Self> {
        let mut schema = Schema::new();
        Ok(Self {
            frames: schema.add("frames")?,
            speaker: schema.add("speaker")?,
            schema,
            train: Vec::new(),
            test: Vec::new(),
        })
    }

    /// Those of the data set.
    pub(crate) fn fetch() -> Result<Self, Error> {
        let folder = dataset("japanese-vowels")?.ensure(&default_root())?;
        let mut all = Self::new()?;
        all.train = all.read(&folder.join("JapaneseVowels_TRAIN.ts"))?;
        all.test = all.read(&folder.join("JapaneseVowels_TEST.ts"))?;
        Ok(all)
    }

    /// A sample of numbers `[steps, channels]` and a speaker from 0.
    pub(crate) fn sample(&self, frames: Vec<f32>, speaker: i64) -> recurrent::Result<Sample> {
        let frames = Column::new(&[frames.len() / CHANNELS, CHANNELS], frames)?;
        self.schema
            .sample(vec![frames, Column::scalar::<i64>(speaker)])
    }

    /// Reads a file in the format `.ts`: a line an utterance, with a colon between the channels and
    /// before the speaker from 1, and a comma between the steps.
    fn read(&self, path: &Path) -> Result<Vec<Sample>, Error> {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().filter(|line| !line.starts_with(['#', '@']));
        lines.map(|line| self.parse(line)).collect()
    }

    fn parse(&self, line: &str) -> Result<Sample, Error> {
        let (series, speaker) = line.rsplit_once(':').ok_or("a line has no colon")?;
        let channels = series.split(':').map(|channel| {
            let numbers = channel.split(',').map(str::parse);
            numbers.collect::<Result<Vec<f32>, _>>()
        });
        let channels: Vec<Vec<f32>> = channels.collect::<Result<_, _>>()?;
        let steps = channels[0].len();
        if channels.len() != CHANNELS || channels.iter().any(|channel| channel.len() != steps) {
            return Err(format!("a line has not {CHANNELS} channels of equal length").into());
        }
        let frames = (0..steps).flat_map(|t| channels.iter().map(move |channel| channel[t]));
        Ok(self.sample(frames.collect(), speaker.parse::<i64>()? - 1)?)
    }

    /// The logits of a batch, and the speakers.
    fn scores(
        &self,
        run: &Run,
        model: &Listener,
        batch: &Batch,
    ) -> recurrent::Result<(Tensor, Tensor)> {
        let frames = batch.tensor(&run.device, self.frames)?;
        let logits = model.forward(run, &frames, batch.lengths(self.frames)?)?;
        Ok((logits, batch.tensor(&run.device, self.speaker)?))
    }

    /// Fraction of the test utterances whose speaker the model finds.
    pub(crate) fn accuracy(&self, run: &Run, model: &Listener) -> recurrent::Result<f64> {
        let all = Pad::new().pad(&self.test)?;
        let (logits, speakers) = self.scores(run, model, &all)?;
        accuracy(&logits, &speakers)
    }
}

/// Trains a model of `units` units.
pub(crate) fn train(run: &Run, data: &Utterances, units: usize) -> Result<Listener, Error> {
    let mut model = Listener::new(&run.device, units)?;
    model.initialize(run.seed)?;
    let mut batches = InMemory::new(data.train.clone())?
        .shuffled(run.seed)
        .group(BATCH, Remainder::Keep)?
        .pad(Pad::new());
    epochs::train(
        run,
        Schedule::Constant(LEARNING_RATE),
        &mut model,
        &mut batches,
        |model, batch| {
            let (logits, speakers) = data.scores(run, model, batch)?;
            softmax_cross_entropy(&logits, &speakers)
        },
    )?;
    Ok(model)
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let options = Options::read(HELP, &task::OPTIONS)?;
    let run = Run::of(&options, EPOCHS)?;
    let data = Utterances::fetch()?;
    let model = train(&run, &data, UNITS)?;
    run.report(&model, |run, model| {
        Ok(format!("accuracy {:.4}", data.accuracy(run, model)?))
    })
}
