//! Time series of numbers.

use std::ops::Range;
use std::path::Path;

use backend_api::{Error, Result};

use crate::regular::read_utf8;

/// Reads a series from a CSV file with [`parse_series`].
///
/// ```
/// use recurrent::data::read_series;
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-read-series.csv");
/// std::fs::write(&path, "month,passengers\n1949-01,112\n1949-02,118\n").expect("a file");
/// assert_eq!(read_series(&path)?, [112.0, 118.0]);
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is not a regular file or not
/// UTF-8, or an error of [`parse_series`].
pub fn read_series(path: impl AsRef<Path>) -> Result<Vec<f64>> {
    let path = path.as_ref();
    parse_series(&read_utf8(path)?, path)
}

/// Reads a series from CSV. Each line has a value, or a date, a comma and a value. The first line
/// may be a heading; blank lines are skipped. `name` is used in error messages.
///
/// What could be read in two ways is refused: other separators than commas, because of decimal
/// commas; lines with different numbers of columns; a first line that looks like damaged data and
/// not like a heading; and, without a heading, two columns that could be one with decimal commas in
/// every line, such as `1949,112`.
///
/// # Errors
///
/// [`Error::Format`], naming the line, if a line has more than two columns, or its value is
/// missing, not a number, or not finite, or in the cases above; also if there are no values at all.
///
/// ```
/// let csv = "month,passengers\n1949-01,112\n1949-02,118\n";
/// assert_eq!(recurrent::data::parse_series(csv, "airline")?, [112.0, 118.0]);
/// # Ok::<(), recurrent::Error>(())
/// ```
pub fn parse_series(text: &str, name: impl AsRef<Path>) -> Result<Vec<f64>> {
    let name = name.as_ref();
    let mut values = Vec::new();
    // Number and columns of the first line.
    let mut first: Option<(usize, usize)> = None;
    let mut has_heading = false;
    // Whether every line could be one number with a decimal comma.
    let mut decimal_commas = true;
    // Spreadsheets write a byte order mark first.
    for (i, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = i + 1;
        let refuse = |problem: String| {
            let problem = format!("line {number}: {problem}");
            Err(Error::format(name, problem))
        };
        if let Some(separator) = line.trim().chars().find(|c| matches!(c, ';' | '\t')) {
            return refuse(format!(
                "{line:?} contains {separator:?}: columns are separated by commas, and numbers \
                 have decimal points"
            ));
        }
        let cells: Vec<&str> = line.split(',').map(unquoted).collect();
        let (date, value) = match cells[..] {
            [value] => ("", value),
            [date, value] => (date, value),
            _ => return refuse(format!("more than two columns: {line:?}")),
        };
        let (first_line, columns) = *first.get_or_insert((number, cells.len()));
        if cells.len() != columns {
            let found = cells.len();
            return refuse(format!(
                "has {found} columns, but line {first_line} has {columns}: {line:?}"
            ));
        }
        match value.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                decimal_commas &= is_integer(date) && is_digits(cells[columns - 1]);
                values.push(value);
            }
            Err(_) if number == first_line && !value.is_empty() => {
                if let Some(cell) = [date, value].into_iter().find(|cell| is_like_data(cell)) {
                    return refuse(format!(
                        "{value:?} is not a finite number, and {cell:?} is not a heading"
                    ));
                }
                has_heading = true;
            }
            _ => return refuse(format!("{value:?} is not a finite number")),
        }
    }
    match first {
        Some((line, 2)) if decimal_commas && !has_heading => {
            let problem = "every line is either a date and a value or a number with a decimal \
                           comma: add a heading, such as `year,value`";
            Err(Error::format(name, format!("line {line}: {problem}")))
        }
        _ if values.is_empty() => Err(Error::format(name, "has no values")),
        _ => Ok(values),
    }
}

fn unquoted(cell: &str) -> &str {
    cell.trim().trim_matches('"')
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_integer(text: &str) -> bool {
    is_digits(text.strip_prefix(['-', '+']).unwrap_or(text))
}

/// Whether a cell looks like a date or a number, perhaps a damaged one, and not like a name.
fn is_like_data(cell: &str) -> bool {
    let digits = cell.chars().filter(char::is_ascii_digit).count();
    let letters = cell.chars().filter(|c| c.is_alphabetic()).count();
    let starts = cell.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    digits > 0 && (starts || digits > letters)
}

/// Shift and scale to mean 0 and standard deviation 1.
///
/// Always [fit](Normalization::fit) to the training part: the mean of the whole series would leak
/// information about the future to the model.
///
/// ```
/// use recurrent::data::{Normalization, split_tail};
///
/// let series = [1.0, 3.0, 1.0, 3.0, 10.0];
/// let (train, validation) = split_tail(&series, 5)?;
/// let normalization = Normalization::fit(train)?;
/// assert_eq!(normalization.apply(validation), [8.0]);
/// assert_eq!(normalization.invert(8.0), 10.0);
/// # Ok::<(), recurrent::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalization {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
}

