//! Mistakes planted into kernels and launches: each is found, and the right version passes. What only a sanitizer finds is in
//! `sanitizers.rs`.

mod common;

use common::sys_code::CUresult;
use common::{Device, device, grid, numbers, schedules};
use cudarc::driver::CudaFunction;

const BASICS: &str = include_str!("kernels/basics.cu");
const BUGS: &str = include_str!("kernels/bugs.cu");
const PERSISTENT: &str = include_str!("kernels/persistent.cu");

/// The place in `bugs.cu` that carries this mark, as reports write it.
fn place(mark: &str) -> String {
    let line = BUGS.lines().position(|line| line.ends_with(&format!("// here: {mark}"))).unwrap();
    format!("kernel.cu:{}", line + 1)
}

/// How often a program went wrong under the seeds given.
fn findings(device: &Device, seeds: impl Iterator<Item = u64>, mut wrong: impl FnMut(&Device) -> bool) -> usize {
    seeds
        .filter(|&seed| {
            device.sim.set_seed(seed);
            wrong(device)
        })
        .count()
}

// ---- barriers ----

fn reduction_is_wrong(device: &Device, kernel: &CudaFunction) -> bool {
    let x = device.stream.clone_htod(&[1_f32; 2048]).unwrap();
    let mut parts = device.stream.alloc_zeros::<f32>(4).unwrap();
    launch!(device.stream, kernel, grid(4, 256, 0), &x, &mut parts, &2048_i32).unwrap();
    device.stream.clone_dtoh(&parts).unwrap() != [512.0; 4]
}

#[test]
fn a_barrier_left_out_of_a_reduction() {
    let device = device();
    let kernel = device.function(BASICS, &["BUG_NO_BARRIER"], "partial_sums");
    assert_eq!(findings(&device, schedules(), |device| reduction_is_wrong(device, &kernel)), 32);
    let kernel = device.function(BASICS, &[], "partial_sums");
    assert_eq!(findings(&device, schedules(), |device| reduction_is_wrong(device, &kernel)), 0);
}

fn elman_is_wrong(device: &Device, kernel: &CudaFunction) -> bool {
    let (t, b, h, blocks) = (6_usize, 3_usize, 20_usize, 5_u32);
    let (xw, r) = (numbers(t * b * h, 3, 0.5), numbers(h * h, 4, 0.2));
    let (dxw, dr) = (device.stream.clone_htod(&xw).unwrap(), device.stream.clone_htod(&r).unwrap());
    // SAFETY: the kernel writes what it reads, but for the first state, which is written here.
    let mut all = unsafe { device.stream.alloc::<f32>((t + 1) * b * h) }.unwrap();
    device.stream.memset_zeros(&mut all.slice_mut(..b * h)).unwrap();
    let mut counter = device.stream.alloc_zeros::<u32>(1).unwrap();
    let shared = (h.div_ceil(blocks as usize) * h * 4) as u32;
    let (ti, bi, hi) = (t as i32, b as i32, h as i32);
    launch_cooperative!(
        device.stream, kernel, grid(blocks, 32, shared), &dxw, &dr, &mut all, &ti, &bi, &hi, &mut counter
    )
    .unwrap();
    let got = device.stream.clone_dtoh(&all).unwrap();
    let mut state = vec![0_f32; b * h];
    let mut error = 0_f32;
    for step in 0..t {
        let next: Vec<f32> = (0..b * h)
            .map(|i| {
                let (row, unit) = (i / h, i % h);
                let sum: f32 = (0..h).map(|k| r[unit * h + k] * state[row * h + k]).sum();
                (xw[step * b * h + i] + sum).tanh()
            })
            .collect();
        for i in 0..b * h {
            error = error.max((next[i] - got[(step + 1) * b * h + i]).abs().min(1.0));
            if got[(step + 1) * b * h + i].is_nan() {
                return true;
            }
        }
        state = next;
    }
    error > 1e-5
}

