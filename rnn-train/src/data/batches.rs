//! Mini-batches of item indices in random order.

use std::fmt;

use backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

use super::random::permutation;
use super::source::Source;

/// What to do with the last items of an epoch if they do not fill a batch.
///
/// ```
/// use recurrent::data::{InOrder, Remainder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let groups = |remainder| {
///     let mut source = InOrder::new(0..5).group(2, remainder)?;
///     std::iter::from_fn(move || source.next_item().transpose()).collect::<Result<Vec<_>, _>>()
/// };
/// assert_eq!(groups(Remainder::Keep)?, [vec![0, 1], vec![2, 3], vec![4]]);
/// assert_eq!(groups(Remainder::Drop)?, [[0, 1], [2, 3]]);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Remainder {
    /// They form a smaller batch, so every item is used in every epoch.
    Keep,
    /// They are left out, so every batch has the same shape. Each epoch has a new order and leaves
    /// out different items.
    Drop,
}

/// The position in the data: everything that is needed to resume from there.
///
/// ```
/// use recurrent::data::{Batches, Remainder, Source};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut batches = Batches::new(10, 4, Remainder::Keep, 7)?;
/// batches.next_item()?;
/// let state = batches.state();
/// assert_eq!((state.epoch, state.position), (0, 4));
/// let mut resumed = Batches::new(10, 4, Remainder::Keep, 7)?;
/// resumed.restore(state)?;
/// assert_eq!(resumed.next_item()?, batches.next_item()?);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BatchState {
    /// Seed of the order of every epoch.
    pub seed: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Items of this epoch that were yielded.
    pub position: u64,
    /// What the position is in; absent in states that were saved before this was part of them.
    of: Option<Batching>,
}

/// The number of items and their division into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Batching {
    items: u64,
    batch: u64,
    remainder: Remainder,
}

impl fmt::Display for Batching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = match self.remainder {
            Remainder::Keep => "kept",
            Remainder::Drop => "dropped",
        };
        let Self { items, batch, .. } = self;
        write!(
            f,
            "batches of {batch} out of {items} items with the remainder {rest}"
        )
    }
}

/// Mini-batches of item indices, in a new order every epoch.
///
/// An iterator over one epoch: `None` ends the epoch, and the next call begins the next one. The
/// order depends only on the number of items, the seed and the epoch, on every machine and in every
/// version. A [`BatchState`] is therefore enough to resume a run exactly where it was interrupted.
///
/// ```
/// use recurrent::data::{Batches, Remainder};
///
/// let mut batches = Batches::new(10, 4, Remainder::Keep, 42)?;
/// while let Some(batch) = batches.next() {
///     // Gather the items, take a step, and every now and then save:
///     let state = batches.state();
///
///     let mut resumed = Batches::new(10, 4, Remainder::Keep, 0)?;
///     resumed.restore(state)?;
///     assert_eq!(resumed.clone().next(), batches.clone().next());
/// }
/// assert_eq!(batches.state().epoch, 1);
/// # Ok::<(), recurrent::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    batch: usize,
    remainder: Remainder,
    seed: u64,
    epoch: u64,
    position: usize,
    /// This epoch's permutation of the items.
    order: Vec<usize>,
}

impl Batches {
    /// Batches of `batch` out of `len` items.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `len` or `batch` is 0, or if an epoch would have no batch: fewer
    /// items than `batch`, with [`Remainder::Drop`].
    pub fn new(len: usize, batch: usize, remainder: Remainder, seed: u64) -> Result<Self> {
        let refuse =
            |arg: &str, problem: String| Err(Error::argument("Batches::new", arg, problem));
        if len == 0 {
            return refuse("len", "must not be 0".to_owned());
        }
        if batch == 0 {
            return refuse("batch", "must not be 0".to_owned());
        }
        if remainder == Remainder::Drop && batch > len {
            return refuse(
                "batch",
                format!("is {batch}, but there are only {len} items"),
            );
        }
        Ok(Self {
            batch,
            remainder,
            seed,
            epoch: 0,
            position: 0,
            order: permutation(len, seed, 0),
        })
    }

