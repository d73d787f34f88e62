//! Automatic differentiation as a backend that wraps a backend.
//!
//! [`Autodiff<B>`] is a [`Backend`], so code written against the trait is differentiable without
//! changes. A buffer may refer to the graph node that produced it. An operation with such an
//! operand adds a node; every other operation goes straight to the inner backend. There is no tape:
//! the graph consists of the nodes reachable from a tensor, and is freed with the tensor.
//!
//! * `node`: the graph.
//! * `rules`: the gradient of each operation, in terms of operations.
//! * `backward`: the backward pass, newest node first.
//! * `segment`: lower memory for the backward pass by recomputing values or moving them to host
//!   memory.

mod arguments;
mod backward;
mod derive;
mod node;
mod rules;
mod scan;
mod segment;

use std::borrow::Cow;

use backend_api::trace::{SharedProgram, StepCache, StepGraph};
use backend_api::{
    Backend, Buffers, Counting, DType, Dest, Dests, Error, Fused, Layout, Memory, MemoryPolicy,
    Meta, Metas, Op, Result, SegmentBody, Stored, Tensor, Unfused, Update, View, Views, compose,
    update_by_run,
};
use smallvec::SmallVec;

pub use backward::{Reach, TakeGradient};
use node::{Input, Kept, Node, Source};

use crate::Gradient;

/// A backend that can record operations and differentiate them.
///
/// ```
/// use recurrent::{Device, Differentiable, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// // What `value_and_grad` does for the parameters of a model.
/// let device = Device::cpu();
/// let x = device.leaf(&Tensor::from_slice(&device, &[3.0f32, 4.0], &[2])?)?;
/// let y = x.square()?.sum_all()?;
/// let grads = device.backward(&y, &[&x])?;
/// let dx = grads[0].as_ref().expect("y depends on x");
/// assert_eq!(dx.to_vec::<f32>()?, [6.0, 8.0]);
/// # Ok(()) }
/// ```
pub trait Differentiable: Backend {
    /// A copy of a tensor as a leaf of a graph: operations on the result are recorded.
    ///
    /// # Errors
    /// The tensor is tracked: there are no second derivatives. Or it is a view with gaps, and the
    /// device has no memory for a copy.
    fn leaf(&self, t: &Tensor<Self>) -> Result<Tensor<Self>>;

    /// Passes to `take` the gradients of each of several scalars with respect to the given leaves,
    /// all from one forward pass; `None` for a leaf that the scalar does not depend on. Each is
    /// passed as soon as it is complete, those of leaves that were used last at first, while the
    /// backward pass goes on for the others. The gradient of a table that is only used in lookups
    /// is sparse, as in TensorFlow's `tf.gradients`. The gradients are not tracked: for a further
    /// computation they are constants, and second derivatives are not available.
    ///
    /// The pass for the last scalar consumes the graph: memory is freed during the pass, and a
    /// further call is an error.
    ///
    /// ```
    /// use recurrent::{Device, Differentiable, Reach, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let leaf = || device.leaf(&Tensor::from_slice(&device, &[0.5f32], &[1])?);
    /// let (first, second) = (leaf()?, leaf()?);
    /// let loss = first.tanh()?.mul(&second)?.sum_all()?;
    /// let mut order = Vec::new();
    /// device.gradients_of(&[&loss], &[&first, &second], Reach::Anything, &mut |_, leaf, _| {
    ///     order.push(leaf);
    ///     Ok(())
    /// })?;
    /// assert_eq!(order, [1, 0]); // that of `first` passes through `tanh`
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A loss is not a scalar or not tracked, or depends on a tensor that `reach` excludes; a leaf
    /// is not a leaf of a graph; the graph was already consumed; or `take` fails.
    fn gradients_of(
        &self,
        losses: &[&Tensor<Self>],
        leaves: &[&Tensor<Self>],
        reach: Reach,
        take: &mut TakeGradient<'_, Self>,
    ) -> Result<()>;

    /// The gradients of one scalar; see [`gradients_of`](Self::gradients_of).
    ///
    /// # Errors
    /// Those of [`gradients_of`](Self::gradients_of).
    fn gradients(
        &self,
        loss: &Tensor<Self>,
        leaves: &[&Tensor<Self>],
    ) -> Result<Vec<Option<Gradient<Self>>>> {
        let mut grads = vec![None; leaves.len()];
        self.gradients_of(&[loss], leaves, Reach::Anything, &mut |_, leaf, grad| {
            grads[leaf] = grad;
            Ok(())
        })?;
        Ok(grads)
    }

