//! An encoder of letters and a decoder of phonemes with attention.

use recurrent::BidirectionalDynamicRnn;
use recurrent::losses::sequence_mask;
use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;
use recurrent::{RawRnnStep, raw_rnn};

use super::task::Run;

/// Size of the embeddings.
const EMBEDDING: usize = 64;
const KEEP_PROB: f64 = 0.8;
/// No pronunciation is longer.
const LONGEST: usize = 40;

/// A GRU in each direction reads the letters. Another GRU says the phonemes; each of its outputs
/// attends to the letters (Luong et al. 2015, "general" scores).
#[derive(Clone, Debug)]
pub struct Speller {
    letters: Param,
    sounds: Param,
    forward: GruCell,
    backward: GruCell,
    decoder: DropoutWrapper<GruCell>,
    query: Dense,
    combined: Dense,
    logits: Dense,
}

recurrent::module!(Speller {
    letters, sounds, forward as "fw/gru_cell", backward as "bw/gru_cell",
    decoder as "decoder/gru_cell", query, combined, logits
});

/// What the decoder attends to: the outputs of the encoder `[batch, letters, units]`, and a penalty
/// `[batch, 1, letters]` for the padding.
#[derive(Clone, Debug)]
struct Heard {
    outputs: Tensor,
    penalty: Tensor,
}

/// A partial pronunciation in a beam.
#[derive(Clone, Debug)]
struct Hypothesis {
    sounds: Vec<i64>,
    log_probability: f32,
    ended: bool,
}

impl Speller {
    /// `units` of the decoder, half as many in each direction of the encoder.
    pub fn new(
        device: &Device,
        letters: usize,
        sounds: usize,
        units: usize,
    ) -> recurrent::Result<Self> {
        let uniform = Initializer::uniform(-0.1, 0.1);
        let embedding = |rows| Param::new(device, uniform, &[rows, EMBEDDING], DType::F32);
        let decoder = GruCell::new(device, EMBEDDING, units)?;
        let decoder = DropoutWrapper::builder(decoder).output_keep_prob(KEEP_PROB);
        Ok(Self {
            letters: embedding(letters)?,
            sounds: embedding(sounds)?,
            forward: GruCell::new(device, EMBEDDING, units / 2)?,
            backward: GruCell::new(device, EMBEDDING, units / 2)?,
            decoder: decoder.build()?,
            query: Dense::new(device, units, units)?,
            combined: Dense::new(device, 2 * units, units)?,
            logits: Dense::new(device, units, sounds)?,
        })
    }

    /// What is heard of letters `[batch, letters]`, and the first state of the decoder.
    fn encode(
        &self,
        run: &Run,
        letters: &Tensor,
        lengths: &[i64],
    ) -> recurrent::Result<(Heard, Tensor)> {
        let rnn = BidirectionalDynamicRnn::new(&self.forward, &self.backward)
            .memory_policy(run.memory)
            .segment_length(Run::SEGMENT)
            .sequence_length(lengths)
            .run(&self.letters.gather(letters)?)?;
        let outputs = Tensor::concat(&[&rnn.outputs.0, &rnn.outputs.1], 2)?;
        let count = Tensor::from_ints(&run.device, lengths, &[lengths.len()])?;
        let inside = sequence_mask(&count, letters.shape()[1])?.cast(DType::F32)?;
        let penalty = ((inside - 1)? * 1e9)?.unsqueeze(1)?;
        let state = Tensor::concat(&[&rnn.state.0, &rnn.state.1], 1)?;
        Ok((Heard { outputs, penalty }, state))
    }

    /// Logits `[batch, steps, sounds]` of outputs of the decoder `[batch, steps, units]`.
    fn attend(&self, heard: &Heard, outputs: &Tensor) -> recurrent::Result<Tensor> {
        let scores = self
            .query
            .forward(outputs)?
            .matmul(&heard.outputs.transpose(1, 2)?)?;
        let weights = (scores + &heard.penalty)?.softmax(2)?;
        let context = weights.matmul(&heard.outputs)?;
        let both = Tensor::concat(&[outputs, &context], 2)?;
        self.logits.forward(&self.combined.forward(&both)?.tanh()?)
    }

    /// Logits `[batch, steps, sounds]`, where the decoder reads the right sound before each step.
    pub fn forward(
        &self,
        run: &Run,
        [letters, told]: [&Tensor; 2],
        [letter_counts, sound_counts]: [&[i64]; 2],
    ) -> recurrent::Result<Tensor> {
        let (heard, state) = self.encode(run, letters, letter_counts)?;
        let rnn = DynamicRnn::new(&self.decoder)
            .memory_policy(run.memory)
            .segment_length(Run::SEGMENT)
            .sequence_length(sound_counts)
            .initial_state(state)
            .run(&self.sounds.gather(told)?)?;
        self.attend(&heard, &rnn.outputs)
    }

