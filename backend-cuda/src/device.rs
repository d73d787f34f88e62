//! The device: its stream, memory and kernels, and the dispatch of operations to kernels.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backend_api::{
    Backend, Buffers, DType, Dests, Error, Fused, Layout, Memory, Meta, Op, Precision, Result,
    SequencePath, SequencePlan, SequenceRequest, View, compose, is_widened, run_widened,
};
use cudarc::driver::{CudaContext, CudaStream, result, sys};

use crate::blas::{Blas, WORKSPACE};
use crate::buffer::{CudaBuffer, Input};
use crate::driver;
use crate::fault::Faults;
use crate::graphs::GraphCache;
use crate::launch::unsupported;
use crate::load::Loaded;
use crate::pool::{Block, Pool};
use crate::swap::{Swapped, Swapper};

/// An NVIDIA GPU.
///
/// Each opened device has its own stream and memory pool; clones share them.
#[derive(Clone)]
pub struct Cuda(Arc<Inner>);

// Fields are dropped in order: everything that uses the memory and the stream comes before them.
struct Inner {
    recordings: GraphCache,
    swapper: Swapper,
    blas: Mutex<Option<Blas>>,
    faults: Faults,
    loaded: Loaded,
    pool: Arc<Pool>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    index: usize,
    major: i32,
    multiprocessors: u32,
    /// Blocks of a cooperative launch that are resident at once, one per multiprocessor; 0 if the
    /// device does not support cooperative launches.
    resident_blocks: u32,
    shared_limit: usize,
    precision: Precision,
    launches: AtomicU64,
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

