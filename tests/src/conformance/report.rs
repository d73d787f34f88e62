//! How cases ended, and the table of it.

use std::collections::BTreeMap;
use std::fmt;

use backend_api::{DType, Error};

use super::case::Case;

/// How a case ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Everything is as near as it should be; the largest error as a share of its tolerance, and where.
    Passed(f64, String),
    /// What is not.
    Failed(String),
    /// It differs, as it should: how, and why.
    Differs(String, &'static str),
    /// It should differ for this reason, and does not.
    Unexpected(&'static str),
}

impl Outcome {
    /// From what a check gave, and the reason to differ if there is one.
    pub(super) fn new(result: Result<(f64, String), String>, reason: Option<&'static str>) -> Self {
        match (result, reason) {
            (Ok((share, what)), None) => Self::Passed(share, what),
            (Err(what), None) => Self::Failed(what),
            (Err(what), Some(reason)) => Self::Differs(what, reason),
            (Ok(_), Some(reason)) => Self::Unexpected(reason),
        }
    }

    /// What is wrong, if something is.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Passed(..) | Self::Differs(..) => None,
            Self::Failed(what) => Some(what.clone()),
            Self::Unexpected(reason) => Some(format!("agrees, but should differ: {reason}")),
        }
    }
}

/// How many ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Near enough.
    pub passed: usize,
    /// Not, or without the difference that they should have.
    pub failed: usize,
    /// With a difference that is listed.
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

/// A line of the table: cases of a group in one type on one backend.
#[derive(Clone, Debug, Default)]
struct Line {
    cases: usize,
    failed: usize,
    differed: usize,
    /// The largest error as a share of its tolerance.
    worst: f64,
    /// The case that has it, and where.
    at: String,
}

/// How all cases ended; written out, it is the table.
#[derive(Clone, Debug, Default)]
pub struct Report {
    summary: Summary,
    /// Backends and groups in the order in which they ran, with their numbers in it.
    lines: Vec<((String, &'static str, DType), Line)>,
    /// Backends, cases and reasons, and how often.
    differences: BTreeMap<(&'static str, String), (usize, String)>,
    absent: Vec<String>,
}

impl Report {
    /// How many ended how.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    pub(super) fn absent(&mut self, backend: &str, error: &Error) {
        self.absent.push(format!("{backend} did not run: {error}"));
    }

    pub(super) fn add(&mut self, backend: &str, case: &Case, dtype: DType, outcome: Outcome) {
        let key = (backend.to_owned(), case.group, dtype);
        let place = self
            .lines
            .iter()
            .position(|(k, _)| *k == key)
            .unwrap_or_else(|| {
                // Below the group's other types.
                let group = |k: &(String, &str, DType)| (&k.0, k.1) == (&key.0, key.1);
                let last = self.lines.iter().rposition(|(k, _)| group(k));
                let place = last.map_or(self.lines.len(), |last| last + 1);
                self.lines.insert(place, (key, Line::default()));
                place
            });
        let line = &mut self.lines[place].1;
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
            "{:12} {:11} {:5} {:>6} {:>6} {:>7}  worst error, as a share of its tolerance",
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
