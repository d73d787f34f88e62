//! Cases of record files: parsing, padding, queues, buckets and segments.

mod errors;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::Path;
use std::thread;

use backend_api::{DType, Error, Result as ApiResult, Tensor};
use rnn_core::StateSaver;
use rnn_train::data::{
    Batch, ByteStrings, Column, Compression, ExampleSpec, Field, FixedLen, FixedLenSequence, Pad,
    PaddingFifoQueue, RecordFiles, RecordReader, RecordWriter, Remainder, Sample, SegmentSpec,
    Segments, SequenceExample, Source, SourceExt, Values, VarLen,
};
use serde_json::Value;

use super::Trouble;
use super::case::{RecordsCase, RecordsDriver};
use super::check::{Check, Worst};
use super::file::GoldenFile;
use crate::devices::TestDevice;

pub(super) use errors::run as run_errors;

/// The features of the record files; `tests/golden/README.md` lists them.
struct Features {
    spec: ExampleSpec,
    context: Vec<&'static str>,
    lists: Vec<&'static str>,
    length: Field<i64>,
    id: Field<ByteStrings>,
    tokens: Field<i64>,
}

impl Features {
    /// `width` is the number of values per step of `feats`; `None` does not read `feats`.
    fn new(width: Option<usize>) -> ApiResult<Self> {
        let mut spec = ExampleSpec::new();
        let length = spec.context(FixedLen::<i64>::new("length", &[]))?;
        spec.context(FixedLen::<i64>::new("label", &[]))?;
        spec.context(FixedLen::<f32>::new("weight", &[]))?;
        spec.context(FixedLen::<f32>::new("absent", &[]).default_values([2.5]))?;
        let id = spec.context(FixedLen::<ByteStrings>::new("id", &[]))?;
        let tokens = spec.sequence(FixedLenSequence::<i64>::new("tokens", &[]))?;
        let mut lists = vec!["tokens"];
        if let Some(width) = width {
            spec.sequence(FixedLenSequence::<f32>::new("feats", &[width]))?;
            lists.push("feats");
        }
        spec.sequence(FixedLenSequence::<ByteStrings>::new("names", &[]))?;
        spec.sequence(VarLen::<i64>::new("tags"))?;
        spec.sequence(FixedLenSequence::<f32>::new("absent_list", &[2]).allow_missing())?;
        lists.extend(["names", "tags", "absent_list"]);
        Ok(Self {
            spec,
            context: vec!["length", "label", "weight", "absent", "id"],
            lists,
            length,
            id,
            tokens,
        })
    }
}

/// Compares columns with the tensors of the file and the strings of its header.
struct Checks<'a> {
    device: &'a TestDevice,
    tensors: Check<'a>,
    file: &'a GoldenFile,
    strings: &'a serde_json::Map<String, Value>,
    /// Keys of strings that were not compared yet.
    left: BTreeSet<&'a str>,
}