    /// Batches in an epoch.
    pub fn per_epoch(&self) -> usize {
        match self.remainder {
            Remainder::Keep => self.order.len().div_ceil(self.batch),
            Remainder::Drop => self.order.len() / self.batch,
        }
    }

    /// The position, to be saved in a checkpoint.
    pub fn state(&self) -> BatchState {
        BatchState {
            seed: self.seed,
            epoch: self.epoch,
            position: self.position as u64,
            of: Some(self.batching()),
        }
    }

    fn batching(&self) -> Batching {
        Batching {
            items: self.order.len() as u64,
            batch: self.batch as u64,
            remainder: self.remainder,
        }
    }

    /// Moves to the position of another run over the same number of items, with the same batch
    /// size and remainder; `state` is the result of its [`Batches::state`].
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if the state is of another number of items, batch size or remainder, or
    /// no such run can have it. Nothing changes then.
    pub fn restore(&mut self, state: BatchState) -> Result<()> {
        let ours = self.batching();
        if let Some(theirs) = state.of.filter(|&theirs| theirs != ours) {
            let problem = format!("is of {theirs}, but there are {ours}");
            return Err(Error::argument("Batches::restore", "state", problem));
        }
        let len = self.order.len();
        let position = usize::try_from(state.position).ok().filter(|&at| {
            at <= len && (at % self.batch == 0 || at == len && self.remainder == Remainder::Keep)
        });
        let Some(position) = position else {
            let problem = format!(
                "is at item {}, which is not a boundary of batches of {} out of {len} items",
                state.position, self.batch
            );
            return Err(Error::argument("Batches::restore", "state", problem));
        };
        self.order = permutation(len, state.seed, state.epoch);
        (self.seed, self.epoch, self.position) = (state.seed, state.epoch, position);
        Ok(())
    }
}

impl Iterator for Batches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let rest = &self.order[self.position..];
        let least = match self.remainder {
            Remainder::Keep => 1,
            Remainder::Drop => self.batch,
        };
        if rest.len() < least {
            self.epoch = self.epoch.wrapping_add(1);
            self.position = 0;
            self.order = permutation(self.order.len(), self.seed, self.epoch);
            return None;
        }
        let batch = rest[..rest.len().min(self.batch)].to_vec();
        self.position += batch.len();
        Some(batch)
    }
}

/// Batches of item indices, in a new order every epoch.
impl Source for Batches {
    type Item = Vec<usize>;
    type State = BatchState;

    fn next_item(&mut self) -> Result<Option<Vec<usize>>> {
        Ok(self.next())
    }

    fn state(&self) -> BatchState {
        self.state()
    }

    fn restore(&mut self, state: BatchState) -> Result<()> {
        self.restore(state)
    }

