//! Learning-rate schedules.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The learning rate as a function of the number of steps taken; TensorFlow's `tf.train.*_decay`,
/// with its formulas in `f64`. [`Trainer::schedule`](crate::training::Trainer::schedule) applies
/// it; a loop without a trainer passes `at(step)` to
/// [`set_learning_rate`](crate::optim::Optimizer::set_learning_rate).
///
/// The functions, such as [`exponential`](Self::exponential), take TensorFlow's arguments in its
/// order, and set those that are left out to its defaults. A variant sets all of them:
///
/// ```
/// use recurrent::optim::Schedule;
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
    #[doc(alias = "exponential_decay")]
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
    /// `start * e ^ (-decay_rate * step / decay_steps)`; TensorFlow's `natural_exp_decay`.
    #[doc(alias = "natural_exp_decay")]
    NaturalExp {
        /// Initial rate.
        start: f64,
        /// Speed of the decay.
        decay_rate: f64,
        /// Number of steps for one factor of `e ^ -decay_rate`.
        decay_steps: u64,
        /// Whether the rate changes only every `decay_steps` steps.
        staircase: bool,
    },
    /// `start / (1 + decay_rate * step / decay_steps)`; TensorFlow's `inverse_time_decay`.
    #[doc(alias = "inverse_time_decay")]
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
    #[doc(alias = "polynomial_decay")]
    Polynomial {
        /// Initial rate.
        start: f64,
        /// Final rate.
        end: f64,
        /// Number of steps from `start` to `end`.
        decay_steps: u64,
        /// Exponent; 1 gives linear decay.
        power: f64,
        /// Whether the rate rises again: `decay_steps` is then the first multiple of itself that is
        /// at least `step`.
        #[serde(default)]
        cycle: bool,
    },
    /// `start * ((1 - alpha) * (1 + cos(pi * step / decay_steps)) / 2 + alpha)` within
    /// `decay_steps`, and `start * alpha` afterwards; TensorFlow's `cosine_decay`.
    #[doc(alias = "cosine_decay")]
    Cosine {
        /// Initial rate.
        start: f64,
        /// Number of steps of the decay.
        decay_steps: u64,
        /// The final rate as a fraction of `start`.
        alpha: f64,
    },
    /// [`Cosine`](Self::Cosine) again and again: each period has `t_mul` times the steps and begins
    /// at `m_mul` times the rate of the one before; TensorFlow's `cosine_decay_restarts`.
    #[doc(alias = "cosine_decay_restarts")]
    CosineRestarts {
        /// Initial rate.
        start: f64,
        /// Number of steps of the first period.
        first_decay_steps: u64,
        /// Factor of the number of steps, from one period to the next; at least 1 (smaller factors
        /// count as 1). TensorFlow's default: 2.
        t_mul: f64,
        /// Factor of the rate at the beginning of a period. TensorFlow's default: 1.
        m_mul: f64,
        /// The lowest rate as a fraction of `start`.
        alpha: f64,
    },
    /// `start * ((alpha + 1 - x) * (1 + cos(2 pi num_periods * x)) / 2 + beta)`, where `x` is
    /// `step / decay_steps`, at most 1; TensorFlow's `linear_cosine_decay`.
    #[doc(alias = "linear_cosine_decay")]
    LinearCosine {
        /// Initial rate.
        start: f64,
        /// Number of steps of the decay.
        decay_steps: u64,
        /// Number of periods of the cosine. TensorFlow's default: 0.5.
        num_periods: f64,
        /// TensorFlow's default: 0.
        alpha: f64,
        /// TensorFlow's default: 0.001.
        beta: f64,
    },
    /// `values[i]` up to and including step `boundaries[i]`, and the last value afterwards;
    /// TensorFlow's `piecewise_constant`.
    #[doc(alias = "piecewise_constant")]
    Piecewise {
        /// Step numbers in increasing order.
        boundaries: Vec<u64>,
        /// One value more than there are boundaries.
        values: Vec<f64>,
    },
    /// Rises in equal parts to the first rate of `then` within `steps` steps, and continues with
    /// `then` from its beginning.
    Warmup {
        /// Number of steps of the rise; the first of them has `1 / steps` of the rate.
        steps: u64,
        /// The schedule after it.
        then: Box<Schedule>,
    },
}

impl Schedule {
    /// [`Exponential`](Self::Exponential), without a staircase.
    ///
    /// ```
    /// use recurrent::optim::Schedule;
    ///
    /// let halving = Schedule::exponential(0.1, 100, 0.5); // start, decay_steps, decay_rate
    /// assert_eq!([0, 100, 200].map(|step| halving.at(step)), [0.1, 0.05, 0.025]);
    /// ```
    pub const fn exponential(start: f64, decay_steps: u64, decay_rate: f64) -> Self {
        Self::Exponential {
            start,
            decay_rate,
            decay_steps,
            staircase: false,
        }
    }

    /// [`NaturalExp`](Self::NaturalExp), without a staircase.
    pub const fn natural_exp(start: f64, decay_steps: u64, decay_rate: f64) -> Self {
        Self::NaturalExp {
            start,
            decay_rate,
            decay_steps,
            staircase: false,
        }
    }

    /// [`InverseTime`](Self::InverseTime), without a staircase.
    pub const fn inverse_time(start: f64, decay_steps: u64, decay_rate: f64) -> Self {
        Self::InverseTime {
            start,
            decay_rate,
            decay_steps,
            staircase: false,
        }
    }

