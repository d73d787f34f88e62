//! The time series of A. Géron's tutorials.

use recurrent::data::wave;
use recurrent::prelude::*;
use recurrent::{Distribution, Result};

/// Number of values of a window.
pub const STEPS: usize = 20;

/// `batch` windows of the series between 0 and 30, `[batch, STEPS, 1]`, and the same windows one
/// value later: the values to predict.
pub fn next_batch(device: &Device, seed: u64, batch: usize) -> Result<(Tensor, Tensor)> {
    let starts = Distribution::uniform(0.0, 30.0 - (STEPS + 1) as f64 * 0.1);
    let starts = Tensor::random(device, seed, starts, &[batch, 1])?.to_vec::<f32>()?;
    let window = |shift: usize| {
        let times = starts.iter().flat_map(|&start| {
            (shift..STEPS + shift).map(move |i| f64::from(start) + i as f64 * 0.1)
        });
        let values: Vec<f32> = times.map(|t| wave(t) as f32).collect();
        Tensor::from_slice(device, &values, &[batch, STEPS, 1])
    };
    Ok((window(0)?, window(1)?))
}
