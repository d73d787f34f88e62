//! Curves as SVG.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

/// The values of a metric by step.
pub(super) type Points = BTreeMap<u64, f64>;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
/// The area of the curves, with space for the labels of the axes around it.
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = HEIGHT - 28.0;

const COLORS: [&str; 6] = [
    "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#5a5a5a",
];

/// With more points, a curve has no dots.
const DOTS: usize = 60;
/// With more points, each curve keeps the lowest and the highest value of parts of equal length.
const PARTS: usize = 800;

/// The curves of some metrics, whose names are escaped, with axes and a legend.
pub(super) fn chart(series: &[(String, &Points)]) -> String {
    let points = || series.iter().flat_map(|(_, points)| points.iter());
    let x = Axis {
        range: range(points().map(|(&step, _)| step as f64)),
        pixels: LEFT..RIGHT,
    };
    let y = Axis {
        range: range(points().map(|(_, &value)| value)),
        pixels: BOTTOM..TOP,
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    grid(&mut svg, &x, &y);
    for (i, (name, points)) in series.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        curve(&mut svg, &x, &y, points, color);
        let left = LEFT + i as f64 * ((RIGHT - LEFT) / series.len() as f64).min(160.0);
        push(
            &mut svg,
            format_args!(
                "<text x=\"{left:.1}\" y=\"16\" fill=\"{color}\" font-weight=\"bold\">{name}</text>"
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String, x: &Axis, y: &Axis) {
    let (right, bottom) = (LEFT - 6.0, BOTTOM + 18.0);
    push(
        svg,
        format_args!("<text x=\"{right}\" y=\"{bottom}\" text-anchor=\"end\">step</text>"),
    );
    for step in x.ticks().into_iter().filter(|step| step.fract() == 0.0) {
        let at = x.place(step);
        push(
            svg,
            format_args!("<text x=\"{at:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{step}</text>"),
        );
    }
    for value in y.ticks() {
        let (at, text) = (y.place(value), label(value));
        push(
            svg,
            format_args!(
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{right}\" y=\"{at:.1}\" dy=\"4\" text-anchor=\"end\">{text}</text>"
            ),
        );
    }
}

/// A curve, with a gap where values are not finite.
fn curve(svg: &mut String, x: &Axis, y: &Axis, points: &Points, color: &str) {
    let points: Vec<(f64, f64)> = points.iter().map(|(&x, &y)| (x as f64, y)).collect();
    let points = thinned(&points);
    let place = |&(step, value): &(f64, f64)| (x.place(step), y.place(value));
    for part in points.split(|(_, value)| !value.is_finite()) {
        if part.len() > 1 {
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" points=\""
            );
            for (x, y) in part.iter().map(place) {
                let _ = write!(svg, "{x:.1},{y:.1} ");
            }
            svg.push_str("\"/>\n");
        }
        if part.len() == 1 || points.len() <= DOTS {
            for (x, y) in part.iter().map(place) {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>"
                );
            }
        }
    }
}

/// Fewer points that look the same.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * PARTS {
        return points.to_vec();
    }
    let parts = points.chunks(points.len().div_ceil(PARTS));
    parts
        .flat_map(|part| {
            let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let ends = [part.iter().min_by(by_value), part.iter().max_by(by_value)];
            let mut ends = ends.into_iter().flatten().copied().collect::<Vec<_>>();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0));
            ends
        })
        .collect()
}

/// A range of numbers and the pixels that show it.
struct Axis {
    range: Range<f64>,
    pixels: Range<f64>,
}

impl Axis {
    fn place(&self, number: f64) -> f64 {
        let part = (number - self.range.start) / (self.range.end - self.range.start);
        self.pixels.start + part.clamp(0.0, 1.0) * (self.pixels.end - self.pixels.start)
    }

