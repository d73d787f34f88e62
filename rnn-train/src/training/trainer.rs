//! Steps and epochs.

use backend_api::{Backend, Error, Result, Tensor, philox};
use rnn_core::{Mode, Module, Nest};
use serde::Deserialize;

use super::progress::Progress;
use crate::checkpoint::{Checkpoints, TrainState, exact};
use crate::data::Source;
use crate::optim::{Optimizer, Schedule};
use crate::{Differentiable, value_and_grad};

backend_api::shared_doc! { trainer_doc:
/// Trains a model, epoch by epoch.
///
/// ```
/// use recurrent::checkpoint::Checkpoints;
/// use recurrent::data::{Batches, Remainder};
/// use recurrent::losses::mean_squared_error;
/// use recurrent::optim::Schedule;
/// use recurrent::{Adam, Dense, Device, Tensor, Trainer};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-trainer");
/// # let _ = std::fs::remove_dir_all(&folder);
/// let device = Device::cpu();
/// let mut model = Dense::new(&device, 1, 1)?;
/// let mut adam = Adam::new(0.1);
/// let mut batches = Batches::new(100, 10, Remainder::Drop, 1)?;
///
/// let decay = Schedule::exponential(0.1, 10, 0.9);
/// let mut trainer = Trainer::new(42)
///     .clip_norm(5.0)
///     .schedule(decay)
///     .save_to(Checkpoints::new(&folder))
///     .save_every(20);
/// trainer.resume(&mut model, &mut adam, &mut batches)?;
/// while trainer.state().epoch < 3 {
///     let report = trainer.run_epoch(&mut model, &mut adam, &mut batches, |model, items, _step| {
///         let x: Vec<f32> = items.iter().map(|&item| item as f32 / 100.0).collect();
///         let x = Tensor::from_slice(&device, &x, &[items.len(), 1])?;
///         mean_squared_error(&model.forward(&x)?, &x.affine(3.0, 1.0)?)
///     })?;
///     println!("epoch {}: loss {:.4}", report.epoch, report.mean_loss);
/// }
/// assert!(folder.join("step-00000030.safetensors").exists());
/// # Ok(()) }
/// ```
///
/// The loss runs in training, outside of it is evaluation; dropout therefore needs no argument. The
/// random numbers of a step are a function of the run's seed and the step
/// ([`Mode::scope`](rnn_core::Mode::scope)).
///
/// A run that is killed at any moment and resumed ends with the same bits as an uninterrupted run,
/// provided that the loss is a function of its arguments: model, batch, carried state and
/// [`TrainStep`](crate::training::TrainStep).
}

#[doc = trainer_doc!()]
#[derive(Clone, Debug)]
pub struct Trainer<B: Backend> {
    state: TrainState<B>,
    clip_norm: Option<f64>,
    schedule: Option<Schedule>,
    checkpoints: Option<Checkpoints>,
    save_every: Option<u64>,
    show_progress: bool,
}

/// The step for which a loss is computed.
///
/// ```
/// use recurrent::data::{Batches, Remainder};
/// use recurrent::{Dense, Device, Sgd, Tensor, Trainer};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let (mut model, mut sgd) = (Dense::new(&device, 1, 1)?, Sgd::new(0.1));
/// let mut batches = Batches::new(6, 2, Remainder::Drop, 1)?;
/// let x = Tensor::ones(&device, &[2, 1])?;
/// let mut seen = Vec::new();
/// let mut trainer = Trainer::new(42).show_progress(false);
/// for _ in 0..2 {
///     trainer.run_epoch(&mut model, &mut sgd, &mut batches, |model, _items, step| {
///         seen.push((step.epoch, step.step));
///         model.forward(&x)?.square()?.mean_all()
///     })?;
/// }
/// assert_eq!(seen, [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainStep {
    /// The step of the run, counted from 1.
    pub step: u64,
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// Seed for the random numbers of this step; a function of the run's seed and the step. Drivers
    /// in the loss use it unless they set another one.
    pub seed: u64,
}

/// Summary of an epoch.
///
/// ```
/// use recurrent::data::{Batches, Remainder};
/// use recurrent::{Dense, Device, Sgd, Tensor, Trainer};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let (mut model, mut sgd) = (Dense::new(&device, 1, 1)?, Sgd::new(0.1));
/// let mut batches = Batches::new(6, 2, Remainder::Drop, 1)?;
/// let x = Tensor::ones(&device, &[2, 1])?;
/// let mut trainer = Trainer::new(42).show_progress(false);
/// let mut epoch = || {
///     trainer.run_epoch(&mut model, &mut sgd, &mut batches, |model, _items, _step| {
///         model.forward(&x)?.square()?.mean_all()
///     })
/// };
/// let (first, second) = (epoch()?, epoch()?);
/// assert_eq!((second.epoch, second.steps), (2, 3));
/// assert!(second.mean_loss < first.mean_loss);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct EpochReport {
    /// Number of the epoch, counted from 1.
    pub epoch: u64,
    /// Number of steps in the epoch, including those before the run was resumed.
    pub steps: u64,
    /// Mean loss of these steps.
    pub mean_loss: f64,
}

