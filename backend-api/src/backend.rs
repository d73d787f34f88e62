//! The interface between the framework and a device.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::trace::{SharedProgram, StepCache, StepGraph};
use crate::{DType, Error, Layout, Meta, Op, Result, Tensor, Update, update_by_run};

/// A device: holds buffers and runs operations on them.
///
/// A value of an implementing type is a handle. It is cheap to clone, usable from many threads and
/// has no process-wide state, so that two devices (or one device with two thread counts) can exist
/// side by side.
///
/// Code above this trait does not call [`run`](Self::run) itself. It calls [`Tensor`]'s methods,
/// which check shapes and types first. An implementation may therefore rely on the checks of
/// [`Op::infer`]; a device that would otherwise access memory out of bounds repeats them with
/// [`check_run`](crate::check_run), because safe code can call `run` with any arguments.
///
/// ```
/// use recurrent::backend::Tensor;
/// use recurrent::{Backend, Device, Result};
///
/// # fn main() -> recurrent::Result<()> {
/// /// Code for every device: also for one that only records, or differentiates.
/// fn rotated<B: Backend>(x: &Tensor<B>) -> Result<Tensor<B>> {
///     let (a, b) = (x.slice(0, 0..1)?, x.slice(0, 1..x.dims()[0])?);
///     Tensor::concat(&[&b, &a], 0)
/// }
/// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0], &[3])?;
/// assert_eq!(rotated(&x)?.to_vec::<f32>()?, [2.0, 3.0, 1.0]);
/// # Ok(()) }
/// ```
pub trait Backend: Clone + fmt::Debug + Send + Sync + 'static {
    /// Elements on the device. Reference counted (clones share the elements), of fixed length and
    /// type.
    type Buffer: Clone + fmt::Debug + Send + Sync + 'static;

    /// A buffer that has been moved out of device memory.
    type Swapped: fmt::Debug + Send + Sync + 'static;

    /// The device's name in messages: `cpu`, `cuda:0`.
    fn name(&self) -> String;

    /// Whether the buffers of one device can be operands of the other.
    fn same_device(&self, other: &Self) -> bool;

    /// The number and the type of a buffer's elements. [`Tensor::from_parts`] checks layouts
    /// against them.
    ///
    /// # Errors
    /// The buffer belongs to another backend.
    fn extent(&self, buffer: &Self::Buffer) -> Result<(usize, DType)>;

    /// Creates a buffer from elements in the host's byte order. `bytes` has exactly `meta.bytes()`
    /// bytes.
    fn upload(&self, bytes: &[u8], meta: Meta) -> Result<Self::Buffer>;

    /// Copies the elements of a view to the host, in row-major order and the host's byte order.
    /// `into` has exactly the required number of bytes. Waits for the operations that compute the
    /// elements.
    fn download(&self, src: View<'_, Self::Buffer>, into: &mut [u8]) -> Result<()>;

    /// Runs one operation. All computation except `accumulate` and `update` uses this method.
    /// [`Op`] specifies each operation.
    ///
    /// `outs` has one entry for each result. It gives the result's shape and type, and the buffer
    /// to write to. The results are returned in the same order.
    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, Self::Buffer>],
        outs: Dests<Self::Buffer>,
    ) -> Result<Buffers<Self::Buffer>>;

    /// Computes `dst[at] += src`; the shapes are equal, the elements floats. Works in place if
    /// `dst` is the only handle of its buffer, else on a copy, so that other handles never observe
    /// a change.
    fn accumulate(
        &self,
        dst: Self::Buffer,
        at: &Layout,
        src: View<'_, Self::Buffer>,
    ) -> Result<Self::Buffer>;

    /// Runs an operation for each entry, and replaces its first operands by its results. A buffer
    /// keeps its memory if this is its only handle, else a new one takes its place, so that other
    /// handles never observe a change. The entries do not depend on one another: a handle that is
    /// state of one is no operand of another. All have operands of the same types. If the device
    /// fails, the contents of the state are unspecified.
    ///
    /// The default runs the operation with new buffers for its results. A device overrides the
    /// method for the operations that it can run in place.
    fn update(&self, op: &Op, updates: &mut [Update<'_, Self::Buffer>]) -> Result<()> {
        update_by_run(self, op, updates)
    }

    /// Starts to move a buffer's elements out of device memory: to host memory, or to a file if
    /// device memory is host memory. May return before the transfer is complete. Does nothing, and
    /// costs nothing, unless the device [can offload](Self::can_offload).
    fn swap_out(&self, buffer: Self::Buffer) -> Result<Self::Swapped>;

    /// Moves a buffer back to device memory. May return before the transfer is complete; operations
    /// on the buffer wait for it.
    fn swap_in(&self, swapped: Self::Swapped) -> Result<Self::Buffer>;

    /// Whether [`swap_out`](Self::swap_out) frees device memory.
    fn can_offload(&self) -> bool {
        false
    }

    /// Waits for all operations issued so far, and returns the first error of any of them.
    fn synchronize(&self) -> Result<()>;

    /// Memory statistics of the device.
    fn memory(&self) -> Memory;

    /// Returns the memory that the device [keeps for reuse](Memory::pooled) to the system, for
    /// other programs. A GPU first waits for all its work. Results do not change; the next
    /// operations ask the system for memory again. A device that runs out of memory does this by
    /// itself.
    ///
    /// ```
    /// use recurrent::{Backend, Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// drop(Tensor::zeros(&device, &[1 << 20])?);
    /// assert!(device.memory().pooled >= 4 << 20);
    /// device.release_cached()?;
    /// assert_eq!(device.memory().pooled, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The device failed.
    fn release_cached(&self) -> Result<()> {
        Ok(())
    }

    /// Makes a program of the part of a step that runs step by step, for
    /// [`Fused::Scan`](crate::Fused::Scan). The error says why the step has none; it then runs
    /// operation by operation.
    fn compile_step(&self, _step: &StepGraph) -> Result<SharedProgram, String> {
        Err("the device has no programs for steps".to_owned())
    }

    /// The device's cache of compiled steps, if it has one.
    fn step_cache(&self) -> Option<&StepCache> {
        None
    }

    /// Whether operations on the buffer are recorded for a gradient.
    fn is_tracked(&self, _buffer: &Self::Buffer) -> bool {
        false
    }

    /// The same elements without their gradient history.
    fn detach(&self, buffer: &Self::Buffer) -> Self::Buffer {
        buffer.clone()
    }

    /// The values that back-propagation from these tensors would read and that are stored for it.
    fn stored(&self, _tensors: &[&Tensor<Self>]) -> Stored {
        Stored::default()
    }

    /// Runs a part of a computation under a memory policy, which decides how its intermediate
    /// values are stored until the gradient is computed. `body` must be a pure function of its
    /// inputs and captures, since back-propagation may run it again. A device that records no
    /// operations just runs it.
    fn segment(
        &self,
        _keep: MemoryPolicy,
        inputs: &[Tensor<Self>],
        body: SegmentBody<Self>,
    ) -> Result<Vec<Tensor<Self>>> {
        body(self, inputs)
    }
}

