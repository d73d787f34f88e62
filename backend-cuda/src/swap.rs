//! Buffers that wait in host memory.
//!
//! Copies run on two streams of their own, one for each direction, beside the kernels; events order them:
//! * out: the copy waits for the kernels that make the elements; the compute stream waits for it before anything overwrites the block;
//! * in: the copy waits for what used the new block before, and kernels that use the buffer wait for the copy.
//!
//! Host memory is page-locked, kept in a pool that only grows, and never handed out while a copy uses it.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backend_api::{DType, Result};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};

use crate::buffer::CudaBuffer;
use crate::device::Cuda;
use crate::driver;

/// The streams and the host memory of a device.
pub(crate) struct Swapper {
    index: usize,
    out: Arc<CudaStream>,
    back: Arc<CudaStream>,
    slabs: Arc<Slabs>,
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
}

/// Page-locked host memory, by size.
struct Slabs {
    context: Arc<CudaContext>,
    free: Mutex<HashMap<usize, Vec<Slab>>>,
}

struct Slab {
    memory: NonNull<c_void>,
    /// When the last copy from or to it is done.
    busy: Option<CudaEvent>,
}

// SAFETY: plain memory that one owner at a time has.
unsafe impl Send for Slab {}
// SAFETY: shared references give no access to the memory.
unsafe impl Sync for Slab {}

/// A buffer in host memory.
pub struct Swapped {
    slabs: Arc<Slabs>,
    slab: Option<Slab>,
    bytes: usize,
    dtype: DType,
    count: usize,
}

impl Swapper {
    pub(crate) fn new(index: usize, context: &Arc<CudaContext>) -> Result<Self> {
        let stream = || {
            let stream = context.new_stream();
            stream.map_err(|e| driver::failure(index, "opening a stream", e))
        };
        Ok(Self {
            index,
            out: stream()?,
            back: stream()?,
            slabs: Arc::new(Slabs {
                context: context.clone(),
                free: Mutex::default(),
            }),
            bytes_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
        })
    }

    /// Waits for all copies.
    pub(crate) fn synchronize(&self) -> Result<()> {
        for stream in [&self.out, &self.back] {
            let done = stream.synchronize();
            done.map_err(|e| driver::failure(self.index, "swapping", e))?;
        }
        Ok(())
    }
}

impl Slabs {
    fn take(&self, index: usize, bytes: usize) -> Result<Slab> {
        let failed = |e| driver::failure(index, "taking host memory", e);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slabs) = free.get_mut(&bytes)
            && let Some(at) = slabs
                .iter()
                .rposition(|s| s.busy.as_ref().is_none_or(CudaEvent::is_complete))
        {
            return Ok(slabs.swap_remove(at));
        }
        drop(free);
        self.context.bind_to_thread().map_err(failed)?;
        // SAFETY: the context is bound; ordinary page-locked memory, freed by `Slabs::drop` alone.
        let memory = unsafe { result::malloc_host(bytes.max(1), 0) }.map_err(failed)?;
        let memory = NonNull::new(memory)
            .ok_or_else(|| failed(result::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)))?;
        Ok(Slab { memory, busy: None })
    }

    fn give_back(&self, bytes: usize, slab: Slab) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.entry(bytes).or_default().push(slab);
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        let free = self.free.get_mut().unwrap_or_else(PoisonError::into_inner);
        for slab in free.drain().flat_map(|(_, slabs)| slabs) {
            if let Some(event) = slab.busy
                && event.synchronize().is_err()
            {
                // A copy that may still run keeps its memory.
                continue;
            }
            let _ = self.context.bind_to_thread();
            // SAFETY: the memory came from `malloc_host`, and no copy uses it any more.
            let _ = unsafe { result::free_host(slab.memory.as_ptr()) };
        }
    }
}

impl Cuda {
    /// Bytes that were moved to host memory and back so far.
    pub fn bytes_swapped(&self) -> (u64, u64) {
        let swapper = self.swapper();
        (
            swapper.bytes_out.load(Ordering::Relaxed),
            swapper.bytes_in.load(Ordering::Relaxed),
        )
    }

    pub(crate) fn move_out(&self, buffer: CudaBuffer) -> Result<Swapped> {
        let swapper = self.swapper();
        let failed = |e| driver::failure(self.index(), "swapping out", e);
        let (dtype, count, bytes) = (buffer.dtype(), buffer.count(), buffer.bytes());
        let mut slab = swapper.slabs.take(self.index(), bytes)?;
        if bytes > 0 {
            let from = buffer.address()?;
            let made = self.compute().record_event(None).map_err(failed)?;
            swapper.out.wait(&made).map_err(failed)?;
            // SAFETY: the slab has `bytes` bytes and is not used before `done`; the block is marked as pending until then.
            unsafe {
                sys::cuMemcpyDtoHAsync_v2(
                    slab.memory.as_ptr(),
                    from,
                    bytes,
                    swapper.out.cu_stream(),
                )
            }
            .result()
            .map_err(failed)?;
            let done = || swapper.out.record_event(None).map_err(failed);
            slab.busy = Some(done()?);
            buffer.pending_until(done()?);
            swapper.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(Swapped {
            slabs: swapper.slabs.clone(),
            slab: Some(slab),
            bytes,
            dtype,
            count,
        })
    }

    pub(crate) fn move_in(&self, mut swapped: Swapped) -> Result<CudaBuffer> {
        let swapper = self.swapper();
        let failed = |e| driver::failure(self.index(), "swapping in", e);
        let block = self.pool().take(swapped.bytes)?;
        if let Some(slab) = &mut swapped.slab
            && swapped.bytes > 0
        {
            // The block's last user, and the copy out of what is now to come back.
            let free = self.compute().record_event(None).map_err(failed)?;
            swapper.back.wait(&free).map_err(failed)?;
            if let Some(out) = &slab.busy {
                swapper.back.wait(out).map_err(failed)?;
            }
            // SAFETY: both sides have `bytes` bytes; kernels wait for the copy before they use the block, and the
            // slab is busy until then.
            unsafe {
                sys::cuMemcpyHtoDAsync_v2(
                    block.address(),
                    slab.memory.as_ptr(),
                    swapped.bytes,
                    swapper.back.cu_stream(),
                )
            }
            .result()
            .map_err(failed)?;
            slab.busy = Some(swapper.back.record_event(None).map_err(failed)?);
            block.pending_until(swapper.back.record_event(None).map_err(failed)?);
            let bytes = swapped.bytes as u64;
            swapper.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(CudaBuffer::new(block, swapped.dtype, swapped.count))
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        if let Some(slab) = self.slab.take() {
            self.slabs.give_back(self.bytes, slab);
        }
    }
}

impl fmt::Debug for Swapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} elements of {} in host memory",
            self.count, self.dtype
        )
    }
}

impl fmt::Debug for Swapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swapper")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
