//! A language model of words, as in TensorFlow's tutorial on the Penn Treebank: two LSTM layers
//! with dropout between them predict the next word.
//!
//! Back-propagation through time is truncated to windows, and the state is carried from one window
//! of the text to the next. The learning rate falls after each epoch. The text is *Moby-Dick*,
//! whose last tenth is held out, half of it for testing; `--text` names a folder with the files of
//! the Penn Treebank instead. Run it with `cargo run --release --example ptb`.

#[path = "support/saving.rs"]
mod saving;
mod support;
#[path = "support/task.rs"]
mod task;

use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use datasets::committed_root;
use recurrent::data::{InOrder, TextWindow, TextWindows, WordVocabulary, split_tail};
use recurrent::optim::Schedule;
use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;
use support::{Error, Options};
pub(crate) use task::Run;
use task::print_epoch;

const HELP: &str = "\
Trains a language model of words, and prints its perplexity.

Options, with their defaults in parentheses:
  --text FOLDER       folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt (the committed
                      Moby-Dick)
  --epochs N          number of passes over the text (6)
  --device NAME       cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --memory POLICY     what is kept for the gradient: store, or recompute for less memory (store)
  --seed N            seed of the initialization and of dropout (0)
  --evaluate NAME,..  more devices to evaluate the trained model on, such as cpu@int8 (none)
  --save DIR          save a checkpoint in DIR after each epoch, and at Ctrl-C
  --resume DIR        resume from the newest checkpoint in DIR, and save there
";

/// Words that the model knows; the others are one unknown word.
const WORDS: usize = 6000;
/// The units of each layer, and of the embedding.
pub(crate) const UNITS: usize = 200;
/// Enough to reach the stated perplexity.
pub(crate) const EPOCHS: u64 = 6;
const BATCH: usize = 20;
const STEPS: usize = 35;
const KEEP_PROB: f64 = 0.5;
const LEARNING_RATE: f64 = 0.003;
/// The learning rate is multiplied by this after each epoch.
const DECAY: f64 = 0.7;

type State = Vec<LstmState>;

/// An embedding of words, two layers, and an output layer for the next word.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    embedding: Param,
    layers: MultiRnnCell<Vec<DropoutWrapper<BasicLstmCell>>>,
    logits: Dense,
}

recurrent::module!(Writer { embedding, layers as "rnn/multi_rnn_cell", logits as "softmax" });

impl Writer {
    fn new(device: &Device, words: usize, units: usize) -> recurrent::Result<Self> {
        let uniform = Initializer::uniform(-0.1, 0.1);
        let layer = |dropped_input| {
            let cell = BasicLstmCell::builder(units, units).kernel_initializer(uniform);
            DropoutWrapper::builder(cell.build(device)?)
                .input_keep_prob(dropped_input)
                .output_keep_prob(KEEP_PROB)
                .build()
        };
        Ok(Self {
            embedding: Param::new(device, uniform, &[words, units], DType::F32)?,
            layers: MultiRnnCell::new(vec![layer(KEEP_PROB)?, layer(1.0)?])?,
            logits: Dense::new(device, units, words)?.kernel_initializer(uniform)?,
        })
    }

    /// Mean cross entropy of a window, and the state after it.
    fn loss(
        &self,
        run: &Run,
        window: &TextWindow,
        state: &State,
    ) -> recurrent::Result<(Tensor, State)> {
        let shape = [BATCH, window.inputs.len() / BATCH];
        let ids = Tensor::from_slice(&run.device, &window.inputs, &shape)?;
        let targets = Tensor::from_slice(&run.device, &window.targets, &shape)?;
        let rnn = DynamicRnn::new(&self.layers)
            .memory_policy(run.memory)
            .segment_length(Run::SEGMENT)
            .initial_state(state.clone())
            .run(&self.embedding.gather(&ids)?)?;
        let loss = softmax_cross_entropy(&self.logits.forward(&rnn.outputs)?, &targets)?;
        Ok((loss, rnn.state))
    }

    /// The exponential of the mean cross entropy of a text.
    pub(crate) fn perplexity(&self, run: &Run, ids: &[i64]) -> recurrent::Result<f64> {
        let windows = TextWindows::new(ids, BATCH, STEPS)?;
        let count = windows.len() as f64;
        let (mut total, mut state) = (0.0, self.layers.zero_state(BATCH)?);
        for window in windows {
            let (loss, next) = self.loss(run, &window, &state)?;
            (total, state) = (total + loss.item()?, next);
        }
        Ok((total / count).exp())
    }
}

