//! A pool of page-locked host memory, for copies that run concurrently with kernels.
//!
//! The pool only grows. It never hands out memory that a copy still uses.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::Result;
use cudarc::driver::{CudaContext, CudaEvent, result, sys};

use crate::driver;
use crate::pool::size_class;

/// The host memory pool of a device.
pub(crate) struct Slabs {
    index: usize,
    context: Arc<CudaContext>,
    /// Free memory by size.
    free: Mutex<HashMap<usize, Vec<Memory>>>,
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
    pub(crate) fn new(index: usize, context: Arc<CudaContext>) -> Self {
        Self {
            index,
            context,
            free: Mutex::default(),
        }
    }

    /// Takes a slab of at least `bytes` bytes that no copy uses.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Slab> {
        let failed = |e| driver::failure(self.index, "allocating host memory", e);
        let size = size_class(bytes);
        self.context.bind_to_thread().map_err(failed)?;
        let memory = match self.reuse(size) {
            Some(memory) => memory,
            None => {
                // SAFETY: the context is bound. This is ordinary page-locked memory; only `drop`
                // frees it.
                let at = unsafe { result::malloc_host(size, 0) }.map_err(failed)?;
                let none = result::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
                let at = NonNull::new(at).ok_or_else(|| failed(none))?;
                Memory { at, busy: None }
            }
        };
        Ok(Slab {
            slabs: self.clone(),
            size,
            memory,
        })
    }

    fn reuse(&self, size: usize) -> Option<Memory> {
        let mut free = self.lock();
        let slabs = free.get_mut(&size)?;
        let idle = |m: &Memory| m.busy.as_ref().is_none_or(|event| event.is_complete());
        let at = slabs.iter().rposition(idle)?;
        Some(slabs.swap_remove(at))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Vec<Memory>>> {
        // The map is consistent between statements, so a poisoned lock is still usable.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        let free = self.free.get_mut().unwrap_or_else(PoisonError::into_inner);
        for memory in free.drain().flat_map(|(_, slabs)| slabs) {
            if let Some(event) = memory.busy
                && event.synchronize().is_err()
            {
                // A copy may still be running, so its memory is leaked.
                continue;
            }
            let _ = self.context.bind_to_thread();
            // SAFETY: the memory came from `malloc_host`, and no copy uses it any more.
            let _ = unsafe { result::free_host(memory.at.as_ptr()) };
        }
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
        self.slabs.lock().entry(self.size).or_default().push(memory);
    }
}
