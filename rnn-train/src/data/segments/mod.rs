//! TensorFlow's `batch_sequences_with_states`: long sequences in segments, with saved states.

mod batch;
mod spec;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use backend_api::{Backend, Error, Result, Tensor};

use super::lookahead::Lookahead;
use super::sample::Sample;
use super::source::Source;
use batch::{Row, Saved, lock};
use spec::OP;
use state::{OpenState, StoredTensor};

pub use batch::SegmentBatch;
pub use spec::SegmentSpec;
pub use state::SegmentsState;

/// Long sequences in segments of a fixed number of steps, with states carried from each segment of
/// a sequence to the next: TensorFlow's `batch_sequences_with_states`.
///
/// A batch has the next segment of each of `batch_size` sequences. It is a
/// [`StateSaver`](rnn_core::StateSaver) for `static_state_saving_rnn`, and so is a reference to
/// one. The caller must save every state of a batch before it asks for the next batch; otherwise
/// `next_item` returns an error, and then yields the segments again. Sequences that were read
/// earlier are served first. An epoch ends when all segments of all sequences have been yielded.
///
/// A state of the source holds the saved states, so that a run resumes in the middle of sequences.
/// A [`Prefetch`](super::Prefetch) must come before this source: the next batch needs the saved
/// states of the last one.
///
/// ```
/// use recurrent::data::{ByteStrings, Column, InMemory, Schema, SegmentSpec, Segments, Source};
/// use recurrent::{BasicRnnCell, Device, StateSaver, StaticRnn, Tensor, static_state_saving_rnn};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut schema = Schema::new();
/// let key = schema.add::<ByteStrings>("key")?;
/// let x = schema.add::<f32>("x")?;
/// let sequence = |name: &str, steps: usize| {
///     let key = Column::scalar::<ByteStrings>(name.into());
///     schema.sample(vec![key, Column::new(&[steps, 2], vec![0.5f32; steps * 2])?])
/// };
/// let sequences = InMemory::new(vec![sequence("a", 5)?, sequence("b", 3)?])?;
///
/// let cell = BasicRnnCell::new(&device, 2, 4)?;
/// let zero = Tensor::from_slice(&device, &[0.0f32; 4], &[4])?;
/// let spec = SegmentSpec::new(key, 3, 2).sequence(x);
/// let mut segments = Segments::new(sequences, spec, &[("h", zero)])?;
/// while let Some(mut segment) = segments.next_item()? {
///     let x = segment.batch().tensor(&device, x)?; // [batch, 3, 2]
///     let steps: Vec<_> = (0..3).map(|t| x.select(1, t)).collect::<Result<_, _>>()?;
///     let rnn = StaticRnn::new(&cell).sequence_length(segment.lengths());
///     static_state_saving_rnn(rnn, &cell, &steps, &mut segment, &["h"])?;
/// }
/// # Ok(()) }
/// ```
pub struct Segments<S: Source, B: Backend> {
    ahead: Lookahead<S>,
    spec: SegmentSpec,
    names: Arc<[String]>,
    initial: Vec<Tensor<B>>,
    /// Sequences with segments left, by their number in the epoch.
    open: BTreeMap<u64, OpenSequence<B>>,
    /// Sequences read in this epoch.
    read: u64,
    /// Segments of all of them.
    inserted: u64,
}

impl<S: Source, B: Backend> fmt::Debug for Segments<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segments")
            .field("spec", &self.spec)
            .field("states", &self.names)
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

/// A sequence with segments left.
struct OpenSequence<B: Backend> {
    /// The number of its sample in the lookahead.
    sample: u64,
    key: Vec<u8>,
    /// Steps without padding.
    total: usize,
    /// Number of segments.
    count: usize,
    /// The insertion index of the first one.
    first: u64,
    /// The next segment, or the one that was yielded.
    segment: usize,
    states: Vec<Tensor<B>>,
    /// The states after the segment that was yielded.
    yielded: Option<Arc<Mutex<Saved<B>>>>,
}

impl<B: Backend> OpenSequence<B> {
    /// The states after the segment that was yielded, if all of them were saved.
    fn saved(&self) -> Option<Vec<Tensor<B>>> {
        lock(self.yielded.as_ref()?).iter().cloned().collect()
    }

