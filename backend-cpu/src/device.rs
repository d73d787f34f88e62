//! The CPU device: threads, memory, and the dispatch of operations to kernels.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread;

use backend_api::{
    Backend, Buffers, DType, Dests, Error, Fused, Layout, Memory, Meta, Op, Precision, Recurrence,
    Result, SequencePath, SequencePlan, SequenceRequest, View, accumulate_widened, compose,
    is_widened, run_widened,
};
use pulp::{Arch, Simd, WithSimd};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::element::Float;
use crate::elementwise::unsupported;
use crate::pool::Pool;
use crate::spin_pool::SpinPool;
use crate::storage::{CpuBuffer, Dense, Input, unshared};
use crate::strided::Walk;
use crate::{amx, bf16};

/// Rows, over all steps, from which on preparing a whole sequence's kernels is worth it.
const MIN_PACKED_ROWS: usize = 4;

/// The CPU as a device.
///
/// Operations are split over a pool of spinning worker threads and the calling thread. The workers
/// start with the first operation that needs them. Large matmuls without AMX, and operations that
/// find the worker pool busy with another operation, use a second, rayon thread pool.
///
/// Each device has threads and memory of its own; clones share them. There is no process-wide
/// state, so devices with different numbers of threads can coexist.
///
/// The memory of freed buffers is kept for reuse: in steady state nothing is allocated from the
/// operating system. Memory in use and kept memory together never exceed 1.5 times the peak use, or
/// the peak plus 64 MiB if that is more.
#[derive(Clone)]
pub struct Cpu(Arc<Inner>);

struct Inner {
    threads: usize,
    workers: Option<ThreadPool>,
    pool: Arc<Pool>,
    arch: Arch,
    precision: Precision,
    matrix_unit: bool,
    /// Created on first use.
    spin_pool: Mutex<Option<SpinPool>>,
}

/// Settings of a [`Cpu`]; see [`Cpu::builder`].
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    threads: Option<usize>,
    precision: Precision,
    matrix_unit: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            threads: None,
            precision: Precision::Exact,
            matrix_unit: true,
        }
    }
}

impl Builder {
    /// Sets the number of threads that work on an operation: 1 or more. With 1 the calling thread
    /// does all work. Results do not depend on the number of threads. The default is
    /// [`available_parallelism`](thread::available_parallelism).
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets the precision of matmuls: [`Precision::Exact`], the default, or [`Precision::Bf16`],
    /// which is meant for inference. `Bf16` rounds the operands of matmuls in whole sequences of
    /// `f32` to bfloat16 (8 bits of precision) and accumulates in `f32`. It applies only where no
    /// values are saved for a gradient; training, other types and other operations stay exact. It
    /// halves the memory traffic of the weights, which bounds the speed of steps with small
    /// batches. It needs AVX-512-BF16.
    ///
    /// ```
    /// use backend_api::Precision;
    /// use backend_cpu::Cpu;
    ///
    /// match Cpu::builder().precision(Precision::Bf16).build() {
    ///     Ok(cpu) => assert_eq!(cpu.precision(), Precision::Bf16),
    ///     Err(error) => println!("{error}; exact products then"),
    /// }
    /// ```
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets whether large matmuls of `f32`, of 8 rows or more, use Intel AMX if the CPU has it; the
    /// default is `true`. AMX multiplies bfloat16 numbers, so exact matmuls split each number into
    /// three bfloat16 parts. The result is as accurate as in `f32`, in half the time or less, but
    /// does not have the same bits as without AMX. Parts below 2^-126 count as 0.
    ///
    /// ```
    /// use backend_cpu::Cpu;
    ///
    /// let cpu = Cpu::builder().matrix_unit(false).build()?;
    /// assert!(!cpu.has_matrix_unit());
    /// # Ok::<(), backend_api::Error>(())
    /// ```
    #[must_use]
    pub fn matrix_unit(mut self, used: bool) -> Self {
        self.matrix_unit = used;
        self
    }

