//! Cutting items into parts.

use std::fmt;

use backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

use super::source::Source;

/// The parts of the items of a source: see [`SourceExt::split`](super::SourceExt::split).
///
/// ```
/// use recurrent::data::{InOrder, Source, SourceExt, Split};
///
/// # fn main() -> recurrent::Result<()> {
/// let rows = [[1, 2, 3, 4], [5, 6, 7, 8]];
/// let part = |row: &[i32; 4], k: usize| Ok(row[2 * k..][..2].to_vec());
/// let mut halves: Split<_, _> = InOrder::new(rows.into_iter()).split(2, part)?;
/// assert_eq!(halves.next_item()?, Some(vec![1, 2]));
/// let state = halves.state();
/// assert_eq!(halves.next_item()?, Some(vec![3, 4]));
/// assert_eq!(halves.next_item()?, Some(vec![5, 6]));
/// halves.restore(state)?;
/// assert_eq!(halves.next_item()?, Some(vec![3, 4]));
/// # Ok(()) }
/// ```
pub struct Split<S: Source, F> {
    source: S,
    parts: usize,
    part: F,
    current: Option<Current<S>>,
}

/// The item of which parts are left.
struct Current<S: Source> {
    /// The position of the source before it.
    before: S::State,
    item: S::Item,
    next: usize,
}

/// The position in the parts of items.
///
/// ```
/// use recurrent::data::{InOrder, Source, SourceExt, SplitState};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut parts = InOrder::new(0..3).split(2, |&n, k| Ok((n, k)))?;
/// parts.next_item()?;
/// let state: SplitState<u64> = parts.state();
/// parts.next_item()?;
/// parts.restore(state)?;
/// assert_eq!(parts.next_item()?, Some((0, 1)));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState<S> {
    /// The position of the source before the item.
    source: S,
    /// Parts of it that were taken, out of all.
    taken: usize,
    parts: usize,
}

impl<S: Source, F> fmt::Debug for Split<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.current.as_ref().map_or(0, |current| current.next);
        write!(f, "Split({taken} of {} taken)", self.parts)
    }
}

impl<S: Source, F> Split<S, F> {
    pub(super) fn new(source: S, parts: usize, part: F) -> Result<Self> {
        if parts == 0 {
            return Err(Error::argument("split", "parts", "must not be 0"));
        }
        Ok(Self {
            source,
            parts,
            part,
            current: None,
        })
    }

    /// Takes the next part; `None` ends the epoch.
    fn advance(&mut self) -> Result<Option<(&mut F, &S::Item, usize)>> {
        if self
            .current
            .as_ref()
            .is_none_or(|current| current.next == self.parts)
        {
            self.current = None;
            let before = self.source.state();
            let Some(item) = self.source.next_item()? else {
                return Ok(None);
            };
            self.current = Some(Current {
                before,
                item,
                next: 0,
            });
        }
        let part = &mut self.part;
        Ok(self.current.as_mut().map(|current| {
            current.next += 1;
            (part, &current.item, current.next - 1)
        }))
    }
}

impl<S: Source, T, F: FnMut(&S::Item, usize) -> Result<T>> Source for Split<S, F> {
    type Item = T;
    type State = SplitState<S::State>;

    fn next_item(&mut self) -> Result<Option<T>> {
        let next = self.advance()?;
        next.map(|(part, item, number)| part(item, number))
            .transpose()
    }

    fn skip_item(&mut self) -> Result<bool> {
        Ok(self.advance()?.is_some())
    }

    fn state(&self) -> Self::State {
        let current = self
            .current
            .as_ref()
            .filter(|current| current.next < self.parts);
        SplitState {
            source: current.map_or_else(|| self.source.state(), |current| current.before.clone()),
            taken: current.map_or(0, |current| current.next),
            parts: self.parts,
        }
    }

    fn restore(&mut self, state: Self::State) -> Result<()> {
        let SplitState {
            source,
            taken,
            parts,
        } = state;
        if parts != self.parts || taken >= parts {
            let ours = self.parts;
            let problem = format!("is at part {taken} of {parts}, but there are {ours} parts");
            return Err(Error::argument("restore", "state", problem));
        }
        let now = self.source.state();
        self.source.restore(source.clone())?;
        if taken == 0 {
            self.current = None;
            return Ok(());
        }
        match self.source.next_item() {
            Ok(Some(item)) => {
                self.current = Some(Current {
                    before: source,
                    item,
                    next: taken,
                });
                Ok(())
            }
            ended => {
                self.source.restore(now)?;
                ended?;
                let problem = format!("is at part {taken} of an item that does not exist");
                Err(Error::argument("restore", "state", problem))
            }
        }
    }

    fn items_per_epoch(&self) -> Option<u64> {
        Some(self.source.items_per_epoch()? * self.parts as u64)
    }
}
