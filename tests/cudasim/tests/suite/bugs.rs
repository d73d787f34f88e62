//! Bugs planted in kernels and launches: the simulator finds each, and the correct version passes.
//! `sanitizers.rs` has the bugs that only a sanitizer finds.

use crate::common::programs::{
    BASICS, BUGS, PERSISTENT, elman_is_wrong, lstm_is_wrong, reduction_is_wrong,
};
use crate::common::sys_code::CUresult;
use crate::common::{Device, device, grid, numbers, schedules};
use cudarc::driver::CudaFunction;

/// The position of a mark in `bugs.cu`, in the format of reports.
fn position(mark: &str) -> String {
    let line = BUGS
        .lines()
        .position(|line| line.ends_with(&format!("// here: {mark}")))
        .unwrap();
    format!("kernel.cu:{}", line + 1)
}

/// The number of seeds for which a program gave a wrong result.
fn findings(
    device: &Device,
    seeds: impl Iterator<Item = u64>,
    mut wrong: impl FnMut(&Device) -> bool,
) -> usize {
    seeds
        .filter(|&seed| {
            device.sim.set_seed(seed);
            wrong(device)
        })
        .count()
}

// ---- barriers ----

#[test]
fn a_missing_barrier_in_a_reduction() {
    let device = device();
    let kernel = device.function(BASICS, &["BUG_NO_BARRIER"], "partial_sums");
    assert_eq!(
        findings(&device, schedules(), |device| reduction_is_wrong(
            device, &kernel
        )),
        32
    );
    let kernel = device.function(BASICS, &[], "partial_sums");
    assert_eq!(
        findings(&device, schedules(), |device| reduction_is_wrong(
            device, &kernel
        )),
        0
    );
}

#[test]
fn a_missing_grid_barrier_in_a_persistent_kernel() {
    let device = device();
    let kernel = device.function(PERSISTENT, &["BUG_NO_GRID_BARRIER"], "elman");
    assert_eq!(
        findings(&device, schedules(), |device| elman_is_wrong(
            device, &kernel
        )),
        32
    );
    let kernel = device.function(PERSISTENT, &[], "elman");
    assert_eq!(
        findings(&device, schedules(), |device| elman_is_wrong(
            device, &kernel
        )),
        0
    );
}

#[test]
fn either_missing_barrier_in_a_persistent_lstm() {
    let device = device();
    for bug in ["BUG_NO_GROUP_BARRIER", "BUG_NO_CLOSING_BARRIER"] {
        let kernel = device.function(PERSISTENT, &[bug], "lstm_forward");
        // The fixed schedule of seed 0 may hide the bug.
        let found = findings(&device, schedules().skip(1), |device| {
            lstm_is_wrong(device, &kernel)
        });
        assert_eq!(found, 31, "{bug}");
    }
    let kernel = device.function(PERSISTENT, &[], "lstm_forward");
    assert_eq!(
        findings(&device, schedules(), |device| lstm_is_wrong(
            device, &kernel
        )),
        0
    );
}

#[test]
fn a_read_after_write_without_barrier() {
    let device = device();
    let kernel = device.function(BUGS, &[], "read_after_write");
    let wrong = |right: i32| {
        move |device: &Device, kernel: &CudaFunction| {
            // SAFETY: the kernel writes every element.
            let [mut x, mut y] =
                [(); 2].map(|()| unsafe { device.stream.alloc::<i32>(64) }.unwrap());
            launch!(
                device.stream,
                kernel,
                grid(1, 64, 0),
                &mut x,
                &mut y,
                &right
            )
            .unwrap();
            let y = device.stream.clone_dtoh(&y).unwrap();
            (0..64).any(|i| y[i as usize] != (i + 1) % 64)
        }
    };
    assert_eq!(
        findings(&device, schedules(), |device| wrong(0)(device, &kernel)),
        32
    );
    assert_eq!(
        findings(&device, schedules(), |device| wrong(1)(device, &kernel)),
        0
    );
}

// ---- rules of barriers and collectives ----