    /// Round numbers in the range, 4 to 10 of them.
    fn ticks(&self) -> Vec<f64> {
        let Range { start, end } = self.range;
        let least = (end - start) / 10.0;
        let power = 10f64.powf(least.log10().floor());
        let factors = [1.0, 2.0, 5.0, 10.0];
        let step = factors
            .map(|factor| factor * power)
            .into_iter()
            .find(|&step| step >= least);
        let step = step.unwrap_or(10.0 * power);
        let first = (start / step).ceil();
        let ticks = (0..12).map(|i| (first + f64::from(i)) * step);
        ticks.take_while(|&tick| tick <= end).collect()
    }
}

/// The range of the finite numbers, wide enough for coordinates.
fn range(numbers: impl Iterator<Item = f64>) -> Range<f64> {
    let finite = numbers
        .filter(|x| x.is_finite())
        .map(|x| x.clamp(-1e300, 1e300));
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    if low > high {
        return 0.0..1.0;
    }
    let enough = (1e-9 * low.abs().max(high.abs())).max(1e-290);
    match high - low {
        width if width > enough => low..high,
        _ if low == high && high.abs() < 1e290 && high.abs() > 1e-280 => {
            low - 0.5 * low.abs()..high + 0.5 * high.abs()
        }
        _ => low - enough..high + enough,
    }
}

/// A number with the digits that a label needs.
fn label(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        1e-3..1e5 => {
            let digits = format!("{number:.4}");
            digits
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        }
        _ => format!("{number:.1e}"),
    }
}

fn push(svg: &mut String, element: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{element}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        let ticks = |range| {
            let axis = Axis {
                range,
                pixels: 0.0..1.0,
            };
            axis.ticks()
                .iter()
                .map(|&tick| label(tick))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(ticks(0.0..1.0), "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1");
        assert_eq!(ticks(0.13..0.87), "0.2 0.3 0.4 0.5 0.6 0.7 0.8");
        assert_eq!(ticks(-30.0..1200.0), "0 200 400 600 800 1000 1200");
        assert_eq!(
            ticks(1e-6..6e-6),
            "1.0e-6 2.0e-6 3.0e-6 4.0e-6 5.0e-6 6.0e-6"
        );
    }

    #[test]
    fn points_have_their_places() {
        let svg = chart(&[(
            "a".to_owned(),
            &Points::from([(0, 1.0), (10, 3.0), (20, 2.0)]),
        )]);
        let middle = (LEFT + RIGHT) / 2.0;
        let points = format!("{LEFT:.1},{BOTTOM:.1} {middle:.1},{TOP:.1} {RIGHT:.1},");
        assert!(svg.contains(&points), "{svg}");
        assert_eq!(
            (
                svg.matches("<polyline").count(),
                svg.matches("<circle").count()
            ),
            (1, 3)
        );
        assert!(svg.contains(">a</text>"));
    }

    #[test]
    fn long_curves_keep_their_peaks() {
        let mut points: Points = (0..100_000).map(|step| (step, (step % 7) as f64)).collect();
        points.insert(54_321, 50.0);
        points.insert(54_999, f64::NAN);
        let points: Vec<_> = points.into_iter().map(|(x, y)| (x as f64, y)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= 2 * PARTS && thin.contains(&(54_321.0, 50.0)));
        assert!(thin.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn any_numbers_and_none_can_be_drawn() {
        assert!(chart(&[]).ends_with("</svg>\n"));
        let numbers = [
            f64::NAN,
            f64::INFINITY,
            0.0,
            -0.0,
            1.0,
            1.0 + f64::EPSILON,
            f64::MAX,
            -f64::MAX,
            f64::MIN_POSITIVE,
            1e-320,
        ];
        for a in numbers {
            for b in numbers {
                for points in [
                    vec![(0, a), (u64::MAX, b)],
                    vec![(u64::MAX - 1, a), (u64::MAX, b)],
                    vec![(7, a)],
                ] {
                    let points = points.into_iter().collect();
                    let svg = chart(&[("x".to_owned(), &points)]);
                    assert!(
                        !svg.contains("NaN") && !svg.contains("inf"),
                        "{points:?}: {svg}"
                    );
                }
            }
        }
    }
}
