//! The JSON in the header of a golden file.
//!
//! A case with an unknown option is unsupported; no option is ignored.

use backend_api::DType;
use serde::Deserialize;
use serde_json::Value;

use super::Trouble;
use super::file::GoldenFile;

/// The content of a golden file, by driver.
#[derive(Debug)]
pub(super) enum Header {
    DynamicRnn(DynamicRnnCase),
    StaticRnn(DynamicRnnCase),
    Fused(DynamicRnnCase),
    FusedReversed(DynamicRnnCase),
    Bidirectional(BidirectionalCase),
    StaticBidirectional(BidirectionalCase),
    StackBidirectional(StackCase),
    StaticStackBidirectional(StackCase),
    RawRnn(RawCase),
    StateSaving(StateSavingCase),
    Train(TrainCase),
    Losses(LossesCase),
    Records(RecordsCase),
}

/// A case of `dynamic_rnn`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DynamicRnnCase {
    pub(super) cell: Value,
    pub(super) dtype: Float,
    #[serde(rename = "I")]
    pub(super) input_size: usize,
    /// The form of the inputs, if they are not one float tensor `[batch, time, depth]`.
    #[serde(default)]
    pub(super) input: InputKind,
    #[serde(default)]
    pub(super) time_major: bool,
    #[serde(default)]
    pub(super) swap_memory: bool,
    #[serde(default)]
    pub(super) parallel_iterations: Option<usize>,
    #[serde(default)]
    pub(super) initial_state: bool,
    #[serde(default)]
    pub(super) no_gradient: Vec<String>,
    /// Present if the file has lengths.
    #[serde(default)]
    pub(super) sequence_length: Option<Vec<i64>>,
}

/// A case of `bidirectional_dynamic_rnn` or `static_bidirectional_rnn`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BidirectionalCase {
    pub(super) cell_fw: Value,
    pub(super) cell_bw: Value,
    pub(super) dtype: Float,
    #[serde(rename = "I")]
    pub(super) input_size: usize,
    #[serde(default)]
    pub(super) time_major: bool,
    #[serde(default)]
    pub(super) swap_memory: bool,
    #[serde(default)]
    pub(super) parallel_iterations: Option<usize>,
    #[serde(default)]
    pub(super) initial_state: bool,
    #[serde(default)]
    pub(super) no_gradient: Vec<String>,
    #[serde(default)]
    pub(super) sequence_length: Option<Vec<i64>>,
}

/// A case of `stack_bidirectional_dynamic_rnn` or `stack_bidirectional_rnn`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StackCase {
    pub(super) cells_fw: Vec<Value>,
    pub(super) cells_bw: Vec<Value>,
    pub(super) dtype: Float,
    #[serde(rename = "I")]
    pub(super) input_size: usize,
    #[serde(default)]
    pub(super) time_major: bool,
    #[serde(default)]
    pub(super) swap_memory: bool,
    #[serde(default)]
    pub(super) parallel_iterations: Option<usize>,
    #[serde(default)]
    pub(super) initial_state: bool,
    #[serde(default)]
    pub(super) no_gradient: Vec<String>,
    #[serde(default)]
    pub(super) sequence_length: Option<Vec<i64>>,
}

/// A case of `raw_rnn`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCase {
    pub(super) cell: Value,
    pub(super) dtype: Float,
    #[serde(rename = "I")]
    pub(super) input_size: usize,
    #[serde(rename = "T")]
    pub(super) max_steps: usize,
    #[serde(rename = "V", default)]
    pub(super) classes: usize,
    pub(super) loop_fn: LoopFn,
    #[serde(default)]
    pub(super) threshold: f64,
    /// Ignored, since the tensors in the file show it too.
    #[serde(default, rename = "initial_state")]
    _initial_state: bool,
    #[serde(default)]
    pub(super) no_gradient: Vec<String>,
    #[serde(default)]
    pub(super) sequence_length: Option<Vec<i64>>,
    /// Number of steps that TensorFlow took. Ignored, since the number of emits shows it too.
    #[serde(default, rename = "steps")]
    _steps: Option<usize>,
    // These two do not change any result.
    #[serde(default, rename = "swap_memory")]
    _swap_memory: bool,
    #[serde(default, rename = "parallel_iterations")]
    _parallel_iterations: Option<usize>,
}

/// The loops of the `raw_rnn` cases. The description of the format defines them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum LoopFn {
    DynamicEquiv,
    Feedback,
    DataStop,
    GreedyDecoder,
    ScaleState,
}

/// A case of `static_state_saving_rnn`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateSavingCase {
    pub(super) cell: Value,
    pub(super) dtype: Float,
    #[serde(rename = "I")]
    pub(super) input_size: usize,
    pub(super) chunks: usize,
    pub(super) num_unroll: usize,
    #[serde(default)]
    pub(super) sequence_length: Option<Vec<i64>>,
    /// Describes the loss of each chunk in words.
    #[serde(default, rename = "loss")]
    _loss: Option<String>,
}

/// A trajectory of an optimizer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainCase {
    pub(super) cell: Value,
    pub(super) dtype: Float,
    #[serde(rename = "I")]
    pub(super) input_size: usize,
    pub(super) clip_norm: f64,
    pub(super) optimizer: String,
    #[serde(default)]
    pub(super) options: TrainOptions,
    pub(super) steps: usize,
    #[serde(default)]
    pub(super) embedding: bool,
    /// Describes the model in words.
    #[serde(default, rename = "model")]
    _model: Option<String>,
}

/// The arguments of the optimizers' constructors.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainOptions {
    pub(super) learning_rate: Option<f64>,
    pub(super) momentum: Option<f64>,
    #[serde(default)]
    pub(super) use_nesterov: bool,
    pub(super) beta1: Option<f64>,
    pub(super) beta2: Option<f64>,
    pub(super) epsilon: Option<f64>,
    pub(super) decay: Option<f64>,
    #[serde(default)]
    pub(super) centered: bool,
    pub(super) initial_accumulator_value: Option<f64>,
}

