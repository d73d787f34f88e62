//! A pool of device memory.
//!
//! All kernels run on one stream, so a freed block can be reused at once: its next use is queued
//! after its last. Copies on other streams are the exception. A block that such a copy reads or
//! writes carries an event, and the compute stream waits for that event before it uses the block.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::{Error, Memory, Result};
use cudarc::driver::{CudaEvent, CudaStream, result, sys};
use smallvec::SmallVec;

use crate::driver;
use crate::primary::Primary;

/// Alignment and granularity of block sizes, in bytes.
const GRAIN: usize = 512;

/// The memory pool of a device.
pub(crate) struct Pool {
    primary: Arc<Primary>,
    stream: Arc<CudaStream>,
    /// Maximum bytes in use and pooled.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Free blocks by size.
    free: HashMap<usize, Vec<Free>>,
    /// Bytes that threads are asking the driver for.
    asked: usize,
    memory: Memory,
}

/// Events that mark the end of copies on other streams that use a block.
type Pending = SmallVec<[Arc<CudaEvent>; 1]>;

struct Free {
    address: sys::CUdeviceptr,
    pending: Pending,
}

/// A block of device memory, returned to its pool on drop.
pub(crate) struct Block {
    pool: Arc<Pool>,
    address: sys::CUdeviceptr,
    bytes: usize,
    /// Whether work on the compute stream may still use the memory.
    used_before: bool,
    pending: Mutex<Pending>,
}

impl Pool {
    pub(crate) fn new(primary: Arc<Primary>, stream: Arc<CudaStream>, limit: usize) -> Self {
        Self {
            primary,
            stream,
            limit,
            state: Mutex::default(),
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        self.lock().memory
    }

    /// Takes a block of at least `bytes` bytes, with undefined contents.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Block> {
        let size = size_class(bytes);
        self.primary.bind()?;
        let reused = self.reuse(size);
        let used_before = reused.is_some();
        let (address, pending) = match reused {
            Some(free) => (free.address, free.pending),
            None => (self.ask(size, bytes)?, Pending::new()),
        };
        let block = Block {
            pool: self.clone(),
            address,
            bytes: size,
            used_before,
            pending: Mutex::new(pending),
        };
        block.settle()?;
        Ok(block)
    }

    fn reuse(&self, size: usize) -> Option<Free> {
        let mut state = self.lock();
        let blocks = state.free.get_mut(&size)?;
        // Prefers a block without pending copies.
        let ready = |b: &Free| b.pending.iter().all(|event| event.is_complete());
        let at = blocks
            .iter()
            .rposition(ready)
            .or(blocks.len().checked_sub(1))?;
        let free = blocks.swap_remove(at);
        state.memory.pooled -= size;
        use_bytes(&mut state.memory, size);
        Some(free)
    }

    /// Allocates from the driver.
    fn ask(&self, size: usize, requested: usize) -> Result<sys::CUdeviceptr> {
        if !self.admit(size) {
            self.release()?;
            if !self.admit(size) {
                let memory = self.memory();
                return Err(Error::OutOfMemory {
                    device: driver::name(self.primary.index()),
                    requested,
                    free: self.limit.saturating_sub(memory.in_use),
                    memory,
                });
            }
        }
        let failed = |e| self.primary.failure("allocating memory", e);
        // SAFETY: `take` has bound the context; only `release` frees the address.
        let answer = self.with_room(requested, || unsafe {
            result::malloc_sync(size).map_err(failed)
        });
        let mut state = self.lock();
        state.asked -= size;
        if answer.is_ok() {
            use_bytes(&mut state.memory, size);
            state.memory.system_allocations += 1;
        }
        answer
    }

    /// Counts `size` bytes as asked for, if the limit allows it.
    fn admit(&self, size: usize) -> bool {
        let mut state = self.lock();
        let all = state.memory.in_use + state.memory.pooled + state.asked;
        let fits = all.saturating_add(size) <= self.limit;
        if fits {
            state.asked += size;
        }
        fits
    }

    /// Makes a call that needs memory of the device, whatever for. If it is short, frees all pooled
    /// blocks and calls once more. `requested` is for the error; 0 if only the driver knows.
    pub(crate) fn with_room<R>(
        &self,
        requested: usize,
        mut call: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        match call() {
            Err(Error::OutOfMemory { .. }) => {
                self.release()?;
                call().map_err(|error| match error {
                    Error::OutOfMemory { device, free, .. } => Error::OutOfMemory {
                        device,
                        requested,
                        free,
                        memory: self.memory(),
                    },
                    other => other,
                })
            }
            answer => answer,
        }
    }

    /// Returns all free blocks to the driver.
    pub(crate) fn release(&self) -> Result<()> {
        let failed = |e| self.primary.failure("freeing memory", e);
        let blocks: Vec<Free> = {
            let mut state = self.lock();
            state.memory.pooled = 0;
            state.free.drain().flat_map(|(_, blocks)| blocks).collect()
        };
        self.primary.bind()?;
        self.stream.synchronize().map_err(failed)?;
        for block in blocks {
            for event in block.pending {
                event.synchronize().map_err(failed)?;
            }
            // SAFETY: the address came from `ask`, no `Block` owns it, and all queued work is
            // complete.
            unsafe { result::free_sync(block.address) }.map_err(failed)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between statements, so a poisoned lock is still usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts bytes as in use.
fn use_bytes(memory: &mut Memory, size: usize) {
    memory.in_use += size;
    memory.peak = memory.peak.max(memory.in_use);
}

/// Rounds a request up so that similar sizes share blocks: by at most a quarter above 2 KiB.
pub(crate) fn size_class(bytes: usize) -> usize {
    let grain = (bytes.next_power_of_two() / 8).max(GRAIN);
    bytes.max(1).div_ceil(grain) * grain
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Errors are ignored: a device that failed has no memory to return.
        let _ = self.release();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.memory()).finish()
    }
}

impl Block {
    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Whether work on the compute stream may still use the memory from before.
    pub(crate) fn used_before(&self) -> bool {
        self.used_before
    }

    /// Makes the compute stream wait for the copies that still use the block.
    pub(crate) fn settle(&self) -> Result<()> {
        // The lock is held until the wait is queued: a thread that finds nothing pending queues its
        // work after it.
        let mut pending = self.pending();
        for event in pending.iter() {
            let waited = self.pool.stream.wait(event);
            waited.map_err(|e| self.pool.primary.failure("waiting", e))?;
        }
        pending.clear();
        Ok(())
    }

    /// Registers a copy on another stream that uses the block until `event`, which has been
    /// recorded.
    pub(crate) fn pending_until(&self, event: Arc<CudaEvent>) {
        self.pending().push(event);
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let pending = std::mem::take(&mut *self.pending());
        let mut state = self.pool.lock();
        state.memory.in_use -= self.bytes;
        state.memory.pooled += self.bytes;
        state.free.entry(self.bytes).or_default().push(Free {
            address: self.address,
            pending,
        });
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.bytes, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_by_a_quarter_at_most() {
        assert_eq!(size_class(0), GRAIN);
        assert_eq!(size_class(513), 1024);
        for bytes in [5_000, 65_537, 1 << 20, 123_456_789] {
            let size = size_class(bytes);
            assert!(size >= bytes && size <= bytes + bytes / 4 && size.is_multiple_of(GRAIN));
        }
    }
}
