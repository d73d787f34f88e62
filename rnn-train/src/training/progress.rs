//! Progress output of a run.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Interval between lines if standard error is not a terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Progress of an epoch on standard error: a bar on a terminal, else a line every [`INTERVAL`].
#[derive(Debug)]
pub(super) struct Progress {
    epoch: u64,
    steps: u64,
    total: Option<u64>,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
    Nothing,
}

impl Progress {
    /// Starts at `taken` completed steps of an epoch.
    pub(super) fn new(show: bool, epoch: u64, taken: u64, total: Option<u64>) -> Self {
        let shown = if !show {
            Shown::Nothing
        } else if stderr().is_terminal() {
            Shown::Bar(bar(epoch, taken, total))
        } else {
            Shown::Lines {
                last: Instant::now(),
            }
        };
        Self {
            epoch,
            steps: taken,
            total,
            shown,
        }
    }

    /// Records one step.
    pub(super) fn step(&mut self, loss: f64) {
        self.steps += 1;
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(format!("loss {loss:.4}"));
                bar.inc(1);
            }
            Shown::Lines { last } if last.elapsed() >= INTERVAL => {
                let of = self.total.map_or(String::new(), |n| format!(" of {n}"));
                eprintln!(
                    "epoch {}: step {}{of}, loss {loss:.4}",
                    self.epoch + 1,
                    self.steps
                );
                *last = Instant::now();
            }
            Shown::Lines { .. } | Shown::Nothing => {}
        }
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

fn bar(epoch: u64, taken: u64, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), BAR),
        None => (ProgressBar::new_spinner(), SPINNER),
    };
    // A test checks both templates, so the fallback to the default style never occurs in practice.
    let style = ProgressStyle::with_template(template);
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(format!("epoch {}", epoch + 1));
    bar.with_position(taken)
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
        let bar = bar(0, 7, Some(10));
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        assert_eq!((bar.position(), bar.length()), (7, Some(10)));
    }
}
