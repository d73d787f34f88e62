//! Buffers offloaded to host memory.
//!
//! Copies run concurrently with kernels on two streams, one per direction. Events order them:
//! * out: the copy waits for the kernels that compute the elements. The compute stream waits for
//!   the copy before it overwrites the block.
//! * in: the copy waits for the previous use of the new block. Kernels that use the buffer wait for
//!   the copy.
//!
//! Uploads take the same way in. They are staged in host memory of the same pool, so that the
//! caller does not wait for the copies.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backend_api::Result;
use cudarc::driver::{CudaEvent, CudaStream, DriverError, sys};

use crate::buffer::CudaBuffer;
use crate::device::Cuda;
use crate::pool::Block;
use crate::swapper::Swapped;

/// Bytes of an upload that are staged at once.
const STAGED: usize = 16 << 20;
/// Uploads up to this size are queued on the compute stream: the events that order two streams take
/// longer than so small a copy.
const SMALL: usize = 64 << 10;

impl Cuda {
    /// Total bytes copied to host memory and back.
    pub fn bytes_swapped(&self) -> (u64, u64) {
        let swapper = self.swapper();
        (
            swapper.bytes_out.load(Ordering::Relaxed),
            swapper.bytes_in.load(Ordering::Relaxed),
        )
    }

    /// Copies bytes to a new block. The call has read `bytes` when it returns, whatever memory they
    /// are in; the copy itself may still be running.
    pub(crate) fn copy_to_device(&self, bytes: &[u8], to: &Block) -> Result<()> {
        let failed = self.failed("copying to the device");
        self.bind()?;
        // The driver may read memory after a call returns if the device can access it directly:
        // page-locked memory, or any memory on a machine where devices share the CPU's page tables.
        // It therefore never reads the caller's.
        let aside = bytes.len() > SMALL;
        let stream = match aside {
            true => &*self.swapper().back,
            false => self.compute(),
        };
        if aside {
            self.wait_for_use(to, stream).map_err(&failed)?;
        }
        for (part, bytes) in bytes.chunks(STAGED).enumerate() {
            let mut slab = self.swapper().slabs.take(bytes.len())?;
            let done = self.new_event()?;
            let (from, to_at) = (slab.address(), to.address() + (part * STAGED) as u64);
            // SAFETY: the slab has at least `bytes.len()` bytes, and nothing else uses it until
            // `done`. The block has the bytes of all parts, and kernels wait for the copy.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr(), from.cast(), bytes.len());
                sys::cuMemcpyHtoDAsync_v2(to_at, from, bytes.len(), stream.cu_stream())
            }
            .result()
            .map_err(&failed)?;
            done.record(stream).map_err(&failed)?;
            slab.busy_until(done.clone());
            if aside {
                to.pending_until(done);
            }
        }
        Ok(())
    }

    /// Makes a copy stream wait for the last use of a block's memory.
    fn wait_for_use(&self, block: &Block, stream: &CudaStream) -> Result<(), DriverError> {
        if block.used_before() {
            stream.wait(&self.compute().record_event(None)?)?;
        }
        Ok(())
    }

    pub(crate) fn move_out(&self, buffer: CudaBuffer) -> Result<Swapped> {
        let swapper = self.swapper();
        let failed = self.failed("swapping out");
        let (dtype, count, bytes) = (buffer.dtype(), buffer.count(), buffer.bytes());
        let mut slab = swapper.slabs.take(bytes)?;
        if bytes > 0 {
            let done = self.new_event()?;
            let from = buffer.address()?;
            let made = self.compute().record_event(None).map_err(&failed)?;
            swapper.out.wait(&made).map_err(&failed)?;
            let to = slab.address();
            // SAFETY: the slab has `bytes` bytes and is not used before `done`; the block is marked
            // as pending until then.
            unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, bytes, swapper.out.cu_stream()) }
                .result()
                .map_err(&failed)?;
            done.record(&swapper.out).map_err(&failed)?;
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
        let failed = self.failed("swapping in");
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
            self.wait_for_use(&block, &swapper.back).map_err(&failed)?;
            if let Some(out) = slab.busy() {
                swapper.back.wait(out).map_err(&failed)?;
            }
            let from = slab.address();
            // SAFETY: both sides have `bytes` bytes. Kernels wait for the copy before they use the
            // block, and the slab is busy until then.
            unsafe {
                sys::cuMemcpyHtoDAsync_v2(block.address(), from, bytes, swapper.back.cu_stream())
            }
            .result()
            .map_err(&failed)?;
            done.record(&swapper.back).map_err(&failed)?;
            slab.busy_until(done.clone());
            block.pending_until(done);
            swapper.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(CudaBuffer::new(block, dtype, count))
    }

    /// An event to record later. It is created before the copy, so that a failure cannot leave a
    /// running copy without an event.
    fn new_event(&self) -> Result<Arc<CudaEvent>> {
        let event = self.primary().context().new_event(None);
        event
            .map(Arc::new)
            .map_err(self.failed("creating an event"))
    }
}
