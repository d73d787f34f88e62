//! The second of ematvey's TensorFlow tutorials on sequence-to-sequence models: an encoder reads a
//! sequence of symbols, and a decoder repeats it. The decoder runs under `raw_rnn`, because each of
//! its inputs is its own last prediction, in training too.

use std::error::Error;
use std::io::{Write, stdout};

use recurrent::losses::{SequenceLoss, sequence_mask};
use recurrent::prelude::*;
use recurrent::{Distribution, RawRnnStep, raw_rnn};

const PAD: i64 = 0;
const EOS: i64 = 1;
const VOCABULARY: usize = 8;
const EMBEDDING: usize = 20;
const UNITS: usize = 64;

/// The embeddings, encoder and decoder, and the output layer.
type Model = (Param, [GruCell; 2], Dense);

/// The logits `[time, batch, VOCABULARY]` of the outputs, for inputs `[batch, time]`.
fn decode(model: &Model, inputs: &Tensor, lengths: &Tensor) -> recurrent::Result<Tensor> {
    let (embeddings, [encoder, decoder], output) = model;
    let (device, batch) = (inputs.device(), inputs.shape()[0]);
    let encoder = DynamicRnn::new(encoder).sequence_length(&lengths.to_vec::<i64>()?);
    let eos = Tensor::full(device, EOS as f64, (&[batch], DType::I64))?;
    let start = RawRnnStep {
        finished: lengths.less(0)?,
        input: embeddings.gather(&eos)?,
        state: encoder.run(&embeddings.gather(inputs)?)?.state,
        emit: Tensor::zeros(device, &[batch, VOCABULARY])?,
        loop_state: (),
    };
    let cx = StepContext::default();
    let decoded = raw_rnn(decoder, cx, start, |time, outputs, state, ()| {
        let logits = output.forward(outputs)?;
        Ok(RawRnnStep {
            finished: lengths.less(time)?, // after the symbols and EOS
            input: embeddings.gather(&logits.argmax(1)?)?,
            state: state.clone(),
            emit: logits,
            loop_state: (),
        })
    })?;
    Ok(decoded.emits)
}

/// Sequences of 2 to 4 symbols: padded inputs, their lengths, and targets that end with EOS.
fn next_batch(device: &Device, seed: u64, batch: usize) -> recurrent::Result<[Tensor; 3]> {
    let uniform = Distribution::uniform(0.0, 1.0);
    let draws = Tensor::random(device, seed, uniform, &[batch, 5])?.to_vec::<f32>()?;
    let (mut inputs, mut lengths, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for draws in draws.chunks(5) {
        let length = 2 + (draws[0] * 3.0) as usize;
        let symbol = |t| match t {
            t if t < length => 2 + (draws[t + 1] * 6.0) as i64,
            t if t == length => EOS,
            _ => PAD,
        };
        inputs.extend((0..4).map(|t| if t == length { PAD } else { symbol(t) }));
        targets.extend((0..5).map(symbol));
        lengths.push(length);
    }
    Ok([
        Tensor::from_ints(device, &inputs, &[batch, 4])?,
        Tensor::from_ints(device, &lengths, &[batch])?,
        Tensor::from_ints(device, &targets, &[batch, 5])?,
    ])
}

/// Prints the loss and three predictions now and then.
pub fn tutorial(device: &Device, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let uniform = Initializer::uniform(-1.0, 1.0);
    let gru = || GruCell::new(device, EMBEDDING, UNITS);
    let mut model = (
        Param::new(device, uniform, &[VOCABULARY, EMBEDDING], DType::F32)?,
        [gru()?, gru()?],
        Dense::new(device, UNITS, VOCABULARY)?,
    );
    model.initialize(42)?;
    let mut optimizer = Adam::new(0.005);
    for batch in 0..=200 {
        let [inputs, lengths, targets] = next_batch(device, batch, 64)?;
        let mut predictions = None;
        let (loss, grads) = value_and_grad(&model, |model| {
            let logits = decode(model, &inputs, &lengths)?.transpose(0, 1)?;
            predictions = Some(logits.argmax(2)?);
            let steps = logits.shape()[1];
            let mask = sequence_mask(&(&lengths + 1)?, steps)?.cast(DType::F32)?;
            SequenceLoss::default().of(&logits, &targets.at((.., ..steps))?, &mask)
        })?;
        optimizer.step(&mut model, &grads.clip_by_global_norm(5.0)?)?;
        if let Some(predicted) = predictions.filter(|_| batch % 100 == 0) {
            writeln!(out, "batch {batch}\n  minibatch loss: {loss}")?;
            for i in 0..3 {
                let (input, predicted) = (inputs.at(i)?, predicted.at(i)?);
                writeln!(
                    out,
                    "  sample {i}: input > {input} prediction > {predicted}"
                )?;
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    tutorial(&Device::from_env()?, &mut stdout())
}