    /// The most likely sounds of each word by a beam search of `width` hypotheses; a width of 1 is
    /// a greedy search. `end` is the sound that ends a word, and the input before the first.
    pub fn say(
        &self,
        run: &Run,
        letters: &Tensor,
        lengths: &[i64],
        end: i64,
        width: usize,
    ) -> recurrent::Result<Vec<Vec<i64>>> {
        let device = &run.device;
        let words = lengths.len();
        let (heard, state) = self.encode(run, letters, lengths)?;
        // Row `width * word + i` is hypothesis i of a word.
        let rows: Vec<i64> = (0..words * width).map(|row| (row / width) as i64).collect();
        let rows = Tensor::from_ints(device, &rows, &[words * width])?;
        let heard = Heard {
            outputs: heard.outputs.gather(&rows)?,
            penalty: heard.penalty.gather(&rows)?,
        };
        let told = |sounds: &[i64]| {
            let sounds = Tensor::from_ints(device, sounds, &[sounds.len()])?;
            self.sounds.gather(&sounds)
        };
        let start = RawRnnStep {
            finished: Tensor::from_bools(device, &vec![false; words * width], &[words * width])?,
            input: told(&vec![end; words * width])?,
            state: state.gather(&rows)?,
            emit: (),
            loop_state: first_beams(words, width),
        };
        let cx = StepContext::default();
        let said = raw_rnn(
            &self.decoder,
            cx,
            start,
            |time, outputs, state, mut beams| {
                let scores = self.attend(&heard, &outputs.unsqueeze(1)?)?.select(1, 0)?;
                let scores: Vec<f32> = scores.log_softmax(1)?.to_vec()?;
                let mut parents = Vec::with_capacity(words * width);
                let per_word = scores.len() / words;
                for (word, (beam, scores)) in
                    beams.iter_mut().zip(scores.chunks(per_word)).enumerate()
                {
                    let kept = extend(beam, scores, end);
                    parents.extend(
                        kept.iter()
                            .map(|(parent, _)| (word * width + parent) as i64),
                    );
                    *beam = kept.into_iter().map(|(_, hypothesis)| hypothesis).collect();
                }
                // A word is finished when its best hypothesis has ended: no other can overtake it.
                let ended = |beam: &Vec<Hypothesis>| time == LONGEST || beam[0].ended;
                let finished: Vec<bool> = beams
                    .iter()
                    .flat_map(|beam| vec![ended(beam); width])
                    .collect();
                let last =
                    |hypothesis: &Hypothesis| hypothesis.sounds.last().copied().unwrap_or(end);
                let input: Vec<i64> = beams.iter().flatten().map(last).collect();
                let parents = Tensor::from_ints(device, &parents, &[parents.len()])?;
                Ok(RawRnnStep {
                    finished: Tensor::from_bools(device, &finished, &[finished.len()])?,
                    input: told(&input)?,
                    state: state.gather(&parents)?,
                    emit: (),
                    loop_state: beams,
                })
            },
        )?;
        let best = said
            .loop_state
            .into_iter()
            .map(|mut beam| beam.swap_remove(0).sounds);
        Ok(best.collect())
    }
}

/// Beams of which only the first hypothesis is possible.
fn first_beams(words: usize, width: usize) -> Vec<Vec<Hypothesis>> {
    let hypothesis = |i| Hypothesis {
        sounds: Vec::new(),
        log_probability: if i == 0 { 0.0 } else { f32::NEG_INFINITY },
        ended: false,
    };
    vec![(0..width).map(hypothesis).collect(); words]
}

/// The best hypotheses after one more sound, best first, and the index of that from which each
/// comes. `scores` are the log-probabilities of all sounds after each hypothesis.
fn extend(beam: &[Hypothesis], scores: &[f32], end: i64) -> Vec<(usize, Hypothesis)> {
    let mut candidates = Vec::new();
    let sounds = scores.len() / beam.len();
    for (parent, (hypothesis, scores)) in beam.iter().zip(scores.chunks(sounds)).enumerate() {
        match hypothesis.ended {
            true => candidates.push((hypothesis.log_probability, parent, None)),
            false => {
                candidates.extend((0..).zip(scores).map(|(sound, score)| {
                    (hypothesis.log_probability + score, parent, Some(sound))
                }))
            }
        }
    }
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
    candidates.truncate(beam.len());
    let own = |(log_probability, parent, sound): (f32, usize, Option<i64>)| {
        let mut sounds = beam[parent].sounds.clone();
        sounds.extend(sound.filter(|&sound| sound != end));
        let ended = sound.is_none_or(|sound| sound == end);
        (
            parent,
            Hypothesis {
                sounds,
                log_probability,
                ended,
            },
        )
    };
    candidates.into_iter().map(own).collect()
}
