//! The device: its stream, memory and kernels.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use backend_api::trace::StepCache;
use backend_api::{DType, Error, Precision, Result};
use cudarc::driver::{CudaStream, DriverError, result, sys};

use crate::blas::{Blas, WORKSPACE};
use crate::driver;
use crate::fault::Faults;
use crate::graphs::GraphCache;
use crate::load::Loaded;
use crate::pool::{Block, Pool};
use crate::primary::Primary;
use crate::swapper::Swapper;

/// An NVIDIA GPU.
///
/// Each opened device has its own stream and memory pool; clones share them.
#[derive(Clone)]
pub struct Cuda(Arc<Inner>);

/// A device that may be closed: a step in its cache must not keep it open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closable(Weak<Inner>);

impl Closable {
    pub(crate) fn open(&self) -> Option<Cuda> {
        self.0.upgrade().map(Cuda)
    }
}

// Fields are dropped in order: everything that uses the memory and the stream comes before them.
struct Inner {
    steps: StepCache,
    graphs: GraphCache,
    swapper: Swapper,
    blas: Mutex<Option<Blas>>,
    faults: Faults,
    loaded: Loaded,
    pool: Arc<Pool>,
    stream: Arc<CudaStream>,
    primary: Arc<Primary>,
    major: i32,
    multiprocessors: u32,
    /// Why there are no cooperative launches: the device does not support them, or has refused one.
    refusal: OnceLock<String>,
    shared_limit: usize,
    precision: Precision,
    /// Whether each launch is waited for.
    synchronous: bool,
    launches: AtomicU64,
}

impl Cuda {
    pub(crate) fn open(
        index: usize,
        precision: Precision,
        memory_limit: usize,
        synchronous: bool,
    ) -> Result<Self> {
        let primary = Primary::open(index)?;
        let failed = primary.failed("opening");
        let stream = primary.new_stream()?;
        let pool = Arc::new(Pool::new(primary.clone(), stream.clone(), memory_limit));
        let context = primary.context();
        let number = |what| Ok::<_, Error>(context.attribute(what).map_err(&failed)?.max(0) as u32);
        use sys::CUdevice_attribute as Attribute;
        let multiprocessors = number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1);
        let cooperative = number(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0;
        let shared = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared_limit = number(shared)? as usize;
        let hardware = context.name().map_err(&failed)?;
        let capability = context.compute_capability().map_err(&failed)?;
        let architecture = driver::architecture(capability);
        let loaded = Loaded::new(
            primary.clone(),
            pool.clone(),
            hardware,
            architecture,
            shared_limit,
        );
        let record = pool.take(Faults::BYTES)?;
        let device = Self(Arc::new(Inner {
            steps: StepCache::default(),
            graphs: GraphCache::default(),
            swapper: Swapper::new(&primary)?,
            blas: Mutex::new(None),
            faults: Faults::new(record),
            loaded,
            pool,
            stream,
            primary,
            major: capability.0,
            multiprocessors,
            refusal: OnceLock::new(),
            shared_limit,
            precision,
            synchronous,
            launches: AtomicU64::new(0),
        }));
        if !cooperative {
            device.refuse_cooperative("the device has no cooperative launches".to_owned());
        }
        device.clear(device.faults().address(), Faults::BYTES)?;
        log::info!(
            "{}: {}, {}",
            driver::name(index),
            device.hardware(),
            device.loaded().architecture()
        );
        Ok(device)
    }

    /// The hardware's name, as the driver reports it.
    pub fn hardware(&self) -> &str {
        self.0.loaded.hardware()
    }

    /// The number of kernels, matmuls and replayed recordings queued on the compute stream so far.
    pub fn launches(&self) -> u64 {
        self.0.launches.load(Ordering::Relaxed)
    }

    /// Counts a kernel, matmul or recording that was queued on the compute stream. A synchronous
    /// device waits for it, so that `action` names what failed.
    pub(crate) fn launched(&self, action: &'static str) -> Result<()> {
        self.0.launches.fetch_add(1, Ordering::Relaxed);
        match self.0.synchronous {
            true => self.0.stream.synchronize().map_err(self.failed(action)),
            false => Ok(()),
        }
    }

    /// Whether each launch is waited for.
    pub(crate) fn is_synchronous(&self) -> bool {
        self.0.synchronous
    }

