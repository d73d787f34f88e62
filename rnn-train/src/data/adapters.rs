//! The adapters that convert one source to another.

use backend_api::{Error, Result};

use super::batches::Remainder;
use super::bucket::{Bucket, Grouped};
use super::example::ExampleSpec;
use super::pad::{Batch, Pad};
use super::prefetch::Prefetch;
use super::record_files::Record;
use super::sample::Sample;
use super::shuffle::Shuffle;
use super::source::Source;
use super::split::Split;

/// The adapters of every [`Source`].
///
/// ```
/// use recurrent::data::{InMemory, Remainder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut batches = InMemory::new((0..10).collect())?
///     .filter(|item: &i32| Ok(item % 2 == 0))
///     .map(|item| Ok(item * 10))
///     .shuffle(100, 7)?
///     .group(2, Remainder::Keep)?;
/// let mut all = Vec::new();
/// while let Some(batch) = batches.next_item()? {
///     all.extend(batch);
/// }
/// all.sort_unstable();
/// assert_eq!(all, [0, 20, 40, 60, 80]);
/// # Ok(()) }
/// ```
pub trait SourceExt: Source {
    /// Applies a function to each item.
    fn map<T, F>(self, f: F) -> Map<Self, F>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> Result<T>,
    {
        Map { source: self, f }
    }

    /// Leaves out the items for which `keep` is false.
    fn filter<F>(self, keep: F) -> Filter<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item) -> Result<bool>,
    {
        Filter { source: self, keep }
    }

    /// Parses each record to a sample of the features that `spec` declares. An error names the
    /// record.
    fn parse(self, spec: ExampleSpec) -> Map<Self, ExampleSpec>
    where
        Self: Sized + Source<Item = Record>,
    {
        Map {
            source: self,
            f: spec,
        }
    }

    /// Shuffles within a buffer of `buffer` items: each item yielded is drawn from the next
    /// `buffer` ones, and the order differs from epoch to epoch. TensorFlow's `Dataset.shuffle`.
    ///
    /// # Errors
    /// [`Error::Argument`] if `buffer` is 0.
    fn shuffle(self, buffer: usize, seed: u64) -> Result<Shuffle<Self>>
    where
        Self: Sized,
    {
        Shuffle::new(self, buffer, seed)
    }

    /// Groups of `size` items, in order.
    ///
    /// # Errors
    /// [`Error::Argument`] if `size` is 0.
    fn group(self, size: usize, remainder: Remainder) -> Result<Grouped<Self>>
    where
        Self: Sized,
    {
        Grouped::new(self, size, remainder)
    }

    /// Groups of items of similar length, so that padding them wastes little. TensorFlow's
    /// `bucket_by_sequence_length`; see [`Bucket`].
    ///
    /// # Errors
    /// [`Error::Argument`] if the boundaries do not rise, a size is
    /// 0, or the sizes are not one more than the boundaries.
    fn bucket_by_sequence_length<F>(
        self,
        length: F,
        boundaries: &[usize],
        sizes: &[usize],
        remainder: Remainder,
    ) -> Result<Bucket<Self, F>>
    where
        Self: Sized,
        F: FnMut(&Self::Item) -> Result<usize>,
    {
        Bucket::new(self, length, boundaries, sizes, remainder)
    }

    /// Cuts each item into `parts` items, of which `part` makes the one with a number: a batch
    /// into the batches of a step.
    ///
    /// # Errors
    /// [`Error::Argument`] if `parts` is 0.
    fn split<T, F>(self, parts: usize, part: F) -> Result<Split<Self, F>>
    where
        Self: Sized,
        F: FnMut(&Self::Item, usize) -> Result<T>,
    {
        Split::new(self, parts, part)
    }

    /// Makes a padded batch of each group of samples.
    fn pad(self, pad: Pad) -> Map<Self, Pad>
    where
        Self: Sized + Source<Item = Vec<Sample>>,
    {
        Map {
            source: self,
            f: pad,
        }
    }

    /// Reads ahead in a thread of its own, at most `items` items; see [`Prefetch`].
    ///
    /// # Errors
    /// [`Error::Argument`] if `items` is 0 or above 65,536;
    /// [`Error::Failed`] if the thread cannot be started.
    fn prefetch(self, items: usize) -> Result<Prefetch<Self>>
    where
        Self: Sized + Send + 'static,
        Self::Item: Send,
        Self::State: Send,
    {
        Prefetch::new(self, items)
    }
}

