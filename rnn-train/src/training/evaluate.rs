//! Metrics over a data set.

use backend_api::{Error, Result};
use rnn_core::Mode;
use serde::{Deserialize, Serialize};

use crate::data::Source;
use crate::parallel::DataParallel;

/// A mean, weighted by counts: that of a batch, or a running mean over batches.
///
/// ```
/// use recurrent::training::Mean;
///
/// let mut mean = Mean::of(0.5, 10.0); // of ten labels
/// mean.add(Mean::of(2.0, 5.0));
/// assert_eq!((mean.value(), mean.weight()), (1.0, 15.0));
/// assert_eq!(mean.perplexity(), 1f64.exp());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    /// The mean of `weight` values, such as the labels of a batch.
    pub fn of(value: f64, weight: f64) -> Self {
        match weight {
            // A mean over nothing is often NaN.
            0.0 => Self::default(),
            _ => Self {
                sum: value * weight,
                weight,
            },
        }
    }

    /// Extends the mean to the values of another one.
    pub fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.weight += other.weight;
    }

    /// The mean; NaN if it is over nothing.
    pub fn value(&self) -> f64 {
        self.sum / self.weight
    }

    /// The number of values.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// `e ^ value`: the perplexity, if this is a mean of cross entropies.
    pub fn perplexity(&self) -> f64 {
        self.value().exp()
    }
}

impl DataParallel {
    /// The means over what all ranks have counted, such as the accuracy of each rank's
    /// [`share`](Self::share) of the test set.
    ///
    /// ```
    /// use recurrent::parallel::{DataParallel, Local};
    /// use recurrent::training::Mean;
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let accuracy = Local::run(2, |rank| {
    ///     let ranks = DataParallel::new(rank)?;
    ///     let mine = match ranks.rank() {
    ///         0 => Mean::of(1.0, 30.0), // all of 30 are right
    ///         _ => Mean::of(0.5, 10.0),
    ///     };
    ///     let [all] = ranks.means([mine])?;
    ///     Ok(all.value())
    /// })?;
    /// assert_eq!(accuracy, [0.875, 0.875]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`agree`](Self::agree).
    pub fn means<const N: usize>(&self, mine: [Mean; N]) -> Result<[Mean; N]> {
        let mut means = [Mean::default(); N];
        for of_rank in self.agree("means", Ok(mine.to_vec()))? {
            for (mean, of_rank) in means.iter_mut().zip(of_rank) {
                mean.add(of_rank);
            }
        }
        Ok(means)
    }
}

/// Means of metrics over the items from the source's position to the end of its epoch. `metrics`
/// returns the means of one batch, each with the number of values that it is over. The code in
/// `metrics` runs in evaluation: dropout is off. The source is afterwards where it was before.
///
/// ```
/// use recurrent::data::{InOrder, Remainder, Source, SourceExt};
/// use recurrent::losses::{accuracy, softmax_cross_entropy};
/// use recurrent::training::{Mean, evaluate};
/// use recurrent::{Dense, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let model = Dense::new(&device, 1, 2)?;
/// let mut source = InOrder::new(0..10).group(4, Remainder::Keep)?; // the last one has 2
/// let [loss, right] = evaluate(&model, &mut source, |model, items| {
///     let x: Vec<f32> = items.iter().map(|&item| item as f32 - 4.5).collect();
///     let labels: Vec<i64> = items.iter().map(|&item| i64::from(item > 4)).collect();
///     let logits = model.forward(&Tensor::from_slice(&device, &x, &[x.len(), 1])?)?;
///     let labels = Tensor::from_slice(&device, &labels, &[x.len()])?;
///     let loss = softmax_cross_entropy(&logits, &labels)?.item()?;
///     let count = items.len() as f64;
///     Ok([Mean::of(loss, count), Mean::of(accuracy(&logits, &labels)?, count)])
/// })?;
/// assert_eq!(loss.weight(), 10.0);
/// println!("perplexity {:.2}, accuracy {:.2}", loss.perplexity(), right.value());
/// # Ok(()) }
/// ```
///
/// # Errors
/// The source yields no item, or cannot be read or restored; or `metrics` fails.
pub fn evaluate<M, S: Source, const N: usize>(
    model: &M,
    source: &mut S,
    mut metrics: impl FnMut(&M, &S::Item) -> Result<[Mean; N]>,
) -> Result<[Mean; N]> {
    let before = source.state();
    let evaluated = Mode::Evaluation.scope(|| {
        let mut means = None;
        while let Some(item) = source.next_item()? {
            let means = means.get_or_insert([Mean::default(); N]);
            for (mean, of_item) in means.iter_mut().zip(metrics(model, &item)?) {
                mean.add(of_item);
            }
        }
        means.ok_or_else(|| Error::argument("evaluate", "source", "returned no item"))
    });
    source.restore(before)?;
    evaluated
}
