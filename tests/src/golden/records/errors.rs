//! `records.errors.json`: calls that read records, and whether TensorFlow rejects them.
//!
//! If the file has the bytes of a call, the call uses them. The other calls are looked up by name.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use backend_api::{Error, Result as ApiResult};
use rnn_train::data::{
    Batch, ByteStrings, Column, Compression, ExampleSpec, FixedLen, FixedLenSequence, Pad,
    PaddingFifoQueue, RecordFiles, RecordReader, RecordWriter, Sample, Schema, SequenceExample,
    Values, VarLen,
};
use serde::Deserialize;
use serde_json::Value;

use super::super::check::Worst;
use super::super::{Outcome, Trouble};

/// Calls that do not compile here. Types encode the rank, the element type and whether a feature is
/// in the context; shapes come from the samples.
const BY_TYPE: [&str; 11] = [
    "default of the wrong kind",
    "context feature with a dimension that is not known",
    "context feature of dtype int32",
    "context feature of dtype float64",
    "varlen context feature of dtype int32",
    "FixedLenSequenceFeature in the context",
    "feature list of dtype int32",
    "FixedLenFeature of a feature list",
    "batch of an unknown rank with dynamic_pad",
    "PaddingFIFOQueue of an unknown rank",
    "PaddingFIFOQueue without shapes",
];

/// Calls whose outcome differs from TensorFlow's, and why.
const DIFFERS: [(&str, &str); 8] = [
    ("no features asked for", "returns a sample without fields"),
    (
        "batch of an unknown dimension without dynamic_pad",
        "padding depends on the samples, so no shape is declared",
    ),
    (
        "PaddingFIFOQueue: enqueue of another known dimension",
        "padding depends on the samples, so no dimension is declared",
    ),
    (
        "PaddingFIFOQueue: dequeue_many of none",
        "a batch has at least one sample",
    ),
    (
        "TFRecord: gzip stream cut in its header",
        "every truncated compressed file is an error",
    ),
    ("TFRecord: gzip stream cut in its trailer", "as above"),
    ("TFRecord: gzip stream without its trailer", "as above"),
    ("TFRecord: zlib stream without its trailer", "as above"),
];

/// An entry of the file.
#[derive(Deserialize)]
struct Listed {
    call: String,
    #[serde(deserialize_with = "Option::deserialize")]
    error: Option<String>,
    serialized: Option<String>,
    #[serde(default)]
    context_features: BTreeMap<String, FeatureSpec>,
    #[serde(default)]
    sequence_features: BTreeMap<String, FeatureSpec>,
    file: Option<String>,
    compression_type: Option<String>,
    records: Option<usize>,
    result: Option<Value>,
    tf1: Option<Verdict>,
}

/// TensorFlow 1's result for a message, where it differs.
#[derive(Clone, Deserialize)]
struct Verdict {
    #[serde(deserialize_with = "Option::deserialize")]
    error: Option<String>,
    result: Option<Value>,
}

#[derive(Deserialize)]
struct FeatureSpec {
    #[serde(rename = "type")]
    kind: String,
    dtype: String,
    #[serde(default)]
    shape: Vec<usize>,
    default: Option<Value>,
    #[serde(default)]
    allow_missing: bool,
}

/// Makes every call of a file. Returns their names and outcomes.
pub(crate) fn run(path: &Path) -> ApiResult<Vec<(String, Outcome)>> {
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let listed: Vec<Value> =
        serde_json::from_str(&text).map_err(|e| Error::format(path, e.to_string()))?;
    let mut outcomes = Vec::new();
    for entry in listed {
        // A dimension of -1 cannot be declared here, so the call is identified by its name.
        let call = entry["call"].as_str().unwrap_or("unnamed").to_owned();
        let judged = match BY_TYPE.contains(&&*call) {
            true => refused_there(&entry),
            false => match serde_json::from_value::<Listed>(entry) {
                Ok(listed) => judge(&listed),
                Err(e) => Err(Trouble::Unsupported(e.to_string())),
            },
        };
        let name = format!("records.errors/{}", call.replace(' ', "_"));
        outcomes.push((name, judged.map(|()| Worst::default()).into()));
    }
    Ok(outcomes)
}

fn refused_there(entry: &Value) -> Result<(), Trouble> {
    match entry["error"].is_null() {
        true => Err(Trouble::Wrong(
            "TensorFlow accepts it, but it does not compile here".into(),
        )),
        false => Ok(()),
    }
}

