//! `tf.Example` and `tf.SequenceExample`: named features as protobuf messages.
//!
//! [`Example`] and [`SequenceExample`] hold a whole message, to build and write one.
//! [`ExampleSpec`] reads the features that a program needs straight into columns.

mod messages;
mod parse;
mod spec;
mod wire;

pub use messages::{Example, Feature, SequenceExample};
pub use spec::{
    ContextFeature, ExampleSpec, FixedLen, FixedLenSequence, RecordType, SequenceFeature, VarLen,
};
