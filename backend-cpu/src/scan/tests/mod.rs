//! Programs against the graphs' operations, one by one.

mod cells;
mod random;
mod several_steps;

use ::graphs::{Builder, Data, close, fused, reshape, same, scan, scanned, slice, stepwise};
use backend_api::trace::{CompiledStep, Operand, RowSource, RowSum, StepGraph, Value};
use backend_api::{
    Activation, Backend, Binary, DType, Fused, Layout, LstmGates, Meta, Op, Reduce, Shape, Tensor,
    Unary,
};

use super::program::{Phase, compile};
use super::team;
use crate::device::Cpu;

fn cpu(threads: usize) -> Cpu {
    Cpu::builder().threads(threads).amx(false).build().unwrap()
}

/// Data whose inputs at and after a row's length are no numbers.
fn padded(graph: &StepGraph, steps: usize, lengths: Option<Vec<i64>>) -> Data {
    let mut data = Data::new(graph, steps, lengths);
    let batch = graph.batch();
    for (x, meta) in data.inputs.iter_mut().zip(&graph.inputs) {
        let rows = x.chunks_exact_mut(meta.shape.count() / batch);
        for (i, x) in rows.enumerate() {
            let lengths = data.lengths.as_ref();
            if lengths.is_some_and(|all| (i / batch) as i64 >= all[i % batch]) {
                x.fill(f64::NAN);
            }
        }
    }
    data
}

/// Checks that several threads compute the bits of one.
fn check_threads(graph: &StepGraph, data: &Data) {
    for reverse in [false, true] {
        let wanted = fused(&cpu(1), graph, data, reverse).unwrap();
        for threads in 2..5 {
            let found = fused(&cpu(threads), graph, data, reverse).unwrap();
            assert_eq!(found, wanted);
        }
    }
}
