//! Golden files: numbers that TensorFlow computed for small random models. `tests/golden/README.md`
//! documents the format.
//!
//! A case is built from the JSON in the file's header and run. The outputs, states, loss and every
//! gradient are compared. A case that needs an unknown class or option is *unsupported*; it is
//! never skipped silently.

mod bidirectional;
mod case;
mod check;
mod dropout;
mod dynamic_rnn;
mod file;
mod fused;
mod losses;
mod raw_rnn;
mod records;
pub mod refusals;
mod state_saving;
mod static_rnn;
mod toy_nested;
mod train;

use std::fmt;
use std::path::{Path, PathBuf};

use backend_api::{Error, Result};

pub(crate) use static_rnn::unstack;
pub(crate) use toy_nested::ToyNested;

use crate::devices::TestDevice;
use case::Header;
use check::Worst;
use file::GoldenFile;

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All numbers agree; the largest error as a fraction of its tolerance.
    Passed(f64),
    /// A description of the mismatch or error.
    Failed(String),
    /// The class or option that is not supported.
    Unsupported(String),
}

/// Number of cases by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All numbers agree.
    pub passed: usize,
    /// A number disagrees, or an error occurred.
    pub failed: usize,
    /// A class or option is not supported.
    pub unsupported: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "golden: {} passed, {} failed, {} unsupported",
            self.passed, self.failed, self.unsupported
        )
    }
}

impl From<Result<Worst, Trouble>> for Outcome {
    fn from(result: Result<Worst, Trouble>) -> Self {
        match result {
            Ok(worst) => Self::Passed(worst.0),
            Err(Trouble::Wrong(what)) => Self::Failed(what),
            Err(Trouble::Unsupported(what)) => Self::Unsupported(what),
        }
    }
}

/// The reason why a case did not pass.
enum Trouble {
    Unsupported(String),
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match &error {
            // A class or an option that the library does not support.
            Error::Argument {
                op: "cell_from_config",
                ..
            } => Self::Unsupported(error.to_string()),
            _ => Self::Wrong(error.to_string()),
        }
    }
}

/// Runs every golden file of a folder on a device. Calls `report` after each case.
///
/// # Errors
/// The folder cannot be read or has no golden file.
pub fn run_folder(
    folder: &Path,
    device: &TestDevice,
    report: &mut dyn FnMut(&str, &Outcome),
) -> Result<Summary> {
    let mut summary = Summary::default();
    let files = golden_files(folder)?;
    if files.is_empty() {
        return Err(Error::format(folder, "holds no golden file"));
    }
    for path in files {
        for (name, outcome) in run_file(&path, device) {
            match outcome {
                Outcome::Passed(_) => summary.passed += 1,
                Outcome::Failed(_) => summary.failed += 1,
                Outcome::Unsupported(_) => summary.unsupported += 1,
            }
            report(&name, &outcome);
        }
    }
    Ok(summary)
}

/// The folders of golden files at a path: the path itself, or if it has none, the folders below.
/// Files of converters, which other tests read, are left out there.
///
/// # Errors
/// A folder cannot be read, or there is no golden file.
pub fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let found = folders_below(path)?;
    match found.is_empty() {
        true => Err(Error::format(
            path,
            "and the folders below hold no golden file",
        )),
        false => Ok(found),
    }
}

fn folders_below(path: &Path) -> Result<Vec<PathBuf>> {
    if !golden_files(path)?.is_empty() {
        return Ok(vec![path.to_owned()]);
    }
    let io = |e| Error::io(path, e);
    let mut below = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() && !path.ends_with("convert") {
            below.extend(folders_below(&path)?);
        }
    }
    below.sort();
    Ok(below)
}

/// The golden files of a folder in order; notes are left out.
fn golden_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let extension = path.extension().and_then(|e| e.to_str());
        if path.is_file() && !matches!(extension, Some("md" | "txt" | "py")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs one golden file on a device. Returns its cases (several for the lists of calls) and their
/// outcomes.
fn run_file(path: &Path, device: &TestDevice) -> Vec<(String, Outcome)> {
    let calls = match path.file_name().and_then(|name| name.to_str()) {
        Some("errors.json") => Some(refusals::run(path, device)),
        Some(name) if name.ends_with(".errors.json") => Some(records::run_errors(path)),
        _ => None,
    };
    let result = match calls {
        Some(Ok(calls)) => return calls,
        Some(Err(error)) => Err(error.into()),
        None => run_case(path, device),
    };
    let name = path.file_stem().unwrap_or(path.as_os_str());
    vec![(name.to_string_lossy().into_owned(), result.into())]
}

fn run_case(path: &Path, device: &TestDevice) -> Result<Worst, Trouble> {
    if path.extension().is_some_and(|e| e == "tfrecord") {
        return records::run_file(path);
    }
    if path.extension().is_none_or(|e| e != "safetensors") {
        let kind = path.extension().unwrap_or_default().to_string_lossy();
        return Err(Trouble::Unsupported(format!("files of kind `{kind}`")));
    }
    let file = GoldenFile::open(path)?;
    match Header::parse(&file)? {
        Header::DynamicRnn(case) => dynamic_rnn::run(device, &file, &case),
        Header::Fused(case) => fused::run(device, &file, &case, false),
        Header::FusedReversed(case) => fused::run(device, &file, &case, true),
        Header::StaticRnn(case) => static_rnn::run(device, &file, &case),
        Header::Bidirectional(case) => bidirectional::run(device, &file, &case),
        Header::StaticBidirectional(case) => bidirectional::run_static(device, &file, &case),
        Header::StackBidirectional(case) => bidirectional::run_stack(device, &file, &case),
        Header::StaticStackBidirectional(case) => {
            bidirectional::run_static_stack(device, &file, &case)
        }
        Header::RawRnn(case) => raw_rnn::run(device, &file, &case),
        Header::Train(case) => train::run(device, &file, &case),
        Header::Losses(case) => losses::run(device, &file, &case),
        Header::StateSaving(case) => state_saving::run(device, &file, &case),
        Header::Records(case) => records::run(device, &file, &case, path),
    }
}
