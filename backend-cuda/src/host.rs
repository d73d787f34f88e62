//! Page-locked host memory, which copies can read and write beside everything else.
//!
//! It is kept in a pool that only grows, and never handed out while a copy uses it.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::Result;
use cudarc::driver::{CudaContext, CudaEvent, result, sys};

use crate::driver;
use crate::pool::size_class;

/// The host memory of a device.
pub(crate) struct Slabs {
    index: usize,
    context: Arc<CudaContext>,
    /// By size.
    free: Mutex<HashMap<usize, Vec<Memory>>>,
}

struct Memory {
    at: NonNull<c_void>,
    /// When the last copy from or to it is done.
    busy: Option<Arc<CudaEvent>>,
}

// SAFETY: plain memory that one owner at a time has.
unsafe impl Send for Memory {}
// SAFETY: shared references give no access to what is at the address.
unsafe impl Sync for Memory {}

/// A piece of host memory, which goes back to its pool.
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

    /// A slab of at least so many bytes that no copy uses.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Slab> {
        let failed = |e| driver::failure(self.index, "taking host memory", e);
        let size = size_class(bytes);
        self.context.bind_to_thread().map_err(failed)?;
        let memory = match self.reuse(size) {
            Some(memory) => memory,
            None => {
                // SAFETY: the context is bound; ordinary page-locked memory, freed by `drop` alone.
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
        // Whole between statements.
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
                // A copy that may still run keeps its memory.
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

    /// The last copy from or to it.
    pub(crate) fn busy(&self) -> Option<&CudaEvent> {
        self.memory.busy.as_deref()
    }

    /// Says that a copy uses it until the event, which has been recorded.
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