impl<B: Backend> Trainer<B> {
    /// A trainer for a new run, without clipping and checkpoints.
    pub fn new(seed: u64) -> Self {
        Self {
            state: TrainState::new(seed),
            clip_norm: None,
            schedule: None,
            checkpoints: None,
            save_every: None,
            show_progress: true,
        }
    }

    /// Scales gradients down to this global norm if theirs is larger.
    #[must_use]
    pub fn clip_norm(mut self, norm: f64) -> Self {
        self.clip_norm = Some(norm);
        self
    }

    /// Sets the learning rate of each step from the number of steps taken before it, also after
    /// resuming. The rate that the optimizer had before has no effect.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }

    /// Saves a checkpoint at the end of each epoch.
    #[must_use]
    pub fn save_to(mut self, checkpoints: Checkpoints) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// Also saves a checkpoint every `steps` steps.
    #[must_use]
    pub fn save_every(mut self, steps: u64) -> Self {
        self.save_every = Some(steps.max(1));
        self
    }

    /// Whether to show progress on standard error; the default is `true`.
    #[must_use]
    pub fn show_progress(mut self, show: bool) -> Self {
        self.show_progress = show;
        self
    }

    /// The state of the run.
    pub fn state(&self) -> &TrainState<B> {
        &self.state
    }

    /// Resumes from the newest checkpoint, and returns whether a checkpoint exists.
    ///
    /// # Errors
    /// Those of [`Checkpoints::resume`], and the checkpoint does not match the data source. Nothing
    /// has changed then.
    pub fn resume<M, O, S>(
        &mut self,
        model: &mut M,
        optimizer: &mut O,
        source: &mut S,
    ) -> Result<bool>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
    {
        let Some(checkpoints) = &self.checkpoints else {
            return Ok(false);
        };
        // Resume into copies, since the source may still reject the checkpoint.
        let (mut resumed, mut rule) = (model.clone(), optimizer.clone());
        let Some(state) = checkpoints.resume(&mut resumed, &mut rule)? else {
            return Ok(false);
        };
        let position = S::State::deserialize(&state.data).map_err(|e| {
            let problem = format!("has the position in another data source: {e}");
            Error::format(checkpoints.folder(), problem)
        })?;
        source.restore(position)?;
        *model = resumed;
        *optimizer = rule;
        self.state = state;
        Ok(true)
    }

    fn save<M, O, S>(&mut self, model: &M, optimizer: &O, source: &S) -> Result<()>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
    {
        let Some(checkpoints) = &self.checkpoints else {
            return Ok(());
        };
        let position = exact::to_value("trainer", "source.state", &source.state())?;
        if let Err(e) = S::State::deserialize(&position) {
            let problem = format!("could not be read back from a checkpoint: {e}");
            return Err(Error::argument("trainer", "source.state", problem));
        }
        self.state.data = position;
        checkpoints.save(model, optimizer, &self.state)?;
        Ok(())
    }
}

impl<B: Differentiable> Trainer<B> {
    /// Takes all steps of an epoch, or the remaining ones after resuming.
    ///
    /// `loss` receives a tracked copy of the model and returns a scalar.
    ///
    /// # Errors
    /// * [`Error::NonFiniteLoss`] if a loss is not finite, [`Error::Gradient`] if a gradient is
    ///   not; errors of the loss and of the optimizer; the source yields no batch. The step is not
    ///   taken: model, optimizer, trainer, source and the last checkpoint are as before it. Calling
    ///   this method again repeats the step with the same batch. To leave the batch out, take it
    ///   from the source first.
    /// * Errors of the source, which continues after the fault where that is possible, and errors
    ///   of saving, which follow a step that was taken.
    pub fn run_epoch<M, O, S>(
        &mut self,
        model: &mut M,
        optimizer: &mut O,
        source: &mut S,
        mut loss: impl FnMut(&M, &S::Item, TrainStep) -> Result<Tensor<B>>,
    ) -> Result<EpochReport>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
    {
        self.run_epoch_carrying(model, optimizer, source, &(), |model, batch, (), step| {
            Ok((loss(model, batch, step)?, ()))
        })
    }

