//! Says how English words are pronounced: an encoder-decoder with attention maps letters to
//! phonemes.
//!
//! The encoder reads the letters in both directions. In training, the decoder reads the right
//! phonemes; afterwards `raw_rnn` runs it on its own ones, with a greedy and with a beam search.
//! The test words are every twentieth of the dictionary. A word with several pronunciations is
//! compared with the closest. For comparison: on another split of this dictionary, an LSTM
//! encoder-decoder without attention has 7.5 % wrong phonemes and 29.2 % wrong words (K. Yao and
//! G. Zweig, *Sequence-to-Sequence Neural Net Models for Grapheme-to-Phoneme Conversion*, 2015).
//! Run it with `cargo run --release --example phonemes`; the first run downloads the dictionary.

#[path = "support/cmudict.rs"]
mod cmudict;
#[path = "support/epochs.rs"]
mod epochs;
#[path = "support/saving.rs"]
mod saving;
#[path = "support/speller.rs"]
mod speller;
mod support;
#[path = "support/task.rs"]
mod task;

use std::fmt;
use std::io::{Write, stdout};
use std::process::ExitCode;

pub(crate) use cmudict::Entry;
use recurrent::data::{
    Batch, Column, Field, InMemory, Pad, Remainder, Sample, Schema, SourceExt, Vocabulary,
    WordVocabulary,
};
use recurrent::losses::SequenceLoss;
use recurrent::optim::Schedule;
use recurrent::prelude::*;
pub(crate) use speller::Speller;
use support::{Error, Options};
pub(crate) use task::Run;

const HELP: &str = "\
Maps the letters of English words to phonemes.

Options, with their defaults in parentheses:
  --epochs N          number of passes over the training words (5)
  --device NAME       cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --memory POLICY     what is kept for the gradient: store, or recompute for less memory (store)
  --seed N            seed of the initialization, of dropout and of the order (0)
  --evaluate NAME,..  more devices to evaluate the trained model on, such as cpu@int8 (none)
  --save DIR          save a checkpoint in DIR after each epoch, and at Ctrl-C
  --resume DIR        resume from the newest checkpoint in DIR, and save there
  --beam N            hypotheses of the beam search (4)
";

/// The units of the decoder.
pub(crate) const UNITS: usize = 256;
/// Enough to reach the stated error rates.
pub(crate) const EPOCHS: u64 = 5;
const BATCH: usize = 64;
const BOUNDARIES: [usize; 4] = [6, 8, 10, 13];
const LEARNING_RATE: f64 = 0.002;
/// The part of the learning rate that is left at the end.
const DECAY: f64 = 0.08;
/// The sound that ends a word, and the decoder's input before the first.
const END: &str = "<end>";

/// Words as samples: their letters, the sounds that the decoder reads, and those that it is to
/// say.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    schema: Schema,
    fields: [Field<i64>; 3],
    letters: Vocabulary,
    sounds: WordVocabulary,
    train: Vec<Sample>,
    test: Vec<Entry>,
}

impl Words {
    /// Those of the dictionary.
    pub(crate) fn fetch() -> Result<Self, Error> {
        let (train, test) = cmudict::fetch()?;
        Ok(Self::new(&train, test)?)
    }

    /// Words for training, each pronunciation a sample, and for testing.
    pub(crate) fn new(train: &[Entry], test: Vec<Entry>) -> recurrent::Result<Self> {
        let all = || train.iter().chain(&test);
        let letters: String = all().flat_map(|entry| entry.letters.chars()).collect();
        let sounds = all().flat_map(|entry| entry.sounds.iter().flatten());
        let sounds = sounds.map(String::as_str).chain([END]);
        let mut schema = Schema::new();
        let mut words = Self {
            fields: [
                schema.add("letters")?,
                schema.add("told")?,
                schema.add("sounds")?,
            ],
            schema,
            letters: Vocabulary::new(&letters),
            sounds: WordVocabulary::build(sounds, 1, usize::MAX),
            train: Vec::new(),
            test: Vec::new(),
        };
        let pairs = train
            .iter()
            .flat_map(|e| e.sounds.iter().map(move |sounds| (&e.letters, sounds)));
        let samples = pairs.map(|(letters, sounds)| words.sample(letters, sounds));
        words.train = samples.collect::<Result<_, _>>()?;
        words.test = test;
        // Words of one length together need little padding.
        words.test.sort_by_key(|entry| entry.letters.len());
        Ok(words)
    }

