//! "Training to Predict Time Series" of A. Géron's *Hands-On Machine Learning*, chapter 14: a basic
//! cell with ReLU and an `OutputProjectionWrapper` predicts the next value at each step.

use std::error::Error;
use std::io::{Write, stdout};

use recurrent::prelude::*;
use recurrent::wrappers::OutputProjectionWrapper;

#[path = "support/wave.rs"]
mod wave;

const UNITS: usize = 100;
const ITERATIONS: u64 = 300;
const BATCH: usize = 50;

/// Prints the mean squared error every 100 iterations, and a prediction.
pub fn tutorial(device: &Device, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let cell = BasicRnnCell::builder(1, UNITS)
        .activation(Activation::Relu)
        .build(device)?;
    let mut cell = OutputProjectionWrapper::new(cell, 1)?;
    cell.initialize(42)?;
    let mut optimizer = Adam::new(0.001);
    for iteration in 0..=ITERATIONS {
        let (x, y) = wave::next_batch(device, iteration, BATCH)?;
        let (loss, grads) = value_and_grad(&cell, |cell| {
            mean_squared_error(&DynamicRnn::new(cell).run(&x)?.outputs, &y)
        })?;
        optimizer.step(&mut cell, &grads)?;
        if iteration % 100 == 0 {
            writeln!(out, "{iteration} \tMSE: {loss}")?;
        }
    }
    let (x, y) = wave::next_batch(device, ITERATIONS + 1, 1)?;
    let predicted = DynamicRnn::new(&cell).run(&x)?.outputs;
    writeln!(
        out,
        "predicted {}, true {}",
        predicted.at((0, -1))?,
        y.at((0, -1))?
    )?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    tutorial(&Device::from_env()?, &mut stdout())
}