    /// Whether both are clones of one device.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn index(&self) -> usize {
        self.0.primary.index()
    }

    pub(crate) fn primary(&self) -> &Arc<Primary> {
        &self.0.primary
    }

    pub(crate) fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors
    }

    /// The multiprocessors that hold the blocks of a cooperative launch, or why there are no such
    /// launches.
    pub(crate) fn cooperative(&self) -> Result<u32, &str> {
        match self.0.refusal.get() {
            Some(reason) => Err(reason),
            None => Ok(self.0.multiprocessors),
        }
    }

    /// Makes no more cooperative launches, for this reason.
    pub(crate) fn refuse_cooperative(&self, reason: String) {
        // Of several reasons the first is kept.
        let _ = self.0.refusal.set(reason);
    }

    pub(crate) fn closable(&self) -> Closable {
        Closable(Arc::downgrade(&self.0))
    }

    /// The precision of a matmul: the operation's own unless it is the default, else the device's.
    pub(crate) fn precision(&self, requested: Precision) -> Precision {
        match requested {
            Precision::Exact => self.0.precision,
            other => other,
        }
    }

    /// Whether cuBLAS supports matmuls of `dtype` on this device. Bfloat16 needs compute capability
    /// 8.0 (A100).
    pub(crate) fn multiplies(&self, dtype: DType) -> bool {
        dtype != DType::Bf16 || self.0.major >= 8
    }

    /// Maximum bytes of shared memory per block.
    pub(crate) fn shared_limit(&self) -> usize {
        self.0.shared_limit
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }

    pub(crate) fn loaded(&self) -> &Loaded {
        &self.0.loaded
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(crate) fn steps(&self) -> &StepCache {
        &self.0.steps
    }

    pub(crate) fn graphs(&self) -> &GraphCache {
        &self.0.graphs
    }

    pub(crate) fn swapper(&self) -> &Swapper {
        &self.0.swapper
    }

    /// The compute stream as a driver handle.
    pub(crate) fn stream(&self) -> sys::CUstream {
        self.0.stream.cu_stream()
    }

    pub(crate) fn compute(&self) -> &CudaStream {
        &self.0.stream
    }

    pub(crate) fn failed(&self, action: &'static str) -> impl Fn(DriverError) -> Error + use<> {
        self.0.primary.failed(action)
    }

    /// Makes the device current on the calling thread.
    pub(crate) fn bind(&self) -> Result<()> {
        self.0.primary.bind()
    }

    /// Waits until the compute stream is idle.
    pub(crate) fn wait_for_stream(&self) -> Result<()> {
        self.0
            .stream
            .synchronize()
            .map_err(self.failed("computing"))
    }

    /// Sets `bytes` bytes to 0.
    pub(crate) fn clear(&self, address: sys::CUdeviceptr, bytes: usize) -> Result<()> {
        self.set_bytes(address, 0, bytes)
    }

    /// Sets `bytes` bytes to `value`.
    pub(crate) fn set_bytes(
        &self,
        address: sys::CUdeviceptr,
        value: u8,
        bytes: usize,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the caller's block has at least `bytes` bytes, and the stream orders the write.
        unsafe { result::memset_d8_async(address, value, bytes, self.stream()) }
            .map_err(self.failed("setting memory"))
    }

    /// Copies bytes from device memory to `to`, in stream order.
    pub(crate) fn copy_block(
        &self,
        from: sys::CUdeviceptr,
        to: &Block,
        bytes: usize,
    ) -> Result<()> {
        self.copy_bytes(from, to.address(), bytes)
    }

    pub(crate) fn copy_bytes(
        &self,
        from: sys::CUdeviceptr,
        to: sys::CUdeviceptr,
        bytes: usize,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: both blocks have at least `bytes` bytes and are used in stream order.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream()) }
            .map_err(self.failed("copying"))
    }

    /// Runs `f` with the cuBLAS handle, which is created at first use.
    pub(crate) fn with_blas<R>(&self, f: impl FnOnce(&Blas) -> Result<R>) -> Result<R> {
        // The `Option` is valid between statements, so a poisoned lock is still usable.
        let mut blas = self.0.blas.lock().unwrap_or_else(PoisonError::into_inner);
        self.bind()?;
        match &*blas {
            Some(blas) => f(blas),
            None => {
                let workspace = self.pool().take(WORKSPACE)?;
                f(blas.insert(Blas::new(self.primary(), self.stream(), workspace)?))
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Graphs and kernels may only be dropped when none of them runs, and with the context
        // current on this thread: not every drop selects it. Errors are ignored because a device
        // that failed has no work left to wait for.
        let _ = self.primary.context().bind_to_thread();
        let _ = self.stream.synchronize();
        let _ = self.swapper.synchronize();
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda")
            .field("index", &self.index())
            .field("hardware", &self.hardware())
            .field("architecture", &self.loaded().architecture())
            .finish_non_exhaustive()
    }
}
