//! The checkpoints of a run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use backend_api::{Error, Result};
use rnn_core::Module;
use serde::Serialize;
use serde_json::Value;

use super::{Checkpoint, TrainState, atomic, exact, read};
use crate::optim::Optimizer;

const BEST: &str = "best.safetensors";

/// The folder of a run, and the rules for its checkpoints. Only one run at a time may write to it.
///
/// ```
/// use recurrent::checkpoint::{Checkpoints, TrainState};
/// use recurrent::{Adam, Dense, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-checkpoints");
/// # let _ = std::fs::remove_dir_all(&folder);
/// let mut model = Dense::new(&Device::cpu(), 3, 2)?;
/// let mut adam = Adam::new(1e-3);
/// let checkpoints = Checkpoints::new(folder.join("run")).config(&("dense", 3, 2))?;
///
/// let mut state = match checkpoints.resume(&mut model, &mut adam)? {
///     Some(state) => state,
///     None => TrainState::new(42),
/// };
/// // .. train ..
/// state.step += 1;
/// let path = checkpoints.save(&model, &adam, &state)?;
/// assert!(path.ends_with("run/step-00000001.safetensors"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    config: Value,
}

impl Checkpoints {
    /// Uses the given folder, which need not exist yet. Keeps the last two checkpoints.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self {
            folder: folder.as_ref().to_owned(),
            keep: 2,
            config: Value::Null,
        }
    }

    /// Number of checkpoints to keep; at least 1.
    #[must_use]
    pub fn keep(mut self, count: usize) -> Self {
        self.keep = count.max(1);
        self
    }

    /// The model's configuration. It is saved with each checkpoint and compared when a run is
    /// resumed.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the field, if the configuration cannot be written as JSON, has a
    /// number that is not finite, or is nested more than 124 levels deep.
    pub fn config(mut self, config: &impl Serialize) -> Result<Self> {
        self.config = exact::to_value("checkpoint", "config", config)?;
        Ok(self)
    }

    /// The path of the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Saves a checkpoint, then removes the oldest ones and partial files left by killed processes.
    /// The new checkpoint is on the disk, and was read back, before anything is removed. What has
    /// the name of a checkpoint but is no file, such as a folder, stays and does not count.
    ///
    /// # Errors
    /// The folder has checkpoints of later steps, which belong to another run; the state or the
    /// configuration of the optimizer has a number that is not finite or cannot be read back; or
    /// the device or the system failed. The folder has the same checkpoints then.
    pub fn save<M: Module, O: Optimizer<M::Backend>>(
        &self,
        model: &M,
        optimizer: &O,
        state: &TrainState<M::Backend>,
    ) -> Result<PathBuf> {
        atomic::create_folder(&self.folder)?;
        let step = state.step;
        let mut steps = self.steps()?;
        // Removing a folder would fail at every later save; `latest` reports one if it matters.
        steps.retain(|&step| self.path(step).is_file());
        if let Some(&last) = steps.last().filter(|&&last| last > step) {
            let problem = format!(
                "has a checkpoint of step {last}, so a checkpoint of step {step} belongs to \
                 another run: resume that run, or use another folder"
            );
            return Err(Error::format(&self.folder, problem));
        }
        let path = self.path(step);
        read::write(&path, &self.config, model, optimizer, state)?;
        if steps.last() != Some(&step) {
            steps.push(step);
        }
        let old = steps.len().saturating_sub(self.keep);
        for &step in &steps[..old] {
            let path = self.path(step);
            atomic::remove(&path).map_err(|e| Error::io(&path, e))?;
        }
        atomic::clean(&self.folder);
        Ok(path)
    }

    /// Saves the best checkpoint so far as `best.safetensors`, which replaces the one before and
    /// counts neither for [`keep`](Self::keep) nor for resuming.
    ///
    /// ```
    /// use recurrent::checkpoint::{Checkpoints, TrainState};
    /// use recurrent::{Dense, Device, Sgd};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let folder = std::env::temp_dir().join("recurrent-best");
    /// # let _ = std::fs::remove_dir_all(&folder);
    /// let checkpoints = Checkpoints::new(&folder);
    /// let (mut model, mut sgd) = (Dense::new(&Device::cpu(), 3, 2)?, Sgd::new(0.1));
    /// let mut state = TrainState::new(42);
    /// for (step, loss) in [(1, 0.9), (2, 0.3), (3, 0.5)] {
    ///     state.step = step;
    ///     checkpoints.save(&model, &sgd, &state)?;
    ///     if loss < 0.4 {
    ///         checkpoints.save_best(&model, &sgd, &state)?;
    ///     }
    /// }
    /// let best = checkpoints.best()?.expect("a checkpoint");
    /// assert_eq!(best.restore(&mut model, &mut sgd)?.step, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`save`](Self::save), except that steps do not matter.
    pub fn save_best<M: Module, O: Optimizer<M::Backend>>(
        &self,
        model: &M,
        optimizer: &O,
        state: &TrainState<M::Backend>,
    ) -> Result<PathBuf> {
        atomic::create_folder(&self.folder)?;
        let path = self.folder.join(BEST);
        read::write(&path, &self.config, model, optimizer, state)?;
        atomic::clean(&self.folder);
        Ok(path)
    }

    /// The checkpoint that [`save_best`](Self::save_best) saved; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or has a newer format.
    pub fn best(&self) -> Result<Option<Checkpoint>> {
        let path = self.folder.join(BEST);
        match path.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) => Checkpoint::read(path).map(Some),
            Err(e) => Err(Error::io(&path, e)),
        }
    }

    /// The newest checkpoint; `None` if the folder has none or does not exist.
    ///
    /// # Errors
    /// The newest checkpoint cannot be read, is damaged, or has a newer format. An older one never
    /// replaces it silently; the error message names the newest readable one, if there is any.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        let steps = self.steps()?;
        let Some((&last, older)) = steps.split_last() else {
            return Ok(None);
        };
        match Checkpoint::read(self.path(last)) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(Error::Format { path, problem }) => {
                let good = older
                    .iter()
                    .rev()
                    .map(|&step| self.path(step))
                    .find(|path| Checkpoint::read(path).is_ok());
                let advice = match good {
                    Some(good) => format!(
                        "{} is readable: to resume from it, remove this file",
                        good.display()
                    ),
                    None => "no older checkpoint of the run is readable".to_owned(),
                };
                Err(Error::format(path, format!("{problem}; {advice}")))
            }
            Err(other) => Err(other),
        }
    }

    /// Resumes from the newest checkpoint: restores the model's parameters and the optimizer's
    /// state and configuration (including the learning rate), and returns the state of the run.
    /// Returns `None` and changes nothing if there is no checkpoint.
    ///
    /// # Errors
    /// Those of [`latest`](Self::latest) and [`Checkpoint::restore`]; or the checkpoint has another
    /// model configuration than [`config`](Self::config), if that was set. Nothing has changed
    /// then.
    pub fn resume<M: Module, O: Optimizer<M::Backend>>(
        &self,
        model: &mut M,
        optimizer: &mut O,
    ) -> Result<Option<TrainState<M::Backend>>> {
        let Some(checkpoint) = self.latest()? else {
            return Ok(None);
        };
        if !self.config.is_null() {
            checkpoint.check_config(&self.config)?;
        }
        checkpoint.restore(model, optimizer).map(Some)
    }

    /// The steps that have checkpoints, in increasing order.
    fn steps(&self) -> Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.io(e)),
        };
        let mut steps = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| self.io(e))?.file_name();
            let step = name
                .to_str()
                .and_then(|name| name.strip_prefix("step-")?.strip_suffix(".safetensors"))
                .and_then(|step| step.parse().ok());
            // Ignore a file that spells the number differently; `save` did not write
            // it.
            steps.extend(step.filter(|&step| self.path(step).ends_with(&name)));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:08}.safetensors"))
    }

    fn io(&self, error: io::Error) -> Error {
        Error::io(&self.folder, error)
    }
}
