//! Settings of a GPU.

use std::env;

use backend_api::{Error, Precision, Result};

use crate::device::Cuda;
use crate::driver;

/// The settings of a [`Cuda`]; see [`Cuda::builder`].
///
/// ```
/// use backend_api::Precision;
/// use backend_cuda::Cuda;
///
/// let settings = Cuda::builder(0).precision(Precision::Tf32).memory_limit(4 << 30);
/// match settings.build() {
///     Ok(device) => println!("computing on {}", device.hardware()),
///     Err(why) => assert!(why.to_string().starts_with("cuda:0 is not available: ")),
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "call `build`"]
pub struct CudaBuilder {
    index: usize,
    precision: Precision,
    memory_limit: usize,
    synchronous: bool,
}

impl Cuda {
    /// Opens the GPU with this index (from 0), with exact matmuls.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the driver, NVRTC, cuBLAS or the device is missing or too old. The
    /// message says how to fix it.
    pub fn new(index: usize) -> Result<Self> {
        Self::with_precision(index, Precision::Exact)
    }

    /// Opens the GPU with this index, with the given precision of `f32` matmuls; see
    /// [`CudaBuilder::precision`].
    ///
    /// # Errors
    /// As for [`new`](Self::new), or the precision is not supported.
    pub fn with_precision(index: usize, precision: Precision) -> Result<Self> {
        Self::builder(index).precision(precision).build()
    }

    /// A GPU with other settings.
    pub fn builder(index: usize) -> CudaBuilder {
        CudaBuilder::new(index)
    }
}

impl CudaBuilder {
    fn new(index: usize) -> Self {
        Self {
            index,
            precision: Precision::Exact,
            memory_limit: usize::MAX,
            synchronous: env::var_os("RECURRENT_CUDA_SYNC")
                .is_some_and(|value| !value.is_empty() && value != "0"),
        }
    }

    /// The precision of `f32` matmuls; exact by default.
    ///
    /// It applies to all matmuls, including those of whole sequences and gradients, and to nothing
    /// else. [`Precision::Int8`] is not supported. An LSTM all of whose steps are one launch, as
    /// `DynamicRnn::explain` says, always multiplies its state exactly.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The maximum of device memory in bytes that tensors use and the device keeps for reuse. An
    /// operation that needs more is refused with [`Error::OutOfMemory`]. The context, the kernels
    /// and cuBLAS need some hundred megabytes besides. Without a limit, all memory of the GPU is
    /// used.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Whether the device waits for each kernel and matmul, so that an error names the one that
    /// failed; otherwise it appears at a later call. Slow. By default only if the environment
    /// variable `RECURRENT_CUDA_SYNC` is set, to anything but 0.
    pub fn synchronous(mut self, synchronous: bool) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Opens the GPU.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the driver, NVRTC, cuBLAS or the device is missing, too old or
    /// does not support the precision; the message says how to fix it. [`Error::OutOfMemory`] if
    /// the limit is too low for the device's own records. [`Error::Lost`] if the GPU failed before
    /// in this process.
    pub fn build(self) -> Result<Cuda> {
        let Self {
            index,
            precision,
            memory_limit,
            synchronous,
        } = self;
        if !matches!(
            precision,
            Precision::Exact | Precision::Tf32 | Precision::Bf16
        ) {
            return Err(Error::Unavailable {
                device: format!("{} with {precision} matmuls", driver::name(index)),
                reason: "GPUs support exact, tf32 and bf16 matmuls".into(),
            });
        }
        Cuda::open(index, precision, memory_limit, synchronous)
    }
}
