//! Tags each word of the Brown corpus with its part of speech: an LSTM in each direction reads the
//! sentence.
//!
//! Sentences of similar length are padded together; the padding counts neither in the loss nor in
//! the accuracy. A word is known by itself and by its last three letters, which say something of
//! words that training has not seen. The baseline gives each word the tag that it has most often.
//! Run it with `cargo run --release --example tagger`; the first run downloads the corpus.

#[path = "support/brown.rs"]
mod brown;
#[path = "support/epochs.rs"]
mod epochs;
#[path = "support/saving.rs"]
mod saving;
mod support;
#[path = "support/task.rs"]
mod task;

use std::io::{Write, stdout};
use std::process::ExitCode;

use brown::{Sentence, baseline};
use recurrent::BidirectionalDynamicRnn;
use recurrent::data::{
    Batch, Bucket, Column, Field, InMemory, Map, Pad, Remainder, Sample, Schema, Source, SourceExt,
    WordVocabulary,
};
use recurrent::losses::{SequenceLoss, weighted_accuracy};
use recurrent::optim::Schedule;
use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;
use support::{Error, Options};
pub(crate) use task::Run;

const HELP: &str = "\
Tags the words of the Brown corpus with their parts of speech.

Options, with their defaults in parentheses:
  --epochs N          number of passes over the training sentences (3)
  --device NAME       cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --memory POLICY     what is kept for the gradient: store, or recompute for less memory (store)
  --seed N            seed of the initialization, of dropout and of the order (0)
  --evaluate NAME,..  more devices to evaluate the trained model on, such as cpu@int8 (none)
  --save DIR          save a checkpoint in DIR after each epoch, and at Ctrl-C
  --resume DIR        resume from the newest checkpoint in DIR, and save there
";

/// Units of the LSTM of each direction.
pub(crate) const UNITS: usize = 100;
/// Enough to reach the stated accuracy.
pub(crate) const EPOCHS: u64 = 3;
const BATCH: usize = 32;
const BOUNDARIES: [usize; 5] = [8, 16, 24, 32, 48];
const WORD: usize = 64;
const ENDING: usize = 32;
const KEEP_PROB: f64 = 0.7;
const LEARNING_RATE: f64 = 0.003;

/// Embeddings of words and of their endings, an LSTM for each direction, and an output layer.
#[derive(Clone, Debug)]
pub(crate) struct Tagger {
    words: Param,
    endings: Param,
    forward: DropoutWrapper<LstmCell>,
    backward: DropoutWrapper<LstmCell>,
    logits: Dense,
}

recurrent::module!(Tagger {
    words, endings, forward as "fw/lstm_cell", backward as "bw/lstm_cell", logits as "dense"
});

impl Tagger {
    fn new(device: &Device, corpus: &Corpus, units: usize) -> recurrent::Result<Self> {
        let uniform = Initializer::uniform(-0.1, 0.1);
        let embedding = |rows, size| Param::new(device, uniform, &[rows, size], DType::F32);
        let lstm = || {
            let cell = LstmCell::new(device, WORD + ENDING, units)?;
            DropoutWrapper::builder(cell)
                .input_keep_prob(KEEP_PROB)
                .build()
        };
        Ok(Self {
            words: embedding(corpus.words.len(), WORD)?,
            endings: embedding(corpus.endings.len(), ENDING)?,
            forward: lstm()?,
            backward: lstm()?,
            logits: Dense::new(device, 2 * units, corpus.tags.len())?,
        })
    }

    /// Logits `[batch, time, tags]` of ids `[batch, time]`.
    fn forward(
        &self,
        run: &Run,
        [words, endings]: [&Tensor; 2],
        lengths: &[i64],
    ) -> recurrent::Result<Tensor> {
        let vectors = [&self.words.gather(words)?, &self.endings.gather(endings)?];
        let rnn = BidirectionalDynamicRnn::new(&self.forward, &self.backward)
            .memory_policy(run.memory)
            .segment_length(Run::SEGMENT)
            .sequence_length(lengths)
            .run(&Tensor::concat(&vectors, 2)?)?;
        let (ahead, back) = &rnn.outputs;
        self.logits.forward(&Tensor::concat(&[ahead, back], 2)?)
    }
}

/// Sentences as samples of ids, one for each word.
#[derive(Clone, Debug)]
pub(crate) struct Corpus {
    schema: Schema,
    fields: [Field<i64>; 3],
    words: WordVocabulary,
    endings: WordVocabulary,
    tags: WordVocabulary,
    train: Vec<Sample>,
    test: Vec<Sample>,
    /// Fraction of the words of the test sentences to which their most frequent tag is right.
    pub(crate) baseline: f64,
}

impl Corpus {
    /// The Brown corpus.
    pub(crate) fn fetch() -> Result<Self, Error> {
        let (train, test) = brown::fetch()?;
        Ok(Self::new(&train, &test)?)
    }

