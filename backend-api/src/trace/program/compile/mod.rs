//! From what a step computes for one row to a program.
//!
//! A value has a home: a result's buffer, memory of the thread, or a register of the tile. Products
//! read and write memory. Each segment of instructions follows the products that it needs; values
//! that cross a product are in memory, too.
//!
//! Products that depend on no state run ahead of the steps, and products that no state depends on
//! behind them, with the rows of several steps at a time: a [`Region`]. Where the batch has few
//! rows, all other instructions of which the same is true leave the steps of a [`Target::Any`],
//! too.
//!
//! For [`Target::Fixed`], the steps' products use scratch memory and states only; what is read of
//! them behind the steps is copied. A product may add to a new state in place: rows that have ended
//! then multiply zeros.

mod emit;
mod homes;
mod join;
mod regions;

use std::collections::HashMap;

use super::lower::lower;
use super::row_graph::{RowGraph, RowValue, RowWork, Source, Span};
use super::{Carried, Memory, RowProgram, Target};
use crate::trace::graph::StepGraph;

/// Compiles a step.
///
/// ```
/// use recurrent::backend::trace::program::{Target, compile};
/// use recurrent::backend::trace::{Operand, StepGraph, Value};
/// use recurrent::backend::{DType, Meta, Shape};
///
/// # fn main() -> recurrent::Result<()> {
/// // A step that keeps its state, and whose output it is.
/// let meta = Meta::new(Shape::new(&[2, 3])?, DType::F32);
/// let state = Operand::whole(Value::State(0), meta);
/// let step = StepGraph {
///     states: vec![meta],
///     outputs: vec![state],
///     new_states: vec![state],
///     ..StepGraph::default()
/// };
/// let program = compile(&step, Target::Any).expect("all values are rows");
/// assert_eq!((program.batch, program.outputs), (2, vec![3]));
/// # Ok(()) }
/// ```
///
/// # Errors
/// The node that cannot be part of a program, and why; or the step does not fit the instructions.
pub fn compile(graph: &StepGraph, target: Target) -> Result<RowProgram, String> {
    let mut builder = Builder::new(lower(graph)?, target);
    builder.join_products();
    builder.find_regions();
    builder.find_levels();
    builder.schedule();
    builder.place_results();
    builder.place_joined();
    builder.place_values();
    builder.place_operands();
    let program = builder.finish()?;
    program
        .verify()
        .ok_or("internal error: a place lies outside its buffer")?;
    Ok(program)
}

/// When a value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    /// For several steps at a time, before them.
    Ahead,
    /// Step by step.
    Step,
    /// For several steps at a time, after them.
    Behind,
}

struct Builder {
    target: Target,
    graph: RowGraph,
    /// Uses of each value by values that are used and by results.
    uses: Vec<usize>,
    /// Whether each value depends on a state.
    stateful: Vec<bool>,
    /// The number of products before each value, and the segment that computes it.
    level: Vec<usize>,
    segment: Vec<usize>,
    /// The last level of each [`Region`].
    last: [usize; 3],
    region: Vec<Region>,
    /// For each product that runs in the steps, the number of its first terms that run ahead.
    early: Vec<usize>,
    /// Whether each value has to be known for several steps at a time.
    chunked: Vec<bool>,
    /// Whether a product for several steps computes or reads each value. Such products use the
    /// inputs and a thread's own memory, where its rows of several steps lie together.
    of_products: Vec<bool>,
    /// The memory of each value, and its offset there.
    home: Vec<Option<(Memory, usize)>>,
    scratch: Vec<usize>,
    chunks: Vec<usize>,
    carried: Vec<Carried>,
    /// What is copied, besides being where it is computed.
    copies: Vec<Copied>,
    /// The memory for several steps of products that have fixed memory for one, too.
    kept: HashMap<usize, Memory>,
    /// Products that add to zeros in a state.
    added: Vec<usize>,
    /// The scratch memory with the copied operand of a product, and the offset there: of the
    /// `.1`-th term of a value.
    operands: HashMap<(usize, usize), (usize, usize)>,
}

/// A copy of a span.
struct Copied {
    span: Span,
    memory: Memory,
    offset: usize,
    /// The segment that copies it, unless it is the first in which the span is known.
    segment: Option<usize>,
}

impl Builder {
    fn new(graph: RowGraph, target: Target) -> Self {
        let n = graph.values.len();
        let mut builder = Self {
            target,
            graph,
            uses: vec![0; n],
            stateful: vec![false; n],
            level: vec![0; n],
            segment: vec![0; n],
            last: [0; 3],
            region: vec![Region::Step; n],
            early: vec![0; n],
            chunked: vec![false; n],
            of_products: vec![false; n],
            home: vec![None; n],
            scratch: Vec::new(),
            chunks: Vec::new(),
            carried: Vec::new(),
            copies: Vec::new(),
            kept: HashMap::new(),
            added: Vec::new(),
            operands: HashMap::new(),
        };
        builder.count_uses();
        builder
    }

    fn value(&self, id: usize) -> &RowValue {
        &self.graph.values[id]
    }

    fn is_product(&self, id: usize) -> bool {
        matches!(self.value(id).work, RowWork::Product { .. })
    }

    /// The value of which a span is the whole row.
    fn whole(&self, span: &Span) -> Option<usize> {
        match span.source {
            Source::Value(id) if span.is_whole(self.value(id).width) => Some(id),
            _ => None,
        }
    }

    fn count_uses(&mut self) {
        for span in &self.graph.results {
            if let Source::Value(id) = span.source {
                self.uses[id] += 1;
            }
        }
        for id in (0..self.uses.len()).rev().collect::<Vec<_>>() {
            if self.uses[id] > 0 {
                self.graph.values[id].work.for_each_span(|span| {
                    if let Source::Value(operand) = span.source {
                        self.uses[operand] += 1;
                    }
                });
            }
        }
    }
}
