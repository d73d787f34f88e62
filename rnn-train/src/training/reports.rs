//! What a trainer tells the loss and the caller.

use backend_api::{Backend, Memory};

use crate::Gradients;

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
    /// The batch of the step, counted from 0; see [`accumulate`](super::Trainer::accumulate).
    pub batch: u64,
    /// Seed for the random numbers of this batch; a function of the run's seed, the step and the
    /// batch. Drivers in the loss use it unless they set another one.
    pub seed: u64,
}

/// Summary of a step.
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
/// let mut trainer = Trainer::new(42).clip_norm(1e-3).keep_gradients(true);
/// let event = trainer.step(&mut model, &mut sgd, &mut batches, |model, _items, _step| {
///     model.forward(&x)?.square()?.mean_all()
/// })?;
/// let TrainEvent::Step(report) = event else { panic!("there are batches") };
/// assert_eq!((report.step, report.learning_rate, report.skipped), (1, 0.1, false));
/// assert!(report.memory.in_use > 0 && report.memory.peak >= report.memory.in_use);
/// let clipped = report.gradients.expect("asked for").global_norm()?.item()?;
/// assert!(clipped < 1.001e-3 && clipped < report.gradient_norm);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepReport<B: Backend> {
    /// The step of the run, counted from 1.
    pub step: u64,
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// The loss; the mean of those of several batches.
    pub loss: f64,
    /// Global norm of the gradient before clipping; not finite if the step was skipped.
    pub gradient_norm: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// Whether the gradient was not finite, so that only the factor of
    /// [`loss_scale`](super::Trainer::loss_scale) changed.
    pub skipped: bool,
    /// The memory of the model's device after the step: bytes in use, and the most that were in use
    /// at any time.
    pub memory: Memory,
    /// The gradients, after clipping, if [`keep_gradients`](super::Trainer::keep_gradients) asks
    /// for them and the step was not skipped.
    pub gradients: Option<Gradients<B>>,
}

/// What [`step`](super::Trainer::step) did.
///
/// ```
/// use recurrent::data::{Batches, Remainder};
/// use recurrent::training::TrainEvent;
/// use recurrent::{Dense, Device, Sgd, Tensor, Trainer};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let (mut model, mut sgd) = (Dense::new(&device, 1, 1)?, Sgd::new(0.1));
/// let mut batches = Batches::new(2, 2, Remainder::Drop, 1)?; // one batch
/// let x = Tensor::ones(&device, &[2, 1])?;
/// let mut trainer = Trainer::new(42);
/// let mut step = || {
///     trainer.step(&mut model, &mut sgd, &mut batches, |model, _items, _step| {
///         model.forward(&x)?.square()?.mean_all()
///     })
/// };
/// assert!(matches!(step()?, TrainEvent::Step(report) if report.step == 1));
/// assert!(matches!(step()?, TrainEvent::Epoch(report) if report.steps == 1));
/// assert!(matches!(step()?, TrainEvent::Step(report) if report.epoch == 2));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one per step")]
pub enum TrainEvent<B: Backend> {
    /// It took a step.
    Step(StepReport<B>),
    /// The epoch had no more batches. The next call begins the next epoch.
    Epoch(EpochReport),
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
