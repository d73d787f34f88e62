//! Record files exchanged with TensorFlow, with every kind of feature.
//!
//! A JSON file describes the content of the record files next to it; `tests/golden/README.md`
//! documents its format. `tests/golden/records_interop.py` is TensorFlow's side.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use backend_api::{Error, Result};
use rnn_train::data::{
    ByteStrings, Compression, Example, Feature, RecordFiles, RecordReader, RecordWriter,
    SequenceExample, Source,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The content of the files.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    sequence_examples: Vec<Record>,
    examples: Vec<Record>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    context: BTreeMap<String, StoredFeature>,
    feature_lists: BTreeMap<String, Vec<StoredFeature>>,
}

/// A feature: integers as decimal digits, floats as their bits, bytes in Latin-1.
#[derive(Debug, Serialize, Deserialize)]
struct StoredFeature {
    kind: Option<String>,
    values: Vec<Value>,
}

const COMPRESSIONS: [(&str, Compression); 3] = [
    ("plain", Compression::Plain),
    ("gzip", Compression::Gzip),
    ("zlib", Compression::Zlib),
];

impl From<&Feature> for StoredFeature {
    fn from(feature: &Feature) -> Self {
        let latin1 = |s: &[u8]| s.iter().copied().map(char::from).collect::<String>();
        let (kind, values) = match feature {
            Feature::Unset => (None, Vec::new()),
            Feature::Int64(v) => (
                Some("int64"),
                v.iter().map(|v| v.to_string().into()).collect(),
            ),
            Feature::Float(v) => (
                Some("float"),
                v.iter().map(|v| v.to_bits().into()).collect(),
            ),
            Feature::Bytes(v) => (Some("bytes"), v.iter().map(|s| latin1(s).into()).collect()),
        };
        Self {
            kind: kind.map(str::to_owned),
            values,
        }
    }
}

impl StoredFeature {
    fn feature(&self) -> Option<Feature> {
        let texts = || {
            self.values
                .iter()
                .map(Value::as_str)
                .collect::<Option<Vec<_>>>()
        };
        Some(match self.kind.as_deref() {
            None => Feature::Unset,
            Some("int64") => {
                let ints: std::result::Result<_, _> = texts()?.iter().map(|v| v.parse()).collect();
                Feature::Int64(ints.ok()?)
            }
            Some("float") => {
                let bits = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
                let floats = self.values.iter().map(|v| bits(v).map(f32::from_bits));
                Feature::Float(floats.collect::<Option<_>>()?)
            }
            Some("bytes") => {
                let byte = |c: char| u8::try_from(u32::from(c)).ok();
                let bytes = |s: &&str| s.chars().map(byte).collect::<Option<Vec<u8>>>();
                let strings: Option<ByteStrings> = texts()?
                    .iter()
                    .map(bytes)
                    .collect::<Option<Vec<_>>>()
                    .map(|s| s.into_iter().collect());
                Feature::Bytes(strings?)
            }
            Some(_) => return None,
        })
    }
}

impl Record {
    fn features(&self) -> Option<BTreeMap<String, Feature>> {
        let context = self.context.iter();
        context
            .map(|(name, written)| Some((name.clone(), written.feature()?)))
            .collect()
    }

    fn sequence_example(&self) -> Option<SequenceExample> {
        let lists = self.feature_lists.iter().map(|(name, steps)| {
            let steps: Option<Vec<Feature>> = steps.iter().map(StoredFeature::feature).collect();
            Some((name.clone(), steps?))
        });
        Some(SequenceExample {
            context: self.features()?,
            feature_lists: lists.collect::<Option<_>>()?,
        })
    }

    fn of(context: &BTreeMap<String, Feature>) -> Self {
        let written = |(name, feature): (&String, &Feature)| (name.clone(), feature.into());
        Self {
            context: context.iter().map(written).collect(),
            feature_lists: BTreeMap::new(),
        }
    }
}

