//! Generated kernels of steps: every cell computes with them what the CPU computes, in as few
//! launches as its products allow.

use backend_api::{Backend, DType, MemoryPolicy, Result, Tensor};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use recurrent_tests::cells::{CellConfigCase, plain, wrapped};
use recurrent_tests::devices::simulator;
use rnn_core::{AnyCell, DynamicRnn, Module, Nest, StepPath, cell_from_config};
use rnn_train::{Autodiff, value_and_grad};
use serde_json::json;

const BATCH: usize = 3;
const LENGTHS: [usize; BATCH] = [5, 2, 0];
/// Number of schedules for equal results.
const SCHEDULES: u64 = 32;

fn inputs<B: Backend>(
    device: &B,
    case: &CellConfigCase,
    steps: usize,
    dtype: DType,
) -> Result<Tensor<B>> {
    let dims = [&[steps, BATCH], &case.input[..]].concat();
    let count: usize = dims.iter().product();
    if let Some(ids) = case.ids {
        let data: Vec<i32> = (0..count).map(|i| (i % ids) as i32).collect();
        return Tensor::from_slice(device, &data, &dims[..2]);
    }
    let numbers = |i: usize| (i * 37 % 19) as f64 * 0.1 - 0.9;
    let data: Vec<f64> = (0..count).map(numbers).collect();
    Tensor::from_slice(device, &data, &dims)?.cast(dtype)
}

fn cell<B: Backend>(device: &B, case: &CellConfigCase, dtype: DType) -> Result<AnyCell<B>> {
    let mut cell = cell_from_config(device, &case.config, case.depth(), dtype)?;
    cell.initialize(3)?;
    Ok(cell)
}

/// The outputs, the final state and the gradients of a run.
fn numbers<B: Backend>(
    device: &B,
    case: &CellConfigCase,
    dtype: DType,
    lengths: &[usize],
    policy: MemoryPolicy,
) -> Result<Vec<(String, Vec<f64>)>> {
    let device = Autodiff::new(device.clone());
    let steps = lengths.iter().max().copied().unwrap_or(0);
    let cell = cell(&device, case, dtype)?;
    let x = inputs(&device, case, steps, dtype)?;
    let mut all = Vec::new();
    let (loss, grads) = value_and_grad(&cell, |cell| {
        let rnn = DynamicRnn::new(cell)
            .time_major(true)
            .mode(case.mode)
            .memory_policy(policy)
            .segment_length(3)
            .sequence_length(lengths)
            .run(&x)?;
        all.push(("outputs".to_owned(), rnn.outputs.to_f64_vec()?));
        let mut loss = rnn.outputs.square()?.sum_all()?;
        for (i, leaf) in rnn.state.leaves().into_iter().enumerate() {
            all.push((format!("state {i}"), leaf.to_f64_vec()?));
            loss = loss.add(&leaf.sum_all()?.cast(loss.dtype())?)?;
        }
        Ok(loss)
    })?;
    all.push(("loss".to_owned(), loss.to_f64_vec()?));
    for (name, grad) in grads.iter() {
        let grad = grad.map(|grad| grad.to_dense()?.to_f64_vec()).transpose()?;
        all.push((name.to_owned(), grad.unwrap_or_default()));
    }
    Ok(all)
}

/// The differences of two runs.
fn differences(
    found: &[(String, Vec<f64>)],
    wanted: &[(String, Vec<f64>)],
    tolerance: f64,
) -> Vec<String> {
    let mut all = Vec::new();
    for ((name, found), (other, wanted)) in found.iter().zip(wanted) {
        assert_eq!((name, found.len()), (other, wanted.len()));
        let largest = wanted.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
        let far = |(a, b): (&f64, &f64)| (a - b).abs() > tolerance * largest || a.is_nan();
        if let Some(i) = found.iter().zip(wanted).position(far) {
            let (a, b) = (found[i], wanted[i]);
            all.push(format!("{name}: number {i} is {a}, not {b}"));
        }
    }
    all
}