    fn sample(&self, letters: &str, sounds: &[String]) -> recurrent::Result<Sample> {
        let column = |ids: Vec<i64>| Column::new(&[ids.len()], ids);
        let ids: Vec<i64> = sounds.iter().map(|sound| self.sounds.id(sound)).collect();
        let end = [self.sounds.id(END)];
        self.schema.sample(vec![
            column(self.letters.encode(letters)?)?,
            column([&end[..], &ids].concat())?,
            column([&ids[..], &end].concat())?,
        ])
    }

    /// The mean cross entropy of the sounds of a batch.
    fn loss(&self, run: &Run, model: &Speller, batch: &Batch) -> recurrent::Result<Tensor> {
        let [letters, told, sounds] = self.fields;
        let inputs = [
            &batch.tensor(&run.device, letters)?,
            &batch.tensor(&run.device, told)?,
        ];
        let lengths = [batch.lengths(letters)?, batch.lengths(told)?];
        let logits = model.forward(run, inputs, lengths)?;
        let weights = batch.mask(&run.device, sounds, DType::F32)?;
        SequenceLoss::default().of(&logits, &batch.tensor(&run.device, sounds)?, &weights)
    }

    /// The error rates on the test words, with `width` hypotheses.
    pub(crate) fn errors(
        &self,
        run: &Run,
        model: &Speller,
        width: usize,
    ) -> recurrent::Result<ErrorRates> {
        let [letters, ..] = self.fields;
        let (mut wrong, mut all, mut wrong_words) = (0, 0, 0);
        for entries in self.test.chunks(250) {
            let samples = entries
                .iter()
                .map(|entry| self.sample(&entry.letters, &entry.sounds[0]));
            let batch = Pad::new().pad(&samples.collect::<Result<Vec<_>, _>>()?)?;
            let ids = batch.tensor(&run.device, letters)?;
            let end = self.sounds.id(END);
            let said = model.say(run, &ids, batch.lengths(letters)?, end, width)?;
            for (entry, said) in entries.iter().zip(said) {
                let guess: Vec<&str> = said
                    .iter()
                    .map(|&id| self.sounds.word(id).unwrap_or_default())
                    .collect();
                let (errors, sounds) = cmudict::errors(&guess, entry);
                wrong += errors;
                all += sounds;
                wrong_words += usize::from(errors > 0);
            }
        }
        Ok(ErrorRates {
            phonemes: wrong as f64 / all as f64,
            words: wrong_words as f64 / self.test.len() as f64,
        })
    }
}

/// Fractions of wrong phonemes (insertions, deletions and replacements) and of wrong words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorRates {
    pub(crate) phonemes: f64,
    pub(crate) words: f64,
}

impl fmt::Display for ErrorRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "phoneme_errors {:.4} word_errors {:.4}",
            self.phonemes, self.words
        )
    }
}

/// Trains a model with a decoder of `units` units.
pub(crate) fn train(run: &Run, words: &Words, units: usize) -> Result<Speller, Error> {
    let mut model = Speller::new(&run.device, words.letters.len(), words.sounds.len(), units)?;
    model.initialize(run.seed)?;
    let letters = words.fields[0];
    let mut batches = InMemory::new(words.train.clone())?
        .shuffled(run.seed)
        .bucket_by_sequence_length(
            |sample: &Sample| sample.steps(letters),
            &BOUNDARIES,
            &[BATCH],
            Remainder::Keep,
        )?
        .pad(Pad::new());
    let steps = (words.train.len() as u64 * run.epochs / BATCH as u64).max(1);
    let falling = Schedule::exponential(LEARNING_RATE, steps, DECAY);
    epochs::train(run, falling, &mut model, &mut batches, |model, batch| {
        words.loss(run, model, batch)
    })?;
    Ok(model)
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let known = [&task::OPTIONS[..], &["beam"]].concat();
    let options = Options::read(HELP, &known)?;
    let run = Run::of(&options, EPOCHS)?;
    let beam: usize = options.get("beam", 4)?;
    if beam == 0 {
        return Err("--beam 0: must not be 0".into());
    }
    let words = Words::fetch()?;
    let sounds = words.sounds.words().len() - 1;
    writeln!(
        stdout(),
        "{} pronunciations, {} test words, {sounds} phonemes",
        words.train.len(),
        words.test.len()
    )?;
    let model = train(&run, &words, UNITS)?;
    run.report(&model, |run, model| {
        let (greedy, best) = (
            words.errors(run, model, 1)?,
            words.errors(run, model, beam)?,
        );
        Ok(format!("greedy {greedy} beam {best}"))
    })
}
