//! Hostile arguments: sizes, axes and indices that overflow, do not exist, or would exhaust memory
//! give errors; nothing panics, and no more than [`LIMIT`] is allocated.
//!
//! A binary of its own, because its allocator refuses memory beyond the limit. A refused allocation
//! of the library, except for buffers, aborts the process and so fails the test.

use std::alloc::System;

use backend_api::{DType, Error, Layout, MAX_RANK, Meta, Result, Shape, Tensor};
use backend_cpu::Cpu;
use cap::Cap;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use recurrent_tests::cells::{plain, wrapped};
use rnn_core::{AnyCell, cell_from_config};
use serde_json::Value;

/// The most memory that the tests of this binary use together, in bytes.
const LIMIT: usize = 256 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, LIMIT);

/// The most elements of a tensor that is computed with.
const COUNT: usize = 1 << 14;

type T = Tensor<Cpu>;

/// The integers of a configuration, each replaced in turn.
fn replaced(config: &Value, by: u64) -> Vec<Value> {
    match config {
        Value::Number(number) if number.is_u64() => vec![by.into()],
        Value::Array(items) => (0..items.len())
            .flat_map(|i| {
                replaced(&items[i], by).into_iter().map(move |item| {
                    let mut all = items.clone();
                    all[i] = item;
                    all.into()
                })
            })
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                replaced(value, by).into_iter().map(move |value| {
                    let mut all = fields.clone();
                    all.insert(name.clone(), value);
                    all.into()
                })
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The message of an error, or nothing for a cell. An error of the device means that the cell has
/// requested the memory.
fn refused(result: Result<AnyCell<Cpu>>, what: &Value) -> Option<String> {
    match result {
        Ok(_) => None,
        Err(error @ Error::OutOfMemory { .. }) => panic!("{what}: {error}"),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn sizes_of_configurations_are_checked() {
    let cpu = Cpu::new();
    let mut count = 0;
    for case in plain().into_iter().chain(wrapped()) {
        for size in [0, 1 << 32, 1 << 63, u64::MAX] {
            for config in replaced(&case.config, size) {
                let built = cell_from_config(&cpu, &config, case.depth(), DType::F32);
                let message = refused(built, &config);
                // 0 is valid where it is not a size, and so is a stride that is never applied.
                let valid = size == 0 || config["frequency_skip"] == size || config["seed"] == size;
                assert!(valid || message.is_some(), "{config} is accepted");
                count += 1;
            }
            let depth = size as usize;
            let built = cell_from_config(&cpu, &case.config, depth, DType::F32);
            refused(built, &case.config);
        }
    }
    assert!(count > 400, "only {count} configurations were tested");
}

#[test]
fn large_matrices_of_valid_sizes_are_refused() {
    let cpu = Cpu::new();
    for (config, expected) in [
        (
            serde_json::json!({ "type": "LSTMCell", "num_units": 1 << 20 }),
            "lstm_cell: num_units requires [1048579, 1048576] numbers",
        ),
        (
            serde_json::json!({ "type": "LSTMCell", "num_units": 256, "num_proj": 1 << 23 }),
            "lstm_cell: num_proj requires [8388608, 256] numbers",
        ),
        (
            serde_json::json!({ "type": "ConvLSTMCell", "input_shape": [8, 8, 3],
                "output_channels": 4, "kernel_shape": [1 << 14, 1 << 14] }),
            "conv_lstm_cell: kernel_shape requires [16384, 16384, 7, 4] numbers",
        ),
    ] {
        let built = cell_from_config(&cpu, &config, 3, DType::F32);
        let message = refused(built, &config).unwrap();
        assert!(message.starts_with(expected), "{message}");
    }
}

/// Numbers at the limits of what is valid, and far beyond.
fn number() -> impl Strategy<Value = usize> {
    let most = isize::MAX as usize / 8;
    select(vec![
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        1 << 16,
        (1 << 16) + 1,
        1 << 32,
        most / 3,
        most,
        most + 1,
        ((1u128 << 64) + 2).div_euclid(3) as usize,
        1 << 63,
        usize::MAX - 1,
        usize::MAX,
    ])
}

/// Shapes, mostly small; some have no elements and long axes.
fn shape() -> impl Strategy<Value = Shape> {
    let small = vec(0usize..4, 0..=MAX_RANK);
    let any = vec(number(), 0..=MAX_RANK);
    prop_oneof![3 => small, 1 => any].prop_filter_map("too large", |dims| Shape::new(&dims).ok())
}

fn property<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> std::result::Result<(), String>) {
    let config = ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let result = TestRunner::new_with_rng(config, rng)
        .run(strategy, |value| test(value).map_err(TestCaseError::fail));
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// What every shape guarantees.
fn check_shape(shape: Shape) -> std::result::Result<(), String> {
    match Shape::new(shape.dims()) {
        Ok(same)
            if same == shape && Meta::new(shape, DType::F64).bytes() <= isize::MAX as usize =>
        {
            Ok(())
        }
        _ => Err(format!("{shape} is not valid")),
    }
}

#[test]
fn methods_of_shapes_give_valid_shapes() {
    property(
        &(shape(), shape(), number(), number()),
        |(a, b, axis, len)| {
            let results = [a.with(axis, len), a.without(axis), a.insert(axis, len)];
            for result in results.into_iter().flatten().chain(a.broadcast(&b)) {
                check_shape(result)?;
            }
            let _ = (a.last(), a.rank(), a.count(), a.to_string());
            check_shape(a)
        },
    );
}

#[test]
fn layouts_stay_within_their_origin() {
    let call = (number(), number(), number(), shape());
    property(&(shape(), vec(call, 1..5)), |(shape, calls)| {
        let origin = Layout::contiguous(shape);
        let mut layout = origin;
        for (i, (a, b, c, shape)) in calls.into_iter().enumerate() {
            let turned: Vec<usize> = (0..layout.shape().rank()).rev().collect();
            let results = [
                layout.slice(a, b..c).ok(),
                layout.select(a, b).ok(),
                layout.permute(&[a, b]).ok(),
                layout.permute(&turned).ok(),
                layout.reshape(shape),
                layout.broadcast_to(shape).ok(),
            ];
            for result in results.into_iter().flatten() {
                check_shape(result.shape())?;
                if result.extent() > origin.extent() {
                    return Err(format!("{result:?} exceeds {origin:?}"));
                }
                let _ = (result.is_contiguous(), result.is_whole(a));
            }
            layout = results
                .into_iter()
                .cycle()
                .skip(i)
                .take(6)
                .flatten()
                .next()
                .unwrap_or(layout);
        }
        Ok(())
    });
}

/// Calls every method of a tensor that takes a size, an axis, an index or another tensor, and some
/// of the others.
fn results(x: &T, y: &T, [a, b, c]: [usize; 3], shape: Shape) -> Vec<Result<T>> {
    let many = |parts: Result<Vec<T>>| parts.map(|parts| parts.into_iter().take(2));
    let mut all = vec![
        x.slice(a, b..c),
        x.select(a, b),
        x.permute(&[a, b]),
        x.transpose(a, b),
        x.reshape(shape.dims()),
        x.reshape(&[a, b]),
        x.unsqueeze(a),
        x.add(y),
        x.matmul(y),
        x.matmul_add(y, x),
        x.compare(backend_api::Compare::Lt, y),
        x.select_from(y, y),
        x.sum(a),
        x.max(a),
        x.mean(a),
        x.argmax(a),
        x.softmax(a),
        x.log_softmax(a),
        x.sum_all(),
        x.mean_all(),
        x.gather(y),
        x.scatter_update(y, x),
        x.mask_padding(y, a),
        x.reverse(y, a, b),
        x.one_hot(a, DType::F32),
        x.copy(),
        x.contiguous(),
        x.cast(DType::I32),
        x.cast(DType::F16),
        x.tanh(),
        T::concat(&[x, y], a),
        T::concat(&[], a),
        T::stack(&[x, y], a),
        T::from_parts(
            x.device(),
            x.buffer().unwrap().clone(),
            *y.layout(),
            y.dtype(),
        ),
        T::from_parts(
            x.device(),
            x.buffer().unwrap().clone(),
            Layout::contiguous(shape),
            x.dtype(),
        ),
        T::from_slice(x.device(), &[1.0f32; 6], &[a, b]),
        T::from_bytes(x.device(), &[0; 24], Meta::new(shape, x.dtype())),
        T::zeros(x.device(), Meta::new(shape, x.dtype())),
        x.stretch(shape),
    ];
    for parts in [many(x.split_last(a)), many(x.unstack(a))] {
        match parts {
            Ok(parts) => all.extend(parts.map(Ok)),
            Err(error) => all.push(Err(error)),
        }
    }
    all
}

#[test]
fn methods_of_tensors_do_not_panic() {
    let cpu = Cpu::builder().threads(1).build().unwrap();
    let types = || select(vec![DType::F32, DType::F64, DType::I32, DType::Bool]);
    let call = ([number(), number(), number()], shape(), any::<usize>());
    let start = ((shape(), types()), (shape(), types()));
    property(&(start, vec(call, 1..4)), |((x, y), calls)| {
        let make = |(shape, dtype): (Shape, DType)| match shape.count() {
            0..=COUNT => T::zeros(&cpu, Meta::new(shape, dtype)).unwrap(),
            _ => T::scalar(&cpu, 1.0, dtype).unwrap(),
        };
        let (mut x, y) = (make(x), make(y));
        for (numbers, shape, next) in calls {
            let results = results(&x, &y, numbers, shape);
            for tensor in results.iter().flatten() {
                check_shape(tensor.shape())?;
                if tensor.shape().count() <= COUNT {
                    tensor.to_bytes().map_err(|error| error.to_string())?;
                }
                let _ = (tensor.item(), tensor.to_vec::<f32>());
            }
            let valid = results.into_iter().flatten();
            let valid: Vec<_> = valid.filter(|t| t.shape().count() <= COUNT).collect();
            if let Some(tensor) = valid.get(next % valid.len().max(1)) {
                x = tensor.clone();
            }
        }
        Ok(())
    });
}
