//! Buffers that wait in host memory.
//!
//! Copies run on two streams of their own, one for each direction, beside the kernels; events order them:
//! * out: the copy waits for the kernels that make the elements; the compute stream waits for it before anything overwrites the block;
//! * in: the copy waits for what used the new block before, and kernels that use the buffer wait for the copy.
//!
//! What is uploaded goes through host memory of the same pool.

use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backend_api::{DType, Result};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, sys};

use crate::buffer::CudaBuffer;
use crate::device::Cuda;
use crate::driver;
use crate::host::{Slab, Slabs};

/// Bytes up to which an upload is copied aside, so that nobody waits for it.
const STAGED: usize = 16 << 20;

/// The streams and the host memory of a device.
pub(crate) struct Swapper {
    index: usize,
    out: Arc<CudaStream>,
    back: Arc<CudaStream>,
    slabs: Arc<Slabs>,
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
}

/// A buffer in host memory.
pub struct Swapped {
    slab: Slab,
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
            slabs: Arc::new(Slabs::new(index, context.clone())),
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

impl Cuda {
    /// Bytes that were moved to host memory and back so far.
    pub fn bytes_swapped(&self) -> (u64, u64) {
        let swapper = self.swapper();
        (
            swapper.bytes_out.load(Ordering::Relaxed),
            swapper.bytes_in.load(Ordering::Relaxed),
        )
    }

    /// Copies bytes to the device. They have been read when this returns, whatever memory they are in; the copy itself may
    /// still be under way.
    pub(crate) fn copy_to_device(&self, bytes: &[u8], to: sys::CUdeviceptr) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let failed = |e| driver::failure(self.index(), "copying to the device", e);
        self.bind()?;
        let copy = |from| {
            // SAFETY: both sides have so many bytes, and those of the host stay until the copy is done: see below.
            unsafe { sys::cuMemcpyHtoDAsync_v2(to, from, bytes.len(), self.stream()) }
                .result()
                .map_err(failed)
        };
        // The driver may read memory of the caller's after the call, if it can do so itself: page-locked memory, or any on
        // a machine whose devices share the processor's page tables.
        if bytes.len() > STAGED {
            copy(bytes.as_ptr().cast())?;
            return self.wait_for_stream();
        }
        let mut slab = self.swapper().slabs.take(bytes.len())?;
        let done = self.new_event()?;
        // SAFETY: the slab has room, and nothing else uses it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), slab.address().cast(), bytes.len()) };
        copy(slab.address())?;
        done.record(self.compute()).map_err(failed)?;
        slab.busy_until(done);
        Ok(())
    }

    pub(crate) fn move_out(&self, buffer: CudaBuffer) -> Result<Swapped> {
        let swapper = self.swapper();
        let failed = |e| driver::failure(self.index(), "swapping out", e);
        let (dtype, count, bytes) = (buffer.dtype(), buffer.count(), buffer.bytes());
        let mut slab = swapper.slabs.take(bytes)?;
        if bytes > 0 {
            let done = self.new_event()?;
            let from = buffer.address()?;
            let made = self.compute().record_event(None).map_err(failed)?;
            swapper.out.wait(&made).map_err(failed)?;
            let to = slab.address();
            // SAFETY: the slab has `bytes` bytes and is not used before `done`; the block is marked as pending until then.
            unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, bytes, swapper.out.cu_stream()) }
                .result()
                .map_err(failed)?;
            done.record(&swapper.out).map_err(failed)?;
            slab.busy_until(done.clone());
            buffer.pending_until(done);
            swapper.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(Swapped {
            slab,
            bytes,
            dtype,
            count,
        })
    }

    pub(crate) fn move_in(&self, swapped: Swapped) -> Result<CudaBuffer> {
        let swapper = self.swapper();
        let failed = |e| driver::failure(self.index(), "swapping in", e);
        let Swapped {
            mut slab,
            bytes,
            dtype,
            count,
        } = swapped;
        let block = self.pool().take(bytes)?;
        if bytes > 0 {
            let done = self.new_event()?;
            // The block's last user, and the copy out of what is now to come back.
            let free = self.compute().record_event(None).map_err(failed)?;
            swapper.back.wait(&free).map_err(failed)?;
            if let Some(out) = slab.busy() {
                swapper.back.wait(out).map_err(failed)?;
            }
            let from = slab.address();
            // SAFETY: both sides have `bytes` bytes; kernels wait for the copy before they use the block, and the
            // slab is busy until then.
            unsafe {
                sys::cuMemcpyHtoDAsync_v2(block.address(), from, bytes, swapper.back.cu_stream())
            }
            .result()
            .map_err(failed)?;
            done.record(&swapper.back).map_err(failed)?;
            slab.busy_until(done.clone());
            block.pending_until(done);
            swapper.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(CudaBuffer::new(block, dtype, count))
    }

    /// An event that is still to be recorded: made before the copy, so that what fails then leaves none unmarked.
    fn new_event(&self) -> Result<Arc<CudaEvent>> {
        let event = self.context().new_event(None);
        event
            .map(Arc::new)
            .map_err(|e| driver::failure(self.index(), "making an event", e))
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
