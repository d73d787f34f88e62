//! Trains a character-level language model on a book with an LSTM.
//!
//! Uses truncated back-propagation through time: the state carries over from one window of the text
//! to the next. Prints the bits per character on the last tenth of the text, which is held out, and
//! a sample.

mod support;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Instant;

use datasets::committed_root;
use recurrent::checkpoint::save_params;
use recurrent::data::{InOrder, TextWindow, TextWindows, Vocabulary, split_tail};
use recurrent::losses::softmax_cross_entropy;
use recurrent::prelude::*;
use recurrent::{Distribution, Initializer};
use support::{Error, Options};

const HELP: &str = "\
Trains a character-level language model on a text, and samples from it.

Options, with their defaults in parentheses:
  --text FILE     training text (the committed Moby-Dick)
  --units N       hidden units of the LSTM (256)
  --epochs N      number of passes over the text (3)
  --device NAME   cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --seed N        seed of the initialization and of the sampling (0)
  --sample N      number of characters to sample (400)
  --evaluate ..   more devices to evaluate the trained model on, such as cpu@int8,cpu@bf16 (none)
  --save FILE     the file for the trained parameters (none)
";

const BATCH: usize = 32;
const STEPS: usize = 64;
const EMBEDDING: usize = 64;
const LEARNING_RATE: f64 = 0.003;
const CLIP_NORM: f64 = 5.0;
/// A temperature below 1 favours likely characters.
const TEMPERATURE: f32 = 0.7;

/// An embedding of characters, an LSTM, and an output layer for the next character.
#[derive(Clone, Debug)]
struct Writer {
    embedding: Param,
    cell: BasicLstmCell,
    logits: Dense,
}

recurrent::module!(Writer { embedding, cell as "basic_lstm_cell", logits as "dense" });

impl Writer {
    fn new(device: &Device, characters: usize, units: usize) -> recurrent::Result<Self> {
        let uniform = Initializer::uniform(-0.1, 0.1);
        Ok(Self {
            embedding: Param::new(device, uniform, &[characters, EMBEDDING], DType::F32)?,
            cell: BasicLstmCell::new(device, EMBEDDING, units)?,
            logits: Dense::new(device, units, characters)?,
        })
    }

    /// Maps ids `[batch, steps]` and a state to logits `[batch, steps, characters]` and the next
    /// state.
    fn forward(&self, ids: &Tensor, state: &LstmState) -> recurrent::Result<(Tensor, LstmState)> {
        let vectors = self.embedding.gather(ids)?;
        let rnn = DynamicRnn::new(&self.cell)
            .initial_state(state.clone())
            .run(&vectors)?;
        Ok((self.logits.forward(&rnn.outputs)?, rnn.state))
    }

    /// Mean cross entropy of a window in nats, and the state after it.
    fn loss(
        &self,
        device: &Device,
        window: &TextWindow,
        state: &LstmState,
        batch: usize,
    ) -> recurrent::Result<(Tensor, LstmState)> {
        let shape = [batch, window.inputs.len() / batch];
        let inputs = Tensor::from_slice(device, &window.inputs, &shape)?;
        let targets = Tensor::from_slice(device, &window.targets, &shape)?;
        let (logits, state) = self.forward(&inputs, state)?;
        Ok((softmax_cross_entropy(&logits, &targets)?, state))
    }

    /// Bits per character of a text.
    fn bits(&self, device: &Device, ids: &[i64]) -> recurrent::Result<f64> {
        let windows = TextWindows::new(ids, BATCH, STEPS)?;
        let (mut total, mut count) = (0.0, 0);
        let mut state = self.cell.zero_state(BATCH)?;
        for window in windows {
            let (loss, next) = self.loss(device, &window, &state, BATCH)?;
            state = next;
            total += loss.item()?;
            count += 1;
        }
        Ok(total / f64::from(count) / std::f64::consts::LN_2)
    }

