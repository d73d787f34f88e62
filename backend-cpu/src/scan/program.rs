//! The program of a step: products, and tile instructions between them.
//!
//! A value has a home: a result's buffer, memory of the thread, or a register of the tile. Products
//! read and write memory. Each segment of instructions follows the products that it needs; values
//! that cross a product are in memory, too.
//!
//! Products that depend on no state run ahead of the steps, and products that no state depends on
//! behind them, with the rows of several steps at a time: a [`Region`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::{Bound, RangeBounds};

use backend_api::trace::{Operand, StepGraph};
use backend_api::{Binary, DType, Meta, Reduce, Unary};
use smallvec::SmallVec;

use super::instruction::{Code, Instruction, Place};
use super::lower::{
    Axes, Matrix, Part, RowGraph, RowValue, RowWork, Source, Span, Term, count, row_major,
};

/// Bytes of a tile's registers, which stay in the first-level cache.
const TILE_BYTES: usize = 20 << 10;
/// The largest number of rows of a tile.
const MOST_TILE_ROWS: usize = 64;
/// The largest number of instructions for one operation.
const MOST_PIECES: usize = 256;
/// Multiplications in whose time an instruction computes one element.
const ELEMENT_WORK: usize = 4;

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

/// A part of a step.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Product(Product),
    Tile(Vec<Instruction>),
}

impl Phase {
    /// The numbers of the buffers that it uses.
    fn buffers(&self) -> Vec<usize> {
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

/// A place of an instruction before registers are assigned.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spot {
    buffer: Buffer,
    offset: usize,
    block: usize,
    column: usize,
}

#[derive(Debug)]
struct Draft {
    code: Code,
    blocks: usize,
    width: usize,
    out: Spot,
    ins: SmallVec<[Spot; 3]>,
}

struct Builder {
    graph: RowGraph,
    /// Uses of each value by values that are used and by results.
    uses: Vec<usize>,
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
    /// The memory of each value, and its offset there.
    home: Vec<Option<(Memory, usize)>>,
    scratch: Vec<usize>,
    chunks: Vec<usize>,
    carried: Vec<Carried>,
    /// Results that are copied.
    copies: Vec<(Span, Memory)>,
    buffers: Vec<Buffer>,
    numbers: HashMap<Buffer, usize>,
}

impl Program {
    /// Whether the operands and results of a step have the sizes that the program was compiled for.
    pub(super) fn is_of(&self, graph: &StepGraph) -> bool {
        let counts = |metas: &[Meta]| metas.iter().map(|m| m.shape.count()).collect::<Vec<_>>();
        let rows = |widths: &[usize]| {
            let counts = widths.iter().map(|width| width.saturating_mul(self.batch));
            counts.collect::<Vec<_>>()
        };
        let outputs: Vec<Meta> = graph.outputs.iter().map(Operand::meta).collect();
        self.batch == graph.batch()
            && counts(&graph.inputs) == rows(&self.inputs)
            && counts(&graph.states) == rows(&self.states)
            && counts(&outputs) == rows(&self.outputs)
            && counts(&graph.captured) == self.captured
    }

