//! The steps of a run.

use backend_api::{Backend, Error, Memory, Result, Tensor, philox};
use indicatif::HumanBytes;
use rnn_core::{Mode, Module, Nest};

use super::{EpochReport, Progress, StepReport, TrainEvent, TrainStep, Trainer};
use crate::data::Source;
use crate::gradients::each_gradient;
use crate::optim::Optimizer;
use crate::parallel::{StepSum, StepTotal};
use crate::{Differentiable, Gradients};

impl<B: Differentiable> Trainer<B> {
    /// Takes all steps of an epoch, or the remaining ones after resuming.
    ///
    /// `loss` receives a tracked copy of the model and returns a scalar. After resuming from a
    /// checkpoint of the end of an epoch, this returns the report of that epoch again.
    ///
    /// # Errors
    /// * [`Error::NonFiniteLoss`] if a loss is not finite, [`Error::Gradient`] if a gradient is
    ///   not, both with the name of the first parameter whose gradient is not; errors of the loss
    ///   and of the optimizer; the source yields no batch. The step is not taken: model, optimizer,
    ///   trainer, source and the last checkpoint are as before it. Calling this method again
    ///   repeats the step with the same batches. To leave a batch out, take it from the source
    ///   first.
    /// * Errors of the source, which continues after the fault where that is possible, without the
    ///   batches of the unfinished step; and errors of saving, which follow a step that was taken.
    /// * [`Error::Interrupted`] as [`stop_on`](Self::stop_on) says.
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
        let batches = source.items_per_epoch();
        let mut progress = Progress::resumed(
            self.shows_progress(),
            format!("epoch {}", self.state.epoch + 1),
            self.state.epoch_steps,
            batches.map(|batches| batches.div_ceil(self.accumulate)),
        );
        loop {
            match self.step_carrying(model, optimizer, source, initial, &mut loss)? {
                TrainEvent::Step(report) => progress.step(&shown(&report)),
                TrainEvent::Epoch(report) => return Ok(report),
            }
        }
    }

    /// Takes one step, or ends the epoch if it has no more batches: the part of which
    /// [`run_epoch`](Self::run_epoch) is made, for a loop of the caller's own.
    ///
    /// ```
    /// use recurrent::data::{Batches, Remainder};
    /// use recurrent::training::TrainEvent;
    /// use recurrent::{Dense, Device, Sgd, Tensor, Trainer};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let (mut model, mut sgd) = (Dense::new(&device, 1, 1)?, Sgd::new(0.1));
    /// let mut batches = Batches::new(6, 2, Remainder::Drop, 1)?;
    /// let x = Tensor::ones(&device, &[2, 1])?;
    /// let mut trainer = Trainer::new(42);
    /// let mut losses = Vec::new();
    /// let epoch = loop {
    ///     let event = trainer.step(&mut model, &mut sgd, &mut batches, |model, _items, _step| {
    ///         model.forward(&x)?.square()?.mean_all()
    ///     })?;
    ///     match event {
    ///         TrainEvent::Step(step) => losses.push(step.loss),
    ///         TrainEvent::Epoch(epoch) => break epoch,
    ///     }
    /// };
    /// assert_eq!((epoch.epoch, losses.len()), (1, 3));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`run_epoch`](Self::run_epoch).
    pub fn step<M, O, S>(
        &mut self,
        model: &mut M,
        optimizer: &mut O,
        source: &mut S,
        mut loss: impl FnMut(&M, &S::Item, TrainStep) -> Result<Tensor<B>>,
    ) -> Result<TrainEvent<B>>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
    {
        self.step_carrying(model, optimizer, source, &(), |model, batch, (), step| {
            Ok((loss(model, batch, step)?, ()))
        })
    }

    /// [`step`](Self::step) for truncated back-propagation through time, as
    /// [`run_epoch_carrying`](Self::run_epoch_carrying) does it.
    ///
    /// # Errors
    /// Those of [`run_epoch`](Self::run_epoch).
    pub fn step_carrying<M, O, S, C>(
        &mut self,
        model: &mut M,
        optimizer: &mut O,
        source: &mut S,
        initial: &C,
        mut loss: impl FnMut(&M, &S::Item, &C, TrainStep) -> Result<(Tensor<B>, C)>,
    ) -> Result<TrainEvent<B>>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
        C: Nest<B>,
    {
        self.begin(model, optimizer, source)?;
        if self.interrupted()? {
            let checkpoint = self.save(model, optimizer, source)?;
            let step = self.state.step;
            return Err(Error::Interrupted { step, checkpoint });
        }
        // Not sooner: what the caller logs of a step must not be missing after a crash.
        if self.save_is_due {
            self.save(model, optimizer, source)?;
            self.save_is_due = false;
        }
        if self.state.epoch_ended {
            return Ok(TrainEvent::Epoch(self.next_epoch()));
        }
        let mut before = Some(source.state());
        let mut carried = self.carried(initial)?;
        let mut params = model.named_params();
        params.retain(|(name, _)| optimizer.trains(name));
        let mut sum = StepSum::new(self.ranks.clone(), params, self.accumulate > 1);
        let batches = self.batches(
            model,
            source,
            &mut before,
            &mut carried,
            &mut sum,
            &mut loss,
        );
        let batches = batches.and_then(|batches| match batches {
            0 if !self.state.epoch_ended => {
                Err(Error::argument("trainer", "source", "returned no batch"))
            }
            _ => Ok(batches),
        });
        if let Ok(0) = batches {
            self.state.carry.clear();
            self.save(model, optimizer, source)?;
            return Ok(TrainEvent::Epoch(self.next_epoch()));
        }
        let report = sum.finish(batches);
        let report = report.and_then(|total| self.update(model, optimizer, total));
        let mut report = report.map_err(|error| {
            self.state.epoch_ended = false;
            back(source, before, error)
        })?;
        if let Some((_, param)) = model.named_params().first() {
            report.memory = param.device().memory();
        }
        self.state.step += 1;
        self.state.epoch_steps += 1;
        self.state.epoch_loss += report.loss;
        self.state.carry = match self.state.epoch_ended {
            true => Vec::new(),
            false => carried
                .iter()
                .flat_map(|c| c.leaves().into_iter().cloned())
                .collect(),
        };
        let step = self.state.step;
        self.save_is_due =
            self.state.epoch_ended || self.save_every.is_some_and(|n| step.is_multiple_of(n));
        Ok(TrainEvent::Step(report))
    }

    /// What the batches of the next step begin with: one value, or one for each batch.
    fn carried<C: Nest<B>>(&self, initial: &C) -> Result<Vec<C>> {
        let leaves = initial.leaves().len();
        if self.ranks.is_some() && leaves > 0 && !self.lanes {
            let problem = "has elements, but the next batch may be another rank's: `lanes` lets \
                           each batch of a step carry a value of its own";
            return Err(Error::argument("across", "initial", problem));
        }
        let lanes = if self.lanes { self.accumulate } else { 1 };
        let carry = &self.state.carry;
        if self.state.epoch_steps > 0 && carry.len() as u64 != lanes * leaves as u64 {
            let problem = format!(
                "has {lanes} times {leaves} tensors, but the run carries {}",
                carry.len()
            );
            return Err(Error::argument("trainer", "initial", problem));
        }
        let lane = |lane: u64| match self.state.epoch_steps {
            0 => Ok(initial.clone()),
            _ => initial.rebuild(&carry[lane as usize * leaves..][..leaves]),
        };
        (0..lanes).map(lane).collect()
    }

    /// Reads the batches of a step, and adds the losses and gradients of this rank's. Returns the
    /// number of all. After an error of the source it stays where it is, unless it is one of
    /// several that move together: there is no `before` to move back to.
    fn batches<M, S, C>(
        &mut self,
        model: &M,
        source: &mut S,
        before: &mut Option<S::State>,
        carried: &mut [C],
        sum: &mut StepSum<B>,
        loss: &mut impl FnMut(&M, &S::Item, &C, TrainStep) -> Result<(Tensor<B>, C)>,
    ) -> Result<u64>
    where
        M: Module<Backend = B>,
        S: Source,
        C: Nest<B>,
    {
        let mut count = 0;
        while count < self.accumulate {
            let batch = match self.computes(count) {
                true => source.next_item().map(|batch| batch.map(Some)),
                false => source.skip_item().map(|more| more.then_some(None)),
            };
            if batch.is_err() && self.ranks.is_none() {
                *before = None;
            }
            let Some(batch) = batch? else {
                self.state.epoch_ended = count > 0 || self.state.epoch_steps > 0;
                break;
            };
            if let Some(batch) = batch {
                let lane = if self.lanes { count as usize } else { 0 };
                sum.begin(count, !self.computes(count + 1));
                self.add(
                    sum,
                    model,
                    self.next_step(count),
                    &mut carried[lane],
                    |model, carried, step| loss(model, &batch, carried, step),
                )?;
            }
            count += 1;
        }
        Ok(count)
    }

    fn next_epoch(&mut self) -> EpochReport {
        let report = EpochReport {
            epoch: self.state.epoch + 1,
            steps: self.state.epoch_steps,
            mean_loss: self.state.epoch_loss / self.state.epoch_steps as f64,
        };
        self.state.epoch += 1;
        self.state.epoch_steps = 0;
        self.state.epoch_loss = 0.0;
        self.state.epoch_ended = false;
        report
    }

    /// Adds the loss and the gradient of a batch.
    fn add<M, C>(
        &self,
        sum: &mut StepSum<B>,
        model: &M,
        step: TrainStep,
        carried: &mut C,
        loss: impl FnOnce(&M, &C, TrainStep) -> Result<(Tensor<B>, C)>,
    ) -> Result<()>
    where
        M: Module<Backend = B>,
        C: Nest<B>,
    {
        let mut results = None;
        let params = sum.params();
        let trains = |name: &str| params.iter().any(|(trained, _)| trained == name);
        let scaled = |model: &M| {
            let (value, carried) = loss(model, carried, step)?;
            results = Some((value.detach(), carried));
            match &self.state.loss_scale {
                Some(scale) => Ok([scale.apply(&value)?]),
                None => Ok([value]),
            }
        };
        let mode = Mode::Training { seed: step.seed };
        mode.scope(|| {
            each_gradient(model, &trains, scaled, &mut |_, param, grad| {
                sum.add(param, grad)
            })
        })?;
        let Some((value, next)) = results else {
            unreachable!("the loss was computed");
        };
        let value = value.item()?;
        if !value.is_finite() {
            return Err(Error::NonFiniteLoss {
                step: step.step,
                loss: value,
                param: sum.first_non_finite()?,
            });
        }
        sum.add_loss(value);
        *carried = next.map(&mut |leaf| Ok(leaf.detach()))?;
        Ok(())
    }

    /// Updates the model from the gradients of a step. On an error nothing has changed.
    fn update<M, O>(
        &mut self,
        model: &mut M,
        optimizer: &mut O,
        total: StepTotal<B>,
    ) -> Result<StepReport<B>>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
    {
        let (step, before) = (self.state.step + 1, optimizer.learning_rate());
        let rate = self
            .schedule
            .as_ref()
            .map_or(before, |s| s.at(self.state.step));
        let mut report = StepReport {
            step,
            epoch: self.state.epoch + 1,
            loss: total.losses.iter().sum::<f64>() / total.batches as f64,
            gradient_norm: f64::NAN,
            learning_rate: rate,
            skipped: true,
            memory: Memory::default(),
            gradients: None,
        };
        let mut grads = total.grads;
        if total.batches > 1 {
            grads = grads.scale(1.0 / total.batches as f64)?;
        }
        let mut scale = self.state.loss_scale.clone();
        if let Some(scale) = &mut scale {
            match scale.unscale(&grads)? {
                Some(unscaled) => grads = unscaled,
                None if !scale.is_smallest() => {
                    self.state.loss_scale = Some(scale.clone());
                    return Ok(report);
                }
                None => return Err(not_finite(&grads, step)?),
            }
        }
        let norm = grads.global_norm()?.item()?;
        if !norm.is_finite() {
            return Err(not_finite(&grads, step)?);
        }
        if let Some(limit) = self.clip_norm {
            grads = grads.clip_by_known_norm(limit, norm)?;
        }
        optimizer.set_learning_rate(rate);
        let taken = optimizer.step(model, &grads);
        taken.inspect_err(|_| optimizer.set_learning_rate(before))?;
        self.state.loss_scale = scale;
        (report.gradient_norm, report.skipped) = (norm, false);
        report.gradients = self.keep_gradients.then_some(grads);
        Ok(report)
    }

    fn next_step(&self, batch: u64) -> TrainStep {
        let step = self.state.step + 1;
        let stream = philox::derive(self.state.seed, philox::label("train"));
        let seed = philox::derive(stream, step);
        TrainStep {
            step,
            epoch: self.state.epoch + 1,
            batch,
            seed: match batch {
                0 => seed,
                _ => philox::derive(seed, batch),
            },
        }
    }
}

/// What progress shows of a step.
fn shown<B: Backend>(report: &StepReport<B>) -> String {
    let Memory { in_use, peak, .. } = report.memory;
    let [in_use, peak] = [in_use, peak].map(|bytes| HumanBytes(bytes as u64));
    format!("loss {:.4}, memory {in_use}, at most {peak}", report.loss)
}

/// The error of a gradient that is not finite.
fn not_finite<B: Backend>(grads: &Gradients<B>, step: u64) -> Result<Error> {
    let what = match grads.first_non_finite()? {
        Some(name) => format!("that of `{name}` at step {step} has a NaN or an infinity"),
        None => format!("its norm at step {step} is not finite"),
    };
    Ok(Error::Gradient(format!(
        "{what}; the step was not taken, and checkpoints are unchanged"
    )))
}

/// Moves a source to where it was before a failed step, and returns the error of the step.
fn back<S: Source>(source: &mut S, before: Option<S::State>, error: Error) -> Error {
    match before.map_or(Ok(()), |before| source.restore(before)) {
        Ok(()) => error,
        Err(fault) => {
            let problem = format!("cannot be moved back to before a failed step: {fault}; {error}");
            Error::argument("trainer", "source", problem)
        }
    }
}
