//! What a driver refuses, what breaks a device, and what the backend makes of either.

use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::{Backend, DType, Error, Tensor};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use recurrent_tests::devices::simulator;
use rnn_core::{BasicLstmCell, DynamicRnn};

use crate::case::{CLOSE, Case, close, explained, is_whole, third_run, whole_launches};

fn product(device: &Cuda) -> Vec<f64> {
    let x = Tensor::from_slice(device, &[1.0f64, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
    x.matmul(&x).unwrap().to_vec().unwrap()
}

const PRODUCT: [f64; 4] = [7.0, 10.0, 15.0, 22.0];

#[test]
fn layers_of_different_widths_share_a_device() {
    let sim = simulator();
    if let Some(sim) = &sim {
        sim.set_multiprocessors(16);
    }
    let device = Cuda::new(0).unwrap();
    // Both take more shared memory than a kernel may without asking, and not the same.
    for units in [200, 100, 200] {
        let case = Case::new(2, 1, units, DType::F32);
        assert!(is_whole(&device, &case));
        let expected = case.run(&case.lstm(&Cpu::new()).unwrap()).unwrap();
        let got = case.run(&case.lstm(&device).unwrap()).unwrap();
        close("outputs", &got, &expected, CLOSE);
    }
}

/// Sets a flag on drop.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn recordings_are_not_broken_by_other_devices() {
    let Some(sim) = simulator() else {
        return;
    };
    sim.set_capture_pause(20);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Creates and destroys a handle of cuBLAS each time.
        let other = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(product(&Cuda::new(0).unwrap()), PRODUCT);
            }
        });
        // Also after a failure, or the test would wait for the thread.
        let stop = Stop(&done);
        let device = Cuda::new(0).unwrap();
        for batch in 1..5 {
            let case = Case::new(64, batch, 2, DType::F64);
            let (launches, first, third) = third_run(&device, &case, &case.lstm(&device).unwrap());
            assert_eq!(first, third);
            assert!(launches < 64, "batch {batch}: {launches} launches");
        }
        drop(stop);
        other.join().unwrap();
    });
}

#[test]
fn devices_are_opened_again_after_the_last_was_closed() {
    let _sim = simulator();
    for _ in 0..3 {
        assert_eq!(product(&Cuda::new(0).unwrap()), PRODUCT);
    }
}

#[test]
fn libraries_of_another_version_are_named() {
    let Some(sim) = simulator() else {
        return;
    };
    let error = || Cuda::new(0).unwrap_err().to_string();
    sim.set_products_version(12_090);
    assert!(error().contains("the cuBLAS that was found is version 12.9, but 13 is needed"));
    sim.set_compiler_version(12_080);
    assert!(error().contains("the NVRTC that was found is version 12.8, but 13 is needed"));
    sim.set_driver_version(12_040);
    assert!(error().contains("the driver supports CUDA 12.4, but 13.0 is needed"));
    sim.set_driver_version(0);
    assert!(error().contains("is a stub for linking"));
    sim.reset();
    Cuda::new(0).unwrap();
}

#[test]
fn an_lstm_runs_step_by_step_where_its_blocks_are_not_resident_at_once() {
    let case = Case::new(9, 7, 12, DType::F32);
    let expected = case.run(&case.lstm(&Cpu::new()).unwrap()).unwrap();
    let Some(sim) = simulator() else {
        return;
    };
    let run = |device: &Cuda| {
        let got = case.run(&case.lstm(device).unwrap()).unwrap();
        close("outputs", &got, &expected, CLOSE);
    };
    // A debugger has most of the shared memory.
    sim.set_taken_shared(220 << 10);
    let device = Cuda::new(0).unwrap();
    let refused = |device: &Cuda, reason: &str| {
        let how = explained(device, &case);
        let line = format!("not all steps in one launch: {reason}\n");
        assert!(how.contains(&line), "{how}");
    };
    refused(&device, "the device cannot hold all blocks at once");
    run(&device);
    // The debugger ends.
    sim.set_taken_shared(0);
    assert!(is_whole(&device, &case));
    // Another process has the multiprocessors, of which the query does not know.
    sim.set_resident_limit(0);
    let reason = "the device refuses a cooperative launch of 2 blocks";
    let launches = || [whole_launches(&sim), sim.launches_of("step_2")];
    let before = launches();
    // The run that is refused says so, and so do later ones, which do not ask again.
    refused(&device, reason);
    sim.set_resident_limit(u16::MAX);
    refused(&device, reason);
    run(&device);
    assert_eq!(launches()[0], before[0]);
    assert!(launches()[1] > before[1]);
}

