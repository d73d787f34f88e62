//! The search for a learning rate.

use std::ops::RangeInclusive;

use backend_api::{Error, Result, Tensor, philox};
use rnn_core::{Mode, Module};

use crate::data::Source;
use crate::optim::Optimizer;
use crate::{Differentiable, value_and_grad_of};

/// A loss this many times the smallest one ends the search.
const DIVERGED: f64 = 4.0;

/// The loss as a function of the learning rate (Smith 2017): takes up to `steps` steps, each at a
/// higher rate, from the start to the end of `rates` by equal factors, and returns the rate and the
/// loss of each. Ends early if the loss is not finite or four times the smallest one. A good rate
/// is a third to a tenth of that at which the loss begins to rise.
///
/// The steps are taken by copies: model and optimizer do not change, and the source is afterwards
/// where it was before. The loss runs in training, with random numbers that are equal in each call.
///
/// ```
/// use recurrent::data::{Batches, Remainder};
/// use recurrent::losses::mean_squared_error;
/// use recurrent::training::lr_find;
/// use recurrent::{Dense, Device, Sgd, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let model = Dense::new(&device, 1, 1)?;
/// let mut batches = Batches::new(32, 8, Remainder::Drop, 1)?;
/// let found = lr_find(&model, &Sgd::new(1.0), &mut batches, 1e-3..=100.0, 50, |model, items| {
///     let x: Vec<f32> = items.iter().map(|&item| item as f32 / 32.0).collect();
///     let x = Tensor::from_slice(&device, &x, &[x.len(), 1])?;
///     mean_squared_error(&model.forward(&x)?, &x.affine(3.0, 1.0)?)
/// })?;
/// assert!(found.len() < 50); // diverged
/// let (best, _) = found.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).expect("losses");
/// assert!((0.01..5.0).contains(&best));
/// # Ok(()) }
/// ```
///
/// # Errors
/// `rates` are not positive, finite and rising, `steps` is less than 2, or the source yields no
/// item; errors of the loss, the optimizer and the source.
pub fn lr_find<M, O, S>(
    model: &M,
    optimizer: &O,
    source: &mut S,
    rates: RangeInclusive<f64>,
    steps: u64,
    mut loss: impl FnMut(&M, &S::Item) -> Result<Tensor<M::Backend>>,
) -> Result<Vec<(f64, f64)>>
where
    M: Module,
    M::Backend: Differentiable,
    O: Optimizer<M::Backend>,
    S: Source,
{
    let (low, high) = (*rates.start(), *rates.end());
    if !(low > 0.0 && low < high && high.is_finite()) {
        let problem = format!("are {low} to {high}, but must be positive, finite and rising");
        return Err(Error::argument("lr_find", "rates", problem));
    }
    if steps < 2 {
        return Err(Error::argument("lr_find", "steps", "is less than 2"));
    }
    let (mut model, mut optimizer) = (model.clone(), optimizer.clone());
    let before = source.state();
    let mut search = || {
        let mut found: Vec<(f64, f64)> = Vec::new();
        let mut smallest = f64::INFINITY;
        for step in 0..steps {
            let rate = low * (high / low).powf(step as f64 / (steps - 1) as f64);
            let item = next(source)?;
            let mode = Mode::training(philox::derive(philox::label("lr_find"), step));
            let trains = |name: &str| optimizer.trains(name);
            let (value, grads) =
                mode.scope(|| value_and_grad_of(&model, trains, |model| loss(model, &item)))?;
            let value = value.item()?;
            if !(value <= DIVERGED * smallest && value.is_finite()) {
                break;
            }
            smallest = smallest.min(value);
            found.push((rate, value));
            optimizer.set_learning_rate(rate);
            optimizer.step(&mut model, &grads)?;
        }
        Ok(found)
    };
    let found = search();
    source.restore(before)?;
    found
}

/// The next item, of the next epoch if this one ends.
fn next<S: Source>(source: &mut S) -> Result<S::Item> {
    for _ in 0..2 {
        if let Some(item) = source.next_item()? {
            return Ok(item);
        }
    }
    Err(Error::argument("lr_find", "source", "returned no item"))
}
