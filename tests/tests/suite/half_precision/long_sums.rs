//! Long sums, large and small numbers: what 16-bit floats compute is what `f32` computes from the
//! same numbers, rounded.

use backend_api::{DType, Meta, Result, Shape, Tensor};
use recurrent_tests::cells::plain;
use recurrent_tests::devices::{TestDevice, device};
use recurrent_tests::halves::HALVES;
use rnn_core::{AnyCell, DynamicRnn, Initializer, Mode, Module, Param, cell_from_config};
use rnn_train::losses::{
    Reduction, SequenceLoss, legacy_sequence_loss, mean_squared_error, softmax_cross_entropy,
};
use rnn_train::optim::{Adagrad, Adam, Momentum, Optimizer, RmsProp, Sgd};
use rnn_train::value_and_grad;
use serde_json::{Value, json};

type T = Tensor<TestDevice>;

fn cpu() -> TestDevice {
    device("cpu").unwrap()
}

fn uniform(device: &TestDevice, key: u64, dims: &[usize], low: f64, high: f64) -> T {
    let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
    let uniform = Initializer::Uniform { low, high };
    uniform.tensor(device, key, meta).unwrap()
}

/// The numbers as rounded to a type, in `f32`.
fn as_rounded(t: &T, dtype: DType) -> Result<T> {
    t.cast(dtype)?.cast(DType::F32)
}

/// Fails unless each number is that of `f32` within some roundings, relative to the largest one.
fn assert_near(label: &str, dtype: DType, found: &T, expected: &T, roundings: f64) {
    let found = found.to_f64_vec().unwrap();
    // A number that is too large for the type is infinite.
    let expected = expected.cast(dtype).unwrap().to_f64_vec().unwrap();
    assert_eq!(found.len(), expected.len(), "{label}");
    let finite = expected.iter().copied().filter(|x| x.is_finite());
    let size = finite.map(f64::abs).fold(0.0, f64::max);
    let (digits, smallest) = match dtype {
        DType::F16 => (11, 2f64.powi(-24)),
        _ => (8, 0.0),
    };
    let bound = roundings * (size * 2f64.powi(-digits) + smallest);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let near = (found - expected).abs() <= bound || found == expected;
        assert!(near, "{label} {dtype} [{i}]: {found}, not {expected}");
    }
}

/// Outputs, state and gradients of a cell over many steps. The loss is the mean of the outputs, so
/// that the gradient of the state is a sum over time too.
fn run(cell: &AnyCell<TestDevice>, x: &T, size: f64) -> Result<Vec<(String, T)>> {
    let mut all = Vec::new();
    let (_, grads) = value_and_grad(cell, |cell| {
        let result = DynamicRnn::new(cell).mode(Mode::Evaluation).run(x)?;
        all.push(("the outputs".to_owned(), result.outputs.detach()));
        for (i, leaf) in rnn_core::Nest::leaves(&result.state)
            .into_iter()
            .enumerate()
        {
            all.push((format!("state {i}"), leaf.detach()));
        }
        let outputs = result.outputs.cast(DType::F32)?;
        outputs.sum_all()?.affine(size, 0.0)
    })?;
    for (name, grad) in grads.iter() {
        if let Some(grad) = grad {
            all.push((format!("the gradient of {name}"), grad.to_dense()?));
        }
    }
    Ok(all)
}

fn compare_cell(config: &Value, input: &[usize], steps: usize, size: f64) {
    let device = cpu();
    let depth = input[input.len() - 1];
    // Positive inputs, of which sums grow.
    let x = uniform(&device, 5, &[&[1, steps], input].concat(), 0.1, 0.3);
    for dtype in HALVES {
        let build = |dtype| cell_from_config(&device, config, depth, dtype).unwrap();
        let mut narrow = build(dtype);
        narrow.initialize(3).unwrap();
        let mut exact = build(DType::F32);
        let values = narrow.named_params();
        exact
            .each_param(&mut |name, param| {
                let value = values.iter().find(|(n, _)| n == name).unwrap();
                param.set(value.1.cast(DType::F32)?)
            })
            .unwrap();
        let expected = run(&exact, &as_rounded(&x, dtype).unwrap(), size).unwrap();
        let found = run(&narrow, &x.cast(dtype).unwrap(), size).unwrap();
        assert_eq!(found.len(), expected.len(), "{config}");
        for ((what, found), (_, expected)) in found.iter().zip(&expected) {
            let label = format!("{config} over {steps} steps, {size}: {what}");
            assert_eq!(found.dtype(), dtype, "{label}");
            // Outputs that are saved for the gradient are rounded.
            assert_near(&label, dtype, found, expected, 6.0);
        }
    }
}