/// Runs a kernel on 32 numbers under all schedules, with `right` 0 and 1. The first must always be
/// reported with these words, the second never.
fn reported(name: &str, words: &[&str]) {
    let device = device();
    let kernel = device.function(BUGS, &[], name);
    let run = |right: i32, seed: u64| {
        device.sim.clear_error();
        device.sim.set_seed(seed);
        let mut x = device.stream.alloc_zeros::<f32>(32).unwrap();
        launch!(device.stream, kernel, grid(1, 32, 0), &mut x, &right).unwrap();
        device.failure()
    };
    for seed in schedules() {
        let (code, report) = run(0, seed);
        assert_eq!(
            code,
            Some(CUresult::CUDA_ERROR_LAUNCH_FAILED),
            "seed {seed}"
        );
        for word in words.iter().chain([&name]) {
            assert!(
                report.contains(word),
                "seed {seed}: no `{word}` in: {report}"
            );
        }
        let (code, report) = run(1, seed);
        assert_eq!((code, report.as_str()), (None, ""), "seed {seed}");
    }
}

#[test]
fn barriers_in_two_branches() {
    reported(
        "branches",
        &[
            "divergent barrier",
            &position("first branch"),
            &position("second branch"),
            "thread (",
        ],
    );
}

#[test]
fn lanes_that_never_reach_a_warp_collective() {
    reported(
        "absent_lanes",
        &["deadlock", &position("half a warp"), "32 threads wait"],
    );
}

#[test]
fn a_lane_that_is_not_in_its_mask() {
    reported(
        "wrong_mask",
        &["not named in its own mask", &position("own mask")],
    );
}

#[test]
fn different_collectives_with_one_mask() {
    reported("mixed_collectives", &["divergent warp collective"]);
}

#[test]
fn waiting_for_a_flag_that_is_never_set() {
    let device = device();
    let kernel = device.function(BUGS, &[], "no_progress");
    for seed in [0, 1] {
        for right in [1_i32, 0] {
            device.sim.clear_error();
            device.sim.set_seed(seed);
            let mut flag = device.stream.alloc_zeros::<u32>(1).unwrap();
            launch!(device.stream, kernel, grid(1, 32, 0), &mut flag, &right).unwrap();
            let (code, report) = device.failure();
            assert_eq!(code.is_some(), right == 0);
            assert_eq!(report.contains("no progress"), right == 0, "{report}");
        }
    }
}

#[test]
fn kernel_assertions() {
    let device = device();
    for (name, line) in [
        ("check", position("plain assert")),
        ("check_behind_a_barrier", position("late assert")),
    ] {
        let kernel = device.function(BUGS, &[], name);
        for (seed, limit) in [(0, 31_i32), (5, 31), (0, 32), (5, 32)] {
            device.sim.clear_error();
            device.sim.set_seed(seed);
            let x = device
                .stream
                .clone_htod(&(0..32).collect::<Vec<i32>>())
                .unwrap();
            launch!(device.stream, kernel, grid(2, 32, 0), &x, &limit).unwrap();
            let (code, report) = device.failure();
            assert_eq!(code.is_some(), limit == 31);
            if limit == 31 {
                assert!(
                    report.contains(&line) && report.contains("thread (31,0,0)"),
                    "{report}"
                );
            }
        }
    }
}

#[test]
fn an_asynchronous_copy_without_a_wait() {
    let device = device();
    let kernel = device.function(BUGS, &[], "forgotten_copy");
    let x = numbers(128, 1, 1.0);
    let wrong = |device: &Device, right: i32| {
        let dx = device.stream.clone_htod(&x).unwrap();
        let mut dy = device.stream.alloc_zeros::<f32>(128).unwrap();
        launch!(device.stream, kernel, grid(1, 32, 0), &dx, &mut dy, &right).unwrap();
        let y = device.stream.clone_dtoh(&dy).unwrap();
        (0..128).any(|i| y[i] != x[127 - i])
    };
    assert_eq!(
        findings(&device, schedules(), |device| wrong(device, 0)),
        32
    );
    assert_eq!(findings(&device, schedules(), |device| wrong(device, 1)), 0);
}

