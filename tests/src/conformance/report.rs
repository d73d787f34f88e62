//! Outcomes of cases, and the report table.

use std::collections::BTreeMap;
use std::fmt;

use backend_api::{DType, Error};

use super::case::Case;

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All results are within the tolerance; the largest error as a fraction of it, and where it
    /// occurs.
    Passed(f64, String),
    /// A result is wrong.
    Failed(String),
    /// The case differs as intended: how, and why.
    Differs(String, &'static str),
    /// The case should differ for this reason, but does not.
    Unexpected(&'static str),
}

impl Outcome {
    /// From the result of a check and the reason for an intended difference, if any.
    pub(super) fn new(result: Result<(f64, String), String>, reason: Option<&'static str>) -> Self {
        match (result, reason) {
            (Ok((share, what)), None) => Self::Passed(share, what),
            (Err(what), None) => Self::Failed(what),
            (Err(what), Some(reason)) => Self::Differs(what, reason),
            (Ok(_), Some(reason)) => Self::Unexpected(reason),
        }
    }

    /// The problem, or `None` if the outcome is as it should be.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Passed(..) | Self::Differs(..) => None,
            Self::Failed(what) => Some(what.clone()),
            Self::Unexpected(reason) => Some(format!("agrees, but should differ: {reason}")),
        }
    }
}

/// Number of cases by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Within the tolerance.
    pub passed: usize,
    /// Wrong, or without an intended difference.
    pub failed: usize,
    /// With an intended difference.
    pub differed: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "conformance: {} passed, {} failed, {} expected differences",
            self.passed, self.failed, self.differed
        )
    }
}

/// A line of the table: the cases of a group in one element type on one backend.
#[derive(Clone, Debug, Default)]
struct Line {
    cases: usize,
    failed: usize,
    differed: usize,
    /// The largest error as a fraction of its tolerance.
    worst: f64,
    /// The case and result with the largest error.
    at: String,
}

/// The outcomes of all cases; its `Display` is the table.
#[derive(Clone, Debug, Default)]
pub struct Report {
    summary: Summary,
    /// Lines by backend and group, both numbered in the order in which they ran, and element type.
    lines: Vec<((String, &'static str, DType), Line)>,
    /// Reasons and backends, with the number of differing cases and an example.
    differences: BTreeMap<(&'static str, String), (usize, String)>,
    absent: Vec<String>,
}

impl Report {
    /// Number of cases by outcome.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    pub(super) fn absent(&mut self, backend: &str, error: &Error) {
        self.absent.push(format!("{backend} was skipped: {error}"));
    }

    pub(super) fn add(&mut self, backend: &str, case: &Case, dtype: DType, outcome: Outcome) {
        let key = (backend.to_owned(), case.group, dtype);
        let index = self
            .lines
            .iter()
            .position(|(k, _)| *k == key)
            .unwrap_or_else(|| {
                // Place the line below the group's other element types.
                let group = |k: &(String, &str, DType)| (&k.0, k.1) == (&key.0, key.1);
                let last = self.lines.iter().rposition(|(k, _)| group(k));
                let index = last.map_or(self.lines.len(), |last| last + 1);
                self.lines.insert(index, (key, Line::default()));
                index
            });
        let line = &mut self.lines[index].1;
        line.cases += 1;
        match outcome {
            Outcome::Passed(share, what) => {
                self.summary.passed += 1;
                if share > line.worst {
                    line.worst = share;
                    line.at = format!("{}: {what}", case.name);
                }
            }
            Outcome::Failed(_) | Outcome::Unexpected(_) => {
                self.summary.failed += 1;
                line.failed += 1;
            }
            Outcome::Differs(what, reason) => {
                self.summary.differed += 1;
                line.differed += 1;
                let about = self.differences.entry((reason, backend.to_owned()));
                let (count, _) = about.or_insert((0, format!("{} {dtype}: {what}", case.id())));
                *count += 1;
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:12} {:11} {:5} {:>6} {:>6} {:>7}  largest error, as a fraction of the tolerance",
            "backend", "group", "type", "cases", "failed", "differ"
        )?;
        for ((backend, group, dtype), line) in &self.lines {
            let Line {
                cases,
                failed,
                differed,
                worst,
                at,
            } = line;
            write!(
                f,
                "{backend:12} {group:11} {:5} {cases:6} {failed:6} {differed:7}  ",
                dtype.name()
            )?;
            match at.as_str() {
                "" => writeln!(f, "0")?,
                at => writeln!(f, "{worst:.3} {at}")?,
            }
        }
        for ((reason, backend), (count, example)) in &self.differences {
            writeln!(
                f,
                "\n{count} expected differences on {backend}: {reason}\n  such as {example}"
            )?;
        }
        for absent in &self.absent {
            writeln!(f, "\n{absent}")?;
        }
        write!(f, "\n{}", self.summary)
    }
}
