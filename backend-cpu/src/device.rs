//! The device: threads, memory, and which kernel does an operation.

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
use crate::storage::{CpuBuffer, Dense, Input, unshared};
use crate::strided::Walk;
use crate::team::Team;
use crate::{amx, bf16};

/// Rows, over all steps, from which on a whole sequence is worth preparing its kernels.
const MIN_ROWS: usize = 4;

/// The processor as a device.
///
/// An operation's work is shared by a team of threads, the caller's among them, which is made for the first operation that
/// needs it. Large products without a matrix unit, and operations that find the team at work for another one, have the threads of a pool.
///
/// Each value has threads and memory of its own; clones share them. There is no state
/// that belongs to the process, so devices with different numbers of threads can live side by side.
///
/// The memory of freed buffers is kept for reuse: in steady state nothing is asked of the system. What is
/// in use and what is kept never exceed together 1.5 times the most that was in use at once,
/// plus 64 MiB.
#[derive(Clone)]
pub struct Cpu(Arc<Inner>);

struct Inner {
    threads: usize,
    workers: Option<ThreadPool>,
    pool: Arc<Pool>,
    arch: Arch,
    precision: Precision,
    matrix_unit: bool,
    /// Made when it is first needed.
    team: Mutex<Option<Team>>,
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
    /// How many threads work on an operation: 1 or more. With 1 the work is done on the calling thread.
    /// Results do not depend on it. The default is what
    /// [`available_parallelism`](thread::available_parallelism) says.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// How exact products may be: [`Precision::Exact`], if this is not called, or [`Precision::Bf16`], which is for
    /// inference. The latter rounds the operands of products in whole sequences of `f32` to bfloat16 (8 bits of precision) and
    /// sums in `f32`, where nothing is kept for a gradient; training, other types and other operations stay exact. It
    /// reads half as much memory, which is what steps of small batches wait for. It needs AVX-512-BF16.
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

    /// Whether large products of `f32`, of 8 rows or more, use the processor's matrix unit (Intel AMX), if it has one; they
    /// do if this is not called. The unit multiplies bfloat16 numbers, so exact products are made of three such parts of each
    /// number: as exact as `f32`, in half the time or less, but not the same bits as without the unit. Parts below 2^-126 count as 0.
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

    /// Makes the device and starts its threads.
    ///
    /// # Errors
    /// The number of threads is 0, or the system cannot start them; the processor does not have the precision.
    pub fn build(self) -> Result<Cpu> {
        let threads = self.threads.unwrap_or_else(available_threads);
        if threads == 0 {
            return Err(Error::argument(
                "cpu",
                "threads",
                "is 0, but 1 or more are needed",
            ));
        }
        let unavailable = |reason: &str| Error::Unavailable {
            device: format!("cpu with products of {:?}", self.precision),
            reason: reason.into(),
        };
        match self.precision {
            Precision::Exact => {}
            Precision::Bf16 if bf16::is_available() => {}
            Precision::Bf16 => return Err(unavailable("the processor has no AVX-512-BF16")),
            _ => return Err(unavailable("processors have no such products")),
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
    /// A device with as many threads as the system has to offer, or with one (the caller's) should it not
    /// be able to start them.
    pub fn new() -> Self {
        Self::builder()
            .build()
            .unwrap_or_else(|_| Self::with_workers(1, None, Builder::default()))
    }

    /// A device with other settings.
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
            team: Mutex::default(),
        }))
    }

    /// How many threads work on an operation.
    pub fn threads(&self) -> usize {
        self.0.threads
    }

    /// How exact the products of inference are.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// Whether whole sequences use the processor's matrix unit.
    pub fn has_matrix_unit(&self) -> bool {
        self.0.matrix_unit
    }

    pub(crate) fn workers(&self) -> Option<&ThreadPool> {
        self.0.workers.as_ref()
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }

    /// Runs `task` on this thread, and at the same time on the device's others as they come; `false` if that cannot be now, as
    /// another operation has them or there are none.
    pub(crate) fn run_team(&self, task: &(dyn Fn() + Sync)) -> bool {
        let Ok(mut team) = self.0.team.try_lock() else {
            return false;
        };
        if team.is_none() {
            *team = Team::new(self.threads());
        }
        match &mut *team {
            Some(team) => team.run(task),
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

    /// The operations on floats, for the operands' type.
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
            // `run` matches without a wildcard and sends no others.
            _ => Err(Error::argument(op.name(), "operation", "is none of floats")),
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

/// The length of the vectors that kernels are compiled for on this machine.
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
        // Preparing the kernels costs about as much as using them for some rows.
        let worth_it = request.reuse || request.steps.saturating_mul(request.batch) >= MIN_ROWS;
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
