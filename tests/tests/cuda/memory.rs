//! Memory of the device and page-locked memory: limits, what is kept, and what happens when either
//! runs out.

use backend_api::{Backend, DType, Error, Meta, Op, Result, Shape, Tensor};
use backend_cuda::Cuda;
use recurrent_tests::devices::simulator;

use crate::case::{Case, explained, third_run};

const MIB: usize = 1 << 20;

fn bytes(device: &Cuda, count: usize) -> Result<Tensor<Cuda>> {
    Tensor::zeros(device, Meta::new(Shape::new(&[count])?, DType::U8))
}

#[test]
fn out_of_memory_names_the_bytes_and_the_device_stays_usable() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let small = Tensor::from_slice(&device, &[1.0f32; 100], &[100]).unwrap();
    let kept = bytes(&device, 3 * MIB).unwrap();
    sim.set_memory_limit(sim.used_memory() + MIB);
    let Err(Error::OutOfMemory {
        device: name,
        requested,
        free,
        memory,
    }) = bytes(&device, 4 * MIB)
    else {
        panic!("the allocation succeeded");
    };
    assert_eq!((name.as_str(), requested), ("cuda:0", 4 * MIB));
    assert!(free <= MIB, "{free} bytes free");
    assert!((3 * MIB..4 * MIB).contains(&memory.in_use), "{memory:?}");
    assert_eq!(memory.pooled, 0);
    assert_eq!(small.sum_all().unwrap().item().unwrap(), 100.0);
    drop(kept);
}

#[test]
fn pooled_memory_is_freed_before_an_out_of_memory_error() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    sim.set_memory_limit(sim.used_memory() + 10 * MIB);
    drop(bytes(&device, 8 * MIB).unwrap());
    assert!(device.memory().pooled >= 8 * MIB);
    assert!(bytes(&device, 6 * MIB).is_ok());
}

/// Runs `f` on a device whose pool has all the memory that the driver would need for it.
fn while_the_pool_has_everything(f: impl FnOnce(&Cuda)) {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    drop(bytes(&device, 48 * MIB).unwrap());
    let x = Tensor::from_slice(&device, &[2.0f32; 4], &[2, 2]).unwrap();
    sim.set_memory_limit(sim.used_memory());
    assert!(device.memory().pooled >= 48 * MIB);
    f(&device);
    assert!(device.memory().pooled < 48 * MIB, "the pool was not freed");
    assert_eq!(x.to_vec::<f32>().unwrap(), [2.0; 4]);
}

#[test]
fn loading_a_kernel_frees_pooled_memory() {
    while_the_pool_has_everything(|device| {
        let op = Op::Random {
            key: 1,
            distribution: backend_api::Distribution::Uniform {
                low: 0.0,
                high: 1.0,
            },
            meta: Meta::new(Shape::new(&[4]).unwrap(), DType::F32),
        };
        let x = Tensor::call(device, &op, &[]).unwrap();
        assert!(x.to_vec::<f32>().unwrap().iter().all(|x| *x < 1.0));
    });
}

#[test]
fn the_first_matmul_frees_pooled_memory() {
    while_the_pool_has_everything(|device| {
        let x = Tensor::from_slice(device, &[2.0f32; 4], &[2, 2]).unwrap();
        assert_eq!(x.matmul(&x).unwrap().to_vec::<f32>().unwrap(), [8.0; 4]);
    });
}

#[test]
fn recording_frees_pooled_memory() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let launches = |device: &Cuda, batch| {
        let case = Case::new(40, batch, 3, DType::F64);
        let cell = case.lstm(device).unwrap();
        case.run(&cell).unwrap();
        drop(bytes(device, 48 * MIB).unwrap());
        sim.set_memory_limit(sim.used_memory());
        case.run(&cell).unwrap();
        let before = device.launches();
        case.run(&cell).unwrap();
        device.launches() - before
    };
    // 32 of the 40 steps are one launch. The second kind finds the recorder made.
    for batch in [2, 3] {
        assert!(launches(&device, batch) < 60, "not recorded");
        sim.set_memory_limit(1 << 32);
    }
}

#[test]
fn a_recording_that_fails_changes_no_result_and_is_tried_again() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    // Makes the recorder, which takes far more than a recording.
    let (recorded, ..) = {
        let case = Case::new(40, 2, 1, DType::F64);
        third_run(&device, &case, &case.lstm(&device).unwrap())
    };
    let case = Case::new(40, 1, 1, DType::F64);
    let cell = case.lstm(&device).unwrap();
    let run = || {
        let before = device.launches();
        (case.run(&cell).unwrap(), device.launches() - before)
    };
    let (first, _) = run();
    device.release_cached().unwrap();
    // Enough for the sequence, and too little for 65 nodes of a graph.
    sim.set_memory_limit(sim.used_memory() + (28 << 10));
    let (numbers, launches) = run();
    assert_eq!(numbers, first);
    assert!(
        launches >= 80,
        "{launches} launches are fewer than two a step"
    );
    // This is another use, which fails again.
    let how = explained(&device, &case);
    let reason = "steps are not replayed from a recording: cuda:0 is out of memory";
    assert!(how.contains(reason), "{how}");
    sim.set_memory_limit(1 << 32);
    let (numbers, launches) = run();
    assert_eq!(numbers, first);
    assert!(
        launches <= recorded,
        "{launches} launches, {recorded} if recorded"
    );
    let how = explained(&device, &case);
    assert!(!how.contains("recording"), "{how}");
}

