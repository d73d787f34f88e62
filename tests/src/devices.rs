//! The backends under test.

use backend_api::{Error, Result, Unfused, dispatch};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use cudasim::Exclusive;
use reference::Reference;
use rnn_train::Autodiff;

dispatch! {
    /// All backends and decorated backends as one type, so that cells and drivers are compiled only
    /// once.
    pub enum TestBackend, TestBuffer, TestSwapped {
        Cpu(Cpu),
        UnfusedCpu(Unfused<Cpu>),
        Cuda(Cuda),
        UnfusedCuda(Unfused<Cuda>),
        Reference(Reference),
    }
}

/// A device under test.
pub type TestDevice = Autodiff<TestBackend>;

/// The devices that every machine has, in the order in which they run. `sim` is the CUDA backend on
/// a simulated device, and `sim-unfused` the same without fused kernels. A real GPU is `cuda` and
/// `cuda-unfused`. `reference` is the backend with which the conformance suite compares the others.
pub const NAMES: [&str; 4] = ["cpu", "cpu-unfused", "sim", "sim-unfused"];

/// The device with a name.
///
/// The simulated device replaces a real one for the whole process, so a process can use only one of
/// them.
///
/// # Errors
/// No device has this name, or it is not available on this machine.
pub fn device(name: &str) -> Result<TestDevice> {
    let backend = match name {
        "cpu" => TestBackend::Cpu(Cpu::new()),
        "cpu-unfused" => TestBackend::UnfusedCpu(Unfused(Cpu::new())),
        "cuda" => TestBackend::Cuda(Cuda::new(0)?),
        "cuda-unfused" => TestBackend::UnfusedCuda(Unfused(Cuda::new(0)?)),
        "reference" => TestBackend::Reference(Reference),
        "sim" => TestBackend::Cuda(simulated()?),
        "sim-unfused" => TestBackend::UnfusedCuda(Unfused(simulated()?)),
        _ => {
            let problem = format!(
                "is `{name}`, but must be one of {}, cuda, cuda-unfused, reference",
                NAMES.join(", ")
            );
            return Err(Error::argument("device", "name", problem));
        }
    };
    Ok(Autodiff::new(backend))
}

/// Whether tests of the CUDA backend run on a GPU: set `RECURRENT_CUDA=real`. The default is the
/// simulated device.
pub fn on_real_gpu() -> bool {
    std::env::var_os("RECURRENT_CUDA").is_some_and(|kind| kind == "real")
}

/// Locks the simulated device for one test, if tests of the CUDA backend run on it.
///
/// # Panics
/// The simulated device cannot be installed, so a test that needs it fails.
pub fn simulator() -> Option<Exclusive<'static>> {
    (!on_real_gpu()).then(|| {
        cudasim::install()
            .expect("the simulated device is installed")
            .exclusive()
    })
}

fn simulated() -> Result<Cuda> {
    cudasim::install().map_err(|e| Error::Unavailable {
        device: "sim".into(),
        reason: e.to_string(),
    })?;
    Cuda::new(0)
}