// ---- pointers and contexts ----

#[test]
fn a_host_pointer_instead_of_a_device_pointer() {
    let device = device();
    let kernel = device.function(BASICS, &[], "add");
    let x = device.stream.alloc_zeros::<f32>(8).unwrap();
    let host = [0_f32; 8];
    let address = host.as_ptr() as u64;
    let error = launch!(
        device.stream,
        kernel,
        grid(1, 8, 0),
        &x,
        &address,
        &x,
        &8_i32
    )
    .unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(
        device.sim.last_report().contains("argument 1"),
        "{}",
        device.sim.last_report()
    );
    // cudarc prints the report as part of the error.
    assert!(error.to_string().contains("argument 1"), "{error}");
}

#[test]
fn use_after_free() {
    let device = device();
    let kernel = device.function(BASICS, &[], "add");
    let mut x = device.stream.alloc_zeros::<f32>(8).unwrap();
    let stale = {
        use cudarc::driver::DevicePtr;
        let gone = device.stream.alloc_zeros::<f32>(8).unwrap();
        gone.device_ptr(&device.stream).0
    };
    device.stream.synchronize().unwrap();
    let error = launch!(
        device.stream,
        kernel,
        grid(1, 8, 0),
        &stale,
        &stale,
        &mut x,
        &8_i32
    )
    .unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn addresses_outside_all_allocations() {
    let device = device();
    let module = device.module(BUGS, &[]);
    let (with, without) = (
        module.load_function("write_to").unwrap(),
        module.load_function("write_to_without_barrier").unwrap(),
    );
    for barrier in [true, false] {
        // A null pointer may be passed, but not dereferenced.
        if barrier {
            launch!(device.stream, with, grid(1, 32, 0), &0_u64, &1_i32).unwrap();
        } else {
            launch!(device.stream, without, grid(1, 32, 0), &0_u64).unwrap();
        }
        let (code, report) = device.failure();
        assert_eq!(code, Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert!(
            report.contains("write_to")
                && report.contains("thread (5,0,0)")
                && report.contains("0x14"),
            "{report}"
        );
        device.sim.clear_error();
    }
    let mut x = device.stream.alloc_zeros::<f32>(32).unwrap();
    launch!(device.stream, with, grid(1, 32, 0), &mut x, &1_i32).unwrap();
    assert_eq!(device.stream.clone_dtoh(&x).unwrap()[5], 1.0);
}

#[test]
fn stack_overflow() {
    let device = device();
    let recurse = device.function(BUGS, &[], "recurse");
    let mut x = device.stream.alloc_zeros::<i32>(33).unwrap();
    launch!(device.stream, recurse, grid(1, 32, 0), &mut x, &10_i32).unwrap();
    assert_eq!(device.stream.clone_dtoh(&x).unwrap()[31], 55);
    launch!(device.stream, recurse, grid(1, 32, 0), &mut x, &100_000_i32).unwrap();
    assert_eq!(
        device.failure().0,
        Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS)
    );
}

#[test]
fn a_failed_kernel_invalidates_the_context_until_the_error_is_cleared() {
    let device = device();
    let kernel = device.function(BUGS, &[], "branches");
    let mut x = device.stream.alloc_zeros::<f32>(32).unwrap();
    launch!(device.stream, kernel, grid(1, 32, 0), &mut x, &0_i32).unwrap();
    assert!(device.stream.synchronize().is_err());
    assert!(device.stream.alloc_zeros::<f32>(1).is_err());
    assert!(device.context.synchronize().is_err());
    device.sim.clear_error();
    launch!(device.stream, kernel, grid(1, 32, 0), &mut x, &1_i32).unwrap();
    assert_eq!(device.stream.clone_dtoh(&x).unwrap()[15..17], [1.0, 2.0]);
    assert_eq!(device.sim.last_report(), "");
}