    /// Like [`gradients`](Self::gradients), but every gradient is dense, those of tables included.
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

/// A backend that wraps `B` and differentiates.
///
/// ```
/// use recurrent::{Device, Differentiable, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
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
    /// Wraps a device. Two wrappers of the same device count as the same device.
    pub fn new(inner: B) -> Self {
        Self { inner }
    }

    /// The inner device.
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

/// A buffer of the inner device, and its graph node if it is tracked.
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

/// A buffer of the inner device that was moved to host memory, and its graph node if it is tracked.
#[derive(Debug)]
pub struct TrackedSwapped<B: Backend> {
    inner: B::Swapped,
    source: Option<Source<B>>,
}

type Buffer<B> = TrackedBuffer<B>;

impl<B: Backend> Differentiable for Autodiff<B> {
    fn leaf(&self, t: &Tensor<Self>) -> Result<Tensor<Self>> {
        if t.buffer()?.source.is_some() {
            return Err(Error::Gradient(
                "the tensor is tracked already, so this would begin a second derivative, and \
                 there are none: the enclosing computation would take the inner gradient for a \
                 constant. Compute a gradient that is meant as a constant outside of the \
                 enclosing loss, or detach the tensor"
                    .into(),
            ));
        }
        let layout = Layout::contiguous(t.shape());
        let t = t.detach();
        let t = if *t.layout() == layout { t } else { t.copy()? };
        let dtype = t.dtype();
        let inner = t.into_buffer()?.inner;
        let node = Node::leaf(inner.clone(), layout.shape(), dtype);
        let source = Some(Source { node, out: 0 });
        let buffer = TrackedBuffer { inner, source };
        Tensor::from_parts(self, buffer, layout, dtype)
    }

