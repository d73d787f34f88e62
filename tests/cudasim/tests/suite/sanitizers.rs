//! Programs that AddressSanitizer and ThreadSanitizer must report, and programs that they must not.
//! `cargo xtask sanitize` builds the simulator for one of them, runs each test in its own process
//! and reads the reports. Without it, these tests prove nothing.

use crate::common::programs::{
    BASICS, BUGS, PERSISTENT, PRIMITIVES, elman_is_wrong, lstm_is_wrong, pipeline_is_wrong,
    reduction_is_wrong,
};
use crate::common::{Device, device, grid};
use cudarc::driver::{CudaFunction, DevicePtr};

/// Runs a program under a few schedules: a sanitizer does not depend on luck.
fn run(
    kernel: &str,
    source: &str,
    defines: &[&str],
    program: fn(&Device, &CudaFunction) -> bool,
) -> bool {
    let device = device();
    let kernel = device.function(source, defines, kernel);
    let wrong = |&seed: &u64| {
        device.sim.set_seed(seed);
        program(&device, &kernel)
    };
    (0..4).filter(wrong).count() > 0
}

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn correct_programs() {
    assert!(!run("partial_sums", BASICS, &[], reduction_is_wrong));
    assert!(!run("elman", PERSISTENT, &[], elman_is_wrong));
    assert!(!run("lstm_forward", PERSISTENT, &[], lstm_is_wrong));
    assert!(!run("pipeline", PRIMITIVES, &[], pipeline_is_wrong));
    mistake("count", "right");
    mistake("read_after_write", "right");
    mistake("write_one_too_many", "right");
    mistake("read_one_too_many", "right");
}

/// Runs a kernel of `bugs.cu`, with or without its bug.
fn mistake(kernel: &str, which: &str) {
    let device = device();
    let function = device.function(BUGS, &[], kernel);
    let mut x = device.stream.alloc_zeros::<f32>(100).unwrap();
    let mut y = device.stream.alloc_zeros::<f32>(100).unwrap();
    let (count, right) = (100_i32, i32::from(which == "right"));
    match kernel {
        "count" => launch!(device.stream, function, grid(4, 25, 0), &mut x, &right).unwrap(),
        "read_after_write" => launch!(
            device.stream,
            function,
            grid(1, 100, 0),
            &mut x,
            &mut y,
            &right
        )
        .unwrap(),
        "write_one_too_many" => launch!(
            device.stream,
            function,
            grid(1, 128, 0),
            &mut x,
            &count,
            &right
        )
        .unwrap(),
        _ => launch!(
            device.stream,
            function,
            grid(1, 128, 0),
            &x,
            &mut y,
            &count,
            &right
        )
        .unwrap(),
    }
    device.stream.synchronize().unwrap();
}

// ---- for AddressSanitizer ----

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn write_out_of_bounds() {
    mistake("write_one_too_many", "wrong");
}

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn read_out_of_bounds() {
    mistake("read_one_too_many", "wrong");
}

/// The check of arguments does not see a pointer that is stored in device memory.
#[test]
#[ignore = "run by cargo xtask sanitize"]
fn use_after_free() {
    let device = device();
    let source = "extern \"C\" __global__ void through(float** at) { (*at)[threadIdx.x] = 1.f; }";
    let through = device.function(source, &[], "through");
    let gone = device.stream.alloc_zeros::<f32>(32).unwrap();
    let address = gone.device_ptr(&device.stream).0;
    let at = device.stream.clone_htod(&[address]).unwrap();
    drop(gone);
    launch!(device.stream, through, grid(1, 32, 0), &at).unwrap();
    device.stream.synchronize().unwrap();
}

// ---- for ThreadSanitizer ----

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn reduction_without_barrier() {
    run(
        "partial_sums",
        BASICS,
        &["BUG_NO_BARRIER"],
        reduction_is_wrong,
    );
}

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn elman_without_grid_barrier() {
    run(
        "elman",
        PERSISTENT,
        &["BUG_NO_GRID_BARRIER"],
        elman_is_wrong,
    );
}

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn lstm_without_group_barrier() {
    run(
        "lstm_forward",
        PERSISTENT,
        &["BUG_NO_GROUP_BARRIER"],
        lstm_is_wrong,
    );
}

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn lstm_without_closing_barrier() {
    run(
        "lstm_forward",
        PERSISTENT,
        &["BUG_NO_CLOSING_BARRIER"],
        lstm_is_wrong,
    );
}

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn count_without_atomics() {
    mistake("count", "wrong");
}

#[test]
#[ignore = "run by cargo xtask sanitize"]
fn read_after_write_without_barrier() {
    mistake("read_after_write", "wrong");
}
