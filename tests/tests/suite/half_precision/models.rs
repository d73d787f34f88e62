//! Models in 16-bit floats: every cell, whole sequences, mixed-precision training, files.

use backend_api::{Activation, Backend, DType, Result, Tensor};
use recurrent_tests::devices::{TestDevice, device};
use recurrent_tests::halves::{HALVES, on_devices};
use rnn_core::{
    AnyCell, BasicLstmCell, BasicRnnCell, Cell, Dense, DropoutWrapper, DynamicRnn, GruCell,
    Initializer, LstmCell, Module, MultiRnnCell, Nest, cell_from_config,
};
use rnn_train::checkpoint::{load_params, save_params};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::{Adam, LossScale, Optimizer};
use rnn_train::value_and_grad;
use serde_json::{Value, json};

type T = Tensor<TestDevice>;

fn normal(device: &TestDevice, key: u64, dims: &[usize], dtype: DType) -> T {
    let meta = backend_api::Meta::new(backend_api::Shape::new(dims).unwrap(), dtype);
    let normal = Initializer::Normal {
        mean: 0.0,
        std: 0.5,
    };
    normal.tensor(device, key, meta).unwrap()
}

/// The largest absolute difference of two tensors.
fn distance(a: &T, b: &T) -> f64 {
    let (a, b) = (a.to_f64_vec().unwrap(), b.to_f64_vec().unwrap());
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, d| if d <= most { most } else { d })
}

/// Tolerance of sequences relative to `f32`: a few units of the last label.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F16 { 0.004 } else { 0.03 }
}

/// Runs a cell with ragged lengths in `f32` and in 16 bits, once converted and once built in 16
/// bits, and compares.
fn compare<C>(name: &str, device: &TestDevice, cell: C, built: impl Fn(DType) -> C)
where
    C: Cell<Backend = TestDevice, Input = T, Output = T>,
{
    let mut cell = cell;
    cell.initialize(3).unwrap();
    let x = normal(device, 5, &[3, 7, 4], DType::F32);
    let run = |cell: &C, x: &T| DynamicRnn::new(cell).sequence_length(&[7, 2, 5]).run(x);
    let expected = run(&cell, &x).unwrap();
    for dtype in HALVES {
        let label = format!("{name} {dtype} {}", cell.scope());
        let converted = cell.to_dtype(dtype).unwrap();
        let found = run(&converted, &x.cast(dtype).unwrap()).unwrap();
        assert_eq!(found.outputs.dtype(), dtype);
        let far = distance(&found.outputs, &expected.outputs);
        assert!(far > 0.0 && far < tolerance(dtype), "{label}: {far}");
        for (found, expected) in found.state.leaves().iter().zip(expected.state.leaves()) {
            let far = distance(found, expected);
            assert!(far < 2.0 * tolerance(dtype), "{label}: {far} in the state");
        }
        let mut other = built(dtype);
        other.initialize(3).unwrap();
        let again = run(&other, &x.cast(dtype).unwrap()).unwrap();
        assert_eq!(distance(&again.outputs, &found.outputs), 0.0, "{label}");
        let error = run(&converted, &x).err().unwrap().to_string();
        assert!(error.contains(&format!("the kernel is {dtype}")), "{error}");
    }
}

#[test]
fn sequences_are_close_to_f32() {
    on_devices(|name, device| {
        macro_rules! check {
            ($builder:expr) => {
                let built = |dtype| $builder.dtype(dtype).build(device).unwrap();
                compare(name, device, built(DType::F32), built);
            };
        }
        check!(BasicRnnCell::<TestDevice>::builder(4, 6));
        check!(BasicLstmCell::<TestDevice>::builder(4, 6));
        check!(LstmCell::<TestDevice>::builder(4, 6).use_peepholes(true));
        check!(GruCell::<TestDevice>::builder(4, 6));
        check!(GruCell::<TestDevice>::builder(4, 6).reset_after(true));
    });
}

