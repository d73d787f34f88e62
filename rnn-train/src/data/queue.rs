//! TensorFlow's `PaddingFIFOQueue`.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use backend_api::{Error, Result};

use super::pad::{Batch, Pad};
use super::sample::Sample;

/// A bounded first-in first-out queue of samples, shared by threads, that pads the samples that it
/// yields to batches: TensorFlow's `PaddingFIFOQueue`.
///
/// ```
/// use std::thread;
/// use recurrent::data::{Column, Pad, PaddingFifoQueue, Schema};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut schema = Schema::new();
/// let tokens = schema.add::<i64>("tokens")?;
/// let queue = PaddingFifoQueue::new(2, Pad::new())?;
/// thread::scope(|scope| {
///     scope.spawn(|| -> recurrent::Result<()> {
///         let _closing = queue.close_on_drop(); // also if this thread fails
///         for n in 1..=5 {
///             let column = Column::new(&[n], vec![n as i64; n])?;
///             queue.enqueue(schema.sample(vec![column])?)?; // waits while the queue is full
///         }
///         Ok(())
///     });
///     while let Some(batch) = queue.dequeue_up_to(2)? {
///         println!("{:?}", batch.column(tokens)?.dims());
///     }
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug)]
pub struct PaddingFifoQueue {
    capacity: usize,
    pad: Pad,
    state: Mutex<QueueState>,
    /// Signalled at every change.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    samples: VecDeque<Sample>,
    /// The form of the first sample, which all others must share.
    form: Option<SampleForm>,
    /// Consumers and producers are served in the order of their arrival.
    consumers: WaitQueue,
    producers: WaitQueue,
    closed: bool,
    /// The queue is closed, and waiting producers give up.
    cancelled: bool,
}

impl QueueState {
    /// Whether the queue is empty and no producer can add a sample.
    fn ended(&self) -> bool {
        self.samples.is_empty() && self.closed && self.producers.waiting.is_empty()
    }
}

/// The properties that all samples of a queue share: the schema, and the rank of each field.
#[derive(Clone, Debug, PartialEq)]
struct SampleForm(u64, Vec<usize>);

impl SampleForm {
    fn of(sample: &Sample) -> Self {
        let axes = sample.columns().iter().map(|column| column.dims().len());
        Self(sample.schema().id(), axes.collect())
    }
}

/// Threads waiting in the order of their arrival.
#[derive(Debug, Default)]
struct WaitQueue {
    next: u64,
    waiting: VecDeque<u64>,
}

impl WaitQueue {
    fn join(&mut self) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.waiting.push_back(ticket);
        ticket
    }

    fn is_first(&self, ticket: u64) -> bool {
        self.waiting.front() == Some(&ticket)
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|waiting| *waiting != ticket);
    }
}

