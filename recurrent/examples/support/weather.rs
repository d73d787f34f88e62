//! The weather of Seattle by day, 2012 to 2015, and forecasts of it without a network.

use datasets::committed_root;
use recurrent::data::{CsvSpec, Normalization, Source};

use super::support::Error;

/// The series that are forecast. The first is plotted.
pub const SERIES: [&str; 4] = ["temp_max", "temp_min", "wind", "precipitation"];
/// The quantiles of a forecast.
pub const QUANTILES: [f64; 3] = [0.1, 0.5, 0.9];
const YEAR: usize = 365;
/// Days before and after a date that count as the same season.
const SEASON: usize = 15;

/// Series by day, in units of their standard deviations in training.
#[derive(Clone, Debug)]
pub struct Weather {
    /// The numbers of each day. Precipitation is `log(1 + millimetres)`.
    pub days: Vec<[f32; SERIES.len()]>,
    /// The first day of the last year, which is for testing.
    pub split: usize,
    scales: Vec<Normalization>,
}

impl Weather {
    /// The committed series.
    pub fn read() -> Result<Self, Error> {
        let mut spec = CsvSpec::new();
        let field = spec.sequence::<f64>("weather", &SERIES)?;
        let mut samples = spec.read(committed_root().join("seattle-weather.csv"))?;
        let sample = samples.next_item()?.ok_or("no weather")?;
        Self::new(sample.get(field)?)
    }

    /// Series from numbers `[days, series]`.
    pub fn new(numbers: &[f64]) -> Result<Self, Error> {
        let rows = numbers.chunks_exact(SERIES.len());
        let rows: Vec<Vec<f64>> = rows
            .map(|row| [&row[..3], &[row[3].ln_1p()]].concat())
            .collect();
        let split = rows.len().checked_sub(YEAR).ok_or("less than a year")?;
        let column = |i: usize| rows[..split].iter().map(|row| row[i]).collect::<Vec<f64>>();
        let scales = (0..SERIES.len()).map(|i| Normalization::fit(&column(i)));
        let scales: Vec<_> = scales.collect::<Result<_, _>>()?;
        let scaled = |row: &Vec<f64>| std::array::from_fn(|i| scales[i].apply(&row[i..=i])[0]);
        Ok(Self {
            days: rows.iter().map(scaled).collect(),
            split,
            scales,
        })
    }

    /// A number of the first series in its own unit.
    pub fn unscaled(&self, value: f32) -> f64 {
        self.scales[0].invert(value)
    }

    /// The quantiles of a series around a date of the years before, in training.
    pub fn of_season(&self, day: usize, series: usize) -> [f32; QUANTILES.len()] {
        let same = (1..).map_while(|years| day.checked_sub(years * YEAR));
        let around = same.flat_map(|at| at.saturating_sub(SEASON)..=at + SEASON);
        let known = around.filter(|&at| at < self.split);
        let mut values: Vec<f32> = known.map(|at| self.days[at][series]).collect();
        values.sort_by(f32::total_cmp);
        QUANTILES.map(|q| values[(q * (values.len() - 1) as f64).round() as usize])
    }

    /// The value of the same date a year before, for each quantile.
    pub fn of_last_year(&self, day: usize, series: usize) -> [f32; QUANTILES.len()] {
        [self.days[day - YEAR][series]; QUANTILES.len()]
    }
}

/// The mean quantile ("pinball") loss of forecasts: an error costs `q` if the truth is above the
/// quantile `q`, and `1 - q` if it is below.
pub fn pinball(truth: f32, forecast: [f32; QUANTILES.len()]) -> f64 {
    let each = QUANTILES.iter().zip(forecast).map(|(q, forecast)| {
        let error = f64::from(truth - forecast);
        (q * error).max((q - 1.0) * error)
    });
    each.sum::<f64>() / QUANTILES.len() as f64
}