/// A file of losses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LossesCase {
    pub(super) dtype: Float,
    #[serde(default, rename = "V")]
    _classes: usize,
    #[serde(default)]
    pub(super) sequence_length: Option<Vec<i64>>,
}

/// The record file and fields to read, and how to batch them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordsCase {
    pub(super) driver: RecordsDriver,
    /// The record file, in the folder of the case; `records.plain.tfrecord` by default.
    #[serde(default)]
    pub(super) file: Option<String>,
    /// Byte strings by key, and their encoding.
    #[serde(default)]
    pub(super) strings: serde_json::Map<String, Value>,
    #[serde(default, rename = "strings_encoding")]
    _strings_encoding: Option<String>,
    /// Number of examples, batches or dequeues with results in the file.
    #[serde(default, alias = "batches", alias = "dequeues")]
    pub(super) count: usize,
    #[serde(default)]
    pub(super) batch_size: usize,
    #[serde(default)]
    pub(super) dynamic_pad: bool,
    #[serde(default)]
    pub(super) allow_smaller_final_batch: bool,
    #[serde(default)]
    pub(super) dequeue_many: usize,
    #[serde(default)]
    pub(super) bucket_boundaries: Vec<usize>,
    #[serde(default)]
    pub(super) bucket_batch_sizes: Vec<usize>,
    /// The lengths of all examples.
    #[serde(default)]
    pub(super) lengths: Vec<i64>,
    #[serde(default)]
    pub(super) num_unroll: usize,
    /// The key and the next key of each segment.
    #[serde(default)]
    pub(super) keys: Vec<(String, String)>,
}

/// The TensorFlow calls that read and batch records.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum RecordsDriver {
    #[serde(rename = "parse_single_sequence_example")]
    Parse,
    #[serde(rename = "train.batch")]
    Batch,
    #[serde(rename = "PaddingFIFOQueue")]
    Queue,
    #[serde(rename = "bucket_by_sequence_length")]
    Bucket,
    #[serde(rename = "batch_sequences_with_states")]
    Segments,
}

/// The form of the inputs of a case.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum InputKind {
    /// `input/x`: one tensor per step, of floats or of integer ids.
    #[default]
    #[serde(alias = "ids", alias = "image")]
    Tensor,
    /// `input/0` and `input/1`: the times and the inputs of a phased LSTM.
    Phased,
    /// `input/0` and `input/1`.
    Nested,
}

/// The element type of a case.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Float {
    F32,
    F64,
}

impl Float {
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
        }
    }
}

/// Header fields that do not affect how a case is run.
const INFORMATION: [&str; 20] = [
    "name",
    "driver",
    "seed",
    "generator_seed",
    "tf_version",
    "torch_version",
    "weight_scale",
    "x_scale",
    "length_dtype",
    "contrib",
    "f64_is_extension",
    "note",
    "group",
    "B",
    "T",
    "H",
    "classes",
    "image",
    "j",
    "k",
];

impl Header {
    pub(super) fn parse(file: &GoldenFile) -> Result<Self, Trouble> {
        let mut header: Value = parse(&file.case)?;
        drop_nulls(&mut header);
        let Some(fields) = header.as_object_mut() else {
            return Err(Trouble::Wrong(
                "the header's case is not a JSON object".into(),
            ));
        };
        let driver = match fields.get("driver") {
            Some(Value::String(driver)) => driver.clone(),
            _ => return Err(Trouble::Wrong("the header has no driver".into())),
        };
        for field in INFORMATION {
            // Loops that generate their own inputs need `T` to stop.
            if field != "T" || driver != "raw_rnn" {
                fields.remove(field);
            }
        }
        match driver.as_str() {
            "dynamic_rnn" => read(header).map(Self::DynamicRnn),
            "fused_block_lstm" => read(header).map(Self::Fused),
            "fused_block_lstm_reversed" => read(header).map(Self::FusedReversed),
            "static_rnn" => read(header).map(Self::StaticRnn),
            "bidirectional_dynamic_rnn" => read(header).map(Self::Bidirectional),
            "static_bidirectional_rnn" => read(header).map(Self::StaticBidirectional),
            "stack_bidirectional_dynamic_rnn" => read(header).map(Self::StackBidirectional),
            "stack_bidirectional_rnn" => read(header).map(Self::StaticStackBidirectional),
            "raw_rnn" => read(header).map(Self::RawRnn),
            "train" => read(header).map(Self::Train),
            "losses" => read(header).map(Self::Losses),
            "static_state_saving_rnn" => read(header).map(Self::StateSaving),
            "parse_single_sequence_example"
            | "train.batch"
            | "PaddingFIFOQueue"
            | "bucket_by_sequence_length"
            | "batch_sequences_with_states" => {
                // The enum variant already identifies the driver.
                if let Some(fields) = header.as_object_mut() {
                    fields.insert("driver".into(), driver.into());
                }
                read(header).map(Self::Records)
            }
            other => Err(Trouble::Unsupported(format!("driver `{other}`"))),
        }
    }
}

/// Removes fields that are null: Python's `None`, which selects the default.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn parse(json: &str) -> Result<Value, Trouble> {
    serde_json::from_str(json).map_err(|e| Trouble::Wrong(format!("the header is not JSON: {e}")))
}

/// Deserializes options. An unknown option makes the case unsupported.
pub(super) fn read<T: serde::de::DeserializeOwned>(options: Value) -> Result<T, Trouble> {
    serde_json::from_value(options).map_err(|e| Trouble::Unsupported(e.to_string()))
}
