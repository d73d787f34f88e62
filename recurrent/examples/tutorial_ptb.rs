//! TensorFlow's tutorial on language models (ptb_word_lm.py): two LSTM layers with dropout predict
//! the next word. Back-propagation through time is truncated to 20 steps, and the state is carried
//! from one window of the text to the next. On the beginning of *Moby-Dick*.

use std::error::Error;
use std::io::{Write, stdout};

use datasets::committed_root;
use recurrent::data::{InOrder, TextWindow, TextWindows, WordVocabulary, split_tail};
use recurrent::losses::{Reduction, SequenceLoss};
use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;

const WORDS: usize = 16_000;
const VOCABULARY: usize = 500;
const HIDDEN: usize = 64;
const STEPS: usize = 20;
const BATCH: usize = 20;

type State = Vec<LstmState>;

#[derive(Clone, Debug)]
struct PtbModel {
    embedding: Param,
    stack: MultiRnnCell<Vec<DropoutWrapper<BasicLstmCell>>>,
    softmax: Dense,
}

module!(PtbModel { embedding, stack as "RNN/multi_rnn_cell", softmax });

impl PtbModel {
    fn new(device: &Device, words: usize) -> recurrent::Result<Self> {
        // The initializer of TensorFlow's variable scope.
        let scale = Initializer::uniform(-0.1, 0.1);
        let layer = |_| {
            let cell = BasicLstmCell::builder(HIDDEN, HIDDEN).forget_bias(0.0);
            let cell = cell.kernel_initializer(scale).build(device)?;
            DropoutWrapper::builder(cell).output_keep_prob(0.9).build()
        };
        Ok(Self {
            embedding: Param::new(device, scale, &[words, HIDDEN], DType::F32)?,
            stack: MultiRnnCell::new((0..2).map(layer).collect::<Result<Vec<_>, _>>()?)?,
            softmax: Dense::new(device, HIDDEN, words)?.kernel_initializer(scale)?,
        })
    }

    /// Cross entropy of a window, summed over time and averaged over the batch; the final state.
    fn cost(&self, window: &TextWindow, state: &State) -> recurrent::Result<(Tensor, State)> {
        let device = self.embedding.device();
        let ids = Tensor::from_slice(device, &window.inputs, &[BATCH, STEPS])?;
        let targets = Tensor::from_slice(device, &window.targets, &[BATCH, STEPS])?;
        let rnn = DynamicRnn::new(&self.stack).initial_state(state.clone());
        let rnn = rnn.run(&self.embedding.gather(&ids)?)?;
        let logits = self.softmax.forward(&rnn.outputs)?;
        let weights = Tensor::ones(device, &[BATCH, STEPS])?;
        let (timesteps, batch) = (Reduction::None, Reduction::Average);
        let loss = SequenceLoss { timesteps, batch }.of(&logits, &targets, &weights)?;
        Ok((loss.sum_all()?, rnn.state))
    }

    fn perplexity(&self, ids: &[i64]) -> recurrent::Result<f64> {
        let windows = TextWindows::new(ids, BATCH, STEPS)?;
        let (mut costs, mut state) = (0.0, self.stack.zero_state(BATCH)?);
        let iters = (windows.len() * STEPS) as f64;
        for window in windows {
            let (cost, next) = self.cost(&window, &state)?;
            (costs, state) = (costs + cost.item()?, next);
        }
        Ok((costs / iters).exp())
    }
}

/// Prints the learning rate and the perplexities of each epoch.
pub fn tutorial(device: &Device, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(committed_root().join("moby-dick.txt"))?;
    let words = text.split_whitespace().take(WORDS);
    let vocabulary = WordVocabulary::build(words.clone(), 1, VOCABULARY);
    let ids: Vec<i64> = words.map(|word| vocabulary.id(word)).collect();
    let (train, valid) = split_tail(&ids, 10)?;

    let mut model = PtbModel::new(device, vocabulary.len())?;
    model.initialize(42)?;
    let mut sgd = Sgd::new(1.0);
    let mut windows = InOrder::new(TextWindows::new(train, BATCH, STEPS)?);
    let mut trainer = Trainer::new(42).clip_norm(5.0).show_progress(false);
    let zero = model.stack.zero_state(BATCH)?;
    for epoch in 1..=4 {
        // Halved in each epoch after the third.
        let rate = 0.5f64.powi((epoch - 3).max(0));
        sgd.set_learning_rate(rate);
        writeln!(out, "Epoch: {epoch} Learning rate: {rate:.3}")?;
        let cost = |m: &PtbModel, window: &_, state: &_, _| m.cost(window, state);
        let of_epoch =
            trainer.run_epoch_carrying(&mut model, &mut sgd, &mut windows, &zero, cost)?;
        let perplexity = (of_epoch.mean_loss / STEPS as f64).exp();
        writeln!(out, "Epoch: {epoch} Train Perplexity: {perplexity:.3}")?;
        writeln!(
            out,
            "Epoch: {epoch} Valid Perplexity: {:.3}",
            model.perplexity(valid)?
        )?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    tutorial(&Device::from_env()?, &mut stdout())
}