    fn is_ready(&self) -> bool {
        self.yielded.is_none()
    }
}

impl<S: Source<Item = Sample>, B: Backend> Segments<S, B> {
    /// Segments of the sequences of `source`. Each sequence starts from the `initial_states`, which
    /// have a name and no batch axis.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no states, two states have one name, no field is cut, or a
    /// size is 0.
    pub fn new(source: S, spec: SegmentSpec, initial_states: &[(&str, Tensor<B>)]) -> Result<Self> {
        spec.check()?;
        if initial_states.is_empty() {
            return Err(Error::argument(OP, "initial_states", "must not be empty"));
        }
        for (i, (name, _)) in initial_states.iter().enumerate() {
            if initial_states[..i].iter().any(|(other, _)| other == name) {
                let problem = format!("has `{name}` twice");
                return Err(Error::argument(OP, "initial_states", problem));
            }
        }
        let names = initial_states.iter().map(|(name, _)| (*name).to_owned());
        Ok(Self {
            ahead: Lookahead::new(source),
            spec,
            names: names.collect(),
            initial: initial_states.iter().map(|(_, t)| t.detach()).collect(),
            open: BTreeMap::new(),
            read: 0,
            inserted: 0,
        })
    }

    /// Moves on to the next segments where the states were saved.
    fn advance(&mut self) -> Result<()> {
        let mut finished = Vec::new();
        let mut unsaved = None;
        for (number, open) in &mut self.open {
            let saved = open.saved();
            if open.yielded.take().is_some() {
                match saved {
                    Some(states) => {
                        open.states = states;
                        open.segment += 1;
                    }
                    None => unsaved = Some(segment_key(open.segment, open.count, &open.key)),
                }
            }
            if open.segment == open.count {
                finished.push(*number);
            }
        }
        for number in finished {
            if let Some(open) = self.open.remove(&number) {
                self.ahead.take(open.sample);
            }
        }
        match unsaved {
            None => Ok(()),
            Some(key) => {
                let key = String::from_utf8_lossy(&key);
                let problem = format!("of segment `{key}` were not saved");
                Err(Error::argument(OP, "states", problem))
            }
        }
    }

    /// Reads a sequence; `false` at the end of the epoch.
    fn read(&mut self) -> Result<bool> {
        let Some(sample) = self.ahead.read()? else {
            return Ok(false);
        };
        let number = self.read;
        self.read = self.read.wrapping_add(1);
        let opened = self.open_sample(sample, number, &self.open);
        match opened {
            Ok(Some(open)) => {
                self.inserted = self.inserted.wrapping_add(open.count as u64);
                self.open.insert(number, open);
            }
            // A sequence without steps has no segments.
            Ok(None) => {
                self.ahead.take(sample);
            }
            Err(error) => {
                self.ahead.take(sample);
                return Err(error);
            }
        }
        Ok(true)
    }

    /// The sequence of a sample, beside others that are open; `None` if it has no steps.
    fn open_sample(
        &self,
        sample: u64,
        number: u64,
        others: &BTreeMap<u64, OpenSequence<B>>,
    ) -> Result<Option<OpenSequence<B>>> {
        let spec = &self.spec;
        let Some(sequence) = self.ahead.get(sample) else {
            return Ok(None);
        };
        let keys = sequence.get(spec.key)?;
        if keys.len() != 1 {
            let problem = format!("has {} values, but must have 1", keys.len());
            return Err(Error::argument(OP, "key", problem));
        }
        let mut key = keys.get(0).unwrap_or_default().to_vec();
        let shown = String::from_utf8_lossy(&key).into_owned();
        let refuse = |arg: &str, problem: String| {
            Err(Error::argument(
                OP,
                format!("{arg} of sequence `{shown}`"),
                problem,
            ))
        };
        let mut steps = None;
        for &(schema, index) in &spec.sequences {
            let column = sequence.columns().get(index);
            let Some(column) = column.filter(|_| sequence.schema().has((schema, index))) else {
                return refuse("sequences", "have a field of another schema".into());
            };
            column.check_dense(OP)?;
            let found = column.len();
            if column.dims().is_empty() || steps.is_some_and(|steps| steps != found) {
                let problem = match steps {
                    Some(steps) => format!("have {steps} and {found} steps"),
                    None => "need an axis of steps".to_owned(),
                };
                return refuse("sequences", problem);
            }
            steps = Some(found);
        }
        let steps = steps.unwrap_or(0);
        if !spec.pad_last && (steps == 0 || steps % spec.unroll != 0) {
            let problem = format!(
                "is {steps}, but must be a positive multiple of {}",
                spec.unroll
            );
            return refuse("length", problem);
        }
        let count = steps.div_ceil(spec.unroll);
        let total = match spec.length {
            None => steps,
            Some(field) => {
                let &[length] = sequence.get(field)? else {
                    return refuse("length", "must have exactly one value".into());
                };
                let padded = count * spec.unroll;
                match usize::try_from(length).ok().filter(|&n| n <= padded) {
                    Some(length) => length,
                    None => {
                        let problem = format!("is {length}, but the sequences have {padded} steps");
                        return refuse("length", problem);
                    }
                }
            }
        };
        if spec.unique_keys {
            key.extend_from_slice(format!(":{number}").as_bytes());
        } else if others.values().any(|open| open.key == key) {
            return refuse("key", "is also the key of another open sequence".into());
        }
        Ok((count > 0).then(|| OpenSequence {
            sample,
            key,
            total,
            count,
            first: self.inserted,
            segment: 0,
            states: self.initial.clone(),
            yielded: None,
        }))
    }

