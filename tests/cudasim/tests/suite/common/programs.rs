//! Programs that several tests run. Each gets its kernel, which may have a bug, and returns whether
//! its result is wrong.

use cudarc::driver::CudaFunction;

use super::{Device, grid, numbers};
use crate::{launch, launch_cooperative};

pub const BASICS: &str = include_str!("../kernels/basics.cu");
pub const BUGS: &str = include_str!("../kernels/bugs.cu");
pub const PERSISTENT: &str = include_str!("../kernels/persistent.cu");
pub const PRIMITIVES: &str = include_str!("../kernels/primitives.cu");

pub fn reduction_is_wrong(device: &Device, kernel: &CudaFunction) -> bool {
    let x = device.stream.clone_htod(&[1_f32; 2048]).unwrap();
    let mut parts = device.stream.alloc_zeros::<f32>(4).unwrap();
    launch!(
        device.stream,
        kernel,
        grid(4, 256, 0),
        &x,
        &mut parts,
        &2048_i32
    )
    .unwrap();
    device.stream.clone_dtoh(&parts).unwrap() != [512.0; 4]
}

pub fn elman_is_wrong(device: &Device, kernel: &CudaFunction) -> bool {
    let (t, b, h, blocks) = (6_usize, 3_usize, 20_usize, 5_u32);
    let (xw, r) = (numbers(t * b * h, 3, 0.5), numbers(h * h, 4, 0.2));
    let (dxw, dr) = (
        device.stream.clone_htod(&xw).unwrap(),
        device.stream.clone_htod(&r).unwrap(),
    );
    // SAFETY: the kernel writes everything that it reads, except the first state, which is written
    // here.
    let mut all = unsafe { device.stream.alloc::<f32>((t + 1) * b * h) }.unwrap();
    device
        .stream
        .memset_zeros(&mut all.slice_mut(..b * h))
        .unwrap();
    let mut counter = device.stream.alloc_zeros::<u32>(1).unwrap();
    let shared = (h.div_ceil(blocks as usize) * h * 4) as u32;
    let (ti, bi, hi) = (t as i32, b as i32, h as i32);
    launch_cooperative!(
        device.stream,
        kernel,
        grid(blocks, 32, shared),
        &dxw,
        &dr,
        &mut all,
        &ti,
        &bi,
        &hi,
        &mut counter
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

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The persistent LSTM with groups of blocks and sequence lengths, compared with a plain loop.
pub fn lstm_is_wrong(device: &Device, kernel: &CudaFunction) -> bool {
    let (t, b, h, rows, units) = (9_usize, 7_usize, 24_usize, 3_usize, 8_usize);
    let (groups, per) = (b.div_ceil(rows), h.div_ceil(units));
    let (xw, r) = (numbers(t * b * 4 * h, 1, 1.0), numbers(h * 4 * h, 2, 0.3));
    let (h0, c0) = (numbers(b * h, 3, 1.0), numbers(b * h, 4, 1.0));
    let lengths = [9_i32, 4, 1, 0, 6, 9, 2];
    let stream = &device.stream;
    let up = |x: &[f32]| stream.clone_htod(x).unwrap();
    let (dxw, dr, dh0, dc0, dl) = (
        up(&xw),
        up(&r),
        up(&h0),
        up(&c0),
        stream.clone_htod(&lengths).unwrap(),
    );
    // SAFETY: the kernel writes every element.
    let fresh = |count| unsafe { stream.alloc::<f32>(count) }.unwrap();
    let (mut y, mut h_last, mut c_last) = (fresh(t * b * h), fresh(b * h), fresh(b * h));
    let mut flags = stream.alloc_zeros::<u32>(groups).unwrap();
    let config = grid(
        (groups * per) as u32,
        32,
        ((h * units * 4 + rows * h) * 4) as u32,
    );
    let sizes = [t, b, h, rows, per, units].map(|n| n as i32);
    launch_cooperative!(
        stream,
        kernel,
        config,
        &dxw,
        &dr,
        &dh0,
        &dc0,
        &dl,
        &mut y,
        &mut h_last,
        &mut c_last,
        &mut flags,
        &sizes[0],
        &sizes[1],
        &sizes[2],
        &sizes[3],
        &sizes[4],
        &sizes[5],
        &1_f32
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
                    let sum: f32 = (0..h)
                        .map(|k| before[i * h + k] * r[k * 4 * h + q * h + j])
                        .sum();
                    xw[(step * b + i) * 4 * h + q * h + j] + sum
                };
                let live = (step as i32) < lengths[i];
                if live {
                    let c = sigmoid(gate(2) + 1.0) * cell[i * h + j]
                        + sigmoid(gate(0)) * gate(1).tanh();
                    cell[i * h + j] = c;
                    state[i * h + j] = sigmoid(gate(3)) * c.tanh();
                }
                wrong |= differs(
                    got_y[(step * b + i) * h + j],
                    if live { state[i * h + j] } else { 0.0 },
                );
            }
        }
    }
    wrong || (0..b * h).any(|i| differs(got_h[i], state[i]) || differs(got_c[i], cell[i]))
}

/// Sums of chunks loaded with asynchronous copies.
pub fn pipeline_is_wrong(device: &Device, kernel: &CudaFunction) -> bool {
    let x = numbers(32 * 7, 1, 1.0);
    let dx = device.stream.clone_htod(&x).unwrap();
    let mut sum = device.stream.alloc_zeros::<f32>(32).unwrap();
    launch!(device.stream, kernel, grid(1, 32, 0), &dx, &mut sum, &7_i32).unwrap();
    let sum = device.stream.clone_dtoh(&sum).unwrap();
    (0..32).any(|i| sum[i] != (0..7).map(|c| x[c * 32 + i]).sum::<f32>())
}
