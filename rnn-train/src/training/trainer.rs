//! A run: its settings, its state, and its checkpoints.

use std::path::PathBuf;

use backend_api::{Backend, Error, Result};
use rnn_core::Module;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Interrupt;
use crate::checkpoint::{Checkpoints, TrainState, exact};
use crate::data::Source;
use crate::optim::{LossScale, Optimizer, Schedule};
use crate::parallel::DataParallel;

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
/// [`TrainStep`](crate::training::TrainStep). What the program does after an epoch, such as an
/// evaluation, is repeated if no later checkpoint was saved:
/// [`run_epoch`](crate::training::Trainer::run_epoch) then returns the report of that epoch again.
///
/// [`step`](crate::training::Trainer::step) takes a single step, for a loop of the caller's own;
/// [`across`](crate::training::Trainer::across) trains on several processes.
}

#[doc = trainer_doc!()]
#[derive(Clone, Debug)]
pub struct Trainer<B: Backend> {
    pub(super) state: TrainState<B>,
    pub(super) clip_norm: Option<f64>,
    pub(super) schedule: Option<Schedule>,
    /// Batches of a step.
    pub(super) accumulate: u64,
    /// Whether each of them carries a value of its own.
    pub(super) lanes: bool,
    pub(super) keep_gradients: bool,
    pub(super) interrupt: Option<Interrupt>,
    checkpoints: Option<Checkpoints>,
    pub(super) save_every: Option<u64>,
    /// Whether the next step begins with saving a checkpoint.
    pub(super) save_is_due: bool,
    pub(super) show_progress: bool,
    pub(super) ranks: Option<DataParallel>,
    /// Whether the ranks have begun with the same state.
    pub(super) ranks_agree: bool,
}