    /// The segment of a sequence that is next.
    fn cut(&self, open: &OpenSequence<B>) -> Result<Sample> {
        let Some(sequence) = self.ahead.get(open.sample) else {
            return Err(Error::argument(OP, "sequence", "is not buffered"));
        };
        let (schema, unroll) = (sequence.schema(), self.spec.unroll);
        let start = open.segment * unroll;
        let end = start.checked_add(unroll).ok_or_else(|| {
            Error::argument(OP, "unroll", format!("is {unroll}, which is too large"))
        })?;
        let columns = sequence
            .columns()
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let field = schema.key(index);
                match self.spec.sequences.contains(&field) {
                    true => column.steps(start, end, &self.spec.pad.padding(field, column.kind())),
                    false => Ok(column.clone()),
                }
            });
        Ok(schema.sample_of(columns.collect::<Result<_>>()?))
    }

    /// Yields the next segments of some sequences.
    fn yield_batch(&mut self, numbers: &[u64]) -> Result<SegmentBatch<B>> {
        let unroll = self.spec.unroll;
        let mut samples = Vec::with_capacity(numbers.len());
        let mut rows = Vec::with_capacity(numbers.len());
        let mut lengths = Vec::with_capacity(numbers.len());
        for open in numbers.iter().filter_map(|number| self.open.get(number)) {
            samples.push(self.cut(open)?);
            lengths.push(open.total.saturating_sub(open.segment * unroll).min(unroll) as i64);
            let (segment, count) = (open.segment, open.count);
            rows.push(Row {
                key: segment_key(segment, count, &open.key),
                next_key: match segment + 1 == count {
                    true => [b"STOP:", &open.key[..]].concat(),
                    false => segment_key(segment + 1, count, &open.key),
                },
                sequence: segment,
                sequence_count: count,
                total_length: open.total,
                insertion_index: open.first + segment as u64,
                states: open.states.clone(),
                saved: Arc::new(Mutex::new(vec![None; self.names.len()])),
            });
        }
        let batch = self.spec.pad.pad(&samples)?;
        for (number, row) in numbers.iter().zip(&rows) {
            if let Some(open) = self.open.get_mut(number) {
                open.yielded = Some(row.saved.clone());
            }
        }
        Ok(SegmentBatch {
            batch,
            lengths,
            names: self.names.clone(),
            rows,
        })
    }

    /// The open sequences of a state, of samples that were read again.
    fn reopen(
        &self,
        state: &[OpenState<B>],
        held: &[u64],
        states: Vec<Vec<Tensor<B>>>,
        (read, inserted): (u64, u64),
    ) -> Result<BTreeMap<u64, OpenSequence<B>>> {
        let other = || Error::argument("restore", "state", "is of other sequences");
        if held.len() != state.len() {
            return Err(other());
        }
        let mut open: BTreeMap<u64, OpenSequence<B>> = BTreeMap::new();
        for ((saved, &sample), states) in state.iter().zip(held).zip(states) {
            let sequence = self.open_sample(sample, saved.number, &open)?;
            let mut sequence = sequence.ok_or_else(other)?;
            let in_order = open
                .last_key_value()
                .is_none_or(|(last, _)| *last < saved.number);
            let after = saved.first.checked_add(sequence.count as u64);
            if !in_order || saved.number >= read || after.is_none_or(|after| after > inserted) {
                return Err(other());
            }
            let segment = usize::try_from(saved.segment).ok();
            sequence.segment = segment.filter(|&s| s < sequence.count).ok_or_else(other)?;
            sequence.first = saved.first;
            sequence.states = states;
            open.insert(saved.number, sequence);
        }
        Ok(open)
    }
}

