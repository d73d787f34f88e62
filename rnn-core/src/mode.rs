//! Inference or training, and the mode of the code that runs now.

use std::cell::Cell;

use backend_api::philox;

/// Inference or training. Dropout and similar regularization only act in training.
///
/// A driver has the mode that its `mode` or `training` sets. Otherwise it has the mode of the
/// innermost [`scope`](Self::scope) that runs on its thread. `value_and_grad` opens a
/// scope for training around the loss. Outside of all scopes the mode is evaluation, unless the
/// parameters of the cell are tracked for a gradient: cells with dropout then refuse to run.
///
/// ```
/// use recurrent::wrappers::DropoutWrapper;
/// use recurrent::{Device, DynamicRnn, GruCell, Mode, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = DropoutWrapper::builder(GruCell::new(&device, 3, 4)?).output_keep_prob(0.5).build()?;
/// let x = Tensor::ones(&device, &[1, 5, 3])?;
/// let outputs = |mode| DynamicRnn::new(&cell).mode(mode).run(&x)?.outputs.to_vec::<f32>();
/// assert_eq!(outputs(Mode::training(7))?, outputs(Mode::training(7))?);
/// assert_ne!(outputs(Mode::training(7))?, outputs(Mode::Evaluation)?);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Inference: dropout is off.
    #[default]
    Evaluation,
    /// Training: dropout is on.
    Training {
        /// The seed of the random numbers. Equal seeds give equal numbers.
        seed: u64,
    },
}

/// An open scope.
#[derive(Clone, Copy)]
struct Scope {
    mode: Mode,
    /// How many modes were taken.
    taken: u64,
}

thread_local! {
    static SCOPE: Cell<Option<Scope>> = const { Cell::new(None) };
}

/// Restores the enclosing scope, also if the code inside panics.
struct Restore(Option<Scope>);

impl Drop for Restore {
    fn drop(&mut self) {
        SCOPE.set(self.0);
    }
}

impl Mode {
    /// [`Training`](Self::Training) with a seed.
    pub const fn training(seed: u64) -> Self {
        Self::Training { seed }
    }

    /// Whether this is training.
    pub fn is_training(self) -> bool {
        matches!(self, Self::Training { .. })
    }

    /// Calls `f` with this mode for all drivers in it that do not choose their own, on the calling
    /// thread. The innermost scope counts.
    ///
    /// In training, each run of a driver has other random numbers: a function of the seed and of
    /// the number of runs in the scope before it. To make the numbers of a training step a function
    /// of its number, open a scope for the step, with a seed derived from both. To evaluate within
    /// the loss, open a scope with `Mode::Evaluation`.
    ///
    /// ```
    /// use recurrent::wrappers::DropoutWrapper;
    /// use recurrent::{Device, DynamicRnn, GruCell, Mode, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let cell = GruCell::new(&device, 4, 8)?;
    /// let cell = DropoutWrapper::builder(cell).output_keep_prob(0.5).build()?;
    /// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 5 * 4], &[2, 5, 4])?;
    /// let run = || DynamicRnn::new(&cell).run(&x)?.outputs.to_vec::<f32>();
    /// let two_runs = || Ok::<_, recurrent::Error>((run()?, run()?));
    /// let (first, second) = Mode::training(7).scope(two_runs)?;
    /// assert_ne!(first, second);
    /// assert_eq!((first, second), Mode::training(7).scope(two_runs)?);
    /// assert!(!run()?.contains(&0.0)); // evaluation
    /// # Ok(()) }
    /// ```
    pub fn scope<R>(self, f: impl FnOnce() -> R) -> R {
        let scope = Scope {
            mode: self,
            taken: 0,
        };
        let _restore = Restore(SCOPE.replace(Some(scope)));
        f()
    }

    /// The mode of the next run in the innermost scope on this thread, or `None` outside of all
    /// scopes. In training, each call takes another seed.
    pub fn take() -> Option<Self> {
        let scope = SCOPE.get()?;
        let taken = scope.taken + 1;
        SCOPE.set(Some(Scope { taken, ..scope }));
        Some(scope.mode.child(scope.taken))
    }

    /// Calls `f` outside of all scopes: a cell is a function of its arguments, and may run again
    /// during the backward pass.
    pub(crate) fn outside<R>(f: impl FnOnce() -> R) -> R {
        let _restore = Restore(SCOPE.replace(None));
        f()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_scope_counts_until_it_ends() {
        assert_eq!(Mode::take(), None);
        let outer = Mode::Training { seed: 1 };
        outer.scope(|| {
            let first = Mode::take();
            assert!(first.is_some_and(Mode::is_training));
            Mode::Evaluation.scope(|| assert_eq!(Mode::take(), Some(Mode::Evaluation)));
            Mode::outside(|| assert_eq!(Mode::take(), None));
            let panics = std::panic::catch_unwind(|| Mode::Evaluation.scope(|| panic!("inside")));
            assert!(panics.is_err());
            let second = Mode::take();
            assert!(second.is_some_and(Mode::is_training));
            assert_ne!(first, second);
            outer.scope(|| assert_eq!(Mode::take(), first));
            let of_thread = std::thread::spawn(Mode::take).join().unwrap();
            assert_eq!(of_thread, None);
        });
        assert_eq!(Mode::take(), None);
    }
}
