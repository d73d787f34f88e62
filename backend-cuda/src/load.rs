//! Loading kernels: each is compiled, loaded and looked up at first use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use backend_api::{Error, Result};
use cudarc::driver::{CudaFunction, CudaModule, DriverError, result, sys};
use cudarc::nvrtc::Ptx;
use smallvec::SmallVec;

use crate::arguments::{Args, Kernel, Source};
use crate::kernels::Code;
use crate::pool::Pool;
use crate::primary::Primary;
use crate::{cache, driver};

/// The kernels loaded on a device.
pub(crate) struct Loaded {
    functions: RwLock<HashMap<Kernel, Arc<Slot>>>,
    /// The sources of steps, by their hashes.
    steps: Mutex<HashMap<u64, Arc<str>>>,
    pool: Arc<Pool>,
    primary: Arc<Primary>,
    hardware: String,
    architecture: String,
    shared_limit: usize,
}

/// The place of a kernel.
#[derive(Default)]
struct Slot {
    function: OnceLock<Function>,
    /// Held while loading, so that a second thread that needs the kernel waits for the first one.
    /// Different kernels are compiled in parallel.
    loading: Mutex<()>,
}

struct Function {
    function: CudaFunction,
    /// Size in bytes of each declared argument.
    sizes: SmallVec<[usize; 20]>,
}

impl Loaded {
    pub(crate) fn new(
        primary: Arc<Primary>,
        pool: Arc<Pool>,
        hardware: String,
        architecture: String,
        shared_limit: usize,
    ) -> Self {
        Self {
            functions: RwLock::default(),
            steps: Mutex::default(),
            pool,
            primary,
            hardware,
            architecture,
            shared_limit,
        }
    }

    pub(crate) fn hardware(&self) -> &str {
        &self.hardware
    }

    pub(crate) fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Returns a kernel after checking its arguments. The device must be current on the calling
    /// thread.
    pub(crate) fn function(&self, kernel: Kernel, args: &Args) -> Result<sys::CUfunction> {
        self.with(kernel, |function| self.checked(kernel, function, args))?
    }

    /// The number of blocks that a multiprocessor can hold at once.
    pub(crate) fn occupancy(&self, kernel: Kernel, threads: u32, shared: usize) -> Result<u32> {
        let failed = |e| self.primary.failure("asking for the occupancy", e);
        self.with(kernel, |found| {
            let function = &found.function;
            function.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None)
        })?
        .map_err(failed)
    }

    /// Calls `f` with a kernel, which is loaded first if necessary.
    fn with<R>(&self, kernel: Kernel, f: impl FnOnce(&Function) -> R) -> Result<R> {
        let slot = self.slot(kernel);
        if let Some(function) = slot.function.get() {
            return Ok(f(function));
        }
        let _one = slot.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.function.get().is_none() {
            let _ = slot.function.set(self.load(kernel)?);
        }
        Ok(f(slot.function.wait()))
    }

    fn slot(&self, kernel: Kernel) -> Arc<Slot> {
        let known = self.functions.read();
        if let Some(slot) = known.unwrap_or_else(PoisonError::into_inner).get(&kernel) {
            return slot.clone();
        }
        let known = self.functions.write();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        known.entry(kernel).or_default().clone()
    }

    /// Checks the argument sizes. The driver copies as many bytes as the kernel declares, so too
    /// short an argument would be read beyond its end.
    fn checked(&self, kernel: Kernel, function: &Function, args: &Args) -> Result<sys::CUfunction> {
        if function.sizes[..] == *args.sizes() {
            return Ok(function.function.cu_function());
        }
        Err(Error::Failed {
            device: driver::name(self.primary.index()),
            action: kernel.name,
            problem: format!(
                "its arguments have {:?} bytes, not {:?}",
                function.sizes,
                args.sizes()
            ),
        })
    }

    /// Makes the source of a step known.
    pub(crate) fn add_step(&self, code: u64, source: &Arc<str>) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.entry(code).or_insert_with(|| source.clone());
    }

    /// The name and the text of a source.
    fn text(&self, source: Source) -> (&'static str, Arc<str>) {
        match source {
            Source::File(module) => (module.name(), module.source().into()),
            Source::Step(code) => {
                let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
                ("step.cu", steps.get(&code).cloned().unwrap_or_default())
            }
        }
    }

    fn load(&self, kernel: Kernel) -> Result<Function> {
        let name = kernel.function();
        let (file, text) = self.text(kernel.source);
        let module = self.module(&Code::kernel(file, &text, &name), &name)?;
        let failed = |e| self.primary.failure("looking up a kernel", e);
        let function = module.load_function(&name).map_err(failed)?;
        let raw = function.cu_function();
        // The limit of dynamic shared memory is the kernel's and not the launch's: two threads that
        // set it for a launch each would set it for each other.
        use sys::CUfunction_attribute as Attribute;
        let fixed = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded.
        unsafe {
            let fixed = result::function::get_function_attribute(raw, fixed).map_err(failed)?;
            let dynamic = self.shared_limit as i32 - fixed;
            result::function::set_function_attribute(raw, most, dynamic).map_err(failed)?;
        }
        Ok(Function {
            sizes: declared(raw).map_err(failed)?,
            function,
        })
    }

    fn module(&self, code: &Code<'_>, kernel: &str) -> Result<Arc<CudaModule>> {
        let (cubin, kept) = cache::cubin(code, &self.hardware, &self.architecture)?;
        let mut loaded = self.load_code(cubin)?;
        if kept && loaded.is_err() {
            log::warn!("{kernel}: the driver rejects the cached code; compiling again");
            loaded = self.load_code(cache::compile(code, &self.hardware, &self.architecture)?)?;
        }
        loaded.map_err(|e| self.primary.failure("loading a kernel", e))
    }

    /// The module, or the driver's error if it rejected the code rather than the device.
    fn load_code(&self, cubin: Vec<u8>) -> Result<Result<Arc<CudaModule>, DriverError>> {
        let code = Ptx::from_binary(cubin);
        self.pool.with_room(0, || {
            match self.primary.context().load_module(code.clone()) {
                Ok(module) => Ok(Ok(module)),
                Err(e) if refused(&e) => Ok(Err(e)),
                Err(e) => Err(self.primary.failure("loading a kernel", e)),
            }
        })
    }
}

/// Whether the driver rejected the code rather than the device.
fn refused(error: &DriverError) -> bool {
    matches!(
        error.0,
        sys::CUresult::CUDA_ERROR_INVALID_IMAGE
            | sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | sys::CUresult::CUDA_ERROR_INVALID_SOURCE
            | sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    )
}

/// The sizes in bytes of a kernel's arguments.
fn declared(function: sys::CUfunction) -> Result<SmallVec<[usize; 20]>, DriverError> {
    let mut sizes = SmallVec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; the call writes two numbers.
        let answer = unsafe {
            sys::cuFuncGetParamInfo(function, sizes.len(), &raw mut offset, &raw mut size)
        };
        match answer.result() {
            Ok(()) => sizes.push(size),
            // The index is past the last argument.
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(sizes),
            Err(e) => return Err(e),
        }
    }
}
