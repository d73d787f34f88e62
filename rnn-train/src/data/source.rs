//! The trait of everything that yields training data.

use backend_api::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Items, epoch after epoch, whose order is a function of the state alone.
///
/// Records, samples, groups of samples and batches all come from a `Source`, and the adapters of
/// [`SourceExt`](super::SourceExt) convert one into another, like those of [`Iterator`]. Every
/// source can be saved in the middle of an epoch: after restoring [`state`](Self::state), a run
/// yields the same items, bit for bit, as the interrupted one would have.
/// [`Trainer`](crate::training::Trainer) takes any source and saves its state in checkpoints.
///
/// ```
/// use recurrent::data::{InOrder, Remainder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let new = || InOrder::new(0..10).shuffle(4, 7)?.map(|n| Ok(n * n)).group(4, Remainder::Keep);
/// let mut source = new()?;
/// source.next_item()?;
/// let state = source.state(); // `Serialize`
///
/// let mut resumed = new()?;
/// resumed.restore(state)?;
/// assert_eq!(resumed.next_item()?, source.next_item()?);
/// # Ok(()) }
/// ```
pub trait Source {
    /// The type of the items.
    type Item;

    /// The position in the data.
    type State: Clone + Serialize + DeserializeOwned;

    /// The next item of the epoch; `None` ends it, and the next call begins the next one.
    ///
    /// # Errors
    /// The data cannot be read. The next call continues after the fault where that is possible.
    fn next_item(&mut self) -> Result<Option<Self::Item>>;

    /// Passes over the next item of the epoch, which another rank of a job computes
    /// ([`DataParallel`](crate::parallel::DataParallel)); `false` ends the epoch. What
    /// [`map`](super::SourceExt::map) and the like make of an item is left out.
    ///
    /// # Errors
    /// Those of [`next_item`](Self::next_item).
    fn skip_item(&mut self) -> Result<bool> {
        Ok(self.next_item()?.is_some())
    }

    /// The position: everything that another source over the same data needs to continue from here.
    fn state(&self) -> Self::State;

    /// Moves to the position `state`.
    ///
    /// # Errors
    /// `state` is of other data or of a source with other options, or the data cannot be read. The
    /// source stays where it was.
    fn restore(&mut self, state: Self::State) -> Result<()>;

    /// Items in an epoch if that is known, for showing progress.
    fn items_per_epoch(&self) -> Option<u64> {
        None
    }
}

/// The items of an iterator, the same in every epoch: for data whose order matters, such as the
/// windows of a text.
///
/// ```
/// use recurrent::data::{InOrder, Source};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut source = InOrder::new(["a", "b"].into_iter());
/// assert_eq!(source.next_item()?, Some("a"));
///
/// let mut resumed = InOrder::new(["a", "b"].into_iter());
/// resumed.restore(source.state())?;
/// assert_eq!(resumed.next_item()?, Some("b"));
/// assert_eq!(resumed.next_item()?, None);
/// assert_eq!(resumed.next_item()?, Some("a"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct InOrder<I> {
    start: I,
    rest: I,
    taken: u64,
}

impl<I: Iterator + Clone> InOrder<I> {
    /// The items that `items` yields from its current position. Their number must be finite.
    pub fn new(items: I) -> Self {
        Self {
            rest: items.clone(),
            start: items,
            taken: 0,
        }
    }
}

impl<I: Iterator + Clone> Source for InOrder<I> {
    type Item = I::Item;
    /// Items taken in this epoch.
    type State = u64;

    fn next_item(&mut self) -> Result<Option<I::Item>> {
        let item = self.rest.next();
        if item.is_some() {
            self.taken += 1;
        } else {
            self.rest = self.start.clone();
            self.taken = 0;
        }
        Ok(item)
    }

    fn state(&self) -> u64 {
        self.taken
    }

    fn restore(&mut self, taken: u64) -> Result<()> {
        let mut rest = self.start.clone();
        let enough = match usize::try_from(taken) {
            Ok(0) => true,
            Ok(taken) => rest.nth(taken - 1).is_some(),
            Err(_) => false,
        };
        if !enough {
            let problem = format!("is {taken}, but there are fewer items");
            return Err(Error::argument("restore", "items taken", problem));
        }
        self.rest = rest;
        self.taken = taken;
        Ok(())
    }

    fn items_per_epoch(&self) -> Option<u64> {
        match self.start.size_hint() {
            (least, Some(most)) if least == most => Some(most as u64),
            _ => None,
        }
    }
}
