//! Shared by the tests of the simulated device: a device for exclusive use, and kernels compiled as
//! the backend does.

pub mod programs;

use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, LaunchConfig,
};
use cudarc::nvrtc::{Ptx, result, sys};
use cudasim::Exclusive;

pub const PRIM: &str = include_str!("../../../../../backend-cuda/kernels/prim.cuh");

/// A device for exclusive use by one test, without cudarc's event tracking.
pub struct Device {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    // The last field: everything else is dropped before the device is reset.
    pub sim: Exclusive<'static>,
}

pub fn device() -> Device {
    device_with(|_| ())
}

/// A device with changed settings.
pub fn device_with(change: impl FnOnce(&Exclusive<'_>)) -> Device {
    let sim = cudasim::install().unwrap().exclusive();
    change(&sim);
    let context = CudaContext::new(0).unwrap();
    // SAFETY: the tests order their streams with their own events.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    Device {
        context,
        stream,
        sim,
    }
}

impl Device {
    pub fn module(&self, source: &str, defines: &[&str]) -> Arc<CudaModule> {
        let options: Vec<String> = defines.iter().map(|name| format!("-D{name}")).collect();
        let binary = compile(source, &options).unwrap();
        self.context.load_module(Ptx::from_binary(binary)).unwrap()
    }

    pub fn function(&self, source: &str, defines: &[&str], name: &str) -> CudaFunction {
        self.module(source, defines).load_function(name).unwrap()
    }

    /// The error code of waiting for all work, and the simulator's report.
    pub fn failure(&self) -> (Option<sys_code::CUresult>, String) {
        let code = self
            .stream
            .synchronize()
            .err()
            .map(|DriverError(code)| code);
        (code, self.sim.last_report())
    }
}

pub mod sys_code {
    pub use cudarc::driver::sys::CUresult;
}

/// Compiles a CUBIN for the simulated device, or returns the compiler's log.
pub fn compile(source: &str, options: &[String]) -> Result<Vec<u8>, String> {
    let source = CString::new(source).unwrap();
    let (prim, prim_name) = (CString::new(PRIM).unwrap(), c"prim.cuh");
    let mut program = std::ptr::null_mut();
    let mut options = options.to_vec();
    options
        .extend(["--gpu-architecture=sm_90", "--std=c++17", "-default-device"].map(str::to_owned));
    // SAFETY: all strings outlive the call, and the program is destroyed once.
    unsafe {
        let (texts, names) = ([prim.as_ptr()], [prim_name.as_ptr()]);
        sys::nvrtcCreateProgram(
            &mut program,
            source.as_ptr(),
            c"kernel.cu".as_ptr(),
            1,
            texts.as_ptr(),
            names.as_ptr(),
        )
        .result()
        .unwrap();
        let outcome = result::compile_program(program, &options);
        let log: Vec<u8> = result::get_program_log(program)
            .unwrap()
            .iter()
            .map(|&c| c as u8)
            .collect();
        let log = String::from_utf8_lossy(&log)
            .trim_end_matches('\0')
            .to_owned();
        let mut size = 0;
        sys::nvrtcGetCUBINSize(program, &mut size).result().unwrap();
        let mut binary = vec![0_u8; size];
        if size > 0 {
            sys::nvrtcGetCUBIN(program, binary.as_mut_ptr().cast())
                .result()
                .unwrap();
        }
        result::destroy_program(program).unwrap();
        outcome
            .map(|()| binary)
            .map_err(|error| format!("{error:?}: {log}"))
    }
}

pub fn grid(blocks: u32, threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (threads, 1, 1),
        shared_mem_bytes: shared,
    }
}

/// Numbers between -scale and scale, determined by the seed.
pub fn numbers(count: usize, seed: u32, scale: f32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    (0..count).map(|_| next()).collect()
}

/// The seeds of 32 schedules: the fixed one and 31 random ones.
pub fn schedules() -> impl Iterator<Item = u64> {
    0..32
}

/// Launches a kernel: `launch!(stream, function, config, argument, ..)`.
#[macro_export]
macro_rules! launch {
    ($stream:expr, $function:expr, $config:expr $(, $argument:expr)* $(,)?) => {{
        #[allow(unused_imports, reason = "a kernel may have no arguments")]
        use cudarc::driver::PushKernelArg;
        let config = $config;
        let mut builder = $stream.launch_builder(&$function);
        $(builder.arg($argument);)*
        // SAFETY: each call passes the arguments in the kernel's order, with its types.
        unsafe { builder.launch(config) }.map(|_| ())
    }};
}

/// Like `launch!`, with all blocks resident at once.
#[macro_export]
macro_rules! launch_cooperative {
    ($stream:expr, $function:expr, $config:expr $(, $argument:expr)* $(,)?) => {{
        #[allow(unused_imports, reason = "a kernel may have no arguments")]
        use cudarc::driver::PushKernelArg;
        let config = $config;
        let mut builder = $stream.launch_builder(&$function);
        $(builder.arg($argument);)*
        // SAFETY: each call passes the arguments in the kernel's order, with its types.
        unsafe { builder.launch_cooperative(config) }.map(|_| ())
    }};
}
