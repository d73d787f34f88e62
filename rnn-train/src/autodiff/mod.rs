//! Automatic differentiation as a device around a device.
//!
//! [`Autodiff<B>`] is a [`Backend`]. Code written against the trait is differentiable as it is: a buffer may carry
//! a reference to the node that made it, an operation with such an operand leaves a node of its own, and
//! everything else passes straight through. There is no tape: the record is what can be reached
//! from a tensor, and it goes when the tensor goes.
//!
//! * `node`: the record.
//! * `rules`: the gradient of each operation, in terms of operations.
//! * `backward`: the walk, newest node first.
//! * `segment`: keeping less for the walk: computing again, or moving to host memory.

mod backward;
mod node;
mod rules;
mod segment;

use std::borrow::Cow;

use backend_api::{
    Backend, Buffers, Counting, Dest, Dests, Error, Fused, Keep, Layout, Memory, Meta, Metas, Op,
    Result, SegmentBody, SequencePlan, SequenceRequest, Tensor, Unfused, View, Views, compose,
};
use smallvec::SmallVec;

use node::{Input, Kept, Node, Source};

use crate::Gradient;

/// A device that can record what it computes and run it backwards.
pub trait Differentiable: Backend {
    /// The same elements as the start of a record: what is computed from the result is tracked.
    ///
    /// # Errors
    /// The tensor is a view with gaps, and the device has no room for a copy.
    fn leaf(&self, t: &Tensor<Self>) -> Result<Tensor<Self>>;

    /// The gradient of a scalar with respect to each of the given leaves; `None` where it does not depend on one.
    /// Of a table that was only looked up in, these are the rows: TensorFlow's `tf.gradients`.
    ///
    /// The record is used up as it is walked: memory falls during the walk, and a second walk is an error.
    ///
    /// # Errors
    /// The loss is no scalar or is not tracked, a leaf is not one, or the record has been used up.
    fn gradients(
        &self,
        loss: &Tensor<Self>,
        leaves: &[&Tensor<Self>],
    ) -> Result<Vec<Option<Gradient<Self>>>>;

    /// The same with a number for each element, of tables too.
    ///
    /// # Errors
    /// Those of [`gradients`](Self::gradients).
    fn backward(
        &self,
        loss: &Tensor<Self>,
        leaves: &[&Tensor<Self>],
    ) -> Result<Vec<Option<Tensor<Self>>>> {
        let dense = |grad: Option<Gradient<Self>>| grad.map(|g| g.to_dense()).transpose();
        self.gradients(loss, leaves)?
            .into_iter()
            .map(dense)
            .collect()
    }
}

/// A device around `B` that differentiates.
///
/// ```
/// use backend_api::Tensor;
/// use backend_cpu::Cpu;
/// use rnn_train::{Autodiff, Differentiable};
///
/// # fn main() -> backend_api::Result<()> {
/// let device = Autodiff::new(Cpu::new());
/// let x = device.leaf(&Tensor::from_slice(&device, &[3.0f64, 4.0], &[2])?)?;
/// let y = x.square()?.sum_all()?;
/// let grads = device.backward(&y, &[&x])?;
/// let dx = grads[0].as_ref().expect("y depends on x");
/// assert_eq!(dx.to_vec::<f64>()?, [6.0, 8.0]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Autodiff<B> {
    inner: B,
}

impl<B: Backend> Autodiff<B> {
    /// Differentiation around a device. Two values around one device are the same device.
    pub fn new(inner: B) -> Self {
        Self { inner }
    }

    /// The device inside.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    fn wrap(inner: B::Buffer) -> TrackedBuffer<B> {
        TrackedBuffer {
            inner,
            source: None,
        }
    }
}

/// A buffer of the device inside, and where it came from if that is recorded.
#[derive(Debug)]
pub struct TrackedBuffer<B: Backend> {
    inner: B::Buffer,
    source: Option<Source<B>>,
}

impl<B: Backend> Clone for TrackedBuffer<B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            source: self.source.clone(),
        }
    }
}

/// A swapped buffer of the device inside, and where it came from.
#[derive(Debug)]
pub struct TrackedSwapped<B: Backend> {
    inner: B::Swapped,
    source: Option<Source<B>>,
}

type Buffer<B> = TrackedBuffer<B>;

