//! One program on several devices: a seed gives the same model, masks and batches, and models can
//! be moved.

use std::path::Path;

use backend_api::{Backend, DType, Distribution, Meta, Result, Shape, Tensor};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use recurrent_tests::devices::{NAMES, TestDevice, device};
use rnn_core::wrappers::DropoutWrapper;
use rnn_core::{BasicRnnCell, Dense, DynamicRnn, GruCell, LstmCell, Module, Visitor};
use rnn_train::checkpoint::{load_params, save_params};
use rnn_train::data::{Batches, Idx, Remainder, Source};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::{Adam, Optimizer};
use rnn_train::value_and_grad;

fn devices() -> impl Iterator<Item = (&'static str, TestDevice)> {
    NAMES.into_iter().map(|name| (name, device(name).unwrap()))
}

fn model(device: &TestDevice) -> Result<(LstmCell<TestDevice>, Dense<TestDevice>)> {
    let mut model = (
        LstmCell::<TestDevice>::builder(5, 9)
            .use_peepholes(true)
            .build(device)?,
        Dense::new(device, 9, 4)?,
    );
    model.initialize(31)?;
    Ok(model)
}

fn inputs(device: &TestDevice) -> Result<Tensor<TestDevice>> {
    let numbers: Vec<f32> = (0..3 * 6 * 5).map(|i| (i as f32 * 0.37).sin()).collect();
    Tensor::from_slice(device, &numbers, &[3, 6, 5])
}

fn outputs(
    (cell, dense): &(LstmCell<TestDevice>, Dense<TestDevice>),
    device: &TestDevice,
) -> Result<Vec<f64>> {
    let rnn = DynamicRnn::new(cell)
        .sequence_length(&[6, 2, 4])
        .run(&inputs(device)?)?;
    dense.forward(&rnn.state.h)?.to_f64_vec()
}

fn close(name: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (a, b) in got.iter().zip(expected) {
        assert!(
            (a - b).abs() <= tolerance * (1.0 + b.abs()),
            "{name}: {a} is not {b}"
        );
    }
}

#[test]
fn a_seed_gives_the_same_model_everywhere() {
    let first = model(&device("cpu").unwrap()).unwrap();
    for (name, device) in devices() {
        for ((param, a), (_, b)) in model(&device)
            .unwrap()
            .named_params()
            .iter()
            .zip(first.named_params())
        {
            assert_eq!(
                a.to_bytes().unwrap(),
                b.to_bytes().unwrap(),
                "{name}: {param}"
            );
        }
    }
}

#[test]
fn a_seed_gives_the_same_masks_and_numbers_everywhere() {
    let dropped = |device: &TestDevice| -> Result<Vec<f64>> {
        let cell = GruCell::new(device, 5, 9)?;
        // Only the mask can make an output 0.
        let cell = DropoutWrapper::builder(cell)
            .output_keep_prob(0.5)
            .build()?;
        let rnn = DynamicRnn::new(&cell).training(8).run(&inputs(device)?)?;
        let outputs = rnn.outputs.to_f64_vec()?;
        Ok(outputs.iter().map(|x| f64::from(*x == 0.0)).collect())
    };
    let expected = dropped(&device("cpu").unwrap()).unwrap();
    assert!(expected.contains(&0.0) && expected.contains(&1.0));
    let draw = |device: &TestDevice, dtype| {
        let uniform = Distribution::Uniform {
            low: -0.3,
            high: 0.7,
        };
        let meta = Meta::new(Shape::new(&[1001]).unwrap(), dtype);
        Tensor::random(device, 77, uniform, meta)
            .unwrap()
            .to_bytes()
            .unwrap()
    };
    for (name, device) in devices() {
        assert_eq!(dropped(&device).unwrap(), expected, "{name}");
        for dtype in [DType::F32, DType::F64] {
            let cpu = recurrent_tests::devices::device("cpu").unwrap();
            assert_eq!(draw(&device, dtype), draw(&cpu, dtype), "{name} {dtype}");
        }
    }
}

