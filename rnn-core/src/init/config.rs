//! Deserializes initializers from JSON.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

use super::{Fan, Initializer, Scaled};

/// Initializers with TensorFlow's names, arguments and defaults.
#[derive(serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Named {
    // With braces, serde rejects unknown fields; without, it would ignore them.
    Zeros {},
    Ones {},
    Constant {
        #[serde(default)]
        value: f64,
    },
    RandomUniform {
        #[serde(default)]
        minval: f64,
        #[serde(default = "one")]
        maxval: f64,
    },
    RandomNormal {
        #[serde(default)]
        mean: f64,
        #[serde(default = "one")]
        stddev: f64,
    },
    TruncatedNormal {
        #[serde(default)]
        mean: f64,
        #[serde(default = "one")]
        stddev: f64,
    },
    GlorotUniform {},
    GlorotNormal {},
    VarianceScaling {
        #[serde(default = "one")]
        scale: f64,
        #[serde(default)]
        mode: Fan,
        #[serde(default)]
        distribution: Scaled,
    },
    Orthogonal {
        #[serde(default = "one")]
        gain: f64,
    },
    Identity {
        #[serde(default = "one")]
        gain: f64,
    },
}

fn one() -> f64 {
    1.0
}

impl<'de> Deserialize<'de> for Initializer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let options = match Value::deserialize(from)? {
            Value::String(name) => serde_json::json!({ "type": name }),
            options => options,
        };
        let named = Named::deserialize(options).map_err(D::Error::custom)?;
        Ok(match named {
            Named::Zeros {} => Self::ZEROS,
            Named::Ones {} => Self::ONES,
            Named::Constant { value } => Self::Constant(value),
            Named::RandomUniform { minval, maxval } => Self::Uniform {
                low: minval,
                high: maxval,
            },
            Named::RandomNormal { mean, stddev } => Self::Normal { mean, std: stddev },
            Named::TruncatedNormal { mean, stddev } => Self::TruncatedNormal { mean, std: stddev },
            Named::GlorotUniform {} => Self::GlorotUniform,
            Named::GlorotNormal {} => Self::GlorotNormal,
            Named::VarianceScaling {
                scale,
                mode,
                distribution,
            } => Self::VarianceScaling {
                scale,
                mode,
                distribution,
            },
            Named::Orthogonal { gain } => Self::Orthogonal { gain },
            Named::Identity { gain } => Self::Identity { gain },
        })
    }
}
