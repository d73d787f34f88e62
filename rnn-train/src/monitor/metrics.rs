//! Metrics as lines of JSON.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

use super::now;
use crate::checkpoint::atomic;

/// Named numbers of a step; a line of `metrics.jsonl`.
///
/// ```
/// use recurrent::monitor::{MetricsLog, read_metrics};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-record.jsonl");
/// # let _ = std::fs::remove_file(&path);
/// MetricsLog::open(&path, 0)?.log(1, &[("train/loss", 0.5)])?;
/// let records = read_metrics(&path)?;
/// assert_eq!((records[0].step, records[0].values["train/loss"]), (1, 0.5));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The step of the run.
    pub step: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// The numbers by name. NaN stands for numbers that are not finite, which JSON does not have:
    /// they are `null` in the file.
    #[serde(flatten, with = "nullable")]
    pub values: BTreeMap<String, f64>,
}

/// Numbers that may be `null`.
mod nullable {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        values: &BTreeMap<String, f64>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let finite = |value: &f64| value.is_finite().then_some(*value);
        let values = values.iter().map(|(name, value)| (name, finite(value)));
        values.collect::<BTreeMap<_, _>>().serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let values = BTreeMap::<String, Option<f64>>::deserialize(from)?;
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        Ok(values
            .into_iter()
            .map(|(name, value)| (name, number(value)))
            .collect())
    }
}

/// Appends records to a file of JSON lines, which pandas and `jq` read:
/// `{"step":20,"time":1.75e9,"train/loss":0.31,"valid/loss":0.35}`.
///
/// A record is in the file when [`log`](Self::log) returns, also if the process is killed then. A
/// power failure may take the last records away; [`open`](Self::open) cuts off what is left of one.
///
/// ```
/// use recurrent::monitor::{MetricsLog, read_metrics};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-metrics.jsonl");
/// # let _ = std::fs::remove_file(&path);
/// let mut log = MetricsLog::open(&path, 0)?;
/// for step in [10, 20, 30] {
///     log.log(step, &[("train/loss", 1.0 / step as f64), ("seconds", 0.2)])?;
/// }
/// // A run that is resumed at step 20 takes the steps after it again.
/// MetricsLog::open(&path, 20)?;
/// let steps: Vec<u64> = read_metrics(&path)?.iter().map(|record| record.step).collect();
/// assert_eq!(steps, [10, 20]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    /// The end of the last whole line.
    len: u64,
    /// The records of the step at which the run was resumed.
    resumed: Vec<Record>,
}

impl MetricsLog {
    /// Opens the log of a run that has taken `step` steps, and creates it if it does not exist. A
    /// last line that a crash has cut off goes, and so do the records of later steps.
    ///
    /// # Errors
    /// [`Error::Format`], with the line, if a line is not a record; [`Error::Io`].
    pub fn open(path: impl AsRef<Path>, step: u64) -> Result<Self> {
        let path = path.as_ref();
        let io = |e| Error::io(path, e);
        let mut resumed = Vec::new();
        if path.try_exists().map_err(io)? {
            let text = fs::read(path).map_err(io)?;
            let mut kept = Vec::with_capacity(text.len());
            for (line, record) in lines(path, &text)? {
                if record.step <= step {
                    kept.extend_from_slice(line);
                }
                if record.step == step {
                    resumed.push(record);
                }
            }
            if kept != text {
                atomic::write(path, &kept)?;
            }
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
            resumed,
        })
    }

    /// Appends a record with the present time, and returns `true`. Or returns `false`, if the run
    /// was resumed at this step and the log has a record of it with these names: a resumed run
    /// repeats what followed the checkpoint.
    ///
    /// # Errors
    /// [`Error::Argument`] if a name is `step` or `time`, or occurs twice; [`Error::Io`] if the
    /// record cannot be written, which leaves the file as it was.
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<bool> {
        let mut record = Record {
            step,
            time: now(),
            values: BTreeMap::new(),
        };
        for &(name, value) in values {
            let reserved = matches!(name, "step" | "time");
            if reserved || record.values.insert(name.to_owned(), value).is_some() {
                let problem = format!("`{name}` occurs twice in the record");
                return Err(Error::argument("log", "name", problem));
            }
        }
        let repeated =
            |old: &Record| old.step == step && old.values.keys().eq(record.values.keys());
        if self.resumed.iter().any(repeated) {
            return Ok(false);
        }
        let failed = |e: io::Error| Error::io(&self.path, e);
        let mut line = serde_json::to_vec(&record).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        if let Err(e) = self.file.write_all(&line) {
            // The next record must begin a line. If this fails, too, opening the log repairs it.
            let _ = self.file.set_len(self.len);
            return Err(failed(e));
        }
        self.len += line.len() as u64;
        Ok(true)
    }
}

/// The records of a file that a [`MetricsLog`] wrote, or still writes.
///
/// ```
/// use recurrent::monitor::{MetricsLog, read_metrics};
///
/// # fn main() -> recurrent::Result<()> {
/// let path = std::env::temp_dir().join("recurrent-read-metrics.jsonl");
/// # let _ = std::fs::remove_file(&path);
/// MetricsLog::open(&path, 0)?.log(7, &[("loss", f64::INFINITY)])?;
/// assert!(read_metrics(&path)?[0].values["loss"].is_nan());
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, and [`Error::Format`], with the line, if a line is not
/// a record. A last line without an end is left out.
pub fn read_metrics(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let path = path.as_ref();
    let text = fs::read(path).map_err(|e| Error::io(path, e))?;
    let records = lines(path, &text)?;
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

/// The whole lines, and their records.
fn lines<'t>(path: &Path, text: &'t [u8]) -> Result<Vec<(&'t [u8], Record)>> {
    let lines = text.split_inclusive(|&byte| byte == b'\n').enumerate();
    let whole = lines.filter(|(_, line)| line.ends_with(b"\n"));
    let records = whole.map(|(i, line)| match serde_json::from_slice(line) {
        Ok(record) => Ok((line, record)),
        Err(e) => {
            let problem = format!("line {} is not a record of metrics: {e}", i + 1);
            Err(Error::format(path, problem))
        }
    });
    records.collect()
}