#[test]
fn a_grid_barrier_left_out_of_a_persistent_kernel() {
    let device = device();
    let kernel = device.function(PERSISTENT, &["BUG_NO_GRID_BARRIER"], "elman");
    assert_eq!(findings(&device, schedules(), |device| elman_is_wrong(device, &kernel)), 32);
    let kernel = device.function(PERSISTENT, &[], "elman");
    assert_eq!(findings(&device, schedules(), |device| elman_is_wrong(device, &kernel)), 0);
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The persistent LSTM with groups of blocks and lengths, against a plain loop.
fn lstm_is_wrong(device: &Device, kernel: &CudaFunction) -> bool {
    let (t, b, h, rows, units) = (9_usize, 7_usize, 24_usize, 3_usize, 8_usize);
    let (groups, per) = (b.div_ceil(rows), h.div_ceil(units));
    let (xw, r) = (numbers(t * b * 4 * h, 1, 1.0), numbers(h * 4 * h, 2, 0.3));
    let (h0, c0) = (numbers(b * h, 3, 1.0), numbers(b * h, 4, 1.0));
    let lengths = [9_i32, 4, 1, 0, 6, 9, 2];
    let stream = &device.stream;
    let up = |x: &[f32]| stream.clone_htod(x).unwrap();
    let (dxw, dr, dh0, dc0, dl) = (up(&xw), up(&r), up(&h0), up(&c0), stream.clone_htod(&lengths).unwrap());
    // SAFETY: the kernel writes all of it.
    let fresh = |count| unsafe { stream.alloc::<f32>(count) }.unwrap();
    let (mut y, mut h_last, mut c_last) = (fresh(t * b * h), fresh(b * h), fresh(b * h));
    let mut flags = stream.alloc_zeros::<u32>(groups).unwrap();
    let config = grid((groups * per) as u32, 32, ((h * units * 4 + rows * h) * 4) as u32);
    let sizes = [t, b, h, rows, per, units].map(|n| n as i32);
    launch_cooperative!(
        stream, kernel, config, &dxw, &dr, &dh0, &dc0, &dl, &mut y, &mut h_last, &mut c_last, &mut flags, &sizes[0],
        &sizes[1], &sizes[2], &sizes[3], &sizes[4], &sizes[5], &1_f32
    )
    .unwrap();
    let down = |x| stream.clone_dtoh(x).unwrap();
    let (got_y, got_h, got_c) = (down(&y), down(&h_last), down(&c_last));

    let (mut state, mut cell) = (h0, c0);
    let differs = |got: f32, want: f32| !((got - want).abs() < 1e-5);
    let mut wrong = false;
    for step in 0..t {
        let before = state.clone();
        for i in 0..b {
            for j in 0..h {
                let gate = |q: usize| {
                    let sum: f32 = (0..h).map(|k| before[i * h + k] * r[k * 4 * h + q * h + j]).sum();
                    xw[(step * b + i) * 4 * h + q * h + j] + sum
                };
                let live = (step as i32) < lengths[i];
                if live {
                    let c = sigmoid(gate(2) + 1.0) * cell[i * h + j] + sigmoid(gate(0)) * gate(1).tanh();
                    cell[i * h + j] = c;
                    state[i * h + j] = sigmoid(gate(3)) * c.tanh();
                }
                wrong |= differs(got_y[(step * b + i) * h + j], if live { state[i * h + j] } else { 0.0 });
            }
        }
    }
    wrong || (0..b * h).any(|i| differs(got_h[i], state[i]) || differs(got_c[i], cell[i]))
}

#[test]
fn either_barrier_left_out_of_a_persistent_lstm() {
    let device = device();
    for bug in ["BUG_NO_GROUP_BARRIER", "BUG_NO_CLOSING_BARRIER"] {
        let kernel = device.function(PERSISTENT, &[bug], "lstm_forward");
        // The fixed schedule of seed 0 may be lucky.
        let found = findings(&device, schedules().skip(1), |device| lstm_is_wrong(device, &kernel));
        assert_eq!(found, 31, "{bug}");
    }
    let kernel = device.function(PERSISTENT, &[], "lstm_forward");
    assert_eq!(findings(&device, schedules(), |device| lstm_is_wrong(device, &kernel)), 0);
}

#[test]
fn a_write_that_others_read_without_a_barrier_between() {
    let device = device();
    let kernel = device.function(BUGS, &[], "read_after_write");
    let wrong = |right: i32| {
        move |device: &Device, kernel: &CudaFunction| {
            // SAFETY: the kernel writes all of it.
            let [mut x, mut y] = [(); 2].map(|()| unsafe { device.stream.alloc::<i32>(64) }.unwrap());
            launch!(device.stream, kernel, grid(1, 64, 0), &mut x, &mut y, &right).unwrap();
            let y = device.stream.clone_dtoh(&y).unwrap();
            (0..64).any(|i| y[i as usize] != (i + 1) % 64)
        }
    };
    assert_eq!(findings(&device, schedules(), |device| wrong(0)(device, &kernel)), 32);
    assert_eq!(findings(&device, schedules(), |device| wrong(1)(device, &kernel)), 0);
}

// ---- rules of barriers and collectives ----

/// Runs a kernel with `right` 0 and 1 on 32 numbers under all schedules: the first must be reported each time, with these
/// words, the second never.
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
        assert_eq!(code, Some(CUresult::CUDA_ERROR_LAUNCH_FAILED), "seed {seed}");
        for word in words.iter().chain([&name]) {
            assert!(report.contains(word), "seed {seed}: no `{word}` in: {report}");
        }
        let (code, report) = run(1, seed);
        assert_eq!((code, report.as_str()), (None, ""), "seed {seed}");
    }
}

