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
