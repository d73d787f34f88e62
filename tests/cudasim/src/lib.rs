//! A CUDA device simulated on the CPU, for tests on machines without a GPU.
//!
//! [`install`] loads a replacement of the driver, NVRTC, cuBLAS and NCCL into the process, where
//! cudarc finds it. The machine's C++ compiler compiles kernels, and they run thread by thread
//! under a schedule that depends on a seed. Bugs that a GPU may hide by luck (a missing barrier or
//! event, uninitialised memory) cause a wrong result or an error with a report.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sim = cudasim::install()?; // before the first call of cudarc
//! let device = cudarc::driver::CudaContext::new(0)?;
//! assert!(device.name()?.starts_with("simulated device"));
//! sim.set_seed(7);
//! # Ok(())
//! # }
//! ```
//!
//! The process has one device with one set of settings. Tests that change settings or make kernels
//! fail get exclusive access through [`Simulator::exclusive`].

mod symbols;

use std::ffi::CString;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use symbols::Symbols;

/// The reason why the simulated device is not available.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The build script could not build the simulator.
    #[error("the simulated CUDA device was not built: {0}")]
    NotBuilt(String),
    /// The C++ compiler for kernels cannot be started.
    #[error("{0}")]
    NoCompiler(String),
    /// One of the libraries could not be opened.
    #[error("cannot load the simulated CUDA device: {0}")]
    Load(String),
    /// Another CUDA library was loaded first.
    #[error(
        "another {0} is already loaded: install the simulated device before the first CUDA call"
    )]
    TooLate(String),
}

/// The simulated device: its settings, counters and reports.
#[derive(Debug)]
pub struct Simulator {
    symbols: Symbols,
    exclusive: Mutex<()>,
}

/// Makes the simulated device this process's CUDA device. Later calls return the same one.
///
/// # Errors
/// If the simulator was not built, there is no C++ compiler for kernels, or the process has already
/// opened a CUDA library.
pub fn install() -> Result<&'static Simulator, Error> {
    static INSTALLED: OnceLock<Result<Simulator, Error>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| load(Path::new(env!("OUT_DIR"))))
        .as_ref()
        .map_err(Clone::clone)
}

fn load(folder: &Path) -> Result<Simulator, Error> {
    if !env!("CUDASIM_PROBLEM").is_empty() {
        return Err(Error::NotBuilt(env!("CUDASIM_PROBLEM").to_owned()));
    }
    let symbols = Symbols::load(folder)?;
    symbols.check_compiler().map_err(Error::NoCompiler)?;
    symbols.set_cache(&c_string(&folder.join("kernels").display().to_string()));
    let simulator = Simulator {
        symbols,
        exclusive: Mutex::new(()),
    };
    simulator.reset();
    Ok(simulator)
}