    fn gradients_of(
        &self,
        losses: &[&Tensor<Self>],
        leaves: &[&Tensor<Self>],
        reach: Reach,
        take: &mut TakeGradient<'_, Self>,
    ) -> Result<()> {
        backward::gradients(self, losses, leaves, reach, take)
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

    fn extent(&self, buffer: &Buffer<B>) -> Result<(usize, DType)> {
        self.inner.extent(&buffer.inner)
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

    fn update(&self, op: &Op, updates: &mut [Update<'_, Buffer<B>>]) -> Result<()> {
        let tracked = |update: &Update<'_, Buffer<B>>| {
            let mut state = update.state.iter().map(|(buffer, _)| &**buffer);
            let mut others = update.others.iter().map(|view| view.buffer);
            state.any(|b| b.source.is_some()) || others.any(|b| b.source.is_some())
        };
        if updates.iter().any(tracked) {
            return update_by_run(self, op, updates);
        }
        let inner = updates.iter_mut().map(|Update { state, others }| Update {
            state: state
                .iter_mut()
                .map(|(b, meta)| (&mut b.inner, *meta))
                .collect(),
            others: others.iter().map(inner_view).collect(),
        });
        self.inner.update(op, &mut inner.collect::<Vec<_>>())
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

    fn can_offload(&self) -> bool {
        self.inner.can_offload()
    }

    fn synchronize(&self) -> Result<()> {
        self.inner.synchronize()
    }

    fn memory(&self) -> Memory {
        self.inner.memory()
    }

    fn release_cached(&self) -> Result<()> {
        self.inner.release_cached()
    }

    fn compile_step(&self, step: &StepGraph) -> Result<SharedProgram, String> {
        self.inner.compile_step(step)
    }

    fn step_cache(&self) -> Option<&StepCache> {
        self.inner.step_cache()
    }

    fn is_tracked(&self, buffer: &Buffer<B>) -> bool {
        buffer.source.is_some() || self.inner.is_tracked(&buffer.inner)
    }

    fn detach(&self, buffer: &Buffer<B>) -> Buffer<B> {
        Self::wrap(self.inner.detach(&buffer.inner))
    }

    fn stored(&self, tensors: &[&Tensor<Self>]) -> Stored {
        segment::stored(&self.inner, tensors)
    }

    fn segment(
        &self,
        memory_policy: MemoryPolicy,
        inputs: &[Tensor<Self>],
        body: SegmentBody<Self>,
    ) -> Result<Vec<Tensor<Self>>> {
        segment::run(self, memory_policy, inputs, body)
    }
}

impl<B: Backend> Autodiff<B> {
    /// Runs an operation without recording it.
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

    /// For a recurrence over all steps, the variant that saves values for its gradient; else the
    /// operation itself.
    fn saving<'a>(&self, op: &'a Op, tracked: &[bool]) -> Cow<'a, Op> {
        let saving = match op {
            Op::Fused(Fused::Scan(plan)) => derive::saving(&self.inner, plan, tracked),
            _ => None,
        };
        saving.map_or(Cow::Borrowed(op), |plan| {
            Cow::Owned(Op::Fused(Fused::Scan(plan)))
        })
    }

    /// Runs an operation with a tracked operand or destination, and records it.
    fn run_tracked(
        &self,
        op: &Op,
        ins: &[View<'_, Buffer<B>>],
        outs: Dests<Buffer<B>>,
    ) -> Result<Buffers<Buffer<B>>> {
        let tracked: SmallVec<[bool; 8]> = ins.iter().map(|v| v.buffer.source.is_some()).collect();
        let op = self.saving(op, &tracked);
        if let Op::Fused(fused) = &*op
            && !rules::has_rule(fused)
        {
            // The default body consists of operations that have gradient rules.
            return compose(self, fused, ins, outs);
        }
        if outs.iter().any(|dest| matches!(dest, Dest::Into(_))) {
            return Err(untracked_only(op.name()));
        }
        let metas: Metas = ins.iter().map(View::meta).collect();
        let all = op.infer(&metas)?;
        let dests = all.iter().map(|&meta| Dest::New(meta)).collect();
        let mut results = self.run_inner(&op, ins, dests)?;
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
        // The node keeps the results that were saved for the gradient.
        results.truncate(outs.len());
        Ok(results)
    }
}

/// Implements [`Differentiable::gradients_of`] for a decorator by delegating to the inner device,
/// which has the same buffers.
pub fn gradients_inside<Outer, Inner>(
    outer: &Outer,
    inner: &Inner,
    losses: &[&Tensor<Outer>],
    leaves: &[&Tensor<Outer>],
    reach: Reach,
    take: &mut TakeGradient<'_, Outer>,
) -> Result<()>
where
    Inner: Differentiable,
    Outer: Backend<Buffer = Inner::Buffer>,
{
    let on_inner = |tensors: &[&Tensor<Outer>]| -> Vec<Tensor<Inner>> {
        tensors.iter().map(|t| t.on_backend(inner)).collect()
    };
    let (losses, leaves) = (on_inner(losses), on_inner(leaves));
    let losses: Vec<_> = losses.iter().collect();
    let leaves: Vec<_> = leaves.iter().collect();
    let take = &mut |loss, leaf, grad: Option<Gradient<Inner>>| {
        let grad = grad.map(|grad| grad.on(|t| Ok(t.on_backend(outer))));
        take(loss, leaf, grad.transpose()?)
    };
    inner.gradients_of(&losses, &leaves, reach, take)
}

/// Implements `Differentiable` for a decorator that has the same buffers as its inner device.
macro_rules! differentiable_decorator {
    ($($decorator:ident . $inner:ident),*) => {
        $(impl<B: Differentiable> Differentiable for $decorator<B> {
            fn leaf(&self, t: &Tensor<Self>) -> Result<Tensor<Self>> {
                let inner = self.$inner();
                Ok(inner.leaf(&t.on_backend(inner))?.on_backend(self))
            }

            fn gradients_of(
                &self,
                losses: &[&Tensor<Self>],
                leaves: &[&Tensor<Self>],
                reach: Reach,
                take: &mut TakeGradient<'_, Self>,
            ) -> Result<()> {
                gradients_inside(self, self.$inner(), losses, leaves, reach, take)
            }
        })*
    };
}

differentiable_decorator!(Unfused.inner, Counting.inner);

/// The same view on the inner device.
fn inner_view<'a, B: Backend>(view: &View<'a, Buffer<B>>) -> View<'a, B::Buffer> {
    view.with_buffer(&view.buffer.inner)
}

fn untracked_only(op: &str) -> Error {
    Error::Gradient(format!(
        "{op}: cannot write a tracked tensor into a destination; detach it first"
    ))
}
