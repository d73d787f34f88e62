//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// The learning rate as a function of the number of steps taken; TensorFlow's `tf.train.*_decay`.
///
/// ```
/// use rnn_train::optim::Schedule;
///
/// let halving = Schedule::Exponential {
///     start: 0.1,
///     decay_rate: 0.5,
///     decay_steps: 100,
///     staircase: true,
/// };
/// assert_eq!([0, 99, 100, 250].map(|step| halving.at(step)), [0.1, 0.1, 0.05, 0.025]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Schedule {
    /// A constant rate.
    Constant(f64),
    /// `start * decay_rate ^ (step / decay_steps)`; TensorFlow's `exponential_decay`.
    Exponential {
        /// Initial rate.
        start: f64,
        /// Factor per `decay_steps` steps.
        decay_rate: f64,
        /// Number of steps for one factor of `decay_rate`.
        decay_steps: u64,
        /// Whether the rate changes only every `decay_steps` steps.
        staircase: bool,
    },
    /// `start / (1 + decay_rate * step / decay_steps)`; TensorFlow's `inverse_time_decay`.
    InverseTime {
        /// Initial rate.
        start: f64,
        /// Speed of the decay.
        decay_rate: f64,
        /// Number of steps by which the denominator grows by `decay_rate`.
        decay_steps: u64,
        /// Whether the rate changes only every `decay_steps` steps.
        staircase: bool,
    },
    /// `(start - end) * (1 - step / decay_steps) ^ power + end` within `decay_steps`, and `end`
    /// afterwards; TensorFlow's `polynomial_decay`.
    Polynomial {
        /// Initial rate.
        start: f64,
        /// Final rate.
        end: f64,
        /// Number of steps from `start` to `end`.
        decay_steps: u64,
        /// Exponent; 1 gives linear decay.
        power: f64,
    },
    /// `values[i]` up to and including step `boundaries[i]`, and the last value afterwards;
    /// TensorFlow's `piecewise_constant`.
    Piecewise {
        /// Step numbers in increasing order.
        boundaries: Vec<u64>,
        /// One value more than there are boundaries.
        values: Vec<f64>,
    },
}

impl Schedule {
    /// The rate for the step that follows `step` completed steps. A period of 0 steps counts as 1.
    /// A piecewise schedule without values returns NaN, which every optimizer rejects.
    pub fn at(&self, step: u64) -> f64 {
        let periods = |decay_steps: u64, staircase: bool| {
            let periods = step as f64 / decay_steps.max(1) as f64;
            if staircase { periods.floor() } else { periods }
        };
        match self {
            Self::Constant(rate) => *rate,
            Self::Exponential {
                start,
                decay_rate,
                decay_steps,
                staircase,
            } => start * decay_rate.powf(periods(*decay_steps, *staircase)),
            Self::InverseTime {
                start,
                decay_rate,
                decay_steps,
                staircase,
            } => start / (1.0 + decay_rate * periods(*decay_steps, *staircase)),
            Self::Polynomial {
                start,
                end,
                decay_steps,
                power,
            } => (start - end) * (1.0 - periods(*decay_steps, false).min(1.0)).powf(*power) + end,
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
