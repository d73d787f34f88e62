//! Shuffling within a buffer.

use backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

use super::lookahead::{Lookahead, LookaheadState};
use super::random::SplitMix64;
use super::source::Source;

/// A source shuffled within a buffer: see [`SourceExt::shuffle`](super::SourceExt::shuffle).
///
/// Memory is that of the buffer's items. A buffer as large as the data makes every order equally
/// likely. A resumed run reads the items of the buffer again, so that a state is small.
///
/// ```
/// use recurrent::data::{InOrder, Shuffle, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut shuffled: Shuffle<_> = InOrder::new(0..100).shuffle(10, 7)?;
/// let mut epoch = Vec::new();
/// while let Some(item) = shuffled.next_item()? {
///     // A buffer of 10 items: the item at place `i` is one of the first `i + 10`.
///     assert!(item < epoch.len() + 10);
///     epoch.push(item);
/// }
/// assert!(!epoch.is_sorted());
/// epoch.sort();
/// assert!(epoch.into_iter().eq(0..100));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Shuffle<S: Source> {
    ahead: Lookahead<S>,
    buffer: usize,
    seed: u64,
    epoch: u64,
    random: SplitMix64,
    /// The numbers of the items in the buffer.
    slots: Vec<u64>,
}

/// The position of a [`Shuffle`].
///
/// ```
/// use recurrent::data::{InOrder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let new = || InOrder::new(0..100).shuffle(10, 7);
/// let mut shuffled = new()?;
/// shuffled.next_item()?;
/// let mut resumed = new()?;
/// resumed.restore(shuffled.state())?;
/// assert_eq!(resumed.next_item()?, shuffled.next_item()?);
/// // A buffer of another size would yield another order.
/// assert!(InOrder::new(0..100).shuffle(20, 7)?.restore(shuffled.state()).is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShuffleState<T> {
    buffer: u64,
    seed: u64,
    epoch: u64,
    random: u64,
    ahead: LookaheadState<T>,
}

impl<S: Source> Shuffle<S> {
    pub(super) fn new(source: S, buffer: usize, seed: u64) -> Result<Self> {
        if buffer == 0 {
            return Err(Error::argument("shuffle", "buffer", "must not be 0"));
        }
        Ok(Self {
            ahead: Lookahead::new(source),
            buffer,
            seed,
            epoch: 0,
            random: SplitMix64::of_epoch(seed, 0),
            slots: Vec::new(),
        })
    }
}

impl<S: Source> Source for Shuffle<S> {
    type Item = S::Item;
    type State = ShuffleState<S::State>;

    fn next_item(&mut self) -> Result<Option<S::Item>> {
        while self.slots.len() < self.buffer {
            match self.ahead.read()? {
                Some(number) => self.slots.push(number),
                None => break,
            }
        }
        if self.slots.is_empty() {
            self.ahead.begin();
            self.epoch = self.epoch.wrapping_add(1);
            self.random = SplitMix64::of_epoch(self.seed, self.epoch);
            return Ok(None);
        }
        let slot = self.random.below(self.slots.len() as u64) as usize;
        let number = self.slots.swap_remove(slot);
        Ok(self.ahead.take(number))
    }

    fn state(&self) -> Self::State {
        ShuffleState {
            buffer: self.buffer as u64,
            seed: self.seed,
            epoch: self.epoch,
            random: self.random.0,
            ahead: self.ahead.state(self.slots.iter().copied()),
        }
    }

    fn restore(&mut self, state: Self::State) -> Result<()> {
        if state.buffer != self.buffer as u64 || state.ahead.held_count() > self.buffer {
            let (theirs, ours) = (state.buffer, self.buffer);
            let problem = format!("is of a buffer of {theirs} items, but this buffer has {ours}");
            return Err(Error::argument("restore", "state", problem));
        }
        self.slots = self.ahead.restore(state.ahead)?;
        (self.seed, self.epoch) = (state.seed, state.epoch);
        self.random = SplitMix64(state.random);
        Ok(())
    }

    fn items_per_epoch(&self) -> Option<u64> {
        self.ahead.source().items_per_epoch()
    }
}