/// The body of [`Backend::segment`]: takes the device to run on and the inputs.
pub type SegmentBody<B> = Arc<dyn Fn(&B, &[Tensor<B>]) -> Result<Vec<Tensor<B>>> + Send + Sync>;

/// Memory policy of back-propagation through time: how a segment's values are stored between its
/// forward and its backward pass. All policies give bit-identical gradients for one length of
/// segments.
///
/// ```
/// use recurrent::{Device, DynamicRnn, GruCell, MemoryPolicy, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 3, 4)?;
/// let x = Tensor::ones(&device, &[2, 50, 3])?;
/// let norm = |policy| {
///     let (_, grads) = value_and_grad(&cell, |cell| {
///         let rnn = DynamicRnn::new(cell).memory_policy(policy).segment_length(7);
///         rnn.run(&x)?.state.sum_all()
///     })?;
///     grads.global_norm()?.item()
/// };
/// // Less memory for more time, and the same gradients.
/// assert_eq!(norm(MemoryPolicy::Recompute)?, norm(MemoryPolicy::Store)?);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MemoryPolicy {
    /// Store every value that the gradient needs.
    #[default]
    Store,
    /// Store the inputs and recompute the rest in the backward pass (checkpointing).
    Recompute,
    /// Offload every value that the gradient needs ([`Backend::swap_out`]): a GPU to host memory, a
    /// CPU to a file, if it has been given a folder for it. The same as `Store` elsewhere.
    Offload,
}