fn judge(listed: &Listed) -> Result<(), Trouble> {
    let verdict = listed.tf1.clone().unwrap_or(Verdict {
        error: listed.error.clone(),
        result: listed.result.clone(),
    });
    let differs = DIFFERS.iter().any(|(call, _)| *call == listed.call);
    let outcome = make(listed)?;
    match (&outcome, &verdict.error, differs) {
        (Ok(_), Some(error), false) => Err(Trouble::Wrong(format!(
            "is accepted, but TensorFlow says {error}"
        ))),
        (Err(error), None, false) => Err(Trouble::Wrong(format!(
            "is rejected, but TensorFlow accepts it: {error}"
        ))),
        (Ok(_), None, true) | (Err(_), Some(_), true) => Err(Trouble::Wrong(
            "agrees with TensorFlow, but is listed as different".into(),
        )),
        (Ok(found), None, false) => match &verdict.result {
            Some(expected) if expected != found => {
                Err(Trouble::Wrong(format!("gives {found}, not {expected}")))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Makes a call. Returns the result as JSON, or the error.
fn make(listed: &Listed) -> Result<ApiResult<Value>, Trouble> {
    if let Some(serialized) = &listed.serialized {
        return parse(listed, &from_hex(serialized)?);
    }
    if let Some(file) = &listed.file {
        return read(listed, from_hex(file)?);
    }
    by_name(&listed.call)
}

fn from_hex(text: &str) -> Result<Vec<u8>, Trouble> {
    let byte = |i: usize| u8::from_str_radix(text.get(i..i + 2).unwrap_or(""), 16);
    let bytes: Result<_, _> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.map_err(|e| Trouble::Wrong(format!("the bytes are not hexadecimal: {e}")))
}

fn parse(listed: &Listed, serialized: &[u8]) -> Result<ApiResult<Value>, Trouble> {
    let mut spec = ExampleSpec::new();
    let mut names = Vec::new();
    for (name, feature) in &listed.context_features {
        names.push(("context", name.clone(), feature.kind == "VarLenFeature"));
        if let Err(error) = declare_context(&mut spec, name, feature)? {
            return Ok(Err(error));
        }
    }
    for (name, feature) in &listed.sequence_features {
        names.push((
            "feature_lists",
            name.clone(),
            feature.kind == "VarLenFeature",
        ));
        declare_list(&mut spec, name, feature)??;
    }
    let sample = match spec.parse(serialized) {
        Ok(sample) => sample,
        Err(error) => {
            let text = error.to_string();
            let named = listed
                .context_features
                .keys()
                .chain(listed.sequence_features.keys());
            let names = named.map(|name| format!("`{name}`"));
            let known = ["serialized is not a SequenceExample".to_owned()];
            if !text.starts_with("parse_single_sequence_example: ")
                || !names.chain(known).any(|part| text.contains(&part))
            {
                return Err(Trouble::Wrong(format!("`{text}` names no feature")));
            }
            return Ok(Err(error));
        }
    };
    let mut parts: BTreeMap<&str, serde_json::Map<String, Value>> = BTreeMap::new();
    for ((part, name, sparse), column) in names.into_iter().zip(sample.columns()) {
        parts
            .entry(part)
            .or_default()
            .insert(name, json(column, sparse));
    }
    Ok(Ok(serde_json::json!(parts)))
}

fn declare_context(
    spec: &mut ExampleSpec,
    name: &str,
    feature: &FeatureSpec,
) -> Result<ApiResult<()>, Trouble> {
    let shape = &feature.shape[..];
    let fixed = feature.kind == "FixedLenFeature";
    let declared = match (&*feature.dtype, fixed) {
        ("int64", true) => {
            let mut fixed = FixedLen::<i64>::new(name, shape);
            if let Some(default) = &feature.default {
                let all = default.as_array().cloned();
                let all = all.unwrap_or_else(|| vec![default.clone()]);
                fixed = fixed.default_values(all.iter().filter_map(Value::as_i64));
            }
            spec.context(fixed).map(|_| ())
        }
        ("float32", true) => spec.context(FixedLen::<f32>::new(name, shape)).map(|_| ()),
        ("string", true) => spec
            .context(FixedLen::<ByteStrings>::new(name, shape))
            .map(|_| ()),
        ("int64", false) => spec.context(VarLen::<i64>::new(name)).map(|_| ()),
        ("float32", false) => spec.context(VarLen::<f32>::new(name)).map(|_| ()),
        ("string", false) => spec.context(VarLen::<ByteStrings>::new(name)).map(|_| ()),
        (other, _) => return Err(Trouble::Unsupported(format!("dtype {other}"))),
    };
    Ok(declared)
}

fn declare_list(
    spec: &mut ExampleSpec,
    name: &str,
    feature: &FeatureSpec,
) -> Result<ApiResult<()>, Trouble> {
    // The field needs another name if the context has a feature of the same name.
    let field = format!("list {name}");
    macro_rules! declare {
        ($element:ty) => {
            match feature.kind == "FixedLenSequenceFeature" {
                true => {
                    let list = FixedLenSequence::<$element>::new(name, &feature.shape).field(field);
                    let list = if feature.allow_missing {
                        list.allow_missing()
                    } else {
                        list
                    };
                    spec.sequence(list).map(|_| ())
                }
                false => spec
                    .sequence(VarLen::<$element>::new(name).field(field))
                    .map(|_| ()),
            }
        };
    }
    Ok(match &*feature.dtype {
        "int64" => declare!(i64),
        "float32" => declare!(f32),
        "string" => declare!(ByteStrings),
        other => return Err(Trouble::Unsupported(format!("dtype {other}"))),
    })
}

/// A column in the format of the file.
fn json(column: &Column, sparse: bool) -> Value {
    let (kind, values): (_, Vec<Value>) = match column.all_values() {
        Values::F32(values) => ("float", values.iter().map(|v| v.to_bits().into()).collect()),
        Values::Bytes(strings) => {
            let text = |s: &[u8]| s.iter().copied().map(char::from).collect::<String>().into();
            ("bytes", strings.iter().map(text).collect())
        }
        Values::I64(values) => (
            "int64",
            values.iter().map(|v| v.to_string().into()).collect(),
        ),
        _ => ("of no record", Vec::new()),
    };
    match sparse {
        false => serde_json::json!({"kind": kind, "values": values, "shape": column.dims()}),
        true => {
            let sparse = column.sparse();
            serde_json::json!({
                "kind": kind,
                "values": values,
                "indices": sparse.indices,
                "dense_shape": sparse.dense_shape,
            })
        }
    }
}

fn read(listed: &Listed, bytes: Vec<u8>) -> Result<ApiResult<Value>, Trouble> {
    let compression = match listed.compression_type.as_deref() {
        None | Some("") => Compression::Plain,
        Some("GZIP") => Compression::Gzip,
        Some("ZLIB") => Compression::Zlib,
        Some(other) => return Err(Trouble::Unsupported(format!("compression {other}"))),
    };
    let mut reader = RecordReader::new(Cursor::new(bytes), compression, &listed.call);
    let mut count = 0;
    let end = loop {
        match reader.read() {
            Ok(Some(_)) => count += 1,
            Ok(None) => break Ok(Value::Null),
            Err(error) => break Err(error),
        }
    };
    if let (Ok(_), Some(expected)) = (&end, listed.records)
        && count != expected
    {
        return Err(Trouble::Wrong(format!(
            "has {count} records, not {expected}"
        )));
    }
    // TensorFlow decompresses a whole buffer before it yields the records in it, so it yields fewer
    // records of a damaged compressed file.
    if let (Err(error), Some(expected), Compression::Plain) = (&end, listed.records, compression) {
        if count != expected {
            return Err(Trouble::Wrong(format!(
                "has {count} records, not {expected}"
            )));
        }
        let text = error.to_string();
        if !text.contains(&format!("record {count} at offset ")) || !text.contains(&listed.call) {
            return Err(Trouble::Wrong(format!("`{text}` does not name the offset")));
        }
    }
    Ok(end)
}

/// Calls whose bytes are not in the file.
fn by_name(call: &str) -> Result<ApiResult<Value>, Trouble> {
    let made = match call {
        "missing required context feature" => context(FixedLen::new("nope", &[])),
        "wrong dtype of a context feature" => {
            let mut spec = ExampleSpec::new();
            spec.context(FixedLen::<f32>::new("label", &[]))
                .and_then(|_| parsed(&spec))
        }
        "wrong number of values in context" => context(FixedLen::new("label", &[2])),
        "missing required feature list" => list(FixedLenSequence::<i64>::new("nope", &[])),
        "wrong dtype of a feature list" => list(FixedLenSequence::<f32>::new("tokens", &[])),
        "wrong number of values per step" => list(FixedLenSequence::<f32>::new("feats", &[2])),
        "not a SequenceExample" => ExampleSpec::new().parse(b"not a protobuf").map(|_| ()),
        "empty message, all optional" => {
            let mut spec = ExampleSpec::new();
            let label = spec.context(FixedLen::<i64>::new("label", &[]).default_values([7]))?;
            let tokens = FixedLenSequence::<i64>::new("tokens", &[]).allow_missing();
            let tokens = spec.sequence(tokens)?;
            spec.parse(b"").and_then(|sample| {
                let same = sample.get(label)? == [7] && sample.steps(tokens)? == 0;
                same.then_some(())
                    .ok_or_else(|| Error::argument("parse", "sample", "differs"))
            })
        }
        "TFRecord: payload byte flipped" => record(|bytes| bytes[13] ^= 1),
        "TFRecord: length byte flipped" => record(|bytes| bytes[0] ^= 1),
        "TFRecord: truncated in payload" => record(|bytes| bytes.truncate(20)),
        "TFRecord: truncated in header" => record(|bytes| bytes.truncate(7)),
        "TFRecord: empty file" => record(Vec::clear),
        "TFRecord: no such file" => RecordFiles::open(["no such file"]).map(|_| ()),
        call if call.starts_with("PaddingFIFOQueue: ") => return queue(call),
        "batch of an unknown dimension without dynamic_pad" => {
            Pad::new().pad(&[tokens(1)?, tokens(2)?]).map(|_| ())
        }
        _ => return Err(Trouble::Unsupported("this call".into())),
    };
    Ok(made.map(|()| Value::Null))
}

/// Parses a record with a label, tokens and three features per step.
fn parsed(spec: &ExampleSpec) -> ApiResult<()> {
    let example = SequenceExample::new()
        .context("label", [3i64])
        .feature_list("tokens", [[1i64], [300]])
        .feature_list("feats", [[0.0f32, 1.0, -2.0]]);
    spec.parse(&example.to_bytes()).map(|_| ())
}

fn context(feature: FixedLen<i64>) -> ApiResult<()> {
    let mut spec = ExampleSpec::new();
    spec.context(feature)?;
    parsed(&spec)
}

fn list<T: rnn_train::data::RecordType>(feature: FixedLenSequence<T>) -> ApiResult<()> {
    let mut spec = ExampleSpec::new();
    spec.sequence(feature)?;
    parsed(&spec)
}

/// Reads a file with one record after `change` modified its bytes.
fn record(change: impl Fn(&mut Vec<u8>)) -> ApiResult<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("a temporary folder", e))?;
    let path = folder.path().join("one.tfrecord");
    let mut writer = RecordWriter::create(&path, Compression::Plain)?;
    writer.write(b"a record of some bytes")?;
    writer.finish()?;
    let mut bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
    change(&mut bytes);
    let mut reader = RecordReader::new(Cursor::new(bytes), Compression::Plain, &path);
    match reader.read()? {
        None => Ok(()),
        Some(_) => Err(Error::format(
            &path,
            "a record of the deleted file was read",
        )),
    }
}

/// A sample of `1 ..= length`.
fn tokens(length: usize) -> ApiResult<Sample> {
    thread_local! {
        static SCHEMA: Schema = {
            let mut schema = Schema::new();
            schema.add::<i64>("tokens").map(|_| schema).unwrap_or_default()
        };
    }
    let first = (length * (length - 1) / 2 + 1) as i64;
    let values: Vec<i64> = (first..).take(length).collect();
    SCHEMA.with(|schema| schema.sample(vec![Column::new(&[length], values)?]))
}

fn queue(call: &str) -> Result<ApiResult<Value>, Trouble> {
    let queue = PaddingFifoQueue::new(10, Pad::new())?;
    let filled = |count: usize| -> ApiResult<()> {
        (1..=count).try_for_each(|n| queue.enqueue(tokens(n)?))?;
        queue.close(false);
        Ok(())
    };
    let some = |batch: ApiResult<Option<Batch>>| match batch {
        Ok(Some(batch)) => {
            let column = batch.named("tokens").cloned();
            column
                .map(|c| json(&c, false))
                .ok_or_else(|| Error::argument("queue", "batch", "?"))
        }
        Ok(None) => Err(Error::argument(
            "queue",
            "batch",
            "is none: the queue is closed",
        )),
        Err(error) => Err(error),
    };
    Ok(match call.trim_start_matches("PaddingFIFOQueue: ") {
        "enqueue of another rank" => {
            queue.enqueue(tokens(1)?)?;
            let flat = tokens(1)?;
            let scalar = flat.schema().sample(vec![Column::scalar::<i64>(1)])?;
            queue.enqueue(scalar).map(|()| Value::Null)
        }
        "enqueue of another known dimension" => {
            queue.enqueue(tokens(1)?)?;
            queue.enqueue(tokens(2)?).map(|()| Value::Null)
        }
        "enqueue after close" => {
            filled(0)?;
            queue.enqueue(tokens(1)?).map(|()| Value::Null)
        }
        "dequeue of an empty queue that is closed" => {
            filled(0)?;
            some(queue.dequeue_many(1))
        }
        "dequeue_many of more than are left" => {
            filled(3)?;
            some(queue.dequeue_many(4))
        }
        "dequeue_many of all that are left" => {
            filled(3)?;
            some(queue.dequeue_many(3))
        }
        "dequeue_many of none" => some(queue.dequeue_many(0)),
        "dequeue_up_to of more than are left" => {
            filled(3)?;
            some(queue.dequeue_up_to(4))
        }
        "dequeue_up_to of an empty queue that is closed" => {
            filled(0)?;
            some(queue.dequeue_up_to(1))
        }
        _ => return Err(Trouble::Unsupported("this call".into())),
    })
}
