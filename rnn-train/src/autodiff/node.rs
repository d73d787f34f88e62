//! The graph of recorded operations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::{
    Backend, DType, Error, Layout, Meta, Metas, Op, Result, SegmentBody, Shape, Stored, View,
};
use smallvec::{SmallVec, smallvec};

use super::{Autodiff, TrackedBuffer};

/// One recorded operation.
///
/// The node that produced a value stores it once, no matter how many gradients read it. The value
/// is freed when the backward pass has passed that node.
pub(super) struct Node<B: Backend> {
    /// A node has a larger number than its operands; the backward pass visits numbers in falling
    /// order.
    pub(super) number: u64,
    /// The number of the oldest node that has this one as an operand.
    first_use: AtomicU64,
    outs: Metas,
    record: Mutex<Record<B>>,
}

struct Record<B: Backend> {
    work: Work<B>,
    inputs: Inputs<B>,
    kept: SmallVec<[Option<Kept<B>>; 3]>,
}

pub(super) type Inputs<B> = SmallVec<[Input<B>; 4]>;

/// The computation that a node records.
pub(super) enum Work<B: Backend> {
    /// A leaf of the graph.
    Leaf,
    /// An operation.
    Op(Op),
    /// A segment that the backward pass recomputes.
    Segment(SegmentBody<Autodiff<B>>),
    /// The backward pass has consumed the node.
    Spent,
}

// A derived impl would require `B: Clone`.
impl<B: Backend> Clone for Work<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf => Self::Leaf,
            Self::Op(op) => Self::Op(op.clone()),
            Self::Segment(body) => Self::Segment(body.clone()),
            Self::Spent => Self::Spent,
        }
    }
}

/// What a backward pass leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Graph {
    /// The whole graph, for a further pass.
    Kept,
    /// Nothing: values are freed during the pass.
    Consumed,
}

/// A value stored for a gradient.
pub(super) enum Kept<B: Backend> {
    /// On the device.
    Here(B::Buffer),
    /// In host memory.
    Away(B::Swapped),
}

/// An operand of a recorded operation.
pub(super) struct Input<B: Backend> {
    /// The layout of the operand in its buffer.
    pub(super) layout: Layout,
    pub(super) dtype: DType,
    /// The node that produced the buffer, if it is tracked.
    pub(super) source: Option<Source<B>>,
    /// The buffer, if a gradient reads it and no node stores it.
    value: Option<B::Buffer>,
}

impl<B: Backend> Clone for Input<B> {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            value: self.value.clone(),
            ..*self
        }
    }
}

/// The node that produced a buffer, and the index of the result.
pub(super) struct Source<B: Backend> {
    pub(super) node: Arc<Node<B>>,
    pub(super) out: usize,
}

impl<B: Backend> Clone for Source<B> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            out: self.out,
        }
    }
}

impl<B: Backend> std::fmt::Debug for Source<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "result {} of node {}", self.out, self.node.number)
    }
}

impl<B: Backend> Node<B> {
    fn new(
        work: Work<B>,
        inputs: Inputs<B>,
        outs: Metas,
        kept: SmallVec<[Option<Kept<B>>; 3]>,
    ) -> Arc<Self> {
        let number = next_number();
        for source in inputs.iter().filter_map(|input| input.source.as_ref()) {
            let first_use = &source.node.first_use;
            first_use.fetch_min(number, Ordering::Relaxed);
        }
        Arc::new(Self {
            number,
            first_use: AtomicU64::new(u64::MAX),
            outs,
            record: Mutex::new(Record { work, inputs, kept }),
        })
    }

    /// The number of the oldest node that has this one as an operand. A node that is recomputed is
    /// newer than its first run, which counts.
    pub(super) fn first_use(&self) -> u64 {
        self.first_use.load(Ordering::Relaxed)
    }

    /// A leaf of the graph: a contiguous tensor of `shape` at the start of `buffer`.
    pub(super) fn leaf(buffer: B::Buffer, shape: Shape, dtype: DType) -> Arc<Self> {
        let kept = smallvec![Some(Kept::Here(buffer))];
        let outs = smallvec![Meta::new(shape, dtype)];
        Self::new(Work::Leaf, SmallVec::new(), outs, kept)
    }

    /// A node for an operation.
    pub(super) fn operation(
        op: Op,
        inputs: Inputs<B>,
        outs: Metas,
        kept: SmallVec<[Option<Kept<B>>; 3]>,
    ) -> Arc<Self> {
        Self::new(Work::Op(op), inputs, outs, kept)
    }

    /// A node for a segment that is recomputed.
    pub(super) fn segment(
        body: SegmentBody<Autodiff<B>>,
        inputs: Inputs<B>,
        outs: Metas,
    ) -> Arc<Self> {
        Self::new(Work::Segment(body), inputs, outs, SmallVec::new())
    }

    fn record(&self) -> MutexGuard<'_, Record<B>> {
        // The record is consistent even after a panic under the lock: every change is one
        // assignment.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shape and element type of result `out`.
    pub(super) fn out_meta(&self, out: usize) -> Meta {
        self.outs[out]
    }

    /// Number of results.
    pub(super) fn out_count(&self) -> usize {
        self.outs.len()
    }

    /// Stores result `out` for a gradient that reads it, if it is not stored already.
    fn keep(&self, out: usize, buffer: &B::Buffer) {
        let kept = &mut self.record().kept;
        if kept.len() <= out {
            kept.resize_with(out + 1, || None);
        }
        if kept[out].is_none() {
            kept[out] = Some(Kept::Here(buffer.clone()));
        }
    }