    /// Opens the GPU with this index, with the given precision of `f32` matmuls.
    ///
    /// The precision applies to all matmuls, including those of whole sequences and gradients, and
    /// to nothing else. A persistent kernel ([`SequencePath::Whole`]) always multiplies exactly.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_precision(index: usize, precision: Precision) -> Result<Self> {
        let context = driver::open(index)?;
        let failed = |e| driver::failure(index, "opening", e);
        let stream = context.new_stream().map_err(failed)?;
        let pool = Arc::new(Pool::new(index, context.clone(), stream.clone()));
        let number = |what| Ok::<_, Error>(context.attribute(what).map_err(failed)?.max(0) as u32);
        use sys::CUdevice_attribute as Attribute;
        let multiprocessors = number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1);
        let cooperative = number(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0;
        let shared = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared_limit = number(shared)? as usize;
        let hardware = context.name().map_err(failed)?;
        let capability = context.compute_capability().map_err(failed)?;
        let architecture = driver::architecture(capability);
        let record = pool.take(Faults::BYTES)?;
        let device = Self(Arc::new(Inner {
            recordings: GraphCache::default(),
            swapper: Swapper::new(index, &context)?,
            blas: Mutex::new(None),
            faults: Faults::new(record),
            loaded: Loaded::new(index, context.clone(), hardware, architecture),
            pool,
            stream,
            index,
            context,
            major: capability.0,
            multiprocessors,
            resident_blocks: if cooperative { multiprocessors } else { 0 },
            shared_limit,
            precision,
            launches: AtomicU64::new(0),
        }));
        device.clear(device.faults().address(), Faults::BYTES)?;
        log::info!(
            "{}: {}, {}",
            device.name(),
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

    pub(crate) fn count_launch(&self) {
        self.0.launches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn index(&self) -> usize {
        self.0.index
    }

    pub(crate) fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors
    }

    /// Blocks that are resident at once, one per multiprocessor; 0 without cooperative launches.
    pub(crate) fn resident_blocks(&self) -> u32 {
        self.0.resident_blocks
    }

    /// The precision of a matmul: the operation's own unless it is the default, else the device's.
    pub(crate) fn precision(&self, asked: Precision) -> Precision {
        match asked {
            Precision::Exact => self.0.precision,
            other => other,
        }
    }

    /// Whether cuBLAS supports matmuls of `dtype` on this device. Bfloat16 needs compute capability
    /// 8.0 (A100).
    fn multiplies(&self, dtype: DType) -> bool {
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

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(crate) fn recordings(&self) -> &GraphCache {
        &self.0.recordings
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

    /// Opens another stream.
    pub(crate) fn new_stream(&self) -> Result<Arc<CudaStream>> {
        let stream = self.0.context.new_stream();
        stream.map_err(self.failed("creating a stream"))
    }

    fn failed(
        &self,
        action: &'static str,
    ) -> impl Fn(cudarc::driver::DriverError) -> Error + use<> {
        let index = self.0.index;
        move |e| driver::failure(index, action, e)
    }

    /// Makes the device current on the calling thread.
    pub(crate) fn bind(&self) -> Result<()> {
        let bound = self.0.context.bind_to_thread();
        bound.map_err(self.failed("selecting the device"))
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
                f(blas.insert(Blas::new(self.0.index, self.stream(), workspace)?))
            }
        }
    }

    fn run_fused(
        &self,
        dtype: DType,
        fused: &Fused,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        if fused.activation().is_some_and(|f| !f.is_common()) {
            return compose(self, fused, ins, outs);
        }
        match fused {
            Fused::BiasActivation { activation } => {
                self.bias_activation(dtype, *activation, ins, outs)
            }
            Fused::ActivationGrad { activation } => {
                self.activation_grad(dtype, *activation, ins, outs)
            }
            Fused::LstmStep(gates) => self.lstm_step(dtype, gates, ins, outs),
            Fused::LstmStepGrad(gates) => self.lstm_step_grad(dtype, gates, ins, outs),
            Fused::GruGates => self.gru_gates(dtype, ins, outs),
            Fused::GruGatesGrad => self.gru_gates_grad(dtype, ins, outs),
            Fused::GruOutput { activation } => self.gru_output(dtype, *activation, ins, outs),
            Fused::GruOutputGrad { activation } => {
                self.gru_output_grad(dtype, *activation, ins, outs)
            }
            Fused::Sequence(plan) => self.sequence(dtype, plan, ins, outs),
            Fused::SequenceGrad(plan) => self.sequence_grad(dtype, plan, ins, outs),
            Fused::SoftmaxCrossEntropy => self.softmax_cross_entropy(dtype, ins, outs),
            Fused::SoftmaxCrossEntropyGrad => self.softmax_cross_entropy_grad(dtype, ins, outs),
            Fused::SquaredNorm => self.squared_norm(dtype, ins, outs),
            Fused::Sgd { lr } => self.sgd(dtype, *lr, ins, outs),
            Fused::Adam(step) => self.adam(dtype, step, ins, outs),
            other => compose(self, other, ins, outs),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Graphs and kernels may only be dropped when none of them runs, and with the context
        // current on this thread: not every drop selects it. Errors are ignored because a device
        // that failed has no work left to wait for.
        let _ = self.context.bind_to_thread();
        let _ = self.stream.synchronize();
        let _ = self.swapper.synchronize();
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda")
            .field("index", &self.0.index)
            .field("hardware", &self.hardware())
            .field("architecture", &self.loaded().architecture())
            .finish_non_exhaustive()
    }
}

impl Backend for Cuda {
    type Buffer = CudaBuffer;
    type Swapped = Swapped;

    fn name(&self) -> String {
        driver::name(self.0.index)
    }

    fn same_device(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn upload(&self, bytes: &[u8], meta: Meta) -> Result<CudaBuffer> {
        let block = self.pool().take(bytes.len())?;
        self.copy_to_device(bytes, block.address())?;
        Ok(CudaBuffer::new(block, meta.dtype, meta.shape.count()))
    }

    fn download(&self, src: View<'_, CudaBuffer>, into: &mut [u8]) -> Result<()> {
        let (buffer, offset) = self.dense(&src)?;
        if !into.is_empty() {
            let address = buffer.address()? + (offset * src.dtype.size()) as u64;
            self.bind()?;
            // SAFETY: the view has `into.len()` bytes; the copy is complete before `into` is used.
            unsafe { result::memcpy_dtoh_async(into, address, self.stream()) }
                .map_err(self.failed("copying from the device"))?;
        }
        self.wait_for_stream()?;
        self.check_faults()
    }

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, CudaBuffer>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let first = ins.first().map_or(DType::Bool, |x| x.dtype);
        let multiplied = matches!(op, Op::MatMul { .. }) && self.multiplies(first);
        if !multiplied && is_widened(op, ins) {
            return run_widened(self, op, ins, outs);
        }
        let float = |dtype: DType| match dtype.is_float() {
            true => Ok(dtype),
            false => Err(unsupported(op.name(), dtype)),
        };
        match op {
            Op::Fill { value, .. } => self.fill(*value, outs),
            Op::Random {
                key,
                distribution,
                meta,
            } => self.random(float(meta.dtype)?, *key, *distribution, outs),
            Op::Copy => self.copy(ins, outs),
            Op::Cast { to } => self.cast(*to, ins, outs),
            Op::Unary(f) => self.unary(float(first)?, *f, ins, outs),
            Op::Affine { mul, add } => self.affine(float(first)?, *mul, *add, ins, outs),
            Op::Clamp { min, max } => self.clamp(float(first)?, *min, *max, ins, outs),
            Op::Binary(f) => self.binary(*f, ins, outs),
            Op::Compare(f) => self.compare(*f, ins, outs),
            Op::Select => self.select(ins, outs),
            Op::Reduce { kind, axis } => self.reduce(*kind, *axis, ins, outs),
            Op::ArgMax { axis } => self.argmax(*axis, ins, outs),
            Op::MatMul { alpha, precision } => {
                self.matmul(float(first)?, *alpha, *precision, ins, outs)
            }
            Op::Concat { axis } => self.concat(*axis, ins, outs),
            Op::Reverse { time, batch } => self.reverse(*time, *batch, ins, outs),
            Op::Gather => self.gather(ins, outs),
            Op::ScatterAdd { .. } => self.scatter_add(ins, outs),
            Op::Fused(Fused::MaskedUpdate { time }) => self.masked_update(*time, ins, outs),
            Op::Fused(Fused::ScatterUpdate) => self.scatter_update(ins, outs),
            Op::Fused(fused) if first.is_float() => self.run_fused(first, fused, ins, outs),
            Op::Fused(fused) => compose(self, fused, ins, outs),
        }
    }

    fn accumulate(
        &self,
        dst: CudaBuffer,
        at: &Layout,
        src: View<'_, CudaBuffer>,
    ) -> Result<CudaBuffer> {
        self.accumulate_into(dst, at, &src)
    }

    fn swap_out(&self, buffer: CudaBuffer) -> Result<Swapped> {
        self.move_out(buffer)
    }

    fn swap_in(&self, swapped: Swapped) -> Result<CudaBuffer> {
        self.move_in(swapped)
    }

    fn synchronize(&self) -> Result<()> {
        self.wait_for_stream()?;
        self.swapper().synchronize()?;
        self.check_faults()
    }

    fn memory(&self) -> Memory {
        self.pool().memory()
    }

    fn plan_sequence(&self, request: &SequenceRequest) -> Option<SequencePlan> {
        let mut plan = SequencePlan::stepwise(request);
        if self.spread(request).is_some() {
            plan.path = SequencePath::Whole;
        }
        log::debug!("{}: {request:?} goes {:?}", self.name(), plan.path);
        Some(plan)
    }
}
