//! Loading kernels: each file is compiled and loaded at first use, each function is looked up once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use backend_api::{Error, Result};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError, sys};
use cudarc::nvrtc::Ptx;
use smallvec::SmallVec;

use crate::arguments::{Args, Kernel, Source};
use crate::{cache, driver};

/// The kernels loaded on a device.
pub(crate) struct Loaded {
    // Fields are dropped in order: functions before their modules.
    functions: RwLock<HashMap<Kernel, Function>>,
    modules: Mutex<HashMap<Source, Arc<CudaModule>>>,
    /// The sources of steps, by their hashes.
    steps: Mutex<HashMap<u64, Arc<str>>>,
    context: Arc<CudaContext>,
    index: usize,
    hardware: String,
    architecture: String,
}

struct Function {
    function: CudaFunction,
    /// Size in bytes of each declared argument.
    sizes: SmallVec<[usize; 20]>,
}

impl Loaded {
    pub(crate) fn new(
        index: usize,
        context: Arc<CudaContext>,
        hardware: String,
        architecture: String,
    ) -> Self {
        Self {
            functions: RwLock::default(),
            modules: Mutex::default(),
            steps: Mutex::default(),
            context,
            index,
            hardware,
            architecture,
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
        let known = self.functions.read();
        if let Some(function) = known.unwrap_or_else(PoisonError::into_inner).get(&kernel) {
            return self.checked(kernel, function, args);
        }
        let failed = |e| driver::failure(self.index, "looking up a kernel", e);
        let module = self.module(kernel.source)?;
        let function = module.load_function(&kernel.function()).map_err(failed)?;
        let function = Function {
            sizes: declared(function.cu_function()).map_err(failed)?,
            function,
        };
        let raw = self.checked(kernel, &function, args);
        let known = self.functions.write();
        known
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kernel, function);
        raw
    }

    /// Checks the argument sizes. The driver copies as many bytes as the kernel declares, so too
    /// short an argument would be read beyond its end.
    fn checked(&self, kernel: Kernel, function: &Function, args: &Args) -> Result<sys::CUfunction> {
        if function.sizes[..] == *args.sizes() {
            return Ok(function.function.cu_function());
        }
        Err(Error::Failed {
            device: driver::name(self.index),
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

    fn module(&self, source: Source) -> Result<Arc<CudaModule>> {
        // The lock is held while compiling, so a second thread that needs the module waits instead
        // of compiling it too.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = modules.get(&source) {
            return Ok(loaded.clone());
        }
        let load = |cubin| self.context.load_module(Ptx::from_binary(cubin));
        let (name, text) = self.text(source);
        let (cubin, kept) = cache::cubin(name, &text, &self.hardware, &self.architecture)?;
        let mut loaded = load(cubin);
        if kept && loaded.as_ref().is_err_and(refused) {
            log::warn!("{name}: the driver rejects the cached code; compiling again",);
            loaded = load(cache::compile(
                name,
                &text,
                &self.hardware,
                &self.architecture,
            )?);
        }
        let loaded = loaded.map_err(|e| driver::failure(self.index, "loading kernels", e))?;
        modules.insert(source, loaded.clone());
        Ok(loaded)
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