    /// # Errors
    /// The step does not fit the instructions.
    pub(super) fn new(graph: RowGraph) -> Result<Self, String> {
        let n = graph.values.len();
        let mut builder = Builder {
            graph,
            uses: vec![0; n],
            level: vec![0; n],
            segment: vec![0; n],
            last: [0; 3],
            region: vec![Region::Step; n],
            early: vec![0; n],
            chunked: vec![false; n],
            home: vec![None; n],
            scratch: Vec::new(),
            chunks: Vec::new(),
            carried: Vec::new(),
            copies: Vec::new(),
            buffers: Vec::new(),
            numbers: HashMap::new(),
        };
        builder.count_uses();
        builder.join_products();
        builder.find_regions();
        builder.find_levels();
        builder.schedule();
        builder.place_results();
        builder.place_values();
        let program = builder.finish()?;
        program
            .verify()
            .ok_or("internal error: a place lies outside its buffer")?;
        Ok(program)
    }
}

/// Calls `f` with each span that a value reads.
fn for_each_span(work: &RowWork, mut f: impl FnMut(&Span)) {
    match work {
        RowWork::Map { ins, .. } => ins.iter().for_each(f),
        RowWork::Product { terms, start } => {
            terms.iter().for_each(|term| f(&term.a));
            start.iter().for_each(f);
        }
        RowWork::Parts { parts, .. } => parts.iter().for_each(|part| f(&part.from)),
    }
}

impl Builder {
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
                for_each_span(&self.graph.values[id].work, |span| {
                    if let Source::Value(operand) = span.source {
                        self.uses[operand] += 1;
                    }
                });
            }
        }
    }

    /// Splits products of a concatenation by operand, where that needs no concatenation, and adds
    /// to products what they are summed with. Finds the levels of the values.
    fn join_products(&mut self) {
        for id in 0..self.graph.values.len() {
            if self.uses[id] == 0 {
                continue;
            }
            self.split_product(id);
            if let Some((terms, start)) = self.joined(id) {
                self.graph.values[id].work = RowWork::Product { terms, start };
            }
            let mut level = 0;
            for_each_span(&self.value(id).work, |span| {
                if let Source::Value(operand) = span.source {
                    level = level.max(self.level[operand]);
                }
            });
            self.level[id] = level + usize::from(self.is_product(id));
        }
    }

    fn split_product(&mut self, id: usize) {
        let RowWork::Product { terms, .. } = &self.value(id).work else {
            return;
        };
        let Some((term, joined)) = terms
            .first()
            .and_then(|term| Some((term, self.whole(&term.a)?)))
        else {
            return;
        };
        let RowWork::Parts {
            parts,
            disjoint: true,
        } = &self.value(joined).work
        else {
            return;
        };
        let is_row = |part: &Part| {
            let source = part.from.source;
            let by_row = !matches!(source, Source::Captured(..) | Source::Constant(_));
            by_row && part.from.is_contiguous() && is_dense(&part.from.axes, &part.strides)
        };
        // Values are computed in place, as parts of the concatenation.
        let in_place = |part: &Part| {
            self.whole(&part.from)
                .is_some_and(|id| !self.is_product(id))
        };
        if self.uses[joined] > 1 || !parts.iter().all(is_row) || parts.iter().all(in_place) {
            return;
        }
        let whole = self.graph.matrices[term.matrix].clone();
        let mut parts = parts.clone();
        parts.sort_by_key(|part| part.at);
        let mut split = SmallVec::new();
        for part in parts {
            let range = part.at..part.at + count(&part.from.axes);
            let Ok(layout) = whole.layout.slice(0, range) else {
                return;
            };
            split.push(Term {
                a: part.from,
                matrix: self.graph.matrix(Matrix {
                    layout,
                    ..whole.clone()
                }),
            });
        }
        self.uses[joined] = 0;
        self.graph.values[id].work = RowWork::Product {
            terms: split,
            start: None,
        };
    }

    /// A sum with a product that is used once, as a product.
    fn joined(&mut self, id: usize) -> Option<(SmallVec<[Term; 2]>, Option<Span>)> {
        let value = self.value(id);
        let RowWork::Map {
            code: Code::Binary(Binary::Add),
            ins,
            ..
        } = &value.work
        else {
            return None;
        };
        let [a, b] = &**ins else { return None };
        let product = |span: &Span| {
            let id = self
                .whole(span)
                .filter(|&i| self.value(i).width == value.width)?;
            let RowWork::Product { terms, start } = &self.value(id).work else {
                return None;
            };
            (self.uses[id] == 1).then_some((id, terms, start))
        };
        let ((first, terms, start), (more, other), mut dead) = match (product(a), product(b)) {
            (Some(a), Some((id, terms, start))) => (a, (&**terms, start.as_ref()), vec![id]),
            (Some(a), None) => (a, (&[][..], Some(b)), vec![]),
            (None, Some(b)) => (b, (&[][..], Some(a)), vec![]),
            (None, None) => return None,
        };
        if start.is_some() && other.is_some() {
            return None;
        }
        if let Some(span) = other
            && dead.is_empty()
            && !self.may_start(span, first, value.width)
        {
            return None;
        }
        let terms = terms.iter().chain(more).cloned().collect();
        let start = start.as_ref().or(other).cloned();
        dead.push(first);
        for id in dead {
            self.uses[id] = 0;
        }
        Some((terms, start))
    }

    /// Whether a product can begin with the value: one row that is captured, or a value that is
    /// computed where the product's result will be.
    fn may_start(&self, span: &Span, product: usize, width: usize) -> bool {
        match span.source {
            Source::Captured(_, 0) => count(&span.axes) == width && span.is_contiguous(),
            Source::Value(id) => {
                self.whole(span).is_some()
                    && self.value(id).width == width
                    && self.uses[id] == 1
                    && !self.is_product(id)
                    && self.level[id] < self.level[product]
            }
            _ => false,
        }
    }

    /// Finds what runs ahead of the steps and what behind them.
    fn find_regions(&mut self) {
        let n = self.uses.len();
        let outputs = self.graph.outputs.len();
        let reads = |builder: &Self, id: usize, f: &mut dyn FnMut(Source)| {
            for_each_span(&builder.value(id).work, |span| f(span.source));
        };
        let mut stateful = vec![false; n];
        let mut needed = vec![false; n];
        for span in &self.graph.results[outputs..] {
            if let Source::Value(id) = span.source {
                needed[id] = true;
            }
        }
        for id in (0..n).rev().filter(|&id| self.uses[id] > 0) {
            if needed[id] {
                reads(self, id, &mut |source| {
                    if let Source::Value(operand) = source {
                        needed[operand] = true;
                    }
                });
            }
        }
        for id in (0..n).filter(|&id| self.uses[id] > 0) {
            let (mut state, mut behind) = (false, false);
            reads(self, id, &mut |source| match source {
                Source::State(_) => state = true,
                Source::Value(operand) => {
                    stateful[id] |= stateful[operand];
                    behind |= self.region[operand] == Region::Behind;
                }
                _ => {}
            });
            stateful[id] |= state;
            let product = self.is_product(id);
            if product && !stateful[id] {
                self.region[id] = Region::Ahead;
            } else if behind || (product && !needed[id] && !state) {
                self.region[id] = Region::Behind;
            }
        }
        // A state is known for one step only, so that nothing that reads one runs behind.
        let mut reads_state = false;
        for id in (0..n).filter(|&id| self.region[id] == Region::Behind) {
            reads(self, id, &mut |source| {
                reads_state |= matches!(source, Source::State(_))
            });
        }
        if reads_state {
            for region in self.region.iter_mut().filter(|r| **r == Region::Behind) {
                *region = Region::Step;
            }
        }
        // What products ahead read is computed ahead.
        for id in (0..n).rev().filter(|&id| self.uses[id] > 0) {
            if self.region[id] == Region::Ahead {
                let mut operands = Vec::new();
                reads(self, id, &mut |source| {
                    if let Source::Value(operand) = source {
                        operands.push(operand);
                    }
                });
                for operand in operands {
                    self.region[operand] = Region::Ahead;
                }
            }
        }
        for id in 0..n {
            if self.uses[id] == 0 {
                continue;
            }
            self.find_early_terms(id);
            self.chunked[id] |= self.region[id] != Region::Step || self.early[id] > 0;
            if self.region[id] == Region::Behind {
                let mut operands = Vec::new();
                reads(self, id, &mut |source| {
                    if let Source::Value(operand) = source {
                        operands.push(operand);
                    }
                });
                for operand in operands {
                    self.chunked[operand] = true;
                }
            }
        }
    }

    /// Of a product in the steps, the terms with an input of the step, or with what is computed
    /// ahead of it, run ahead if nothing comes before them.
    fn find_early_terms(&mut self, id: usize) {
        let region = &self.region;
        if region[id] != Region::Step {
            return;
        }
        let RowWork::Product { terms, start } = &mut self.graph.values[id].work else {
            return;
        };
        if let Some(Source::Value(_)) = start.as_ref().map(|span| span.source) {
            return;
        }
        let is_early = |term: &Term| match term.a.source {
            Source::Input(_) => true,
            Source::Value(id) => region[id] == Region::Ahead,
            _ => false,
        };
        terms.sort_by_key(|term| !is_early(term));
        self.early[id] = terms.iter().filter(|term| is_early(term)).count();
    }

    /// Finds the number of products before each value. All of a region come before the next one's.
    fn find_levels(&mut self) {
        let mut first = 0;
        for region in [Region::Ahead, Region::Step, Region::Behind] {
            let mut last = first;
            for id in 0..self.uses.len() {
                if self.uses[id] == 0 || self.region[id] != region {
                    continue;
                }
                let mut level = first;
                for_each_span(&self.value(id).work, |span| {
                    if let Source::Value(operand) = span.source {
                        level = level.max(self.level[operand]);
                    }
                });
                self.level[id] = level + usize::from(self.is_product(id));
                last = last.max(self.level[id]);
            }
            first = last;
            self.last[region as usize] = last;
        }
    }

    /// Assigns values to segments: as late as their users allow, but results as early as they can
    /// be, so that they need no segment of their own.
    fn schedule(&mut self) {
        for (segment, region) in self.segment.iter_mut().zip(&self.region) {
            *segment = self.last[*region as usize];
        }
        for span in &self.graph.results {
            if let Source::Value(id) = span.source {
                self.segment[id] = self.level[id];
            }
        }
        for id in (0..self.uses.len()).rev() {
            if self.uses[id] == 0 {
                continue;
            }
            let mut limit = self.segment[id];
            if self.is_product(id) {
                self.segment[id] = self.level[id];
                limit = self.level[id] - 1;
            }
            for_each_span(&self.graph.values[id].work, |span| {
                if let Source::Value(operand) = span.source {
                    self.segment[operand] = self.segment[operand].min(limit);
                }
            });
        }
    }

    /// Computes results where they belong. A new state that is an output, too, is read from there.
    fn place_results(&mut self) {
        let outputs = self.graph.outputs.len();
        let results = std::mem::take(&mut self.graph.results);
        for (i, span) in results.into_iter().enumerate() {
            let state = i.checked_sub(outputs);
            let memory = state.map_or(Memory::Output(i), Memory::Next);
            let whole = self.whole(&span);
            let mut carried = Carried::Next;
            match (whole.and_then(|id| self.home[id]), whole) {
                (Some((Memory::Output(output), 0)), _) if state.is_some() => {
                    carried = Carried::Output(output);
                }
                // Only a thread's own memory has its rows of several steps together.
                (None, Some(id)) if !self.chunked[id] => {
                    self.home[id] = Some((memory, 0));
                }
                _ => self.copies.push((span, memory)),
            }
            if state.is_some() {
                self.carried.push(carried);
            }
        }
    }

    /// Finds memory for the values that need it, and computes parts of others in place.
    fn place_values(&mut self) {
        let count = self.graph.values.len();
        let mut in_memory: Vec<bool> = (0..count).map(|id| self.is_product(id)).collect();
        for id in 0..count {
            if self.uses[id] == 0 {
                continue;
            }
            let (product, segment) = (self.is_product(id), self.segment[id]);
            for_each_span(&self.graph.values[id].work, |span| {
                if let Source::Value(operand) = span.source {
                    in_memory[operand] |= product || self.segment[operand] < segment;
                }
            });
        }
        for (span, _) in &self.copies {
            if let Source::Value(id) = span.source {
                in_memory[id] |= self.segment[id] < self.copied_in(span);
            }
        }
        for id in (0..count).rev() {
            if self.uses[id] == 0 {
                continue;
            }
            let home = match self.home[id] {
                Some(home) => home,
                None if in_memory[id] && self.chunked[id] => {
                    self.chunks.push(self.value(id).width);
                    (Memory::Chunk(self.chunks.len() - 1), 0)
                }
                None if in_memory[id] => {
                    self.scratch.push(self.value(id).width);
                    (Memory::Scratch(self.scratch.len() - 1), 0)
                }
                None => (Memory::Register(id), 0),
            };
            self.home[id] = Some(home);
            match &self.graph.values[id].work {
                RowWork::Map { .. } => {}
                RowWork::Product { start, .. } => {
                    if let Some(Source::Value(start)) = start.as_ref().map(|span| span.source) {
                        self.home[start] = Some(home);
                    }
                }
                RowWork::Parts { disjoint, parts } => {
                    let register = matches!(home.0, Memory::Register(_));
                    for part in parts.iter().filter(|_| *disjoint) {
                        let Some(from) = self.whole(&part.from) else {
                            continue;
                        };
                        let known = matches!(home.0, Memory::Chunk(_));
                        let fits = (known || !self.chunked[from])
                            && match register {
                                true => !in_memory[from] && self.segment[from] == self.segment[id],
                                // A product's operand may lie in the same rows.
                                false => !self.is_product(from),
                            };
                        if fits
                            && self.home[from].is_none()
                            && is_dense(&part.from.axes, &part.strides)
                        {
                            self.home[from] = Some((home.0, home.1 + part.at));
                        }
                    }
                }
            }
        }
    }

    /// Elements of a row of a memory.
    fn width(&self, memory: Memory) -> usize {
        match memory {
            Memory::Register(id) => self.value(id).width,
            Memory::Input(i) => self.graph.inputs[i],
            Memory::State(i) | Memory::Next(i) => self.graph.states[i],
            Memory::Output(i) => self.graph.outputs[i],
            Memory::Scratch(i) => self.scratch[i],
            Memory::Chunk(i) => self.chunks[i],
            Memory::Constants | Memory::Captured(_) => 0,
        }
    }

    fn buffer(&self, memory: Memory) -> Buffer {
        Buffer {
            memory,
            row: self.width(memory),
        }
    }

    /// The buffer of a source, and its offset there.
    fn source(&self, source: Source) -> (Buffer, usize) {
        let (memory, offset) = match source {
            Source::Value(id) => self.home[id].unwrap_or((Memory::Register(id), 0)),
            Source::Input(i) => (Memory::Input(i), 0),
            Source::State(i) => (Memory::State(i), 0),
            Source::Captured(i, row) => {
                let memory = Memory::Captured(i);
                return (Buffer { memory, row }, 0);
            }
            Source::Constant(i) => (Memory::Constants, i),
        };
        (self.buffer(memory), offset)
    }

    /// The number of a buffer in places.
    fn number(&mut self, buffer: Buffer) -> usize {
        if let Memory::Register(_) = buffer.memory {
            return 0;
        }
        *self.numbers.entry(buffer).or_insert_with(|| {
            self.buffers.push(buffer);
            self.buffers.len()
        })
    }

    fn finish(mut self) -> Result<Program, String> {
        let live = |id: &usize| self.uses[*id] > 0;
        let ids: Vec<usize> = (0..self.uses.len()).filter(live).collect();
        let [last_ahead, last_step, last] = self.last;
        let mut segments = vec![Vec::new(); last + 1];
        for &id in &ids {
            segments[self.segment[id]].push(id);
        }
        let mut phases = Vec::new();
        let (mut ahead, mut behind) = (0, 0);
        let mut tiles = Vec::new();
        let mut work = 0usize;
        for (i, segment) in segments.iter().enumerate() {
            for &id in segment {
                let terms = self.early[id]..;
                self.products(id, terms, &mut phases, &mut work);
            }
            if i == last_ahead {
                for &id in &ids {
                    let terms = ..self.early[id];
                    self.products(id, terms, &mut phases, &mut work);
                }
                ahead = phases.len();
            }
            let ids = segment;
            let drafts = self.segment_code(i, ids)?;
            if !drafts.is_empty() {
                phases.push(Phase::Tile(Vec::new()));
                tiles.push(drafts);
            }
            if i == last_step {
                behind = phases.len();
            }
        }
        let registers: Vec<Registers> = tiles.iter().map(|t| Registers::new(t, &self)).collect();
        let most = registers.iter().map(|r| r.size).max().unwrap_or(0);
        let bytes = most.max(1).saturating_mul(self.graph.dtype.size());
        let most_rows = self.graph.batch.clamp(1, MOST_TILE_ROWS);
        let tile_rows = (TILE_BYTES / bytes).clamp(1, most_rows);
        let mut code = tiles.iter().zip(&registers).map(|(drafts, registers)| {
            let instructions = drafts.iter().map(|draft| {
                let elements = draft.blocks.saturating_mul(draft.width);
                work = work.saturating_add(elements.saturating_mul(ELEMENT_WORK));
                self.instruction(draft, registers, tile_rows)
            });
            instructions.collect::<Vec<_>>()
        });
        let mut code = code.by_ref().collect::<Vec<_>>().into_iter();
        for phase in &mut phases {
            if let Phase::Tile(instructions) = phase {
                *instructions = code.next().unwrap_or_default();
            }
        }
        let Self { graph, buffers, .. } = self;
        Ok(Program {
            batch: graph.batch,
            dtype: graph.dtype,
            buffers,
            phases,
            ahead,
            behind,
            constants: graph.constants,
            matrices: graph.matrices,
            inputs: graph.inputs,
            states: graph.states,
            outputs: graph.outputs,
            captured: graph.captured,
            carried: self.carried,
            scratch: self.scratch,
            chunks: self.chunks,
            registers: most,
            tile_rows,
            work: work.max(1),
        })
    }

    /// Appends the products of some terms of a value.
    fn products(
        &mut self,
        id: usize,
        range: impl RangeBounds<usize>,
        phases: &mut Vec<Phase>,
        work: &mut usize,
    ) {
        let value = &self.graph.values[id];
        let RowWork::Product { terms, start } = &value.work else {
            return;
        };
        let n = value.width;
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            _ => 0,
        };
        let mut start = match start.as_ref().map(|span| (span.source, span.offset)) {
            _ if first > 0 => Start::Existing,
            None => Start::Zero,
            Some((Source::Captured(i, _), offset)) => Start::Bias(i, offset),
            Some(_) => Start::Existing,
        };
        let chunked = self.region[id] != Region::Step || first < self.early[id];
        let terms = terms.iter().enumerate();
        let terms = terms.filter(|(i, _)| n > 0 && range.contains(i));
        let terms: Vec<Term> = terms.map(|(_, term)| term.clone()).collect();
        let (out, offset) = self.source(Source::Value(id));
        let out = Row {
            buffer: self.number(out),
            offset,
        };
        for term in terms {
            let k = count(&term.a.axes);
            *work = work.saturating_add(k.saturating_mul(n));
            let (a, offset) = self.source(term.a.source);
            let a = Row {
                buffer: self.number(a),
                offset: offset + term.a.offset,
            };
            let matrix = Matrix {
                chunked,
                ..self.graph.matrices[term.matrix]
            };
            phases.push(Phase::Product(Product {
                a,
                k,
                matrix: self.graph.matrix(matrix),
                start,
                out,
                n,
            }));
            start = Start::Existing;
        }
    }

    /// The instructions of a segment.
    fn segment_code(&mut self, segment: usize, ids: &[usize]) -> Result<Vec<Draft>, String> {
        let mut code = Vec::new();
        let mut fused = HashMap::new();
        for &id in ids {
            self.fuse(id, &mut fused);
        }
        for &id in ids {
            let value = &self.graph.values[id];
            let (home, offset) = self.source(Source::Value(id));
            match &value.work {
                RowWork::Product { .. } => {}
                // A part of another instruction.
                RowWork::Map { .. } if matches!(fused.get(&id), Some(None)) => {}
                RowWork::Map {
                    code: plain,
                    axes,
                    ins,
                } => {
                    let (kind, ins) = match fused.get(&id) {
                        Some(Some((kind, ins))) => (*kind, ins),
                        _ => (*plain, ins),
                    };
                    let results = match kind {
                        Code::Reduce(_) | Code::Dot => {
                            let mut strides = row_major(&axes[..axes.len() - 1]);
                            strides.push(0);
                            strides
                        }
                        _ => row_major(axes),
                    };
                    let out = (home, offset, &results);
                    self.emit(kind, axes, out, ins, &mut code)?;
                }
                RowWork::Parts { parts, .. } => {
                    for part in parts {
                        let (from, at) = self.source(part.from.source);
                        let in_place = from == home
                            && at + part.from.offset == offset + part.at
                            && part.from.strides == part.strides;
                        if !in_place {
                            let out = (home, offset + part.at, &part.strides);
                            let ins = std::slice::from_ref(&part.from);
                            self.emit(Code::Copy, &part.from.axes, out, ins, &mut code)?;
                        }
                    }
                }
            }
        }
        for (span, memory) in &self.copies {
            if self.copied_in(span) == segment {
                let out = (self.buffer(*memory), 0, &row_major(&span.axes));
                let ins = std::slice::from_ref(span);
                self.emit(Code::Copy, &span.axes, out, ins, &mut code)?;
            }
        }
        Ok(code)
    }

    /// The segment that copies a result: not ahead of the steps, where no state is known.
    fn copied_in(&self, span: &Span) -> usize {
        let computed = match span.source {
            Source::Value(id) => self.segment[id],
            _ => 0,
        };
        computed.max(self.last[Region::Ahead as usize])
    }

    /// Makes one instruction of a product that is used once and what is done with it: the entry of
    /// the latter is the new instruction, and that of the product is `None`.
    fn fuse(&self, id: usize, fused: &mut HashMap<usize, Option<(Code, SmallVec<[Span; 3]>)>>) {
        let RowWork::Map { code, axes, ins } = &self.value(id).work else {
            return;
        };
        // The operands of a product that can be computed with this instruction.
        let product = |span: &Span| {
            let from = self.whole(span).filter(|_| span.axes == *axes)?;
            let alone = self.uses[from] == 1
                && self.segment[from] == self.segment[id]
                && self.home[from] == Some((Memory::Register(from), 0));
            match &self.value(from).work {
                RowWork::Map {
                    code: kind,
                    axes: own,
                    ins,
                } if alone && own == axes && !fused.contains_key(&from) => match kind {
                    Code::Binary(Binary::Mul) => Some((from, [ins[0].clone(), ins[1].clone()])),
                    Code::Unary(Unary::Square) => Some((from, [ins[0].clone(), ins[0].clone()])),
                    _ => None,
                },
                _ => None,
            }
        };
        let three = |[a, b]: [Span; 2], c: &Span| SmallVec::from([a, b, c.clone()]);
        let found = match (code, &**ins) {
            (Code::Binary(Binary::Add), [a, b]) => product(a)
                .map(|(id, ab)| (id, Code::MulAdd, three(ab, b)))
                .or_else(|| product(b).map(|(id, ab)| (id, Code::MulAdd, three(ab, a)))),
            (Code::Binary(Binary::Sub), [a, b]) => product(a)
                .map(|(id, ab)| (id, Code::MulSub, three(ab, b)))
                .or_else(|| product(b).map(|(id, ab)| (id, Code::SubMul, three(ab, a)))),
            (Code::Reduce(Reduce::Sum), [x]) => {
                product(x).map(|(id, ab)| (id, Code::Dot, ab.into_iter().collect()))
            }
            _ => None,
        };
        if let Some((from, code, ins)) = found {
            fused.insert(from, None);
            fused.insert(id, Some((code, ins)));
        }
    }

    /// Appends the instructions that compute `code` for all indices of `axes`.
    fn emit(
        &self,
        code: Code,
        axes: &Axes,
        (home, offset, strides): (Buffer, usize, &Axes),
        ins: &[Span],
        drafts: &mut Vec<Draft>,
    ) -> Result<(), String> {
        if count(axes) == 0 {
            return Ok(());
        }
        let reduces = matches!(code, Code::Reduce(_) | Code::Dot);
        let sources: SmallVec<[_; 3]> = ins.iter().map(|span| self.source(span.source)).collect();
        // The lengths, and the strides of the result and the operands.
        let mut loops: SmallVec<[(usize, [usize; 4]); 8]> = SmallVec::new();
        for (i, &len) in axes.iter().enumerate() {
            let columns = reduces && i + 1 == axes.len();
            let mut by = [0; 4];
            by[0] = strides[i];
            for (by, span) in by[1..].iter_mut().zip(ins) {
                *by = span.strides[i];
            }
            match loops.last_mut() {
                _ if len == 1 && !columns => {}
                Some((n, outer)) if !columns && (0..4).all(|k| outer[k] == by[k] * len) => {
                    (*n, *outer) = (*n * len, by);
                }
                _ => loops.push((len, by)),
            }
        }
        if !reduces {
            // The columns are contiguous in the result.
            match loops.iter().rposition(|(_, by)| by[0] == 1) {
                Some(i) => {
                    let columns = loops.remove(i);
                    loops.push(columns);
                }
                None => loops.push((1, [1, 0, 0, 0])),
            }
        }
        while loops.len() < 2 {
            loops.insert(0, (1, [0; 4]));
        }
        let (outer, inner) = loops.split_at(loops.len() - 2);
        let pieces: usize = outer.iter().map(|(n, _)| n).product();
        if pieces > MOST_PIECES {
            return Err(format!(
                "an operation on {axes:?} needs {pieces} instructions"
            ));
        }
        let (blocks, width) = (inner[0].0, inner[1].0);
        for piece in 0..pieces {
            let (mut rest, mut at) = (piece, [0; 4]);
            for (n, by) in outer.iter().rev() {
                for (at, by) in at.iter_mut().zip(by) {
                    *at += rest % n * by;
                }
                rest /= n;
            }
            let spot = |k: usize, buffer, offset: usize| Spot {
                buffer,
                offset: offset + at[k],
                block: inner[0].1[k],
                column: inner[1].1[k],
            };
            let mut out = spot(0, home, offset);
            if reduces {
                out.column = 1;
            }
            let sources = ins.iter().zip(&sources).enumerate();
            drafts.push(Draft {
                code,
                blocks,
                width,
                out,
                ins: sources
                    .map(|(k, (span, (buffer, start)))| spot(k + 1, *buffer, start + span.offset))
                    .collect(),
            });
        }
        Ok(())
    }

    fn instruction(&mut self, draft: &Draft, registers: &Registers, rows: usize) -> Instruction {
        let mut place = |spot: &Spot| Place {
            buffer: self.number(spot.buffer),
            offset: match spot.buffer.memory {
                Memory::Register(id) => registers.at[&id] * rows + spot.offset,
                _ => spot.offset,
            },
            row: spot.buffer.row,
            block: spot.block,
            column: spot.column,
        };
        let out = place(&draft.out);
        let mut ins = [out; 3];
        for (to, spot) in ins.iter_mut().zip(&draft.ins) {
            *to = place(spot);
        }
        Instruction {
            code: draft.code,
            blocks: draft.blocks,
            width: draft.width,
            out,
            ins,
        }
    }
}