impl<'a> Checks<'a> {
    fn new(device: &'a TestDevice, file: &'a GoldenFile, case: &'a RecordsCase) -> Self {
        Self {
            device,
            // Nothing is computed, so all numbers must be equal.
            tensors: Check::new(file, DType::F64),
            file,
            strings: &case.strings,
            left: case.strings.keys().map(String::as_str).collect(),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.file.has(key) || self.strings.contains_key(key)
    }

    fn column(&mut self, key: &str, column: &Column) -> Result<(), Trouble> {
        if column.row_lengths().is_some() {
            return self.sparse(key, column);
        }
        let Values::Bytes(strings) = column.all_values() else {
            return self.tensors.tensor(key, &column.tensor(self.device)?);
        };
        let expected = self.strings.get(key);
        let expected = expected.ok_or_else(|| Trouble::Wrong(format!("no strings `{key}`")))?;
        let (mut found, mut dims) = (ByteStrings::new(), Vec::new());
        latin1(expected, &mut found, 0, &mut dims)?;
        self.left.remove(key);
        if found != *strings || dims != column.dims() {
            let text = format!("{key} is {column:?}, not {found:?} of shape {dims:?}");
            return Err(Trouble::Wrong(text));
        }
        Ok(())
    }

    fn sparse(&mut self, key: &str, column: &Column) -> Result<(), Trouble> {
        let sparse = column.sparse();
        let rank = sparse.dense_shape.len();
        let dims = [sparse.indices.len(), rank];
        let values = sparse.values.clone();
        let parts = [
            ("indices", Column::new(&dims, sparse.indices.concat())?),
            ("values", Column::new(&[values.len()], values)?),
            ("dense_shape", Column::new(&[rank], sparse.dense_shape)?),
        ];
        for (part, column) in parts {
            let tensor = column.tensor(self.device)?;
            self.tensors.tensor(&format!("{key}/{part}"), &tensor)?;
        }
        Ok(())
    }

    /// Compares the fields of a batch that are in the file.
    fn batch(&mut self, prefix: &str, batch: &Batch, names: &[&str]) -> Result<(), Trouble> {
        for name in names {
            let key = format!("{prefix}/{name}");
            if self.has(&key) {
                let column = batch.named(name);
                let column = column.ok_or_else(|| Trouble::Wrong(format!("no `{name}`")))?;
                self.column(&key, column)?;
            }
        }
        Ok(())
    }

    fn numbers(&mut self, key: &str, numbers: &[i64]) -> Result<(), Trouble> {
        let tensor = Tensor::from_slice(self.device, numbers, &[numbers.len()])?;
        self.tensors.tensor(key, &tensor)
    }

    fn finish(self) -> Result<Worst, Trouble> {
        match self.left.first() {
            None => self.tensors.finish(),
            Some(key) => Err(Trouble::Unsupported(format!(
                "no result corresponds to `{key}`"
            ))),
        }
    }
}

/// Byte strings and the shape of nested lists of them, from JSON.
fn latin1(
    value: &Value,
    strings: &mut ByteStrings,
    axis: usize,
    dims: &mut Vec<usize>,
) -> Result<(), Trouble> {
    match value {
        Value::String(text) => strings.push(&bytes_of(text)?),
        Value::Array(items) => {
            if dims.len() == axis {
                dims.push(items.len());
            }
            for item in items {
                latin1(item, strings, axis + 1, dims)?;
            }
        }
        other => return Err(Trouble::Wrong(format!("{other} is not a string"))),
    }
    Ok(())
}

/// The bytes of a string in latin-1.
fn bytes_of(text: &str) -> Result<Vec<u8>, Trouble> {
    let byte = |c: char| u8::try_from(u32::from(c));
    let bytes: Result<_, _> = text.chars().map(byte).collect();
    bytes.map_err(|_| Trouble::Wrong(format!("`{text}` is not latin-1")))
}

/// Runs one case.
pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &RecordsCase,
    path: &Path,
) -> Result<Worst, Trouble> {
    let records = path.with_file_name(case.file.as_deref().unwrap_or("records.plain.tfrecord"));
    let width = file.keys().find(|key| key.ends_with("/feats"));
    let width = width.map(|key| file.tensor(device, key)).transpose()?;
    let features = Features::new(width.and_then(|t| t.dims().last().copied()))?;
    let records = RecordFiles::open([records])?;
    let mut checks = Checks::new(device, file, case);
    match case.driver {
        RecordsDriver::Parse => parse(&mut checks, case, &features, records)?,
        RecordsDriver::Batch => batch(&mut checks, case, &features, records)?,
        RecordsDriver::Queue => queue(&mut checks, case, &features, records)?,
        RecordsDriver::Bucket => bucket(&mut checks, case, &features, records)?,
        RecordsDriver::Segments => segments(&mut checks, case, &features, records)?,
    }
    checks.finish()
}

fn counted(what: &str, found: usize, case: &RecordsCase) -> Result<(), Trouble> {
    match found == case.count {
        true => Ok(()),
        false => Err(Trouble::Wrong(format!(
            "{found} {what}, not {}",
            case.count
        ))),
    }
}

fn parse(
    checks: &mut Checks<'_>,
    case: &RecordsCase,
    features: &Features,
    records: RecordFiles,
) -> Result<(), Trouble> {
    let mut samples = records.parse(features.spec.clone());
    let mut count = 0;
    while let Some(sample) = samples.next_item()? {
        for name in &features.context {
            let column = sample.named(name).ok_or_else(missing)?;
            checks.column(&format!("example/{count:02}/context/{name}"), column)?;
        }
        for name in &features.lists {
            let column = sample.named(name).ok_or_else(missing)?;
            checks.column(&format!("example/{count:02}/{name}"), column)?;
        }
        count += 1;
    }
    counted("examples", count, case)
}