/// Features of every type, with values that implementations often get wrong.
fn features() -> [(&'static str, Feature); 3] {
    let ints = vec![
        0,
        1,
        -1,
        127,
        128,
        300,
        -300,
        i64::from(i32::MIN),
        i64::MAX,
        i64::MIN,
    ];
    let floats = [
        0x0000_0000,
        0x8000_0000,
        0x3f80_0000,
        0x7f7f_ffff,
        0x0000_0001,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0xffc0_0001,
    ];
    let strings: [&[u8]; 5] = [b"", b"word", &[0], &[0xff, 0xfe, 0x80], "é 中".as_bytes()];
    [
        ("int64", Feature::Int64(ints)),
        ("float", Feature::Float(floats.map(f32::from_bits).to_vec())),
        ("bytes", Feature::Bytes(strings.into_iter().collect())),
    ]
}

/// One value of a feature.
fn one(feature: &Feature, i: usize) -> Feature {
    match feature {
        Feature::Unset => Feature::Unset,
        Feature::Int64(v) => Feature::Int64(vec![v[i % v.len()]]),
        Feature::Float(v) => Feature::Float(vec![v[i % v.len()]]),
        Feature::Bytes(v) => Feature::Bytes(v.get(i % v.len()).into_iter().collect()),
    }
}

fn sequence_examples() -> Vec<SequenceExample> {
    let mut all = SequenceExample::new();
    let mut single = SequenceExample::new();
    let mut empty = SequenceExample::new().context("unset", Feature::Unset);
    for (name, feature) in features() {
        let steps = (0..12).map(|i| one(&feature, i));
        single = single
            .context(name, one(&feature, 1))
            .feature_list(name, steps);
        let ragged = [feature.clone(), Feature::Unset, one(&feature, 2)];
        all = all.context(name, feature).feature_list(name, ragged);
    }
    for (name, feature) in [
        ("int64", Feature::Int64(Vec::new())),
        ("float", Feature::Float(Vec::new())),
        ("bytes", Feature::Bytes(ByteStrings::new())),
    ] {
        empty = empty
            .context(name, feature.clone())
            .feature_list(name, [feature]);
    }
    let none: [Feature; 0] = [];
    empty = empty.feature_list("no steps", none);
    let long = (0..300).map(|i| [i - 150]);
    let long = SequenceExample::new()
        .feature_list("é 中", long)
        .context("", [7]);
    vec![all, single, empty, SequenceExample::new(), long]
}

/// Writes `rust.{plain,gzip,zlib,example}.tfrecord`, and `rust.json`, which describes them.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path) -> Result<()> {
    let sequences = sequence_examples();
    let examples: Vec<Example> = sequences
        .iter()
        .map(|sequence| Example {
            features: sequence.context.clone(),
        })
        .collect();
    for (name, compression) in COMPRESSIONS {
        let path = folder.join(format!("rust.{name}.tfrecord"));
        let mut writer = RecordWriter::create(path, compression)?;
        sequences
            .iter()
            .try_for_each(|message| writer.write(&message.to_bytes()))?;
        writer.finish()?;
    }
    let path = folder.join("rust.example.tfrecord");
    let mut writer = RecordWriter::create(path, Compression::Plain)?;
    examples
        .iter()
        .try_for_each(|message| writer.write(&message.to_bytes()))?;
    writer.finish()?;
    let steps = |steps: &Vec<Feature>| steps.iter().map(StoredFeature::from).collect();
    let held = Manifest {
        sequence_examples: sequences
            .iter()
            .map(|sequence| Record {
                feature_lists: sequence
                    .feature_lists
                    .iter()
                    .map(|(name, list)| (name.clone(), steps(list)))
                    .collect(),
                ..Record::of(&sequence.context)
            })
            .collect(),
        examples: examples
            .iter()
            .map(|example| Record::of(&example.features))
            .collect(),
    };
    let path = folder.join("rust.json");
    let json = serde_json::to_string(&held).map_err(|e| Error::format(&path, e.to_string()))?;
    fs::write(&path, json).map_err(|e| Error::io(&path, e))
}

