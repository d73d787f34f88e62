//! Progress on standard error.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};

/// Interval between lines if standard error is not a terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Progress on standard error, with throughput and time left: a bar on a terminal, else a line
/// every ten seconds, such as `epoch 1: 50 of 200, loss 0.1234, 12.5/s, 00:00:12 left`.
/// [`Trainer::run_epoch`](super::Trainer::run_epoch) shows it, with the loss and the device memory
/// in use; this is for other loops.
///
/// ```
/// use recurrent::training::Progress;
///
/// let mut progress = Progress::new("epoch 1", Some(200));
/// for step in 0..200 {
///     progress.step(&format!("loss {:.4}", 1.0 / f64::from(step + 1)));
/// }
/// assert_eq!(progress.steps(), 200);
/// ```
#[derive(Debug)]
pub struct Progress {
    label: String,
    /// Steps before the start.
    before: u64,
    steps: u64,
    total: Option<u64>,
    start: Instant,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
    Nothing,
}

impl Progress {
    /// Shows the progress of `total` steps, if their number is known.
    pub fn new(label: impl Into<String>, total: Option<u64>) -> Self {
        Self::resumed(true, label.into(), 0, total)
    }

    /// Starts at `before` completed steps.
    pub(super) fn resumed(show: bool, label: String, before: u64, total: Option<u64>) -> Self {
        let shown = if !show {
            Shown::Nothing
        } else if stderr().is_terminal() {
            Shown::Bar(bar(&label, before, total))
        } else {
            Shown::Lines {
                last: Instant::now(),
            }
        };
        Self {
            label,
            before,
            steps: before,
            total,
            start: Instant::now(),
            shown,
        }
    }

    /// The number of completed steps.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Counts a step, and shows the message with it.
    pub fn step(&mut self, message: &str) {
        self.steps += 1;
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(message.to_owned());
                bar.inc(1);
            }
            Shown::Lines { last } if last.elapsed() >= INTERVAL => {
                *last = Instant::now();
                eprintln!("{}", self.line(message, self.start.elapsed()));
            }
            Shown::Lines { .. } | Shown::Nothing => {}
        }
    }

    fn line(&self, message: &str, elapsed: Duration) -> String {
        let rate = (self.steps - self.before) as f64 / elapsed.as_secs_f64().max(1e-9);
        let (of, left) = match self.total {
            None => (String::new(), String::new()),
            Some(total) => {
                let seconds = total.saturating_sub(self.steps) as f64 / rate;
                // The product of a slow rate and many steps may exceed a duration.
                let left = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(Duration::MAX);
                (
                    format!(" of {total}"),
                    format!(", {} left", FormattedDuration(left)),
                )
            }
        };
        let Self { label, steps, .. } = self;
        format!("{label}: {steps}{of}, {message}, {rate:.1}/s{left}")
    }
}

impl Drop for Progress {
    /// Clears the bar, so that the caller's summary of the epoch or an error starts on a clean
    /// line.
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

const BAR: &str = "{prefix} {wide_bar} {pos}/{len} {msg} {per_sec} {eta}";
const SPINNER: &str = "{prefix} {spinner} {pos} {msg} {per_sec}";

fn bar(label: &str, before: u64, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), BAR),
        None => (ProgressBar::new_spinner(), SPINNER),
    };
    // A test checks both templates, so the fallback to the default style never occurs in practice.
    let style = ProgressStyle::with_template(template);
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(label.to_owned());
    bar.with_position(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [BAR, SPINNER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn the_bar_of_a_resumed_epoch_starts_at_its_position() {
        let bar = bar("epoch 1", 7, Some(10));
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        assert_eq!((bar.position(), bar.length()), (7, Some(10)));
    }

    #[test]
    fn a_line_has_the_throughput_and_the_time_left() {
        // The throughput is that since the start, without the steps of an earlier process.
        let mut progress = Progress::resumed(false, "epoch 2".to_owned(), 100, Some(1000));
        progress.steps = 150;
        let line = progress.line("loss 0.5", Duration::from_secs(10));
        assert_eq!(line, "epoch 2: 150 of 1000, loss 0.5, 5.0/s, 00:02:50 left");
        progress.total = None;
        let line = progress.line("loss 0.5", Duration::from_secs(10));
        assert_eq!(line, "epoch 2: 150, loss 0.5, 5.0/s");
        progress.total = Some(u64::MAX);
        progress.line("loss 0.5", Duration::MAX);
    }
}