    fn items_per_epoch(&self) -> Option<u64> {
        Some(self.per_epoch() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(batches: &mut Batches) -> Vec<Vec<usize>> {
        batches.by_ref().collect()
    }

    #[test]
    fn an_epoch_has_each_item_once_in_a_new_order() {
        for len in [1, 2, 7, 100] {
            for batch in [1, 3, 7, 200] {
                let mut batches = Batches::new(len, batch, Remainder::Keep, 1).unwrap();
                let first = epoch(&mut batches);
                assert_eq!(first.len(), batches.per_epoch());
                let (last, full) = first.split_last().unwrap();
                assert!(full.iter().all(|b| b.len() == batch));
                assert!(!last.is_empty() && last.len() <= batch);
                let mut items = first.concat();
                items.sort();
                assert_eq!(items, (0..len).collect::<Vec<_>>());
                let state = batches.state();
                assert_eq!((state.seed, state.epoch, state.position), (1, 1, 0));
                if len == 100 {
                    assert_ne!(first, epoch(&mut batches));
                    let mut other = Batches::new(len, batch, Remainder::Keep, 2).unwrap();
                    assert_ne!(first, epoch(&mut other));
                }
            }
        }
    }

    #[test]
    fn the_remainder_is_dropped_on_request() {
        let mut batches = Batches::new(10, 4, Remainder::Drop, 5).unwrap();
        let mut seen = vec![0; 10];
        for _ in 0..50 {
            let batches = epoch(&mut batches);
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
            batches.concat().iter().for_each(|&item| seen[item] += 1);
        }
        assert!(seen.iter().all(|&n| n > 25 && n <= 50), "{seen:?}");
    }

    #[test]
    fn a_run_resumes_from_any_position() {
        for remainder in [Remainder::Keep, Remainder::Drop] {
            let mut run = Batches::new(23, 5, remainder, 9).unwrap();
            for _ in 0..20 {
                let json = serde_json::to_string(&run.state()).unwrap();
                let mut resumed = Batches::new(23, 5, remainder, 0).unwrap();
                resumed
                    .restore(serde_json::from_str(&json).unwrap())
                    .unwrap();
                let mut rest = run.clone();
                for _ in 0..20 {
                    assert_eq!(resumed.next(), rest.next());
                    assert_eq!(resumed.state(), rest.state());
                }
                run.next();
            }
        }
    }

    #[test]
    fn a_state_of_another_run_is_rejected_and_changes_nothing() {
        let mut batches = Batches::new(23, 5, Remainder::Drop, 9).unwrap();
        batches.next();
        let before = batches.state();
        for position in [1, 4, 21, 23, 25, u64::MAX] {
            let state = BatchState {
                seed: 1,
                epoch: 1,
                position,
                ..before
            };
            let message = batches.restore(state).unwrap_err().to_string();
            assert!(message.contains(&position.to_string()), "{message}");
            assert_eq!(batches.state(), before);
        }
        let last = BatchState {
            seed: 1,
            epoch: u64::MAX,
            position: 20,
            ..before
        };
        batches.restore(last).unwrap();
        assert_eq!(batches.next(), None);
        assert_eq!(batches.state().epoch, 0);
    }

    #[test]
    fn a_state_of_other_data_or_batches_is_rejected_by_both_names() {
        let new = |len, batch, remainder| Batches::new(len, batch, remainder, 9).unwrap();
        let mut batches = new(24, 4, Remainder::Drop);
        batches.next();
        let before = batches.state();
        let ours = "batches of 4 out of 24 items with the remainder dropped";
        // At position 0 all of them have the same position.
        for (other, theirs) in [
            (new(48, 4, Remainder::Drop), "batches of 4 out of 48 items"),
            (new(24, 2, Remainder::Drop), "batches of 2 out of 24 items"),
            (new(24, 4, Remainder::Keep), "the remainder kept"),
        ] {
            let message = batches.restore(other.state()).unwrap_err().to_string();
            assert!(
                message.contains(theirs) && message.contains(ours),
                "{message}"
            );
            assert_eq!(batches.state(), before);
        }
    }

    #[test]
    fn a_state_from_before_states_had_sizes_is_read() {
        let json = r#"{"seed":3,"epoch":2,"position":8}"#;
        let mut batches = Batches::new(24, 4, Remainder::Drop, 9).unwrap();
        batches
            .restore(serde_json::from_str(json).unwrap())
            .unwrap();
        let state = batches.state();
        assert_eq!((state.seed, state.epoch, state.position), (3, 2, 8));
        let mut fives = Batches::new(24, 5, Remainder::Drop, 9).unwrap();
        fives
            .restore(serde_json::from_str(json).unwrap())
            .unwrap_err();
    }

    #[test]
    fn epochs_without_batches_are_rejected() {
        for (len, batch, remainder) in [
            (0, 1, Remainder::Keep),
            (1, 0, Remainder::Keep),
            (3, 4, Remainder::Drop),
        ] {
            Batches::new(len, batch, remainder, 0).unwrap_err();
        }
        let mut whole = Batches::new(3, usize::MAX, Remainder::Keep, 0).unwrap();
        assert_eq!(epoch(&mut whole)[0].len(), 3);
    }
}