impl PaddingFifoQueue {
    /// An empty queue that holds at most `capacity` samples and pads batches as `pad` says.
    ///
    /// # Errors
    /// [`Error::Argument`] if `capacity` is 0.
    pub fn new(capacity: usize, pad: Pad) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::argument(
                "PaddingFifoQueue",
                "capacity",
                "must not be 0",
            ));
        }
        Ok(Self {
            capacity,
            pad,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Appends a sample. Waits while the queue is full.
    ///
    /// # Errors
    /// [`Error::Argument`] if the queue is closed, or is closed with `cancel_pending` while this
    /// waits, or if the sample is of another schema than the first one or has other axes.
    pub fn enqueue(&self, sample: Sample) -> Result<()> {
        let refuse = |problem| Err(Error::argument("enqueue", "queue", problem));
        let form = SampleForm::of(&sample);
        let mut state = self.lock();
        let first = state.form.get_or_insert_with(|| form.clone());
        if *first != form {
            let problem = format!(
                "has axes {:?}, but the first sample had {:?}",
                form.1, first.1
            );
            return Err(Error::argument("enqueue", "sample", problem));
        }
        if state.closed {
            return refuse("is closed");
        }
        let ticket = state.producers.join();
        state = self.wait(state, |state| {
            let room = state.samples.len() < self.capacity;
            state.cancelled || (room && state.producers.is_first(ticket))
        });
        state.producers.leave(ticket);
        // The next producer checks again.
        self.changed.notify_all();
        if state.cancelled {
            return refuse("was closed, and waiting producers were cancelled");
        }
        state.samples.push_back(sample);
        Ok(())
    }

    /// Takes `count` samples as one batch. Waits for them while the queue is open. `None` if the
    /// queue is closed and has fewer, which stay in it.
    ///
    /// # Errors
    /// [`Error::Argument`] if `count` is 0, or the samples cannot be padded.
    pub fn dequeue_many(&self, count: usize) -> Result<Option<Batch>> {
        self.dequeue(count, count)
    }

    /// Takes `count` samples as one batch, or as many as are left once the queue is closed; `None`
    /// if none is.
    ///
    /// # Errors
    /// [`Error::Argument`] if `count` is 0, or the samples cannot be padded.
    pub fn dequeue_up_to(&self, count: usize) -> Result<Option<Batch>> {
        self.dequeue(count, 1)
    }

    fn dequeue(&self, count: usize, least: usize) -> Result<Option<Batch>> {
        if count == 0 {
            return Err(Error::argument("dequeue", "count", "must not be 0"));
        }
        let mut taken = Vec::new();
        let mut state = self.lock();
        let ticket = state.consumers.join();
        state = self.wait(state, |state| state.consumers.is_first(ticket));
        // Takes samples as they come, so that `count` may be more than the capacity.
        loop {
            let more = state.samples.len().min(count - taken.len());
            taken.extend(state.samples.drain(..more));
            self.changed.notify_all();
            if taken.len() == count || state.ended() {
                break;
            }
            state = self.wait(state, |state| !state.samples.is_empty() || state.ended());
        }
        if taken.len() < least {
            for sample in taken.drain(..).rev() {
                state.samples.push_front(sample);
            }
        }
        state.consumers.leave(ticket);
        self.changed.notify_all();
        drop(state);
        match taken.is_empty() {
            true => Ok(None),
            false => self.pad.pad(&taken).map(Some),
        }
    }

    /// Closes the queue: no sample can be enqueued, and the samples in it can still be dequeued.
    /// Producers that wait for room keep waiting, or fail if `cancel_pending` is set.
    pub fn close(&self, cancel_pending: bool) {
        let mut state = self.lock();
        state.closed = true;
        state.cancelled |= cancel_pending;
        self.changed.notify_all();
    }

    /// Closes the queue when the guard is dropped: at the end of the producer, however it ends.
    #[must_use = "the queue closes when the guard is dropped"]
    pub fn close_on_drop(&self) -> CloseOnDrop<'_> {
        CloseOnDrop(self)
    }

    /// Number of samples in the queue.
    pub fn len(&self) -> usize {
        self.lock().samples.len()
    }

    /// Whether there are no samples in the queue.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the queue is closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Nothing under the lock panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, QueueState>,
        ready: impl Fn(&QueueState) -> bool,
    ) -> MutexGuard<'a, QueueState> {
        let waited = self.changed.wait_while(state, |state| !ready(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a queue when it is dropped: see [`PaddingFifoQueue::close_on_drop`].
///
/// ```
/// use recurrent::data::{Pad, PaddingFifoQueue};
///
/// # fn main() -> recurrent::Result<()> {
/// let queue = PaddingFifoQueue::new(2, Pad::new())?;
/// {
///     let _closing = queue.close_on_drop(); // held by the thread that enqueues
///     assert!(!queue.is_closed());
/// }
/// assert!(queue.is_closed());
/// assert!(queue.dequeue_up_to(1)?.is_none()); // instead of waiting forever
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct CloseOnDrop<'a>(&'a PaddingFifoQueue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close(false);
    }
}
