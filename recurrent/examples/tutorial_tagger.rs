//! The BiLSTM tagger of many TensorFlow tutorials: tags each word of a sentence. A word such as
//! *can* is a noun, a verb or a modal verb, as its neighbours on both sides decide. Sentences of
//! different lengths are padded; the padding counts neither in the loss nor in the accuracy.

use std::error::Error;
use std::io::{Write, stdout};

use recurrent::BidirectionalDynamicRnn;
use recurrent::data::WordVocabulary;
use recurrent::losses::{SequenceLoss, sequence_mask, weighted_accuracy};
use recurrent::prelude::*;

const GLOROT: Initializer = Initializer::GlorotUniform;
const TAGS: [&str; 5] = ["PRON", "DET", "NOUN", "VERB", "MODAL"];
const PATTERNS: [&str; 4] = [
    "they/PRON 1/VERB the/DET 2/NOUN",
    "they/PRON can/MODAL 1/VERB the/DET 2/NOUN",
    "the/DET 1/NOUN will/MODAL 2/VERB",
    "the/DET 1/NOUN can/MODAL 2/VERB",
];
const AMBIGUOUS: [&str; 6] = ["can", "fish", "water", "plant", "paint", "will"];

#[derive(Clone, Debug)]
struct Tagger {
    embeddings: Param,
    forward: LstmCell,
    backward: LstmCell,
    proj: Dense,
}

module!(Tagger { embeddings, forward as "fw/lstm_cell", backward as "bw/lstm_cell", proj });

/// Padded ids and tags `[sentences, 5]`, a mask of the words, and lengths.
struct Batch(Tensor, Tensor, Tensor, Vec<usize>);

impl Tagger {
    /// Logits `[sentences, 5, tags]`.
    fn logits(&self, Batch(ids, .., lengths): &Batch) -> recurrent::Result<Tensor> {
        let rnn = BidirectionalDynamicRnn::new(&self.forward, &self.backward);
        let rnn = rnn
            .sequence_length(lengths)
            .run(&self.embeddings.gather(ids)?)?;
        self.proj
            .forward(&Tensor::concat(&[&rnn.outputs.0, &rnn.outputs.1], 2)?)
    }
}

/// All sentences of the patterns, `word/TAG` separated by spaces.
fn sentences() -> Vec<String> {
    let pairs = AMBIGUOUS.map(|a| AMBIGUOUS.map(|b| (a, b)));
    let fill = |(a, b)| PATTERNS.map(|pattern| pattern.replace('1', a).replace('2', b));
    pairs.into_iter().flatten().flat_map(fill).collect()
}

fn batch(device: &Device, words: &WordVocabulary, text: &[&String]) -> recurrent::Result<Batch> {
    let (mut ids, mut tags, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for (row, sentence) in text.iter().enumerate() {
        for (word, tag) in sentence.split(' ').filter_map(|pair| pair.split_once('/')) {
            ids.push(words.id(word));
            tags.push(TAGS.iter().position(|&t| t == tag).unwrap_or_default() as i64);
        }
        lengths.push(ids.len() - 5 * row);
        ids.resize(5 * (row + 1), WordVocabulary::PADDING);
        tags.resize(ids.len(), 0);
    }
    let tensor = |numbers: &[i64]| Tensor::from_ints(device, numbers, &[text.len(), 5]);
    let (ids, tags) = (tensor(&ids)?, tensor(&tags)?);
    let mask = sequence_mask(&Tensor::from_ints(device, &lengths, &[text.len()])?, 5)?;
    Ok(Batch(ids, tags, mask.cast(DType::F32)?, lengths))
}

/// Prints the loss and the accuracy on sentences that were held out, and a tagged sentence.
pub fn tutorial(device: &Device, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let all = sentences();
    let text = all.iter().flat_map(|s| s.split([' ', '/']));
    let words = WordVocabulary::build(text, 1, 100);
    let part = |held_out: bool| {
        let items = (0..all.len()).filter(|i| (i % 5 == 2) == held_out);
        batch(device, &words, &items.map(|i| &all[i]).collect::<Vec<_>>())
    };
    let (train, test) = (part(false)?, part(true)?);

    let mut model = Tagger {
        embeddings: Param::new(device, GLOROT, &[words.len(), 16], DType::F32)?,
        forward: LstmCell::new(device, 16, 16)?,
        backward: LstmCell::new(device, 16, 16)?,
        proj: Dense::new(device, 32, TAGS.len())?,
    };
    model.initialize(42)?;
    let mut optimizer = Adam::new(0.02);
    for epoch in 1..=40 {
        let (loss, grads) = value_and_grad(&model, |model| {
            SequenceLoss::default().of(&model.logits(&train)?, &train.1, &train.2)
        })?;
        optimizer.step(&mut model, &grads)?;
        if epoch % 10 == 0 {
            let right = weighted_accuracy(&model.logits(&test)?, &test.1, &test.2)?;
            let loss = loss.item()?;
            writeln!(out, "epoch {epoch} loss {loss:.4} accuracy {right:.4}")?;
        }
    }
    let sentence = "they/? can/? the/? can/?".to_owned();
    let logits = model.logits(&batch(device, &words, &[&sentence])?)?;
    let tags = logits.argmax(2)?.to_vec::<i64>()?;
    let tag = |(word, tag): (&str, i64)| word.replace('?', TAGS[tag as usize]);
    let tagged: Vec<String> = sentence.split(' ').zip(tags).map(tag).collect();
    writeln!(out, "{}", tagged.join(" "))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    tutorial(&Device::from_env()?, &mut stdout())
}