impl<B: Backend> Trainer<B> {
    /// A trainer for a new run, without clipping and checkpoints.
    pub fn new(seed: u64) -> Self {
        Self {
            state: TrainState::new(seed),
            clip_norm: None,
            schedule: None,
            accumulate: 1,
            lanes: false,
            keep_gradients: false,
            interrupt: None,
            checkpoints: None,
            save_every: None,
            save_is_due: false,
            show_progress: true,
            ranks: None,
            ranks_agree: false,
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

    /// Takes each step with the mean gradient of this many batches, at least 1, as if they were one
    /// large batch. The last step of an epoch may have fewer. The loss is called for each batch; if
    /// it is a mean and the batches have one size, the step is that of the large batch up to
    /// rounding. Gradients are summed pairwise, and those of 16-bit floats in `f32`.
    #[must_use]
    pub fn accumulate(mut self, batches: u64) -> Self {
        self.accumulate = batches.max(1);
        self
    }

    /// Lets each batch of a step carry a value of its own
    /// ([`run_epoch_carrying`](Self::run_epoch_carrying)): that of a batch goes to the batch at the
    /// same place of the next step, and not to the batch that follows it. The rows of a text are
    /// cut into the batches of a step, for example, by [`split`](crate::data::SourceExt::split).
    /// Several ranks ([`across`](Self::across)) need it, since the batch that follows may be
    /// another rank's.
    #[must_use]
    pub fn lanes(mut self) -> Self {
        self.lanes = true;
        self
    }

    /// Scales the loss, for training in `f16`: the loss function returns the loss itself. A step
    /// whose gradient is not finite is counted and leaves the model as it is, unless the factor
    /// cannot fall any more. Checkpoints have the factor.
    #[must_use]
    pub fn loss_scale(mut self, scale: LossScale) -> Self {
        self.state.loss_scale = Some(scale);
        self
    }

    /// Whether the report of a step has the gradients, for histograms. They stay in memory as long
    /// as the report. The default is `false`.
    #[must_use]
    pub fn keep_gradients(mut self, keep: bool) -> Self {
        self.keep_gradients = keep;
        self
    }

    /// Stops with [`Error::Interrupted`] before the next step when `interrupt` is requested, after
    /// saving a checkpoint.
    #[must_use]
    pub fn stop_on(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    /// Saves a checkpoint at the end of each epoch.
    #[must_use]
    pub fn save_to(mut self, checkpoints: Checkpoints) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// Also saves a checkpoint every `steps` steps: when the next step begins, so that what a
    /// program logs of a step is in its log before the step is in a checkpoint. A loop of
    /// [`step`](Self::step) that ends in the middle of an epoch can [`save`](Self::save) its last
    /// step.
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

    /// Divides the batches of each step ([`accumulate`](Self::accumulate), at least as many as
    /// there are ranks) among the ranks of a job. All ranks call the methods of the trainer in the
    /// same order, over sources of the same items, of which each computes the losses of some. Rank
    /// 0 alone writes checkpoints and shows progress. The first step begins with the parameters of
    /// rank 0.
    ///
    /// A loss that carries a value to the next batch needs [`lanes`](Self::lanes).
    #[must_use]
    pub fn across(mut self, ranks: &DataParallel) -> Self {
        self.ranks = Some(ranks.clone());
        self.ranks_agree = false;
        self
    }

    /// The state of the run.
    pub fn state(&self) -> &TrainState<B> {
        &self.state
    }

    /// Keeps a value of the program, such as an [`EarlyStopping`](super::EarlyStopping), in the
    /// checkpoints that are saved from now on.
    ///
    /// # Errors
    /// [`Error::Argument`] if the value cannot be written as JSON or has a number that is not
    /// finite.
    pub fn remember(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let value = exact::to_value("remember", name, value)?;
        self.state.extra.insert(name.to_owned(), value);
        Ok(())
    }

    /// The value that the resumed run remembered under this name; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Argument`] if the value is of another type.
    pub fn recall<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let value = self.state.extra.get(name).map(T::deserialize).transpose();
        value.map_err(|e| Error::argument("recall", name, format!("is of another type: {e}")))
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
        let scale = self.state.loss_scale.take();
        self.state = state;
        self.state.loss_scale = self.state.loss_scale.take().or(scale);
        self.ranks_agree = false;
        Ok(true)
    }

    /// Saves a checkpoint now, beside those that the trainer saves by itself, and returns its path;
    /// `None` without a folder to save to.
    ///
    /// # Errors
    /// Those of [`Checkpoints::save`], and the position of the source cannot be saved.
    pub fn save<M, O, S>(&mut self, model: &M, optimizer: &O, source: &S) -> Result<Option<PathBuf>>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
    {
        self.save_by(source, |to, state| to.save(model, optimizer, state))
    }

    /// Saves the best checkpoint so far, which stays until the next call:
    /// [`Checkpoints::save_best`].
    ///
    /// # Errors
    /// Those of [`save`](Self::save).
    pub fn save_best<M, O, S>(
        &mut self,
        model: &M,
        optimizer: &O,
        source: &S,
    ) -> Result<Option<PathBuf>>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
    {
        self.save_by(source, |to, state| to.save_best(model, optimizer, state))
    }

    fn save_by<S: Source>(
        &mut self,
        source: &S,
        save: impl FnOnce(&Checkpoints, &TrainState<B>) -> Result<PathBuf>,
    ) -> Result<Option<PathBuf>> {
        if self.checkpoints.is_none() {
            return Ok(None);
        }
        let position = exact::to_value("trainer", "source.state", &source.state())?;
        if let Err(e) = S::State::deserialize(&position) {
            let problem = format!("could not be read back from a checkpoint: {e}");
            return Err(Error::argument("trainer", "source.state", problem));
        }
        self.state.data = position;
        self.gather_carry()?;
        let Some(checkpoints) = &self.checkpoints else {
            return Ok(None);
        };
        let Some(ranks) = &self.ranks else {
            return save(checkpoints, &self.state).map(Some);
        };
        // The others wait for it, so that none is ahead of what a resumed run repeats.
        let path = match ranks.rank() {
            0 => save(checkpoints, &self.state).map(Some),
            _ => Ok(None),
        };
        Ok(ranks.agree("saving a checkpoint", path)?.swap_remove(0))
    }
}
