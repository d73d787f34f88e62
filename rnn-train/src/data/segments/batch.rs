//! A batch of segments, which saves their states.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::{Backend, Error, Result, Tensor};
use rnn_core::StateSaver;

use crate::data::pad::Batch;

/// The states saved after a segment.
pub(super) type Saved<B> = Vec<Option<Tensor<B>>>;

pub(super) fn lock<B: Backend>(saved: &Mutex<Saved<B>>) -> MutexGuard<'_, Saved<B>> {
    saved.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A batch of segments, each of another sequence. Clones share the states that are saved.
///
/// ```
/// use recurrent::data::{ByteStrings, Column, InMemory, Schema, SegmentSpec, Segments, Source};
/// use recurrent::{Device, StateSaver, Tensor};
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
/// let spec = SegmentSpec::new(key, 3, 1).sequence(x);
/// let zero = Tensor::zeros(&Device::cpu(), &[2])?;
/// let mut segments = Segments::new(sequences, spec, &[("h", zero)])?;
/// let mut first = segments.next_item()?.expect("two segments");
/// assert_eq!((first.lengths(), first.total_lengths()), (&[3i64][..], vec![5]));
/// first.save_state("h", first.state("h")?.add(1.0)?)?;
/// let second = segments.next_item()?.expect("two segments");
/// assert_eq!(second.lengths(), [2]);
/// assert_eq!(second.state("h")?.to_vec::<f32>()?, [1.0, 1.0]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SegmentBatch<B: Backend> {
    pub(super) batch: Batch,
    pub(super) lengths: Vec<i64>,
    pub(super) names: Arc<[String]>,
    pub(super) rows: Vec<Row<B>>,
}

#[derive(Clone)]
pub(super) struct Row<B: Backend> {
    pub(super) key: Vec<u8>,
    pub(super) next_key: Vec<u8>,
    pub(super) sequence: usize,
    pub(super) sequence_count: usize,
    pub(super) total_length: usize,
    pub(super) insertion_index: u64,
    pub(super) states: Vec<Tensor<B>>,
    pub(super) saved: Arc<Mutex<Saved<B>>>,
}

impl<B: Backend> fmt::Debug for SegmentBatch<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys().map(String::from_utf8_lossy);
        f.debug_struct("SegmentBatch")
            .field("keys", &keys.collect::<Vec<_>>())
            .field("lengths", &self.lengths)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> SegmentBatch<B> {
    /// The fields of the segments, padded: sequences are `[batch, unroll, ..]`.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Number of segments.
    pub fn batch_size(&self) -> usize {
        self.rows.len()
    }

    /// The steps of each segment without padding.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// The key of each segment, `00001_of_00003:key`: its number, counted from 0, the number of
    /// segments, and the sequence's key.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.rows.iter().map(|row| &row.key[..])
    }

    /// The key of the segment after each one; `STOP:key` after the last.
    pub fn next_keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.rows.iter().map(|row| &row.next_key[..])
    }

    /// The number of each segment in its sequence, counted from 0.
    pub fn sequences(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.sequence).collect()
    }

    /// The number of segments of each sequence.
    pub fn sequence_counts(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.sequence_count).collect()
    }

    /// The steps of each whole sequence without padding.
    pub fn total_lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.total_length).collect()
    }

    /// The number of each segment among all of the epoch, counted from 0.
    pub fn insertion_indices(&self) -> Vec<u64> {
        self.rows.iter().map(|row| row.insertion_index).collect()
    }

    fn index(&self, op: &'static str, name: &str) -> Result<usize> {
        let index = self.names.iter().position(|known| known == name);
        index.ok_or_else(|| {
            let problem = format!("is `{name}`, but the states are {:?}", self.names);
            Error::argument(op, "name", problem)
        })
    }
}

/// Saves into the batch that the reference is to: a loss that gets `&SegmentBatch` passes
/// `&mut &*batch` as the saver.
impl<B: Backend> StateSaver<B> for &SegmentBatch<B> {
    fn state(&self, name: &str) -> Result<Tensor<B>> {
        let index = self.index("state", name)?;
        let rows = self.rows.iter().map(|row| row.states[index].unsqueeze(0));
        let rows: Vec<Tensor<B>> = rows.collect::<Result<_>>()?;
        Tensor::concat(&rows.iter().collect::<Vec<_>>(), 0)
    }

    fn save_state(&mut self, name: &str, value: Tensor<B>) -> Result<()> {
        let index = self.index("save_state", name)?;
        let batch = self.rows.len();
        if value.dims().first() != Some(&batch) {
            let expected = format!("the batch has {batch} segments");
            return Err(Error::shape("save_state", name, value.shape(), expected));
        }
        for (i, row) in self.rows.iter().enumerate() {
            let state = value.detach().select(0, i)?;
            let like = &row.states[index];
            if state.meta() != like.meta() {
                let expected = format!("[{batch}, ..] of {:?} is needed", like.meta());
                return Err(Error::shape("save_state", name, value.shape(), expected));
            }
            lock(&row.saved)[index] = Some(state);
        }
        Ok(())
    }
}

impl<B: Backend> StateSaver<B> for SegmentBatch<B> {
    fn state(&self, name: &str) -> Result<Tensor<B>> {
        StateSaver::state(&self, name)
    }

    fn save_state(&mut self, name: &str, value: Tensor<B>) -> Result<()> {
        StateSaver::save_state(&mut &*self, name, value)
    }
}