/// Whether strides are row-major without gaps.
fn is_dense(axes: &[usize], strides: &[usize]) -> bool {
    let wanted = row_major(axes);
    let mut all = axes.iter().zip(strides.iter().zip(&wanted));
    all.all(|(&len, (stride, wanted))| len == 1 || stride == wanted)
}

/// The registers of a segment.
struct Registers {
    /// The offset of each value's register, in elements of a row.
    at: HashMap<usize, usize>,
    size: usize,
}

impl Registers {
    /// Assigns registers by the time between the first and the last instruction that use them.
    fn new(code: &[Draft], builder: &Builder) -> Self {
        let register = |spot: &Spot| match spot.buffer.memory {
            Memory::Register(id) => Some(id),
            _ => None,
        };
        let mut last = HashMap::new();
        for (i, draft) in code.iter().enumerate() {
            for spot in draft.ins.iter().chain([&draft.out]) {
                register(spot).map(|id| last.insert(id, i));
            }
        }
        let mut registers = Self {
            at: HashMap::new(),
            size: 0,
        };
        // Registers that are not in use, by size.
        let mut free: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, draft) in code.iter().enumerate() {
            let mut ended: SmallVec<[usize; 3]> = draft.ins.iter().filter_map(register).collect();
            ended.sort_unstable();
            ended.dedup();
            ended.retain(|id| last[id] == i && Some(*id) != register(&draft.out));
            let mut release = |registers: &Self, id: usize| {
                let at = registers.at[&id];
                free.entry(builder.value(id).width).or_default().push(at);
            };
            // An operand at the same place ends before the result begins, the others after it.
            let same_place = |id: usize| {
                let reads = draft.ins.iter().filter(|spot| register(spot) == Some(id));
                let same = |spot: &Spot| {
                    (spot.offset, spot.block, spot.column)
                        == (draft.out.offset, draft.out.block, draft.out.column)
                };
                register(&draft.out)
                    .is_some_and(|out| builder.value(out).width == builder.value(id).width)
                    && !matches!(draft.code, Code::Reduce(_) | Code::Dot)
                    && reads.into_iter().all(same)
            };
            let (now, later): (SmallVec<[usize; 3]>, SmallVec<[usize; 3]>) =
                ended.into_iter().partition(|&id| same_place(id));
            now.into_iter().for_each(|id| release(&registers, id));
            if let Some(id) = register(&draft.out)
                && !registers.at.contains_key(&id)
            {
                let width = builder.value(id).width;
                let known = free.get_mut(&width).and_then(Vec::pop);
                let at = known.unwrap_or(registers.size);
                registers.size += if known.is_none() { width } else { 0 };
                registers.at.insert(id, at);
            }
            let mut release = |id: usize| {
                let at = registers.at[&id];
                free.entry(builder.value(id).width).or_default().push(at);
            };
            later.into_iter().for_each(&mut release);
            // A result that nothing reads, such as of a part of a dead value.
            if let Some(id) = register(&draft.out)
                && last[&id] == i
            {
                release(id);
            }
        }
        registers
    }
}

