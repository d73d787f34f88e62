//! The program of a step: what it computes for each row of the batch, as products with captured
//! matrices and, between them, instructions on the elements of a row.
//!
//! [`compile`] finds what a step computes for one row and makes a [`RowProgram`] of it. Devices
//! translate the program: to numbers that an interpreter runs, or to the source of a kernel.

mod compile;
mod describe;
mod instruction;
mod lower;
mod row_graph;
mod verify;

pub use self::compile::compile;
pub use self::instruction::{Code, Instruction, Place};
pub use self::row_graph::Matrix;

use super::graph::{Operand, StepGraph};
use crate::{DType, Meta};

/// What the device requires of the memory of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A product reads and writes memory anywhere, starts with any row, and the device computes for
    /// a few steps at a time products that need no state, and with few rows all that needs none.
    Any,
    /// The products of a step use the same memory in each step: states and scratch memory. The
    /// device computes for all steps at once what needs no state. Where two products of a step have
    /// the same operand, or are added, their results or operands lie side by side, so that they can
    /// be one product.
    Fixed,
}

/// A compiled step. Its places have been checked: they lie within their buffers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RowProgram {
    /// The batch size.
    pub batch: usize,
    /// The type of all numbers.
    pub dtype: DType,
    /// The phases of each region, which follow each other.
    pub phases: Vec<Phase>,
    /// The numbers of phases that run ahead of the steps, and before those that run behind them.
    pub ahead: usize,
    /// See `ahead`.
    pub behind: usize,
    /// The numbers that instructions name by index.
    pub constants: Vec<f64>,
    /// The right sides of products.
    pub matrices: Vec<Matrix>,
    /// Elements of a row of each input.
    pub inputs: Vec<usize>,
    /// Elements of a row of each state.
    pub states: Vec<usize>,
    /// Elements of a row of each output.
    pub outputs: Vec<usize>,
    /// Elements of all of each captured tensor.
    pub captured: Vec<usize>,
    /// Where each new state is written.
    pub carried: Vec<Carried>,
    /// Elements of a row of each scratch buffer.
    pub scratch: Vec<usize>,
    /// The same of each buffer for several steps.
    pub chunks: Vec<usize>,
}

/// Where a new state is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Carried {
    /// To one of two alternating buffers.
    Next,
    /// To an output, from where the next step reads it.
    Output(usize),
    /// To memory for several steps, for what runs behind them.
    Chunk(usize),
}

/// A buffer of a program, and its distance between rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// What the buffer is.
    pub memory: Memory,
    /// Elements from one row to the next.
    pub row: usize,
}

/// What a buffer of a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// The register of a value, by its index: elements that one phase computes and reads.
    Register(usize),
    /// The constants.
    Constants,
    /// An input of the step.
    Input(usize),
    /// A captured tensor.
    Captured(usize),
    /// A state before the step.
    State(usize),
    /// A state after the step.
    Next(usize),
    /// An output of the step.
    Output(usize),
    /// Memory of one step.
    Scratch(usize),
    /// Memory for the rows of several steps.
    Chunk(usize),
}

/// A part of a step.
#[derive(Clone, Debug)]
pub enum Phase<B = Buffer> {
    /// A product.
    Product(Product<B>),
    /// Instructions, in order.
    Tile(Vec<Instruction<B>>),
}

/// `out = start + a matrix`
#[derive(Clone, Debug)]
pub struct Product<B = Buffer> {
    /// The rows, of `k` elements.
    pub a: Row<B>,
    /// The length of the sums.
    pub k: usize,
    /// The index of the matrix.
    pub matrix: usize,
    /// What the product is added to.
    pub start: Start,
    /// The result, of `n` elements.
    pub out: Row<B>,
    /// The columns of the matrix.
    pub n: usize,
}

/// The start of a row: an offset in each row of a buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<B = Buffer> {
    /// The buffer.
    pub buffer: B,
    /// The offset.
    pub offset: usize,
}

/// What a product is added to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Zeros.
    Zero,
    /// The elements that the result has before.
    Existing,
    /// A row of a captured tensor, at an offset.
    Bias(usize, usize),
}

impl<B: Copy> Phase<B> {
    /// The buffers that it uses, some of them several times.
    pub fn buffers(&self) -> Vec<B> {
        match self {
            Self::Product(product) => vec![product.a.buffer, product.out.buffer],
            Self::Tile(code) => {
                let places = code.iter().flat_map(|i| [i.out].into_iter().chain(i.ins));
                places.map(|place| place.buffer).collect()
            }
        }
    }
}

impl RowProgram {
    /// Whether the operands and results of a step have the sizes that the program was compiled for.
    pub fn is_of(&self, graph: &StepGraph) -> bool {
        let count = |meta: &Meta| meta.shape.count();
        let rows = |width: &usize| width.saturating_mul(self.batch);
        let outputs = graph.outputs.iter().map(Operand::meta);
        self.batch == graph.batch()
            && (graph.inputs.iter().map(count)).eq(self.inputs.iter().map(rows))
            && (graph.states.iter().map(count)).eq(self.states.iter().map(rows))
            && outputs
                .map(|meta| count(&meta))
                .eq(self.outputs.iter().map(rows))
            && (graph.captured.iter().map(count)).eq(self.captured.iter().copied())
    }
}
