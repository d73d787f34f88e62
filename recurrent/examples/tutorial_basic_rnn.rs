//! "Basic RNNs" of A. Géron's *Hands-On Machine Learning*, chapter 14: two steps of a network with
//! 3 inputs and 5 units by hand, then the same network under `StaticRnn` and, for sequences of
//! different lengths, under `DynamicRnn`.
//!
//! The weights are those that TensorFlow draws in the original, `tensorflow/basic_rnn.py`, so both
//! print the same numbers.

use std::error::Error;
use std::io::{Write, stdout};

use recurrent::StaticRnn;
use recurrent::prelude::*;

#[rustfmt::skip]
const WX: [f32; 3 * 5] = [
     1.080044,   -2.473193,  -1.5754302, -0.40005195,  0.4460453,
     0.21750373,  1.0418147, -0.3570879,  0.69083875, -1.7454647,
    -0.14200109, 0.46902257, 0.59408617,  0.09735221,  0.1412782,
];
#[rustfmt::skip]
const WY: [f32; 5 * 5] = [
     0.07774825,  -1.004884, -0.12903629, -0.34402815, 0.3733417,
    -0.28052616,   1.829852, -0.02152471, -0.66816276, 1.0023034,
     0.16697101, -1.9246343,  -1.0795513,   0.5960419, -0.5712712,
    -0.2054353,   0.3206122,  0.76581705,  -1.3108954, 0.57621145,
     0.03707944, -0.8298328, -0.34331727,   1.1552113, 1.0422956,
];

/// Two steps, written out.
fn by_hand(device: &Device, x0: &Tensor, x1: &Tensor) -> recurrent::Result<(Tensor, Tensor)> {
    let wx = Tensor::from_slice(device, &WX, &[3, 5])?;
    let wy = Tensor::from_slice(device, &WY, &[5, 5])?;
    let b = Tensor::zeros(device, &[1, 5])?;
    let y0 = (x0.matmul(&wx)? + &b)?.tanh()?;
    let y1 = (y0.matmul(&wy)? + x1.matmul(&wx)? + &b)?.tanh()?;
    Ok((y0, y1))
}

/// The cell with these weights: the kernel has the rows of `x`, then those of the state.
fn cell(device: &Device) -> recurrent::Result<BasicRnnCell> {
    let mut cell = BasicRnnCell::new(device, 3, 5)?;
    let kernel = Tensor::from_slice(device, &[&WX[..], &WY].concat(), &[3 + 5, 5])?;
    cell.each_param(&mut |name, param| match name {
        "kernel" => param.set(kernel.clone()),
        _ => Ok(()), // the bias is 0
    })?;
    Ok(cell)
}

/// Prints what the original prints.
pub fn tutorial(device: &Device, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    // Step t = 0 and t = 1 of four instances.
    let x0 = [0f32, 1., 2., 3., 4., 5., 6., 7., 8., 9., 0., 1.];
    let x1 = [9f32, 8., 7., 0., 0., 0., 6., 5., 4., 3., 2., 1.];
    let x0 = Tensor::from_slice(device, &x0, &[4, 3])?;
    let x1 = Tensor::from_slice(device, &x1, &[4, 3])?;

    let (y0, y1) = by_hand(device, &x0, &x1)?;
    writeln!(out, "{y0}\n{y1}")?;

    let cell = cell(device)?;
    let rnn = StaticRnn::new(&cell).run(&[x0.clone(), x1.clone()])?;
    writeln!(out, "{}\n{}", rnn.outputs[0], rnn.outputs[1])?;

    // The second instance has one step: its second output is 0, its state that of the first step.
    let x = Tensor::stack(&[&x0, &x1], 1)?;
    let rnn = DynamicRnn::new(&cell)
        .sequence_length(&[2, 1, 2, 2])
        .run(&x)?;
    writeln!(out, "{}\n{}", rnn.outputs, rnn.state)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    tutorial(&Device::from_env()?, &mut stdout())
}
