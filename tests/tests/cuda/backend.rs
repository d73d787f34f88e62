//! Guarantees of the CUDA backend: which path a sequence takes and its cost, equal results of all
//! paths under any schedule, and an error message for everything that can be missing or run out.

use backend_api::{Backend, DType, MemoryPolicy, Meta, Precision, Result, Shape, Tensor, Unfused};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use recurrent_tests::devices::simulator;
use rnn_core::{BasicLstmCell, Dense, DynamicRnn, GruCell, Initializer, Module, Visitor};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::{Adam, Optimizer};
use rnn_train::{Autodiff, value_and_grad};

use crate::case::{CLOSE, Case, close, cuda, is_whole, seeds, third_run, whole_launches};

#[test]
fn an_lstm_that_fits_is_one_launch_and_correct_under_every_schedule() {
    // One block; several blocks of a group; several tiles of rows; partial tiles in all of them.
    for (steps, batch, units) in [(9, 7, 12), (5, 3, 40), (4, 70, 9), (1, 1, 1), (3, 33, 17)] {
        let case = Case::new(steps, batch, units, DType::F32);
        let expected = case.run(&case.lstm(&Cpu::new()).unwrap()).unwrap();
        let sim = simulator();
        assert!(is_whole(&Cuda::new(0).unwrap(), &case), "{case:?}");
        let before = sim.as_ref().map_or(0, whole_launches);
        for seed in seeds(&sim, 32) {
            if let Some(sim) = &sim {
                sim.set_seed(seed);
            }
            // A new device, since correct results of another schedule could remain in the memory of
            // the old one.
            let device = Cuda::new(0).unwrap();
            let got = case.run(&case.lstm(&device).unwrap()).unwrap();
            close(&format!("{case:?}, seed {seed}"), &got, &expected, CLOSE);
        }
        if let Some(sim) = &sim {
            assert_eq!(whole_launches(sim) - before, 32);
            assert_eq!(sim.launches_of("step_2"), 0);
        }
    }
}

#[test]
fn sequences_that_do_not_fit_run_step_by_step() {
    let (_sim, device) = cuda();
    for case in [
        Case::new(5, 2, 8, DType::F64),
        Case::new(5, 2, 2000, DType::F32),
        Case::new(5, 10_000, 8, DType::F32),
    ] {
        assert!(!is_whole(&device, &case), "{case:?}");
    }
}

#[test]
fn a_step_is_two_launches_and_graph_replay_far_fewer() {
    let (_sim, device) = cuda();
    let launches = |steps: usize, batch: usize, gru: bool| {
        let case = Case::new(steps, batch, 6, DType::F64);
        let (launches, first, third) = if gru {
            let mut cell = GruCell::<Cuda>::builder(3, 6)
                .dtype(DType::F64)
                .build(&device)
                .unwrap();
            cell.initialize(3).unwrap();
            third_run(&device, &case, &cell)
        } else {
            third_run(&device, &case, &case.lstm(&device).unwrap())
        };
        assert_eq!(first, third, "a replayed sequence gives the same bits");
        launches
    };
    // Sequences shorter than a chunk are not recorded. None of these has a row of length 0, whose
    // initial state takes a few launches more.
    assert_eq!(launches(30, 4, false) - launches(12, 4, false), 2 * 18);
    assert_eq!(launches(30, 4, true) - launches(12, 4, true), 4 * 18);
    // A chunk of 32 steps is one launch.
    assert_eq!(launches(128, 4, false) - launches(64, 4, false), 2);
    assert_eq!(launches(128, 4, true) - launches(64, 4, true), 2);
    assert_eq!(launches(70, 4, false) - launches(64, 4, false), 2 * 6);
}

#[derive(Clone, Debug)]
struct Classifier<B: Backend> {
    cell: GruCell<B>,
    logits: Dense<B>,
}

impl<B: Backend> Module for Classifier<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.child("cell", &mut self.cell);
        v.child("logits", &mut self.logits);
    }
}

