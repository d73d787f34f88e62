//! A GPU's primary context. It is opened once and kept for the life of the process: cuBLAS keeps
//! it, too, and is not usable after it was released.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::{Error, Memory, Result};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result, sys};

use crate::driver;
use crate::libraries::Library;

/// The state that all opened devices of one GPU share.
pub(crate) struct Primary {
    index: usize,
    context: Arc<CudaContext>,
    /// Whether the context failed for good, and the first error.
    is_lost: AtomicBool,
    problem: Mutex<String>,
    /// The end of the latest cooperative launch, and its stream.
    cooperative: Mutex<Option<(sys::CUstream, CudaEvent)>>,
}

// SAFETY: a stream's address is compared and never used.
unsafe impl Send for Primary {}
// SAFETY: as above.
unsafe impl Sync for Primary {}

impl Primary {
    /// Opens a device, or returns an error that names the missing component.
    pub(crate) fn open(index: usize) -> Result<Arc<Self>> {
        static OPEN: Mutex<Vec<Arc<Primary>>> = Mutex::new(Vec::new());
        let unavailable = |reason: String| Error::Unavailable {
            device: driver::name(index),
            reason,
        };
        let failed =
            |what: &str, e: DriverError| unavailable(format!("{what}: {}", driver::words(e)));
        for library in [Library::Driver, Library::Compiler, Library::Products] {
            library.open().map_err(unavailable)?;
        }
        result::init().map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => unavailable(driver::none_of(0)),
            _ => failed("cannot initialize the driver", e),
        })?;
        let count = CudaContext::device_count();
        let count = count.map_err(|e| failed("cannot count the devices", e))?;
        driver::check_index(index, count).map_err(unavailable)?;
        let mut open = locked(&OPEN);
        let known = open.iter().find(|primary| primary.index == index);
        let primary = match known {
            Some(primary) => primary.clone(),
            None => {
                let context = CudaContext::new(index);
                let context = context.map_err(|e| failed("cannot open the device", e))?;
                // SAFETY: this backend orders all work with its own streams and events (`pool`,
                // `swap`).
                unsafe { context.disable_event_tracking() };
                let primary = Arc::new(Self {
                    index,
                    context,
                    is_lost: AtomicBool::new(false),
                    problem: Mutex::default(),
                    cooperative: Mutex::default(),
                });
                open.push(primary.clone());
                primary
            }
        };
        drop(open);
        let capability = primary.context.compute_capability();
        let capability = capability.map_err(|e| failed("cannot read the compute capability", e))?;
        driver::check_capability(capability).map_err(unavailable)?;
        primary.recover()?;
        Ok(primary)
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Makes the device current on the calling thread.
    pub(crate) fn bind(&self) -> Result<()> {
        if self.is_lost.load(Ordering::Acquire) {
            return Err(self.lost());
        }
        self.context
            .bind_to_thread()
            .map_err(|e| self.failure("selecting the device", e))
    }

    /// Opens another stream.
    pub(crate) fn new_stream(&self) -> Result<Arc<CudaStream>> {
        let stream = self.context.new_stream();
        stream.map_err(|e| self.failure("creating a stream", e))
    }

    /// The errors of an action.
    pub(crate) fn failed(
        self: &Arc<Self>,
        action: &'static str,
    ) -> impl Fn(DriverError) -> Error + use<> {
        let primary = self.clone();
        move |e| primary.failure(action, e)
    }

    /// The error for a failed driver call.
    pub(crate) fn failure(&self, action: &'static str, error: DriverError) -> Error {
        let problem = driver::words(error);
        if driver::is_final(error) {
            let mut first = locked(&self.problem);
            if !self.is_lost.load(Ordering::Acquire) {
                *first = format!("{action} failed: {problem}");
                self.is_lost.store(true, Ordering::Release);
            }
            drop(first);
            return self.lost();
        }
        let device = driver::name(self.index);
        match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory {
                device,
                requested: 0,
                free: result::mem_get_info().map_or(0, |(free, _)| free),
                memory: Memory::default(),
            },
            _ => Error::Failed {
                device,
                action,
                problem,
            },
        }
    }

    /// The error of a library that does not say what failed: that of the device, if it is lost.
    pub(crate) fn failure_within(&self, action: &'static str, problem: String) -> Error {
        // SAFETY: waiting has no preconditions; an error is the answer.
        match unsafe { sys::cuCtxSynchronize() }.result() {
            Err(e) if driver::is_final(e) => self.failure(action, e),
            _ => Error::Failed {
                device: driver::name(self.index),
                action,
                problem,
            },
        }
    }

    fn lost(&self) -> Error {
        Error::Lost {
            device: driver::name(self.index),
            problem: locked(&self.problem).clone(),
        }
    }

    /// Asks the driver whether a lost device works again.
    fn recover(&self) -> Result<()> {
        if !self.is_lost.load(Ordering::Acquire) {
            return Ok(());
        }
        // Errors of destructors, which cudarc keeps for the next call.
        let _ = self.context.check_err();
        let works = self.context.bind_to_thread();
        match works.and_then(|()| self.context.synchronize()) {
            Ok(()) => {
                self.is_lost.store(false, Ordering::Release);
                Ok(())
            }
            Err(_) => Err(self.lost()),
        }
    }

    /// Queues a cooperative launch after all earlier ones of the GPU, whichever stream they are on:
    /// of two that begin at once, none may get the multiprocessors for all its blocks.
    pub(crate) fn cooperate<R>(
        &self,
        stream: &CudaStream,
        launch: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let failed = |e| self.failure("ordering cooperative launches", e);
        let mut last = locked(&self.cooperative);
        if let Some((other, end)) = &*last
            && *other != stream.cu_stream()
        {
            stream.wait(end).map_err(failed)?;
        }
        let launched = launch()?;
        let end = stream.record_event(None).map_err(failed)?;
        *last = Some((stream.cu_stream(), end));
        Ok(launched)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks protect is valid between statements, so a poisoned lock is still usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
