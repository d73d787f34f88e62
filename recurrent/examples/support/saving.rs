//! Where a run saves checkpoints, and how it goes on from one.

use recurrent::checkpoint::Checkpoints;
use recurrent::data::Source;
use recurrent::prelude::*;
use recurrent::training::Interrupt;

use super::support::{Error, Options};

/// The values of `--save` and `--resume`.
#[derive(Clone, Debug, Default)]
pub struct Saving {
    save: Option<String>,
    resume: Option<String>,
}

impl Saving {
    /// The values on the command line.
    pub fn of(options: &Options) -> Result<Self, Error> {
        let folder = |name| options.text(name).map(str::to_owned);
        let (save, resume) = (folder("save"), folder("resume"));
        if save.is_some() && resume.is_some() {
            return Err("--save cannot be used with --resume, which also saves".into());
        }
        Ok(Self { save, resume })
    }

    /// The trainer that saves, and the run that it goes on with. Ctrl-C saves and stops. `config`
    /// must be that of the checkpoint.
    pub fn begin<M: Module<Backend = Device>, O: Optimizer<Device>, S: Source>(
        &self,
        trainer: Trainer,
        config: &str,
        model: &mut M,
        optimizer: &mut O,
        source: &mut S,
    ) -> Result<Trainer, Error> {
        let Some(folder) = self.resume.as_ref().or(self.save.as_ref()) else {
            return Ok(trainer);
        };
        let checkpoints = Checkpoints::new(folder).config(&config)?;
        if self.save.is_some() && checkpoints.latest()?.is_some() {
            return Err(format!(
                "--save {folder}: the folder has a checkpoint; use --resume to continue its run"
            )
            .into());
        }
        let mut trainer = trainer
            .save_to(checkpoints)
            .stop_on(Interrupt::on_ctrl_c()?);
        if self.resume.is_some() && !trainer.resume(model, optimizer, source)? {
            return Err(format!("--resume {folder}: no checkpoint found").into());
        }
        Ok(trainer)
    }
}
