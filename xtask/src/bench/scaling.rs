//! `--scaling`: the cost of a step as sequences get longer and batches get larger.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;

use super::line::Line;
use super::table::by;
use super::workloads::{FORWARD_AND_TRAIN, LSTM, Workload};

const fn at(name: &'static str, batch: usize, steps: usize) -> Workload {
    Workload {
        name,
        batch,
        steps,
        inputs: 128,
        units: 128,
        modes: FORWARD_AND_TRAIN,
        ..LSTM
    }
}

const BATCH: usize = 16;
const STEPS: usize = 100;

/// An LSTM of 128 hidden units and 128 inputs, with increasing sequence length, then with
/// increasing batch size.
pub(super) const SCALING: [Workload; 13] = [
    at("B16_T100", BATCH, STEPS),
    at("B16_T300", BATCH, 300),
    at("B16_T1000", BATCH, 1000),
    at("B16_T3000", BATCH, 3000),
    at("B16_T10000", BATCH, 10_000),
    at("B1_T100", 1, STEPS),
    at("B2_T100", 2, STEPS),
    at("B4_T100", 4, STEPS),
    at("B8_T100", 8, STEPS),
    at("B32_T100", 32, STEPS),
    at("B64_T100", 64, STEPS),
    at("B128_T100", 128, STEPS),
    at("B256_T100", 256, STEPS),
];

/// The size that varies between the workloads.
#[derive(Clone, Copy, Debug)]
enum Axis {
    Steps,
    Batch,
}

impl Axis {
    const ALL: [Self; 2] = [Self::Steps, Self::Batch];

    fn title(self) -> String {
        match self {
            Self::Steps => format!("steps T (Backend = {BATCH})"),
            Self::Batch => format!("rows B (T = {STEPS})"),
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Steps => "steps.svg",
            Self::Batch => "batch.svg",
        }
    }

    /// The size of a workload on this axis, or `None` if it is not on the axis.
    fn place(self, w: &Workload) -> Option<usize> {
        match self {
            Self::Steps => (w.batch == BATCH).then_some(w.steps),
            Self::Batch => (w.steps == STEPS).then_some(w.batch),
        }
    }
}

/// Measurements that differ in only one size.
struct Series {
    name: String,
    /// The size, seconds per run, and microseconds per step and row.
    points: Vec<(usize, f64, f64)>,
}

fn series(lines: &[Line], axis: Axis) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for line in lines {
        let workload = SCALING.iter().find(|w| w.name == line.workload);
        let Some((w, place)) = workload.and_then(|w| Some((w, axis.place(w)?))) else {
            continue;
        };
        let threads = if line.threads == 1 {
            "thread"
        } else {
            "threads"
        };
        let name = format!("{} {}, {} {threads}", by(line), line.mode, line.threads);
        let each = line.median_s / (w.steps * w.batch) as f64 * 1e6;
        let at = all.iter().position(|s| s.name == name).unwrap_or_else(|| {
            let points = Vec::new();
            all.push(Series { name, points });
            all.len() - 1
        });
        all[at].points.push((place, line.median_s, each));
    }
    for series in &mut all {
        series.points.sort_by_key(|(place, ..)| *place);
    }
    all
}

