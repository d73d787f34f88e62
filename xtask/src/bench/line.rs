//! The result of a measurement.

use backend_api::{MemoryPolicy, Precision};
use serde::{Deserialize, Serialize};

/// A result, stored as one line of JSON. Times are in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) peer: String,
    pub(super) version: String,
    /// The backend of this project, or the device of another framework; other frameworks' programs
    /// do not report it.
    #[serde(default = "cpu")]
    pub(super) backend: String,
    pub(super) workload: String,
    pub(super) mode: String,
    pub(super) threads: usize,
    pub(super) median_s: f64,
    pub(super) gflops: f64,
    pub(super) repeats: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_us: Option<f64>,
    /// Time to read a stream's weights once with the same threads; see [`reading`](super::reading).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reading_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peak_increase_mib: Option<f64>,
    /// Stored on the device for the gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stored_mib: Option<f64>,
    /// Operations that one run requested from the device, bytes that they read and wrote, and time
    /// steps of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) launches: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<usize>,
    /// Best rate of a square matmul in the same process with the same threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peak_gflops: Option<f64>,
}

fn cpu() -> String {
    "cpu".into()
}

/// The device of a backend.
pub(super) fn device(backend: &str) -> &str {
    backend.split(['-', ' ']).next().unwrap_or(backend)
}

/// The name of a backend with the precision of its matmuls and the memory policy, where they are
/// not the defaults.
pub(super) fn label(backend: &str, precision: Precision, policy: MemoryPolicy) -> String {
    let mut label = backend.to_owned();
    if precision != Precision::Exact {
        label += &format!(" {}", precision.name());
    }
    if policy != MemoryPolicy::Store {
        label += &format!(" {policy}");
    }
    label
}
