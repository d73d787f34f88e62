//! Buffers offloaded to host memory.
//!
//! Copies run concurrently with kernels on two streams, one per direction. Events order them:
//! * out: the copy waits for the kernels that compute the elements. The compute stream waits for
//!   the copy before it overwrites the block.
//! * in: the copy waits for the previous use of the new block. Kernels that use the buffer wait for
//!   the copy.
//!
//! Small uploads are staged in host memory of the same pool.

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

/// Largest upload in bytes that is staged, so that the caller does not wait for the copy.
const STAGED: usize = 16 << 20;

/// The copy streams and the host memory of a device.
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
            stream.map_err(|e| driver::failure(index, "creating a stream", e))
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
    /// Total bytes copied to host memory and back.
    pub fn bytes_swapped(&self) -> (u64, u64) {
        let swapper = self.swapper();
        (
            swapper.bytes_out.load(Ordering::Relaxed),
            swapper.bytes_in.load(Ordering::Relaxed),
        )
    }

    /// Copies bytes to the device. The call has read `bytes` when it returns, whatever memory they
    /// are in; the copy itself may still be running.
    pub(crate) fn copy_to_device(&self, bytes: &[u8], to: sys::CUdeviceptr) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let failed = |e| driver::failure(self.index(), "copying to the device", e);
        self.bind()?;
        let copy = |from| {
            // SAFETY: both sides have `bytes.len()` bytes, and the host side stays valid until the
            // copy is done: `wait_for_stream` or the slab's event ensures it (below).
            unsafe { sys::cuMemcpyHtoDAsync_v2(to, from, bytes.len(), self.stream()) }
                .result()
                .map_err(failed)
        };
        // The driver may read the caller's memory after the call returns if the device can access
        // it directly: page-locked memory, or any memory on a machine where devices share the CPU's
        // page tables.
        if bytes.len() > STAGED {
            copy(bytes.as_ptr().cast())?;
            return self.wait_for_stream();
        }
        let mut slab = self.swapper().slabs.take(bytes.len())?;
        let done = self.new_event()?;
        // SAFETY: the slab has at least `bytes.len()` bytes, and nothing else uses it.
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
            // SAFETY: the slab has `bytes` bytes and is not used before `done`; the block is marked
            // as pending until then.
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
            // The copy in must wait for the last use of the block, and for the copy out of the same
            // data.
            let free = self.compute().record_event(None).map_err(failed)?;
            swapper.back.wait(&free).map_err(failed)?;
            if let Some(out) = slab.busy() {
                swapper.back.wait(out).map_err(failed)?;
            }
            let from = slab.address();
            // SAFETY: both sides have `bytes` bytes. Kernels wait for the copy before they use the
            // block, and the slab is busy until then.
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

    /// An event to record later. It is created before the copy, so that a failure cannot leave a
    /// running copy without an event.
    fn new_event(&self) -> Result<Arc<CudaEvent>> {
        let event = self.context().new_event(None);
        event
            .map(Arc::new)
            .map_err(|e| driver::failure(self.index(), "creating an event", e))
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
