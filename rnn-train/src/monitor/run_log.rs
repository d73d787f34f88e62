//! The folder of a run.

use std::path::{Path, PathBuf};

use backend_api::Result;
use rnn_core::Module;

use super::{EventWriter, MetricsLog, read_metrics, write_report};
use crate::Gradients;
use crate::checkpoint::atomic;

/// Writes what a run leaves in its folder: `metrics.jsonl`, an event file for TensorBoard, and
/// `report.html`.
///
/// ```
/// use recurrent::checkpoint::Checkpoints;
/// use recurrent::data::{Batches, Remainder};
/// use recurrent::monitor::{RunLog, read_metrics};
/// use recurrent::{Dense, Device, Sgd, Tensor, Trainer};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-run");
/// # let _ = std::fs::remove_dir_all(&folder);
/// let device = Device::cpu();
/// let (mut model, mut sgd) = (Dense::new(&device, 1, 1)?, Sgd::new(0.1));
/// let mut batches = Batches::new(6, 2, Remainder::Drop, 1)?;
/// let x = Tensor::ones(&device, &[2, 1])?;
///
/// let mut trainer = Trainer::new(42).save_to(Checkpoints::new(folder.join("checkpoints")));
/// trainer.resume(&mut model, &mut sgd, &mut batches)?;
/// let mut log = RunLog::open(&folder, trainer.state().step)?;
/// while trainer.state().epoch < 2 {
///     let report = trainer.run_epoch(&mut model, &mut sgd, &mut batches, |model, _items, _step| {
///         model.forward(&x)?.square()?.mean_all()
///     })?;
///     let step = trainer.state().step;
///     log.log(step, &[("train/loss", report.mean_loss), ("epoch", report.epoch as f64)])?;
///     log.weights(step, &model)?;
/// }
/// let page = log.write_report("A layer")?;
/// assert!(page.ends_with("report.html"));
/// assert_eq!(read_metrics(folder.join("metrics.jsonl"))?.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct RunLog {
    folder: PathBuf,
    metrics: MetricsLog,
    events: EventWriter,
}

impl RunLog {
    /// Opens the folder of a run that has taken `step` steps, and creates it if it does not exist.
    /// What the folder says about later steps goes: a resumed run takes them again.
    ///
    /// # Errors
    /// Those of [`MetricsLog::open`] and [`EventWriter::create`].
    pub fn open(folder: impl AsRef<Path>, step: u64) -> Result<Self> {
        let folder = folder.as_ref();
        atomic::create_folder(folder)?;
        Ok(Self {
            metrics: MetricsLog::open(metrics(folder), step)?,
            events: EventWriter::create(folder, step)?,
            folder: folder.to_owned(),
        })
    }

    /// Writes named numbers of a step to `metrics.jsonl`, and to TensorBoard as scalars.
    ///
    /// # Errors
    /// Those of [`MetricsLog::log`] and [`EventWriter::scalar`].
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        if self.metrics.log(step, values)? {
            for &(name, value) in values {
                self.events.scalar(name, step, value)?;
            }
        }
        Ok(())
    }

    /// Writes a histogram of every parameter for TensorBoard, named `weights/<parameter>`.
    ///
    /// # Errors
    /// Those of [`EventWriter::histogram`], and the device failed.
    pub fn weights<M: Module>(&mut self, step: u64, model: &M) -> Result<()> {
        for (name, param) in model.named_params() {
            let values = param.value().to_f64_vec()?;
            self.events
                .histogram(&format!("weights/{name}"), step, &values)?;
        }
        Ok(())
    }

    /// Writes a histogram of every gradient for TensorBoard, named `gradients/<parameter>`; for a
    /// sparse gradient, of the rows that were looked up.
    ///
    /// # Errors
    /// Those of [`EventWriter::histogram`], and the device failed.
    pub fn gradients<B: backend_api::Backend>(
        &mut self,
        step: u64,
        grads: &Gradients<B>,
    ) -> Result<()> {
        for (name, grad) in grads.iter() {
            if let Some(grad) = grad {
                let values = grad.values().to_f64_vec()?;
                self.events
                    .histogram(&format!("gradients/{name}"), step, &values)?;
            }
        }
        Ok(())
    }

    /// The writer of the event file, for texts and other histograms.
    pub fn events(&mut self) -> &mut EventWriter {
        &mut self.events
    }

    /// Writes the page [`write_report`] of all metrics so far, and returns its path.
    ///
    /// # Errors
    /// Those of [`read_metrics`] and [`write_report`].
    pub fn write_report(&self, title: &str) -> Result<PathBuf> {
        let path = self.folder.join("report.html");
        write_report(&path, title, &read_metrics(metrics(&self.folder))?)?;
        Ok(path)
    }
}

fn metrics(folder: &Path) -> PathBuf {
    folder.join("metrics.jsonl")
}