#[test]
fn barriers_in_two_branches() {
    reported("branches", &["divergent barrier", &place("first branch"), &place("second branch"), "thread ("]);
}

#[test]
fn lanes_that_never_come_to_a_warp_collective() {
    reported("absent_lanes", &["deadlock", &place("half a warp"), "32 threads wait"]);
}

#[test]
fn a_lane_outside_of_its_mask() {
    reported("wrong_mask", &["not named in its own mask", &place("own mask")]);
}

#[test]
fn different_collectives_with_one_mask() {
    reported("mixed_collectives", &["divergent warp collective"]);
}

#[test]
fn waiting_for_a_flag_that_nobody_sets() {
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
fn assertions_of_kernels() {
    let device = device();
    for (name, place) in [("check", place("plain assert")), ("check_behind_a_barrier", place("late assert"))] {
        let kernel = device.function(BUGS, &[], name);
        for (seed, limit) in [(0, 31_i32), (5, 31), (0, 32), (5, 32)] {
            device.sim.clear_error();
            device.sim.set_seed(seed);
            let x = device.stream.clone_htod(&(0..32).collect::<Vec<i32>>()).unwrap();
            launch!(device.stream, kernel, grid(2, 32, 0), &x, &limit).unwrap();
            let (code, report) = device.failure();
            assert_eq!(code.is_some(), limit == 31);
            if limit == 31 {
                assert!(report.contains(&place) && report.contains("thread (31,0,0)"), "{report}");
            }
        }
    }
}

#[test]
fn an_asynchronous_copy_that_nobody_waits_for() {
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
    assert_eq!(findings(&device, schedules(), |device| wrong(device, 0)), 32);
    assert_eq!(findings(&device, schedules(), |device| wrong(device, 1)), 0);
}

// ---- pointers and contexts ----

#[test]
fn a_host_pointer_for_a_device_pointer() {
    let device = device();
    let kernel = device.function(BASICS, &[], "add");
    let x = device.stream.alloc_zeros::<f32>(8).unwrap();
    let host = [0_f32; 8];
    let address = host.as_ptr() as u64;
    let error = launch!(device.stream, kernel, grid(1, 8, 0), &x, &address, &x, &8_i32).unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(device.sim.last_report().contains("argument 1"), "{}", device.sim.last_report());
    // The report is part of what cudarc prints.
    assert!(error.to_string().contains("argument 1"), "{error}");
}

#[test]
fn memory_that_was_freed_already() {
    let device = device();
    let kernel = device.function(BASICS, &[], "add");
    let mut x = device.stream.alloc_zeros::<f32>(8).unwrap();
    let stale = {
        use cudarc::driver::DevicePtr;
        let gone = device.stream.alloc_zeros::<f32>(8).unwrap();
        gone.device_ptr(&device.stream).0
    };
    device.stream.synchronize().unwrap();
    let error = launch!(device.stream, kernel, grid(1, 8, 0), &stale, &stale, &mut x, &8_i32).unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn a_failed_kernel_poisons_the_context_until_it_is_cleared() {
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