    /// Creates the device and starts its thread pool.
    ///
    /// # Errors
    /// The number of threads is 0, the operating system cannot start them, or the CPU does not
    /// support the precision.
    pub fn build(self) -> Result<Cpu> {
        let threads = self.threads.unwrap_or_else(available_threads);
        if threads == 0 {
            return Err(Error::argument("cpu", "threads", "must not be 0"));
        }
        let unavailable = |reason: &str| Error::Unavailable {
            device: format!("cpu with {:?} matmuls", self.precision),
            reason: reason.into(),
        };
        match self.precision {
            Precision::Exact => {}
            Precision::Bf16 if bf16::is_available() => {}
            Precision::Bf16 => return Err(unavailable("the CPU does not support AVX-512-BF16")),
            _ => return Err(unavailable("CPUs do not support this precision")),
        }
        let workers = if threads == 1 {
            None
        } else {
            let workers = ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|i| format!("cpu-{i}"))
                .build()
                .map_err(|e| Error::Unavailable {
                    device: format!("cpu with {threads} threads"),
                    reason: e.to_string(),
                })?;
            Some(workers)
        };
        Ok(Cpu::with_workers(threads, workers, self))
    }
}

fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl Cpu {
    /// A device with the default number of threads (see [`Builder::threads`]), or with one thread
    /// (the caller's) if the operating system cannot start them.
    pub fn new() -> Self {
        Self::builder()
            .build()
            .unwrap_or_else(|_| Self::with_workers(1, None, Builder::default()))
    }

    /// A builder for a device with other settings.
    ///
    /// ```
    /// # use backend_cpu::Cpu;
    /// let cpu = Cpu::builder().threads(2).build()?;
    /// # Ok::<(), backend_api::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn with_workers(threads: usize, workers: Option<ThreadPool>, settings: Builder) -> Self {
        Self(Arc::new(Inner {
            threads,
            workers,
            pool: Arc::default(),
            arch: Arch::new(),
            precision: settings.precision,
            matrix_unit: settings.matrix_unit && amx::is_available(),
            spin_pool: Mutex::default(),
        }))
    }

    /// The number of threads that work on an operation.
    pub fn threads(&self) -> usize {
        self.0.threads
    }

    /// The precision of matmuls at inference.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// Whether matmuls of `f32` use Intel AMX.
    pub fn has_matrix_unit(&self) -> bool {
        self.0.matrix_unit
    }

    pub(crate) fn workers(&self) -> Option<&ThreadPool> {
        self.0.workers.as_ref()
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }

    /// Runs `task` on the calling thread and, concurrently, on every worker of the device that
    /// wakes up in time. Returns `false`, without running it, if another operation uses the workers
    /// or if they cannot be started.
    pub(crate) fn run_spinning(&self, task: &(dyn Fn() + Sync)) -> bool {
        let Ok(mut spin_pool) = self.0.spin_pool.try_lock() else {
            return false;
        };
        if spin_pool.is_none() {
            *spin_pool = SpinPool::new(self.threads());
        }
        match &mut *spin_pool {
            Some(spin_pool) => spin_pool.run(task),
            None => return false,
        }
        true
    }

    pub(crate) fn arch(&self) -> Arch {
        self.0.arch
    }

    /// The elements of an operand in row-major order.
    pub(crate) fn dense<'a, T: bytemuck::Pod>(&self, input: &Input<'a>) -> Result<Dense<'a, T>> {
        Dense::new(self.pool(), input)
    }

    /// Runs an operation on floats with the kernel for the operands' type.
    fn run_float(
        &self,
        dtype: DType,
        op: &Op,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match dtype {
            DType::F32 => self.run_for::<f32>(op, ins, outs),
            DType::F64 => self.run_for::<f64>(op, ins, outs),
            other => Err(unsupported(op.name(), other)),
        }
    }

    fn run_for<T: Float>(
        &self,
        op: &Op,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match op {
            Op::Random {
                key, distribution, ..
            } => self.random::<T>(*key, *distribution, outs),
            Op::Unary(f) => self.unary::<T>(*f, ins, outs),
            Op::Affine { mul, add } => self.affine::<T>(*mul, *add, ins, outs),
            Op::Clamp { min, max } => self.clamp::<T>(*min, *max, ins, outs),
            Op::MatMul { alpha, .. } => self.matmul::<T>(*alpha, ins, outs),
            Op::ScatterAdd { .. } => self.scatter_add::<T>(ins, outs),
            // `run` matches without a wildcard and passes no other operations.
            _ => Err(Error::argument(
                op.name(),
                "operation",
                "is not an operation on floats",
            )),
        }
    }

    fn run_fused<T: Float>(
        &self,
        fused: &Fused,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        if fused.activation().is_some_and(|f| !f.is_common()) {
            return compose(self, fused, ins, outs);
        }
        match fused {
            Fused::BiasActivation { activation } => {
                self.bias_activation::<T>(*activation, ins, outs)
            }
            Fused::ActivationGrad { activation } => {
                self.activation_grad::<T>(*activation, ins, outs)
            }
            Fused::LstmStep(gates) => self.lstm_step::<T>(gates, ins, outs),
            Fused::LstmStepGrad(gates) => self.lstm_step_grad::<T>(gates, ins, outs),
            Fused::GruGates => self.gru_gates::<T>(ins, outs),
            Fused::GruGatesGrad => self.gru_gates_grad::<T>(ins, outs),
            Fused::GruOutput { activation } => self.gru_output::<T>(*activation, ins, outs),
            Fused::GruOutputGrad { activation } => {
                self.gru_output_grad::<T>(*activation, ins, outs)
            }
            Fused::Sequence(plan) if plan.path == SequencePath::Whole => {
                self.sequence::<T>(plan, ins, outs)
            }
            Fused::SequenceGrad(plan) if plan.path == SequencePath::Whole => {
                self.sequence_grad::<T>(plan, ins, outs)
            }
            Fused::SoftmaxCrossEntropy => self.softmax_cross_entropy::<T>(ins, outs),
            Fused::SoftmaxCrossEntropyGrad => self.softmax_cross_entropy_grad::<T>(ins, outs),
            Fused::SquaredNorm => self.squared_norm::<T>(ins, outs),
            Fused::Sgd { lr } => self.sgd::<T>(*lr, ins, outs),
            Fused::Adam(step) => self.adam::<T>(step, ins, outs),
            other => compose(self, other, ins, outs),
        }
    }
}

