//! The adapters that convert one source to another.

use backend_api::Result;

use super::batches::Remainder;
use super::bucket::{Bucket, Grouped};
use super::example::ExampleSpec;
use super::pad::{Batch, Pad};
use super::prefetch::Prefetch;
use super::record_files::{Parsed, Record};
use super::sample::Sample;
use super::shuffle::Shuffle;
use super::source::Source;

/// The adapters of every [`Source`].
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
    fn parse(self, spec: ExampleSpec) -> Parsed<Self>
    where
        Self: Sized + Source<Item = Record>,
    {
        Parsed { source: self, spec }
    }

    /// Shuffles within a buffer of `buffer` items: each item yielded is drawn from the next
    /// `buffer` ones, and the order differs from epoch to epoch. TensorFlow's `Dataset.shuffle`.
    ///
    /// # Errors
    /// [`Error::Argument`](backend_api::Error::Argument) if `buffer` is 0.
    fn shuffle(self, buffer: usize, seed: u64) -> Result<Shuffle<Self>>
    where
        Self: Sized,
    {
        Shuffle::new(self, buffer, seed)
    }

    /// Groups of `size` items, in order.
    ///
    /// # Errors
    /// [`Error::Argument`](backend_api::Error::Argument) if `size` is 0.
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
    /// [`Error::Argument`](backend_api::Error::Argument) if the boundaries do not rise, a size is
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

    /// Makes a padded batch of each group of samples.
    fn pad(self, pad: Pad) -> Padded<Self>
    where
        Self: Sized + Source<Item = Vec<Sample>>,
    {
        Padded { source: self, pad }
    }

    /// Reads ahead in a thread of its own, at most `items` items; see [`Prefetch`].
    ///
    /// # Errors
    /// [`Error::Argument`](backend_api::Error::Argument) if `items` is 0 or above 65,536;
    /// [`Error::Failed`](backend_api::Error::Failed) if the thread cannot be started.
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

/// A source whose items go through a function: see [`SourceExt::map`].
///
/// The function should depend on its argument alone, or a resumed run differs.
#[derive(Clone, Debug)]
pub struct Map<S, F> {
    source: S,
    f: F,
}

impl<S: Source, T, F: FnMut(S::Item) -> Result<T>> Source for Map<S, F> {
    type Item = T;
    type State = S::State;

    fn next_item(&mut self) -> Result<Option<T>> {
        self.source.next_item()?.map(&mut self.f).transpose()
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

/// A source of padded batches: see [`SourceExt::pad`].
#[derive(Clone, Debug)]
pub struct Padded<S> {
    source: S,
    pad: Pad,
}

impl<S: Source<Item = Vec<Sample>>> Source for Padded<S> {
    type Item = Batch;
    type State = S::State;

    fn next_item(&mut self) -> Result<Option<Batch>> {
        let samples = self.source.next_item()?;
        samples.map(|samples| self.pad.pad(&samples)).transpose()
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