/// Tables of both axes, with a column for each program, mode and number of threads.
pub(super) fn tables(lines: &[Line]) -> String {
    let mut text = String::from("Each: the time of a run, and of a step of a row.\n");
    for axis in Axis::ALL {
        let all = series(lines, axis);
        let mut places: Vec<usize> = all
            .iter()
            .flat_map(|s| s.points.iter().map(|(place, ..)| *place))
            .collect();
        places.sort_unstable();
        places.dedup();
        if places.is_empty() {
            continue;
        }
        let _ = write!(text, "\n| {} |", axis.title());
        for series in &all {
            let _ = write!(text, " {} |", series.name);
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(all.len()));
        for place in places {
            let _ = write!(text, "| {place} |");
            for series in &all {
                let point = series.points.iter().find(|(at, ..)| *at == place);
                let cell = point.map_or_else(String::new, |(_, run, each)| {
                    format!("{:.2} ms, {each:.3} µs", run * 1e3)
                });
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
    }
    text
}

/// Plots both axes to files in a folder.
pub(super) fn draw(lines: &[Line], folder: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    for axis in Axis::ALL {
        let all = series(lines, axis);
        let points = || all.iter().flat_map(|s| &s.points);
        let mut places: Vec<f64> = points().map(|(place, ..)| *place as f64).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let (Some(&first), Some(&last)) = (places.first(), places.last()) else {
            continue;
        };
        let low = points().map(|(_, _, y)| *y).fold(f64::MAX, f64::min);
        let high = points().map(|(_, _, y)| *y).fold(f64::MIN, f64::max);
        let heights = round_numbers(low, high);
        let up = heights[0]..heights[heights.len() - 1];
        let path = folder.join(axis.file());
        let root = SVGBackend::new(&path, (800, 500)).into_drawing_area();
        root.fill(&WHITE)?;
        let across = (first * 0.95..last * 1.05)
            .log_scale()
            .with_key_points(places);
        let mut chart = ChartBuilder::on(&root)
            .margin(15)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(across, up.log_scale().with_key_points(heights))?;
        chart
            .configure_mesh()
            .x_desc(axis.title())
            .y_desc("µs for a step of a row")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y}"))
            .draw()?;
        for (i, series) in all.iter().enumerate() {
            let color = Palette99::pick(i).to_rgba();
            let line: Vec<(f64, f64)> = series
                .points
                .iter()
                .map(|(place, _, each)| (*place as f64, *each))
                .collect();
            chart
                .draw_series(LineSeries::new(line, color.stroke_width(2)).point_size(3))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        root.present()?;
        drop(chart);
        eprintln!("{}", path.display());
    }
    Ok(())
}

/// Tick values 1, 2, 5 times powers of ten, from just below to just above a range.
fn round_numbers(low: f64, high: f64) -> Vec<f64> {
    let decade = low.max(f64::MIN_POSITIVE).log10().floor() as i32;
    let all = (decade..).flat_map(|d| {
        // Dividing by 10 gives the float nearest to 0.1, which prints as `0.1`.
        [1.0, 2.0, 5.0].map(|x| match d {
            0.. => x * 10f64.powi(d),
            _ => x / 10f64.powi(-d),
        })
    });
    let mut numbers = Vec::new();
    for number in all {
        if number <= low {
            numbers.clear();
        }
        numbers.push(number);
        if number > high {
            break;
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::line;
    use super::*;

    fn lines() -> Vec<Line> {
        let of = |name: &str, peer: &str, seconds| Line {
            workload: name.into(),
            ..line(peer, seconds)
        };
        vec![
            of("B16_T300", "recurrent", 0.0096),
            of("B16_T100", "recurrent", 0.0032),
            of("B16_T100", "torch", 0.0064),
            of("B1_T100", "recurrent", 0.001),
            of("W3_lstm512", "recurrent", 9.0),
        ]
    }

    #[test]
    fn names_tell_the_sizes() {
        for w in SCALING {
            assert_eq!(w.name, format!("B{}_T{}", w.batch, w.steps));
        }
    }

    #[test]
    fn tables_are_in_order_and_have_gaps() {
        assert_eq!(
            tables(&lines()),
            "Each: the time of a run, and of a step of a row.\n\
             \n\
             | steps T (Backend = 16) | recurrent fwd, 1 thread | torch fwd, 1 thread |\n\
             |---|---|---|\n\
             | 100 | 3.20 ms, 2.000 µs | 6.40 ms, 4.000 µs |\n\
             | 300 | 9.60 ms, 2.000 µs |  |\n\
             \n\
             | rows B (T = 100) | recurrent fwd, 1 thread | torch fwd, 1 thread |\n\
             |---|---|---|\n\
             | 1 | 1.00 ms, 10.000 µs |  |\n\
             | 16 | 3.20 ms, 2.000 µs | 6.40 ms, 4.000 µs |\n"
        );
    }

    #[test]
    fn round_numbers_enclose_a_range() {
        assert_eq!(round_numbers(0.3, 4.0), [0.2, 0.5, 1.0, 2.0, 5.0]);
        assert_eq!(round_numbers(2.0, 2.0), [2.0, 5.0]);
        assert_eq!(round_numbers(60.0, 99.0), [50.0, 100.0]);
    }

    #[test]
    fn each_axis_is_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let plots = folder.path().join("plots");
        draw(&lines(), &plots).unwrap();
        for (file, points) in [("steps.svg", 3), ("batch.svg", 3)] {
            let svg = std::fs::read_to_string(plots.join(file)).unwrap();
            assert_eq!(svg.matches("<circle").count(), points, "{file}");
            assert!(svg.contains("torch fwd, 1 thread"), "{file}");
            for label in ["\n2\n", "\n5\n"] {
                assert!(svg.contains(label), "{file}: {label:?}");
            }
        }
    }
}