fn agree(dtype: DType, tolerance: f64) {
    let _sim = simulator();
    let (cpu, cuda) = (Cpu::new(), Cuda::new(0).unwrap());
    let mut wrong = Vec::new();
    for case in plain().iter().chain(&wrapped()) {
        let policy = MemoryPolicy::Store;
        let wanted = numbers(&cpu, case, dtype, &LENGTHS, policy).unwrap();
        match numbers(&cuda, case, dtype, &LENGTHS, policy) {
            Ok(found) => {
                for problem in differences(&found, &wanted, tolerance) {
                    wrong.push(format!("{}: {problem}", case.config));
                }
            }
            Err(error) => wrong.push(format!("{}: {error}", case.config)),
        }
        let cell = cell(&cuda, case, dtype).unwrap();
        let x = inputs(&cuda, case, 5, dtype).unwrap();
        let rnn = DynamicRnn::new(&cell).time_major(true).mode(case.mode);
        let how = rnn.explain(&x).unwrap();
        let fast = |path: &StepPath| *path == StepPath::Compiled;
        if how.parts.iter().all(|part| fast(&part.path)) != case.is_compiled() {
            wrong.push(format!("{}: {how}", case.config));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cells_agree_with_the_cpu() {
    agree(DType::F32, 2e-5);
}

#[test]
fn cells_agree_with_the_cpu_in_f64() {
    agree(DType::F64, 1e-11);
}

#[test]
fn padding_has_no_effect() {
    let _sim = simulator();
    let device = Cuda::new(0).unwrap();
    for case in plain().iter().take(16) {
        let cell = cell(&device, case, DType::F32).unwrap();
        let run = |past: f64| {
            let mut x = inputs(&device, case, 5, DType::F32)?.to_f64_vec()?;
            for (i, x) in x.chunks_exact_mut(case.depth()).enumerate() {
                if i / BATCH >= LENGTHS[i % BATCH] {
                    x.fill(past);
                }
            }
            let x = Tensor::from_slice(&device, &x, &[5, BATCH, case.depth()])?;
            let rnn = DynamicRnn::new(&cell).time_major(true);
            let rnn = rnn.sequence_length(&LENGTHS).run(&x.cast(DType::F32)?)?;
            let mut all = rnn.outputs.to_f64_vec()?;
            for leaf in rnn.state.leaves() {
                all.extend(leaf.to_f64_vec()?);
            }
            Ok::<_, backend_api::Error>(all)
        };
        let wanted = run(0.5).unwrap();
        assert!(wanted.iter().all(|x| x.is_finite()), "{}", case.config);
        assert_eq!(run(f64::NAN).unwrap(), wanted, "{}", case.config);
    }
}

/// Rows of several warps and of several elements a thread; sums over them, and parts of a row that
/// other threads have computed.
#[test]
fn every_schedule_gives_the_same_bits() {
    let sim = simulator();
    for config in [
        json!({ "type": "LayerNormBasicLSTMCell", "num_units": 40 }),
        // Parts of one element.
        json!({ "type": "LSTMCell", "num_units": 1, "use_peepholes": true }),
        json!({ "type": "LSTMCell", "num_units": 300, "num_proj": 70, "use_peepholes": true }),
        json!({ "type": "GridLSTMCell", "num_units": 2, "feature_size": 3, "frequency_skip": 2,
            "num_frequency_blocks": [3] }),
    ] {
        let case = plain()
            .into_iter()
            .find(|case| case.config["type"] == config["type"]);
        let case = CellConfigCase {
            config,
            ..case.unwrap()
        };
        let run = |device: &Cuda| {
            let policy = MemoryPolicy::Store;
            numbers(device, &case, DType::F64, &[3, 1, 0], policy).unwrap()
        };
        let wanted = numbers(
            &Cpu::new(),
            &case,
            DType::F64,
            &[3, 1, 0],
            MemoryPolicy::Store,
        );
        let first = run(&Cuda::new(0).unwrap());
        let wrong = differences(&first, &wanted.unwrap(), 1e-10);
        assert!(wrong.is_empty(), "{}: {wrong:?}", case.config);
        for seed in 1..SCHEDULES {
            if let Some(sim) = &sim {
                sim.set_seed(seed);
            }
            // Another device has other memory.
            let found = run(&Cuda::new(0).unwrap());
            assert_eq!(found, first, "{}, seed {seed}", case.config);
        }
    }
}

#[test]
fn memory_policies_change_no_bit() {
    let _sim = simulator();
    let device = Cuda::new(0).unwrap();
    let case = &plain()[6];
    let run = |policy| numbers(&device, case, DType::F32, &[7, 4, 0], policy).unwrap();
    let kept = run(MemoryPolicy::Store);
    for policy in [MemoryPolicy::Recompute, MemoryPolicy::Offload] {
        assert_eq!(run(policy), kept, "{policy}");
    }
}

/// The launches of a step, forward and in a gradient.
fn launches(device: &Cuda, case: &CellConfigCase) -> (u64, u64) {
    let tape = Autodiff::new(device.clone());
    let forward = |steps: usize| {
        let cell = cell(device, case, DType::F64).unwrap();
        let x = inputs(device, case, steps, DType::F64).unwrap();
        let run = || DynamicRnn::new(&cell).time_major(true).run(&x).unwrap();
        run();
        let before = device.launches();
        run();
        device.launches() - before
    };
    let training = |steps: usize| {
        let cell = cell(&tape, case, DType::F64).unwrap();
        let x = inputs(&tape, case, steps, DType::F64).unwrap();
        let run = || {
            value_and_grad(&cell, |cell| {
                let rnn = DynamicRnn::new(cell).time_major(true).run(&x)?;
                rnn.outputs.sum_all()
            })
            .unwrap()
        };
        run();
        let before = device.launches();
        run();
        device.launches() - before
    };
    let of = |run: &dyn Fn(usize) -> u64| (run(25) - run(13)) / 12;
    let all = of(&forward);
    (all, of(&training) - all)
}

#[test]
fn a_step_is_one_product_and_one_kernel() {
    let _sim = simulator();
    let device = Cuda::new(0).unwrap();
    let mut wrong = Vec::new();
    for (config, wanted) in [
        (json!({ "type": "BasicRNNCell", "num_units": 4 }), (2, 2)),
        (
            json!({ "type": "LSTMCell", "num_units": 4, "use_peepholes": true }),
            (2, 2),
        ),
        // Two matrices with the same operand, and in the gradient with the same result.
        (
            json!({ "type": "GRUCell", "num_units": 4, "reset_after": true }),
            (2, 2),
        ),
        (
            json!({ "type": "LayerNormBasicLSTMCell", "num_units": 4 }),
            (2, 2),
        ),
        (json!({ "type": "NASCell", "num_units": 4 }), (2, 2)),
        (json!({ "type": "UGRNNCell", "num_units": 4 }), (2, 2)),
        (
            json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4 }),
            (2, 2),
        ),
        (
            json!({ "type": "WeightNormLSTMCell", "num_units": 4 }),
            (2, 2),
        ),
        // Its reset comes before a second product.
        (json!({ "type": "GRUCell", "num_units": 4 }), (4, 4)),
        // Its projection is a second product.
        (
            json!({ "type": "LSTMCell", "num_units": 4, "num_proj": 3 }),
            (4, 4),
        ),
        // Nothing is multiplied in its steps.
        (json!({ "type": "IndRNNCell", "num_units": 4 }), (1, 1)),
        (json!({ "type": "SRUCell", "num_units": 4 }), (1, 1)),
    ] {
        let case = plain()
            .into_iter()
            .find(|case| case.config["type"] == config["type"]);
        let case = CellConfigCase {
            config,
            ..case.unwrap()
        };
        let found = launches(&device, &case);
        if found != wanted {
            wrong.push(format!("{}: {found:?}, not {wanted:?}", case.config));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
