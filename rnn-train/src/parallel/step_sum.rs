//! The gradients of a step, summed as the walk backwards completes them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use backend_api::{Backend, Result};
use rnn_core::Param;

use super::bucket::Bucket;
use super::exchange::{Exchange, Part};
use super::sums::{Maybe, Params, StepTotal, add, gradients};
use super::{DataParallel, Node, Tree};
use crate::Gradient;

/// Adds the gradients of the batches of a step: those of this rank as they arrive, and those of all
/// ranks, bucket by bucket, as soon as the last batch of this rank has completed a bucket.
#[derive(Debug)]
pub(crate) struct StepSum<B: Backend> {
    ranks: Option<DataParallel>,
    /// Those that are trained, in the order of the model.
    params: Arc<Params<B>>,
    /// For each, the sum over the batches of this rank, and whether that is complete.
    sums: Vec<(Tree<Maybe<B>>, bool)>,
    losses: Vec<f64>,
    /// Whether gradients of 16-bit floats are added in `f32`.
    wide: bool,
    batch: u64,
    /// Whether it is the last of this rank.
    is_last: bool,
    /// The parameters of buckets that are not on their way.
    buckets: VecDeque<Range<usize>>,
    exchange: Option<Exchange<B>>,
}

impl<B: Backend> StepSum<B> {
    /// Of no batches. `params` are those that are trained, in the order of the model.
    pub(crate) fn new(
        ranks: Option<DataParallel>,
        params: Vec<(String, Param<B>)>,
        wide: bool,
    ) -> Self {
        let buckets = ranks.as_ref().map_or(VecDeque::new(), |ranks| {
            let bytes = params
                .iter()
                .map(|(_, param)| param.shape().count() * param.dtype().computed_in().size());
            buckets(&bytes.collect::<Vec<_>>(), ranks.bucket_bytes)
        });
        Self {
            sums: params.iter().map(|_| (Tree::default(), false)).collect(),
            ranks,
            params: params.into(),
            losses: Vec::new(),
            wide,
            batch: 0,
            is_last: false,
            buckets,
            exchange: None,
        }
    }

    /// The parameters that are trained.
    pub(crate) fn params(&self) -> Arc<Params<B>> {
        self.params.clone()
    }

    /// Begins with a batch of the step.
    pub(crate) fn begin(&mut self, batch: u64, is_last: bool) {
        (self.batch, self.is_last) = (batch, is_last);
    }

    /// Adds the gradient of a parameter for the batch.
    pub(crate) fn add(&mut self, param: usize, grad: Maybe<B>) -> Result<()> {
        let wide = |grad: Gradient<B>| match self.wide {
            true => grad.map_values(|values| values.cast(values.dtype().computed_in())),
            false => Ok(grad),
        };
        let node = Node {
            start: self.batch,
            len: 1,
            value: grad.map(wide).transpose()?,
        };
        let (sum, complete) = &mut self.sums[param];
        sum.push(node, add)?;
        *complete = self.is_last;
        if self.is_last {
            self.send_complete();
        }
        Ok(())
    }

    /// Adds the loss of the batch.
    pub(crate) fn add_loss(&mut self, loss: f64) {
        self.losses.push(loss);
    }

    /// The name of the first parameter whose gradients so far have a NaN or an infinity.
    pub(crate) fn first_non_finite(&self) -> Result<Option<String>> {
        let last = |(sum, _): &(Tree<Maybe<B>>, bool)| sum.nodes().last()?.value.clone();
        let grads = gradients(&self.params, self.sums.iter().map(last).collect());
        Ok(grads.first_non_finite()?.map(str::to_owned))
    }

    /// The sum over all batches of the step, given their number. What failed on one rank fails on
    /// all.
    pub(crate) fn finish(mut self, batches: Result<u64>) -> Result<StepTotal<B>> {
        if self.ranks.is_none() {
            let batches = batches?;
            let total = |(sum, _): (Tree<Maybe<B>>, bool)| Ok(sum.total(add)?.flatten());
            let grads = self.sums.into_iter().map(total).collect::<Result<_>>()?;
            return Ok(StepTotal {
                batches,
                losses: self.losses,
                grads: gradients(&self.params, grads),
            });
        }
        if batches.is_ok() {
            self.sums
                .iter_mut()
                .for_each(|(_, complete)| *complete = true);
            self.send_complete();
        }
        let losses = std::mem::take(&mut self.losses);
        let (end, error) = match batches {
            Ok(batches) => (Ok(Part::End(batches, losses)), None),
            Err(error) => (Err(error.to_string()), Some(error)),
        };
        self.send(end);
        let total = self.exchange.map(Exchange::wait);
        match (error, total) {
            (Some(error), _) => Err(error),
            (None, total) => total.unwrap_or_else(|| unreachable!("the end was sent")),
        }
    }

    /// Sends the next buckets whose gradients are complete.
    fn send_complete(&mut self) {
        while let Some(members) = self.buckets.front()
            && self.sums[members.clone()]
                .iter()
                .all(|(_, complete)| *complete)
        {
            let members = members.clone();
            self.buckets.pop_front();
            let sums = self.sums[members.clone()].iter();
            let sums = sums.map(|(sum, _)| sum.nodes().to_vec()).collect();
            self.send(Ok(Part::Bucket(Bucket { members, sums })));
        }
    }

    fn send(&mut self, part: Result<Part<B>, String>) {
        let Some(ranks) = &self.ranks else {
            return;
        };
        let start = || Exchange::start(ranks, self.params.clone());
        self.exchange.get_or_insert_with(start).send(part);
    }
}

/// The parameters of each bucket, in the order in which buckets are summed: the reverse of that of
/// the parameters, since the walk backwards completes the last ones first.
fn buckets(bytes: &[usize], bucket_bytes: usize) -> VecDeque<Range<usize>> {
    let mut buckets = VecDeque::new();
    let (mut end, mut size) = (bytes.len(), 0usize);
    for (start, bytes) in bytes.iter().enumerate().rev() {
        size = size.saturating_add(*bytes);
        if size >= bucket_bytes || start == 0 {
            buckets.push_back(start..end);
            (end, size) = (start, 0);
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_with_the_last_parameters() {
        assert_eq!(buckets(&[8, 1, 4, 3, 2], 5), [3..5, 1..3, 0..1]);
        assert_eq!(
            buckets(&[8, 1, 4, 3, 2], usize::MAX).pop_front(),
            Some(0..5)
        );
        assert_eq!(buckets(&[1, 1], 1), [1..2, 0..1]);
        assert_eq!(buckets(&[], 1), []);
    }
}
