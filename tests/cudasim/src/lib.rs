//! A CUDA device simulated on the processor, for tests on machines without a GPU.
//!
//! [`install`] puts a stand-in for the driver, NVRTC and cuBLAS into the process, where cudarc finds it. Kernels are compiled
//! by the machine's C++ compiler and run thread by thread under a schedule that a seed decides; what a GPU would let pass by
//! luck (a barrier or an event left out, memory that was never written) shows as a wrong result or an error with a report.
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
//! The device is one for the whole process, its settings too: tests that change them, or make kernels fail, take turns
//! through [`Simulator::exclusive`].

mod symbols;

use std::ffi::CString;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use symbols::Symbols;

/// Why there is no simulated device.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The build script could not build the simulator.
    #[error("the simulated CUDA device was not built: {0}")]
    NotBuilt(String),
    /// Kernels cannot be compiled.
    #[error("{0}")]
    NoCompiler(String),
    /// One of the libraries could not be opened.
    #[error("the simulated CUDA device cannot be loaded: {0}")]
    Load(String),
    /// Another CUDA library was there first.
    #[error(
        "{0} is another library already: install the simulated device before the first CUDA call"
    )]
    TooLate(String),
}

/// The simulated device: its settings, and what it has seen.
#[derive(Debug)]
pub struct Simulator {
    symbols: Symbols,
    turn: Mutex<()>,
}

/// Makes this process's CUDA device a simulated one. Later calls return the same.
///
/// # Errors
/// The simulator was not built, there is no C++ compiler to compile kernels with, or the process has opened a CUDA library
/// before.
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
        turn: Mutex::new(()),
    };
    simulator.reset();
    Ok(simulator)
}

/// Text for C; what follows a NUL is cut off.
fn c_string(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

impl Simulator {
    /// The schedule: 0 is fixed, with streams as late as events allow; any other seed gives random schedules of threads,
    /// blocks and streams, the same ones each time.
    pub fn set_seed(&self, seed: u64) {
        self.symbols.set_seed(seed);
    }

    /// How much memory the device has, in bytes. What is allocated already counts.
    pub fn set_memory_limit(&self, bytes: usize) {
        self.symbols.set_memory_limit(bytes);
    }

    /// How many devices there are; they share everything but their number.
    pub fn set_device_count(&self, count: u8) {
        self.symbols.set_device_count(count.into());
    }

    /// The compute capability, as 90 for 9.0.
    pub fn set_compute_capability(&self, capability: u8) {
        self.symbols.set_compute_capability(capability.into());
    }

    /// How many multiprocessors the device has: how many blocks a cooperative launch may have depends on it.
    pub fn set_multiprocessors(&self, count: u8) {
        self.symbols.set_multiprocessors(count.into());
    }

    /// Makes the context usable again after a failed kernel, and forgets the report. What was queued is dropped then.
    pub fn clear_error(&self) {
        self.symbols.clear_error();
    }

    /// Forgets error, report and counts; all settings are as in the beginning. The seed is 0, or `CUDASIM_SEED`.
    pub fn reset(&self) {
        self.symbols.reset();
        if let Some(seed) = std::env::var("CUDASIM_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
        {
            self.set_seed(seed);
        }
    }

    /// How many kernels were launched or captured since [`reset`](Simulator::reset); replays of graphs do not count.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.symbols.launches(&CString::default())
    }

    /// The same for the kernels of one name.
    #[must_use]
    pub fn launches_of(&self, kernel: &str) -> u64 {
        self.symbols.launches(&c_string(kernel))
    }

    /// Device memory in use, in bytes.
    #[must_use]
    pub fn used_memory(&self) -> usize {
        self.symbols.used_memory()
    }

    /// How many allocations of device memory there are.
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.symbols.allocations()
    }

    /// What the simulator has to say about the latest failed kernel or refused call; empty if there was none.
    #[must_use]
    pub fn last_report(&self) -> String {
        self.symbols.last_report()
    }

    /// Waits until no other thread of this process holds the device, and resets it; it is reset again in the end.
    pub fn exclusive(&self) -> Exclusive<'_> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.reset();
        Exclusive {
            simulator: self,
            _turn: turn,
        }
    }
}

/// The simulated device for one thread alone, by [`Simulator::exclusive`].
#[derive(Debug)]
pub struct Exclusive<'a> {
    simulator: &'a Simulator,
    _turn: MutexGuard<'a, ()>,
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
