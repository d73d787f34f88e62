//! Single operations and drivers on one CPU thread: `cargo bench --package xtask -- [FILTER]`.
//!
//! `cargo xtask bench` measures whole workloads and compares them with other frameworks.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Duration;

use backend_api::{
    Activation, Compare, DType, Distribution, Fused, LstmGates, Meta, Op, Result, Shape, Tensor,
};
use backend_cpu::Cpu;
use criterion::{Criterion, Throughput};
use rnn_core::{
    BidirectionalDynamicRnn, Cell, DynamicRnn, LstmCell, Module, RawRnnStep, StaticRnn,
    StepContext, StreamingRnn, cell_from_config, raw_rnn,
};
use serde_json::json;

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let device = Cpu::builder().threads(1).build()?;
    products(&mut criterion, &device)?;
    gates(&mut criterion, &device)?;
    drivers(&mut criterion, &device)?;
    tracing(&mut criterion, &device)?;
    criterion.final_summary();
    Ok(())
}

fn normal(device: &Cpu, dims: &[usize]) -> Result<Tensor<Cpu>> {
    let distribution = Distribution::Normal {
        mean: 0.0,
        std: 1.0,
    };
    let meta = Meta::new(Shape::new(dims)?, DType::F32);
    Tensor::random(device, 1, distribution, meta)
}

/// The matmuls of the workloads, by `m, k, n`. GFLOP/s are printed as elements.
fn products(criterion: &mut Criterion, device: &Cpu) -> Result<()> {
    let mut group = criterion.benchmark_group("matmul");
    for (what, [m, k, n], transposed) in [
        ("a sequence's inputs, 512 units", [6400, 512, 2048], false),
        ("a step, 512 units", [64, 512, 2048], false),
        ("a step, 650 units", [20, 650, 2600], false),
        ("a step, 150 units", [150, 150, 150], false),
        ("one row, 512 units", [1, 512, 2048], false),
        ("a kernel's gradient, 650 units", [650, 700, 2600], true),
    ] {
        let a = match transposed {
            true => normal(device, &[k, m])?.transpose(0, 1)?,
            false => normal(device, &[m, k])?,
        };
        let b = normal(device, &[k, n])?;
        a.matmul(&b)?;
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
        group.bench_function(format!("{m}x{k}x{n} ({what})"), |bencher| {
            bencher.iter(|| black_box(&a).matmul(&b));
        });
    }
    group.finish();
    Ok(())
}

/// The kernels between matmuls, for 64 rows of 512 hidden units.
fn gates(criterion: &mut Criterion, device: &Cpu) -> Result<()> {
    const ROWS: usize = 64;
    const UNITS: usize = 512;
    let activation = Activation::Tanh;
    let lstm = LstmGates {
        recurrent_activation: Activation::Sigmoid,
        forget_bias: 1.0,
        activation,
    };
    let mut group = criterion.benchmark_group("gates");
    // Each with the widths of its operands, in hidden units.
    let kernels: [(&str, Fused, &[usize]); 6] = [
        ("LstmStep", Fused::LstmStep(lstm), &[4, 1]),
        ("LstmStepGrad", Fused::LstmStepGrad(lstm), &[4, 1, 1, 1, 1]),
        (
            "GruGates",
            Fused::GruGates {
                activation: Activation::Sigmoid,
            },
            &[2, 1],
        ),
        (
            "GruGatesGrad",
            Fused::GruGatesGrad {
                activation: Activation::Sigmoid,
            },
            &[1; 5],
        ),
        ("GruOutput", Fused::GruOutput { activation }, &[1; 3]),
        (
            "GruOutputGrad",
            Fused::GruOutputGrad { activation },
            &[1; 4],
        ),
    ];
    for (name, kernel, widths) in kernels {
        let operands = widths
            .iter()
            .map(|width| normal(device, &[ROWS, width * UNITS]))
            .collect::<Result<Vec<_>>>()?;
        let operands: Vec<&Tensor<Cpu>> = operands.iter().collect();
        let op = Op::Fused(kernel);
        Tensor::call_all(device, &op, &operands)?;
        group.throughput(Throughput::Elements((ROWS * UNITS) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| Tensor::call_all(device, black_box(&op), &operands));
        });
    }
    group.finish();
    Ok(())
}