/// Every cell and wrapper that has a name, with the shape of its input.
fn every_cell() -> Vec<(Value, Vec<usize>)> {
    let plain = [
        "BasicRNNCell",
        "BasicLSTMCell",
        "LSTMCell",
        "GRUCell",
        "CoupledInputForgetGateLSTMCell",
        "LayerNormBasicLSTMCell",
        "LayerNormLSTMCell",
        "WeightNormLSTMCell",
        "NASCell",
        "UGRNNCell",
        "SRUCell",
        "IndRNNCell",
        "IndyGRUCell",
        "IndyLSTMCell",
        "LSTMBlockCell",
        "GRUBlockCell",
        "CudnnCompatibleLSTMCell",
        "CudnnCompatibleGRUCell",
    ];
    let mut all: Vec<_> = plain
        .iter()
        .map(|class| (json!({ "type": class, "num_units": 4 }), vec![4]))
        .collect();
    let frequency = json!({ "num_units": 2, "feature_size": 3, "frequency_skip": 2 });
    for class in [
        "TimeFreqLSTMCell",
        "GridLSTMCell",
        "BidirectionalGridLSTMCell",
    ] {
        let mut cell = frequency.clone();
        cell["type"] = json!(class);
        if class != "TimeFreqLSTMCell" {
            cell["num_frequency_blocks"] = json!([3]);
        }
        all.push((cell, vec![7]));
    }
    let gru = json!({ "type": "GRUCell", "num_units": 4 });
    for cell in [
        json!({ "type": "CFNCell", "units": 4 }),
        json!({ "type": "MinimalRNNCell", "units": 4 }),
        json!({ "type": "IntersectionRNNCell", "num_units": 4 }),
        json!({ "type": "GLSTMCell", "num_units": 4, "number_of_groups": 2 }),
        json!({ "type": "LSTMCell", "num_units": 4, "num_proj": 3 }),
        json!({ "type": "LayerNormLSTMCell", "num_units": 4, "layer_norm": true }),
        json!({ "type": "AttentionCellWrapper", "cell": gru, "attn_length": 3 }),
        json!({ "type": "HighwayWrapper", "cell": gru }),
        json!({ "type": "ResidualWrapper", "cell": gru }),
        json!({ "type": "InputProjectionWrapper", "cell": gru, "num_proj": 3 }),
        json!({ "type": "OutputProjectionWrapper", "cell": gru, "output_size": 3 }),
        json!({ "type": "MultiRNNCell", "cells": [gru, gru] }),
    ] {
        all.push((cell, vec![4]));
    }
    let conv = json!({
        "type": "Conv2DLSTMCell", "input_shape": [3, 2, 1], "output_channels": 2,
        "kernel_shape": [2, 3],
    });
    all.push((conv, vec![3, 2, 1]));
    all
}

#[test]
fn every_cell_can_be_converted_and_trained() {
    let device = device("cpu").unwrap();
    for (config, depth) in every_cell() {
        let build = |dtype| cell_from_config(&device, &config, depth[depth.len() - 1], dtype);
        let mut cell: AnyCell<TestDevice> =
            build(DType::F32).unwrap_or_else(|e| panic!("{config}: {e}"));
        cell.initialize(3).unwrap();
        let x = normal(&device, 5, &[&[2, 3], &depth[..]].concat(), DType::F32);
        let run = |cell: &AnyCell<TestDevice>, dtype| -> Result<T> {
            Ok(DynamicRnn::new(cell).run(&x.cast(dtype)?)?.outputs)
        };
        let loss = |cell: &AnyCell<TestDevice>, dtype| {
            let cell = cell.to_dtype(dtype)?;
            run(&cell, dtype)?.cast(DType::F32)?.square()?.mean_all()
        };
        let expected = run(&cell, DType::F32).unwrap();
        let (_, exact) = value_and_grad(&cell, |cell| loss(cell, DType::F32)).unwrap();
        for dtype in HALVES {
            let converted = cell.to_dtype(dtype).unwrap();
            for (name, param) in converted.named_params() {
                assert_eq!(param.dtype(), dtype, "{config} {name}");
            }
            let zero = converted.zero_state(2).unwrap();
            assert!(zero.leaves().iter().all(|t| t.dtype() == dtype), "{config}");
            let found = run(&converted, dtype).unwrap_or_else(|e| panic!("{config}: {e}"));
            assert_eq!(found.dtype(), dtype, "{config}");
            let far = distance(&found, &expected);
            assert!(far < 4.0 * tolerance(dtype), "{config} {dtype}: {far}");
            // Gradients of the `f32` parameters, through the cast.
            let (_, grads) = value_and_grad(&cell, |cell| loss(cell, dtype)).unwrap();
            for ((name, grad), (_, exact)) in grads.iter().zip(exact.iter()) {
                // A bias can be unused with layer normalization.
                assert_eq!(grad.is_some(), exact.is_some(), "{config} {name}");
                let (Some(grad), Some(exact)) = (grad, exact) else {
                    continue;
                };
                assert_eq!(grad.meta().dtype, DType::F32, "{config} {name}");
                let (grad, exact) = (grad.to_dense().unwrap(), exact.to_dense().unwrap());
                let size = exact.square().unwrap().sum_all().unwrap().item().unwrap();
                let far = distance(&grad, &exact);
                let bound = 8.0 * tolerance(dtype) * (size.sqrt() + 0.01);
                assert!(
                    far <= bound,
                    "{config} {dtype} {name}: {far} of {}",
                    size.sqrt()
                );
            }
        }
    }
}

