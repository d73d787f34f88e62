//! Predicts the next value of a series with a recurrent network of 100 hidden units, then continues
//! the series from its own predictions.
//!
//! The network of A. Géron's tutorial: windows of 20 steps, a projection of each output to one
//! number, mean squared error. Test windows lie after all training data.

mod support;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use datasets::committed_root;
use plotters::prelude::*;
use recurrent::data::{
    Batches, Normalization, Remainder, SeriesWindows, read_series, split_tail, wave_series,
};
use recurrent::losses::mean_squared_error;
use recurrent::prelude::*;
use support::{Error, Options};

const HELP: &str = "\
Predicts the next value of a series.

Options, with their defaults in parentheses:
  --series wave|sunspots  a generated series, or the monthly sunspot numbers of 1749 to 1983 (wave)
  --iterations N          training steps (1500 for wave; 300 for sunspots, which more would overfit)
  --device NAME           cpu, cpu:THREADS, cuda, cuda:INDEX or best ($RECURRENT_DEVICE, else best)
  --seed N                seed of the initialization and of the order of the windows (0)
  --plot FILE             SVG file for the predictions and the truth (runs/time_series-SERIES.svg)
";

const STEPS: usize = 20;
const UNITS: usize = 100;
const BATCH: usize = 50;
const LEARNING_RATE: f64 = 0.001;
/// Number of values that the network predicts from its own predictions.
const CONTINUATION: usize = 60;

/// A recurrent network with a projection of each output to one number.
#[derive(Clone, Debug)]
struct Predictor {
    cell: BasicRnnCell,
    output: Dense,
}

recurrent::module!(Predictor { cell as "basic_rnn_cell", output as "dense" });

impl Predictor {
    fn new(device: &Device) -> recurrent::Result<Self> {
        Ok(Self {
            cell: BasicRnnCell::builder(1, UNITS)
                .activation(Activation::Relu)
                .build(device)?,
            output: Dense::new(device, UNITS, 1)?,
        })
    }

    /// `[batch, steps, 1] -> [batch, steps, 1]`: the predicted next value at each step.
    fn forward(&self, values: &Tensor) -> recurrent::Result<Tensor> {
        let rnn = DynamicRnn::new(&self.cell).run(values)?;
        self.output.forward(&rnn.outputs)
    }

    /// The predicted value after the end of each window.
    fn next(&self, device: &Device, windows: &[&[f32]]) -> recurrent::Result<Vec<f32>> {
        let shape = [windows.len(), STEPS, 1];
        let values = Tensor::from_slice(device, &windows.concat(), &shape)?;
        self.forward(&values)?.select(1, STEPS - 1)?.to_vec()
    }
}

fn main() -> ExitCode {
    support::report(run())
}

