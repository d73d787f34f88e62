//! What a run leaves to look at: metrics, TensorBoard's event files, and a report.
//!
//! A [`RunLog`] writes all of them in the folder of a run. Its parts work alone:
//!
//! | part | file | for |
//! |---|---|---|
//! | [`MetricsLog`] | `metrics.jsonl` | programs: one JSON object a line |
//! | [`EventWriter`] | `events.out.tfevents.*` | TensorBoard: scalars, histograms, texts |
//! | [`write_report`] | `report.html` | a browser: learning curves |

mod chart;
mod events;
mod histogram;
mod metrics;
mod report;
mod run_log;

use std::time::{SystemTime, UNIX_EPOCH};

pub use events::EventWriter;
pub use metrics::{MetricsLog, Record, read_metrics};
pub use report::write_report;
pub use run_log::RunLog;

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
