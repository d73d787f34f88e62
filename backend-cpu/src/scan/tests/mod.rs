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