/// The losses of a few training steps, with dropout.
fn losses<B: Backend>(device: &B, memory_policy: MemoryPolicy) -> Result<Vec<f64>> {
    let device = Autodiff::new(device.clone());
    let mut model = Classifier {
        cell: GruCell::new(&device, 3, 8)?,
        logits: Dense::new(&device, 8, 5)?,
    };
    model.initialize(9)?;
    let mut adam = Adam::new(0.02);
    let meta = Meta::new(Shape::new(&[6, 40, 3])?, DType::F32);
    let x = Initializer::Normal {
        mean: 0.0,
        std: 1.0,
    }
    .tensor(&device, 4, meta)?;
    let labels = Tensor::from_slice(&device, &[0i32, 4, 2, 2, 1, 3], &[6])?;
    let mut losses = Vec::new();
    for step in 0..8 {
        let (loss, grads) = value_and_grad(&model, |m| {
            let rnn = DynamicRnn::new(&m.cell)
                .training(step)
                .sequence_length(&[40, 0, 13, 27, 40, 1])
                .memory_policy(memory_policy)
                .segment_length(7)
                .run(&x)?;
            softmax_cross_entropy(&m.logits.forward(&rnn.state)?, &labels)
        })?;
        losses.push(loss.item()?);
        adam.step(&mut model, &grads.clip_by_global_norm(1.0)?)?;
    }
    Ok(losses)
}

#[test]
fn training_equals_the_cpu() {
    let expected = losses(&Cpu::new(), MemoryPolicy::Store).unwrap();
    let (_sim, device) = cuda();
    close(
        "losses",
        &losses(&device, MemoryPolicy::Store).unwrap(),
        &expected,
        1e-5,
    );
    assert!(expected[7] < expected[0]);
}

#[test]
fn swapping_changes_no_bit_under_any_schedule() {
    let (sim, device) = cuda();
    let kept = losses(&device, MemoryPolicy::Store).unwrap();
    assert_eq!(device.bytes_swapped(), (0, 0));
    for seed in seeds(&sim, 16) {
        if let Some(sim) = &sim {
            sim.set_seed(seed);
        }
        assert_eq!(
            losses(&device, MemoryPolicy::Offload).unwrap(),
            kept,
            "seed {seed}"
        );
    }
    let (out, back) = device.bytes_swapped();
    assert!(
        out > 0 && back > 0,
        "{out} bytes went out, {back} came back"
    );
    assert_eq!(losses(&device, MemoryPolicy::Recompute).unwrap(), kept);
}

#[test]
fn swapping_bounds_memory_use() {
    let (_sim, device) = cuda();
    let peak = |memory_policy| {
        let gpu = Cuda::new(0).unwrap();
        let device = Autodiff::new(gpu.clone());
        let cell = BasicLstmCell::new(&device, 64, 64).unwrap();
        let x = Tensor::zeros(
            &device,
            Meta::new(Shape::new(&[8, 256, 64]).unwrap(), DType::F32),
        );
        let x = x.unwrap();
        value_and_grad(&cell, |cell| {
            let rnn = DynamicRnn::new(cell)
                .memory_policy(memory_policy)
                .segment_length(8)
                .run(&x)?;
            rnn.state.h.sum_all()
        })
        .unwrap();
        gpu.memory().peak
    };
    let (all, inputs, host) = (
        peak(MemoryPolicy::Store),
        peak(MemoryPolicy::Recompute),
        peak(MemoryPolicy::Offload),
    );
    // The saved values of all steps are 5 numbers per hidden unit: 2.6 MB, of which a few segments
    // remain.
    let (less, least) = (all - host, all - inputs);
    assert!(
        less > 2 << 20 && least > 2 << 20,
        "{all} bytes, {host} swapped, {inputs} recomputed"
    );
    drop(device);
}

