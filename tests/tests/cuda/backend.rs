//! Guarantees of the CUDA backend: which path a sequence takes and its cost, equal results of all
//! paths under any schedule, and an error message for everything that can be missing or run out.

use backend_api::{
    Backend, DType, Error, MemoryPolicy, Meta, Precision, Result, Shape, Tensor, Unfused,
};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use cudasim::Exclusive;
use recurrent_tests::devices::simulator;
use rnn_core::{
    BasicLstmCell, Cell, Dense, DynamicRnn, GruCell, Initializer, Module, Nest, Visitor,
};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::{Adam, Optimizer};
use rnn_train::{Autodiff, value_and_grad};

/// Number of random schedules for each test of equal results.
const SCHEDULES: u64 = 32;

/// The device, and the simulator if it is simulated.
fn cuda() -> (Option<Exclusive<'static>>, Cuda) {
    let sim = simulator();
    let device = Cuda::new(0).unwrap();
    println!("{}", device.hardware());
    (sim, device)
}

/// A sequence with all difficulties: ragged rows, an initial state, random weights.
#[derive(Clone, Debug)]
struct Case {
    steps: usize,
    batch: usize,
    depth: usize,
    units: usize,
    dtype: DType,
}

impl Case {
    const fn new(steps: usize, batch: usize, units: usize, dtype: DType) -> Self {
        Self {
            steps,
            batch,
            depth: 3,
            units,
            dtype,
        }
    }

    fn lengths(&self) -> Vec<usize> {
        let ragged = |b| (b * 7 + 3) % (self.steps + 2);
        (0..self.batch)
            .map(|b| if b == 0 { self.steps } else { ragged(b) })
            .collect()
    }

    fn inputs<B: Backend>(&self, device: &B) -> Result<Tensor<B>> {
        let meta = Meta::new(
            Shape::new(&[self.batch, self.steps, self.depth])?,
            self.dtype,
        );
        Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        }
        .tensor(device, 11, meta)
    }

    fn state<C: Cell>(&self, cell: &C) -> Result<C::State> {
        let mut key = 20;
        cell.zero_state(self.batch)?.map(&mut |t| {
            key += 1;
            let normal = Initializer::Normal {
                mean: 0.0,
                std: 0.5,
            };
            normal.tensor(t.device(), key, t.meta())
        })
    }

    /// All numbers of a run: outputs and final state.
    fn run<C>(&self, cell: &C) -> Result<Vec<f64>>
    where
        C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>,
    {
        let state = self.state(cell)?;
        let first = state.leaves().remove(0).clone();
        let rnn = DynamicRnn::new(cell)
            .sequence_length(self.lengths())
            .initial_state(state)
            .run(&self.inputs(first.device())?)?;
        let mut numbers = rnn.outputs.to_f64_vec()?;
        for leaf in rnn.state.leaves() {
            numbers.extend(leaf.to_f64_vec()?);
        }
        Ok(numbers)
    }

    fn lstm<B: Backend>(&self, device: &B) -> Result<BasicLstmCell<B>> {
        let mut cell = BasicLstmCell::<B>::builder(self.depth, self.units)
            .dtype(self.dtype)
            .build(device)?;
        cell.initialize(3)?;
        Ok(cell)
    }
}

/// Whether all steps of the LSTM are one launch.
fn is_whole(device: &Cuda, case: &Case) -> bool {
    let cell = case.lstm(device).unwrap();
    let rnn = DynamicRnn::new(&cell);
    let how = rnn.explain(&case.inputs(device).unwrap()).unwrap();
    how.to_string().contains("all steps in one launch")
}

fn close(name: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        let error = (a - b).abs() / (1.0 + b.abs());
        assert!(error <= tolerance, "{name}: number {i} is {a}, not {b}");
    }
}

