//! Forecasts the weather of Seattle for the next seven days: quantiles of four series, from the 28
//! days before. Draws the bands of a year of forecasts.
//!
//! A GRU reads the days; one layer maps its last output to all quantiles, which a quantile loss
//! trains. Two forecasts without a network stand beside it: the value of the same date a year ago,
//! and the quantiles of the days around that date in the years before.
//! Run it with `cargo run --release --example forecast`. The data is part of the repository.

#[path = "support/bands.rs"]
mod bands;
#[path = "support/epochs.rs"]
mod epochs;
#[path = "support/saving.rs"]
mod saving;
mod support;
#[path = "support/task.rs"]
mod task;
#[path = "support/weather.rs"]
mod weather;

use std::fmt;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use recurrent::data::{Batches, Remainder};
use recurrent::optim::Schedule;
use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;
use support::{Error, Options};
pub(crate) use task::Run;
pub(crate) use weather::Weather;
use weather::{QUANTILES, SERIES, pinball};

const HELP: &str = "\
Forecasts the weather of the next seven days, with quantiles.

Options, with their defaults in parentheses:
  --epochs N          number of passes over the days of three years (10)
  --device NAME       cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --memory POLICY     what is kept for the gradient: store, or recompute for less memory (store)
  --seed N            seed of the initialization, of dropout and of the order (0)
  --evaluate NAME,..  more devices to evaluate the trained model on, such as cpu@int8 (none)
  --save DIR          save a checkpoint in DIR after each epoch, and at Ctrl-C
  --resume DIR        resume from the newest checkpoint in DIR, and save there
  --plot FILE         SVG file for a year of forecasts (runs/forecast.svg)
";

/// Days that the network reads, and days that it forecasts.
const DAYS: usize = 28;
const HORIZON: usize = 7;
/// The series, and the time of the year as a sine and a cosine.
const INPUTS: usize = SERIES.len() + 2;
const OUTPUTS: usize = HORIZON * SERIES.len() * QUANTILES.len();
const BATCH: usize = 32;
/// The units of the GRU.
pub(crate) const UNITS: usize = 32;
/// More would overfit three years.
pub(crate) const EPOCHS: u64 = 10;
const KEEP_PROB: f64 = 0.8;
const LEARNING_RATE: f64 = 0.002;

/// A GRU, and a layer that maps its last output to the quantiles of all days and series.
#[derive(Clone, Debug)]
pub(crate) struct Forecaster {
    cell: DropoutWrapper<GruCell>,
    quantiles: Dense,
}

recurrent::module!(Forecaster { cell as "rnn/gru_cell", quantiles as "dense" });

impl Forecaster {
    fn new(device: &Device, units: usize) -> recurrent::Result<Self> {
        let cell = GruCell::new(device, INPUTS, units)?;
        Ok(Self {
            cell: DropoutWrapper::builder(cell)
                .input_keep_prob(KEEP_PROB)
                .build()?,
            quantiles: Dense::new(device, units, OUTPUTS)?,
        })
    }

    /// `[batch, horizon, series, quantiles]` of days `[batch, days, inputs]`.
    fn forward(&self, run: &Run, days: &Tensor) -> recurrent::Result<Tensor> {
        let rnn = DynamicRnn::new(&self.cell)
            .memory_policy(run.memory)
            .segment_length(Run::SEGMENT)
            .run(days)?;
        let shape = [days.shape()[0], HORIZON, SERIES.len(), QUANTILES.len()];
        self.quantiles.forward(&rnn.state)?.reshape(&shape)
    }

    /// The forecasts made before each of these days.
    fn forecast(
        &self,
        run: &Run,
        weather: &Weather,
        days: &[usize],
    ) -> recurrent::Result<Vec<Week>> {
        let quantiles = self
            .forward(run, &inputs(run, weather, days)?)?
            .to_vec::<f32>()?;
        let (rows, []) = quantiles.as_chunks::<{ QUANTILES.len() }>() else {
            unreachable!("the last axis has the quantiles");
        };
        let (weeks, _) = rows.as_chunks::<{ SERIES.len() }>();
        Ok(weeks.chunks_exact(HORIZON).map(<[_]>::to_vec).collect())
    }
}

/// The quantiles of each series on each day of a forecast.
type Week = Vec<[[f32; QUANTILES.len()]; SERIES.len()]>;

/// What the network reads before each of these days: `[days.len(), DAYS, INPUTS]`.
fn inputs(run: &Run, weather: &Weather, days: &[usize]) -> recurrent::Result<Tensor> {
    let mut numbers = Vec::with_capacity(days.len() * DAYS * INPUTS);
    for day in days.iter().flat_map(|&day| day - DAYS..day) {
        let angle = day as f32 / 365.25 * std::f32::consts::TAU;
        numbers.extend(weather.days[day]);
        numbers.extend([angle.sin(), angle.cos()]);
    }
    Tensor::from_slice(&run.device, &numbers, &[days.len(), DAYS, INPUTS])
}

