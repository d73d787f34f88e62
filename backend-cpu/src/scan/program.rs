//! The program of a step: products, and tile instructions between them.

use backend_api::DType;
use backend_api::Meta;
use backend_api::trace::{Operand, StepGraph};

use super::instruction::Instruction;
use super::row_graph::Matrix;

/// A compiled step. Its places have been checked: they lie within their buffers.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) batch: usize,
    pub(super) dtype: DType,
    /// The buffers that places name by number, from 1 on. Buffer 0 is the registers.
    pub(super) buffers: Vec<Buffer>,
    /// The phases of each region, which follow each other.
    pub(super) phases: Vec<Phase>,
    /// The numbers of phases that run ahead of the steps, and before those that run behind them.
    pub(super) ahead: usize,
    pub(super) behind: usize,
    pub(super) constants: Vec<f64>,
    pub(super) matrices: Vec<Matrix>,
    /// Elements of a row of each input, state and output, and of all of each captured tensor.
    pub(super) inputs: Vec<usize>,
    pub(super) states: Vec<usize>,
    pub(super) outputs: Vec<usize>,
    pub(super) captured: Vec<usize>,
    /// Where each new state is written.
    pub(super) carried: Vec<Carried>,
    /// Elements of a row of each scratch buffer.
    pub(super) scratch: Vec<usize>,
    /// The same of each buffer for several steps.
    pub(super) chunks: Vec<usize>,
    /// Elements of the registers for each row of a tile, and the largest number of rows of one.
    pub(super) registers: usize,
    pub(super) tile_rows: usize,
    /// The work of a row, in multiplications.
    pub(super) work: usize,
}

/// Where a new state is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Carried {
    /// To one of two alternating buffers.
    Next,
    /// To an output, from where the next step reads it.
    Output(usize),
}

/// A buffer of a program, and its distance between rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Buffer {
    pub(super) memory: Memory,
    pub(super) row: usize,
}

/// What a buffer of a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Memory {
    /// The register of a value, by its index.
    Register(usize),
    Constants,
    Input(usize),
    Captured(usize),
    /// A state before the step.
    State(usize),
    /// A state after the step.
    Next(usize),
    Output(usize),
    Scratch(usize),
    /// Memory for the rows of several steps.
    Chunk(usize),
}

/// A part of a step.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Product(Product),
    Tile(Vec<Instruction>),
}

impl Phase {
    /// The numbers of the buffers that it uses.
    pub(super) fn buffers(&self) -> Vec<usize> {
        match self {
            Self::Product(product) => vec![product.a.buffer, product.out.buffer],
            Self::Tile(code) => {
                let places = code.iter().flat_map(|i| [i.out].into_iter().chain(i.ins));
                places.map(|place| place.buffer).collect()
            }
        }
    }
}

/// `out = start + a matrix`
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) a: Row,
    pub(super) k: usize,
    pub(super) matrix: usize,
    pub(super) start: Start,
    pub(super) out: Row,
    pub(super) n: usize,
}

/// The start of a row: an offset in each row of a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) buffer: usize,
    pub(super) offset: usize,
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Zero,
    Existing,
    /// A row of a captured tensor, at an offset.
    Bias(usize, usize),
}

/// The products among some phases.
pub(super) fn products(phases: &[Phase]) -> impl Iterator<Item = &Product> + Clone {
    phases.iter().filter_map(|phase| match phase {
        Phase::Product(product) => Some(product),
        Phase::Tile(_) => None,
    })
}

impl Program {
    /// Whether the operands and results of a step have the sizes that the program was compiled for.
    pub(super) fn is_of(&self, graph: &StepGraph) -> bool {
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