impl<S: Source> SourceExt for S {}

/// What [`Map`] does with each item: a closure, an [`ExampleSpec`] with a record, or a [`Pad`] with
/// a group of samples.
///
/// ```
/// use recurrent::Result;
/// use recurrent::data::{Column, Pad, Schema, Transform};
///
/// # fn main() -> recurrent::Result<()> {
/// fn applied<I, T: Transform<I>>(mut by: T, item: I) -> Result<T::Output> {
///     by.apply(item)
/// }
/// assert_eq!(applied(|n: i64| Ok(n * n), 3)?, 9);
/// let mut schema = Schema::new();
/// let tokens = schema.add::<i64>("tokens")?;
/// let samples = vec![schema.sample(vec![Column::new(&[2], vec![7i64, 8])?])?];
/// assert_eq!(applied(Pad::new(), samples)?.get(tokens)?, [7, 8]);
/// # Ok(()) }
/// ```
pub trait Transform<I> {
    /// The result.
    type Output;

    /// Turns an item into another. The result should depend on the item alone, or a resumed run
    /// differs.
    ///
    /// # Errors
    /// The item cannot be used.
    fn apply(&mut self, item: I) -> Result<Self::Output>;
}

impl<I, T, F: FnMut(I) -> Result<T>> Transform<I> for F {
    type Output = T;

    fn apply(&mut self, item: I) -> Result<T> {
        self(item)
    }
}

impl Transform<Vec<Sample>> for Pad {
    type Output = Batch;

    fn apply(&mut self, samples: Vec<Sample>) -> Result<Batch> {
        self.pad(&samples)
    }
}

/// An error names the record.
impl Transform<Record> for ExampleSpec {
    type Output = Sample;

    fn apply(&mut self, record: Record) -> Result<Sample> {
        self.parse(&record).map_err(|error| {
            let (index, offset) = (record.index(), record.offset());
            let problem = format!("record {index} at offset {offset}: {error}");
            Error::format(record.file(), problem)
        })
    }
}

/// A source whose items are transformed: see [`SourceExt::map`], [`SourceExt::parse`] and
/// [`SourceExt::pad`].
///
/// ```
/// use recurrent::data::{InOrder, Map, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut squares: Map<_, _> = InOrder::new(1..4).map(|n| Ok(n * n));
/// assert_eq!(squares.next_item()?, Some(1));
/// assert_eq!(squares.next_item()?, Some(4));
/// // Its position is that of the source.
/// assert_eq!(squares.state(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Map<S, F> {
    source: S,
    f: F,
}

impl<S: Source, F: Transform<S::Item>> Source for Map<S, F> {
    type Item = F::Output;
    type State = S::State;

    fn next_item(&mut self) -> Result<Option<F::Output>> {
        let item = self.source.next_item()?;
        item.map(|item| self.f.apply(item)).transpose()
    }

    fn skip_item(&mut self) -> Result<bool> {
        self.source.skip_item()
    }

    fn state(&self) -> S::State {
        self.source.state()
    }

    fn restore(&mut self, state: S::State) -> Result<()> {
        self.source.restore(state)
    }

    fn items_per_epoch(&self) -> Option<u64> {
        self.source.items_per_epoch()
    }
}

/// A source without some of its items: see [`SourceExt::filter`].
///
/// ```
/// use recurrent::data::{Filter, InOrder, Source, SourceExt};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut odd: Filter<_, _> = InOrder::new(0..5).filter(|n| Ok(n % 2 == 1));
/// assert_eq!(odd.next_item()?, Some(1));
/// assert_eq!(odd.next_item()?, Some(3));
/// assert_eq!(odd.next_item()?, None); // the end of the epoch
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Filter<S, F> {
    source: S,
    keep: F,
}

impl<S: Source, F: FnMut(&S::Item) -> Result<bool>> Source for Filter<S, F> {
    type Item = S::Item;
    type State = S::State;

    fn next_item(&mut self) -> Result<Option<S::Item>> {
        while let Some(item) = self.source.next_item()? {
            if (self.keep)(&item)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn state(&self) -> S::State {
        self.source.state()
    }

    fn restore(&mut self, state: S::State) -> Result<()> {
        self.source.restore(state)
    }
}
