//! Record files, examples, and sources that can be resumed.

mod damage;
mod queue;
mod resume;
mod segments;
mod threads;
mod training;

use std::path::{Path, PathBuf};

use rnn_train::data::{
    ByteStrings, Compression, ExampleSpec, Feature, Field, FixedLen, FixedLenSequence,
    RecordWriter, SequenceExample, VarLen,
};

/// Numbers that look random, by Knuth's linear congruential generator.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.0 >> 33
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// The features of [`example`].
pub(crate) struct Features {
    pub(crate) spec: ExampleSpec,
    pub(crate) key: Field<ByteStrings>,
    pub(crate) label: Field<i64>,
    pub(crate) tokens: Field<i64>,
    pub(crate) values: Field<f32>,
    pub(crate) tags: Field<i64>,
}

pub(crate) fn features() -> Features {
    let mut spec = ExampleSpec::new();
    let key = FixedLen::<ByteStrings>::new("key", &[]);
    let tokens = FixedLenSequence::<i64>::new("tokens", &[]);
    let values = FixedLenSequence::<f32>::new("values", &[2]);
    Features {
        key: spec.context(key).unwrap(),
        label: spec.context(FixedLen::<i64>::new("label", &[])).unwrap(),
        tokens: spec.sequence(tokens).unwrap(),
        values: spec.sequence(values).unwrap(),
        tags: spec.sequence(VarLen::<i64>::new("tags")).unwrap(),
        spec,
    }
}

/// Example `i`, of 1 to 9 steps.
pub(crate) fn example(i: usize) -> SequenceExample {
    let steps = 1 + i * 5 % 9;
    let tags = |t: usize| Feature::Int64((0..(i + t) % 4).map(|k| k as i64 - 1).collect());
    SequenceExample::new()
        .context(
            "key",
            Feature::Bytes([format!("k{i}")].into_iter().collect()),
        )
        .context("label", [i as i64 % 3])
        .context("passed over", [1.5f32])
        .feature_list("tokens", (0..steps).map(|t| [(100 * i + t) as i64]))
        .feature_list("values", (0..steps).map(|t| [i as f32, t as f32 * 0.5]))
        .feature_list("tags", (0..steps).map(tags))
}

/// Writes examples `range` to a file.
pub(crate) fn write(
    folder: &Path,
    name: &str,
    compression: Compression,
    range: std::ops::Range<usize>,
) -> PathBuf {
    let path = folder.join(name);
    let mut writer = RecordWriter::create(&path, compression).unwrap();
    range.for_each(|i| writer.write(&example(i).to_bytes()).unwrap());
    writer.finish().unwrap();
    path
}

pub(crate) const COMPRESSIONS: [Compression; 3] =
    [Compression::Plain, Compression::Gzip, Compression::Zlib];
