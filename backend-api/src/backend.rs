//! The contract between the framework and a device.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::{DType, Error, Layout, Meta, Op, Result, SequencePlan, SequenceRequest, Tensor};

/// A device that holds buffers and runs operations on them.
///
/// A value of a type that implements this is a handle: cheap to clone, usable from many
/// threads, without process-wide state, so that two devices (or one device with two thread
/// counts) can live side by side.
///
/// Code above this trait never calls [`run`](Self::run) itself; it uses [`Tensor`]'s methods, which check
/// shapes and types first. An implementation may therefore assume what [`Op::infer`] checked.
pub trait Backend: Clone + fmt::Debug + Send + Sync + 'static {
    /// Elements on the device: reference counted (a clone shares them), of a fixed length
    /// and type.
    type Buffer: Clone + fmt::Debug + Send + Sync + 'static;

    /// A buffer that has been moved out of device memory.
    type Swapped: fmt::Debug + Send + Sync + 'static;

    /// The device's name for messages: `cpu`, `cuda:0`.
    fn name(&self) -> String;

    /// Whether buffers of one are buffers of the other.
    fn same_device(&self, other: &Self) -> bool;

    /// A buffer with the given elements. `bytes` has exactly `meta.bytes()` bytes, in the host's byte
    /// order.
    fn upload(&self, bytes: &[u8], meta: Meta) -> Result<Self::Buffer>;

    /// The elements of a view in row-major order, in the host's byte order. `into` has exactly as many
    /// bytes as they take. Waits for the operations that make them.
    fn download(&self, src: View<'_, Self::Buffer>, into: &mut [u8]) -> Result<()>;

    /// Runs one operation: the only way to compute. See [`Op`] for what each does.
    ///
    /// There is one entry in `outs` for each result, which says its shape and type and where to write
    /// it; the results come back in the same order.
    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, Self::Buffer>],
        outs: Dests<Self::Buffer>,
    ) -> Result<Buffers<Self::Buffer>>;

    /// `dst[at] += src`, shapes equal, floats. In place where `dst` is the only owner of its
    /// elements, else on a copy, so that nobody else sees a change.
    fn accumulate(
        &self,
        dst: Self::Buffer,
        at: &Layout,
        src: View<'_, Self::Buffer>,
    ) -> Result<Self::Buffer>;

    /// Starts moving a buffer's elements to host memory. May return before the move is done. Where
    /// device memory is host memory this does nothing and costs nothing.
    fn swap_out(&self, buffer: Self::Buffer) -> Result<Self::Swapped>;

    /// Brings a buffer back. May return before the elements are there; operations on it wait.
    fn swap_in(&self, swapped: Self::Swapped) -> Result<Self::Buffer>;

    /// Waits until everything asked for so far is done, and reports what failed meanwhile.
    fn synchronize(&self) -> Result<()>;

    /// What the device's memory is used for.
    fn memory(&self) -> Memory;

    /// How the device would run a whole sequence, or `None` if a cell should go step by step.
    fn plan_sequence(&self, request: &SequenceRequest) -> Option<SequencePlan> {
        Some(SequencePlan::stepwise(request))
    }

    /// Whether operations on the buffer are recorded for a gradient.
    fn is_tracked(&self, _buffer: &Self::Buffer) -> bool {
        false
    }

    /// The same elements without their history.
    fn detach(&self, buffer: &Self::Buffer) -> Self::Buffer {
        buffer.clone()
    }

    /// Runs a part of a computation under a policy for what is kept of it until the gradient
    /// is computed. `body` must be a pure function of its inputs and of what it captures, since it may run
    /// again. A device that records nothing just runs it.
    fn segment(
        &self,
        _keep: Keep,
        inputs: &[Tensor<Self>],
        body: SegmentBody<Self>,
    ) -> Result<Vec<Tensor<Self>>> {
        body(self, inputs)
    }
}

/// What [`Backend::segment`] runs: the device it runs on, and the inputs.
pub type SegmentBody<B> = Arc<dyn Fn(&B, &[Tensor<B>]) -> Result<Vec<Tensor<B>>> + Send + Sync>;

/// What is kept of a segment between its forward and its backward pass. All policies give
/// the same gradients bit for bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Everything the gradient needs.
    #[default]
    All,
    /// The inputs; the rest is computed again.
    Inputs,
    /// Everything, in host memory ([`Backend::swap_out`]).
    Host,
}

/// Figures about a device's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In buffers that somebody holds.
    pub in_use: usize,
    /// The most that was in use at once so far.
    pub peak: usize,
    /// Kept for reuse.
    pub pooled: usize,
    /// How often the system was asked for memory so far. A loop in steady state does not change it.
    pub system_allocations: u64,
}

/// A buffer to read, and how.
#[derive(Debug)]
pub struct View<'a, Buffer> {
    /// The elements.
    pub buffer: &'a Buffer,
    /// Which of them, in which order.
    pub layout: Layout,
    /// Their type.
    pub dtype: DType,
}

// Derived versions would ask `Buffer: Copy`.
impl<Buffer> Clone for View<'_, Buffer> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Buffer> Copy for View<'_, Buffer> {}

impl<Buffer> View<'_, Buffer> {
    /// The same view of another buffer: what decorators unwrap a view with.
    pub fn with_buffer<'a, Other>(&self, buffer: &'a Other) -> View<'a, Other> {
        View {
            buffer,
            layout: self.layout,
            dtype: self.dtype,
        }
    }

    /// Shape and type.
    pub fn meta(&self) -> Meta {
        Meta::new(self.layout.shape(), self.dtype)
    }
}