fn missing() -> Trouble {
    Trouble::Wrong("a field is missing".into())
}

fn batch(
    checks: &mut Checks<'_>,
    case: &RecordsCase,
    features: &Features,
    records: RecordFiles,
) -> Result<(), Trouble> {
    if !case.dynamic_pad {
        return Err(Trouble::Unsupported("batches without dynamic_pad".into()));
    }
    let remainder = match case.allow_smaller_final_batch {
        true => Remainder::Keep,
        false => Remainder::Drop,
    };
    let groups = records
        .parse(features.spec.clone())
        .group(case.batch_size, remainder)?;
    let mut batches = groups.pad(Pad::new()).prefetch(2)?;
    let names = [&features.context[..], &features.lists].concat();
    let mut count = 0;
    while let Some(batch) = batches.next_item()? {
        checks.batch(&format!("batch/{count}"), &batch, &names)?;
        let lengths = batch.get(features.length)?;
        if batch.lengths(features.tokens)? != lengths {
            return Err(Trouble::Wrong(format!(
                "batch {count} has different lengths"
            )));
        }
        count += 1;
    }
    counted("batches", count, case)
}

fn queue(
    checks: &mut Checks<'_>,
    case: &RecordsCase,
    features: &Features,
    records: RecordFiles,
) -> Result<(), Trouble> {
    let queue = PaddingFifoQueue::new(2, Pad::new())?;
    let mut samples = records.parse(features.spec.clone());
    thread::scope(|scope| {
        let produced = scope.spawn(|| -> ApiResult<usize> {
            let _closing = queue.close_on_drop();
            let mut produced = 0;
            while let Some(sample) = samples.next_item()? {
                queue.enqueue(sample)?;
                produced += 1;
            }
            Ok(produced)
        });
        let mut count = 0;
        let consumed = loop {
            match queue.dequeue_many(case.dequeue_many) {
                Ok(Some(batch)) => {
                    let prefix = format!("dequeue/{count}");
                    if let Err(trouble) = checks.batch(&prefix, &batch, &features.lists) {
                        break Err(trouble);
                    }
                    count += 1;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        // Unblocks a producer that is still waiting.
        queue.close(true);
        let produced = produced.join();
        consumed?;
        let produced = produced.map_err(|_| Trouble::Wrong("the producer panicked".into()))??;
        let left = produced - count * case.dequeue_many;
        if queue.len() != left {
            return Err(Trouble::Wrong(format!("{} left, not {left}", queue.len())));
        }
        counted("dequeues", count, case)
    })
}

fn bucket(
    checks: &mut Checks<'_>,
    case: &RecordsCase,
    features: &Features,
    records: RecordFiles,
) -> Result<(), Trouble> {
    let spec = features.spec.clone();
    let tokens = features.tokens;
    let samples = records.map(move |record| Ok((record.index(), spec.parse(&record)?)));
    let length = |(_, sample): &(u64, Sample)| sample.steps(tokens);
    let (boundaries, sizes) = (&case.bucket_boundaries, &case.bucket_batch_sizes);
    let mut groups =
        samples.bucket_by_sequence_length(length, boundaries, sizes, Remainder::Keep)?;
    let mut lengths = BTreeMap::new();
    let mut count = 0;
    while let Some(group) = groups.next_item()? {
        let (indices, samples): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let batch = Pad::new().pad(&samples)?;
        let prefix = format!("batch/{count}");
        checks.batch(&prefix, &batch, &["tokens"])?;
        let found = batch.lengths(tokens)?;
        checks.numbers(&format!("{prefix}/length"), found)?;
        let rows: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        checks.numbers(&format!("{prefix}/index"), &rows)?;
        lengths.extend(indices.into_iter().zip(found.iter().copied()));
        count += 1;
    }
    if !lengths.values().eq(&case.lengths) {
        let text = format!("the lengths are {lengths:?}, not {:?}", case.lengths);
        return Err(Trouble::Wrong(text));
    }
    counted("batches", count, case)
}

fn segments(
    checks: &mut Checks<'_>,
    case: &RecordsCase,
    features: &Features,
    records: RecordFiles,
) -> Result<(), Trouble> {
    let spec = SegmentSpec::new(features.id, case.num_unroll, 1)
        .sequence(features.tokens)
        .length(features.length);
    let zero = Tensor::from_slice(checks.device, &[0.0f32], &[1])?;
    let samples = records.parse(features.spec.clone());
    let mut segments = Segments::new(samples, spec, &[("steps", zero)])?;
    let mut index = 0;
    while let Some(mut segment) = segments.next_item()? {
        let prefix = format!("segment/{index:02}");
        let wrong = |what: &str| Err(Trouble::Wrong(format!("{prefix}: {what}")));
        checks.column(
            &format!("{prefix}/tokens"),
            &segment.batch().column(features.tokens)?.select(0)?,
        )?;
        let one = |numbers: &[usize]| numbers.iter().map(|&n| n as i64).collect::<Vec<_>>();
        checks.numbers(&format!("{prefix}/length"), segment.lengths())?;
        let (sequences, counts) = (segment.sequences(), segment.sequence_counts());
        checks.numbers(&format!("{prefix}/sequence"), &one(&sequences))?;
        checks.numbers(&format!("{prefix}/sequence_count"), &one(&counts))?;
        let totals = one(&segment.total_lengths());
        checks.numbers(&format!("{prefix}/total_length"), &totals)?;
        let Some((key, next_key)) = case.keys.get(index) else {
            return wrong("is surplus");
        };
        let keys = [segment.keys().next(), segment.next_keys().next()];
        if keys != [Some(&bytes_of(key)?[..]), Some(&bytes_of(next_key)?[..])] {
            return wrong("has different keys");
        }
        // The state counts the steps of the sequence.
        let before = segment.state("steps")?;
        if before.to_f64_vec()? != [(sequences[0] * case.num_unroll) as f64] {
            return wrong("has the state of another segment");
        }
        segment.save_state("steps", before.affine(1.0, case.num_unroll as f64)?)?;
        index += 1;
    }
    match index == case.keys.len() {
        true => Ok(()),
        false => Err(Trouble::Wrong(format!(
            "{index} segments, not {}",
            case.keys.len()
        ))),
    }
}

/// Reads the records of a file, decodes them, writes them in each compression and reads them again.
/// `X.gzip.tfrecord` and `X.zlib.tfrecord` have the records of `X.plain.tfrecord`. Other files have
/// some of these records, or empty ones.
pub(super) fn run_file(path: &Path) -> Result<Worst, Trouble> {
    let read = |path: &Path| -> ApiResult<Vec<Vec<u8>>> {
        let mut records = RecordFiles::open([path])?;
        std::iter::from_fn(|| records.next_item().transpose())
            .map(|record| Ok(record?.into_bytes()))
            .collect()
    };
    let records = read(path)?;
    for (i, record) in records.iter().enumerate() {
        let example = SequenceExample::from_bytes(record)?;
        if SequenceExample::from_bytes(&example.to_bytes())? != example {
            return Err(Trouble::Wrong(format!(
                "record {i} differs when written and read"
            )));
        }
    }
    for compression in [Compression::Plain, Compression::Gzip, Compression::Zlib] {
        if written_and_read(&records, compression)? != records {
            return Err(Trouble::Wrong(format!(
                "{compression:?} gives other records"
            )));
        }
    }
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    let (group, kind) = match name.trim_end_matches(".tfrecord").rsplit_once('.') {
        Some(parts) => parts,
        None => return Ok(Worst::default()),
    };
    let plain = path.with_file_name(format!("{group}.plain.tfrecord"));
    if !plain.exists() {
        return Ok(Worst::default());
    }
    let plain = read(&plain)?;
    let same = match kind {
        "plain" | "gzip" | "zlib" => records == plain,
        _ => records.iter().all(|r| r.is_empty() || plain.contains(r)),
    };
    match same && !plain.is_empty() {
        true => Ok(Worst::default()),
        false => Err(Trouble::Wrong(
            "has other records than the plain file".into(),
        )),
    }
}

fn written_and_read(records: &[Vec<u8>], compression: Compression) -> ApiResult<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("a temporary folder", e))?;
    let path = folder.path().join("records");
    let mut writer = RecordWriter::create(&path, compression)?;
    records.iter().try_for_each(|record| writer.write(record))?;
    writer.finish()?;
    let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let mut reader = RecordReader::new(Cursor::new(bytes), compression, &path);
    let mut found = Vec::new();
    while let Some(record) = reader.read()? {
        found.push(record.to_vec());
    }
    Ok(found)
}
