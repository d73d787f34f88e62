//! Helpers for tests of 16-bit floats, with the `half` crate as the reference.

use backend_api::{DType, Tensor};
use half::{bf16, f16};

use crate::devices::{NAMES, TestDevice, device};

/// The 16-bit floats.
pub const HALVES: [DType; 2] = [DType::F16, DType::Bf16];

/// Runs a test on every device.
pub fn on_devices(test: impl Fn(&str, &TestDevice)) {
    for name in NAMES {
        test(name, &device(name).expect("every machine has the device"));
    }
}

/// The value of a 16-bit pattern.
pub fn number(dtype: DType, bits: u16) -> f32 {
    match dtype {
        DType::F16 => f16::from_bits(bits).to_f32(),
        _ => bf16::from_bits(bits).to_f32(),
    }
}

/// The 16-bit pattern of a rounded number.
pub fn rounded(dtype: DType, x: f32) -> u16 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_bits(),
        _ => bf16::from_f32(x).to_bits(),
    }
}

/// The 16-bit patterns of a tensor.
pub fn bits(t: &Tensor<TestDevice>) -> Vec<u16> {
    let bytes = t.to_bytes().expect("the device is available");
    let words = bytes.as_chunks::<2>().0.iter();
    words.map(|word| u16::from_ne_bytes(*word)).collect()
}
