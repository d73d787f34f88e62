//! Buffers, and the destinations of operations.

use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use backend_api::{DType, Dest, Dests, Error, Layout, Precision, Result, Shape, View};
use bytemuck::Pod;

use crate::pool::{Pool, Scratch, Storage};
use crate::strided::Walk;

/// Elements in host memory, aligned to 64 bytes. Clones share the memory. Dropping the last one
/// returns it to the device's pool.
#[derive(Clone, Debug)]
pub struct CpuBuffer {
    storage: Arc<SharedStorage>,
    dtype: DType,
    count: usize,
}

/// Memory that is no longer written to, with a cache of values computed from it. The cache is
/// dropped with the memory.
#[derive(Debug)]
struct SharedStorage {
    storage: Storage,
    cached: Mutex<Vec<(PackKey, Arc<dyn Any + Send + Sync>)>>,
}

/// The key of a cached value: the elements of the buffer that it was computed from, and the form
/// that they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackKey {
    pub(crate) layout: Layout,
    /// The part of these elements that was used, as a view of them in row-major order. `None` if
    /// the other fields describe it.
    pub(crate) view: Option<Layout>,
    pub(crate) part: Range<usize>,
    /// Whether it is for products of few rows, and their precision.
    pub(crate) form: (bool, Precision),
}

impl CpuBuffer {
    pub(crate) fn new(storage: Storage, dtype: DType, count: usize) -> Self {
        Self {
            storage: Arc::new(SharedStorage {
                storage,
                cached: Mutex::default(),
            }),
            dtype,
            count,
        }
    }

    /// Returns the cached value for the key `of`. Calls `make` if there is none and caches the
    /// result for as long as the memory lives.
    pub(crate) fn cached<D: Send + Sync + 'static>(
        &self,
        of: &PackKey,
        make: impl FnOnce() -> Result<D>,
    ) -> Result<Arc<D>> {
        let lock = || {
            self.storage
                .cached
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let find = |cached: &Vec<(PackKey, Arc<dyn Any + Send + Sync>)>| {
            let mut known = cached.iter().filter(|(d, _)| d == of);
            known.find_map(|(_, made)| made.clone().downcast::<D>().ok())
        };
        if let Some(known) = find(&lock()) {
            return Ok(known);
        }
        // `make` may take long and use threads, so it runs without the lock. If two threads compute
        // the same value, one result is dropped.
        let made = Arc::new(make()?);
        let mut cached = lock();
        if let Some(known) = find(&cached) {
            return Ok(known);
        }
        cached.push((of.clone(), made.clone()));
        Ok(made)
    }

    /// Makes this the only handle of the memory, which is copied if there are others.
    pub(crate) fn unshare(&mut self, pool: &Arc<Pool>) -> Result<()> {
        if Arc::get_mut(&mut self.storage).is_none() {
            let storage = unshared(pool, self.clone(), false)?;
            *self = Self::new(storage, self.dtype, self.count);
        }
        Ok(())
    }

    /// The elements to write; none if there are other handles. Values computed from them are
    /// forgotten.
    pub(crate) fn elements_mut<T: Pod>(&mut self) -> &mut [T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.size());
        let Some(shared) = Arc::get_mut(&mut self.storage) else {
            return &mut [];
        };
        shared.cached = Mutex::default();
        &mut shared.storage.elements_mut()[..self.count]
    }

    /// The elements as a slice of `T`, which must have the element type's size.
    pub(crate) fn elements<T: Pod>(&self) -> &[T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.size());
        &self.storage.storage.elements()[..self.count]
    }
}

/// An operand.
pub(crate) type Input<'a> = View<'a, CpuBuffer>;

/// The elements of an operand in row-major order: borrowed if they are contiguous, otherwise
/// copied.
#[derive(Debug)]
pub(crate) enum Dense<'a, T> {
    Borrowed(&'a [T]),
    Copied(Scratch<T>),
}

impl<'a, T: Pod> Dense<'a, T> {
    pub(crate) fn new(pool: &Arc<Pool>, input: &Input<'a>) -> Result<Self> {
        let data = input.buffer.elements::<T>();
        let count = input.layout.shape().count();
        if count == 0 {
            return Ok(Self::Borrowed(&[]));
        }
        if input.layout.is_contiguous() {
            let start = input.layout.offset();
            return Ok(Self::Borrowed(&data[start..start + count]));
        }
        let mut copy = pool.scratch(count)?;
        Walk::new(input.layout).read(data, 0, &mut copy);
        Ok(Self::Copied(copy))
    }
}

impl<T: Pod> std::ops::Deref for Dense<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Self::Borrowed(slice) => slice,
            Self::Copied(copy) => copy,
        }
    }
}

