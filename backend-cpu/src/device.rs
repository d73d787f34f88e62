//! The CPU device: its threads, memory and settings.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::{process, thread};

use backend_api::{Error, Precision, Result};
use pulp::{Arch, Simd, WithSimd};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::features;
use crate::offload::OffloadFile;
use crate::pool::Pool;
use crate::spin_pool::SpinPool;
use crate::storage::{Dense, Input};
use backend_api::trace::StepCache;

/// The CPU as a device.
///
/// Operations are split over a pool of spinning worker threads and the calling thread. The workers
/// start with the first operation that needs them. Large matmuls of few rows without AMX, and
/// operations that find the worker pool busy with another operation, use a second, rayon thread
/// pool.
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
    amx: bool,
    offload: Option<Arc<OffloadFile>>,
    /// Created on first use.
    spin_pool: Mutex<Option<SpinPool>>,
    steps: StepCache,
    /// The process that created the device: a child of `fork` has none of its threads.
    process: u32,
}

/// Settings of a [`Cpu`]; see [`Cpu::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    threads: Option<usize>,
    precision: Precision,
    amx: bool,
    offload_to: Option<PathBuf>,
}

/// The most threads of a device. More would only fill the system's tables of processes.
pub const MAX_THREADS: usize = 1024;

impl Default for Builder {
    fn default() -> Self {
        Self {
            threads: None,
            precision: Precision::Exact,
            amx: true,
            offload_to: None,
        }
    }
}

impl Builder {
    /// Sets the number of threads that work on an operation: 1 to [`MAX_THREADS`]. With 1 the
    /// calling thread does all work. Results do not depend on the number of threads. The default is
    /// [`available_parallelism`](thread::available_parallelism).
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets the precision of matmuls: [`Precision::Exact`], the default, or one of two that are
    /// meant for inference. They apply to matmuls in whole sequences and streams of `f32` where no
    /// values are saved for a gradient; training, other types and other operations stay exact, and
    /// so do cells whose steps are not compiled (convolutional cells, `GlstmCell` and
    /// `AttentionCellWrapper`). The time of a step with few rows is that of reading the weights,
    /// which become smaller:
    ///
    /// - [`Precision::Bf16`] rounds the weights to bfloat16 (8 bits of precision), half the size.
    ///   With up to 3 rows, products and sums are those of `f32`, with the same bits on all CPUs
    ///   with a fused multiply-add. CPUs with AVX-512-BF16 or [AMX](Self::amx) multiply larger
    ///   batches (AMX from 8 rows on) by instructions for bfloat16 numbers, about twice as fast as
    ///   exact products or more. They round the other operand, too, and have other bits.
    /// - [`Precision::Int8`] rounds the weights and the other operand to integers from -127 to 127
    ///   times a scale, a quarter of the size. Each column of the weights and each row of the other
    ///   operand has its scale: its largest magnitude over 127. Sums are exact. Results of a matmul
    ///   have the same bits on all CPUs. A row with an infinity or a NaN becomes NaN. The CPU's
    ///   instructions for it (AVX-512-VNNI, else AVX2) make products of many rows faster, too.
    ///
    /// ```
    /// use backend_api::Precision;
    /// use backend_cpu::Cpu;
    ///
    /// let cpu = Cpu::builder().threads(1).precision(Precision::Int8).build()?;
    /// assert_eq!(cpu.precision(), Precision::Int8);
    /// # Ok::<(), backend_api::Error>(())
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
    /// let cpu = Cpu::builder().amx(false).build()?;
    /// assert!(!cpu.has_amx());
    /// # Ok::<(), backend_api::Error>(())
    /// ```
    #[must_use]
    pub fn amx(mut self, used: bool) -> Self {
        self.amx = used;
        self
    }

    /// Sets a folder for a file that [`MemoryPolicy::Offload`](backend_api::MemoryPolicy::Offload)
    /// moves values to; without one the values stay in memory. The file grows as needed, has no
    /// name, and is gone when the device or the process is. The folder should not be in memory, as
    /// `/tmp` is on some systems.
    ///
    /// ```
    /// use backend_api::Backend;
    /// use backend_cpu::Cpu;
    ///
    /// let cpu = Cpu::builder().offload_to(std::env::temp_dir()).build()?;
    /// assert!(cpu.can_offload() && !Cpu::new().can_offload());
    /// # Ok::<(), backend_api::Error>(())
    /// ```
    #[must_use]
    pub fn offload_to(mut self, folder: impl Into<PathBuf>) -> Self {
        self.offload_to = Some(folder.into());
        self
    }