impl MemoryPolicy {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::Store, Self::Recompute, Self::Offload];
}

/// `store`, `recompute` or `offload`.
impl fmt::Display for MemoryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Recompute => "recompute",
            Self::Offload => "offload",
        })
    }
}

impl FromStr for MemoryPolicy {
    type Err = Error;

    /// Reads the name that [`Display`](fmt::Display) writes.
    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|p| p.to_string() == name);
        found.ok_or_else(|| {
            let problem = format!("is `{name}`, but must be store, recompute or offload");
            Error::argument("memory_policy", "name", problem)
        })
    }
}

/// Memory statistics of a device, in bytes.
///
/// ```
/// use recurrent::{Backend, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let before = device.memory().in_use;
/// let x = Tensor::zeros(&device, &[1000])?;
/// assert!(device.memory().in_use >= before + 4000);
/// drop(x);
/// assert_eq!(device.memory().in_use, before);
/// assert!(device.memory().peak >= before + 4000);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In live buffers.
    pub in_use: usize,
    /// The peak of `in_use` so far.
    pub peak: usize,
    /// In free blocks that the pool keeps for reuse.
    pub pooled: usize,
    /// Number of allocations from the operating system so far. Constant for a loop in steady state.
    pub system_allocations: u64,
}

/// The size of the values that are stored for a gradient, in bytes.
///
/// Parameters do not count, and neither do parts of larger tensors without a gradient, such as a
/// slice of a data set.
///
/// ```
/// use recurrent::{Backend, BasicRnnCell, Device, DynamicRnn, Stored, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicRnnCell::new(&device, 3, 4)?;
/// let x = Tensor::ones(&device, &[2, 50, 3])?;
/// let mut stored = Stored::default();
/// value_and_grad(&cell, |cell| {
///     let loss = DynamicRnn::new(cell).run(&x)?.outputs.sum_all()?;
///     stored = device.stored(&[&loss]);
///     Ok(loss)
/// })?;
/// assert!(stored.device >= 4 * 2 * 50 * 4); // the outputs at least
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// In device memory.
    pub device: usize,
    /// [Offloaded](Backend::swap_out).
    pub offloaded: usize,
}

/// An operand: a buffer and how to read it.
#[derive(Debug)]
pub struct View<'a, Buffer> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// Shape, strides and offset of the elements.
    pub layout: &'a Layout,
    /// The element type.
    pub dtype: DType,
}

// A derived impl would require `Buffer: Copy`.
impl<Buffer> Clone for View<'_, Buffer> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Buffer> Copy for View<'_, Buffer> {}