/// The ids of a text in three parts.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    vocabulary: WordVocabulary,
    pub(crate) train: Vec<i64>,
    pub(crate) valid: Vec<i64>,
    pub(crate) test: Vec<i64>,
}

impl Text {
    /// The words of the training part are numbered.
    pub(crate) fn new([train, valid, test]: [&str; 3], words: usize) -> Self {
        let vocabulary = WordVocabulary::build([train], 1, words);
        let [train, valid, test] = [train, valid, test].map(|text| vocabulary.encode(text));
        Self {
            vocabulary,
            train,
            valid,
            test,
        }
    }

    /// The committed text.
    pub(crate) fn moby_dick() -> Result<Self, Error> {
        let text = std::fs::read_to_string(committed_root().join("moby-dick.txt"))?;
        let words = separated(&text);
        let words: Vec<&str> = words.split_whitespace().collect();
        let (train, rest) = split_tail(&words, 10)?;
        let (valid, test) = split_tail(rest, 2)?;
        let [train, valid, test] = [train, valid, test].map(|words| words.join(" "));
        Ok(Self::new([&train, &valid, &test], WORDS))
    }

    /// The files of the Penn Treebank: a line a sentence, whose end is a word, too.
    fn treebank(folder: &Path) -> Result<Self, Error> {
        let read = |part| {
            let path = folder.join(format!("ptb.{part}.txt"));
            let text = std::fs::read_to_string(&path);
            text.map(|text| text.replace('\n', " <eos> "))
                .map_err(|e| format!("{}: {e}", path.display()))
        };
        let (train, valid, test) = (read("train")?, read("valid")?, read("test")?);
        Ok(Self::new([&train, &valid, &test], usize::MAX))
    }
}

/// A text in lower case with spaces around punctuation.
fn separated(text: &str) -> String {
    let mut separated = String::new();
    for c in text.to_lowercase().chars() {
        match c {
            _ if c.is_alphanumeric() || c.is_whitespace() || "'’".contains(c) => {
                separated.push(c)
            }
            _ => separated.extend([' ', c, ' ']),
        }
    }
    separated
}

/// Trains a model of layers of `units` units.
pub(crate) fn train(run: &Run, text: &Text, units: usize) -> Result<Writer, Error> {
    let mut model = Writer::new(&run.device, text.vocabulary.len(), units)?;
    model.initialize(run.seed)?;
    let windows = TextWindows::new(&text.train, BATCH, STEPS)?;
    let falling = Schedule::Exponential {
        start: LEARNING_RATE,
        decay_steps: windows.len() as u64,
        decay_rate: DECAY,
        staircase: true,
    };
    let mut adam = Adam::new(LEARNING_RATE);
    let trainer = Trainer::new(run.seed).clip_norm(5.0).schedule(falling);
    let mut windows = InOrder::new(windows);
    let saving = &run.saving;
    let mut trainer = saving.begin(trainer, "", &mut model, &mut adam, &mut windows)?;
    let zero = model.layers.zero_state(BATCH)?;
    while trainer.state().epoch < run.epochs {
        let start = Instant::now();
        let report = trainer.run_epoch_carrying(
            &mut model,
            &mut adam,
            &mut windows,
            &zero,
            |model, window, state, _| model.loss(run, window, state),
        )?;
        let train = report.mean_loss.exp();
        print_epoch(
            report.epoch,
            start,
            format_args!("train_perplexity {train:.1}"),
        )?;
        writeln!(
            stdout(),
            "  valid_perplexity {:.1}",
            model.perplexity(run, &text.valid)?
        )?;
    }
    Ok(model)
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let known = [&task::OPTIONS[..], &["text"]].concat();
    let options = Options::read(HELP, &known)?;
    let run = Run::of(&options, EPOCHS)?;
    let text = match options.text("text") {
        None => Text::moby_dick()?,
        Some(folder) => Text::treebank(Path::new(folder))?,
    };
    writeln!(
        stdout(),
        "{} words for training, {} for testing, {} known",
        text.train.len(),
        text.test.len(),
        text.vocabulary.len()
    )?;
    let model = train(&run, &text, UNITS)?;
    run.report(&model, |run, model| {
        Ok(format!(
            "perplexity {:.2}",
            model.perplexity(run, &text.test)?
        ))
    })
}
