//! Stopping when a metric stops improving.

use serde::{Deserialize, Serialize};

/// Says whether a metric, such as the loss on held-out data, still improves. A run is over once as
/// many values in a row as the patience have not improved on the best one; Keras's `EarlyStopping`.
///
/// It is a value to be saved with the run ([`Trainer::remember`](super::Trainer::remember)):
///
/// ```
/// use recurrent::Trainer;
/// use recurrent::training::EarlyStopping;
///
/// # fn main() -> recurrent::Result<()> {
/// let mut trainer = Trainer::new(42);
/// let new = EarlyStopping::new(2).min_delta(0.01);
/// let mut stopping = trainer.recall("stopping")?.unwrap_or(new);
/// let mut improved = Vec::new();
/// for loss in [0.9, 0.5, 0.495, 0.6, 0.1] {
///     improved.push(stopping.update(loss)); // if true: trainer.save_best(..)
///     trainer.remember("stopping", &stopping)?;
///     if stopping.is_over() {
///         break;
///     }
/// }
/// assert_eq!(improved, [true, true, false, false]);
/// assert_eq!(stopping.best(), Some(0.5));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    patience: u64,
    min_delta: f64,
    higher_is_better: bool,
    best: Option<f64>,
    /// Values since the best one.
    since: u64,
}

impl EarlyStopping {
    /// For a metric of which lower is better. The patience is at least 1.
    pub fn new(patience: u64) -> Self {
        Self {
            patience: patience.max(1),
            min_delta: 0.0,
            higher_is_better: false,
            best: None,
            since: 0,
        }
    }

    /// For a metric of which higher is better, such as an accuracy.
    #[must_use]
    pub fn higher_is_better(mut self) -> Self {
        self.higher_is_better = true;
        self
    }

    /// Improvements by no more than this do not count. The default is 0.
    #[must_use]
    pub fn min_delta(mut self, delta: f64) -> Self {
        self.min_delta = delta;
        self
    }

    /// Takes the next value, and returns whether it is the best one. A value that is not finite
    /// never is.
    pub fn update(&mut self, value: f64) -> bool {
        let better = value.is_finite()
            && self.best.is_none_or(|best| {
                let gain = if self.higher_is_better {
                    value - best
                } else {
                    best - value
                };
                gain > self.min_delta
            });
        if better {
            (self.best, self.since) = (Some(value), 0);
        } else {
            self.since += 1;
        }
        better
    }

    /// The best value so far.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// Whether the patience is used up.
    pub fn is_over(&self) -> bool {
        self.since >= self.patience
    }
}
