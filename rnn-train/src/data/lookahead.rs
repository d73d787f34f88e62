//! Items read from a source and not yet yielded, and how to read them again.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

use super::source::Source;

/// Reads between two snapshots of the source's state. A resumed run reads up to as many items more
/// than it needs; each snapshot costs a copy of the state.
const SNAPSHOT_EVERY: u64 = 256;

/// The distance of two snapshots is at least this fraction of the items since the oldest one. The
/// number of snapshots is then logarithmic in the age of the oldest item held, which can stay for
/// a whole epoch in a bucket that never fills.
const SNAPSHOT_FRACTION: u64 = 8;

/// A source, and the items that an adapter has read from it and holds back.
///
/// An adapter that buffers items cannot save them, as they are large. It saves where to begin to
/// read again and which of the items read from there it still holds.
pub(super) struct Lookahead<S: Source> {
    source: S,
    /// Items by number, counted from 0 in each epoch.
    held: BTreeMap<u64, S::Item>,
    /// The number of the next item.
    next: u64,
    /// States of the source, each with the number of the item that follows it. The first one is
    /// not behind the oldest item held.
    snapshots: VecDeque<(u64, S::State)>,
    /// Numbers of the reads since the first snapshot that failed, in order.
    faults: VecDeque<u64>,
    /// The source has ended the epoch.
    ended: bool,
}

/// The position of an adapter that holds items back: part of its state.
///
/// ```
/// use recurrent::data::{InOrder, Source, SourceExt};
/// use recurrent::serde_json::to_string;
///
/// # fn main() -> recurrent::Result<()> {
/// // A buffer of a thousand items is saved as a position and the numbers of the items in it.
/// let mut shuffled = InOrder::new(0..100_000).map(|n| Ok(vec![n; 500])).shuffle(1000, 7)?;
/// shuffled.next_item()?;
/// assert!(to_string(&shuffled.state()).expect("JSON").len() < 10_000);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookaheadState<T> {
    /// The state of the source to read on from.
    source: T,
    /// Items to read from there.
    read: u64,
    /// The numbers of the held items among them, counted from 0.
    held: Vec<u64>,
    /// The numbers of the reads that fail, in increasing order.
    faults: Vec<u64>,
    /// Whether the source has ended the epoch.
    ended: bool,
}

impl<S: Source> fmt::Debug for Lookahead<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookahead")
            .field("held", &self.held.len())
            .field("next", &self.next)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<T> LookaheadState<T> {
    /// Number of items held.
    pub(super) fn held_count(&self) -> usize {
        self.held.len()
    }
}

impl<S: Source> Lookahead<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            source,
            held: BTreeMap::new(),
            next: 0,
            snapshots: VecDeque::new(),
            faults: VecDeque::new(),
            ended: false,
        }
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    /// Reads the next item and holds it. Gives its number, or `None` once the epoch has ended.
    pub(super) fn read(&mut self) -> Result<Option<u64>> {
        if self.ended {
            return Ok(None);
        }
        if self.held.is_empty() {
            self.snapshots.clear();
            self.faults.clear();
        }
        let last = self.snapshots.back().map(|(number, _)| *number);
        let window = self
            .snapshots
            .front()
            .map_or(0, |(first, _)| self.next - first);
        let every = SNAPSHOT_EVERY.max(window / SNAPSHOT_FRACTION);
        if last.is_none_or(|last| self.next - last >= every) {
            self.snapshots.push_back((self.next, self.source.state()));
        }
        // A fault counts as an item that is not held, so that reading again passes over it.
        let number = self.next;
        match self.source.next_item() {
            Ok(Some(item)) => {
                self.held.insert(number, item);
                self.next += 1;
                Ok(Some(number))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) => {
                self.faults.push_back(number);
                self.next += 1;
                Err(error)
            }
        }
    }

    /// An item that is held.
    pub(super) fn get(&self, number: u64) -> Option<&S::Item> {
        self.held.get(&number)
    }

    /// Removes an item and returns it.
    pub(super) fn take(&mut self, number: u64) -> Option<S::Item> {
        let item = self.held.remove(&number);
        let oldest = self.held.keys().next().copied().unwrap_or(self.next);
        while self
            .snapshots
            .get(1)
            .is_some_and(|(after, _)| *after <= oldest)
        {
            self.snapshots.pop_front();
        }
        let first = self
            .snapshots
            .front()
            .map_or(self.next, |(first, _)| *first);
        while self.faults.pop_front_if(|fault| *fault < first).is_some() {}
        item
    }

    /// Begins the next epoch.
    pub(super) fn begin(&mut self) {
        self.held.clear();
        self.snapshots.clear();
        self.faults.clear();
        self.next = 0;
        self.ended = false;
    }

    /// The state, with the numbers of all items held, in any order.
    pub(super) fn state(&self, held: impl Iterator<Item = u64>) -> LookaheadState<S::State> {
        let held: Vec<u64> = held.collect();
        match self.snapshots.front() {
            Some((first, source)) if !held.is_empty() => LookaheadState {
                source: source.clone(),
                read: self.next - first,
                held: held.iter().map(|number| number - first).collect(),
                faults: self.faults.iter().map(|number| number - first).collect(),
                ended: self.ended,
            },
            _ => LookaheadState {
                source: self.source.state(),
                read: 0,
                held,
                faults: Vec::new(),
                ended: self.ended,
            },
        }
    }

    /// Restores a state. Returns the numbers of the held items, in the order of the state.
    pub(super) fn restore(&mut self, state: LookaheadState<S::State>) -> Result<Vec<u64>> {
        let before = self.source.state();
        match self.read_again(&state) {
            Ok((held, snapshot)) => {
                self.held = held;
                self.faults = state.faults.into();
                self.next = state.read;
                self.ended = state.ended;
                self.snapshots = [(0, snapshot)].into();
                Ok(state.held)
            }
            Err(error) => {
                self.source.restore(before)?;
                Err(error)
            }
        }
    }

    fn read_again(
        &mut self,
        state: &LookaheadState<S::State>,
    ) -> Result<(BTreeMap<u64, S::Item>, S::State)> {
        let other = |problem: &str| Err(Error::argument("restore", "state", problem));
        self.source.restore(state.source.clone())?;
        let mut wanted: Vec<u64> = state.held.clone();
        wanted.sort_unstable();
        let mut wanted = wanted.into_iter().peekable();
        let mut held = BTreeMap::new();
        let mut faults = state.faults.iter().peekable();
        for number in 0..state.read {
            let failed = faults.next_if_eq(&&number).is_some();
            let item = match self.source.next_item() {
                Ok(None) => return other("is of other data: this epoch has fewer items"),
                Ok(Some(_)) if failed => {
                    return other("is of other data: it has an error that this data does not have");
                }
                Ok(item) => item,
                Err(_) if failed => None,
                Err(error) => return Err(error),
            };
            if wanted.next_if_eq(&number).is_some() {
                held.extend(item.map(|item| (number, item)));
            }
        }
        if wanted.next().is_some() || faults.next().is_some() {
            return other("contains items that were not read");
        }
        if state.ended && state.read > 0 && self.source.next_item()?.is_some() {
            return other("is of other data: this epoch has more items");
        }
        Ok((held, state.source.clone()))
    }
}