#[test]
fn an_out_of_range_index_is_reported_and_the_device_stays_usable() {
    let (_sim, device) = cuda();
    let table = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0], &[3]).unwrap();
    let ids = Tensor::from_slice(&device, &[0i64, 2, 7], &[3]).unwrap();
    let error = table
        .gather(&ids)
        .and_then(|t| t.to_vec::<f32>())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "gather: ids has 7 at index 2, but must be in 0..=2"
    );
    let ids = Tensor::from_slice(&device, &[2i64, 0], &[2]).unwrap();
    assert_eq!(
        table.gather(&ids).unwrap().to_vec::<f32>().unwrap(),
        [3.0, 1.0]
    );
}

#[test]
fn a_device_with_an_old_compute_capability_is_rejected() {
    let Some(sim) = simulator() else {
        return;
    };
    sim.set_compute_capability(70);
    assert_eq!(
        Cuda::new(0).unwrap_err().to_string(),
        "cuda:0 is not available: the device has compute capability 7.0, but 7.5 is needed"
    );
}

#[test]
fn the_error_of_a_missing_device_lists_the_existing_ones() {
    let Some(sim) = simulator() else {
        return;
    };
    sim.set_device_count(2);
    let error = Cuda::new(5).unwrap_err().to_string();
    assert_eq!(
        error,
        "cuda:5 is not available: there are 2 devices, cuda:0 to cuda:1"
    );
    sim.set_device_count(0);
    let error = Cuda::new(0).unwrap_err().to_string();
    assert_eq!(
        error,
        "cuda:0 is not available: the driver finds no NVIDIA GPU"
    );
}

#[test]
fn the_error_of_a_kernel_has_the_compiler_log() {
    let _sim = simulator();
    let source = "extern \"C\" __global__ void broken(int *x) { x[0] = missing; }";
    let error = backend_cuda::kernels::compile("broken.cu", source, "sm_90a", false).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("broken.cu") && error.contains("missing"),
        "{error}"
    );
}

#[test]
fn every_override_agrees_with_its_default_body() {
    let (_sim, device) = cuda();
    for dtype in [DType::F32, DType::F64] {
        let case = Case::new(6, 5, 7, dtype);
        let fused = case.run(&case.lstm(&device).unwrap()).unwrap();
        let plain = case
            .run(&case.lstm(&Unfused(device.clone())).unwrap())
            .unwrap();
        close(
            "lstm",
            &fused,
            &plain,
            if dtype == DType::F32 { CLOSE } else { 1e-13 },
        );
    }
}

#[test]
fn the_precision_bounds_the_matmul_error() {
    let sim = simulator();
    // cuBLAS may multiply small matrices exactly in any precision.
    let n = 512;
    let data: Vec<f32> = (0..n * n)
        .map(|i| 1.0 + (i as f32 * 0.7).sin() / 3.0)
        .collect();
    let exact = |i: usize, j: usize| -> f64 {
        (0..n)
            .map(|k| f64::from(data[i * n + k]) * f64::from(data[k * n + j]))
            .sum()
    };
    let error = |precision| {
        let device = Cuda::with_precision(0, precision).unwrap();
        let x = Tensor::from_slice(&device, &data, &[n, n]).unwrap();
        let product = x.matmul(&x).unwrap().to_vec::<f32>().unwrap();
        let worst = |worst: f64, i: usize| {
            let j = (i * 31) % n;
            let error = (f64::from(product[i * n + j]) - exact(i, j)).abs() / exact(i, j);
            worst.max(error)
        };
        (0..n).fold(0.0, worst)
    };
    let (none, tf32, bf16) = (
        error(Precision::Exact),
        error(Precision::Tf32),
        error(Precision::Bf16),
    );
    assert!(
        none < 1e-5 && tf32 < 1e-3 && bf16 < 1e-2,
        "{none} {tf32} {bf16}"
    );
    // The simulated cuBLAS rounds as it is asked to.
    if sim.is_some() {
        assert!(none < tf32 && tf32 < bf16, "{none} {tf32} {bf16}");
    }
}
