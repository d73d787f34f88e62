//! cuBLAS: a handle on one stream. It has its own workspace, so that its work can be captured in a
//! graph.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use backend_api::{Error, Memory, Result};
use cudarc::cublas::{result, sys};
use cudarc::driver::result::mem_get_info;
use cudarc::driver::sys::CUstream;

use crate::driver;
use crate::pool::Block;
use crate::primary::Primary;

/// Workspace size in bytes of every handle, as NVIDIA recommends for Hopper and newer devices. A
/// workspace of another size could make cuBLAS choose another kernel: recorded products would then
/// differ from queued ones.
pub(crate) const WORKSPACE: usize = 32 << 20;

/// Held for writing while a stream is captured, and for reading while a handle is created or
/// destroyed, by whichever device: both wait for the GPU, which invalidates a capture.
pub(crate) static CAPTURE: RwLock<()> = RwLock::new(());

/// A cuBLAS handle, destroyed on drop.
pub(crate) struct Blas {
    handle: sys::cublasHandle_t,
    _workspace: Block,
}

// SAFETY: a handle may be used by one thread after another. `Cuda` keeps each one behind a lock.
unsafe impl Send for Blas {}

impl Blas {
    pub(crate) fn new(primary: &Arc<Primary>, stream: CUstream, workspace: Block) -> Result<Self> {
        let failed = |e| failure(primary, e);
        let handle = {
            let _no_capture = CAPTURE.read().unwrap_or_else(PoisonError::into_inner);
            result::create_handle().map_err(failed)?
        };
        // From here on the handle is destroyed with `blas`, even if a call below fails.
        let blas = Self {
            handle,
            _workspace: workspace,
        };
        // SAFETY: the handle, the stream and the workspace exist.
        unsafe {
            result::set_stream(handle, stream.cast()).map_err(failed)?;
            // 16-bit matmuls accumulate in `f32` throughout and round once.
            let exact = sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
            sys::cublasSetMathMode(handle, exact)
                .result()
                .map_err(failed)?;
            sys::cublasSetWorkspace_v2(handle, blas._workspace.address() as *mut _, WORKSPACE)
                .result()
                .map_err(failed)?;
        }
        Ok(blas)
    }

    pub(crate) fn handle(&self) -> sys::cublasHandle_t {
        self.handle
    }
}

pub(crate) fn failure(primary: &Primary, error: result::CublasError) -> Error {
    match error.0 {
        sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => Error::OutOfMemory {
            device: driver::name(primary.index()),
            requested: 0,
            free: mem_get_info().map_or(0, |(free, _)| free),
            memory: Memory::default(),
        },
        _ => primary.failure_within("cuBLAS", format!("{error:?}")),
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        let _no_capture = CAPTURE.read().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the handle exists and is not used after this.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl fmt::Debug for Blas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blas")
    }
}