/// A C string; the text is cut off at the first NUL.
fn c_string(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

impl Simulator {
    /// Sets the schedule. Seed 0 is a fixed schedule, with streams as late as events allow. Any
    /// other seed gives random schedules of threads, blocks and streams, reproducibly.
    pub fn set_seed(&self, seed: u64) {
        self.symbols.set_seed(seed);
    }

    /// Sets the device's memory in bytes. Existing allocations count.
    pub fn set_memory_limit(&self, bytes: usize) {
        self.symbols.set_memory_limit(bytes);
    }

    /// Sets the number of devices. They share everything but their number.
    pub fn set_device_count(&self, count: u8) {
        self.symbols.set_devices(count.into());
    }

    /// Sets the compute capability: 90 for 9.0.
    pub fn set_compute_capability(&self, capability: u8) {
        self.symbols.set_compute_capability(capability.into());
    }

    /// Sets the number of multiprocessors, which limits the blocks of a cooperative launch.
    pub fn set_multiprocessors(&self, count: u8) {
        self.symbols.set_multiprocessors(count.into());
    }

    /// Sets the page-locked host memory in bytes. Existing allocations count.
    pub fn set_pinned_limit(&self, bytes: usize) {
        self.symbols.set_pinned_limit(bytes);
    }

    /// Sets the version of the driver: 13000 for CUDA 13.0. 0 is the stub of the toolkit.
    pub fn set_driver_version(&self, version: u16) {
        self.symbols.set_driver_version(version.into());
    }

    /// Sets the version of NVRTC: 13000 for CUDA 13.0.
    pub fn set_compiler_version(&self, version: u16) {
        self.symbols.set_compiler_version(version.into());
    }

    /// Sets the version of cuBLAS: 13000 for CUDA 13.0.
    pub fn set_products_version(&self, version: u16) {
        self.symbols.set_products_version(version.into());
    }

    /// Takes shared memory from each multiprocessor, in bytes, as a debugger does. The occupancy
    /// query knows of it.
    pub fn set_taken_shared(&self, bytes: u32) {
        self.symbols
            .set_taken_shared(bytes.try_into().unwrap_or(i32::MAX));
    }

    /// Sets the number of blocks above which a cooperative launch is refused although the occupancy
    /// query allows it.
    pub fn set_resident_limit(&self, blocks: u16) {
        self.symbols.set_resident_limit(blocks.into());
    }

    /// Sets the time in milliseconds for which the beginning of a capture lets other threads in.
    pub fn set_capture_pause(&self, milliseconds: u16) {
        self.symbols.set_capture_pause(milliseconds.into());
    }

    /// Makes the next run of a kernel fail, like an error of the hardware.
    pub fn set_failing_kernel(&self, kernel: &str) {
        self.symbols.set_failing_kernel(&c_string(kernel));
    }

    /// Makes the context usable again after a failed kernel, and clears the report. Work that is
    /// still queued after a failure is dropped.
    pub fn clear_error(&self) {
        self.symbols.clear_error();
    }

    /// Clears error, report and counters, and resets all settings. The seed becomes 0, or
    /// `CUDASIM_SEED` if that is set.
    pub fn reset(&self) {
        self.symbols.reset();
        if let Some(seed) = std::env::var("CUDASIM_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
        {
            self.set_seed(seed);
        }
    }

    /// The number of kernels launched or captured since [`reset`](Simulator::reset). Graph replays
    /// do not count.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.symbols.launches(&CString::default())
    }

    /// Like [`launches`](Simulator::launches), for the kernels of one name.
    #[must_use]
    pub fn launches_of(&self, kernel: &str) -> u64 {
        self.symbols.launches(&c_string(kernel))
    }

    /// The number of profiler ranges of one name that were begun in this process.
    #[must_use]
    pub fn ranges_of(&self, name: &str) -> u64 {
        self.symbols.ranges(&c_string(name))
    }

    /// The number of profiler ranges that this thread has begun and not ended.
    #[must_use]
    pub fn range_depth(&self) -> i32 {
        self.symbols.range_depth()
    }

    /// Device memory in use, in bytes, with that of modules, graphs and cuBLAS.
    #[must_use]
    pub fn used_memory(&self) -> usize {
        self.symbols.used_memory()
    }

    /// Page-locked host memory in use, in bytes.
    #[must_use]
    pub fn pinned_memory(&self) -> usize {
        self.symbols.pinned_memory()
    }

    /// The number of pieces of work that are queued and have not run.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.symbols.queued()
    }

    /// The number of device memory allocations in use.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.symbols.allocations()
    }

    /// The report of the latest failed kernel or refused call; empty if there was none.
    #[must_use]
    pub fn last_report(&self) -> String {
        self.symbols.last_report()
    }

    /// Waits until no other thread of this process has exclusive access, then resets the device.
    /// Dropping the result resets it again.
    pub fn exclusive(&self) -> Exclusive<'_> {
        let guard = self
            .exclusive
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.reset();
        Exclusive {
            simulator: self,
            _guard: guard,
        }
    }
}

/// Exclusive access to the simulated device, from [`Simulator::exclusive`].
#[derive(Debug)]
pub struct Exclusive<'a> {
    simulator: &'a Simulator,
    _guard: MutexGuard<'a, ()>,
}

impl Deref for Exclusive<'_> {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        self.simulator
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.simulator.reset();
    }
}
