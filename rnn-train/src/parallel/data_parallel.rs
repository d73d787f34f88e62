//! What training needs of the ranks.

use std::ops::Range;
use std::sync::Arc;

use backend_api::{Error, Result, Tensor};
use rnn_core::Module;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Collective;
use super::agreement::{failed, message, outcomes};
use super::background::{Background, Pending};
use super::bucket::share;
use super::spare::Spare;

/// The ranks of a job that train one model together, each with a copy of it.
///
/// [`Trainer::across`](crate::training::Trainer::across) divides the batches of each step among the
/// ranks. The number of batches of a step
/// ([`Trainer::accumulate`](crate::training::Trainer::accumulate)) is part of the run and not of
/// the job: their gradients are summed in a fixed order, and each has random numbers of its own, so
/// that one rank, four ranks, and a trainer without ranks end with the same bits. A run resumes on
/// any number of ranks.
///
/// ```
/// use recurrent::data::{Batches, Remainder};
/// use recurrent::losses::mean_squared_error;
/// use recurrent::parallel::{DataParallel, Local};
/// use recurrent::{Adam, Dense, Device, Module, Tensor, Trainer};
///
/// # fn main() -> recurrent::Result<()> {
/// let train = |ranks: DataParallel| {
///     let device = Device::cpu();
///     let (mut model, mut adam) = (Dense::new(&device, 1, 1)?, Adam::new(0.1));
///     model.initialize(7)?;
///     let mut batches = Batches::new(80, 5, Remainder::Drop, 1)?;
///     let mut trainer = Trainer::new(42).accumulate(4).across(&ranks);
///     trainer.run_epoch(&mut model, &mut adam, &mut batches, |model, items, _step| {
///         let x: Vec<f32> = items.iter().map(|&item| item as f32 / 80.0).collect();
///         let x = Tensor::from_slice(&device, &x, &[items.len(), 1])?;
///         mean_squared_error(&model.forward(&x)?, &x.affine(3.0, 1.0)?)
///     })?;
///     model.named_params()[0].1.item()
/// };
/// let alone = Local::run(1, |rank| train(DataParallel::new(rank)?))?;
/// let four = Local::run(4, |rank| train(DataParallel::new(rank)?))?;
/// assert_eq!(four, [alone[0]; 4]);
/// # Ok(()) }
/// ```
///
/// All ranks run the same program: they call the methods of a trainer, and those of this type, in
/// the same order. What only one of them should do, such as printing, depends on
/// [`rank`](Self::rank). An error on one rank is an error on all, at the latest in the next step.
#[derive(Clone, Debug)]
pub struct DataParallel {
    rank: usize,
    size: usize,
    pub(super) bucket_bytes: usize,
    pub(super) spare: Spare,
    background: Arc<Background>,
}

