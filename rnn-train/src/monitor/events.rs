//! TensorBoard's event files.
//!
//! They are TFRecord files of protobuf messages (`event.proto`, `summary.proto`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backend_api::{Error, Result};
use prost::Message;

use super::histogram::Histogram;
use super::now;
use crate::checkpoint::atomic;
use crate::data::{Compression, RecordWriter};

/// The parts of TensorFlow's messages that are written.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Event {
        #[prost(double, tag = "1")]
        pub(super) wall_time: f64,
        #[prost(int64, tag = "2")]
        pub(super) step: i64,
        #[prost(oneof = "What", tags = "3, 5, 7")]
        pub(super) what: Option<What>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum What {
        #[prost(string, tag = "3")]
        FileVersion(String),
        #[prost(message, tag = "5")]
        Summary(Summary),
        #[prost(message, tag = "7")]
        SessionLog(SessionLog),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SessionLog {
        /// 1 is `START`.
        #[prost(int32, tag = "1")]
        pub(super) status: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Summary {
        #[prost(message, repeated, tag = "1")]
        pub(super) value: Vec<Value>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Value {
        #[prost(string, tag = "1")]
        pub(super) tag: String,
        #[prost(message, optional, tag = "9")]
        pub(super) metadata: Option<Metadata>,
        #[prost(oneof = "Kind", tags = "2, 5, 8")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(float, tag = "2")]
        Scalar(f32),
        #[prost(message, tag = "5")]
        Histogram(Histogram),
        #[prost(message, tag = "8")]
        Tensor(Tensor),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(double, tag = "1")]
        pub(super) min: f64,
        #[prost(double, tag = "2")]
        pub(super) max: f64,
        #[prost(double, tag = "3")]
        pub(super) num: f64,
        #[prost(double, tag = "4")]
        pub(super) sum: f64,
        #[prost(double, tag = "5")]
        pub(super) sum_squares: f64,
        #[prost(double, repeated, tag = "6")]
        pub(super) bucket_limit: Vec<f64>,
        #[prost(double, repeated, tag = "7")]
        pub(super) bucket: Vec<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metadata {
        #[prost(message, optional, tag = "1")]
        pub(super) plugin_data: Option<PluginData>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PluginData {
        #[prost(string, tag = "1")]
        pub(super) plugin_name: String,
    }

    /// A scalar.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Tensor {
        /// 7 is `DT_STRING`.
        #[prost(int32, tag = "1")]
        pub(super) dtype: i32,
        #[prost(message, optional, tag = "2")]
        pub(super) shape: Option<Shape>,
        #[prost(bytes = "vec", repeated, tag = "8")]
        pub(super) string_val: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Shape {}
}

use proto::{Event, Kind, Metadata, PluginData, SessionLog, Summary, Value, What};

const PREFIX: &str = "events.out.tfevents.";

/// Data that a reader does not find yet is written after this time.
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes an event file for TensorBoard; TensorFlow's `tf.summary.FileWriter`.
///
/// `tensorboard --logdir FOLDER` shows the files of a folder and those below it. Data appears some
/// seconds after it is written; [`flush`](Self::flush) makes it appear at once.
///
/// ```
/// use recurrent::monitor::EventWriter;
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-events");
/// let mut events = EventWriter::create(&folder, 0)?;
/// events.text("notes", 0, "one *layer*, 128 units")?;
/// for step in 1..=3 {
///     events.scalar("train/loss", step, 1.0 / step as f64)?;
///     events.histogram("weights/kernel", step, &[-0.5, 0.0, 0.25])?;
/// }
/// events.flush()?;
/// assert!(events.path().metadata().expect("a file").len() > 100);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    records: RecordWriter,
    flushed: Instant,
}

impl EventWriter {
    /// Creates a file in a folder, for a run that has taken `step` steps. TensorBoard forgets what
    /// earlier files of the folder say about later steps.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created.
    pub fn create(folder: impl AsRef<Path>, step: u64) -> Result<Self> {
        let folder = folder.as_ref();
        atomic::create_folder(folder)?;
        // TensorBoard reads the files in the order of their names.
        let time = (now() as u64).max(last_time(folder)? + 1);
        let path = folder.join(format!("{PREFIX}{time:010}.recurrent"));
        let mut events = Self {
            records: RecordWriter::create(&path, Compression::Plain)?,
            path,
            flushed: Instant::now(),
        };
        events.write(0, What::FileVersion("brain.Event:2".to_owned()))?;
        events.write(step + 1, What::SessionLog(SessionLog { status: 1 }))?;
        events.flush()?;
        Ok(events)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number, shown as a curve; `tf.summary.scalar`. The file has it in `f32`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.summary(tag, step, None, Kind::Scalar(value as f32))
    }

    /// The distribution of numbers, such as the weights of a layer; `tf.summary.histogram`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is not finite; [`Error::Io`] if it cannot be written.
    pub fn histogram(&mut self, tag: &str, step: u64, values: &[f64]) -> Result<()> {
        if values.iter().any(|value| !value.is_finite()) {
            let problem = format!("`{tag}` has a NaN or an infinity");
            return Err(Error::argument("histogram", "values", problem));
        }
        let of = Histogram::of(values);
        let (bucket_limit, bucket) = of.buckets.into_iter().unzip();
        let histogram = proto::Histogram {
            min: of.min,
            max: of.max,
            num: of.count,
            sum: of.sum,
            sum_squares: of.squares,
            bucket_limit,
            bucket,
        };
        self.summary(tag, step, None, Kind::Histogram(histogram))
    }

    /// A text in Markdown; `tf.summary.text`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<()> {
        let metadata = Metadata {
            plugin_data: Some(PluginData {
                plugin_name: "text".to_owned(),
            }),
        };
        let tensor = proto::Tensor {
            dtype: 7,
            shape: Some(proto::Shape {}),
            string_val: vec![text.as_bytes().to_vec()],
        };
        self.summary(tag, step, Some(metadata), Kind::Tensor(tensor))
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.records.flush()
    }

    fn summary(
        &mut self,
        tag: &str,
        step: u64,
        metadata: Option<Metadata>,
        kind: Kind,
    ) -> Result<()> {
        let value = Value {
            tag: tag.to_owned(),
            metadata,
            kind: Some(kind),
        };
        self.write(step, What::Summary(Summary { value: vec![value] }))?;
        match self.flushed.elapsed() >= INTERVAL {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let event = Event {
            wall_time: now(),
            step: step.try_into().unwrap_or(i64::MAX),
            what: Some(what),
        };
        self.records.write(&event.encode_to_vec())
    }
}

/// The time in the name of the newest event file of a folder; 0 if there is none.
fn last_time(folder: &Path) -> Result<u64> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let times = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let time = name.to_str()?.strip_prefix(PREFIX)?.split('.').next()?;
        time.parse::<u64>().ok()
    });
    // Names of other programs may have any number.
    Ok(times
        .filter(|&time| time < 9_999_999_999)
        .max()
        .unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::RecordReader;

    fn read(path: &Path) -> Vec<Event> {
        let mut reader = RecordReader::open(path).unwrap();
        let mut events = Vec::new();
        while let Some(record) = reader.read().unwrap() {
            events.push(Event::decode(record).unwrap());
        }
        events
    }

    #[test]
    fn events_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path().join("a/b"), 41).unwrap();
        writer.scalar("loss", 42, 0.1).unwrap();
        writer.histogram("weights", 43, &[1.0, -2.0, 3.0]).unwrap();
        writer.text("notes", 44, "größer").unwrap();
        assert!(writer.histogram("bad", 44, &[f64::NAN]).is_err());
        writer.flush().unwrap();
        let events = read(writer.path());
        let steps: Vec<i64> = events.iter().map(|event| event.step).collect();
        assert_eq!(steps, [0, 42, 42, 43, 44]);
        assert!(events.iter().all(|event| event.wall_time > 1.7e9));
        let what: Vec<_> = events
            .into_iter()
            .map(|event| event.what.unwrap())
            .collect();
        assert_eq!(what[0], What::FileVersion("brain.Event:2".to_owned()));
        assert_eq!(what[1], What::SessionLog(SessionLog { status: 1 }));
        let kinds: Vec<_> = what[2..]
            .iter()
            .map(|what| match what {
                What::Summary(summary) => {
                    let value = &summary.value[0];
                    (value.tag.as_str(), value.kind.clone().unwrap())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds[0], ("loss", Kind::Scalar(0.1)));
        let ("weights", Kind::Histogram(histogram)) = &kinds[1] else {
            panic!("{:?}", kinds[1]);
        };
        assert_eq!(
            (histogram.num, histogram.sum, histogram.sum_squares),
            (3.0, 2.0, 14.0)
        );
        assert_eq!(histogram.bucket.iter().sum::<f64>(), 3.0);
        let ("notes", Kind::Tensor(tensor)) = &kinds[2] else {
            panic!("{:?}", kinds[2]);
        };
        assert_eq!(tensor.string_val, ["größer".as_bytes()]);
    }

    #[test]
    fn a_later_file_has_a_later_name() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..3)
            .map(|step| EventWriter::create(folder.path(), step).unwrap().path)
            .collect();
        assert!(names.is_sorted() && names[0] != names[1] && names[1] != names[2]);
    }
}
