//! The row-by-row classifier on the committed sample of MNIST: readers, batches, training loop,
//! checkpoints and ranks together.

use std::ops::Range;
use std::path::{Path, PathBuf};

use backend_api::{Backend, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::{BasicRnnCell, Dense, DynamicRnn, Module, Visitor};
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{Batches, Idx, Remainder};
use rnn_train::losses::{accuracy, softmax_cross_entropy};
use rnn_train::optim::Adam;
use rnn_train::parallel::{DataParallel, Local};
use rnn_train::training::{Mean, Trainer};
use rnn_train::{Autodiff, Differentiable};

type Device = Autodiff<Cpu>;

#[derive(Clone, Debug)]
struct Classifier<B: Backend> {
    cell: BasicRnnCell<B>,
    logits: Dense<B>,
}

impl<B: Backend> Module for Classifier<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.child("basic_rnn_cell", &mut self.cell);
        v.child("dense", &mut self.logits);
    }
}

impl<B: Differentiable> Classifier<B> {
    fn new(device: &B) -> Result<Self> {
        let mut model = Self {
            cell: BasicRnnCell::new(device, 28, 64)?,
            logits: Dense::new(device, 64, 10)?,
        };
        model.initialize(5)?;
        Ok(model)
    }

    fn forward(&self, images: &Tensor<B>) -> Result<Tensor<B>> {
        self.logits
            .forward(&DynamicRnn::new(&self.cell).run(images)?.state)
    }
}

fn sample(part: &str) -> (Idx, Idx) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mnist-sample");
    let open = |kind: &str| Idx::open(folder.join(format!("{part}-{kind}-ubyte.gz"))).unwrap();
    (open("images-idx3"), open("labels-idx1"))
}

fn batch<B: Backend>(
    device: &B,
    (images, labels): &(Idx, Idx),
    items: &[usize],
) -> Result<(Tensor<B>, Tensor<B>)> {
    let pixels = images.gather(items, |byte| f32::from(byte) / 255.0)?;
    let labels = labels.gather(items, i32::from)?;
    Ok((
        Tensor::from_slice(device, &pixels, &[items.len(), 28, 28])?,
        Tensor::from_slice(device, &labels, &[items.len()])?,
    ))
}

/// Trains to `epochs`, starting from the newest checkpoint in `folder` if it has one.
fn train(device: &Device, folder: &Path, epochs: u64) -> Result<Classifier<Device>> {
    let trainer = trainer().save_to(Checkpoints::new(folder));
    continued(device, trainer, 50, epochs)
}

fn trainer() -> Trainer<Device> {
    Trainer::new(5).clip_norm(1.0).show_progress(false)
}

fn continued(
    device: &Device,
    mut trainer: Trainer<Device>,
    batch_size: usize,
    epochs: u64,
) -> Result<Classifier<Device>> {
    let data = sample("train");
    let mut model = Classifier::new(device)?;
    let mut adam = Adam::new(0.003);
    let mut batches = Batches::new(data.0.len(), batch_size, Remainder::Drop, 5)?;
    trainer.resume(&mut model, &mut adam, &mut batches)?;
    while trainer.state().epoch < epochs {
        trainer.run_epoch(&mut model, &mut adam, &mut batches, |model, items, _| {
            let (images, labels) = batch(device, &data, items)?;
            softmax_cross_entropy(&model.forward(&images)?, &labels)
        })?;
    }
    Ok(model)
}

/// The accuracy on a part of the test items.
fn right(
    device: &Device,
    model: &Classifier<Device>,
    part: impl Fn(usize) -> Range<usize>,
) -> Result<Mean> {
    let test = sample("t10k");
    let items: Vec<usize> = part(test.0.len()).collect();
    let (images, labels) = batch(device, &test, &items)?;
    let right = accuracy(&model.forward(&images)?, &labels)?;
    Ok(Mean::of(right, items.len() as f64))
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

#[test]
fn training_learns_digits_and_resumes_exactly() {
    let device = Autodiff::new(Cpu::new());
    let whole = train(&device, &scratch("mnist-whole"), 30).unwrap();
    let right = right(&device, &whole, |count| 0..count).unwrap().value();
    // Random guessing gives 0.1.
    assert!(right > 0.7, "{right}");

    let folder = scratch("mnist-halves");
    train(&device, &folder, 11).unwrap();
    let resumed = train(&device, &folder, 30).unwrap();
    for ((name, a), (_, b)) in whole.named_params().iter().zip(resumed.named_params()) {
        assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap(), "{name}");
    }
}

#[test]
fn any_number_of_ranks_reaches_the_same_accuracy() {
    let device = || Autodiff::new(Cpu::builder().threads(1).build().unwrap());
    // Steps of 50 items, in two parts.
    let trainer = || trainer().accumulate(2);
    let alone = {
        let device = device();
        let model = continued(&device, trainer(), 25, 12).unwrap();
        right(&device, &model, |count| 0..count).unwrap().value()
    };
    assert!(alone > 0.5, "{alone}");
    for size in [1, 2] {
        let accuracies = Local::run(size, |rank| {
            let ranks = DataParallel::new(rank)?.bucket_bytes(10_000);
            let device = device();
            let model = continued(&device, trainer().across(&ranks), 25, 12)?;
            let part = right(&device, &model, |count| ranks.share(count))?;
            Ok(ranks.means([part])?[0].value())
        });
        assert_eq!(accuracies.unwrap(), vec![alone; size]);
    }
}