impl DataParallel {
    /// The ranks of an engine.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn new(collective: impl Collective + 'static) -> Result<Self> {
        Ok(Self {
            rank: collective.rank(),
            size: collective.size(),
            bucket_bytes: 25 << 20,
            spare: Spare::default(),
            background: Arc::new(Background::new(Arc::new(collective))?),
        })
    }

    /// Sets the number of bytes of gradients that are summed at once, a bucket; the default is
    /// 25 MiB. The exchange of a bucket begins as soon as its gradients are complete, those of the
    /// model's last parameters first, while those of earlier layers are computed. All ranks need
    /// the same number.
    #[must_use]
    pub fn bucket_bytes(mut self, bytes: usize) -> Self {
        self.bucket_bytes = bytes;
        self
    }

    /// The number of this rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// This rank's part of `count` things, such as the sequences of a test set. The parts of all
    /// ranks follow each other, and differ in length by at most 1.
    pub fn share(&self, count: usize) -> Range<usize> {
        share(count, self.rank, self.size)
    }

    /// The outcome of an action on every rank, in the order of ranks: what a rank computes is
    /// known to all, and what fails on one fails on all.
    ///
    /// ```
    /// use recurrent::parallel::{DataParallel, Local};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let counts = Local::run(3, |rank| {
    ///     let ranks = DataParallel::new(rank)?;
    ///     ranks.agree("counting", Ok(ranks.rank() * 10))
    /// })?;
    /// assert_eq!(counts, [[0, 10, 20], [0, 10, 20], [0, 10, 20]]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// That of `outcome`; or the action failed on another rank, a rank is at another action, or
    /// the engine failed.
    pub fn agree<T: Serialize + DeserializeOwned>(
        &self,
        action: &'static str,
        outcome: Result<T>,
    ) -> Result<Vec<T>> {
        let (outcome, error) = match outcome {
            Ok(value) => (Ok(value), None),
            Err(error) => (Err(error.to_string()), Some(error)),
        };
        let all = self.all_gather(message(action, outcome)?);
        match error {
            Some(error) => Err(error),
            None => outcomes(self.rank, action, &all?),
        }
    }

    /// Copies the parameters of rank 0 to every other rank. A trainer does so before its first
    /// step.
    ///
    /// # Errors
    /// The models have different parameters, or the engine or the device failed.
    pub fn broadcast<M: Module>(&self, model: &mut M) -> Result<()> {
        let params = model.named_params();
        let described = params.iter().map(|(name, param)| {
            let (dtype, shape) = (param.dtype(), param.shape());
            format!("`{name}` of {dtype} {shape}")
        });
        let described: Vec<String> = described.collect();
        let all = self.agree("the broadcast of parameters", Ok(described))?;
        for (rank, theirs) in all.iter().enumerate() {
            if let Some(problem) = difference(theirs, &all[self.rank]) {
                return Err(failed(rank, "the broadcast of parameters", problem));
            }
        }
        let mut bytes = Vec::new();
        for (_, param) in &params {
            bytes.extend(param.to_bytes()?);
        }
        let sent = self.start(move |collective| {
            collective.broadcast(0, &mut bytes)?;
            Ok(bytes)
        });
        let bytes = sent.wait()?;
        let mut rest = &bytes[..];
        model.each_param(&mut |_, param| {
            let (bytes, after) = rest.split_at(param.meta().bytes());
            rest = after;
            param.set(Tensor::from_bytes(param.device(), bytes, param.meta())?)
        })
    }

    /// The bytes of every rank.
    pub(crate) fn all_gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.start(move |collective| collective.all_gather(&mine))
            .wait()
    }

    /// Starts an operation, and returns at once.
    pub(super) fn start<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn Collective) -> Result<T> + Send + 'static,
    ) -> Pending<T> {
        self.background.start(operation)
    }

    /// Fails if the value differs from that of rank 0, on any rank.
    pub(crate) fn same<T: Serialize>(&self, action: &'static str, what: &T) -> Result<()> {
        let text = serde_json::to_string(what)
            .map_err(|e| Error::argument("agree", action, e.to_string()))?;
        let all = self.agree(action, Ok(text))?;
        match all.iter().position(|theirs| *theirs != all[0]) {
            None => Ok(()),
            Some(rank) => {
                let problem = format!("it has {}, but rank 0 has {}", all[rank], all[0]);
                Err(failed(rank, action, problem))
            }
        }
    }
}

/// How the parameters of two models differ.
fn difference(theirs: &[String], ours: &[String]) -> Option<String> {
    if theirs.len() != ours.len() {
        let (theirs, ours) = (theirs.len(), ours.len());
        return Some(format!(
            "its model has {theirs} parameters, and that of this rank {ours}"
        ));
    }
    let mut pairs = theirs.iter().zip(ours);
    let (theirs, ours) = pairs.find(|(theirs, ours)| theirs != ours)?;
    Some(format!(
        "its model has {theirs}, and that of this rank {ours}"
    ))
}
