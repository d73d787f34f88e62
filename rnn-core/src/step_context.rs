//! The context of one time step.

use std::sync::Arc;

use backend_api::trace::{Key, Recorder};
use backend_api::{Error, Result, philox};

use crate::{Mode, Module};

/// Context of one time step of a cell: mode, time index and random stream.
///
/// Random numbers are a pure function of this context, so that a step that is recomputed, or
/// computed in another order, draws the same numbers.
///
/// The default is a run with the mode of the innermost [`Mode::scope`].
///
/// ```
/// use recurrent::{Cell, Device, GruCell, StepContext, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 4, 8)?;
/// let x = Tensor::ones(&device, &[2, 4])?;
/// // One step without a driver.
/// let (output, state) = cell.step(&StepContext::default(), &x, &cell.zero_state(2)?)?;
/// assert_eq!(output.to_vec::<f32>()?, state.to_vec::<f32>()?);
/// // The random numbers of a step are a function of its run, its time and a name.
/// let cx = StepContext::training(7);
/// assert!(cx.at(1).key("mask") == StepContext::training(7).at(1).key("mask"));
/// assert!(cx.at(1).key("mask") != cx.at(2).key("mask"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct StepContext {
    /// `None` if neither the caller nor a scope has chosen it.
    mode: Option<Mode>,
    time: Time,
    stream: u64,
}

/// The time of a step.
#[derive(Clone, Debug)]
enum Time {
    At(usize),
    /// Any, while the step is traced.
    Traced(Arc<Recorder>),
}

impl Default for Time {
    fn default() -> Self {
        Self::At(0)
    }
}

impl Default for StepContext {
    fn default() -> Self {
        Self::of(None)
    }
}

impl StepContext {
    /// The context of time 0 in a run.
    pub fn new(mode: Mode) -> Self {
        Self::of(Some(mode))
    }

    /// The context of time 0 in a run with the given mode, or that of the innermost scope.
    pub(crate) fn of(mode: Option<Mode>) -> Self {
        let mode = mode.or_else(Mode::take);
        let seed = match mode {
            None | Some(Mode::Evaluation) => 0,
            Some(Mode::Training { seed }) => seed,
        };
        Self {
            mode,
            time: Time::default(),
            stream: philox::derive(seed, philox::label("step")),
        }
    }

    /// The context of time 0 in a training run with the given seed.
    pub fn training(seed: u64) -> Self {
        Self::new(Mode::Training { seed })
    }

    /// Inference or training, for a cell that behaves differently in training.
    ///
    /// # Errors
    /// Neither the caller nor a [`Mode::scope`] has chosen a mode, but the parameters of the cell
    /// are tracked for a gradient: the caller has forgotten that this is training.
    pub fn mode<M: Module>(&self, cell: &M) -> Result<Mode> {
        if let Some(mode) = self.mode {
            return Ok(mode);
        }
        let params = cell.named_params();
        if params.iter().all(|(_, param)| !param.is_recorded()) {
            return Ok(Mode::Evaluation);
        }
        let problem = "is not chosen, but the cell has dropout and its parameters are tracked for \
                       a gradient: compute the loss inside of `value_and_grad` or `Mode::scope`, \
                       on the same thread, or choose with the driver's `training(seed)` or \
                       `mode(Mode::Evaluation)`";
        Err(Error::argument("step", "mode", problem))
    }

    /// Whether training was chosen. [`mode`](Self::mode) finds out whether it was forgotten.
    pub(crate) fn is_training(&self) -> bool {
        self.mode.is_some_and(Mode::is_training)
    }

    /// The context of sub-cell `i` of a composite cell, with its own random stream.
    pub fn child(&self, i: usize) -> Self {
        Self {
            stream: philox::derive(self.stream, i as u64),
            ..self.clone()
        }
    }

    /// The random stream, which distinguishes the run and the cell.
    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// The same context at another time.
    pub fn at(&self, time: usize) -> Self {
        Self {
            time: Time::At(time),
            ..self.clone()
        }
    }

    /// The same context in a step that is traced for all times.
    pub(crate) fn traced(&self, recorder: &Arc<Recorder>) -> Self {
        Self {
            time: Time::Traced(recorder.clone()),
            ..self.clone()
        }
    }

    /// The index of the step in its sequence, from 0.
    ///
    /// A device that compiles steps calls a step once for all times. A step that asks for the time
    /// is not compiled: it runs again, once for each time.
    ///
    /// # Errors
    /// The step is called for all times. The cell should return the error.
    pub fn time(&self) -> Result<usize> {
        match &self.time {
            Time::At(time) => Ok(*time),
            Time::Traced(recorder) => {
                recorder.refuse("the step asks for its time");
                let problem = "is open while the step is traced; the step then runs untraced";
                Err(Error::argument("step", "time", problem))
            }
        }
    }

    /// A key for random numbers of this step; different names give independent keys.
    pub fn key(&self, name: &str) -> Key {
        let key = Key::from(self.run_key(name));
        match &self.time {
            Time::At(time) => key.at(*time),
            Time::Traced(recorder) => key.traced(recorder),
        }
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
            step.run_key("mask").into(),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(step.run_key("mask"), step.at(5).run_key("mask"));
    }
}
