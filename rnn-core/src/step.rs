//! What a cell knows about the step it is asked to do.

use backend_api::philox;

/// What a network is run for. Dropout and the like act in training only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// To use its output.
    #[default]
    Evaluation,
    /// To improve it.
    Training,
}

/// The circumstances of one step of a cell: mode, random stream, place in the stack, time.
///
/// Randomness is a pure function of these, so that a step that is computed again, or in
/// another order, draws the same numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What the network is run for.
    pub mode: Mode,
    /// The step's number in its sequence, from 0.
    pub time: usize,
    stream: u64,
}

impl Step {
    /// A step at time 0 of a run with the given seed.
    pub fn new(mode: Mode, seed: u64) -> Self {
        Self {
            mode,
            time: 0,
            stream: philox::derive(seed, philox::label("step")),
        }
    }

    /// The same step for part `i` of a cell made of several, which draws other numbers.
    pub fn child(mut self, i: usize) -> Self {
        self.stream = philox::derive(self.stream, i as u64);
        self
    }

    /// The same circumstances at another time.
    pub fn at(mut self, time: usize) -> Self {
        self.time = time;
        self
    }

    /// A key for random numbers of this step: one for each name.
    pub fn key(&self, name: &str) -> u64 {
        philox::derive(self.run_key(name), self.time as u64)
    }

    /// A key for random numbers that all steps of a run share: one for each name.
    pub fn run_key(&self, name: &str) -> u64 {
        philox::derive(self.stream, philox::label(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_everything_that_names_a_step() {
        let step = Step::new(Mode::Training, 1);
        let keys = [
            step.key("mask"),
            step.key("noise"),
            step.at(1).key("mask"),
            step.child(0).key("mask"),
            step.child(1).key("mask"),
            Step::new(Mode::Training, 2).key("mask"),
            step.run_key("mask"),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(step.run_key("mask"), step.at(5).run_key("mask"));
    }
}