#[test]
fn dropout_keeps_the_expected_fraction() {
    on_devices(|name, device| {
        let cell = GruCell::new(device, 4, 512).unwrap();
        let run = |dtype| {
            let mut cell = cell.clone();
            cell.initialize(1).unwrap();
            let cell = DropoutWrapper::builder(cell)
                .output_keep_prob(0.9)
                .build()
                .unwrap();
            let x = normal(device, 5, &[2, 3, 4], dtype);
            let cell = cell.to_dtype(dtype).unwrap();
            let outputs = DynamicRnn::new(&cell).training(1).run(&x).unwrap();
            outputs.outputs.to_f64_vec().unwrap()
        };
        let exact = run(DType::F32);
        for dtype in HALVES {
            for (a, b) in run(dtype).iter().zip(&exact) {
                assert_eq!(*a == 0.0, *b == 0.0, "{name} {dtype}: {a}, {b}");
            }
        }
    });
}

/// A task: which half of a sequence is larger.
fn task(device: &TestDevice) -> (T, T) {
    const STEPS: usize = 6;
    let x: Vec<f32> = (0..24 * STEPS)
        .map(|i| ((i * i * 7 + i * 31) % 23) as f32 / 11.5 - 1.0)
        .collect();
    let labels: Vec<i32> = x
        .chunks_exact(STEPS)
        .map(|x| i32::from(x[..3].iter().sum::<f32>() > x[3..].iter().sum()))
        .collect();
    let x = Tensor::from_slice(device, &x, &[24, STEPS, 1]).unwrap();
    (x, Tensor::from_slice(device, &labels, &[24]).unwrap())
}

type Model = (MultiRnnCell<Vec<LstmCell<TestDevice>>>, Dense<TestDevice>);

/// The losses before and after training, and the number of skipped steps.
fn train(device: &TestDevice, dtype: DType) -> (f64, f64, usize) {
    let (x, labels) = task(device);
    let cells = vec![
        LstmCell::new(device, 1, 8).unwrap(),
        LstmCell::new(device, 8, 8).unwrap(),
    ];
    let dense = Dense::with(device, 8, 2, Activation::Identity, DType::F32).unwrap();
    let mut model: Model = (MultiRnnCell::new(cells).unwrap(), dense);
    model.initialize(4).unwrap();
    let mut adam = Adam::new(0.03);
    // So large that the first gradients overflow `f16`.
    let mut scale = LossScale::new()
        .with_factor(1e9f64.log2().floor().exp2())
        .unwrap();
    let loss = |model: &Model| {
        let (cell, dense) = model.to_dtype(dtype)?;
        let h = &DynamicRnn::new(&cell).run(&x.cast(dtype)?)?.state[1].h;
        softmax_cross_entropy(&dense.forward(h)?.cast(DType::F32)?, &labels)
    };
    let first = loss(&model).unwrap().item().unwrap();
    let mut left_out = 0;
    for _ in 0..60 {
        let (_, grads) = value_and_grad(&model, |m| scale.apply(&loss(m)?)).unwrap();
        match scale.unscale(&grads).unwrap() {
            Some(grads) => adam.step(&mut model, &grads).unwrap(),
            None => left_out += 1,
        }
    }
    for (name, param) in model.named_params() {
        assert_eq!(param.dtype(), DType::F32, "{name}");
    }
    (first, loss(&model).unwrap().item().unwrap(), left_out)
}

