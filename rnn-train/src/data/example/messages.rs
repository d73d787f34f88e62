//! Whole messages, encoded and decoded by `prost`.

use std::collections::BTreeMap;

use backend_api::{Error, Result};
use prost::Message;

use crate::data::values::ByteStrings;

/// The messages of TensorFlow's `feature.proto` and `example.proto`.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BytesList {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub(super) value: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct FloatList {
        #[prost(float, repeated, tag = "1")]
        pub(super) value: Vec<f32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Int64List {
        #[prost(int64, repeated, tag = "1")]
        pub(super) value: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Feature {
        #[prost(oneof = "Kind", tags = "1, 2, 3")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Bytes(BytesList),
        #[prost(message, tag = "2")]
        Float(FloatList),
        #[prost(message, tag = "3")]
        Int64(Int64List),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Features {
        #[prost(message, repeated, tag = "1")]
        pub(super) feature: Vec<FeatureEntry>,
    }

    /// An entry of a map. Both fields are always written, as by Google's serializer: TensorFlow 2
    /// rejects an entry without one. `prost`'s own maps omit empty values.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct FeatureEntry {
        #[prost(string, optional, tag = "1")]
        pub(super) key: Option<String>,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<Feature>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ListEntry {
        #[prost(string, optional, tag = "1")]
        pub(super) key: Option<String>,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<FeatureList>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct FeatureList {
        #[prost(message, repeated, tag = "1")]
        pub(super) feature: Vec<Feature>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct FeatureLists {
        #[prost(message, repeated, tag = "1")]
        pub(super) feature_list: Vec<ListEntry>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Example {
        #[prost(message, optional, tag = "1")]
        pub(super) features: Option<Features>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SequenceExample {
        #[prost(message, optional, tag = "1")]
        pub(super) context: Option<Features>,
        #[prost(message, optional, tag = "2")]
        pub(super) feature_lists: Option<FeatureLists>,
    }
}

/// The values of one feature: TensorFlow's `tf.train.Feature`.
///
/// ```
/// use recurrent::data::Feature;
///
/// assert_eq!(Feature::from([1i64, 2]), Feature::Int64(vec![1, 2]));
/// assert_eq!(Feature::from(["word"]).len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Feature {
    /// No values, and no type.
    #[default]
    Unset,
    /// 64-bit integers.
    Int64(Vec<i64>),
    /// 32-bit floats.
    Float(Vec<f32>),
    /// Byte strings.
    Bytes(ByteStrings),
}

impl Feature {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Unset => 0,
            Self::Int64(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Bytes(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

macro_rules! feature_from {
    ($($rust:ty => $variant:ident),*) => {$(
        impl From<Vec<$rust>> for Feature {
            fn from(values: Vec<$rust>) -> Self {
                Self::$variant(values)
            }
        }

        impl From<&[$rust]> for Feature {
            fn from(values: &[$rust]) -> Self {
                Self::$variant(values.to_vec())
            }
        }

        impl<const N: usize> From<[$rust; N]> for Feature {
            fn from(values: [$rust; N]) -> Self {
                Self::$variant(values.to_vec())
            }
        }
    )*};
}

feature_from!(i64 => Int64, f32 => Float);

impl From<ByteStrings> for Feature {
    fn from(values: ByteStrings) -> Self {
        Self::Bytes(values)
    }
}

impl From<&str> for Feature {
    fn from(value: &str) -> Self {
        Self::Bytes([value].into_iter().collect())
    }
}

impl From<String> for Feature {
    fn from(value: String) -> Self {
        value.as_str().into()
    }
}

impl From<Vec<String>> for Feature {
    fn from(values: Vec<String>) -> Self {
        Self::Bytes(values.iter().collect())
    }
}

impl<'a, const N: usize> From<[&'a str; N]> for Feature {
    fn from(values: [&'a str; N]) -> Self {
        Self::Bytes(values.into_iter().collect())
    }
}

impl From<proto::Feature> for Feature {
    fn from(feature: proto::Feature) -> Self {
        match feature.kind {
            None => Self::Unset,
            Some(proto::Kind::Int64(list)) => Self::Int64(list.value),
            Some(proto::Kind::Float(list)) => Self::Float(list.value),
            Some(proto::Kind::Bytes(list)) => Self::Bytes(list.value.iter().collect()),
        }
    }
}

impl From<Feature> for proto::Feature {
    fn from(feature: Feature) -> Self {
        let kind = match feature {
            Feature::Unset => None,
            Feature::Int64(value) => Some(proto::Kind::Int64(proto::Int64List { value })),
            Feature::Float(value) => Some(proto::Kind::Float(proto::FloatList { value })),
            Feature::Bytes(strings) => {
                let value = strings.iter().map(<[u8]>::to_vec).collect();
                Some(proto::Kind::Bytes(proto::BytesList { value }))
            }
        };
        Self { kind }
    }
}

/// Named features of one sequence, and named lists with a feature for each step: TensorFlow's
/// `tf.train.SequenceExample`.
///
/// ```
/// use recurrent::data::{Feature, SequenceExample};
///
/// # fn main() -> recurrent::Result<()> {
/// let steps = [[0.1f32, 0.2], [0.3, 0.4]];
/// let example = SequenceExample::new()
///     .context("label", [3i64])
///     .feature_list("values", steps.map(Feature::from));
/// let bytes = example.to_bytes();
/// assert_eq!(SequenceExample::from_bytes(&bytes)?, example);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceExample {
    /// Features of the whole sequence.
    pub context: BTreeMap<String, Feature>,
    /// A feature for each step.
    pub feature_lists: BTreeMap<String, Vec<Feature>>,
}

impl SequenceExample {
    /// No features.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a feature of the whole sequence.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, feature: impl Into<Feature>) -> Self {
        self.context.insert(name.into(), feature.into());
        self
    }

    /// Adds a feature for each step.
    #[must_use]
    pub fn feature_list<F: Into<Feature>>(
        mut self,
        name: impl Into<String>,
        steps: impl IntoIterator<Item = F>,
    ) -> Self {
        let steps = steps.into_iter().map(Into::into).collect();
        self.feature_lists.insert(name.into(), steps);
        self
    }

    /// The encoded message: the content of a record.
    pub fn to_bytes(&self) -> Vec<u8> {
        let list = |(name, steps): (&String, &Vec<Feature>)| {
            let feature = steps.iter().cloned().map(Into::into).collect();
            proto::ListEntry {
                key: Some(name.clone()),
                value: Some(proto::FeatureList { feature }),
            }
        };
        proto::SequenceExample {
            context: features(&self.context),
            feature_lists: (!self.feature_lists.is_empty()).then(|| proto::FeatureLists {
                feature_list: self.feature_lists.iter().map(list).collect(),
            }),
        }
        .encode_to_vec()
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// [`Error::Argument`] if the bytes are not such a message.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let message = proto::SequenceExample::decode(bytes).map_err(|e| {
            let problem = format!("is not a SequenceExample: {e}");
            Error::argument("SequenceExample::from_bytes", "bytes", problem)
        })?;
        let steps = |list: proto::FeatureList| list.feature.into_iter().map(Into::into).collect();
        let lists = message.feature_lists.unwrap_or_default().feature_list;
        Ok(Self {
            context: from_features(message.context),
            feature_lists: lists
                .into_iter()
                .map(|entry| {
                    let list = entry.value.unwrap_or_default();
                    (entry.key.unwrap_or_default(), steps(list))
                })
                .collect(),
        })
    }
}

/// Named features: TensorFlow's `tf.train.Example`.
///
/// ```
/// use recurrent::data::Example;
///
/// # fn main() -> recurrent::Result<()> {
/// let example = Example::new().feature("x", [0.5f32, 1.5]).feature("word", ["to"]);
/// assert_eq!(Example::from_bytes(&example.to_bytes())?, example);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// The features.
    pub features: BTreeMap<String, Feature>,
}

impl Example {
    /// No features.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a feature.
    #[must_use]
    pub fn feature(mut self, name: impl Into<String>, feature: impl Into<Feature>) -> Self {
        self.features.insert(name.into(), feature.into());
        self
    }

    /// The encoded message: the content of a record.
    pub fn to_bytes(&self) -> Vec<u8> {
        let features = features(&self.features);
        proto::Example { features }.encode_to_vec()
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// [`Error::Argument`] if the bytes are not such a message.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let message = proto::Example::decode(bytes).map_err(|e| {
            let problem = format!("is not an Example: {e}");
            Error::argument("Example::from_bytes", "bytes", problem)
        })?;
        Ok(Self {
            features: from_features(message.features),
        })
    }
}

fn features(features: &BTreeMap<String, Feature>) -> Option<proto::Features> {
    let owned = |(name, feature): (&String, &Feature)| proto::FeatureEntry {
        key: Some(name.clone()),
        value: Some(feature.clone().into()),
    };
    (!features.is_empty()).then(|| proto::Features {
        feature: features.iter().map(owned).collect(),
    })
}

fn from_features(features: Option<proto::Features>) -> BTreeMap<String, Feature> {
    let features = features.unwrap_or_default().feature;
    features
        .into_iter()
        .map(|entry| {
            let feature = entry.value.unwrap_or_default();
            (entry.key.unwrap_or_default(), feature.into())
        })
        .collect()
}
