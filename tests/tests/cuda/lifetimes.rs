//! Lifetimes of a CUDA device: threads that share it, and dropping it while work is queued.

use backend_api::{Backend, DType, Result, Tensor};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use recurrent_tests::devices::simulator;
use rnn_core::{BasicLstmCell, DynamicRnn, Module};

/// Enough steps for the sequence to be recorded.
const STEPS: usize = 40;

fn cell<B: Backend>(device: &B) -> Result<BasicLstmCell<B>> {
    let mut cell = BasicLstmCell::<B>::builder(3, 6)
        .dtype(DType::F64)
        .build(device)?;
    cell.initialize(3)?;
    Ok(cell)
}

fn inputs<B: Backend>(device: &B) -> Result<Tensor<B>> {
    let data: Vec<f64> = (0..2 * STEPS * 3).map(|i| (i as f64).sin()).collect();
    Tensor::from_slice(device, &data, &[2, STEPS, 3])
}

fn outputs<B: Backend>(cell: &BasicLstmCell<B>, x: &Tensor<B>) -> Result<Vec<f64>> {
    DynamicRnn::new(cell).run(x)?.outputs.to_vec()
}

/// The sum of `data`, computed from a buffer that was swapped out to host memory and back.
fn swapped_sum(device: &Cuda, data: &[f32]) -> Result<f64> {
    let x = Tensor::from_slice(device, data, &[data.len()])?;
    let moved = device.swap_out(x.buffer().unwrap().clone())?;
    let sum = x.add(&x)?.sum_all()?;
    let back = device.swap_in(moved)?;
    let x = Tensor::from_parts(device, back, *x.layout(), x.dtype())?;
    sum.sub(&x.sum_all()?)?.item()
}

#[test]
fn threads_share_a_device() {
    let cpu = Cpu::new();
    let expected = outputs(&cell(&cpu).unwrap(), &inputs(&cpu).unwrap()).unwrap();
    let _sim = simulator();
    let device = Cuda::new(0).unwrap();
    let data: Vec<f32> = (0..500).map(|i| (i % 17) as f32).collect();
    let total = f64::from(data.iter().sum::<f32>());
    // Some threads queue sequences of one kind; others upload, compute and swap. None of them has
    // selected the device before.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (device, expected, data) = (device.clone(), &expected, &data);
            scope.spawn(move || {
                if thread % 2 == 0 {
                    let (cell, x) = (cell(&device).unwrap(), inputs(&device).unwrap());
                    for _ in 0..4 {
                        let got = outputs(&cell, &x).unwrap();
                        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
                        assert!(got.iter().zip(expected).all(close), "thread {thread}");
                    }
                } else {
                    for _ in 0..20 {
                        assert_eq!(swapped_sum(&device, data).unwrap(), total);
                    }
                }
            });
        }
    });
    // Drop the last owner on a thread that has not used the device.
    std::thread::spawn(move || drop(device)).join().unwrap();
}

#[test]
fn a_device_can_be_dropped_while_work_is_queued() {
    let sim = simulator();
    // A GPU has no seeds.
    for seed in 0..if sim.is_some() { 8 } else { 2 } {
        if let Some(sim) = &sim {
            sim.set_seed(seed);
        }
        let device = Cuda::new(0).unwrap();
        let (cell, x) = (cell(&device).unwrap(), inputs(&device).unwrap());
        for _ in 0..3 {
            outputs(&cell, &x).unwrap();
        }
        let swapped = device.swap_out(x.buffer().unwrap().clone()).unwrap();
        let last = DynamicRnn::new(&cell).run(&x).unwrap();
        drop((cell, x, last, device, swapped));
        // A new device must work as usual.
        assert_eq!(
            swapped_sum(&Cuda::new(0).unwrap(), &[1.0, 2.0]).unwrap(),
            3.0
        );
        if let Some(sim) = &sim {
            assert_eq!(sim.last_report(), "", "seed {seed}");
        }
    }
}

#[test]
fn the_cache_of_recorded_graphs_evicts() {
    let _sim = simulator();
    let device = Cuda::new(0).unwrap();
    let cell = cell(&device).unwrap();
    let run = |batch: usize| {
        let x = Tensor::full(
            &device,
            0.5,
            backend_api::Meta::new(
                backend_api::Shape::new(&[batch, STEPS, 3]).unwrap(),
                DType::F64,
            ),
        );
        let outputs = DynamicRnn::new(&cell).run(&x.unwrap()).unwrap().outputs;
        outputs.select(0, 0).unwrap()
    };
    // Run each kind twice, so that it is recorded. The results are read after all but the last 16
    // recordings were evicted.
    let rows: Vec<_> = (1..20).flat_map(|batch| [run(batch), run(batch)]).collect();
    let expected = rows[0].to_vec::<f64>().unwrap();
    for row in rows {
        let row = row.to_vec::<f64>().unwrap();
        assert!(
            row.iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 1e-12)
        );
    }
}
