//! The copy streams and the host memory of a device, for buffers offloaded to host memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use backend_api::{DType, Result};
use cudarc::driver::{CudaContext, CudaStream};

use crate::driver;
use crate::host::{Slab, Slabs};

/// The copy streams and the host memory of a device.
pub(crate) struct Swapper {
    pub(crate) index: usize,
    pub(crate) out: Arc<CudaStream>,
    pub(crate) back: Arc<CudaStream>,
    pub(crate) slabs: Arc<Slabs>,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
}

/// A buffer in host memory.
pub struct Swapped {
    pub(crate) slab: Slab,
    pub(crate) bytes: usize,
    pub(crate) dtype: DType,
    pub(crate) count: usize,
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
