//! The reader of ONNX models on arbitrary bytes, and what runs of them.

#![no_main]

use backend_api::Tensor;
use backend_cpu::Cpu;
use interchange::onnx::{Dim, Model};
use libfuzzer_sys::fuzz_target;

/// The number of elements that an input, or a result that is larger than its operands, may have.
const LIMIT: usize = 1 << 14;

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = Model::from_bytes(bytes) else {
        return;
    };
    let device = Cpu::new();
    let Ok(session) = model.on(&device) else {
        return;
    };
    let mut inputs = Vec::new();
    for port in model.inputs() {
        let length = |dim: &Dim| match dim {
            Dim::Fixed(n) => *n,
            _ => 2,
        };
        let dims: Vec<usize> = port.dims.iter().flatten().map(length).collect();
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count.is_none_or(|count| count > LIMIT) {
            return;
        }
        let Ok(ones) = Tensor::ones(&device, (&dims[..], port.dtype)) else {
            return;
        };
        inputs.push((&*port.name, ones));
    }
    let inputs: Vec<_> = inputs.iter().map(|(name, x)| (*name, x)).collect();
    if let Ok(outputs) = session.max_elements(LIMIT).run(&inputs) {
        assert_eq!(outputs.len(), model.outputs().len());
    }
});
