//! A pool of page-locked host memory, for copies that run concurrently with kernels.
//!
//! Page-locking takes milliseconds, so the pool keeps what was used at once before. It never hands
//! out memory that a copy still uses: a host that runs ahead of its copies waits for the oldest
//! instead of locking ever more memory.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::{Error, Result};
use cudarc::driver::{CudaEvent, DriverError, result, sys};

use crate::pool::size_class;
use crate::primary::Primary;

/// Bytes that the pool may have above the peak of the bytes in use: for copies that are running.
const SPARE: usize = 64 << 20;

/// The host memory pool of a device.
pub(crate) struct Slabs {
    primary: Arc<Primary>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Free memory with its size, the one first that became free first.
    free: VecDeque<(usize, Memory)>,
    /// Bytes of the pool.
    all: usize,
    /// Bytes in use, and their peak.
    used: usize,
    peak: usize,
}

impl State {
    /// Whether `more` bytes exceed what the pool may have: `spare` above the peak.
    fn is_above(&self, spare: usize, more: usize) -> bool {
        self.all.saturating_add(more) > self.peak.saturating_add(spare)
    }
}

struct Memory {
    at: NonNull<c_void>,
    /// Marks the end of the last copy from or to this memory.
    busy: Option<Arc<CudaEvent>>,
}

// SAFETY: plain memory with one owner at a time.
unsafe impl Send for Memory {}
// SAFETY: a shared reference gives no access to the memory behind the address.
unsafe impl Sync for Memory {}

/// A block of host memory, returned to its pool on drop.
pub(crate) struct Slab {
    slabs: Arc<Slabs>,
    size: usize,
    memory: Memory,
}

impl Slabs {
    pub(crate) fn new(primary: Arc<Primary>) -> Self {
        Self {
            primary,
            state: Mutex::default(),
        }
    }

    /// Takes a slab of at least `bytes` bytes that no copy uses.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Slab> {
        let size = size_class(bytes);
        self.primary.bind()?;
        let memory = match self.reuse(size, false) {
            Some(memory) => memory,
            None => self.grow(size)?,
        };
        let mut state = self.lock();
        state.used += size;
        state.peak = state.peak.max(state.used);
        Ok(Slab {
            slabs: self.clone(),
            size,
            memory,
        })
    }

    /// Free memory of a size, the one first that became free first; also memory that a copy still
    /// uses, if it may be `busy`.
    fn reuse(&self, size: usize, busy: bool) -> Option<Memory> {
        let free = &mut self.lock().free;
        let idle = |m: &Memory| m.busy.as_ref().is_none_or(|event| event.is_complete());
        let at = free
            .iter()
            .position(|(s, m)| *s == size && (busy || idle(m)))?;
        free.remove(at).map(|(_, memory)| memory)
    }

    /// More memory, or memory for whose copy it waits if the pool has as much as it may.
    fn grow(&self, size: usize) -> Result<Memory> {
        let full = self.lock().is_above(SPARE, size);
        if full && let Some(memory) = self.reuse(size, true) {
            if let Some(event) = &memory.busy {
                let failed = |e| self.primary.failure("copying", e);
                event.synchronize().map_err(failed)?;
            }
            return Ok(memory);
        }
        self.shrink_to(SPARE, size)?;
        self.lock_pages(size)
    }

    fn lock_pages(&self, size: usize) -> Result<Memory> {
        let failed = |e| self.primary.failure("allocating host memory", e);
        // SAFETY: `take` has bound the context. This is ordinary page-locked memory, which only
        // `shrink_to` and `drop` free.
        let ask = || unsafe { result::malloc_host(size, 0) }.map_err(failed);
        let at = ask().or_else(|error| match error {
            Error::OutOfMemory { .. } => {
                self.release()?;
                ask()
            }
            other => Err(other),
        });
        let at = at.map_err(|error| match error {
            Error::OutOfMemory { memory, .. } => Error::OutOfMemory {
                device: "page-locked memory of the host".into(),
                requested: size,
                free: 0,
                memory,
            },
            other => other,
        })?;
        let none = DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let at = NonNull::new(at).ok_or_else(|| failed(none))?;
        self.lock().all += size;
        Ok(Memory { at, busy: None })
    }

    /// Frees all memory that is not in use.
    pub(crate) fn release(&self) -> Result<()> {
        self.shrink_to(0, usize::MAX)
    }

    /// Frees memory that is not in use, the oldest first, until there is room for `more` bytes
    /// beside the peak of the bytes in use and `spare`, or none is left. Waits for its copies.
    fn shrink_to(&self, spare: usize, more: usize) -> Result<()> {
        let failed = |e| self.primary.failure("freeing host memory", e);
        loop {
            let mut state = self.lock();
            let Some((size, memory)) = (match state.is_above(spare, more) {
                true => state.free.pop_front(),
                false => None,
            }) else {
                return Ok(());
            };
            state.all -= size;
            drop(state);
            if let Some(event) = &memory.busy {
                event.synchronize().map_err(failed)?;
            }
            // SAFETY: the memory came from `malloc_host`, and no copy uses it any more.
            unsafe { result::free_host(memory.at.as_ptr()) }.map_err(failed)?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between statements, so a poisoned lock is still usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        let _ = self.primary.bind();
        // An error leaks the memory: a copy may still be running.
        let _ = self.release();
    }
}

impl Slab {
    pub(crate) fn address(&self) -> *mut c_void {
        self.memory.at.as_ptr()
    }

    /// The event after the last copy from or to the slab.
    pub(crate) fn busy(&self) -> Option<&CudaEvent> {
        self.memory.busy.as_deref()
    }

    /// Registers a copy that uses the slab until `event`, which has been recorded.
    pub(crate) fn busy_until(&mut self, event: Arc<CudaEvent>) {
        self.memory.busy = Some(event);
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let memory = Memory {
            at: self.memory.at,
            busy: self.memory.busy.take(),
        };
        let mut state = self.slabs.lock();
        state.used -= self.size;
        state.free.push_back((self.size, memory));
    }
}
