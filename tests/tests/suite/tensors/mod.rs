//! Tensor methods that are composed of operations: their values on all devices, their gradients,
//! their use in a step, and printing.

mod display;
mod gradients;
mod parts;
mod refusals;
mod traced;
mod values;

use backend_api::{Result, Tensor};
use recurrent_tests::devices::{NAMES, TestDevice, device};

type T = Tensor<TestDevice>;

/// Runs a test on every device.
fn on_all(test: impl Fn(&TestDevice) -> Result<()>) {
    for name in NAMES.into_iter().chain(["reference"]) {
        let on = device(name).and_then(|device| test(&device));
        on.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn f32s(device: &TestDevice, data: &[f32], dims: &[usize]) -> T {
    Tensor::from_slice(device, data, dims).unwrap()
}

/// Compares numbers, of which NaN equals NaN, relative to `1 + |expected|`.
fn close(found: &T, expected: &[f64], tolerance: f64) {
    let found = found.to_f64_vec().unwrap();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        let same = a == b || a.is_nan() && b.is_nan();
        let near = (a - b).abs() <= tolerance * (1.0 + b.abs());
        assert!(same || near, "[{i}]: {a} instead of {b}: {found:?}");
    }
}
