//! cuBLAS: one handle on the compute stream, with memory of its own, so that its work can be recorded.

use std::fmt;

use backend_api::{Error, Result};
use cudarc::cublas::{result, sys};
use cudarc::driver::sys::CUstream;

use crate::driver;
use crate::pool::Block;

/// Working memory, as NVIDIA recommends for its newer devices.
pub(crate) const WORKSPACE: usize = 32 << 20;

/// A handle that is destroyed with its value.
pub(crate) struct Blas {
    handle: sys::cublasHandle_t,
    _workspace: Block,
}

// SAFETY: a handle may be used by one thread after another; `Cuda` keeps it behind a lock.
unsafe impl Send for Blas {}

impl Blas {
    pub(crate) fn new(index: usize, stream: CUstream, workspace: Block) -> Result<Self> {
        let failed = |e| failure(index, e);
        let handle = result::create_handle().map_err(failed)?;
        // The handle is destroyed with this value from here on, whatever fails.
        let blas = Self {
            handle,
            _workspace: workspace,
        };
        // SAFETY: the handle, the stream and the memory exist.
        unsafe {
            result::set_stream(handle, stream.cast()).map_err(failed)?;
            // Products of 16-bit floats are summed in `f32` throughout and rounded once.
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
        // SAFETY: the handle exists, and nobody uses it after this.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl fmt::Debug for Blas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blas")
    }
}
