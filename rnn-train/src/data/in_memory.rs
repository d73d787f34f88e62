//! Sequences in memory.

use backend_api::{Error, Result};
use serde::{Deserialize, Serialize};

use super::column::Column;
use super::random::permutation;
use super::sample::{Sample, Schema};
use super::source::Source;
use super::values::Values;

/// Items in memory, in order or in a new order every epoch.
///
/// Yields clones: items that are large are best kept in an [`Arc`](std::sync::Arc).
///
/// ```
/// use recurrent::data::{InMemory, Remainder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut groups = InMemory::new(vec!["a", "b", "c"])?.shuffled(7).group(2, Remainder::Drop)?;
/// assert_eq!(groups.next_item()?.map(|group| group.len()), Some(2));
/// assert_eq!(groups.next_item()?, None);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct InMemory<T> {
    items: Vec<T>,
    seed: Option<u64>,
    epoch: u64,
    position: usize,
    /// This epoch's permutation; empty if the items are in order.
    order: Vec<usize>,
}

/// The position of an [`InMemory`].
///
/// ```
/// use recurrent::data::{InMemory, Source};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut items = InMemory::new(vec!['a', 'b', 'c'])?.shuffled(7);
/// items.next_item()?;
/// let state = items.state();
/// let expected = items.next_item()?;
/// items.restore(state)?; // back to the second item
/// assert_eq!(items.next_item()?, expected);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InMemoryState {
    items: u64,
    seed: Option<u64>,
    epoch: u64,
    position: u64,
}

impl<T: Clone> InMemory<T> {
    /// The items in order.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are none.
    pub fn new(items: Vec<T>) -> Result<Self> {
        if items.is_empty() {
            return Err(Error::argument("InMemory", "items", "must not be empty"));
        }
        Ok(Self {
            items,
            seed: None,
            epoch: 0,
            position: 0,
            order: Vec::new(),
        })
    }

    /// In a new order every epoch, a function of `seed` and the epoch.
    #[must_use]
    pub fn shuffled(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.draw();
        self
    }

    fn draw(&mut self) {
        self.order = match self.seed {
            Some(seed) => permutation(self.items.len(), seed, self.epoch),
            None => Vec::new(),
        };
    }
}

impl InMemory<Sample> {
    /// The samples that arrays of equal first length hold: sample i has row i of each.
    ///
    /// `lengths` are those of the rows, and the names of the arrays that have steps as their second
    /// axis: row i of these is cut to its first `lengths[i]` steps, so that padding in the arrays
    /// is not data. [`Schema::field`] returns the typed fields.
    ///
    /// ```
    /// use recurrent::data::{Column, InMemory, Source};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Column::new(&[2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 0.0, 0.0])?;
    /// let label = Column::new(&[2], vec![0i64, 1])?;
    /// let arrays = vec![("x".to_owned(), x), ("label".to_owned(), label)];
    /// let mut samples = InMemory::from_arrays(arrays, Some((&[3, 1], &["x"])))?;
    /// let x = samples.schema().field::<f32>("x")?;
    /// samples.next_item()?;
    /// let second = samples.next_item()?.expect("two rows");
    /// assert_eq!(second.get(x)?, [4.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no arrays or no rows, the arrays differ in their first
    /// length or have none, two have one name, or the lengths do not fit the arrays.
    pub fn from_arrays(
        arrays: Vec<(String, Column)>,
        lengths: Option<(&[usize], &[&str])>,
    ) -> Result<Self> {
        let refuse = |arg: &str, problem: String| {
            Err(Error::argument("InMemory::from_arrays", arg, problem))
        };
        let Some((first, rows)) = arrays.first().map(|(name, array)| (name, array.len())) else {
            return refuse("arrays", "must not be empty".into());
        };
        let mut schema = Schema::new();
        for (name, array) in &arrays {
            if array.dims().is_empty() || array.len() != rows {
                let shape = array.dims();
                let problem = format!("`{name}` is {shape:?}, but `{first}` has {rows} rows");
                return refuse("arrays", problem);
            }
            schema.add_kind(name.clone(), array.kind())?;
        }
        let (lengths, cut) = lengths.unwrap_or((&[], &[]));
        if !cut.is_empty() && lengths.len() != rows {
            let problem = format!(
                "have length {}, but the arrays have {rows} rows",
                lengths.len()
            );
            return refuse("lengths", problem);
        }
        for name in cut {
            let array = arrays.iter().find(|(known, _)| known == name);
            let Some((_, array)) = array.filter(|(_, array)| array.dims().len() > 1) else {
                return refuse(
                    "lengths",
                    format!("name `{name}`, which is not an array with steps"),
                );
            };
            array.check_dense("InMemory::from_arrays")?;
        }
        let mut samples = Vec::with_capacity(rows);
        for row in 0..rows {
            let mut columns = Vec::with_capacity(arrays.len());
            for (name, array) in &arrays {
                let column = array.select(row)?;
                let length = lengths.get(row).filter(|_| cut.contains(&name.as_str()));
                columns.push(match length {
                    None => column,
                    Some(&length) => {
                        let steps = column.len();
                        if length > steps {
                            let what = format!("lengths of row {row}");
                            let problem = format!("is {length}, but `{name}` has {steps} steps");
                            return refuse(&what, problem);
                        }
                        column.steps(0, length, &Values::zero(column.kind()))?
                    }
                });
            }
            samples.push(schema.sample(columns)?);
        }
        Self::new(samples)
    }

    /// The fields of the samples.
    pub fn schema(&self) -> &Schema {
        self.items[0].schema()
    }
}

impl<T: Clone> Source for InMemory<T> {
    type Item = T;
    type State = InMemoryState;

    fn next_item(&mut self) -> Result<Option<T>> {
        if self.position == self.items.len() {
            self.epoch = self.epoch.wrapping_add(1);
            self.position = 0;
            self.draw();
            return Ok(None);
        }
        let index = self.order.get(self.position).copied();
        let item = self.items[index.unwrap_or(self.position)].clone();
        self.position += 1;
        Ok(Some(item))
    }

    fn state(&self) -> InMemoryState {
        InMemoryState {
            items: self.items.len() as u64,
            seed: self.seed,
            epoch: self.epoch,
            position: self.position as u64,
        }
    }

    fn restore(&mut self, state: InMemoryState) -> Result<()> {
        let len = self.items.len();
        let position = usize::try_from(state.position).ok().filter(|&at| at <= len);
        let same = state.items == len as u64 && state.seed.is_some() == self.seed.is_some();
        let Some(position) = position.filter(|_| same) else {
            let order = |shuffled| if shuffled { "shuffled" } else { "in order" };
            let (theirs, ours) = (order(state.seed.is_some()), order(self.seed.is_some()));
            let problem = format!(
                "is at item {} of {} ({theirs}), but there are {len} items ({ours})",
                state.position, state.items
            );
            return Err(Error::argument("restore", "state", problem));
        };
        (self.seed, self.epoch, self.position) = (state.seed, state.epoch, position);
        self.draw();
        Ok(())
    }

    fn items_per_epoch(&self) -> Option<u64> {
        Some(self.items.len() as u64)
    }
}
