//! `errors.json`: calls, and whether TensorFlow rejects them.
//!
//! The file describes each call in words. Tables by subject map the words to code: `drivers.rs`,
//! `cells.rs`; `by_type.rs` has the calls that do not compile. `TENSORFLOW.md` presents the table
//! to readers.

mod accepted;
mod by_type;
mod cells;
mod drivers;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use backend_api::{Backend, DType, Error, Result as ApiResult, Tensor};
use serde::Deserialize;

use super::check::Worst;
use super::{Outcome, Trouble};
use crate::devices::TestDevice;

/// The sizes used by the file: rows, steps, input depth, hidden units.
const BATCH: usize = 3;
const STEPS: usize = 4;
const DEPTH: usize = 2;
const UNITS: usize = 5;

type T = Tensor<TestDevice>;

/// A call and its expected outcome.
struct Call(&'static str, Verdict);

/// Makes a call that must be rejected.
type Attempt = fn(&TestDevice) -> ApiResult<()>;

/// Makes a call that must be accepted, and checks its result.
type Check = fn(&TestDevice) -> Result<(), Trouble>;

/// The outcome of a call here and in TensorFlow.
enum Verdict {
    /// Rejected by both; the message contains these words.
    Refused(&'static [&'static str], Attempt),
    /// Accepted by both; the result is checked.
    Accepted(&'static str, Check),
    /// Rejected by TensorFlow. Does not compile here, for this reason; `by_type.rs` has the proof.
    ByType(&'static str),
    /// Rejected by TensorFlow and accepted here, for this reason.
    OnlyHere(&'static str, Check),
    /// Accepted by TensorFlow and rejected here, for this reason; the message contains these words.
    OnlyThere(&'static str, &'static [&'static str], Attempt),
}

impl Verdict {
    /// One word for tables.
    fn kind(&self) -> &'static str {
        match self {
            Self::Refused(..) => "refused",
            Self::Accepted(..) => "accepted",
            Self::ByType(_) => "by type",
            Self::OnlyHere(..) | Self::OnlyThere(..) => "differs",
        }
    }

    fn refused_by_tensorflow(&self) -> bool {
        match self {
            Self::Refused(..) | Self::ByType(_) | Self::OnlyHere(..) => true,
            Self::Accepted(..) | Self::OnlyThere(..) => false,
        }
    }

    /// Makes the call and returns the text for the table.
    fn check(&self, device: &TestDevice) -> Result<String, Trouble> {
        match self {
            Self::Refused(words, attempt) => refusal(device, words, attempt(device)),
            Self::OnlyThere(reason, words, attempt) => {
                let message = refusal(device, words, attempt(device))?;
                Ok(format!("{reason}: {message}"))
            }
            Self::Accepted(text, check) | Self::OnlyHere(text, check) => {
                check(device)?;
                Ok((*text).into())
            }
            Self::ByType(reason) => Ok((*reason).into()),
        }
    }
}

/// The message of a rejection, which must contain `words`.
///
/// A device may detect an invalid value only during the computation and report it at
/// synchronisation. At that point it knows the operation but not the call, so one of the words is
/// enough.
fn refusal(device: &TestDevice, words: &[&str], result: ApiResult<()>) -> Result<String, Trouble> {
    let (message, late) = match result.map(|()| device.synchronize()) {
        Ok(Ok(())) => return Err(Trouble::Wrong("was accepted".into())),
        Ok(Err(error)) => (error.to_string(), true),
        Err(error) => (error.to_string(), false),
    };
    let missing: Vec<_> = words
        .iter()
        .filter(|word| !message.contains(**word))
        .collect();
    let allowed = if late {
        words.len().saturating_sub(1)
    } else {
        0
    };
    match missing.first() {
        Some(word) if missing.len() > allowed => Err(Trouble::Wrong(format!(
            "`{message}` does not contain `{word}`"
        ))),
        _ => Ok(message),
    }
}

fn calls() -> impl Iterator<Item = &'static Call> {
    drivers::CALLS.iter().chain(cells::CALLS)
}

/// The outcome of each call on a device as lines of a Markdown table: the call, one word, and the
/// reason or message.
///
/// # Errors
/// A call has an unexpected outcome.
pub fn table(device: &TestDevice) -> ApiResult<Vec<String>> {
    calls()
        .map(|Call(text, verdict)| match verdict.check(device) {
            Ok(result) => Ok(format!("| {text} | {} | {result} |", verdict.kind())),
            Err(Trouble::Wrong(what) | Trouble::Unsupported(what)) => {
                Err(Error::argument("errors.json", *text, what))
            }
        })
        .collect()
}

/// The calls that do not compile.
pub fn by_type() -> impl Iterator<Item = &'static str> {
    let by_type = calls().filter(|Call(_, verdict)| matches!(verdict, Verdict::ByType(_)));
    by_type.map(|Call(text, _)| *text)
}

/// An entry of the file.
#[derive(Deserialize)]
struct Listed {
    call: String,
    /// TensorFlow's error class; `None` if TensorFlow accepts the call. The field is required.
    #[serde(deserialize_with = "Option::deserialize")]
    error: Option<String>,
}

/// Makes every call of a file on a device. Returns their names and outcomes.
pub(super) fn run(path: &Path, device: &TestDevice) -> ApiResult<Vec<(String, Outcome)>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let listed: Vec<Listed> = serde_json::from_reader(BufReader::new(file))
        .map_err(|e| Error::format(path, e.to_string()))?;
    let result = |listed: &Listed| {
        // A report needs a name without spaces.
        let name = format!("errors/{}", listed.call.replace(' ', "_"));
        (
            name,
            judge(listed, device).map(|()| Worst::default()).into(),
        )
    };
    Ok(listed.iter().map(result).collect())
}

fn judge(listed: &Listed, device: &TestDevice) -> Result<(), Trouble> {
    let Some(Call(_, verdict)) = calls().find(|Call(text, _)| *text == listed.call) else {
        return Err(Trouble::Unsupported("this call".into()));
    };
    match (&listed.error, verdict.refused_by_tensorflow()) {
        (Some(error), false) => {
            let what = format!("TensorFlow rejects it ({error}), but is expected to accept it");
            Err(Trouble::Wrong(what))
        }
        (None, true) => {
            let what = "TensorFlow accepts it, but is expected to reject it";
            Err(Trouble::Wrong(what.into()))
        }
        _ => verdict.check(device).map(|_| ()),
    }
}

/// Distinct numbers between -1 and 1.
fn numbers(device: &TestDevice, dims: &[usize], dtype: DType) -> ApiResult<T> {
    let count = dims.iter().product();
    let values: Vec<f64> = (0..count).map(|i| (1.0 + i as f64).sin()).collect();
    Tensor::from_slice(device, &values, dims)?.cast(dtype)
}

/// Distinct numbers in `f32`.
fn floats(device: &TestDevice, dims: &[usize]) -> ApiResult<T> {
    numbers(device, dims, DType::F32)
}

/// Integers 0, 1, ..
fn ints(device: &TestDevice, dims: &[usize]) -> ApiResult<T> {
    let count: usize = dims.iter().product();
    let values: Vec<i32> = (0..count as i32).collect();
    Tensor::from_slice(device, &values, dims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(result: Result<String, Trouble>) -> String {
        match result {
            Err(Trouble::Wrong(what)) => what,
            _ => panic!("passed"),
        }
    }

    #[test]
    fn a_rejected_call_must_fail_with_the_listed_words() {
        let refused = || Err(Error::argument("gru_cell", "state", "is [3, 6]"));
        let device = crate::devices::device("cpu").unwrap();
        let verify = |words, result| refusal(&device, words, result);
        let words = &["state", "[3, 6]"];
        assert!(
            verify(words, refused()).is_ok_and(|message| message == "gru_cell: state is [3, 6]")
        );
        assert_eq!(wrong(verify(words, Ok(()))), "was accepted");
        let unnamed = wrong(verify(&["state", "[3, 5]"], refused()));
        assert!(unnamed.ends_with("does not contain `[3, 5]`"), "{unnamed}");
    }

    #[test]
    fn an_accepted_call_must_give_the_expected_result() {
        let device = crate::devices::device("cpu").unwrap();
        let verdict = |check| Verdict::Accepted("", check);
        assert!(verdict(|_| Ok(())).check(&device).is_ok());
        let differs = verdict(|_| Err(Trouble::Wrong("differs".into())));
        assert_eq!(wrong(differs.check(&device)), "differs");
    }
}