    /// A corpus of these sentences. Words that occur once in training are unknown words.
    pub(crate) fn new(train: &[Sentence], test: &[Sentence]) -> recurrent::Result<Self> {
        let words = || train.iter().flatten().map(|(word, _)| word.as_str());
        let tags = train
            .iter()
            .chain(test)
            .flatten()
            .map(|(_, tag)| tag.as_str());
        let mut schema = Schema::new();
        let mut corpus = Self {
            fields: [
                schema.add("words")?,
                schema.add("endings")?,
                schema.add("tags")?,
            ],
            schema,
            words: WordVocabulary::build(words(), 2, usize::MAX),
            endings: WordVocabulary::build(words().map(ending), 2, usize::MAX),
            tags: WordVocabulary::build(tags, 1, usize::MAX),
            train: Vec::new(),
            test: Vec::new(),
            baseline: baseline(train, test),
        };
        corpus.train = corpus.samples(train)?;
        corpus.test = corpus.samples(test)?;
        Ok(corpus)
    }

    fn samples(&self, sentences: &[Sentence]) -> recurrent::Result<Vec<Sample>> {
        let column = |sentence: &Sentence, id: &dyn Fn(&str, &str) -> i64| {
            let ids: Vec<i64> = sentence.iter().map(|(word, tag)| id(word, tag)).collect();
            Column::new(&[ids.len()], ids)
        };
        let sample = |sentence| {
            self.schema.sample(vec![
                column(sentence, &|word, _| self.words.id(word))?,
                column(sentence, &|word, _| self.endings.id(ending(word)))?,
                column(sentence, &|_, tag| self.tags.id(tag))?,
            ])
        };
        sentences.iter().map(sample).collect()
    }

    /// Padded batches of sentences of similar length.
    fn batches(&self, samples: InMemory<Sample>) -> recurrent::Result<Batches> {
        let words = self.fields[0];
        let length: Length = Box::new(move |sample| sample.steps(words));
        let buckets =
            samples.bucket_by_sequence_length(length, &BOUNDARIES, &[BATCH], Remainder::Keep)?;
        Ok(buckets.pad(Pad::new()))
    }

    /// Logits, tags and weights of a batch; the weights are 0 in the padding.
    fn scores(&self, run: &Run, model: &Tagger, batch: &Batch) -> recurrent::Result<[Tensor; 3]> {
        let [words, endings, tags] = self.fields;
        let inputs = [
            &batch.tensor(&run.device, words)?,
            &batch.tensor(&run.device, endings)?,
        ];
        let logits = model.forward(run, inputs, batch.lengths(words)?)?;
        let weights = batch.mask(&run.device, words, DType::F32)?;
        Ok([logits, batch.tensor(&run.device, tags)?, weights])
    }

    /// Fraction of the words of the test sentences that the model tags rightly.
    pub(crate) fn accuracy(&self, run: &Run, model: &Tagger) -> recurrent::Result<f64> {
        let mut batches = self.batches(InMemory::new(self.test.clone())?)?;
        let (mut right, mut all) = (0.0, 0.0);
        while let Some(batch) = batches.next_item()? {
            let [logits, tags, weights] = self.scores(run, model, &batch)?;
            let words = weights.sum_all()?.item()?;
            right += words * weighted_accuracy(&logits, &tags, &weights)?;
            all += words;
        }
        Ok(right / all)
    }
}

type Length = Box<dyn FnMut(&Sample) -> recurrent::Result<usize>>;
type Batches = Map<Bucket<InMemory<Sample>, Length>, Pad>;

/// The last three letters of a word.
fn ending(word: &str) -> &str {
    let start = word.char_indices().rev().nth(2).map_or(0, |(at, _)| at);
    &word[start..]
}

/// Trains a model with LSTMs of `units` units.
pub(crate) fn train(run: &Run, corpus: &Corpus, units: usize) -> Result<Tagger, Error> {
    let mut model = Tagger::new(&run.device, corpus, units)?;
    model.initialize(run.seed)?;
    let samples = InMemory::new(corpus.train.clone())?.shuffled(run.seed);
    let mut batches = corpus.batches(samples)?;
    epochs::train(
        run,
        Schedule::Constant(LEARNING_RATE),
        &mut model,
        &mut batches,
        |model, batch| {
            let [logits, tags, weights] = corpus.scores(run, model, batch)?;
            SequenceLoss::default().of(&logits, &tags, &weights)
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
    let corpus = Corpus::fetch()?;
    writeln!(
        stdout(),
        "{} sentences, {} tags, baseline {:.4}",
        corpus.train.len() + corpus.test.len(),
        corpus.tags.words().len(),
        corpus.baseline
    )?;
    let model = train(&run, &corpus, UNITS)?;
    run.report(&model, |run, model| {
        Ok(format!("accuracy {:.4}", corpus.accuracy(run, model)?))
    })
}
