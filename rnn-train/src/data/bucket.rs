//! Groups of items: in order, or of similar length.

use backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

use super::batches::Remainder;
use super::lookahead::{Lookahead, LookaheadState};
use super::source::Source;

/// Groups of items in order: see [`SourceExt::group`](super::SourceExt::group).
///
/// ```
/// use recurrent::data::{Grouped, InOrder, Remainder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut groups: Grouped<_> = InOrder::new("abcde".chars()).group(2, Remainder::Drop)?;
/// assert_eq!(groups.next_item()?, Some(vec!['a', 'b']));
/// assert_eq!(groups.next_item()?, Some(vec!['c', 'd']));
/// assert_eq!(groups.next_item()?, None);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Grouped<S: Source> {
    ahead: Lookahead<S>,
    size: usize,
    remainder: Remainder,
    /// The numbers of the items of the next group.
    open: Vec<u64>,
}

/// The position of a [`Grouped`] or a [`Bucket`].
///
/// ```
/// use recurrent::data::{GroupState, InOrder, Remainder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let new = || InOrder::new(0..6).group(2, Remainder::Keep);
/// let mut groups = new()?;
/// groups.next_item()?;
/// let state: GroupState<u64> = groups.state(); // `Serialize`, as all states are
/// let mut resumed = new()?;
/// resumed.restore(state)?;
/// assert_eq!(resumed.next_item()?, Some(vec![2, 3]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupState<T> {
    /// The options, which must be those of the source restored.
    boundaries: Vec<u64>,
    sizes: Vec<u64>,
    keep_remainder: bool,
    ahead: LookaheadState<T>,
}

impl<T> GroupState<T> {
    fn check(&self, boundaries: &[usize], sizes: &[usize], remainder: Remainder) -> Result<()> {
        let same = |theirs: &[u64], ours: &[usize]| {
            theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(a, b)| *a == *b as u64)
        };
        let keep = remainder == Remainder::Keep;
        if same(&self.boundaries, boundaries)
            && same(&self.sizes, sizes)
            && self.keep_remainder == keep
        {
            return Ok(());
        }
        let text = |boundaries: &dyn std::fmt::Debug, sizes: &dyn std::fmt::Debug, keep| {
            let tail = if keep { "kept" } else { "dropped" };
            format!("groups of {sizes:?} within {boundaries:?} with the remainder {tail}")
        };
        let theirs = text(&self.boundaries, &self.sizes, self.keep_remainder);
        let ours = text(&boundaries, &sizes, keep);
        let problem = format!("is of {theirs}, but this source has {ours}");
        Err(Error::argument("restore", "state", problem))
    }
}

impl<S: Source> Grouped<S> {
    pub(super) fn new(source: S, size: usize, remainder: Remainder) -> Result<Self> {
        if size == 0 {
            return Err(Error::argument("group", "size", "must not be 0"));
        }
        Ok(Self {
            ahead: Lookahead::new(source),
            size,
            remainder,
            open: Vec::new(),
        })
    }
}

fn overfull() -> Error {
    Error::argument(
        "restore",
        "state",
        "is of other data: one of its groups is full",
    )
}

/// Removes the items with these numbers.
fn take<S: Source>(ahead: &mut Lookahead<S>, numbers: &mut Vec<u64>) -> Vec<S::Item> {
    let items = numbers.drain(..).filter_map(|number| ahead.take(number));
    items.collect()
}

impl<S: Source> Source for Grouped<S> {
    type Item = Vec<S::Item>;
    type State = GroupState<S::State>;

    fn next_item(&mut self) -> Result<Option<Vec<S::Item>>> {
        while self.open.len() < self.size {
            match self.ahead.read()? {
                Some(number) => self.open.push(number),
                None => break,
            }
        }
        let full = self.open.len() == self.size;
        if full || (self.remainder == Remainder::Keep && !self.open.is_empty()) {
            return Ok(Some(take(&mut self.ahead, &mut self.open)));
        }
        self.open.clear();
        self.ahead.begin();
        Ok(None)
    }

    fn state(&self) -> Self::State {
        GroupState {
            boundaries: Vec::new(),
            sizes: vec![self.size as u64],
            keep_remainder: self.remainder == Remainder::Keep,
            ahead: self.ahead.state(self.open.iter().copied()),
        }
    }

    fn restore(&mut self, state: Self::State) -> Result<()> {
        state.check(&[], &[self.size], self.remainder)?;
        if state.ahead.held_count() >= self.size {
            return Err(overfull());
        }
        self.open = self.ahead.restore(state.ahead)?;
        Ok(())
    }

    fn items_per_epoch(&self) -> Option<u64> {
        let (items, size) = (self.ahead.source().items_per_epoch()?, self.size as u64);
        Some(match self.remainder {
            Remainder::Keep => items.div_ceil(size),
            Remainder::Drop => items / size,
        })
    }
}

