//! Every operation against a naive reference, over random shapes, strides and types.

mod elementwise;
mod moving;
mod random;
mod sums;

use backend_api::DType;
use backend_cpu::Cpu;

use crate::common::Rng;

pub(super) const FLOATS: [DType; 2] = [DType::F32, DType::F64];
pub(super) const NUMBERS: [DType; 5] = [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8];
pub(super) const ALL: [DType; 6] = [
    DType::F32,
    DType::F64,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::Bool,
];

pub(super) fn devices() -> [Cpu; 2] {
    [1, 3].map(|threads| Cpu::builder().threads(threads).build().unwrap())
}

/// Runs `test` on both devices with many seeds.
pub(super) fn seeds(count: u64, mut test: impl FnMut(&Cpu, &mut Rng)) {
    for cpu in devices() {
        for seed in 0..count {
            test(&cpu, &mut Rng::new(seed + 1));
        }
    }
}