#[test]
fn mixed_precision_trains_as_well_as_f32() {
    on_devices(|name, device| {
        let (first, exact, left_out) = train(device, DType::F32);
        assert!(
            exact < 0.5 * first && left_out == 0,
            "{name}: {first} to {exact}"
        );
        for dtype in HALVES {
            let (_, last, left_out) = train(device, dtype);
            let label = format!("{name} {dtype}: {last}, not {exact}, {left_out} left out");
            assert!((last - exact).abs() < 0.1 * first, "{label}");
            assert_eq!(left_out > 0, dtype == DType::F16, "{label}");
        }
    });
}

#[test]
fn saved_files_keep_every_bit() {
    let folder = tempfile::tempdir().unwrap();
    on_devices(|name, device| {
        for dtype in HALVES {
            let path = folder.path().join(format!("{name}-{dtype}.safetensors"));
            let mut saved = GruCell::new(device, 3, 5).unwrap().to_dtype(dtype).unwrap();
            saved.initialize(8).unwrap();
            save_params(&path, &saved).unwrap();
            let mut loaded = GruCell::<TestDevice>::builder(3, 5)
                .dtype(dtype)
                .build(device)
                .unwrap();
            load_params(&path, &mut loaded).unwrap();
            for ((name, a), (_, b)) in saved.named_params().iter().zip(loaded.named_params()) {
                assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap(), "{name}");
            }
            let mut single = GruCell::new(device, 3, 5).unwrap();
            let error = load_params(&path, &mut single).unwrap_err().to_string();
            assert!(error.contains(&format!("is {dtype} [")), "{error}");

            let bytes = std::fs::read(&path).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let tensor = file.tensor("gates/kernel").unwrap();
            let stored = format!("{:?}", tensor.dtype());
            assert_eq!(stored.to_lowercase(), dtype.name());
        }
    });
}

#[test]
fn a_model_must_have_a_float_type() {
    let device = device("cpu").unwrap();
    let error = Dense::new(&device, 2, 3).unwrap().to_dtype(DType::I32);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("a model needs a float type")
    );
    assert_eq!(device.name(), "cpu");
}

/// Limits that 16-bit floats round down: a clipped value is then below the limit.
#[test]
fn clipped_values_have_no_gradient() {
    on_devices(|name, device| {
        for (dtype, limit) in [(DType::F16, 0.9), (DType::Bf16, 0.7)] {
            let rounded = Tensor::from_slice(device, &[limit], &[1]).unwrap();
            let rounded = rounded.cast(dtype).unwrap().to_f64_vec().unwrap()[0];
            assert!(rounded < limit, "{rounded}");
            let builder = LstmCell::<TestDevice>::builder(3, 4).num_proj(2);
            let mut cell = builder.proj_clip(limit).dtype(dtype).build(device).unwrap();
            // A projection that takes every output past the limit.
            cell.each_param(&mut |_, param| {
                param.set(Tensor::full(param.device(), 2.0, param.meta())?)
            })
            .unwrap();
            let x = Tensor::from_slice(device, &[1.0; 2 * 5 * 3], &[2, 5, 3]).unwrap();
            let x = x.cast(dtype).unwrap();
            let (loss, grads) = value_and_grad(&cell, |cell| {
                DynamicRnn::new(cell).run(&x)?.outputs.sum_all()
            })
            .unwrap();
            assert!((loss.item().unwrap() - 20.0 * limit).abs() < 0.2, "{name}");
            for (param, grad) in grads.iter() {
                let grad = grad.unwrap().to_dense().unwrap().to_f64_vec().unwrap();
                let label = format!("{name} {dtype} {param}: {grad:?}");
                assert!(grad.iter().all(|&g| g == 0.0), "{label}");
            }
        }
    });
}

#[test]
fn small_weights_are_normalized() {
    on_devices(|name, device| {
        let config = json!({ "type": "WeightNormLSTMCell", "num_units": 4 });
        let x = normal(device, 5, &[2, 3, 4], DType::F16);
        let mut cell = cell_from_config(device, &config, 4, DType::F16).unwrap();
        cell.each_param(&mut |_, param| {
            let small = normal(device, 3, &param.dims(), DType::F16).affine(1e-4, 0.0)?;
            param.set(small)
        })
        .unwrap();
        let outputs = DynamicRnn::new(&cell).run(&x).unwrap().outputs;
        let outputs = outputs.to_f64_vec().unwrap();
        assert!(outputs.iter().all(|x| x.is_finite()), "{name}: {outputs:?}");
    });
}