    /// A stored result, copied back to the device if it is in host memory.
    pub(super) fn kept(&self, device: &B, out: usize) -> Result<B::Buffer> {
        let kept = &mut self.record().kept;
        let slot = kept.get_mut(out).ok_or_else(used_up)?;
        let buffer = match slot.take().ok_or_else(used_up)? {
            Kept::Here(buffer) => buffer,
            Kept::Away(swapped) => device.swap_in(swapped)?,
        };
        *slot = Some(Kept::Here(buffer.clone()));
        Ok(buffer)
    }

    /// Moves the stored values to host memory.
    pub(super) fn swap_out(&self, device: &B) -> Result<()> {
        for slot in &mut self.record().kept {
            *slot = match slot.take() {
                Some(Kept::Here(buffer)) => Some(Kept::Away(device.swap_out(buffer)?)),
                other => other,
            };
        }
        Ok(())
    }

    /// Adds the size of the values that this node stores.
    pub(super) fn add_stored(&self, device: &B, stored: &mut Stored) {
        let record = self.record();
        if matches!(record.work, Work::Leaf) {
            return;
        }
        for (kept, meta) in record.kept.iter().zip(&self.outs) {
            let bytes = meta.shape.count() * meta.dtype.size();
            match kept {
                Some(Kept::Here(_)) => stored.device += bytes,
                Some(Kept::Away(_)) => stored.offloaded += bytes,
                None => {}
            }
        }
        for input in &record.inputs {
            let whole = input.value.as_ref().and_then(|value| {
                let (count, dtype) = device.extent(value).ok()?;
                (count == input.layout.shape().count()).then_some(count * dtype.size())
            });
            stored.device += whole.unwrap_or(0);
        }
    }

    /// Starts copying the stored values back to the device.
    pub(super) fn fetch(&self, device: &B) -> Result<()> {
        for slot in &mut self.record().kept {
            *slot = match slot.take() {
                Some(Kept::Away(swapped)) => Some(Kept::Here(device.swap_in(swapped)?)),
                other => other,
            };
        }
        Ok(())
    }

    /// The nodes that produced the operands.
    pub(super) fn parents(&self) -> Vec<Arc<Self>> {
        let record = self.record();
        let sources = record.inputs.iter().filter_map(|i| i.source.as_ref());
        sources.map(|source| source.node.clone()).collect()
    }

    /// Whether this node is a leaf.
    pub(super) fn is_leaf(&self) -> bool {
        matches!(self.record().work, Work::Leaf)
    }

    /// The recorded computation for a backward pass; if the pass consumes the graph, the node is
    /// spent afterwards.
    ///
    /// # Errors
    /// A backward pass has already consumed this node.
    pub(super) fn work(&self, graph: Graph) -> Result<(Work<B>, Inputs<B>)> {
        let mut record = self.record();
        let taken = match graph {
            Graph::Kept => (record.work.clone(), record.inputs.clone()),
            Graph::Consumed => {
                let work = std::mem::replace(&mut record.work, Work::Spent);
                (work, std::mem::take(&mut record.inputs))
            }
        };
        match taken {
            (Work::Spent, _) => Err(used_up()),
            taken => Ok(taken),
        }
    }

    /// Frees the stored values, unless a further pass reads them.
    pub(super) fn release(&self, graph: Graph) {
        if graph == Graph::Consumed {
            self.record().kept.clear();
        }
    }
}

/// A graph can be thousands of nodes deep, so recursive drops could overflow the stack. This loop
/// empties the nodes that only this node owns before they are dropped.
impl<B: Backend> Drop for Node<B> {
    fn drop(&mut self) {
        let take = |node: &mut Self| {
            let record = node
                .record
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut record.inputs)
        };
        let mut left = vec![take(self)];
        while let Some(inputs) = left.pop() {
            for source in inputs.into_iter().filter_map(|input| input.source) {
                if let Some(mut node) = Arc::into_inner(source.node) {
                    left.push(take(&mut node));
                }
            }
        }
    }
}

impl<B: Backend> Input<B> {
    /// The operand for a view; `needed` says whether the gradient reads its elements.
    pub(super) fn new(view: &View<'_, TrackedBuffer<B>>, needed: bool) -> Self {
        let source = view.buffer.source.clone();
        let mut value = None;
        match &source {
            _ if !needed => {}
            Some(source) => source.node.keep(source.out, &view.buffer.inner),
            None => value = Some(view.buffer.inner.clone()),
        }
        Self {
            layout: *view.layout,
            dtype: view.dtype,
            source,
            value,
        }
    }

    /// The operand's buffer.
    ///
    /// # Errors
    /// The gradient did not request it, or the graph was already consumed.
    pub(super) fn buffer(&self, device: &B) -> Result<B::Buffer> {
        match (&self.value, &self.source) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(source)) => source.node.kept(device, source.out),
            (None, None) => Err(used_up()),
        }
    }
}

fn used_up() -> Error {
    Error::Gradient(
        "an earlier backward pass has freed the record of this computation: take several gradients \
         of one forward pass with `values_and_grads`, and detach tensors that are carried from one \
         pass to the next"
            .into(),
    )
}

/// The number of the next node; numbers increase.
pub(super) fn next_number() -> u64 {
    // One counter for the process: only the order matters, and tensors may be sent between threads.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