/// The vector length, in bits, that kernels use on this CPU.
struct VectorBits;

impl WithSimd for VectorBits {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        8 * size_of::<S::f32s>()
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("threads", &self.threads())
            .field("vector_bits", &self.arch().dispatch(VectorBits))
            .finish_non_exhaustive()
    }
}

impl Backend for Cpu {
    type Buffer = CpuBuffer;
    type Swapped = CpuBuffer;

    fn name(&self) -> String {
        "cpu".to_owned()
    }

    fn same_device(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn upload(&self, bytes: &[u8], meta: Meta) -> Result<CpuBuffer> {
        let mut storage = self.pool().take(bytes.len())?;
        storage.elements_mut::<u8>()[..bytes.len()].copy_from_slice(bytes);
        Ok(CpuBuffer::new(storage, meta.dtype, meta.shape.count()))
    }

    fn download(&self, src: View<'_, CpuBuffer>, into: &mut [u8]) -> Result<()> {
        match src.dtype.size() {
            1 => into.copy_from_slice(&self.dense::<u8>(&src)?),
            2 => into.copy_from_slice(bytemuck::cast_slice(&self.dense::<u16>(&src)?)),
            4 => into.copy_from_slice(bytemuck::cast_slice(&self.dense::<u32>(&src)?)),
            _ => into.copy_from_slice(bytemuck::cast_slice(&self.dense::<u64>(&src)?)),
        }
        Ok(())
    }

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, CpuBuffer>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        if is_widened(op, ins) {
            return run_widened(self, op, ins, outs);
        }
        let first = ins.first().map_or(DType::Bool, |x| x.dtype);
        match op {
            Op::Fill { value, .. } => self.fill(*value, outs),
            Op::Random { meta, .. } => self.run_float(meta.dtype, op, ins, outs),
            Op::Copy => self.copy(ins, outs),
            Op::Cast { to } => self.cast(*to, ins, outs),
            Op::Unary(_) | Op::Affine { .. } | Op::Clamp { .. } | Op::MatMul { .. } => {
                self.run_float(first, op, ins, outs)
            }
            Op::Binary(f) => self.binary(*f, ins, outs),
            Op::Compare(f) => self.compare(*f, ins, outs),
            Op::Select => self.select(ins, outs),
            Op::Reduce { kind, axis } => self.reduce(*kind, *axis, ins, outs),
            Op::ArgMax { axis } => self.argmax(*axis, ins, outs),
            Op::Concat { axis } => self.concat(*axis, ins, outs),
            Op::Reverse { time, batch } => self.reverse(*time, *batch, ins, outs),
            Op::Gather => self.gather(ins, outs),
            Op::ScatterAdd { .. } => {
                let dtype = ins.get(1).map_or(first, |rows| rows.dtype);
                self.run_float(dtype, op, ins, outs)
            }
            Op::Fused(Fused::MaskedUpdate { time }) => self.masked_update(*time, ins, outs),
            Op::Fused(Fused::ScatterUpdate) => self.scatter_update(ins, outs),
            Op::Fused(fused) => match first {
                DType::F32 => self.run_fused::<f32>(fused, ins, outs),
                DType::F64 => self.run_fused::<f64>(fused, ins, outs),
                _ => compose(self, fused, ins, outs),
            },
        }
    }

