//! How sequences are cut.

use backend_api::{Error, Result};

use crate::data::pad::Pad;
use crate::data::sample::Field;
use crate::data::values::{ByteStrings, ColumnType};

pub(super) const OP: &str = "batch_sequences_with_states";

/// How [`Segments`](super::Segments) cuts sequences.
///
/// ```
/// use recurrent::data::{ByteStrings, Column, InMemory, Schema, SegmentSpec, Segments, Source};
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut schema = Schema::new();
/// let key = schema.add::<ByteStrings>("key")?;
/// let x = schema.add::<f32>("x")?;
/// let columns = vec![
///     Column::scalar::<ByteStrings>("talk".into()),
///     Column::new(&[5], vec![0.5f32; 5])?,
/// ];
/// let sequences = InMemory::new(vec![schema.sample(columns)?])?;
/// // Segments of 3 steps; two sequences in a batch, or one at the end.
/// let spec = SegmentSpec::new(key, 3, 2).sequence(x).allow_small_batch(true);
/// let zero = Tensor::zeros(&Device::cpu(), &[2])?;
/// let mut segments = Segments::new(sequences, spec, &[("h", zero)])?;
/// let first = segments.next_item()?.expect("a segment");
/// assert_eq!(first.batch().column(x)?.dims(), [1, 3]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SegmentSpec {
    pub(super) key: Field<ByteStrings>,
    pub(super) length: Option<Field<i64>>,
    pub(super) unroll: usize,
    pub(super) batch_size: usize,
    pub(super) sequences: Vec<(u64, usize)>,
    pub(super) allow_small_batch: bool,
    pub(super) pad_last: bool,
    pub(super) unique_keys: bool,
    pub(super) pad: Pad,
}

impl SegmentSpec {
    /// Segments of `unroll` steps, in batches of `batch_size`. `key` names a sequence.
    pub fn new(key: Field<ByteStrings>, unroll: usize, batch_size: usize) -> Self {
        Self {
            key,
            length: None,
            unroll,
            batch_size,
            sequences: Vec::new(),
            allow_small_batch: true,
            pad_last: true,
            unique_keys: false,
            pad: Pad::new(),
        }
    }

    /// Cuts this field along its first axis. Each segment has a copy of the other fields.
    #[must_use]
    pub fn sequence<T: ColumnType>(mut self, field: Field<T>) -> Self {
        self.sequences.push(field.key());
        self
    }

    /// The field that has the number of steps, where the sequences are padded already.
    #[must_use]
    pub fn length(mut self, field: Field<i64>) -> Self {
        self.length = Some(field);
        self
    }

    /// The padding of the last segment of a sequence and of axes after the first: 0 unless this
    /// says otherwise.
    #[must_use]
    pub fn pad(mut self, pad: Pad) -> Self {
        self.pad = pad;
        self
    }

    /// Whether the last segment of a sequence is padded. It is unless this says otherwise; without
    /// padding every sequence must have a multiple of `unroll` steps.
    #[must_use]
    pub fn pad_last(mut self, pad: bool) -> Self {
        self.pad_last = pad;
        self
    }

    /// Whether a batch may be smaller once no sequences are left. It may unless this says
    /// otherwise; the segments that are left are dropped then.
    #[must_use]
    pub fn allow_small_batch(mut self, allow: bool) -> Self {
        self.allow_small_batch = allow;
        self
    }

    /// Appends the number of the sequence in the epoch to its key, for keys that occur twice.
    #[must_use]
    pub fn make_keys_unique(mut self) -> Self {
        self.unique_keys = true;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |arg: &str, problem: &str| Err(Error::argument(OP, arg, problem));
        match self {
            Self { unroll: 0, .. } => refuse("unroll", "must not be 0"),
            Self { batch_size: 0, .. } => refuse("batch_size", "must not be 0"),
            Self { sequences, .. } if sequences.is_empty() => {
                refuse("sequences", "must not be empty")
            }
            Self { sequences, .. }
                if (1..sequences.len()).any(|i| sequences[..i].contains(&sequences[i])) =>
            {
                refuse("sequences", "contain a field twice")
            }
            _ => Ok(()),
        }
    }
}
