//! A custom cell in about thirty lines, and the features that work with it without further code:
//! every driver and wrapper, gradients, training.
//!
//! The cell is the minimal gated unit (Zhou et al. 2016): `f = σ([x, h] · gate)`,
//! `q = tanh(x · input + (f * h) · recurrent)`, `h' = (1 - f) * h + f * q`. It learns which of two
//! marked numbers of a sequence is larger.

mod support;

use std::io::{Write, stdout};
use std::process::ExitCode;

use recurrent::losses::mean_squared_error;
use recurrent::prelude::*;
use recurrent::wrappers::{DropoutWrapper, ResidualWrapper};
use recurrent::{BidirectionalDynamicRnn, Initializer, Result, StaticRnn};
use support::{Error, Options};

const HELP: &str = "\
Runs a custom cell under every driver and wrapper, and trains it.

Options, with their defaults in parentheses:
  --device NAME   cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --seed N        seed of the initialization (1)
";

/// The parameters.
#[derive(Clone, Debug)]
struct MinimalGatedUnit {
    gate: Dense,
    input: Dense,
    recurrent: Param,
}

impl MinimalGatedUnit {
    fn new(device: &Device, depth: usize, units: usize) -> Result<Self> {
        let glorot = Initializer::GlorotUniform;
        Ok(Self {
            gate: Dense::new(device, depth + units, units)?,
            input: Dense::new(device, depth, units)?,
            recurrent: Param::new(device, glorot, &[units, units], DType::F32)?,
        })
    }
}

recurrent::module!(MinimalGatedUnit {
    gate,
    input,
    recurrent
});

impl Cell for MinimalGatedUnit {
    type Input = Tensor;
    type State = Tensor;
    type Output = Tensor;

    fn zero_state(&self, batch: usize) -> Result<Tensor> {
        Tensor::zeros(self.recurrent.device(), &[batch, self.recurrent.shape()[0]])
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor> {
        self.zero_state(batch)
    }

    fn step(&self, _: &StepContext, x: &Tensor, h: &Tensor) -> Result<(Tensor, Tensor)> {
        let f = self.gate.forward(&Tensor::concat(&[x, h], 1)?)?.sigmoid()?;
        let q = f
            .mul(h)?
            .matmul(&self.recurrent)?
            .add(&self.input.forward(x)?)?
            .tanh()?;
        let h = h.add(&f.mul(&q.sub(h)?)?)?;
        Ok((h.clone(), h))
    }
}

const BATCH: usize = 64;
const STEPS: usize = 12;

/// Sequences of numbers, two of them marked. The target is 1 if the first marked number is larger.
fn batch(device: &Device, seed: u64) -> Result<(Tensor, Tensor)> {
    let uniform = recurrent::Distribution::uniform(0.0, 1.0);
    let numbers = Tensor::random(device, seed, uniform, &[BATCH, STEPS])?.to_vec::<f32>()?;
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for row in numbers.chunks(STEPS) {
        // The row's own random numbers determine the marked positions.
        let first = (row[0] * 5.0) as usize;
        let second = 6 + (row[1] * 5.0) as usize;
        for (t, &number) in row.iter().enumerate() {
            inputs.extend([number, f32::from(t == first || t == second)]);
        }
        targets.push(f32::from(row[first] > row[second]));
    }
    Ok((
        Tensor::from_slice(device, &inputs, &[BATCH, STEPS, 2])?,
        Tensor::from_slice(device, &targets, &[BATCH, 1])?,
    ))
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let options = Options::read(HELP, &["device", "seed"])?;
    let device = options.device()?;

    // Every driver and wrapper accepts the cell.
    let cell = MinimalGatedUnit::new(&device, 2, 32)?;
    let (x, _) = batch(&device, 0)?;
    let lengths = [STEPS; BATCH];
    let whole = DynamicRnn::new(&cell).sequence_length(&lengths).run(&x)?;
    let steps: Vec<Tensor> = (0..STEPS).map(|t| x.select(1, t)).collect::<Result<_>>()?;
    let listed = StaticRnn::new(&cell).run(&steps)?;
    let both =
        BidirectionalDynamicRnn::new(&cell, &MinimalGatedUnit::new(&device, 2, 8)?).run(&x)?;
    let dropped = DropoutWrapper::builder(MinimalGatedUnit::new(&device, 32, 32)?)
        .output_keep_prob(0.9)
        .build()?;
    let stack = MultiRnnCell::new((
        MinimalGatedUnit::new(&device, 2, 32)?,
        ResidualWrapper::new(dropped),
    ))?;
    let stacked = DynamicRnn::new(&stack).run(&x)?;
    writeln!(stdout(), "dynamic {:?}", whole.outputs.shape())?;
    writeln!(
        stdout(),
        "static {} steps of {:?}",
        listed.outputs.len(),
        listed.outputs[0].shape()
    )?;
    writeln!(
        stdout(),
        "bidirectional {:?} {:?}",
        both.outputs.0.shape(),
        both.outputs.1.shape()
    )?;
    writeln!(stdout(), "stacked {:?}", stacked.outputs.shape())?;

    // The cell can be trained. Dropout is on in the loss only, with another mask in each step.
    let cell = DropoutWrapper::builder(cell)
        .output_keep_prob(0.9)
        .build()?;
    let mut model = (cell, Dense::new(&device, 32, 1)?);
    model.initialize(options.get("seed", 1)?)?;
    let mut adam = Adam::new(0.01);
    for step in 1..=400 {
        let (x, y) = batch(&device, step)?;
        let (loss, grads) = value_and_grad(&model, |(cell, output)| {
            let last = DynamicRnn::new(cell)
                .run(&x)?
                .outputs
                .select(1, STEPS - 1)?;
            mean_squared_error(&output.forward(&last)?.sigmoid()?, &y)
        })?;
        adam.step(&mut model, &grads.clip_by_global_norm(1.0)?)?;
        if step % 100 == 0 {
            let last = DynamicRnn::new(&model.0)
                .run(&x)?
                .outputs
                .select(1, STEPS - 1)?;
            let whole = mean_squared_error(&model.1.forward(&last)?.sigmoid()?, &y)?;
            writeln!(
                stdout(),
                "step {step} loss {:.4}, without dropout {:.4}",
                loss.item()?,
                whole.item()?
            )?;
        }
    }
    Ok(())
}
