//! Data input: record files, arrays, text and series, and the order in which training sees them.
//!
//! Everything here is in host memory. A reader yields samples, adapters shuffle, group and pad
//! them, and [`Batch::tensor`] puts a field of a batch on a device.
//!
//! | data | reader | yields |
//! | --- | --- | --- |
//! | TFRecord files of `SequenceExample`s | [`RecordFiles`], [`ExampleSpec`] | [`Sample`]s |
//! | arrays in memory | [`InMemory::from_arrays`] | [`Sample`]s |
//! | NumPy files, `.npy` and `.npz` | [`read_npy`], [`read_npz`] | [`Column`]s, named in `.npz` |
//! | CSV tables, one row a step | [`CsvSpec`] | [`Sample`]s |
//! | text, by line or paragraph | [`read_text`], [`WordVocabulary`] | [`Sample`]s |
//! | MNIST and other IDX files | [`Idx`] | items of [`Batches`], gathered by [`Idx::gather`] |
//! | text, by character or byte | [`Vocabulary`] | [`TextWindows`], rows that continue |
//! | a series of numbers | [`read_series`] | [`SeriesWindows`], gathered by [`Batches`] |
//!
//! [`Source`] is the trait of everything that yields items epoch by epoch, and [`SourceExt`] has
//! its adapters: [`parse`](SourceExt::parse), [`shuffle`](SourceExt::shuffle),
//! [`group`](SourceExt::group), [`pad`](SourceExt::pad), [`prefetch`](SourceExt::prefetch),
//! [`bucket_by_sequence_length`](SourceExt::bucket_by_sequence_length). Any of them can be saved in
//! the middle of an epoch and resumed.
//!
//! ```
//! use recurrent::data::{
//!     Compression, ExampleSpec, FixedLenSequence, Pad, RecordFiles, RecordWriter, Remainder,
//!     SequenceExample, Source, SourceExt,
//! };
//!
//! # fn main() -> recurrent::Result<()> {
//! let path = std::env::temp_dir().join("train.tfrecord");
//! let mut writer = RecordWriter::create(&path, Compression::Gzip)?;
//! for ids in [vec![7i64, 8, 9], vec![4]] {
//!     let steps = ids.into_iter().map(|id| [id]);
//!     writer.write(&SequenceExample::new().feature_list("tokens", steps).to_bytes())?;
//! }
//! writer.finish()?;
//!
//! let mut spec = ExampleSpec::new();
//! let tokens = spec.sequence(FixedLenSequence::<i64>::new("tokens", &[]))?;
//! let mut batches = RecordFiles::open([&path])?
//!     .parse(spec)
//!     .group(2, Remainder::Keep)?
//!     .pad(Pad::new())
//!     .prefetch(4)?;
//! while let Some(batch) = batches.next_item()? {
//!     assert_eq!(batch.get(tokens)?, [7, 8, 9, 4, 0, 0]);
//!     assert_eq!(batch.lengths(tokens)?, [3, 1]);
//! }
//! # Ok(()) }
//! ```

mod adapters;
mod arrays;
mod batches;
mod bucket;
mod column;
mod csv;
mod example;
mod gzip;
mod idx;
mod in_memory;
mod lines;
mod lookahead;
mod npy;
mod pad;
mod prefetch;
mod queue;
mod random;
mod record_files;
mod sample;
mod segments;
mod series;
mod shuffle;
mod source;
mod split;
mod text;
mod tfrecord;
mod values;

use backend_api::{Error, Result};

pub use adapters::{Filter, Map, SourceExt, Transform};
pub use arrays::{from_ndarray, to_ndarray};
pub use batches::{BatchState, Batches, Remainder};
pub use bucket::{Bucket, GroupState, Grouped};
pub use column::{Column, Sparse};
pub use csv::CsvSpec;
pub use example::{
    ContextFeature, Example, ExampleSpec, Feature, FixedLen, FixedLenSequence, RecordType,
    SequenceExample, SequenceFeature, VarLen,
};
pub use idx::Idx;
pub use in_memory::{InMemory, InMemoryState};
pub use lines::{TextUnit, WordVocabulary, parse_text, read_text};
pub use lookahead::LookaheadState;
pub use npy::{parse_npy, read_npy, read_npz, write_npy, write_npz, write_npz_compressed};
pub use pad::{Batch, Pad};
pub use prefetch::Prefetch;
pub use queue::{CloseOnDrop, PaddingFifoQueue};
pub use record_files::{Record, RecordFiles, RecordFilesState, files_with_extension};
pub use sample::{Field, Sample, Schema};
pub use segments::{SegmentBatch, SegmentSpec, Segments, SegmentsState};
pub use series::{Normalization, SeriesWindows, parse_series, read_series, wave, wave_series};
pub use shuffle::{Shuffle, ShuffleState};
pub use source::{InOrder, Source};
pub use split::{Split, SplitState};
pub use text::{Symbol, TextWindow, TextWindows, Vocabulary};
#[doc(hidden)]
pub use tfrecord::masked_crc;
pub use tfrecord::{Compression, RecordReader, RecordWriter};
pub use values::{ByteStrings, ColumnType, ValueKind, Values};

/// Splits off the last `1 / part` of `items`, rounded down: the first part is the past, for
/// training, the second the future, for validation.
///
/// # Errors
///
/// [`Error::Argument`] if `part` is 0.
///
/// ```
/// let months: Vec<u32> = (0..25).collect();
/// let (train, validation) = recurrent::data::split_tail(&months, 10)?;
/// assert_eq!((train.len(), validation), (23, &[23, 24][..]));
/// # Ok::<(), recurrent::Error>(())
/// ```
pub fn split_tail<T>(items: &[T], part: usize) -> Result<(&[T], &[T])> {
    match items.len().checked_div(part) {
        Some(tail) => Ok(items.split_at(items.len() - tail)),
        None => Err(Error::argument("split_tail", "part", "must not be 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_rounded_down_and_can_be_empty_or_everything() {
        assert_eq!(
            split_tail(&[1, 2, 3], 4).unwrap(),
            (&[1, 2, 3][..], &[][..])
        );
        assert_eq!(
            split_tail(&[1, 2, 3], 1).unwrap(),
            (&[][..], &[1, 2, 3][..])
        );
        assert!(split_tail(&[1], 0).is_err());
    }
}