/// Deviations below this part of the largest value are the rounding of a constant.
const NOISE: f64 = 4.0 * f64::EPSILON;

impl Normalization {
    /// Mean and standard deviation (of the population) of `train`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `train` is empty, constant within rounding, or its mean or deviation
    /// is not finite.
    pub fn fit(train: &[f64]) -> Result<Self> {
        let refuse = |problem| Err(Error::argument("Normalization::fit", "train", problem));
        if train.is_empty() {
            return refuse("is empty");
        }
        if train.iter().all(|value| *value == train[0]) {
            return refuse("is constant");
        }
        let n = train.len() as f64;
        let sum = train.iter().sum::<f64>() / n;
        // A second pass removes the rounding of the sum, which can exceed a small deviation.
        let mean = sum + train.iter().map(|value| value - sum).sum::<f64>() / n;
        let variance = train
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / n;
        let deviation = variance.sqrt();
        if !deviation.is_finite() {
            return refuse("has a mean or deviation that is not finite");
        }
        let largest = train
            .iter()
            .fold(0.0f64, |most, value| most.max(value.abs()));
        if deviation <= NOISE * largest {
            return refuse("is constant within rounding");
        }
        Ok(Self { mean, deviation })
    }

    /// Normalizes values for the model's input.
    pub fn apply(&self, values: &[f64]) -> Vec<f32> {
        values
            .iter()
            .map(|value| ((value - self.mean) / self.deviation) as f32)
            .collect()
    }

    /// Converts an output of the model back to the scale of the series.
    pub fn invert(&self, value: f32) -> f64 {
        f64::from(value) * self.deviation + self.mean
    }
}

/// All windows of `steps` consecutive values of a series, with the following values as targets.
///
/// The targets are the inputs shifted by one step. A sequence-to-sequence model predicts the next
/// value at every step; a model with one output at the end uses only the last target.
///
/// ```
/// use recurrent::data::SeriesWindows;
///
/// let windows = SeriesWindows::new(&[0.0, 0.1, 0.2, 0.3], 2)?;
/// assert_eq!(windows.len(), 2);
/// assert_eq!(windows.get(1), Some((&[0.1, 0.2][..], &[0.2, 0.3][..])));
///
/// let (inputs, targets) = windows.gather(&[1, 0])?;
/// assert_eq!(inputs, [0.1, 0.2, /* window 0 */ 0.0, 0.1]);
/// assert_eq!(targets, [0.2, 0.3, /* window 0 */ 0.1, 0.2]);
/// # Ok::<(), recurrent::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SeriesWindows<'a> {
    values: &'a [f32],
    steps: usize,
}

impl<'a> SeriesWindows<'a> {
    /// Windows of `steps` values each.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `steps` is 0, or `values` has fewer than `steps + 1` elements.
    pub fn new(values: &'a [f32], steps: usize) -> Result<Self> {
        let refuse =
            |arg: &str, problem: String| Err(Error::argument("SeriesWindows::new", arg, problem));
        if steps == 0 {
            return refuse("steps", "must not be 0".to_owned());
        }
        if values.len() <= steps {
            let problem = format!(
                "has {} elements, too few for {steps} steps and one more",
                values.len()
            );
            return refuse("values", problem);
        }
        Ok(Self { values, steps })
    }

    /// Number of windows, at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.values.len() - self.steps
    }

    /// The inputs and targets, `steps` values each, of the window that starts at `index`; `None` if
    /// `index` is out of range.
    pub fn get(&self, index: usize) -> Option<(&'a [f32], &'a [f32])> {
        let window = self.values.get(index..)?.get(..=self.steps)?;
        Some((&window[..self.steps], &window[1..]))
    }

    /// Inputs and targets of some windows, both of shape `[windows.len(), steps]`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if an index is out of range.
    pub fn gather(&self, windows: &[usize]) -> Result<(Vec<f32>, Vec<f32>)> {
        let size = windows.len() * self.steps;
        let (mut inputs, mut targets) = (Vec::with_capacity(size), Vec::with_capacity(size));
        for &index in windows {
            let (input, target) = self.get(index).ok_or_else(|| {
                let problem = format!("contain {index}, but there are only {} windows", self.len());
                Error::argument("SeriesWindows::gather", "windows", problem)
            })?;
            inputs.extend_from_slice(input);
            targets.extend_from_slice(target);
        }
        Ok((inputs, targets))
    }
}