impl Program {
    /// Checks that all places lie in their buffers, for all rows: what the unsafe code of the
    /// interpreter and of the driver relies on.
    fn verify(&self) -> Option<()> {
        for buffer in &self.buffers {
            let width = self.size(buffer.memory);
            let by_row = match buffer.memory {
                Memory::Constants => buffer.row == 0,
                Memory::Captured(_) => true,
                Memory::Register(_) => false,
                _ => buffer.row == width?,
            };
            by_row.then_some(())?;
        }
        (self.carried.len() == self.states.len()).then_some(())?;
        for (carried, &width) in self.carried.iter().zip(&self.states) {
            if let Carried::Output(output) = *carried {
                (*self.outputs.get(output)? == width).then_some(())?;
            }
        }
        (self.ahead <= self.behind && self.behind <= self.phases.len()).then_some(())?;
        let (ahead, rest) = self.phases.split_at(self.ahead);
        let behind = &rest[self.behind - self.ahead..];
        let chunked = ahead.iter().chain(behind);
        chunked
            .flat_map(Phase::buffers)
            .all(|buffer| self.is_of_all_steps(buffer))
            .then_some(())?;
        for phase in &self.phases {
            match phase {
                Phase::Product(product) => self.verify_product(product)?,
                Phase::Tile(code) => {
                    for instruction in code {
                        let Instruction {
                            blocks,
                            width,
                            out,
                            ins,
                            ..
                        } = instruction;
                        let reduces = matches!(instruction.code, Code::Reduce(_) | Code::Dot);
                        let columns = if reduces { 1 } else { *width };
                        self.verify_place(out, *blocks, columns)?;
                        self.is_written(out.buffer).then_some(())?;
                        let (read, unused) = ins.split_at(operands(&instruction.code));
                        for place in read {
                            self.verify_place(place, *blocks, *width)?;
                        }
                        unused.iter().all(|place| place == out).then_some(())?;
                    }
                }
            }
        }
        Some(())
    }

