//! Lists the devices of this machine, and says why there are no more:
//! `cargo run --release --features cuda --example devices`.

use std::time::Instant;

use recurrent::{Backend, Device, Result, Tensor};

/// Multiplies two matrices, which shows that the device works, and reports how long it took.
fn report(device: &Device) -> Result<()> {
    let n = 1024;
    let x = Tensor::full(device, 1.0 / 32.0, &[n, n])?;
    let product = || x.matmul(&x)?.slice(0, 0..1)?.mean_all()?.item();
    // The first one loads what the device needs.
    let started = Instant::now();
    assert!((product()? - 1.0).abs() < 1e-3, "a wrong product");
    let first = started.elapsed();
    let started = Instant::now();
    product()?;
    let second = started.elapsed();
    println!(
        "{}: {device:?}; a product of {n} x {n} takes {second:.1?}, the first one {first:.1?}",
        device.name(),
    );
    Ok(())
}

fn main() -> Result<()> {
    report(&Device::cpu())?;
    for index in 0.. {
        match Device::cuda(index) {
            Ok(gpu) => report(&gpu)?,
            Err(why) => {
                println!("{why}");
                break;
            }
        }
    }
    Ok(())
}