/// A sine whose amplitude grows with time plus a faster sine, `t sin(t) / 3 + 2 sin(5 t)`: the
/// series of A. Géron's tutorial on recurrent networks.
///
/// ```
/// assert_eq!(recurrent::data::wave(0.0), 0.0);
/// ```
pub fn wave(t: f64) -> f64 {
    t * t.sin() / 3.0 + 2.0 * (5.0 * t).sin()
}

/// [`wave`] sampled every `step` from `range.start` up to, but not including, `range.end`.
///
/// # Errors
///
/// [`Error::Argument`] if `step` is not above 0 or the range is not finite.
///
/// ```
/// use recurrent::data::{wave, wave_series};
///
/// let series = wave_series(0.0..30.0, 0.1)?;
/// assert_eq!(series.len(), 300);
/// assert!((series[7] - wave(0.7)).abs() < 1e-12);
/// # Ok::<(), recurrent::Error>(())
/// ```
pub fn wave_series(range: Range<f64>, step: f64) -> Result<Vec<f64>> {
    let refuse = |arg: &str, problem| Err(Error::argument("wave_series", arg, problem));
    if !(step.is_finite() && step > 0.0) {
        return refuse("step", "must be above 0");
    }
    if !(range.start.is_finite() && range.end.is_finite()) {
        return refuse("range", "must be finite");
    }
    // Times are multiples of the step; repeated addition would accumulate rounding errors and
    // change the length. A quotient that should be a whole number may be slightly larger.
    let steps = (range.end - range.start) / step;
    let len = (steps - steps.abs() * f64::EPSILON * 4.0).ceil().max(0.0);
    if len > (1u64 << 32) as f64 {
        return refuse("step", "is too small for the range");
    }
    Ok((0..len as u64)
        .map(|i| wave(range.start + i as f64 * step))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_forms_of_csv_are_read() {
        for text in [
            "1\n2.5\n-3e2\n",
            "value\n1\n2.5\n-3e2",
            "date,value\r\n2000-01,1\r\n2000-02,2.5\r\n\r\n2000-03, -300 \r\n",
            "\u{feff}\"date\",\"value\"\n\"2000-01\",\"1\"\n2000-02,2.5\n2000-03,-300\n\n",
        ] {
            assert_eq!(
                parse_series(text, "test").unwrap(),
                [1.0, 2.5, -300.0],
                "{text:?}"
            );
        }
    }

    #[test]
    fn an_invalid_line_is_named() {
        for (text, part) in [
            ("1\n2\nthree\n", "line 3"),
            ("date,value\n2000-01,\n", "line 2"),
            ("a\nb\n1\n", "line 2"),
            ("1\n2,3,4\n", "line 2"),
            ("1\nNaN\n", "line 2"),
            ("inf\n", "line 1"),
            ("\n\n", "no values"),
            ("", "no values"),
            ("heading\n", "no values"),
        ] {
            let message = parse_series(text, "test.csv").unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains("test.csv"),
                "{text:?}: {message}"
            );
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_rejected() {
        for (text, part) in [
            // Decimal commas.
            (
                "2020-01-01;3,5\n",
                "line 1: \"2020-01-01;3,5\" contains ';'",
            ),
            ("date;value\n2020-01-01;3,5\n", "line 1"),
            ("date,value\n2020-01-01\t3,5\n", "line 2"),
            ("value\n3,5\n", "line 2: has 2 columns, but line 1 has 1"),
            ("3\n3,5\n4\n", "line 2: has 2 columns, but line 1 has 1"),
            ("3,5\n4,25\n-1,0\n", "line 1: every line is either a date"),
            ("1949,112\n", "line 1: every line"),
            (
                "date,value\n2020-01\n",
                "line 2: has 1 columns, but line 1 has 2",
            ),
            // Damaged first rows.
            (
                "1949-01,1l2\n1949-02,118\n",
                "line 1: \"1l2\" is not a finite number",
            ),
            ("1949-01,abc\n1949-02,118\n", "\"1949-01\" is not a heading"),
            ("1.5.2\n1\n", "line 1"),
            ("-x1\n1\n", "line 1"),
            ("l12\n1\n", "line 1"),
            ("a,x12\n2000-01,1\n", "line 1"),
        ] {
            let message = parse_series(text, "test.csv").unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains("test.csv"),
                "{message}"
            );
        }
        for text in [
            "year,passengers\n1949,112\n1950,118\n",
            "1949,112.0\n1950,118\n",
            "1949-01,112\n1949-02,118\n",
            "co2,t2m\na,112\nb,118\n",
            "-,%\n1,112\n2,118\n",
        ] {
            assert_eq!(
                parse_series(text, "test").unwrap(),
                [112.0, 118.0],
                "{text:?}"
            );
        }
    }

    #[test]
    fn mutated_csv_never_panics() {
        let seed = "month,value\n1949-01,112\n1949-02,118.5\n";
        let chars: Vec<char> = "0,.\n\r\"-eE\u{feff}é ".chars().collect();
        for at in (0..seed.len()).flat_map(|at| chars.iter().map(move |c| (at, c))) {
            let (at, char) = at;
            let mut text = seed.to_owned();
            text.insert(at, *char);
            if let Ok(values) = parse_series(&text, "test") {
                assert!(values.iter().all(|value| value.is_finite()));
            }
            text.truncate(at);
            let _ = parse_series(&text, "test");
        }
    }

    #[test]
    fn normalization_uses_only_the_fitted_part() {
        let train = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let normalization = Normalization::fit(&train).unwrap();
        assert_eq!(
            normalization,
            Normalization {
                mean: 5.0,
                deviation: 2.0
            }
        );
        assert_eq!(normalization.apply(&[5.0, 105.0]), [0.0, 50.0]);
        for value in train {
            assert_eq!(
                normalization.invert(normalization.apply(&[value])[0]),
                value
            );
        }
    }

    #[test]
    fn constant_or_non_finite_series_are_rejected() {
        for train in [
            &[][..],
            &[0.1; 10],
            &[0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2],
            &[1e-320, 0.0],
            &[1e20, 1e20 + 16384.0],
            &[1.0, f64::NAN],
            &[1.0, f64::INFINITY],
            &[f64::MAX, f64::MIN],
        ] {
            Normalization::fit(train).unwrap_err();
        }
    }

    #[test]
    fn windows_cover_the_series_and_targets_are_one_ahead() {
        let values: Vec<f32> = (0..10).map(|i| i as f32).collect();
        for steps in 1..10 {
            let windows = SeriesWindows::new(&values, steps).unwrap();
            assert_eq!(windows.len(), 10 - steps);
            for start in 0..windows.len() {
                let (inputs, targets) = windows.get(start).unwrap();
                assert_eq!(inputs, &values[start..start + steps]);
                assert_eq!(targets, &values[start + 1..start + steps + 1]);
            }
            assert_eq!(windows.get(windows.len()), None);
            assert_eq!(windows.get(usize::MAX), None);
            assert!(windows.gather(&[windows.len()]).is_err());
        }
        assert!(SeriesWindows::new(&values, 0).is_err());
        assert!(SeriesWindows::new(&values, 10).is_err());
        assert!(SeriesWindows::new(&values, usize::MAX).is_err());
        assert!(SeriesWindows::new(&[], 1).is_err());
    }

    #[test]
    fn the_wave_covers_its_range() {
        for (range, step, len) in [
            (0.0..30.0, 0.1, 300),
            (0.0..3.0, 0.1, 30),
            (12.2..12.2 + 20.0 * (30.0 / 300.0), 0.1, 20),
            (0.0..1.0, 0.3, 4),
            (0.0..0.05, 0.1, 1),
            (1.0..1.0, 0.1, 0),
            (1.0..0.0, 0.1, 0),
        ] {
            let series = wave_series(range.clone(), step).unwrap();
            assert_eq!(series.len(), len, "{range:?} by {step}");
            if let Some(first) = series.first() {
                assert_eq!(*first, wave(range.start));
            }
        }
        // At π/2 both sines are 1.
        let t = std::f64::consts::FRAC_PI_2;
        assert!((wave(t) - (t / 3.0 + 2.0)).abs() < 1e-12);
        for (range, step) in [
            (0.0..1.0, 0.0),
            (0.0..1.0, -0.1),
            (0.0..1.0, f64::NAN),
            (0.0..f64::INFINITY, 0.1),
            (f64::NAN..1.0, 0.1),
            (0.0..1.0, f64::MIN_POSITIVE),
        ] {
            wave_series(range, step).unwrap_err();
        }
    }

    #[test]
    fn the_committed_series_have_the_documented_contents() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
        for (name, len, first, last, sum) in [
            ("airline.csv", 144, 112.0, 432.0, 40_363.0),
            ("sunspots-monthly.csv", 2_820, 58.0, 33.4, 144_570.0),
            ("sunspots-yearly.csv", 309, 5.0, 2.9, 15_373.4),
        ] {
            let values = read_series(data.join(name)).unwrap();
            assert_eq!(
                (values.len(), values[0], values[len - 1]),
                (len, first, last),
                "{name}"
            );
            let found = values.iter().sum::<f64>();
            assert!((found - sum).abs() < 0.1, "{name}: {found}");
        }
        assert!(matches!(
            read_series(data.join("none.csv")),
            Err(Error::Io { .. })
        ));
    }
}