    /// Whether a buffer's rows are known for several steps at a time.
    fn is_of_all_steps(&self, buffer: usize) -> bool {
        let memory = buffer.checked_sub(1).map(|i| self.buffers.get(i));
        !matches!(
            memory.map(|buffer| buffer.map(|buffer| buffer.memory)),
            Some(None | Some(Memory::State(_) | Memory::Next(_) | Memory::Scratch(_)))
        )
    }

    /// Elements of a row of a memory, or of all of it if it has no rows.
    fn size(&self, memory: Memory) -> Option<usize> {
        let all = match memory {
            Memory::Register(_) => return None,
            Memory::Constants => return Some(self.constants.len()),
            Memory::Input(i) => return self.inputs.get(i).copied(),
            Memory::State(i) => return self.states.get(i).copied(),
            Memory::Captured(i) => return self.captured.get(i).copied(),
            Memory::Next(i) => (&self.states, i),
            Memory::Output(i) => (&self.outputs, i),
            Memory::Scratch(i) => (&self.scratch, i),
            Memory::Chunk(i) => (&self.chunks, i),
        };
        all.0.get(all.1).copied()
    }

    /// Whether instructions may write to a buffer.
    fn is_written(&self, buffer: usize) -> bool {
        let Some(index) = buffer.checked_sub(1) else {
            return true;
        };
        self.buffers
            .get(index)
            .is_some_and(|buffer| match buffer.memory {
                Memory::Next(i) => self.carried.get(i) == Some(&Carried::Next),
                Memory::Output(_) | Memory::Scratch(_) | Memory::Chunk(_) => true,
                _ => false,
            })
    }