#[test]
fn cooperative_launches_of_two_devices_run_one_after_the_other() {
    let case = Case::new(9, 7, 12, DType::F32);
    let expected = case.run(&case.lstm(&Cpu::new()).unwrap()).unwrap();
    let sim = simulator();
    for seed in 0..if sim.is_some() { 8 } else { 2 } {
        if let Some(sim) = &sim {
            sim.set_seed(seed);
        }
        let devices = [Cuda::new(0).unwrap(), Cuda::new(0).unwrap()];
        let cells: [BasicLstmCell<Cuda>; 2] =
            std::array::from_fn(|i| case.lstm(&devices[i]).unwrap());
        let inputs: [Tensor<Cuda>; 2] = std::array::from_fn(|i| case.inputs(&devices[i]).unwrap());
        let queue = |i: usize| DynamicRnn::new(&cells[i]).run(&inputs[i]).unwrap().outputs;
        // All are queued before the first result is read: that of the last.
        let outputs: Vec<_> = [0, 1, 0, 1].into_iter().map(queue).collect();
        let numbers = |t: &Tensor<Cuda>| t.to_f64_vec().unwrap();
        let last = numbers(&outputs[3]);
        for other in &outputs {
            assert_eq!(numbers(other), last, "seed {seed}");
        }
        let got = case.run(&cells[1]).unwrap();
        close("outputs", &got, &expected, CLOSE);
    }
}

#[test]
fn a_lost_device_says_so_at_every_call() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[2]).unwrap();
    assert_eq!(x.add(&x).unwrap().to_vec::<f32>().unwrap(), [2.0, 4.0]);
    sim.set_failing_kernel("binary_f32");
    let y = x.add(&x).unwrap();
    let first = y.to_vec::<f32>().unwrap_err();
    assert!(matches!(first, Error::Lost { .. }), "{first}");
    let expected = "cuda:0 is lost, and this process cannot use it again: ";
    assert!(first.to_string().starts_with(expected), "{first}");
    for later in [
        x.to_vec::<f32>().unwrap_err(),
        x.add(&x).unwrap_err(),
        device.synchronize().unwrap_err(),
        Tensor::from_slice(&device, &[1u8], &[1]).unwrap_err(),
        Cuda::new(0).unwrap_err(),
    ] {
        assert_eq!(later.to_string(), first.to_string());
    }
    drop((x, y, device));
    // The driver recovers, as none does within a process.
    sim.clear_error();
    assert_eq!(product(&Cuda::new(0).unwrap()), PRODUCT);
}

#[test]
fn a_synchronous_device_names_the_kernel_that_failed() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::builder(0).synchronous(true).build().unwrap();
    // Recorded steps would hide the kernels.
    let case = Case::new(64, 1, 2, DType::F64);
    let (launches, ..) = third_run(&device, &case, &case.lstm(&device).unwrap());
    assert!(launches >= 128, "{launches} launches");
    let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[2]).unwrap();
    sim.set_failing_kernel("unary_f32");
    let error = x.add(&x).unwrap().square().unwrap_err().to_string();
    assert!(error.contains("again: unary failed: "), "{error}");
    drop((x, device));
    sim.clear_error();
    Cuda::new(0).unwrap();
}

#[test]
fn a_profiler_sees_operations_and_recorded_steps() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let count = |name: &str| sim.ranges_of(name);
    let before = (count("matmul"), count("recorded steps"));
    product(&device);
    let case = Case::new(64, 3, 2, DType::F64);
    third_run(&device, &case, &case.lstm(&device).unwrap());
    assert!(count("matmul") > before.0);
    // The second and the third run, of two chunks each.
    assert_eq!(count("recorded steps") - before.1, 4);
    assert_eq!(sim.range_depth(), 0);
}