/// Where a result goes.
#[derive(Debug)]
pub enum Dest<Buffer> {
    /// Into a new buffer, row-major and without gaps.
    New(Meta),
    /// Into a given buffer of the result's type, at the layout's elements; the buffer comes back as the
    /// result, its other elements as they were. In place where the buffer is not shared
    /// (the operation's own inputs count), else on a copy.
    Into(Box<(Buffer, Layout)>),
}

/// One [`Dest`] for each result of an operation.
pub type Dests<Buffer> = SmallVec<[Dest<Buffer>; 3]>;

/// The operands of an operation.
pub type Views<'a, Buffer> = SmallVec<[View<'a, Buffer>; 4]>;

/// The results of an operation.
pub type Buffers<Buffer> = SmallVec<[Buffer; 3]>;

/// Shapes and types of an operation's operands or results.
pub type Metas = SmallVec<[Meta; 3]>;

/// Forwards every method of [`Backend`] but [`run`](Backend::run) to a field that has the same buffer type,
/// so that a decorator states just what it changes.
///
/// ```
/// use backend_api::{Backend, Buffers, Dests, Op, Result, View, forward_backend};
///
/// /// Prints each operation.
/// #[derive(Clone, Debug)]
/// struct Traced<B>(B);
///
/// impl<B: Backend> Backend for Traced<B> {
///     forward_backend!(B, 0);
///     fn run(&self, op: &Op, ins: &[View<'_, B::Buffer>], outs: Dests<B::Buffer>) -> Result<Buffers<B::Buffer>> {
///         println!("{op:?}");
///         self.0.run(op, ins, outs)
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward_backend {
    ($inner:ty, $field:tt) => {
        type Buffer = <$inner as $crate::Backend>::Buffer;
        type Swapped = <$inner as $crate::Backend>::Swapped;

        fn name(&self) -> String {
            self.$field.name()
        }
        fn same_device(&self, other: &Self) -> bool {
            self.$field.same_device(&other.$field)
        }
        fn upload(&self, bytes: &[u8], meta: $crate::Meta) -> $crate::Result<Self::Buffer> {
            self.$field.upload(bytes, meta)
        }
        fn download(
            &self,
            src: $crate::View<'_, Self::Buffer>,
            into: &mut [u8],
        ) -> $crate::Result<()> {
            self.$field.download(src, into)
        }
        fn accumulate(
            &self,
            dst: Self::Buffer,
            at: &$crate::Layout,
            src: $crate::View<'_, Self::Buffer>,
        ) -> $crate::Result<Self::Buffer> {
            self.$field.accumulate(dst, at, src)
        }
        fn swap_out(&self, buffer: Self::Buffer) -> $crate::Result<Self::Swapped> {
            self.$field.swap_out(buffer)
        }
        fn swap_in(&self, swapped: Self::Swapped) -> $crate::Result<Self::Buffer> {
            self.$field.swap_in(swapped)
        }
        fn synchronize(&self) -> $crate::Result<()> {
            self.$field.synchronize()
        }
        fn memory(&self) -> $crate::Memory {
            self.$field.memory()
        }
        fn plan_sequence(&self, request: &$crate::SequenceRequest) -> Option<$crate::SequencePlan> {
            self.$field.plan_sequence(request)
        }
        fn is_tracked(&self, buffer: &Self::Buffer) -> bool {
            self.$field.is_tracked(buffer)
        }
        fn detach(&self, buffer: &Self::Buffer) -> Self::Buffer {
            self.$field.detach(buffer)
        }
        fn segment(
            &self,
            keep: $crate::Keep,
            inputs: &[$crate::Tensor<Self>],
            body: $crate::SegmentBody<Self>,
        ) -> $crate::Result<Vec<$crate::Tensor<Self>>> {
            $crate::forward_segment(self, &self.$field, keep, inputs, body)
        }
    };
}

/// The error for a buffer of a backend that the device is not: for [`dispatch!`](crate::dispatch).
#[doc(hidden)]
pub fn foreign_buffer<B: Backend>(device: &B, op: &'static str) -> Error {
    Error::Device {
        op,
        arg: "an operand".into(),
        found: "another device".into(),
        expected: device.name(),
    }
}

/// Runs a segment on the device inside a decorator with the same buffers, and the body on the decorator:
/// what [`forward_backend!`] puts in for [`Backend::segment`].
pub fn forward_segment<Outer, Inner>(
    outer: &Outer,
    inner: &Inner,
    keep: Keep,
    inputs: &[Tensor<Outer>],
    body: SegmentBody<Outer>,
) -> Result<Vec<Tensor<Outer>>>
where
    Inner: Backend,
    Outer: Backend<Buffer = Inner::Buffer>,
{
    let inner_inputs: Vec<_> = inputs.iter().map(|t| t.rehome(inner)).collect();
    let home = outer.clone();
    let outputs = inner.segment(
        keep,
        &inner_inputs,
        Arc::new(move |inner: &Inner, ins: &[Tensor<Inner>]| {
            let ins: Vec<_> = ins.iter().map(|t| t.rehome(&home)).collect();
            let outs = body(&home, &ins)?;
            Ok(outs.iter().map(|t| t.rehome(inner)).collect())
        }),
    )?;
    Ok(outputs.iter().map(|t| t.rehome(outer)).collect())
}