/// Groups of items of similar length: see
/// [`SourceExt::bucket_by_sequence_length`](super::SourceExt::bucket_by_sequence_length).
///
/// With rising `boundaries`, an item of length n goes to the bucket k for which
/// `boundaries[k - 1] <= n < boundaries[k]`.
/// `sizes` is the size of a group, for each of the `boundaries.len() + 1` buckets or one for all. A
/// group leaves when its bucket is full. At the end of an epoch the items left in each bucket make
/// a smaller group, in the order of the buckets, or are dropped.
///
/// ```
/// use recurrent::data::{InOrder, Remainder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let words = ["to", "be", "or", "nevertheless", "not", "notwithstanding"];
/// let length = |word: &&str| Ok(word.len());
/// let mut groups = InOrder::new(words.into_iter())
///     .bucket_by_sequence_length(length, &[10], &[2], Remainder::Keep)?;
/// assert_eq!(groups.next_item()?, Some(vec!["to", "be"]));
/// assert_eq!(groups.next_item()?, Some(vec!["or", "not"]));
/// assert_eq!(groups.next_item()?, Some(vec!["nevertheless", "notwithstanding"]));
/// assert_eq!(groups.next_item()?, None);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Bucket<S: Source, F> {
    ahead: Lookahead<S>,
    length: F,
    boundaries: Vec<usize>,
    /// One for each bucket.
    sizes: Vec<usize>,
    remainder: Remainder,
    /// The numbers of the items in each bucket, in order of arrival.
    buckets: Vec<Vec<u64>>,
}

impl<S: Source, F: FnMut(&S::Item) -> Result<usize>> Bucket<S, F> {
    pub(super) fn new(
        source: S,
        length: F,
        boundaries: &[usize],
        sizes: &[usize],
        remainder: Remainder,
    ) -> Result<Self> {
        let refuse = |arg: &str, problem: String| {
            Err(Error::argument("bucket_by_sequence_length", arg, problem))
        };
        if !boundaries.is_sorted_by(|a, b| a < b) {
            return refuse(
                "boundaries",
                format!("are {boundaries:?}, but must increase"),
            );
        }
        let count = boundaries.len() + 1;
        let sizes = match sizes {
            [size] => vec![*size; count],
            _ => sizes.to_vec(),
        };
        if sizes.len() != count {
            let problem = format!("have length {}, but there are {count} buckets", sizes.len());
            return refuse("sizes", problem);
        }
        if sizes.contains(&0) {
            return refuse("sizes", format!("are {sizes:?}, but must not contain 0"));
        }
        Ok(Self {
            ahead: Lookahead::new(source),
            length,
            boundaries: boundaries.to_vec(),
            sizes,
            remainder,
            buckets: vec![Vec::new(); count],
        })
    }

    /// Adds a held item to its bucket, and returns the bucket's index.
    fn assign(&mut self, number: u64) -> Result<usize> {
        let item = self.ahead.get(number);
        let length = item.map_or(Ok(0), &mut self.length)?;
        let bucket = self.boundaries.partition_point(|&bound| bound <= length);
        self.buckets[bucket].push(number);
        Ok(bucket)
    }

    /// Restores a state, and adds the held items to their buckets.
    fn refill(&mut self, state: LookaheadState<S::State>) -> Result<()> {
        let numbers = self.ahead.restore(state)?;
        self.buckets.iter_mut().for_each(Vec::clear);
        for number in numbers {
            let bucket = self.assign(number)?;
            if self.buckets[bucket].len() >= self.sizes[bucket] {
                return Err(overfull());
            }
        }
        Ok(())
    }
}

impl<S: Source, F: FnMut(&S::Item) -> Result<usize>> Source for Bucket<S, F> {
    type Item = Vec<S::Item>;
    type State = GroupState<S::State>;

    fn next_item(&mut self) -> Result<Option<Vec<S::Item>>> {
        while let Some(number) = self.ahead.read()? {
            let bucket = self.assign(number).inspect_err(|_| {
                self.ahead.take(number);
            })?;
            if self.buckets[bucket].len() == self.sizes[bucket] {
                return Ok(Some(take(&mut self.ahead, &mut self.buckets[bucket])));
            }
        }
        if self.remainder == Remainder::Keep
            && let Some(rest) = self.buckets.iter_mut().find(|bucket| !bucket.is_empty())
        {
            return Ok(Some(take(&mut self.ahead, rest)));
        }
        self.buckets.iter_mut().for_each(Vec::clear);
        self.ahead.begin();
        Ok(None)
    }

    fn state(&self) -> Self::State {
        let mut held: Vec<u64> = self.buckets.iter().flatten().copied().collect();
        // In order of arrival; `restore` adds them in this order.
        held.sort_unstable();
        GroupState {
            boundaries: self.boundaries.iter().map(|&b| b as u64).collect(),
            sizes: self.sizes.iter().map(|&size| size as u64).collect(),
            keep_remainder: self.remainder == Remainder::Keep,
            ahead: self.ahead.state(held.into_iter()),
        }
    }

    fn restore(&mut self, state: Self::State) -> Result<()> {
        state.check(&self.boundaries, &self.sizes, self.remainder)?;
        let before = self.state().ahead;
        self.refill(state.ahead).or_else(|error| {
            self.refill(before)?;
            Err(error)
        })
    }
}
