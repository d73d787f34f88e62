//! The run that the tests train: a layer over words from a table, with dropout.

use std::path::Path;

use backend_api::{DType, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::wrappers::DropoutWrapper;
use rnn_core::{BasicLstmCell, Dense, DynamicRnn, Initializer, Module, Param};
use rnn_train::Autodiff;
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{Batches, Remainder};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::Momentum;
use rnn_train::parallel::DataParallel;
use rnn_train::training::{TrainEvent, Trainer};

pub(crate) type Device = Autodiff<Cpu>;

const ITEMS: usize = 96;
const STEPS: usize = 5;
const WORDS: usize = 23;
const UNITS: usize = 16;
/// Batches of a step, and items of a batch.
pub(crate) const BATCHES: u64 = 4;
const BATCH: usize = 3;

#[derive(Clone, Debug)]
pub(crate) struct Model {
    table: Param<Device>,
    cell: DropoutWrapper<BasicLstmCell<Device>>,
    dense: Dense<Device>,
}

rnn_core::module!(Model on Device { table, cell, dense });

impl Model {
    pub(crate) fn new(keep_prob: f64) -> Result<Self> {
        let device = Autodiff::new(Cpu::builder().threads(1).build()?);
        let uniform = Initializer::uniform(-0.5, 0.5);
        let cell = BasicLstmCell::new(&device, 8, UNITS)?;
        let mut model = Self {
            table: Param::new(&device, uniform, &[WORDS, 8], DType::F32)?,
            cell: DropoutWrapper::builder(cell)
                .output_keep_prob(keep_prob)
                .build()?,
            dense: Dense::new(&device, UNITS, 2)?,
        };
        model.initialize(7)?;
        Ok(model)
    }

    pub(crate) fn loss(&self, items: &[usize]) -> Result<Tensor<Device>> {
        let device = self.table.device();
        let word = |item: &usize, step| ((item * 31 + step * step * 7) % WORDS) as i64;
        let words = items
            .iter()
            .flat_map(|item| (0..STEPS).map(move |step| word(item, step)));
        let words: Vec<i64> = words.collect();
        let words = Tensor::from_slice(device, &words, &[items.len(), STEPS])?;
        let labels: Vec<i64> = items.iter().map(|item| (item % 3 == 0) as i64).collect();
        let labels = Tensor::from_slice(device, &labels, &[items.len()])?;
        let last = DynamicRnn::new(&self.cell)
            .run(&self.table.gather(&words)?)?
            .state
            .h;
        softmax_cross_entropy(&self.dense.forward(&last)?, &labels)
    }

    /// The bytes of all parameters.
    pub(crate) fn bits(&self) -> Vec<u8> {
        let params = self.named_params();
        params
            .iter()
            .flat_map(|(_, param)| param.to_bytes().unwrap())
            .collect()
    }
}

/// How a run is trained.
pub(crate) struct Run<'a> {
    pub(crate) ranks: Option<&'a DataParallel>,
    pub(crate) steps: u64,
    pub(crate) keep_prob: f64,
    /// Batches of a step, of which all together have the same items.
    pub(crate) batches: u64,
    /// Saves after every fifth step, and resumes.
    pub(crate) folder: Option<&'a Path>,
    /// Called before the loss of each batch, with the step.
    pub(crate) before: &'a dyn Fn(u64) -> Result<()>,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self {
            ranks: None,
            steps: 50,
            keep_prob: 0.7,
            batches: BATCHES,
            folder: None,
            before: &|_| Ok(()),
        }
    }
}

impl Run<'_> {
    /// Trains to the given number of steps.
    pub(crate) fn train(&self) -> Result<Model> {
        let mut model = Model::new(self.keep_prob)?;
        let mut momentum = Momentum::new(0.2, 0.9);
        let batch = BATCH * BATCHES as usize / self.batches as usize;
        let mut batches = Batches::new(ITEMS, batch, Remainder::Keep, 5)?;
        let mut trainer = Trainer::new(9)
            .accumulate(self.batches)
            .clip_norm(0.5)
            .show_progress(false);
        if let Some(folder) = self.folder {
            trainer = trainer.save_to(Checkpoints::new(folder)).save_every(5);
        }
        if let Some(ranks) = self.ranks {
            trainer = trainer.across(ranks);
        }
        trainer.resume(&mut model, &mut momentum, &mut batches)?;
        while trainer.state().step < self.steps {
            let event =
                trainer.step(&mut model, &mut momentum, &mut batches, |m, items, step| {
                    (self.before)(step.step)?;
                    m.loss(items)
                })?;
            if let TrainEvent::Step(report) = event {
                assert!(report.loss.is_finite());
            }
        }
        Ok(model)
    }
}