/// Reads `<name>.{plain,gzip,zlib,example}.tfrecord` and compares every value with `<name>.json`.
///
/// # Errors
/// A file cannot be read, or a value differs.
pub fn check(folder: &Path, name: &str) -> Result<()> {
    let path = folder.join(format!("{name}.json"));
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let held: Manifest =
        serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
    let refuse = || Error::format(&path, "has a value of an unknown type");
    let sequences: Option<Vec<_>> = held
        .sequence_examples
        .iter()
        .map(Record::sequence_example)
        .collect();
    let sequences = sequences.ok_or_else(refuse)?;
    let examples: Option<Vec<_>> = held.examples.iter().map(Record::features).collect();
    let examples = examples.ok_or_else(refuse)?;
    for (kind, compression) in COMPRESSIONS {
        let path = folder.join(format!("{name}.{kind}.tfrecord"));
        if Compression::detect(&path)? != compression {
            return Err(Error::format(
                &path,
                format!("does not look like {compression:?}"),
            ));
        }
        let mut records = RecordFiles::open([&path])?;
        let found = std::iter::from_fn(|| records.next_item().transpose())
            .map(|record| SequenceExample::from_bytes(&record?));
        compare(
            &path,
            found.collect::<Result<Vec<_>>>()?,
            &sequences,
            same_sequence,
        )?;
    }
    let path = folder.join(format!("{name}.example.tfrecord"));
    let mut reader = RecordReader::open(&path)?;
    let mut found = Vec::new();
    while let Some(record) = reader.read()? {
        found.push(Example::from_bytes(record)?.features);
    }
    compare(&path, found, &examples, same_features)
}

fn compare<T: std::fmt::Debug>(
    path: &Path,
    found: Vec<T>,
    expected: &[T],
    same: impl Fn(&T, &T) -> bool,
) -> Result<()> {
    if found.len() != expected.len() {
        let problem = format!("has {} records, not {}", found.len(), expected.len());
        return Err(Error::format(path, problem));
    }
    match found
        .iter()
        .zip(expected)
        .enumerate()
        .find(|(_, (a, b))| !same(a, b))
    {
        None => Ok(()),
        Some((i, (a, b))) => Err(Error::format(
            path,
            format!("record {i} is {a:?}, not {b:?}"),
        )),
    }
}

fn same_sequence(a: &SequenceExample, b: &SequenceExample) -> bool {
    let lists = a.feature_lists.iter().zip(&b.feature_lists);
    same_features(&a.context, &b.context)
        && a.feature_lists.len() == b.feature_lists.len()
        && lists.into_iter().all(|((name, steps), (other, others))| {
            name == other
                && steps.len() == others.len()
                && steps.iter().zip(others).all(|(a, b)| same_feature(a, b))
        })
}

fn same_features(a: &BTreeMap<String, Feature>, b: &BTreeMap<String, Feature>) -> bool {
    let same = |((name, a), (other, b))| name == other && same_feature(a, b);
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Bit for bit, but all NaNs are equal.
fn same_feature(a: &Feature, b: &Feature) -> bool {
    match (a, b) {
        (Feature::Float(a), Feature::Float(b)) => {
            let same =
                |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            a.len() == b.len() && a.iter().zip(b).all(same)
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_files_are_read_back_and_differences_are_found() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        check(folder.path(), "rust").unwrap();
        let path = folder.path().join("rust.json");
        let json = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("\"-1\"", "\"-2\""),
            ("2139095040", "2139095039"),
            ("word", "work"),
        ] {
            assert!(json.contains(from), "{from}");
            fs::write(&path, json.replacen(from, to, 1)).unwrap();
            let error = check(folder.path(), "rust").unwrap_err().to_string();
            assert!(error.contains("rust.plain.tfrecord: record"), "{error}");
        }
    }

    #[test]
    fn files_written_by_tensorflow_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/records/interop");
        check(&folder, "tensorflow").unwrap();
    }
}