/// Requests that a server handles on threads of its own or on a `rayon` pool, with a lock held.
#[test]
fn many_callers_compute_outputs_and_gradients_on_one_device() {
    let device = device("cpu").unwrap();
    let mut cell = LstmCell::new(&device, 64, 96).unwrap();
    cell.initialize(3).unwrap();
    let numbers: Vec<f32> = (0..20 * 30 * 64).map(|i| (i % 23) as f32 * 0.05).collect();
    let x = Tensor::from_slice(&device, &numbers, &[20, 30, 64]).unwrap();
    let request = || {
        let (loss, grads) = value_and_grad(&cell, |cell| {
            DynamicRnn::new(cell).run(&x)?.outputs.sum_all()
        })
        .unwrap();
        let norm = grads.global_norm().unwrap().item().unwrap();
        (loss.item().unwrap().to_bits(), norm.to_bits())
    };
    let expected = request();
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| assert_eq!(request(), expected));
        }
    });
    let lock = std::sync::Mutex::new(());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    pool.install(|| {
        (0..64).into_par_iter().for_each(|i| {
            let _held = (i % 2 == 0).then(|| lock.lock().unwrap());
            assert_eq!(request(), expected);
        });
    });
}

#[test]
fn a_model_moves_with_one_call() {
    let cpu = device("cpu").unwrap();
    let original = model(&cpu).unwrap();
    let expected = outputs(&original, &cpu).unwrap();
    for (name, device) in devices() {
        let moved = original.to(&device).unwrap();
        close(name, &outputs(&moved, &device).unwrap(), &expected, 1e-6);
        let back = moved.to(&cpu).unwrap();
        assert_eq!(outputs(&back, &cpu).unwrap(), expected, "{name} and back");
    }
}

#[test]
fn a_checkpoint_of_one_device_loads_on_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let cpu = device("cpu").unwrap();
    let saved = model(&cpu).unwrap();
    save_params(&file, &saved).unwrap();
    for (name, device) in devices() {
        let mut loaded = model(&device).unwrap();
        loaded.initialize(1).unwrap();
        load_params(&file, &mut loaded).unwrap();
        let expected = outputs(&saved, &cpu).unwrap();
        close(name, &outputs(&loaded, &device).unwrap(), &expected, 1e-6);
    }
}

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

/// The losses of a few training steps on digits.
fn digits(device: &TestDevice) -> Result<Vec<f64>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mnist-sample");
    let images = Idx::open(folder.join("train-images-idx3-ubyte.gz"))?;
    let labels = Idx::open(folder.join("train-labels-idx1-ubyte.gz"))?;
    let mut model = Classifier {
        cell: BasicRnnCell::new(device, 28, 32)?,
        logits: Dense::new(device, 32, 10)?,
    };
    model.initialize(5)?;
    let mut adam = Adam::new(0.003);
    let mut batches = Batches::new(images.len(), 20, Remainder::Drop, 5)?;
    let mut losses = Vec::new();
    for _ in 0..6 {
        let Some(items) = batches.next_item()? else {
            break;
        };
        let pixels = images.gather(&items, |byte| f32::from(byte) / 255.0)?;
        let x = Tensor::from_slice(device, &pixels, &[items.len(), 28, 28])?;
        let y = Tensor::from_slice(device, &labels.gather(&items, i32::from)?, &[items.len()])?;
        let (loss, grads) = value_and_grad(&model, |m| {
            let rnn = DynamicRnn::new(&m.cell).run(&x)?;
            softmax_cross_entropy(&m.logits.forward(&rnn.state)?, &y)
        })?;
        losses.push(loss.item()?);
        adam.step(&mut model, &grads.clip_by_global_norm(1.0)?)?;
    }
    Ok(losses)
}

#[test]
fn training_on_digits_agrees_everywhere() {
    let expected = digits(&device("cpu").unwrap()).unwrap();
    for (name, device) in devices() {
        close(name, &digits(&device).unwrap(), &expected, 1e-4);
    }
}
