//! "Applying Dropout" of A. Géron's *Hands-On Machine Learning*, chapter 14: a stack of three cells
//! with dropout of their inputs predicts a time series. Dropout is on in the loss, where TensorFlow
//! needs a placeholder or a second graph, and off when the network predicts.

use std::error::Error;
use std::io::{Write, stdout};

use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;

#[path = "support/wave.rs"]
mod wave;

const LAYERS: usize = 3;
const UNITS: usize = 50;
const KEEP_PROB: f64 = 0.5;
const ITERATIONS: u64 = 300;

/// One layer: a cell, half of whose inputs are dropped in training.
fn layer(device: &Device, depth: usize) -> recurrent::Result<DropoutWrapper<BasicRnnCell>> {
    let cell = BasicRnnCell::builder(depth, UNITS).activation(Activation::Relu);
    DropoutWrapper::builder(cell.build(device)?)
        .input_keep_prob(KEEP_PROB)
        .build()
}

/// Prints the error with dropout every 100 iterations, then the error without it, twice.
pub fn tutorial(device: &Device, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let layers = (0..LAYERS).map(|i| layer(device, if i == 0 { 1 } else { UNITS }));
    let stack = MultiRnnCell::new(layers.collect::<recurrent::Result<Vec<_>>>()?)?;
    let mut model = (stack, Dense::new(device, UNITS, 1)?);
    model.initialize(42)?;
    let mse = |(stack, dense): &(MultiRnnCell<_>, Dense), seed| {
        let (x, y) = wave::next_batch(device, seed, 50)?;
        mean_squared_error(
            &dense.forward(&DynamicRnn::new(stack).run(&x)?.outputs)?,
            &y,
        )
    };
    let mut optimizer = Adam::new(0.003);
    for iteration in 0..=ITERATIONS {
        let (loss, grads) = value_and_grad(&model, |model| mse(model, iteration))?;
        optimizer.step(&mut model, &grads)?;
        if iteration % 100 == 0 {
            writeln!(out, "{iteration} Training MSE: {loss}")?;
        }
    }
    for _ in 0..2 {
        writeln!(out, "Testing MSE: {}", mse(&model, ITERATIONS)?)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    tutorial(&Device::from_env()?, &mut stdout())
}
