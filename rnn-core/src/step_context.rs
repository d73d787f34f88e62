//! The context of one time step.

use backend_api::philox;

/// Inference or training. Dropout and similar regularization only act in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Inference: dropout is off.
    #[default]
    Evaluation,
    /// Training: dropout is on.
    Training {
        /// The seed of the random numbers.
        seed: u64,
    },
}

impl Mode {
    /// Whether this is training.
    pub fn is_training(self) -> bool {
        matches!(self, Self::Training { .. })
    }

    /// The mode of part `i` of a composite: in training it has its own seed.
    pub(crate) fn child(self, i: u64) -> Self {
        match self {
            Self::Evaluation => Self::Evaluation,
            Self::Training { seed } => Self::Training {
                seed: philox::derive(seed, i),
            },
        }
    }
}

/// Context of one time step of a cell: mode, time index and random stream.
///
/// Random numbers are a pure function of this context, so that a step that is recomputed, or
/// computed in another order, draws the same numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepContext {
    /// Inference or training.
    pub mode: Mode,
    /// The index of the step in its sequence, from 0.
    pub time: usize,
    stream: u64,
}

impl StepContext {
    /// The context of time 0 in a run.
    pub fn new(mode: Mode) -> Self {
        let seed = match mode {
            Mode::Evaluation => 0,
            Mode::Training { seed } => seed,
        };
        Self {
            mode,
            time: 0,
            stream: philox::derive(seed, philox::label("step")),
        }
    }

    /// The context of time 0 in a training run with the given seed.
    pub fn training(seed: u64) -> Self {
        Self::new(Mode::Training { seed })
    }

    /// The context of sub-cell `i` of a composite cell, with its own random stream.
    pub fn child(mut self, i: usize) -> Self {
        self.stream = philox::derive(self.stream, i as u64);
        self
    }

    /// The same context at another time.
    pub fn at(mut self, time: usize) -> Self {
        self.time = time;
        self
    }

    /// A key for random numbers of this step; different names give independent keys.
    pub fn key(&self, name: &str) -> u64 {
        philox::derive(self.run_key(name), self.time as u64)
    }

    /// A key for random numbers that all steps of a run share; different names give independent
    /// keys.
    pub fn run_key(&self, name: &str) -> u64 {
        philox::derive(self.stream, philox::label(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_every_part_of_the_context() {
        let step = StepContext::training(1);
        let keys = [
            step.key("mask"),
            step.key("noise"),
            step.at(1).key("mask"),
            step.child(0).key("mask"),
            step.child(1).key("mask"),
            StepContext::training(2).key("mask"),
            step.run_key("mask"),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(step.run_key("mask"), step.at(5).run_key("mask"));
    }
}
