//! The backends under test.

use backend_api::{Error, Result, Unfused, dispatch};
use backend_cpu::Cpu;
use rnn_train::Autodiff;

dispatch! {
    /// Backends and decorated backends as one type, so that cells and drivers are compiled once for all of them.
    pub enum TestBackend, TestBuffer, TestSwapped {
        Cpu(Cpu),
        UnfusedCpu(Unfused<Cpu>),
    }
}

/// A device under test.
pub type TestDevice = Autodiff<TestBackend>;

/// The names of all devices, in the order in which they run.
pub const NAMES: [&str; 2] = ["cpu", "cpu-unfused"];

/// The device of a name.
///
/// # Errors
/// There is none of that name.
pub fn device(name: &str) -> Result<TestDevice> {
    let backend = match name {
        "cpu" => TestBackend::Cpu(Cpu::new()),
        "cpu-unfused" => TestBackend::UnfusedCpu(Unfused(Cpu::new())),
        _ => {
            let problem = format!("is `{name}`; known are {}", NAMES.join(", "));
            return Err(Error::argument("device", "name", problem));
        }
    };
    Ok(Autodiff::new(backend))
}