    fn accumulate(
        &self,
        dst: CpuBuffer,
        at: &Layout,
        src: View<'_, CpuBuffer>,
    ) -> Result<CpuBuffer> {
        match dst.dtype() {
            DType::F32 => self.accumulate_for::<f32>(dst, at, &src),
            DType::F64 => self.accumulate_for::<f64>(dst, at, &src),
            DType::F16 | DType::Bf16 => accumulate_widened(self, dst, at, src),
            other => Err(unsupported("accumulate", other)),
        }
    }

    fn swap_out(&self, buffer: CpuBuffer) -> Result<CpuBuffer> {
        Ok(buffer)
    }

    fn swap_in(&self, swapped: CpuBuffer) -> Result<CpuBuffer> {
        Ok(swapped)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Memory {
        self.pool().memory()
    }

    fn plan_sequence(&self, request: &SequenceRequest) -> Option<SequencePlan> {
        let mut plan = SequencePlan::stepwise(request);
        let known = matches!(
            request.recurrence,
            Recurrence::Basic { .. }
                | Recurrence::Lstm(_)
                | Recurrence::ExtendedLstm(_)
                | Recurrence::Gru { .. }
                | Recurrence::GruResetAfter { .. }
        );
        // Preparing the kernels costs about as much as multiplying a few rows with them.
        let worth_it =
            request.reuse || request.steps.saturating_mul(request.batch) >= MIN_PACKED_ROWS;
        let common = request.recurrence.activation().is_common();
        if known && common && worth_it && request.dtype.is_float() {
            plan.path = SequencePath::Whole;
        }
        Some(plan)
    }
}

impl Cpu {
    fn accumulate_for<T: Float>(
        &self,
        dst: CpuBuffer,
        at: &Layout,
        src: &Input<'_>,
    ) -> Result<CpuBuffer> {
        let (dtype, count) = (dst.dtype(), dst.count());
        let src = self.dense::<T>(src)?;
        let mut storage = unshared(self.pool(), dst, false)?;
        let to = &mut storage.elements_mut::<T>()[..count];
        if src.is_empty() {
        } else if at.is_contiguous() {
            let to = &mut to[at.offset()..][..src.len()];
            self.split(src.len(), [(to, 1)], 1, |range, [to]| {
                for (to, from) in to.iter_mut().zip(&src[range]) {
                    *to = to.add(*from);
                }
            });
        } else {
            Walk::new(at).update(to, 0, &src, |to, from| *to = to.add(from));
        }
        Ok(CpuBuffer::new(storage, dtype, count))
    }
}