#[test]
fn cells_over_many_steps() {
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || {
                for subject in plain().into_iter().skip(part).step_by(2) {
                    // Dropout draws the same noise in any type, but a small scale suffices.
                    compare_cell(&subject.config, &subject.input, 300, 1.0);
                }
            });
        }
    });
}

#[test]
fn cells_over_thousands_of_steps() {
    let cells = [
        json!({ "type": "IndRNNCell", "num_units": 2 }),
        json!({ "type": "SRUCell", "num_units": 2 }),
        json!({ "type": "BasicRNNCell", "num_units": 2 }),
    ];
    std::thread::scope(|scope| {
        for config in &cells {
            scope.spawn(move || {
                for size in [1.0, 1.0 / 4096.0] {
                    compare_cell(config, &[2], 6400, size);
                }
            });
        }
    });
}

/// The example of a sum that stands still: each step adds -1/50 to the gradient of the kernel.
#[test]
fn the_gradient_of_a_kernel_does_not_stand_still() {
    let device = cpu();
    for dtype in HALVES {
        let kernel = Param::new(&device, Initializer::ONES, &[1, 1], dtype).unwrap();
        let kernel = rnn_train::Differentiable::leaf(&device, kernel.value()).unwrap();
        let x = T::full(
            &device,
            -0.02,
            Meta::new(Shape::new(&[1, 1]).unwrap(), dtype),
        )
        .unwrap();
        let mut total = T::scalar(&device, 0.0, DType::F32).unwrap();
        for _ in 0..6400 {
            let y = x.matmul(&kernel).unwrap().cast(DType::F32).unwrap();
            total = total.add(y.sum_all().unwrap()).unwrap();
        }
        let grads = rnn_train::Differentiable::backward(&device, &total, &[&kernel]).unwrap();
        let found = grads[0].as_ref().unwrap().item().unwrap();
        assert!((found + 128.0).abs() < 1.0, "{dtype}: {found}");
    }
}

/// The same loss and gradients in 16 bits and in `f32`.
fn compare_loss(label: &str, inputs: &[&T], loss: impl Fn(&[T]) -> Result<T>) {
    let device = inputs[0].device();
    for dtype in HALVES {
        let run = |inputs: Vec<T>| -> Result<(T, Vec<T>)> {
            let leaf = |t: &T| rnn_train::Differentiable::leaf(device, t);
            let leaves: Vec<T> = inputs.iter().map(leaf).collect::<Result<_>>()?;
            let value = loss(&leaves)?;
            let wanted: Vec<&T> = leaves.iter().collect();
            let grads = rnn_train::Differentiable::backward(device, &value.sum_all()?, &wanted)?;
            Ok((value.detach(), grads.into_iter().flatten().collect()))
        };
        let narrow = inputs.iter().map(|t| t.cast(dtype)).collect::<Result<_>>();
        let wide = inputs.iter().map(|t| as_rounded(t, dtype));
        let (found, grads) = run(narrow.unwrap()).unwrap();
        let (expected, exact) = run(wide.collect::<Result<_>>().unwrap()).unwrap();
        assert_eq!(found.dtype(), DType::F32, "{label}");
        let (a, b) = (found.to_f64_vec().unwrap(), expected.to_f64_vec().unwrap());
        for (a, b) in a.into_iter().zip(b) {
            let near = b.is_finite() && (a - b).abs() <= 1e-6 * (1.0 + b.abs());
            assert!(near, "{label} {dtype}: {a}, not {b}");
        }
        assert_eq!(grads.len(), exact.len(), "{label}");
        for (grad, exact) in grads.iter().zip(&exact) {
            assert_eq!(grad.dtype(), dtype, "{label}");
            assert_near(&format!("gradient of {label}"), dtype, grad, exact, 1.0);
        }
    }
}

#[test]
fn losses_over_many_labels() {
    let device = cpu();
    let (batch, steps, classes) = (64, 256, 3);
    let labels: Vec<i32> = (0..batch * steps).map(|i| (i % classes) as i32).collect();
    let targets = T::from_slice(&device, &labels, &[batch, steps]).unwrap();
    for size in [1e-3, 8.0, 3e4] {
        let logits = uniform(&device, 1, &[batch, steps, classes], -size, size);
        let weights = uniform(&device, 2, &[batch, steps], 0.0, 2.0);
        let none = weights.affine(0.0, 0.0).unwrap();
        let some = weights.affine(1.0, -1.0).unwrap().relu().unwrap();
        for weights in [&weights, &some, &none] {
            for timesteps in [Reduction::None, Reduction::Average, Reduction::Sum] {
                for reduction in [Reduction::None, Reduction::Average, Reduction::Sum] {
                    let batch = reduction;
                    let loss = SequenceLoss { timesteps, batch };
                    let label = format!("{loss:?} of {size}");
                    compare_loss(&label, &[&logits, weights], |t| {
                        loss.of(&t[0], &targets, &t[1])
                    });
                }
            }
            compare_loss("legacy", &[&logits, weights], |t| {
                let parts = |t: &T| t.unstack(1);
                let [logits, weights] = [parts(&t[0])?, parts(&t[1])?];
                legacy_sequence_loss(&logits, &targets.unstack(1)?, &weights, true, true)
            });
        }
        compare_loss("cross entropy", &[&logits], |t| {
            softmax_cross_entropy(&t[0], &targets)
        });
    }
    for size in [1e-3, 1.0, 300.0] {
        let prediction = uniform(&device, 3, &[6400], 0.9 * size, size);
        let target = prediction.affine(-0.1, 0.0).unwrap();
        for count in [1, 6400] {
            let [a, b] = [&prediction, &target].map(|t| t.slice(0, 0..count).unwrap());
            compare_loss(&format!("{count} squares of {size}"), &[&a, &b], |t| {
                mean_squared_error(&t[0], &t[1])
            });
        }
    }
}