    /// [`Polynomial`](Self::Polynomial) without a cycle. A `power` of 1 is a line.
    ///
    /// ```
    /// use recurrent::optim::Schedule;
    ///
    /// let line = Schedule::polynomial(1.0, 100, 0.5, 1.0); // start, decay_steps, end, power
    /// assert_eq!([0, 50, 100, 900].map(|step| line.at(step)), [1.0, 0.75, 0.5, 0.5]);
    /// ```
    pub const fn polynomial(start: f64, decay_steps: u64, end: f64, power: f64) -> Self {
        Self::Polynomial {
            start,
            end,
            decay_steps,
            power,
            cycle: false,
        }
    }

    /// [`Cosine`](Self::Cosine) down to 0.
    pub const fn cosine(start: f64, decay_steps: u64) -> Self {
        Self::Cosine {
            start,
            decay_steps,
            alpha: 0.0,
        }
    }

    /// [`CosineRestarts`](Self::CosineRestarts) with TensorFlow's defaults.
    pub const fn cosine_restarts(start: f64, first_decay_steps: u64) -> Self {
        Self::CosineRestarts {
            start,
            first_decay_steps,
            t_mul: 2.0,
            m_mul: 1.0,
            alpha: 0.0,
        }
    }

    /// [`LinearCosine`](Self::LinearCosine) with TensorFlow's defaults.
    pub const fn linear_cosine(start: f64, decay_steps: u64) -> Self {
        Self::LinearCosine {
            start,
            decay_steps,
            num_periods: 0.5,
            alpha: 0.0,
            beta: 0.001,
        }
    }

    /// [`Piecewise`](Self::Piecewise): one value more than there are boundaries.
    pub fn piecewise(boundaries: impl Into<Vec<u64>>, values: impl Into<Vec<f64>>) -> Self {
        Self::Piecewise {
            boundaries: boundaries.into(),
            values: values.into(),
        }
    }

    /// This schedule after a [`Warmup`](Self::Warmup) of `steps` steps.
    ///
    /// ```
    /// use recurrent::optim::Schedule;
    ///
    /// let schedule = Schedule::polynomial(1.0, 100, 0.0, 1.0).warmup(4);
    /// let rates = [0, 1, 2, 3, 4, 54].map(|step| schedule.at(step));
    /// assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 0.5]);
    /// ```
    #[must_use]
    pub fn warmup(self, steps: u64) -> Self {
        Self::Warmup {
            steps,
            then: Box::new(self),
        }
    }

    /// The rate for the step that follows `step` completed steps. A period of 0 steps counts as 1.
    /// A piecewise schedule without values returns NaN, which every optimizer rejects.
    pub fn at(&self, step: u64) -> f64 {
        match *self {
            Self::Constant(rate) => rate,
            Self::Exponential {
                start,
                decay_rate,
                decay_steps,
                staircase,
            } => start * decay_rate.powf(periods(step, decay_steps, staircase)),
            Self::NaturalExp {
                start,
                decay_rate,
                decay_steps,
                staircase,
            } => start * (-decay_rate * periods(step, decay_steps, staircase)).exp(),
            Self::InverseTime {
                start,
                decay_rate,
                decay_steps,
                staircase,
            } => start / (1.0 + decay_rate * periods(step, decay_steps, staircase)),
            Self::Polynomial {
                start,
                end,
                decay_steps,
                power,
                cycle,
            } => {
                let done = periods(step, decay_steps, false);
                let whole = if cycle { done.ceil().max(1.0) } else { 1.0 };
                (start - end) * (1.0 - (done / whole).min(1.0)).powf(power) + end
            }
            Self::Cosine {
                start,
                decay_steps,
                alpha,
            } => {
                let done = periods(step, decay_steps, false).min(1.0);
                start * ((1.0 - alpha) * half_cosine(done) + alpha)
            }
            Self::CosineRestarts {
                start,
                first_decay_steps,
                t_mul,
                m_mul,
                alpha,
            } => {
                let (period, done) = restarts(periods(step, first_decay_steps, false), t_mul);
                let cosine = m_mul.powf(period) * half_cosine(done);
                start * ((1.0 - alpha) * cosine + alpha)
            }
            Self::LinearCosine {
                start,
                decay_steps,
                num_periods,
                alpha,
                beta,
            } => {
                let done = periods(step, decay_steps, false).min(1.0);
                let linear = alpha + 1.0 - done;
                start * (linear * half_cosine(2.0 * num_periods * done) + beta)
            }
            Self::Piecewise {
                ref boundaries,
                ref values,
            } => {
                let passed = boundaries.iter().filter(|&&b| step > b).count();
                let rate = values.get(passed).or(values.last());
                rate.copied().unwrap_or(f64::NAN)
            }
            Self::Warmup { steps, ref then } => match step.checked_sub(steps) {
                Some(after) => then.at(after),
                None => then.at(0) * (step + 1) as f64 / steps as f64,
            },
        }
    }
}

/// The number of periods in `step` steps, rounded down in a staircase.
fn periods(step: u64, decay_steps: u64, staircase: bool) -> f64 {
    let periods = step as f64 / decay_steps.max(1) as f64;
    if staircase { periods.floor() } else { periods }
}

/// From 1 at 0 to 0 at 1.
fn half_cosine(done: f64) -> f64 {
    0.5 * (1.0 + (PI * done).cos())
}

/// The number of the period, from 0, and the fraction of it that is done, after `done` times the
/// first period. Period `i` has `t_mul ^ i` times the steps of the first.
fn restarts(done: f64, t_mul: f64) -> (f64, f64) {
    if t_mul <= 1.0 {
        return (done.floor(), done.fract());
    }
    let before = |period: f64| (t_mul.powf(period) - 1.0) / (t_mul - 1.0);
    let mut period = ((1.0 + done * (t_mul - 1.0)).ln() / t_mul.ln()).floor();
    // The logarithm of a restart may be rounded down to the period before.
    if before(period + 1.0) <= done {
        period += 1.0;
    }
    (period, (done - before(period)) / t_mul.powf(period))
}