    /// Creates the device and starts its thread pool.
    ///
    /// # Errors
    /// The number of threads is 0 or above [`MAX_THREADS`], the operating system cannot start them,
    /// CPUs do not support the precision, or a file cannot be created in the folder for offloading.
    pub fn build(self) -> Result<Cpu> {
        let threads = self.threads.unwrap_or_else(available_threads);
        if threads == 0 || threads > MAX_THREADS {
            let problem = format!("is {threads}, but must be from 1 to {MAX_THREADS}");
            return Err(Error::argument("cpu", "threads", problem));
        }
        if !matches!(
            self.precision,
            Precision::Exact | Precision::Bf16 | Precision::Int8
        ) {
            return Err(Error::Unavailable {
                device: format!("cpu with {} matmuls", self.precision),
                reason: "CPUs support exact, bf16 and int8 matmuls".into(),
            });
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
        let offload = self
            .offload_to
            .as_deref()
            .map(OffloadFile::new)
            .transpose()?;
        Ok(Cpu::with_workers(threads, workers, &self, offload))
    }
}

fn available_threads() -> usize {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    threads.min(MAX_THREADS)
}

impl Cpu {
    /// A device with the default number of threads (see [`Builder::threads`]), or with one thread
    /// (the caller's) if the operating system cannot start them.
    pub fn new() -> Self {
        Self::builder()
            .build()
            .unwrap_or_else(|_| Self::with_workers(1, None, &Builder::default(), None))
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

    fn with_workers(
        threads: usize,
        workers: Option<ThreadPool>,
        settings: &Builder,
        offload: Option<OffloadFile>,
    ) -> Self {
        Self(Arc::new(Inner {
            threads,
            workers,
            pool: Arc::default(),
            arch: Arch::new(),
            precision: settings.precision,
            amx: settings.amx && features::has_amx(),
            offload: offload.map(Arc::new),
            spin_pool: Mutex::default(),
            steps: StepCache::default(),
            process: process::id(),
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
    pub fn has_amx(&self) -> bool {
        self.0.amx
    }

    /// Whether both are clones of one device.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The rayon pool, if the calling thread may wait for it. A worker of another rayon pool may
    /// not: it would run other tasks of its own pool while it waits, inside the current one. That
    /// overflows the stack if those tasks call the device as well, and is a deadlock if the caller
    /// holds a lock that they take.
    pub(crate) fn workers(&self) -> Option<&ThreadPool> {
        let workers = self.0.workers.as_ref()?;
        let may_wait = rayon::current_thread_index().is_none() && !self.is_forked();
        may_wait.then_some(workers)
    }

    /// Whether this is a child process of the one that created the device. The child has no
    /// threads but the calling one, which then does all work.
    fn is_forked(&self) -> bool {
        process::id() != self.0.process
    }

    pub(crate) fn offload_file(&self) -> Option<&Arc<OffloadFile>> {
        self.0.offload.as_ref()
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }

    /// Runs `task` on the calling thread and, concurrently, on every worker of the device that
    /// wakes up in time. Returns `false`, without running it, if another operation uses the workers
    /// or if they cannot be started.
    pub(crate) fn run_spinning(&self, task: &(dyn Fn() + Sync)) -> bool {
        if self.is_forked() {
            return false;
        }
        let mut spin_pool = match self.0.spin_pool.try_lock() {
            Ok(spin_pool) => spin_pool,
            // A task panicked. The pool waits for all workers before it passes the panic on, so it
            // is idle again.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
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

    /// The compiled steps of recurrences.
    pub(crate) fn steps(&self) -> &StepCache {
        &self.0.steps
    }

    pub(crate) fn arch(&self) -> Arch {
        self.0.arch
    }

    /// The elements of an operand in row-major order.
    pub(crate) fn dense<'a, T: bytemuck::Pod>(&self, input: &Input<'a>) -> Result<Dense<'a, T>> {
        Dense::new(self.pool(), input)
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

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};

    use super::*;

    #[test]
    fn the_worker_pool_remains_usable_after_a_panic() {
        let cpu = Cpu::builder().threads(2).build().unwrap();
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            cpu.run_spinning(&|| panic!("as a kernel with a bug"));
        }));
        assert!(panicked.is_err());
        assert!(cpu.run_spinning(&|| {}));
    }
}