    /// Generates `count` characters that continue `start`.
    fn write(
        &self,
        device: &Device,
        vocabulary: &Vocabulary,
        start: &str,
        count: usize,
        seed: u64,
    ) -> recurrent::Result<String> {
        let mut ids = vocabulary.encode(start)?;
        let mut state = self.cell.zero_state(1)?;
        let mut unread = ids.clone();
        // One number in `0..1` per character.
        let uniform = Distribution::uniform(0.0, 1.0);
        let draws: Vec<f32> = Tensor::random(device, seed, uniform, &[count])?.to_vec()?;
        for draw in draws {
            let inputs = Tensor::from_slice(device, &unread, &[1, unread.len()])?;
            let (logits, next) = self.forward(&inputs, &state)?;
            state = next;
            let scores: Vec<f32> = logits.select(1, unread.len() - 1)?.to_vec()?;
            let id = pick(&scores, draw);
            ids.push(id);
            unread = vec![id];
        }
        vocabulary.decode(&ids)
    }
}

/// Samples an id from the softmax of `scores`; `draw` is a uniform number in `0..1`.
fn pick(scores: &[f32], draw: f32) -> i64 {
    let highest = scores.iter().copied().fold(f32::MIN, f32::max);
    let shares: Vec<f32> = scores
        .iter()
        .map(|s| ((s - highest) / TEMPERATURE).exp())
        .collect();
    let mut left = draw * shares.iter().sum::<f32>();
    let found = shares.iter().position(|share| {
        left -= share;
        left < 0.0
    });
    found.unwrap_or(shares.len() - 1) as i64
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let known = [
        "text", "units", "epochs", "device", "seed", "sample", "evaluate", "save",
    ];
    let options = Options::read(HELP, &known)?;
    let device = options.device()?;
    let units: usize = options.get("units", 256)?;
    let epochs: u64 = options.get("epochs", 3)?;
    let seed: u64 = options.get("seed", 0)?;
    let sample: usize = options.get("sample", 400)?;

    let path = match options.text("text") {
        Some(path) => path.into(),
        None => committed_root().join("moby-dick.txt"),
    };
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let vocabulary = Vocabulary::new(&text);
    let ids = vocabulary.encode(&text)?;
    let (train, held_out) = split_tail(&ids, 10)?;

    let mut model = Writer::new(&device, vocabulary.len(), units)?;
    model.initialize(seed)?;
    writeln!(
        stdout(),
        "{} characters, {} distinct, {} parameters",
        ids.len(),
        vocabulary.len(),
        model.param_count()
    )?;
    let mut adam = Adam::new(LEARNING_RATE);
    let mut windows = InOrder::new(TextWindows::new(train, BATCH, STEPS)?);
    let mut trainer = Trainer::new(seed).clip_norm(CLIP_NORM);
    let initial = model.cell.zero_state(BATCH)?;
    while trainer.state().epoch < epochs {
        let start = Instant::now();
        let report = trainer.run_epoch_carrying(
            &mut model,
            &mut adam,
            &mut windows,
            &initial,
            |model, window, state, _| model.loss(&device, window, state, BATCH),
        )?;
        writeln!(
            stdout(),
            "epoch {} train_bits {:.3} held_out_bits {:.3} seconds {:.1}",
            report.epoch,
            report.mean_loss / std::f64::consts::LN_2,
            model.bits(&device, held_out)?,
            start.elapsed().as_secs_f64()
        )?;
    }
    let others = options.text("evaluate").into_iter();
    for name in others.flat_map(|names| names.split(',')) {
        let device: Device = name.parse()?;
        let bits = model.to(&device)?.bits(&device, held_out)?;
        writeln!(stdout(), "{name} held_out_bits {bits:.4}")?;
    }
    if let Some(file) = options.text("save") {
        save_params(file, &model)?;
    }
    writeln!(
        stdout(),
        "\n{}",
        model.write(&device, &vocabulary, "The ", sample, seed)?
    )?;
    Ok(())
}