impl<B: Backend> Differentiable for Autodiff<B> {
    fn leaf(&self, t: &Tensor<Self>) -> Result<Tensor<Self>> {
        let layout = Layout::contiguous(t.shape());
        let t = t.detach();
        let t = if *t.layout() == layout { t } else { t.copy()? };
        let dtype = t.dtype();
        let inner = t.into_buffer().inner;
        let node = Node::leaf(inner.clone(), layout.shape(), dtype);
        let source = Some(Source { node, out: 0 });
        let buffer = TrackedBuffer { inner, source };
        Ok(Tensor::from_parts(self, buffer, layout, dtype))
    }

    fn gradients(
        &self,
        loss: &Tensor<Self>,
        leaves: &[&Tensor<Self>],
    ) -> Result<Vec<Option<Gradient<Self>>>> {
        backward::gradients(self, loss, leaves)
    }
}

impl<B: Backend> Backend for Autodiff<B> {
    type Buffer = TrackedBuffer<B>;
    type Swapped = TrackedSwapped<B>;

    fn name(&self) -> String {
        self.inner.name()
    }

    fn same_device(&self, other: &Self) -> bool {
        self.inner.same_device(&other.inner)
    }

    fn upload(&self, bytes: &[u8], meta: Meta) -> Result<Buffer<B>> {
        self.inner.upload(bytes, meta).map(Self::wrap)
    }

    fn download(&self, src: View<'_, Buffer<B>>, into: &mut [u8]) -> Result<()> {
        self.inner.download(inner_view(&src), into)
    }

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, Buffer<B>>],
        outs: Dests<Buffer<B>>,
    ) -> Result<Buffers<Buffer<B>>> {
        let tracked = ins.iter().any(|v| v.buffer.source.is_some());
        if tracked && rules::differentiable(op) {
            return self.run_tracked(op, ins, outs);
        }
        self.run_inner(op, ins, outs)
    }

    fn accumulate(
        &self,
        dst: Buffer<B>,
        at: &Layout,
        src: View<'_, Buffer<B>>,
    ) -> Result<Buffer<B>> {
        if dst.source.is_some() || src.buffer.source.is_some() {
            return Err(untracked_only("accumulate"));
        }
        let inner = self.inner.accumulate(dst.inner, at, inner_view(&src))?;
        Ok(Self::wrap(inner))
    }

    fn swap_out(&self, buffer: Buffer<B>) -> Result<TrackedSwapped<B>> {
        Ok(TrackedSwapped {
            inner: self.inner.swap_out(buffer.inner)?,
            source: buffer.source,
        })
    }

    fn swap_in(&self, swapped: TrackedSwapped<B>) -> Result<Buffer<B>> {
        Ok(TrackedBuffer {
            inner: self.inner.swap_in(swapped.inner)?,
            source: swapped.source,
        })
    }

    fn synchronize(&self) -> Result<()> {
        self.inner.synchronize()
    }

    fn memory(&self) -> Memory {
        self.inner.memory()
    }

    fn plan_sequence(&self, request: &SequenceRequest) -> Option<SequencePlan> {
        self.inner.plan_sequence(request)
    }

    fn is_tracked(&self, buffer: &Buffer<B>) -> bool {
        buffer.source.is_some() || self.inner.is_tracked(&buffer.inner)
    }

    fn detach(&self, buffer: &Buffer<B>) -> Buffer<B> {
        Self::wrap(self.inner.detach(&buffer.inner))
    }

    fn segment(
        &self,
        keep: Keep,
        inputs: &[Tensor<Self>],
        body: SegmentBody<Self>,
    ) -> Result<Vec<Tensor<Self>>> {
        segment::run(self, keep, inputs, body)
    }
}