/// The mean quantile loss: `forecast [.., quantiles]`, `truth [..]`.
fn quantile_loss(forecast: &Tensor, truth: &Tensor) -> recurrent::Result<Tensor> {
    let q = QUANTILES.map(|q| q as f32);
    let q = Tensor::from_slice(truth.device(), &q, &[q.len()])?;
    let error = (truth.unsqueeze(truth.dims().len())? - forecast)?;
    (&error * &q)?.maximum((&error * (&q - 1)?)?)?.mean_all()
}

/// Figures of the forecasts of the last year.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// The quantile losses of the network and of the two other forecasts.
    pub(crate) network: f64,
    pub(crate) season: f64,
    pub(crate) last_year: f64,
    /// Fraction of the days that are between the lowest and the highest quantile.
    pub(crate) within: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            season,
            last_year,
            within,
        } = self;
        write!(
            f,
            "quantile_loss {network:.4} of_season {season:.4} of_last_year {last_year:.4} \
             within_band {within:.3}"
        )
    }
}

/// Compares the forecasts of each day of the last year with the truth.
pub(crate) fn evaluate(run: &Run, model: &Forecaster, weather: &Weather) -> Result<Figures, Error> {
    let days: Vec<usize> = (weather.split..=weather.days.len() - HORIZON).collect();
    let mut sums = [0.0; 4];
    for (&first, week) in days.iter().zip(model.forecast(run, weather, &days)?) {
        for (day, forecast) in (first..).zip(week) {
            for (series, quantiles) in forecast.into_iter().enumerate() {
                let truth = weather.days[day][series];
                let within = (quantiles[0]..=quantiles[QUANTILES.len() - 1]).contains(&truth);
                let figures = [
                    pinball(truth, quantiles),
                    pinball(truth, weather.of_season(day, series)),
                    pinball(truth, weather.of_last_year(day, series)),
                    f64::from(u8::from(within)),
                ];
                sums.iter_mut()
                    .zip(figures)
                    .for_each(|(sum, figure)| *sum += figure);
            }
        }
    }
    let count = (days.len() * HORIZON * SERIES.len()) as f64;
    let [network, season, last_year, within] = sums.map(|sum| sum / count);
    Ok(Figures {
        network,
        season,
        last_year,
        within,
    })
}

/// Trains a model with a GRU of `units` units.
pub(crate) fn train(run: &Run, weather: &Weather, units: usize) -> Result<Forecaster, Error> {
    let mut model = Forecaster::new(&run.device, units)?;
    model.initialize(run.seed)?;
    let firsts = weather.split - HORIZON - DAYS;
    let mut batches = Batches::new(firsts, BATCH, Remainder::Keep, run.seed)?;
    epochs::train(
        run,
        Schedule::Constant(LEARNING_RATE),
        &mut model,
        &mut batches,
        |model, items| {
            let days: Vec<usize> = items.iter().map(|item| item + DAYS).collect();
            let truth = days
                .iter()
                .flat_map(|&day| &weather.days[day..day + HORIZON]);
            let truth: Vec<f32> = truth.flatten().copied().collect();
            let shape = [days.len(), HORIZON, SERIES.len()];
            let truth = Tensor::from_slice(&run.device, &truth, &shape)?;
            quantile_loss(&model.forward(run, &inputs(run, weather, &days)?)?, &truth)
        },
    )?;
    Ok(model)
}

/// Plots the first series of the last year, each week as forecast before its first day.
fn plot(run: &Run, model: &Forecaster, weather: &Weather, path: &Path) -> Result<(), Error> {
    let days: Vec<usize> = (weather.split..=weather.days.len() - HORIZON)
        .step_by(HORIZON)
        .collect();
    let weeks = model.forecast(run, weather, &days)?;
    let forecasts: Vec<_> = weeks
        .iter()
        .flatten()
        .map(|day| day[0].map(|value| weather.unscaled(value)))
        .collect();
    let truth: Vec<_> = (weather.split..)
        .take(forecasts.len())
        .map(|day| weather.unscaled(weather.days[day][0]))
        .collect();
    bands::draw(
        path,
        "highest temperature of the day, °C",
        &truth,
        &forecasts,
    )
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let known = [&task::OPTIONS[..], &["plot"]].concat();
    let options = Options::read(HELP, &known)?;
    let run = Run::of(&options, EPOCHS)?;
    let path = options.get("plot", "runs/forecast.svg".to_owned())?;
    let weather = Weather::read()?;
    let model = train(&run, &weather, UNITS)?;
    run.report(&model, |run, model| evaluate(run, model, &weather))?;
    plot(&run, &model, &weather, Path::new(&path))?;
    writeln!(stdout(), "plot {path}")?;
    Ok(())
}