    /// [`run_epoch`](Self::run_epoch) for truncated back-propagation through time. The loss also
    /// receives the value that the loss of the previous batch returned (usually the final recurrent
    /// state), and returns the value for the next batch. No gradient flows through it. Each epoch
    /// starts from `initial`.
    ///
    /// # Errors
    /// Those of [`run_epoch`](Self::run_epoch).
    pub fn run_epoch_carrying<M, O, S, C>(
        &mut self,
        model: &mut M,
        optimizer: &mut O,
        source: &mut S,
        initial: &C,
        mut loss: impl FnMut(&M, &S::Item, &C, TrainStep) -> Result<(Tensor<B>, C)>,
    ) -> Result<EpochReport>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
        C: Nest<B>,
    {
        let mut carried = match self.state.epoch_steps {
            0 => initial.clone(),
            _ => initial.rebuild(&self.state.carry)?,
        };
        let mut progress = Progress::new(
            self.show_progress,
            self.state.epoch,
            self.state.epoch_steps,
            source.items_per_epoch(),
        );
        loop {
            let before = source.state();
            let Some(batch) = source.next_item()? else {
                if self.state.epoch_steps > 0 {
                    break;
                }
                let error = Error::argument("trainer", "source", "returned no batch");
                return Err(back(source, before, error));
            };
            let step = self.next_step();
            let mode = Mode::Training { seed: step.seed };
            let taken = mode.scope(|| {
                self.take(model, optimizer, step, |model| {
                    loss(model, &batch, &carried, step)
                })
            });
            let (value, next) = match taken {
                Ok(taken) => taken,
                Err(error) => return Err(back(source, before, error)),
            };
            carried = next;
            self.state.step += 1;
            self.state.epoch_steps += 1;
            self.state.epoch_loss += value;
            self.state.carry = carried.leaves().into_iter().cloned().collect();
            progress.step(value);
            if self
                .save_every
                .is_some_and(|n| self.state.step.is_multiple_of(n))
            {
                self.save(model, optimizer, source)?;
            }
        }
        let report = EpochReport {
            epoch: self.state.epoch + 1,
            steps: self.state.epoch_steps,
            mean_loss: self.state.epoch_loss / self.state.epoch_steps as f64,
        };
        self.state.epoch += 1;
        self.state.epoch_steps = 0;
        self.state.epoch_loss = 0.0;
        self.state.carry.clear();
        self.save(model, optimizer, source)?;
        Ok(report)
    }

    /// Takes a step, and returns the loss and what is carried to the next one. On an error nothing
    /// has changed.
    fn take<M, O, C>(
        &self,
        model: &mut M,
        optimizer: &mut O,
        step: TrainStep,
        loss: impl FnOnce(&M) -> Result<(Tensor<B>, C)>,
    ) -> Result<(f64, C)>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        C: Nest<B>,
    {
        let mut next = None;
        let (value, mut grads) = value_and_grad(model, |model| {
            let (value, carry) = loss(model)?;
            next = Some(carry);
            Ok(value)
        })?;
        let value = value.item()?;
        if !value.is_finite() {
            let step = step.step;
            return Err(Error::NonFiniteLoss { step, loss: value });
        }
        let norm = grads.global_norm()?.item()?;
        if !norm.is_finite() {
            let problem = format!("its norm at step {} is {norm}", step.step);
            return Err(Error::Gradient(problem));
        }
        if let Some(limit) = self.clip_norm {
            grads = grads.clip_by_known_norm(limit, norm)?;
        }
        let Some(next) = next else {
            unreachable!("the loss was computed");
        };
        let next = next.map(&mut |leaf| Ok(leaf.detach()))?;
        let before = optimizer.learning_rate();
        if let Some(schedule) = &self.schedule {
            optimizer.set_learning_rate(schedule.at(self.state.step));
        }
        let taken = optimizer.step(model, &grads);
        taken.inspect_err(|_| optimizer.set_learning_rate(before))?;
        Ok((value, next))
    }

    fn next_step(&self) -> TrainStep {
        let step = self.state.step + 1;
        let stream = philox::derive(self.state.seed, philox::label("train"));
        TrainStep {
            step,
            epoch: self.state.epoch + 1,
            seed: philox::derive(stream, step),
        }
    }
}

/// Moves a source to where it was before a failed step, and returns the error of the step.
fn back<S: Source>(source: &mut S, before: S::State, error: Error) -> Error {
    match source.restore(before) {
        Ok(()) => error,
        Err(fault) => {
            let problem = format!("cannot be moved back to before a failed step: {fault}; {error}");
            Error::argument("trainer", "source", problem)
        }
    }
}
