//! A report of a run as a web page.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use backend_api::Result;

use super::Record;
use super::chart::{Points, chart};
use crate::checkpoint::atomic;

/// Writes a page with the learning curves of a run, and a table of their last, lowest and highest
/// values. It is one file without scripts and references, for any browser.
///
/// Metrics that have the same name after their last `/` share a chart, such as `train/loss` and
/// `valid/loss`. A later record of a step replaces the numbers of an earlier one.
///
/// ```
/// use recurrent::monitor::{MetricsLog, read_metrics, write_report};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-report.jsonl");
/// # let _ = std::fs::remove_file(&path);
/// let mut log = MetricsLog::open(&path, 0)?;
/// for step in 1..=20 {
///     let loss = 1.0 / step as f64;
///     log.log(step, &[("train/loss", loss), ("valid/loss", loss + 0.1)])?;
/// }
/// let page = path.with_extension("html");
/// write_report(&page, "A run", &read_metrics(&path)?)?;
/// assert!(std::fs::read_to_string(&page).expect("a page").contains("<svg"));
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Io`](backend_api::Error::Io) if the page cannot be written.
pub fn write_report(path: impl AsRef<Path>, title: &str, records: &[Record]) -> Result<()> {
    atomic::write(path.as_ref(), page(title, records).as_bytes())
}

fn page(title: &str, records: &[Record]) -> String {
    let mut metrics: BTreeMap<&str, Points> = BTreeMap::new();
    for record in records {
        for (name, &value) in &record.values {
            metrics.entry(name).or_default().insert(record.step, value);
        }
    }
    let mut charts: BTreeMap<&str, Vec<(&str, &Points)>> = BTreeMap::new();
    for (&name, points) in &metrics {
        let (series, chart) = name.rsplit_once('/').unwrap_or((name, name));
        charts.entry(chart).or_default().push((series, points));
    }
    let title = escaped(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{}",
        table(&metrics)
    );
    for (name, series) in charts {
        let series: Vec<_> = series
            .into_iter()
            .map(|(name, points)| (escaped(name), points))
            .collect();
        // Writing to a string cannot fail.
        let _ = write!(page, "<h2>{}</h2>\n{}", escaped(name), chart(&series));
    }
    page.push_str("</body></html>\n");
    page
}

const STYLE: &str = "body{font-family:sans-serif;margin:2em auto;max-width:880px}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right}\
    td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f2f2f2}\
    svg{max-width:100%;height:auto}";

fn table(metrics: &BTreeMap<&str, Points>) -> String {
    let mut rows = String::new();
    for (name, points) in metrics {
        let finite = || points.iter().filter(|(_, value)| value.is_finite());
        let cell = |point: Option<(&u64, &f64)>| match point {
            Some((step, value)) => format!("<td>{value:.5} (step {step})</td>"),
            None => "<td>none</td>".to_owned(),
        };
        let last = cell(points.last_key_value());
        let lowest = cell(finite().min_by(|a, b| a.1.total_cmp(b.1)));
        let highest = cell(finite().max_by(|a, b| a.1.total_cmp(b.1)));
        // Writing to a string cannot fail.
        let _ = writeln!(
            rows,
            "<tr><td>{}</td>{last}{lowest}{highest}</tr>",
            escaped(name)
        );
    }
    let heads = "<th>metric</th><th>last</th><th>lowest</th><th>highest</th>";
    format!("<table><tr>{heads}</tr>\n{rows}</table>\n")
}

fn escaped(text: &str) -> String {
    let replace = |c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        // XML has no other control characters.
        c if c < ' ' && !matches!(c, '\t' | '\n' | '\r') => char::REPLACEMENT_CHARACTER.to_string(),
        c => c.to_string(),
    };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, values: &[(&str, f64)]) -> Record {
        let values = values.iter().map(|&(name, value)| (name.to_owned(), value));
        Record {
            step,
            time: 0.0,
            values: values.collect(),
        }
    }

    #[test]
    fn metrics_of_one_name_share_a_chart() {
        let records = [
            record(
                1,
                &[("train/loss", 0.9), ("valid/loss", 1.0), ("rate", 0.1)],
            ),
            record(
                2,
                &[("train/loss", f64::NAN), ("valid/loss", 0.5), ("rate", 0.1)],
            ),
            record(3, &[("train/loss", 0.3)]),
            record(3, &[("train/loss", 0.25)]),
        ];
        let page = page("<a> & b", &records);
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("<h1>&lt;a&gt; &amp; b</h1>"));
        let row = "<td>train/loss</td><td>0.25000 (step 3)</td><td>0.25000 (step 3)</td>\
                   <td>0.90000 (step 1)</td>";
        assert!(page.contains(row), "{page}");
        assert!(!page.contains("0.3000"));
        for text in ["train", "valid", "rate", "loss"] {
            assert!(page.contains(text), "{text}");
        }
        // A curve with a gap has single points.
        let count = |element| page.matches(element).count();
        assert_eq!((count("<polyline"), count("<circle")), (2, 6));
    }
}
