//! Where batches come from.

use backend_api::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data::{BatchState, Batches};

/// Batches, epoch after epoch, in an order that is a function of the state alone: what makes a
/// resumed run see what it would have seen.
pub trait Source {
    /// What the loss is computed from.
    type Batch;

    /// All it takes to go on from here.
    type State: Serialize + DeserializeOwned;

    /// The next batch of the epoch; `None` ends it, and the next call begins the next.
    ///
    /// # Errors
    /// The data cannot be read.
    fn next_batch(&mut self) -> Result<Option<Self::Batch>>;

    /// Where this is.
    fn state(&self) -> Self::State;

    /// Goes to where another was when it gave its [`state`](Self::state).
    ///
    /// # Errors
    /// No source like this one can have been there; nothing changes then.
    fn restore(&mut self, state: Self::State) -> Result<()>;

    /// Batches in an epoch, if that is known: for showing progress.
    fn batches_per_epoch(&self) -> Option<u64> {
        None
    }
}

/// Batches of indices of items, in a new order every epoch.
impl Source for Batches {
    type Batch = Vec<usize>;
    type State = BatchState;

    fn next_batch(&mut self) -> Result<Option<Vec<usize>>> {
        Ok(self.next())
    }

    fn state(&self) -> BatchState {
        self.state()
    }

    fn restore(&mut self, state: BatchState) -> Result<()> {
        self.restore(state)
    }

    fn batches_per_epoch(&self) -> Option<u64> {
        Some(self.per_epoch() as u64)
    }
}

/// The batches of an iterator, the same in every epoch: for data whose order matters, such as the windows
/// of a text.
///
/// ```
/// use rnn_train::training::{InOrder, Source};
///
/// # fn main() -> backend_api::Result<()> {
/// let mut source = InOrder::new(["a", "b"].into_iter());
/// assert_eq!(source.next_batch()?, Some("a"));
///
/// let mut resumed = InOrder::new(["a", "b"].into_iter());
/// resumed.restore(source.state())?;
/// assert_eq!(resumed.next_batch()?, Some("b"));
/// assert_eq!(resumed.next_batch()?, None);
/// assert_eq!(resumed.next_batch()?, Some("a"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct InOrder<I> {
    start: I,
    rest: I,
    taken: u64,
}

impl<I: Iterator + Clone> InOrder<I> {
    /// The batches that `batches` gives from where it is.
    pub fn new(batches: I) -> Self {
        Self {
            rest: batches.clone(),
            start: batches,
            taken: 0,
        }
    }
}

impl<I: Iterator + Clone> Source for InOrder<I> {
    type Batch = I::Item;
    /// Batches taken in this epoch.
    type State = u64;

    fn next_batch(&mut self) -> Result<Option<I::Item>> {
        let batch = self.rest.next();
        if batch.is_some() {
            self.taken += 1;
        } else {
            self.rest = self.start.clone();
            self.taken = 0;
        }
        Ok(batch)
    }

    fn state(&self) -> u64 {
        self.taken
    }

    fn restore(&mut self, taken: u64) -> Result<()> {
        let mut rest = self.start.clone();
        let there = match usize::try_from(taken) {
            Ok(0) => true,
            Ok(taken) => rest.nth(taken - 1).is_some(),
            Err(_) => false,
        };
        if !there {
            let problem = format!("is {taken}, but there are fewer batches");
            return Err(Error::argument("restore", "batches taken", problem));
        }
        self.rest = rest;
        self.taken = taken;
        Ok(())
    }

    fn batches_per_epoch(&self) -> Option<u64> {
        match self.start.size_hint() {
            (least, Some(most)) if least == most => Some(most as u64),
            _ => None,
        }
    }
}
