//! Learning rates that change.

use serde::{Deserialize, Serialize};

/// The learning rate as a function of the steps done; TensorFlow's `tf.train.*_decay`.
///
/// ```
/// use rnn_train::optim::Schedule;
///
/// let halving = Schedule::Exponential { start: 0.1, decay_rate: 0.5, decay_steps: 100, staircase: true };
/// assert_eq!([0, 99, 100, 250].map(|step| halving.at(step)), [0.1, 0.1, 0.05, 0.025]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Schedule {
    /// Always the same.
    Constant(f64),
    /// `start * decay_rate ^ (step / decay_steps)`; TensorFlow's `exponential_decay`.
    Exponential {
        /// The first rate.
        start: f64,
        /// What it is multiplied by every `decay_steps`.
        decay_rate: f64,
        /// See above.
        decay_steps: u64,
        /// Whether it changes only every `decay_steps`.
        staircase: bool,
    },
    /// `start / (1 + decay_rate * step / decay_steps)`; TensorFlow's `inverse_time_decay`.
    InverseTime {
        /// The first rate.
        start: f64,
        /// How fast it falls.
        decay_rate: f64,
        /// See above.
        decay_steps: u64,
        /// Whether it changes only every `decay_steps`.
        staircase: bool,
    },
    /// From `start` to `end` within `decay_steps`: `(start - end) * (1 - step / decay_steps) ^ power + end`, and
    /// `end` after that; TensorFlow's `polynomial_decay`.
    Polynomial {
        /// The first rate.
        start: f64,
        /// The last rate.
        end: f64,
        /// How long it takes.
        decay_steps: u64,
        /// 1 for a straight line.
        power: f64,
    },
    /// `values[i]` up to and at step `boundaries[i]`, and the last value after them; TensorFlow's `piecewise_constant`.
    Piecewise {
        /// Steps, rising.
        boundaries: Vec<u64>,
        /// One more than boundaries.
        values: Vec<f64>,
    },
}

impl Schedule {
    /// The rate for the step after `step` done ones. A period of 0 steps counts as 1; a piecewise schedule without
    /// values gives NaN, which every optimizer refuses.
    pub fn at(&self, step: u64) -> f64 {
        let turns = |decay_steps: u64, staircase: bool| {
            let turns = step as f64 / decay_steps.max(1) as f64;
            if staircase { turns.floor() } else { turns }
        };
        match self {
            Self::Constant(rate) => *rate,
            Self::Exponential {
                start,
                decay_rate,
                decay_steps,
                staircase,
            } => start * decay_rate.powf(turns(*decay_steps, *staircase)),
            Self::InverseTime {
                start,
                decay_rate,
                decay_steps,
                staircase,
            } => start / (1.0 + decay_rate * turns(*decay_steps, *staircase)),
            Self::Polynomial {
                start,
                end,
                decay_steps,
                power,
            } => (start - end) * (1.0 - turns(*decay_steps, false).min(1.0)).powf(*power) + end,
            Self::Piecewise { boundaries, values } => {
                let passed = boundaries.iter().filter(|&&b| step > b).count();
                values
                    .get(passed)
                    .or(values.last())
                    .copied()
                    .unwrap_or(f64::NAN)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_follow_tensorflow() {
        let smooth = Schedule::Exponential {
            start: 0.1,
            decay_rate: 0.25,
            decay_steps: 10,
            staircase: false,
        };
        assert!((smooth.at(5) - 0.05).abs() < 1e-15);
        let inverse = Schedule::InverseTime {
            start: 1.0,
            decay_rate: 0.5,
            decay_steps: 2,
            staircase: false,
        };
        assert_eq!(inverse.at(4), 0.5);
        let line = Schedule::Polynomial {
            start: 1.0,
            end: 0.2,
            decay_steps: 4,
            power: 1.0,
        };
        assert!((line.at(2) - 0.6).abs() < 1e-15);
        assert_eq!(line.at(9), 0.2);
        let pieces = Schedule::Piecewise {
            boundaries: vec![2, 4],
            values: vec![1.0, 0.5, 0.1],
        };
        assert_eq!(
            [0, 2, 3, 4, 5].map(|s| pieces.at(s)),
            [1.0, 1.0, 0.5, 0.5, 0.1]
        );
    }
}