/// A result while it is written. Kernels always write contiguous row-major data. If the destination
/// is not contiguous, they write to a staging block that [`finish`](Self::finish) copies to the
/// destination.
#[derive(Debug)]
pub(crate) struct Output {
    storage: Storage,
    dtype: DType,
    /// Elements of the whole buffer.
    count: usize,
    /// The elements to write: the first one, their number, and the length of the first axis.
    start: usize,
    len: usize,
    rows: usize,
    staged: Option<Box<Staged>>,
}

/// The elements of a destination with gaps.
#[derive(Debug)]
struct Staged {
    storage: Storage,
    layout: Layout,
}

impl Output {
    pub(crate) fn new(pool: &Arc<Pool>, dest: Dest<CpuBuffer>) -> Result<Self> {
        let rows = |shape: &Shape| shape.dims().first().copied().unwrap_or(1);
        let (buffer, layout) = match dest {
            Dest::New(meta) => {
                let len = meta.shape.count();
                return Ok(Self {
                    storage: pool.take(len * meta.dtype.size())?,
                    dtype: meta.dtype,
                    count: len,
                    start: 0,
                    len,
                    rows: rows(&meta.shape),
                    staged: None,
                });
            }
            Dest::Into(into) => *into,
        };
        let (dtype, count) = (buffer.dtype, buffer.count);
        let len = layout.shape().count();
        let storage = unshared(pool, buffer, layout.is_whole(count))?;
        let staged = match layout.is_contiguous() {
            true => None,
            false => {
                let storage = pool.take(len * dtype.size())?;
                Some(Box::new(Staged { storage, layout }))
            }
        };
        Ok(Self {
            storage,
            dtype,
            count,
            start: layout.offset(),
            len,
            rows: rows(&layout.shape()),
            staged,
        })
    }

    /// The elements to write, row-major. Their initial contents are unspecified.
    pub(crate) fn elements<T: Pod>(&mut self) -> &mut [T] {
        debug_assert_eq!(size_of::<T>(), self.dtype.size());
        if self.len == 0 {
            return &mut [];
        }
        let (storage, start) = match &mut self.staged {
            Some(staged) => (&mut staged.storage, 0),
            None => (&mut self.storage, self.start),
        };
        &mut storage.elements_mut()[start..start + self.len]
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The length of the result's first axis.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn finish(mut self) -> CpuBuffer {
        if let Some(staged) = self.staged.take() {
            match self.dtype.size() {
                1 => self.spread::<u8>(&staged),
                2 => self.spread::<u16>(&staged),
                4 => self.spread::<u32>(&staged),
                _ => self.spread::<u64>(&staged),
            }
        }
        CpuBuffer::new(self.storage, self.dtype, self.count)
    }

    fn spread<W: Pod>(&mut self, staged: &Staged) {
        let to = &mut self.storage.elements_mut::<W>()[..self.count];
        Walk::new(&staged.layout).write(to, &staged.storage.elements::<W>()[..self.len]);
    }
}

/// The buffer's memory if it has no other owner, otherwise a copy. If `overwritten` is set, the
/// contents are not copied.
pub(crate) fn unshared(pool: &Arc<Pool>, buffer: CpuBuffer, overwritten: bool) -> Result<Storage> {
    let bytes = buffer.count * buffer.dtype.size();
    match Arc::try_unwrap(buffer.storage) {
        Ok(kept) => Ok(kept.storage),
        Err(shared) => {
            let mut copy = pool.take(bytes)?;
            if !overwritten {
                copy.elements_mut::<u8>()[..bytes]
                    .copy_from_slice(&shared.storage.elements::<u8>()[..bytes]);
            }
            Ok(copy)
        }
    }
}

impl CpuBuffer {
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The elements as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.storage.storage.elements()[..self.count * self.dtype.size()]
    }
}

/// The destinations of an operation with `N` results.
pub(crate) fn dests<const N: usize>(outs: Dests<CpuBuffer>) -> Result<[Dest<CpuBuffer>; N]> {
    let given = outs.len();
    let outs: Vec<_> = outs.into_iter().collect();
    outs.try_into().map_err(|_| {
        Error::argument(
            "run",
            "number of results",
            format!("is {given}, but must be {N}"),
        )
    })
}

/// The operands of an operation that has `N`.
pub(crate) fn operands<'a, const N: usize>(ins: &[Input<'a>]) -> Result<[Input<'a>; N]> {
    ins.try_into().map_err(|_| {
        Error::argument(
            "run",
            "number of operands",
            format!("is {}, but must be {N}", ins.len()),
        )
    })
}