#[test]
fn page_locked_memory_is_bounded_however_far_the_host_runs_ahead() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let data = vec![7u8; 16 * MIB];
    let mut sum = Tensor::zeros(&device, Meta::new(Shape::SCALAR, DType::I64)).unwrap();
    // No upload can use the memory of another, since no two have a size: 97.5 MiB in all.
    for unit in [MIB / 4, MIB / 2, MIB, 2 * MIB] {
        for count in (5..=8).map(|k| k * unit) {
            let x = Tensor::from_slice(&device, &data[..count], &[count]).unwrap();
            let first = x.slice(0, 0..1).unwrap().sum_all().unwrap();
            sum = sum.add(first.cast(DType::I64).unwrap()).unwrap();
        }
    }
    // 64 MiB more than were in use at once.
    let most = sim.pinned_memory();
    assert!(most <= 80 * MIB, "{most} bytes");
    assert_eq!(sum.to_vec::<i64>().unwrap(), [7 * 16]);
}

#[test]
fn page_locked_memory_that_runs_out_is_freed_or_named() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let upload = |count: usize| Tensor::from_slice(&device, &vec![1u8; count], &[count]);
    upload(8 * MIB).unwrap();
    sim.set_pinned_limit(sim.pinned_memory() + MIB);
    let x = upload(4 * MIB).unwrap();
    assert_eq!(x.to_vec::<u8>().unwrap(), vec![1; 4 * MIB]);
    sim.set_pinned_limit(0);
    device.release_cached().unwrap();
    let error = upload(2 * MIB).unwrap_err().to_string();
    let start = "page-locked memory of the host is out of memory: 2097152 bytes requested";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn a_large_upload_does_not_wait_for_the_device() {
    let Some(sim) = simulator() else {
        return;
    };
    let device = Cuda::new(0).unwrap();
    let x = Tensor::from_slice(&device, &[1.0f32; 8], &[8]).unwrap();
    let mut y = x.clone();
    // More than what the upload itself queues.
    for _ in 0..100 {
        y = y.add(&x).unwrap();
    }
    let queued = sim.queued();
    assert!(queued >= 100);
    let data: Vec<u8> = (0..40 * MIB).map(|i| (i / 1000) as u8).collect();
    let large = Tensor::from_slice(&device, &data, &[data.len()]).unwrap();
    assert!(sim.queued() > queued, "the upload waited for kernels");
    assert!(large.to_vec::<u8>().unwrap() == data);
    assert_eq!(y.to_vec::<f32>().unwrap(), [101.0; 8]);
}

#[test]
fn an_upload_waits_for_the_last_use_of_its_memory() {
    let sim = simulator();
    let device = Cuda::new(0).unwrap();
    // Above the size up to which an upload is queued with the kernels.
    let count = 40_000;
    for seed in 0..if sim.is_some() { 32 } else { 2 } {
        if let Some(sim) = &sim {
            sim.set_seed(seed);
        }
        let one = Tensor::from_slice(&device, &vec![1.0f32; count], &[count]).unwrap();
        let two = one.add(&one).unwrap();
        drop(one);
        // Takes the memory of `one`, which `add` may not have read.
        let five = Tensor::from_slice(&device, &vec![5.0f32; count], &[count]).unwrap();
        let sum = two.add(&five).unwrap();
        assert_eq!(
            sum.to_vec::<f32>().unwrap(),
            vec![7.0; count],
            "seed {seed}"
        );
    }
}

#[test]
fn a_memory_limit_refuses_what_exceeds_it() {
    let _sim = simulator();
    let device = Cuda::builder(0).memory_limit(4 * MIB).build().unwrap();
    let first = bytes(&device, 2 * MIB).unwrap();
    let Err(Error::OutOfMemory {
        requested,
        free,
        memory,
        ..
    }) = bytes(&device, 3 * MIB)
    else {
        panic!("the limit was exceeded");
    };
    assert_eq!((requested, free), (3 * MIB, 4 * MIB - memory.in_use));
    drop(first);
    // What is pooled counts, and is freed first.
    assert!(device.memory().pooled >= 2 * MIB);
    let second = bytes(&device, 3 * MIB).unwrap();
    assert!(device.memory().pooled < MIB);
    drop(second);
    let error = Cuda::builder(0).memory_limit(1).build().unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
}

#[test]
fn cached_memory_is_released() {
    let sim = simulator();
    let device = Cuda::new(0).unwrap();
    let data = vec![1u8; MIB];
    let x = Tensor::from_slice(&device, &data, &[MIB]).unwrap();
    drop(bytes(&device, 8 * MIB).unwrap());
    let before = sim.as_ref().map(|sim| sim.used_memory());
    device.release_cached().unwrap();
    assert_eq!(device.memory().pooled, 0);
    if let (Some(sim), Some(before)) = (&sim, before) {
        assert!(before - sim.used_memory() >= 8 * MIB);
        assert_eq!(sim.pinned_memory(), 0);
    }
    assert!(x.to_vec::<u8>().unwrap() == data);
}