impl<'a, Buffer> View<'a, Buffer> {
    /// The same view of another buffer: decorators use it to unwrap operands.
    pub fn with_buffer<Other>(&self, buffer: &'a Other) -> View<'a, Other> {
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

/// Where to write a result.
#[derive(Debug)]
pub enum Dest<Buffer> {
    /// A new buffer, row-major and without gaps.
    New(Meta),
    /// The elements of an existing buffer that the layout selects. The buffer has the result's
    /// type; it is returned as the result, with its other elements unchanged. Written in place if
    /// the buffer is not shared (operands of the operation count as sharing), else in a copy.
    Into(Box<(Buffer, Layout)>),
}

/// One [`Dest`] for each result of an operation.
pub type Dests<Buffer> = SmallVec<[Dest<Buffer>; 3]>;

/// The operands of an operation.
pub type Views<'a, Buffer> = SmallVec<[View<'a, Buffer>; 6]>;

/// The results of an operation.
pub type Buffers<Buffer> = SmallVec<[Buffer; 3]>;

/// Shapes and types of an operation's operands or results.
pub type Metas = SmallVec<[Meta; 3]>;

/// Forwards every method of [`Backend`] except [`run`](Backend::run) to a field with the same
/// buffer type, so that a decorator implements only `run`.
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
///     fn run(
///         &self,
///         op: &Op,
///         ins: &[View<'_, B::Buffer>],
///         outs: Dests<B::Buffer>,
///     ) -> Result<Buffers<B::Buffer>> {
///         println!("{op:?}");
///         self.0.run(op, ins, outs)
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward_backend {
    ($inner:ty, $field:tt) => {
        $crate::forward_backend!(@common $inner, $field);

        fn compile_step(
            &self,
            step: &$crate::trace::StepGraph,
        ) -> $crate::Result<$crate::trace::SharedProgram, ::std::string::String> {
            self.$field.compile_step(step)
        }
        fn step_cache(&self) -> Option<&$crate::trace::StepCache> {
            self.$field.step_cache()
        }
    };
    (@common $inner:ty, $field:tt) => {
        type Buffer = <$inner as $crate::Backend>::Buffer;
        type Swapped = <$inner as $crate::Backend>::Swapped;

        fn name(&self) -> String {
            self.$field.name()
        }
        fn same_device(&self, other: &Self) -> bool {
            self.$field.same_device(&other.$field)
        }
        fn extent(&self, buffer: &Self::Buffer) -> $crate::Result<(usize, $crate::DType)> {
            self.$field.extent(buffer)
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
        fn can_offload(&self) -> bool {
            self.$field.can_offload()
        }
        fn synchronize(&self) -> $crate::Result<()> {
            self.$field.synchronize()
        }
        fn memory(&self) -> $crate::Memory {
            self.$field.memory()
        }
        fn release_cached(&self) -> $crate::Result<()> {
            self.$field.release_cached()
        }
        fn is_tracked(&self, buffer: &Self::Buffer) -> bool {
            self.$field.is_tracked(buffer)
        }
        fn detach(&self, buffer: &Self::Buffer) -> Self::Buffer {
            self.$field.detach(buffer)
        }
        fn stored(&self, tensors: &[&$crate::Tensor<Self>]) -> $crate::Stored {
            let inner: Vec<_> = tensors.iter().map(|t| t.on_backend(&self.$field)).collect();
            self.$field.stored(&inner.iter().collect::<Vec<_>>())
        }
        fn segment(
            &self,
            memory_policy: $crate::MemoryPolicy,
            inputs: &[$crate::Tensor<Self>],
            body: $crate::SegmentBody<Self>,
        ) -> $crate::Result<Vec<$crate::Tensor<Self>>> {
            $crate::forward_segment(self, &self.$field, memory_policy, inputs, body)
        }
    };
}

/// The error for a buffer of another backend: for [`dispatch!`](crate::dispatch).
#[doc(hidden)]
pub fn foreign_buffer<B: Backend>(device: &B, op: &'static str) -> Error {
    Error::Device {
        op,
        arg: "an operand".into(),
        found: "another device".into(),
        expected: device.name(),
    }
}

/// Runs a segment on the device inside a decorator with the same buffer type, and the segment's
/// body on the decorator. [`forward_backend!`] implements [`Backend::segment`] with it.
pub fn forward_segment<Outer, Inner>(
    outer: &Outer,
    inner: &Inner,
    memory_policy: MemoryPolicy,
    inputs: &[Tensor<Outer>],
    body: SegmentBody<Outer>,
) -> Result<Vec<Tensor<Outer>>>
where
    Inner: Backend,
    Outer: Backend<Buffer = Inner::Buffer>,
{
    let inner_inputs: Vec<_> = inputs.iter().map(|t| t.on_backend(inner)).collect();
    let home = outer.clone();
    let outputs = inner.segment(
        memory_policy,
        &inner_inputs,
        Arc::new(move |inner: &Inner, ins: &[Tensor<Inner>]| {
            let ins: Vec<_> = ins.iter().map(|t| t.on_backend(&home)).collect();
            let outs = body(&home, &ins)?;
            Ok(outs.iter().map(|t| t.on_backend(inner)).collect())
        }),
    )?;
    Ok(outputs.iter().map(|t| t.on_backend(outer)).collect())
}
