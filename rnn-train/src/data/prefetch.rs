//! Reading ahead in a thread.

use std::any::Any;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use backend_api::{Error, Result};

use super::source::Source;

/// The most items that can be read ahead: the channel has a slot for each from the start.
const MAX_ITEMS: usize = 1 << 16;

/// A source that a separate thread reads ahead; see
/// [`SourceExt::prefetch`](super::SourceExt::prefetch).
///
/// The thread holds at most the number of items given to `prefetch` plus the one that it is waiting
/// to send, each with the state of the source after it. Behind a large shuffle buffer, whose state
/// is large, prefetch groups rather than single items. The consumer receives an error of the source
/// at its position among the items; a panic of the source becomes an [`Error::Failed`].
///
/// Dropping a `Prefetch` ends its thread as soon as the current read returns. `restore` waits for
/// the current read, so a source that waits for another thread, such as one that takes from a
/// queue, must not wait for the caller.
///
/// ```
/// use recurrent::data::{InOrder, Prefetch, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// // The thread squares the next items while the caller uses the first.
/// let mut ahead: Prefetch<_> = InOrder::new(1..4).map(|n| Ok(n * n)).prefetch(2)?;
/// assert_eq!(ahead.next_item()?, Some(1));
/// assert_eq!(ahead.next_item()?, Some(4));
/// // What the thread has read ahead does not count.
/// assert_eq!(ahead.state(), 2);
/// # Ok(()) }
/// ```
pub struct Prefetch<S: Source> {
    capacity: usize,
    /// The position after the last item yielded.
    state: S::State,
    items_per_epoch: Option<u64>,
    worker: Option<Worker<S>>,
}

struct Worker<S: Source> {
    ready: Receiver<(Result<Option<S::Item>>, S::State)>,
    thread: JoinHandle<S>,
}

impl<S: Source> fmt::Debug for Prefetch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefetch")
            .field("capacity", &self.capacity)
            .field("running", &self.worker.is_some())
            .finish_non_exhaustive()
    }
}

impl<S> Prefetch<S>
where
    S: Source + Send + 'static,
    S::Item: Send,
    S::State: Send,
{
    pub(super) fn new(source: S, items: usize) -> Result<Self> {
        if items == 0 || items > MAX_ITEMS {
            let problem = format!("is {items}, but must be 1 to {MAX_ITEMS}");
            return Err(Error::argument("prefetch", "items", problem));
        }
        Ok(Self {
            capacity: items,
            state: source.state(),
            items_per_epoch: source.items_per_epoch(),
            worker: Some(Worker::start(source, items)?),
        })
    }

    /// Stops the thread and returns the source, whose position includes the items that were read
    /// but not yielded.
    ///
    /// # Errors
    /// [`Error::Failed`] if the source panicked.
    fn stop(&mut self) -> Result<S> {
        let Some(worker) = self.worker.take() else {
            return Err(failed("the source panicked before"));
        };
        drop(worker.ready);
        worker
            .thread
            .join()
            .map_err(|panic| failed(&message(&*panic)))
    }
}

impl<S> Worker<S>
where
    S: Source + Send + 'static,
    S::Item: Send,
    S::State: Send,
{
    fn start(source: S, items: usize) -> Result<Self> {
        let (send, ready) = sync_channel(items);
        let read = move || read_ahead(source, &send);
        let thread = thread::Builder::new().name("prefetch".into()).spawn(read);
        let thread = thread.map_err(|e| failed(&e.to_string()))?;
        Ok(Self { ready, thread })
    }
}

/// Reads until the receiver is dropped.
fn read_ahead<S: Source>(
    mut source: S,
    send: &SyncSender<(Result<Option<S::Item>>, S::State)>,
) -> S {
    loop {
        let item = source.next_item();
        let state = source.state();
        if send.send((item, state)).is_err() {
            return source;
        }
    }
}

fn failed(problem: &str) -> Error {
    Error::Failed {
        device: "prefetch".into(),
        action: "reading ahead",
        problem: problem.into(),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!(
        "the source panicked: {}",
        text.unwrap_or_else(|| "no message".into())
    )
}

impl<S> Source for Prefetch<S>
where
    S: Source + Send + 'static,
    S::Item: Send,
    S::State: Send,
{
    type Item = S::Item;
    type State = S::State;

    fn next_item(&mut self) -> Result<Option<S::Item>> {
        let next = self.worker.as_ref().map(|worker| worker.ready.recv());
        match next {
            Some(Ok((item, state))) => {
                self.state = state;
                item
            }
            // The thread sends for as long as the receiver exists, so it has panicked.
            _ => match self.stop() {
                Ok(_) => Err(failed("the thread ended")),
                Err(error) => Err(error),
            },
        }
    }

    fn state(&self) -> S::State {
        self.state.clone()
    }

    fn restore(&mut self, state: S::State) -> Result<()> {
        let mut source = self.stop()?;
        let result = match source.restore(state) {
            Ok(()) => {
                self.state = source.state();
                Ok(())
            }
            Err(error) => source.restore(self.state.clone()).and(Err(error)),
        };
        self.worker = Some(Worker::start(source, self.capacity)?);
        result
    }

    fn items_per_epoch(&self) -> Option<u64> {
        self.items_per_epoch
    }
}