fn run() -> Result<(), Error> {
    let known = ["series", "iterations", "device", "seed", "plot"];
    let options = Options::read(HELP, &known)?;
    let device = options.device()?;
    let name = options.get("series", "wave".to_owned())?;
    let enough = if name == "sunspots" { 300 } else { 1500 };
    let iterations: u64 = options.get("iterations", enough)?;
    let seed: u64 = options.get("seed", 0)?;
    let plot = options.get("plot", format!("runs/time_series-{name}.svg"))?;

    let series = match name.as_str() {
        "wave" => wave_series(0.0..30.0, 0.1)?,
        "sunspots" => read_series(committed_root().join("sunspots-monthly.csv"))?,
        _ => return Err(format!("--series {name}: must be wave or sunspots").into()),
    };
    let (train, test) = split_tail(&series, 5)?;
    let scale = Normalization::fit(train)?;
    let (train, test) = (scale.apply(train), scale.apply(test));

    let mut model = Predictor::new(&device)?;
    model.initialize(seed)?;
    train_model(&mut model, &device, &train, iterations, seed)?;

    let windows = SeriesWindows::new(&test, STEPS)?;
    let inputs: Vec<&[f32]> = (0..windows.len())
        .filter_map(|i| Some(windows.get(i)?.0))
        .collect();
    let predicted = model.next(&device, &inputs)?;
    let truth = &test[STEPS..];
    let square = |a: f32, b: f32| (scale.invert(a) - scale.invert(b)).powi(2);
    let mean = |errors: Vec<f64>| errors.iter().sum::<f64>() / errors.len() as f64;
    let mse = mean(
        predicted
            .iter()
            .zip(truth)
            .map(|(a, b)| square(*a, *b))
            .collect(),
    );
    let persistence = mean(
        test[STEPS - 1..]
            .iter()
            .zip(truth)
            .map(|(a, b)| square(*a, *b))
            .collect(),
    );
    writeln!(
        stdout(),
        "{name} test_mse {mse:.4} persistence_mse {persistence:.4} ratio {:.3}",
        mse / persistence
    )?;

    // The network continues the series from its end and feeds each prediction back as input.
    let mut continued = test[test.len() - STEPS..].to_vec();
    for _ in 0..CONTINUATION {
        let window = &continued[continued.len() - STEPS..];
        continued.push(model.next(&device, &[window])?[0]);
    }
    let unscaled = |values: &[f32]| values.iter().map(|&v| scale.invert(v)).collect::<Vec<_>>();
    let path = draw(
        Path::new(&plot),
        &unscaled(truth),
        &unscaled(&predicted),
        &unscaled(&continued[STEPS..]),
    )?;
    writeln!(stdout(), "plot {}", path.display())?;
    Ok(())
}

fn train_model(
    model: &mut Predictor,
    device: &Device,
    train: &[f32],
    iterations: u64,
    seed: u64,
) -> Result<(), Error> {
    let windows = SeriesWindows::new(train, STEPS)?;
    let batch = BATCH.min(windows.len());
    let mut batches = Batches::new(windows.len(), batch, Remainder::Drop, seed)?;
    let mut adam = Adam::new(LEARNING_RATE);
    let mut trainer = Trainer::new(seed).show_progress(false);
    let mut reported = 0;
    while trainer.state().step < iterations {
        let report = trainer.run_epoch(model, &mut adam, &mut batches, |model, items, _| {
            let (inputs, targets) = windows.gather(items)?;
            let shape = [items.len(), STEPS, 1];
            let inputs = Tensor::from_slice(device, &inputs, &shape)?;
            let targets = Tensor::from_slice(device, &targets, &shape)?;
            mean_squared_error(&model.forward(&inputs)?, &targets)
        })?;
        let step = trainer.state().step;
        if step / 300 > reported {
            reported = step / 300;
            writeln!(
                stdout(),
                "iteration {step} train_mse {:.5}",
                report.mean_loss
            )?;
        }
    }
    Ok(())
}

/// Plots the true values and the predictions over time, then the continuation.
fn draw(
    path: &Path,
    truth: &[f64],
    predicted: &[f64],
    continued: &[f64],
) -> Result<PathBuf, Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let all = || truth.iter().chain(predicted).chain(continued).copied();
    let (low, high) = (
        all().fold(f64::MAX, f64::min),
        all().fold(f64::MIN, f64::max),
    );
    let margin = (high - low) * 0.05;
    let root = SVGBackend::new(path, (1000, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let steps = truth.len() + continued.len();
    let mut chart = ChartBuilder::on(&root)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(50)
        .build_cartesian_2d(0..steps, low - margin..high + margin)?;
    chart.configure_mesh().x_desc("step").draw()?;
    let mut line = |values: &[f64], start: usize, color: RGBColor, label: &str| {
        let points = values.iter().enumerate().map(|(i, &v)| (start + i, v));
        chart
            .draw_series(LineSeries::new(points, &color))
            .map(|series| {
                series
                    .label(label)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
            })
    };
    line(truth, 0, BLACK, "truth")?;
    line(predicted, 0, BLUE, "predicted from the previous 20 values")?;
    line(
        continued,
        truth.len(),
        RED,
        "continued from its own predictions",
    )?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(path.to_owned())
}
