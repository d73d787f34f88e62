//! Timing for the benchmarks. `cargo xtask bench` and the programs of `bench/candle` and
//! `bench/burn` include this file, so that all of them warm up, repeat and count in the same way.
//! `bench/common.py` is the equivalent for scripts.

use std::time::{Duration, Instant};

/// The largest durations of the warm-up and the measurement. Both end earlier after [`ENOUGH`] and
/// a number of runs.
const WARM: Duration = Duration::from_millis(1500);
const BUDGET: Duration = Duration::from_secs(6);
/// The first runs of a short workload say little: a CPU changes its clock rate, caches fill.
const ENOUGH: Duration = Duration::from_millis(500);
const RUNS: std::ops::RangeInclusive<usize> = 5..=100;

/// Seconds of each run, in increasing order.
#[derive(Debug)]
pub struct Times(Vec<f64>);

impl Times {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The quantile of the times: 0 is the shortest, 0.5 the median.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        self.0[((self.0.len() as f64 * share) as usize).min(last)]
    }
}

/// Times of runs after a warm-up.
pub fn repeat<E>(f: &mut dyn FnMut() -> Result<(), E>) -> Result<Times, E> {
    let goes_on = |start: Instant, done: usize, budget: Duration, runs: usize| {
        let time = start.elapsed();
        time < budget && (done < runs || time < ENOUGH)
    };
    let start = Instant::now();
    let mut warm = 0;
    while warm < 2 || goes_on(start, warm, WARM, 30) {
        f()?;
        warm += 1;
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < *RUNS.start() || goes_on(start, times.len(), BUDGET, *RUNS.end()) {
        times.push(once(f)?);
    }
    Ok(sorted(times))
}

/// Times of 5000 steps after 1000 steps of warm-up.
pub fn stream<E>(step: &mut dyn FnMut() -> Result<(), E>) -> Result<Times, E> {
    for _ in 0..1000 {
        step()?;
    }
    counted(5000, step)
}

/// Times of `count` runs, at least one.
pub fn counted<E>(count: usize, f: &mut dyn FnMut() -> Result<(), E>) -> Result<Times, E> {
    let times: Result<_, E> = (0..count.max(1)).map(|_| once(f)).collect();
    Ok(sorted(times?))
}

fn once<E>(f: &mut dyn FnMut() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed().as_secs_f64())
}

fn sorted(mut times: Vec<f64>) -> Times {
    times.sort_by(f64::total_cmp);
    Times(times)
}

/// Resident memory of the process in KiB, if the system reports it.
pub fn resident() -> std::io::Result<f64> {
    status("VmRSS:")
}

/// Resets the peak of the process's memory, if the system supports it.
pub fn restart_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Peak memory of the process in KiB.
pub fn peak() -> std::io::Result<f64> {
    status("VmHWM:")
}

fn status(key: &str) -> std::io::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.ok_or_else(|| std::io::Error::other(format!("/proc/self/status has no {key}")))
}