/// The forward pass of an LSTM under each driver, with as many inputs as hidden units. Steps times
/// rows are printed as elements.
fn drivers(criterion: &mut Criterion, device: &Cpu) -> Result<()> {
    for (size, [steps, batch, units]) in [("small", [20, 4, 32]), ("middle", [50, 32, 128])] {
        let mut cells = (
            LstmCell::new(device, units, units)?,
            LstmCell::new(device, units, units)?,
        );
        cells.initialize(1)?;
        let (cell, backward) = &cells;
        let inputs = normal(device, &[steps, batch, units])?;
        let parts = (0..steps)
            .map(|t| inputs.select(0, t)?.contiguous())
            .collect::<Result<Vec<_>>>()?;

        let mut group = criterion.benchmark_group(format!("drivers, {size}"));
        group.throughput(Throughput::Elements((steps * batch) as u64));
        let mut bench = |name: &str, run: &dyn Fn() -> Result<Tensor<Cpu>>| -> Result<()> {
            run()?;
            group.bench_function(name, |bencher| bencher.iter(run));
            Ok(())
        };
        bench("dynamic_rnn", &|| {
            let rnn = DynamicRnn::new(cell).time_major(true).run(&inputs)?;
            Ok(rnn.outputs)
        })?;
        bench("static_rnn", &|| {
            Ok(StaticRnn::new(cell).run(&parts)?.outputs.swap_remove(0))
        })?;
        bench("bidirectional_dynamic_rnn", &|| {
            let rnn = BidirectionalDynamicRnn::new(cell, backward).time_major(true);
            Ok(rnn.run(&inputs)?.outputs.0)
        })?;
        bench("raw_rnn", &|| feed(device, cell, &parts))?;
        group.finish();
    }
    Ok(())
}

/// One step of one row. `dynamic_rnn` traces the step of the cell in each call; a stream traces it
/// once.
fn tracing(criterion: &mut Criterion, device: &Cpu) -> Result<()> {
    const UNITS: usize = 16;
    let x = normal(device, &[1, 1, UNITS])?;
    let one = x.select(0, 0)?;
    for class in [
        "BasicLSTMCell",
        "GRUCell",
        "LayerNormBasicLSTMCell",
        "NASCell",
    ] {
        let config = json!({ "type": class, "num_units": UNITS });
        let mut cell = cell_from_config(device, &config, UNITS, DType::F32)?;
        cell.initialize(1)?;
        let mut group = criterion.benchmark_group(format!("one step, {class}"));
        group.bench_function("dynamic_rnn", |bencher| {
            bencher.iter(|| DynamicRnn::new(&cell).time_major(true).run(&x));
        });
        let mut stream = StreamingRnn::new(&cell, 1)?;
        group.bench_function("stream", |bencher| bencher.iter(|| stream.step(&one)));
        group.finish();
    }
    Ok(())
}

/// `raw_rnn` over given inputs: the same result as `dynamic_rnn`, computed by a user-defined loop.
fn feed(device: &Cpu, cell: &LstmCell<Cpu>, inputs: &[Tensor<Cpu>]) -> Result<Tensor<Cpu>> {
    let batch = inputs[0].shape()[0];
    let limit = Tensor::from_slice(device, &vec![inputs.len() as i64; batch], &[batch])?;
    let finished = |steps: usize| {
        let steps = Tensor::full(device, steps as f64, Meta::new(Shape::SCALAR, DType::I64))?;
        limit.compare(Compare::Le, &steps)
    };
    let start = RawRnnStep {
        finished: finished(0)?,
        input: inputs[0].clone(),
        state: cell.zero_state(batch)?,
        emit: cell.zero_output(batch)?,
        loop_state: (),
    };
    let result = raw_rnn(
        cell,
        StepContext::default(),
        start,
        |steps, output, state, ()| {
            Ok(RawRnnStep {
                finished: finished(steps)?,
                // The input after the last step is never used.
                input: inputs[steps.min(inputs.len() - 1)].clone(),
                state: state.clone(),
                emit: output.clone(),
                loop_state: (),
            })
        },
    )?;
    Ok(result.emits)
}