/// A vector of parameters.
#[derive(Clone, Debug)]
struct Vector {
    vector: Param<TestDevice>,
}

rnn_core::module!(Vector on TestDevice { vector });

/// Slots and values after many gradients, whose size changes by orders of magnitude.
fn compare_optimizer<O: Optimizer<TestDevice>>(label: &str, size: f64, make: impl Fn() -> O) {
    let device = cpu();
    for dtype in HALVES {
        let run = |cast: &dyn Fn(&T) -> Result<T>| -> Result<(T, Vec<T>)> {
            let first = cast(&T::from_slice(&device, &[1.0f32, -2.0, 0.5], &[3])?)?;
            let mut vector = Param::new(&device, Initializer::ZEROS, &[3], first.dtype())?;
            vector.set(first)?;
            let mut model = Vector { vector };
            let mut rule = make();
            let mut last = model.vector.value().clone();
            for step in 0..400 {
                // The gradients do not depend on the values, which are rounded at each step.
                let size = if step < 4 { size } else { size / 256.0 };
                let gradient = uniform(&device, step, &[3], 0.5 * size, size);
                let gradient = cast(&gradient)?;
                let loss = |m: &Vector| m.vector.mul(&gradient)?.sum_all();
                let (_, grads) = value_and_grad(&model, loss)?;
                last = model.vector.value().clone();
                rule.step(&mut model, &grads)?;
            }
            let state = rule.state().get(model.vector.id()).unwrap_or_default();
            let step = model
                .vector
                .cast(DType::F32)?
                .sub(&last.cast(DType::F32)?)?;
            assert!(step.to_f64_vec()?.iter().all(|x| x.is_finite()), "{label}");
            Ok((model.vector.value().clone(), state.to_vec()))
        };
        let (value, found) = run(&|t| t.cast(dtype)).unwrap();
        let (_, expected) = run(&|t| as_rounded(t, dtype)).unwrap();
        assert_eq!(value.dtype(), dtype);
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // The same operations in the same type.
            let same = found.to_bytes().unwrap() == expected.to_bytes().unwrap();
            let label = format!("{label} {dtype} {size}: slot {i} {found:?}");
            assert!(found.dtype() == DType::F32 && same, "{label}");
        }
    }
}

#[test]
fn optimizers_over_many_steps() {
    for size in [300.0, 1.0, 1e-3] {
        compare_optimizer("sgd", size, || Sgd::new(1e-4));
        compare_optimizer("momentum", size, || Momentum::new(1e-4, 0.9));
        compare_optimizer("rms_prop", size, || RmsProp::new(1e-4));
        compare_optimizer("centred", size, || {
            RmsProp::new(1e-4).centered(true).momentum(0.9)
        });
        compare_optimizer("adagrad", size, || Adagrad::new(1e-4));
        compare_optimizer("adam", size, || Adam::new(1e-4));
    }
    // One step rounds the value that `f32` computes.
    let device = cpu();
    for dtype in HALVES {
        let value = |dtype| {
            let mut vector = Param::new(&device, Initializer::ONES, &[1], dtype).unwrap();
            vector
                .set(T::full(&device, 1.0, vector.meta()).unwrap())
                .unwrap();
            let mut model = Vector { vector };
            let mut rule = RmsProp::new(0.1);
            for _ in 0..2 {
                let loss = |m: &Vector| m.vector.affine(300.0, 0.0)?.sum_all();
                let (_, grads) = value_and_grad(&model, loss).unwrap();
                rule.step(&mut model, &grads).unwrap();
            }
            model.vector.value().clone()
        };
        assert_near("a value", dtype, &value(dtype), &value(DType::F32), 2.0);
        let moved = value(dtype).item().unwrap();
        assert!(moved < 0.6, "{dtype}: {moved}");
    }
}
