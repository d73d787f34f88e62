//! The copy streams and the host memory of a device, for uploads and for buffers offloaded to host
//! memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use backend_api::{DType, Result};
use cudarc::driver::CudaStream;

use crate::host::{Slab, Slabs};
use crate::primary::Primary;

/// The copy streams and the host memory of a device.
pub(crate) struct Swapper {
    primary: Arc<Primary>,
    /// Copies to the host.
    pub(crate) out: Arc<CudaStream>,
    /// Copies from the host.
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
    pub(crate) fn new(primary: &Arc<Primary>) -> Result<Self> {
        Ok(Self {
            primary: primary.clone(),
            out: primary.new_stream()?,
            back: primary.new_stream()?,
            slabs: Arc::new(Slabs::new(primary.clone())),
            bytes_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
        })
    }

    /// Waits for all copies.
    pub(crate) fn synchronize(&self) -> Result<()> {
        for stream in [&self.out, &self.back] {
            stream
                .synchronize()
                .map_err(self.primary.failed("swapping"))?;
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
            .field("index", &self.primary.index())
            .finish_non_exhaustive()
    }
}
