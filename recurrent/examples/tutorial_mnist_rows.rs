//! "Training a Sequence Classifier" of A. Géron's *Hands-On Machine Learning*, chapter 14: reads
//! digits row by row with a basic cell of 150 units. On the part of MNIST in this repository; the
//! example `mnist` uses all of it.

use std::error::Error;
use std::io::{Write, stdout};

use datasets::committed_root;
use recurrent::data::{Batches, Idx, Remainder};
use recurrent::prelude::*;

const EPOCHS: u64 = 6;
const BATCH: usize = 50;

/// Images `[images, 28, 28]` and labels `[images]`.
fn read(device: &Device, part: &str) -> recurrent::Result<(Tensor, Tensor)> {
    let folder = committed_root().join("mnist-sample");
    let images = Idx::open(folder.join(format!("{part}-images-idx3-ubyte.gz")))?;
    let labels = Idx::open(folder.join(format!("{part}-labels-idx1-ubyte.gz")))?;
    let pixels: Vec<f32> = images
        .data()
        .iter()
        .map(|&p| f32::from(p) / 255.0)
        .collect();
    Ok((
        Tensor::from_slice(device, &pixels, images.shape())?,
        Tensor::from_ints(device, labels.data(), labels.shape())?,
    ))
}

fn logits((cell, dense): &(BasicRnnCell, Dense), x: &Tensor) -> recurrent::Result<Tensor> {
    dense.forward(&DynamicRnn::new(cell).run(x)?.state)
}

/// Prints the accuracy on the last batch and on the test set after each epoch.
pub fn tutorial(device: &Device, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let (x_train, y_train) = read(device, "train")?;
    let (x_test, y_test) = read(device, "t10k")?;
    let mut model = (
        BasicRnnCell::new(device, 28, 150)?,
        Dense::new(device, 150, 10)?,
    );
    model.initialize(42)?;
    let mut optimizer = Adam::new(0.001);
    let mut batches = Batches::new(x_train.shape()[0], BATCH, Remainder::Drop, 42)?;
    let mut trainer = Trainer::new(42).clip_norm(1.0).show_progress(false);
    for epoch in 0..EPOCHS {
        let mut on_batch = 0.0;
        trainer.run_epoch(
            &mut model,
            &mut optimizer,
            &mut batches,
            |model, items, _| {
                let items = Tensor::from_ints(device, items, &[items.len()])?;
                let (x, y) = (x_train.gather(&items)?, y_train.gather(&items)?);
                let logits = logits(model, &x)?;
                on_batch = accuracy(&logits, &y)?;
                softmax_cross_entropy(&logits, &y)
            },
        )?;
        let on_test = accuracy(&logits(&model, &x_test)?, &y_test)?;
        writeln!(
            out,
            "{epoch} Train accuracy: {on_batch:.3} Test accuracy: {on_test:.3}"
        )?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    tutorial(&Device::from_env()?, &mut stdout())
}