    fn verify_place(&self, place: &Place, blocks: usize, columns: usize) -> Option<()> {
        let last = |count: usize, stride: usize| count.checked_sub(1)?.checked_mul(stride);
        let inner = place
            .offset
            .checked_add(last(blocks, place.block)?)?
            .checked_add(last(columns, place.column)?)?;
        let (end, limit) = match place.buffer.checked_sub(1) {
            None => {
                let rows = last(self.tile_rows, place.row)?;
                let limit = self.registers.checked_mul(self.tile_rows)?;
                (inner.checked_add(rows)?, limit)
            }
            Some(index) => {
                let buffer = self.buffers.get(index)?;
                (place.row == buffer.row).then_some(())?;
                self.row_end(buffer, inner)?
            }
        };
        (end < limit).then_some(())
    }

    /// The last element that a place reaches, and the number of elements: of a row, or for captured
    /// tensors of all.
    fn row_end(&self, buffer: &Buffer, inner: usize) -> Option<(usize, usize)> {
        let end = match buffer.memory {
            Memory::Captured(_) => {
                let rows = self.batch.saturating_sub(1).checked_mul(buffer.row)?;
                inner.checked_add(rows)?
            }
            _ => inner,
        };
        Some((end, self.size(buffer.memory)?))
    }

    fn verify_product(&self, product: &Product) -> Option<()> {
        let Product {
            a,
            k,
            matrix,
            start,
            out,
            n,
        } = product;
        let matrix = self.matrices.get(*matrix)?;
        let shape = matrix.layout.shape();
        (shape.dims() == [*k, *n]).then_some(())?;
        let size = *self.captured.get(matrix.captured)?;
        let ends = shape.dims().iter().zip(matrix.layout.strides());
        let mut last = matrix.layout.offset();
        for (len, stride) in ends {
            last = last.checked_add(len.saturating_sub(1).checked_mul(*stride)?)?;
        }
        (last < size || shape.count() == 0).then_some(())?;
        if let Start::Bias(captured, offset) = *start {
            (offset.checked_add(*n)? <= *self.captured.get(captured)?).then_some(())?;
        }
        let buffer = |row: &Row| self.buffers.get(row.buffer.checked_sub(1)?);
        let (from, to) = (buffer(a)?, buffer(out)?);
        let has_rows = !matches!(from.memory, Memory::Captured(_) | Memory::Constants);
        (has_rows && self.is_written(out.buffer) && from != to).then_some(())?;
        (a.offset.checked_add(*k)? <= self.size(from.memory)?).then_some(())?;
        (out.offset.checked_add(*n)? <= self.size(to.memory)?).then_some(())
    }
}

