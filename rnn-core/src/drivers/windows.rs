//! Truncated back-propagation through time.

use backend_api::Result;

use super::{DynamicRnn, RnnOutput};
use crate::{Cell, Mode, Nest};

/// Runs a cell over long sequences in windows: truncated back-propagation through time. The state
/// of one window is the initial state of the next, and no gradient flows from a window into the one
/// before it. The state can be of any type, those of stacks and wrappers included.
///
/// ```
/// use recurrent::{Device, DynamicRnn, GruCell, Tensor, Windows, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 3, 4)?;
/// let x = Tensor::ones(&device, &[2, 50, 3])?;
/// let mut windows = Windows::new();
/// for start in (0..50).step_by(10) {
///     let (_loss, _grads) = value_and_grad(&cell, |cell| {
///         let rnn = DynamicRnn::new(cell);
///         let window = windows.run(&rnn, &x.slice(1, start..start + 10)?)?;
///         window.outputs.square()?.mean_all()
///     })?;
/// }
/// // In inference, windows have the numbers of the whole.
/// let whole = DynamicRnn::new(&cell).run(&x)?;
/// let last = windows.state().expect("there were windows");
/// assert_eq!(last.to_vec::<f32>()?, whole.state.to_vec::<f32>()?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Windows<S> {
    state: Option<S>,
    steps: usize,
    keep_masks: bool,
    mode: Option<Mode>,
}

// A derived impl would require `S: Default`.
impl<S> Default for Windows<S> {
    fn default() -> Self {
        Self {
            state: None,
            steps: 0,
            keep_masks: false,
            mode: None,
        }
    }
}

impl<S> Windows<S> {
    /// Begins new sequences. The first window has the initial state of its driver.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on after `steps` steps, which ended in `state`, as saved by an earlier run.
    pub fn after(steps: usize, state: S) -> Self {
        Self {
            state: Some(state),
            steps,
            ..Self::default()
        }
    }

    /// Whether all windows in training draw the random numbers of one long run, with the seed of
    /// the first window. The masks of variational dropout are then the same in all windows. The
    /// default is `false`: each window has the seed of its own driver or scope.
    #[must_use]
    pub fn keep_masks(mut self, keep: bool) -> Self {
        self.keep_masks = keep;
        self
    }

    /// The state after the last window, without a gradient; `None` before the first one.
    pub fn state(&self) -> Option<&S> {
        self.state.as_ref()
    }

    /// The number of steps in all windows so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Runs the next window. Lengths are those of the rows of this window. After an error the
    /// window can be run again. An initial state of the driver counts for the first window only.
    ///
    /// # Errors
    /// Those of [`DynamicRnn::run`].
    pub fn run<C: Cell<State = S>>(
        &mut self,
        rnn: &DynamicRnn<'_, C>,
        inputs: &C::Input,
    ) -> Result<RnnOutput<C::Output, S>>
    where
        S: Nest<C::Backend>,
    {
        let mut rnn = rnn.clone();
        if let Some(state) = &self.state {
            rnn = rnn.initial_state(state.clone());
        }
        rnn.start = self.steps;
        rnn.mode = rnn.mode.or_else(Mode::take);
        if self.keep_masks && rnn.mode.is_some_and(Mode::is_training) {
            rnn.mode = self.mode.or(rnn.mode);
        }
        let (steps, _) = rnn.extent(inputs)?;
        let result = rnn.run(inputs)?;
        self.state = Some(result.state.map(&mut |leaf| Ok(leaf.detach()))?);
        self.mode = rnn.mode;
        self.steps += steps;
        Ok(result)
    }
}
