//! cuBLAS: a handle on one stream. It has its own workspace, so that its work can be captured in a
//! graph.

use std::fmt;

use backend_api::{Error, Result};
use cudarc::cublas::{result, sys};
use cudarc::driver::sys::CUstream;

use crate::driver;
use crate::pool::Block;

/// Workspace size in bytes, as NVIDIA recommends for Hopper and newer devices.
pub(crate) const WORKSPACE: usize = 32 << 20;

/// A cuBLAS handle, destroyed on drop.
pub(crate) struct Blas {
    handle: sys::cublasHandle_t,
    _workspace: Block,
}

// SAFETY: a handle may be used by one thread after another. `Cuda` keeps each one behind a lock.
unsafe impl Send for Blas {}

impl Blas {
    pub(crate) fn new(index: usize, stream: CUstream, workspace: Block) -> Result<Self> {
        let failed = |e| failure(index, e);
        let handle = result::create_handle().map_err(failed)?;
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

pub(crate) fn failure(index: usize, error: result::CublasError) -> Error {
    Error::Failed {
        device: driver::name(index),
        action: "cuBLAS",
        problem: format!("{error:?}"),
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: the handle exists and is not used after this.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl fmt::Debug for Blas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blas")
    }
}