/// The number of operands of an instruction.
fn operands(code: &Code) -> usize {
    match code {
        Code::Copy | Code::Affine { .. } | Code::Clamp { .. } => 1,
        Code::Unary(_) | Code::Reduce(_) => 1,
        Code::Binary(_) | Code::Compare(_) | Code::ActivationGrad(_) | Code::Dot => 2,
        Code::Select | Code::MulAdd | Code::SubMul | Code::MulSub => 3,
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} registers and {} elements of scratch a row, tiles of {} rows",
            self.registers,
            self.scratch.iter().sum::<usize>(),
            self.tile_rows
        )?;
        for (i, phase) in self.phases.iter().enumerate() {
            let chunked = i < self.ahead || i >= self.behind;
            let chunked = if chunked { " for several steps" } else { "" };
            match phase {
                Phase::Product(product) => {
                    let Product { k, n, .. } = product;
                    let out = self.name(product.out.buffer, product.out.offset);
                    let a = self.name(product.a.buffer, product.a.offset);
                    let matrix = self.matrices[product.matrix].captured;
                    write!(f, "{out} = {a} * w{matrix} [{k}, {n}]")?;
                    match product.start {
                        Start::Zero => {}
                        Start::Existing => write!(f, " + {out}")?,
                        Start::Bias(captured, offset) => write!(f, " + w{captured}+{offset}")?,
                    }
                    writeln!(f, "{chunked}")?;
                }
                Phase::Tile(code) => {
                    writeln!(f, "{} instructions{chunked}", code.len())?;
                    for instruction in code {
                        let (code, blocks) = (&instruction.code, instruction.blocks);
                        let out = self.name(instruction.out.buffer, instruction.out.offset);
                        write!(f, "  {blocks}x{} {out} = {code:?}", instruction.width)?;
                        for place in &instruction.ins[..operands(code)] {
                            write!(f, " {}", self.name(place.buffer, place.offset))?;
                            if place.column != 1 {
                                write!(f, "/{}", place.column)?;
                            }
                        }
                        writeln!(f)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Program {
    /// A place in words.
    fn name(&self, buffer: usize, offset: usize) -> String {
        let memory = match buffer.checked_sub(1) {
            None => "r".to_owned(),
            Some(index) => match self.buffers[index].memory {
                Memory::Register(_) => "r".to_owned(),
                Memory::Constants => return format!("{:?}", self.constants[offset]),
                Memory::Input(i) => format!("x{i}"),
                Memory::Captured(i) => format!("w{i}"),
                Memory::State(i) => format!("s{i}"),
                Memory::Next(i) => format!("s{i}'"),
                Memory::Output(i) => format!("y{i}"),
                Memory::Scratch(i) => format!("t{i}"),
                Memory::Chunk(i) => format!("c{i}"),
            },
        };
        format!("{memory}+{offset}")
    }
}