fn segment_key(segment: usize, count: usize, key: &[u8]) -> Vec<u8> {
    [format!("{segment:05}_of_{count:05}:").as_bytes(), key].concat()
}

impl<S: Source<Item = Sample>, B: Backend> Source for Segments<S, B> {
    type Item = SegmentBatch<B>;
    type State = SegmentsState<S::State, B>;

    fn next_item(&mut self) -> Result<Option<SegmentBatch<B>>> {
        self.advance()?;
        let mut ended = false;
        loop {
            let ready = self.open.iter().filter(|(_, open)| open.is_ready());
            let ready: Vec<u64> = ready
                .map(|(number, _)| *number)
                .take(self.spec.batch_size)
                .collect();
            let small_is_enough = ended && self.spec.allow_small_batch && !ready.is_empty();
            if ready.len() == self.spec.batch_size || small_is_enough {
                return self.yield_batch(&ready).map(Some);
            }
            if ended {
                self.open.clear();
                self.ahead.begin();
                (self.read, self.inserted) = (0, 0);
                return Ok(None);
            }
            ended = !self.read()?;
        }
    }

    /// The position. A segment whose states were not all saved counts as one that was not yielded.
    fn state(&self) -> Self::State {
        let mut held = Vec::new();
        let mut open = Vec::new();
        for (number, sequence) in &self.open {
            let saved = sequence.saved();
            let segment = sequence.segment + usize::from(saved.is_some());
            if segment < sequence.count {
                let states = saved.as_ref().unwrap_or(&sequence.states);
                held.push(sequence.sample);
                open.push(OpenState {
                    number: *number,
                    first: sequence.first,
                    segment: segment as u64,
                    states: states.iter().cloned().map(StoredTensor::Device).collect(),
                });
            }
        }
        SegmentsState {
            unroll: self.spec.unroll as u64,
            batch_size: self.spec.batch_size as u64,
            names: self.names.to_vec(),
            ahead: self.ahead.state(held.into_iter()),
            open,
            read: self.read,
            inserted: self.inserted,
        }
    }

    fn restore(&mut self, state: Self::State) -> Result<()> {
        let (unroll, batch_size) = (self.spec.unroll, self.spec.batch_size);
        if state.unroll != unroll as u64
            || state.batch_size != batch_size as u64
            || state.names[..] != self.names[..]
        {
            let problem = format!(
                "is of segments of {} steps in batches of {} with states {:?}, but this source has \
                 {unroll}, {batch_size} and {:?}",
                state.unroll, state.batch_size, state.names, self.names
            );
            return Err(Error::argument("restore", "state", problem));
        }
        let mut states = Vec::new();
        for open in &state.open {
            let stored = open.states.iter().zip(&self.initial);
            let found: Vec<Tensor<B>> = stored
                .map(|(stored, initial)| stored.tensor(initial))
                .collect::<Result<_>>()?;
            if found.len() != self.names.len() || open.states.len() != self.names.len() {
                return Err(Error::argument(
                    "restore",
                    "state",
                    "has no state for one of the sequences",
                ));
            }
            states.push(found);
        }
        let before = self.ahead.state(self.open.values().map(|open| open.sample));
        let held = self.ahead.restore(state.ahead)?;
        match self.reopen(&state.open, &held, states, (state.read, state.inserted)) {
            Ok(open) => {
                self.open = open;
                (self.read, self.inserted) = (state.read, state.inserted);
                Ok(())
            }
            Err(error) => {
                let held = self.ahead.restore(before)?;
                for (open, sample) in self.open.values_mut().zip(held) {
                    open.sample = sample;
                }
                Err(error)
            }
        }
    }
}
