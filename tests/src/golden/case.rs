//! The JSON in a golden file's header.
//!
//! An option that is not known here makes the case unsupported: none is ignored.

use backend_api::DType;
use serde::Deserialize;
use serde_json::Value;

use super::Trouble;
use super::dropout::has_dropout;
use super::file::GoldenFile;

/// What a golden file is about, by driver.
#[derive(Debug)]
pub(super) enum Header {
    DynamicRnn(DynamicRnnCase),
    /// `static_rnn` of a cell with dropout.
    StaticDropout(DynamicRnnCase),
}

/// A case of `dynamic_rnn`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DynamicRnnCase {
    pub(super) cell: Value,
    pub(super) dtype: Float,
    #[serde(rename = "I")]
    pub(super) input_size: usize,
    /// What the inputs are, where they are not one float tensor `[batch, time, depth]`.
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
    /// Present where the file has lengths.
    #[serde(default)]
    pub(super) sequence_length: Option<Vec<i64>>,
}

/// What the inputs of a case are.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum InputKind {
    /// `input/x`: a tensor for each step, of floats or of integer ids.
    #[default]
    #[serde(alias = "ids", alias = "image")]
    Tensor,
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

/// Header fields that change nothing in how a case is run.
const INFORMATION: [&str; 19] = [
    "name",
    "driver",
    "seed",
    "generator_seed",
    "tf_version",
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
        let Some(fields) = header.as_object_mut() else {
            return Err(Trouble::Wrong("the header's case is no JSON object".into()));
        };
        let driver = match fields.get("driver") {
            Some(Value::String(driver)) => driver.clone(),
            _ => return Err(Trouble::Wrong("the header names no driver".into())),
        };
        for field in INFORMATION {
            fields.remove(field);
        }
        match driver.as_str() {
            "dynamic_rnn" => read(header).map(Self::DynamicRnn),
            "static_rnn" if has_dropout(&header["cell"]) => read(header).map(Self::StaticDropout),
            other => Err(Trouble::Unsupported(format!("driver `{other}`"))),
        }
    }
}

fn parse(json: &str) -> Result<Value, Trouble> {
    serde_json::from_str(json).map_err(|e| Trouble::Wrong(format!("the header is no JSON: {e}")))
}

/// Options as a type: an unknown one is something that we do not support.
pub(super) fn read<T: serde::de::DeserializeOwned>(options: Value) -> Result<T, Trouble> {
    serde_json::from_value(options).map_err(|e| Trouble::Unsupported(e.to_string()))
}