impl<B: Backend> Autodiff<B> {
    /// Runs an operation without a record.
    fn run_inner(
        &self,
        op: &Op,
        ins: &[View<'_, Buffer<B>>],
        outs: Dests<Buffer<B>>,
    ) -> Result<Buffers<Buffer<B>>> {
        let ins: Views<'_, B::Buffer> = ins.iter().map(inner_view).collect();
        let outs = outs
            .into_iter()
            .map(|dest| match dest {
                Dest::New(meta) => Dest::New(meta),
                Dest::Into(into) => Dest::Into(Box::new((into.0.inner, into.1))),
            })
            .collect();
        let results = self.inner.run(op, &ins, outs)?;
        Ok(results.into_iter().map(Self::wrap).collect())
    }

    /// Runs an operation with a tracked operand or place, and records it.
    fn run_tracked(
        &self,
        op: &Op,
        ins: &[View<'_, Buffer<B>>],
        outs: Dests<Buffer<B>>,
    ) -> Result<Buffers<Buffer<B>>> {
        if let Op::Fused(fused) = op
            && !rules::has_rule(fused)
        {
            // Its default body is made of operations that have one.
            return compose(self, fused, ins, outs);
        }
        if outs.iter().any(|dest| matches!(dest, Dest::Into(_))) {
            return Err(untracked_only(op.name()));
        }
        let op = saving(op);
        let metas: Metas = ins.iter().map(View::meta).collect();
        let all = op.infer(&metas)?;
        let dests = all.iter().map(|&meta| Dest::New(meta)).collect();
        let mut results = self.run_inner(&op, ins, dests)?;
        let tracked: SmallVec<[bool; 8]> = ins.iter().map(|v| v.buffer.source.is_some()).collect();
        let needs = rules::needs(&op, &tracked);
        let inputs = ins
            .iter()
            .enumerate()
            .map(|(i, view)| Input::new(view, needs.input(i)))
            .collect();
        let kept = results
            .iter()
            .enumerate()
            .map(|(k, buffer)| needs.output(k).then(|| Kept::Here(buffer.inner.clone())))
            .collect();
        let node = Node::operation(op.into_owned(), inputs, all, kept);
        for (out, buffer) in results.iter_mut().enumerate() {
            let node = node.clone();
            buffer.source = Some(Source { node, out });
        }
        // What was saved for the gradient stays with the node.
        results.truncate(outs.len());
        Ok(results)
    }
}

/// [`Differentiable::gradients`] of a decorator, by the device inside it that has the same buffers.
pub fn gradients_inside<Outer, Inner>(
    outer: &Outer,
    inner: &Inner,
    loss: &Tensor<Outer>,
    leaves: &[&Tensor<Outer>],
) -> Result<Vec<Option<Gradient<Outer>>>>
where
    Inner: Differentiable,
    Outer: Backend<Buffer = Inner::Buffer>,
{
    let leaves: Vec<_> = leaves.iter().map(|t| t.rehome(inner)).collect();
    let leaves: Vec<_> = leaves.iter().collect();
    let grads = inner.gradients(&loss.rehome(inner), &leaves)?;
    Ok(grads
        .into_iter()
        .map(|grad| grad.map(|grad| grad.on(|t| t.rehome(outer))))
        .collect())
}

/// Decorators with the same buffers differentiate by what is inside.
macro_rules! differentiable_decorator {
    ($($decorator:ident . $inner:ident),*) => {
        $(impl<B: Differentiable> Differentiable for $decorator<B> {
            fn leaf(&self, t: &Tensor<Self>) -> Result<Tensor<Self>> {
                let inner = self.$inner();
                Ok(inner.leaf(&t.rehome(inner))?.rehome(self))
            }

            fn gradients(
                &self,
                loss: &Tensor<Self>,
                leaves: &[&Tensor<Self>],
            ) -> Result<Vec<Option<Gradient<Self>>>> {
                gradients_inside(self, self.$inner(), loss, leaves)
            }
        })*
    };
}

differentiable_decorator!(Unfused.inner, Counting.inner);

/// The view as the device inside sees it.
fn inner_view<'a, B: Backend>(view: &View<'a, Buffer<B>>) -> View<'a, B::Buffer> {
    view.with_buffer(&view.buffer.inner)
}

/// A whole sequence that keeps what its gradient needs; any other operation as it is.
fn saving(op: &Op) -> Cow<'_, Op> {
    match op {
        Op::Fused(Fused::Sequence(plan)) => {
            let plan = SequencePlan {
                save: true,
                ..*plan
            };
            Cow::Owned(Op::Fused(Fused::Sequence(plan)))
        }
        _ => Cow::Borrowed(op),
    }
}

fn untracked_only(op: &str) -> Error {
    Error::Gradient(format!(
        "{op}: a tracked tensor cannot be written into a given place; detach it first"
    ))
}
