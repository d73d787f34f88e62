//! A cell of one's own from start to end: a state with named parts, dropout, a learning-rate
//! schedule and a trainer. The cell has units that change fast and units that change slowly, and
//! predicts the number of sunspots of the next year.

use std::error::Error;
use std::io::{Write, stdout};

use datasets::committed_root;
use recurrent::data::{Batches, Normalization, Remainder, SeriesWindows, read_series, split_tail};
use recurrent::optim::Schedule;
use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;

const STEPS: usize = 24;
const UNITS: usize = 32;

nest! {
    /// The state: `[batch, units]` each.
    struct Rates { fast: Tensor, slow: Tensor }
}

/// `fast' = tanh([x, fast, slow] · kernel + bias)`, `slow' = slow + σ(rate) * (fast' - slow)`; the
/// output is both.
#[derive(Clone, Debug)]
struct TwoRates {
    dense: Dense,
    rate: Param,
}

module!(TwoRates { dense, rate });

impl TwoRates {
    fn new(device: &Device, depth: usize) -> recurrent::Result<Self> {
        let dense = Dense::new(device, depth + 2 * UNITS, UNITS)?;
        let rate = Param::new(device, Initializer::Constant(-1.5), &[UNITS], DType::F32)?;
        Ok(Self { dense, rate })
    }
}

impl Cell for TwoRates {
    type Input = Tensor;
    type State = Rates;
    type Output = Tensor;

    fn zero_state(&self, batch: usize) -> recurrent::Result<Rates> {
        let zeros = Tensor::zeros(self.rate.device(), &[batch, UNITS])?;
        Ok(Rates {
            fast: zeros.clone(),
            slow: zeros,
        })
    }

    fn zero_output(&self, batch: usize) -> recurrent::Result<Tensor> {
        Tensor::zeros(self.rate.device(), &[batch, 2 * UNITS])
    }

    fn step(&self, _: &StepContext, x: &Tensor, s: &Rates) -> recurrent::Result<(Tensor, Rates)> {
        let fast = self
            .dense
            .forward(&Tensor::concat(&[x, &s.fast, &s.slow], 1)?)?
            .tanh()?;
        let slow = (&s.slow + self.rate.sigmoid()? * (&fast - &s.slow)?)?;
        Ok((Tensor::concat(&[&fast, &slow], 1)?, Rates { fast, slow }))
    }
}

type Model = (DropoutWrapper<TwoRates>, Dense);

/// Prints the parameters, and the error on the last 20 % of the years after each fifth epoch.
pub fn tutorial(device: &Device, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let series = read_series(committed_root().join("sunspots-yearly.csv"))?;
    let (train, test) = split_tail(&series, 5)?;
    let scale = Normalization::fit(train)?;
    let (train, test) = (scale.apply(train), scale.apply(test));
    let train = SeriesWindows::new(&train, STEPS)?;
    let test = SeriesWindows::new(&test, STEPS)?;
    let mse = |(cell, dense): &Model, windows: &SeriesWindows, items: &[usize]| {
        let (x, y) = windows.gather(items)?;
        let x = Tensor::from_slice(device, &x, &[items.len(), STEPS, 1])?;
        let y = Tensor::from_slice(device, &y, &[items.len(), STEPS, 1])?;
        mean_squared_error(&dense.forward(&DynamicRnn::new(cell).run(&x)?.outputs)?, &y)
    };

    let cell = DropoutWrapper::builder(TwoRates::new(device, 1)?).output_keep_prob(0.9);
    let mut model = (cell.build()?, Dense::new(device, 2 * UNITS, 1)?);
    model.initialize(1)?;
    writeln!(out, "{}", model.summary())?;

    let mut trainer = Trainer::new(1)
        .clip_norm(5.0)
        .schedule(Schedule::exponential(0.01, 100, 0.5)) // start, decay_steps, decay_rate
        .show_progress(false);
    let mut adam = Adam::new(0.01);
    let mut batches = Batches::new(train.len(), 32, Remainder::Keep, 1)?;
    let all: Vec<usize> = (0..test.len()).collect();
    while trainer.state().epoch < 20 {
        let report =
            trainer.run_epoch(&mut model, &mut adam, &mut batches, |model, items, _| {
                mse(model, &train, items)
            })?;
        if report.epoch % 5 == 0 {
            let tested = mse(&model, &test, &all)?.item()?;
            writeln!(out, "epoch {} test_mse {tested:.4}", report.epoch)?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    tutorial(&Device::from_env()?, &mut stdout())
}