#[test]
fn an_lstm_that_fits_is_one_launch_and_correct_under_every_schedule() {
    // One block; several blocks of a group; several tiles of rows; partial tiles in all of them.
    for (steps, batch, units) in [(9, 7, 12), (5, 3, 40), (4, 70, 9), (1, 1, 1), (3, 33, 17)] {
        let case = Case::new(steps, batch, units, DType::F32);
        let expected = case.run(&case.lstm(&Cpu::new()).unwrap()).unwrap();
        let sim = simulator();
        assert!(is_whole(&Cuda::new(0).unwrap(), &case), "{case:?}");
        let launches = || {
            let of = |units| {
                let kernel = format!("lstm_persistent_{units}");
                sim.as_ref().map_or(0, |sim| sim.launches_of(&kernel))
            };
            of("u16") + of("u8")
        };
        let before = launches();
        for seed in 0..SCHEDULES {
            if let Some(sim) = &sim {
                sim.set_seed(seed);
            }
            // A new device, since correct results of another schedule could remain in the memory of
            // the old one.
            let device = Cuda::new(0).unwrap();
            let got = case.run(&case.lstm(&device).unwrap()).unwrap();
            close(&format!("{case:?}, seed {seed}"), &got, &expected, 1e-6);
        }
        if let Some(sim) = &sim {
            assert_eq!(launches() - before, SCHEDULES);
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

/// The launches of the third run of a sequence, and the numbers of the first and the third run.
fn third_run<C>(device: &Cuda, case: &Case, cell: &C) -> (u64, Vec<f64>, Vec<f64>)
where
    C: Cell<Backend = Cuda, Input = Tensor<Cuda>, Output = Tensor<Cuda>>,
{
    let first = case.run(cell).unwrap();
    case.run(cell).unwrap();
    let (before, allocations) = (device.launches(), device.memory().system_allocations);
    let third = case.run(cell).unwrap();
    let allocations = device.memory().system_allocations - allocations;
    assert_eq!(
        allocations, 0,
        "device memory was allocated in steady state"
    );
    (device.launches() - before, first, third)
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
    for seed in 0..16 {
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
fn out_of_memory_names_the_bytes_and_the_device_stays_usable() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let small = Tensor::from_slice(&device, &[1.0f32; 100], &[100]).unwrap();
    sim.set_memory_limit(sim.used_memory() + (1 << 20));
    let large = Meta::new(Shape::new(&[1 << 20]).unwrap(), DType::F32);
    let Err(Error::OutOfMemory {
        device: name,
        requested,
        free,
    }) = Tensor::zeros(&device, large)
    else {
        panic!("the allocation succeeded");
    };
    assert_eq!((name.as_str(), requested), ("cuda:0", 4 << 20));
    assert!(free <= 1 << 20, "{free} bytes free");
    assert_eq!(small.sum_all().unwrap().item().unwrap(), 100.0);
}

#[test]
fn pooled_memory_is_freed_before_an_out_of_memory_error() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let meta = |n: usize| Meta::new(Shape::new(&[n]).unwrap(), DType::U8);
    sim.set_memory_limit(sim.used_memory() + (10 << 20));
    drop(Tensor::zeros(&device, meta(8 << 20)).unwrap());
    assert!(device.memory().pooled >= 8 << 20);
    assert!(Tensor::zeros(&device, meta(6 << 20)).is_ok());
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
            if dtype == DType::F32 { 1e-6 } else { 1e-13 },
        );
    }
}

#[test]
fn the_precision_bounds_the_matmul_error() {
    let _sim = simulator();
    let error = |precision| {
        let device = Cuda::with_precision(0, precision).unwrap();
        let data: Vec<f32> = (0..64)
            .map(|i| 1.0 + (i as f32 * 0.7).sin() / 3.0)
            .collect();
        let x = Tensor::from_slice(&device, &data, &[8, 8]).unwrap();
        let product = x.matmul(&x).unwrap().to_vec::<f32>().unwrap();
        let mut worst = 0.0f64;
        for (at, got) in product.iter().enumerate() {
            let (i, j) = (at / 8, at % 8);
            let exact: f64 = (0..8)
                .map(|k| f64::from(data[i * 8 + k]) * f64::from(data[k * 8 + j]))
                .sum();
            worst = worst.max((f64::from(*got) - exact).abs() / exact);
        }
        worst
    };
    assert!(error(Precision::Exact) < 1e-6);
    assert!((1e-6..1e-3).contains(&error(Precision::Tf32)));
    assert!((1e-4..1e-2).contains(&error(Precision::Bf16)));
}
