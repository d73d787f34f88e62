//! One thread's share of a scan: all steps of some rows, or, in a team of threads that share rows,
//! some columns of the products and the instructions for some of the rows.
//!
//! This module contains unsafe code: the buffers of a program are outputs that several threads
//! write to, each its own rows, and memory whose parts are operands and results of one product.
//! Slices cannot express that.
#![allow(unsafe_code)]

use std::ops::Range;
use std::slice;

use backend_api::Result;
use smallvec::{SmallVec, smallvec};

use super::barrier::Member;
use super::job::{Columns, Job};
use super::program::{Buffer, Carried, Instruction, Memory, Phase, Product, Row, Start, products};
use super::tile::{self, Rows};
use crate::element::Float;
use crate::product::Accumulate;

/// Elements that parts of a thread's memory are aligned to.
pub(super) const ALIGNED: usize = 16;
/// Rows, of consecutive steps, that products ahead of the steps and behind them take at a time.
const CHUNK_ROWS: usize = 256;

/// Offsets of rows. Those of a few rows need no allocation, which a stream would make in each step.
type Offsets = SmallVec<[usize; 4]>;

/// The layout of the memory for some rows, in elements.
#[derive(Debug)]
pub(super) struct Layout {
    scratch: SmallVec<[usize; 8]>,
    chunks: SmallVec<[usize; 8]>,
    /// Two buffers for each state that is not an output.
    states: SmallVec<[[usize; 2]; 4]>,
    /// Steps of a chunk.
    steps: usize,
    pub(super) size: usize,
}

impl Layout {
    pub(super) fn new<T: Float>(job: &Job<'_, T>, rows: usize) -> Self {
        let program = job.program;
        // A step's state and the next one's may both lie in a chunk.
        let steps = CHUNK_ROWS.div_ceil(rows.max(1)).max(2);
        let steps = steps.min(job.steps).max(1);
        let mut size = 0usize;
        let mut next = |elements: usize| {
            let at = size;
            size += elements.next_multiple_of(ALIGNED);
            at
        };
        let scratch = program.scratch.iter().map(|width| next(rows * width));
        let scratch = scratch.collect();
        let chunks = program.chunks.iter();
        let chunks = chunks.map(|width| next(steps * rows * width)).collect();
        let states = program.states.iter().zip(&program.carried);
        let states = states.map(|(width, carried)| {
            let width = if *carried == Carried::Next { *width } else { 0 };
            [(); 2].map(|()| next(rows * width))
        });
        Self {
            scratch,
            chunks,
            states: states.collect(),
            steps,
            size,
        }
    }

    /// The size of the memory that a thread uses alone: the registers of a tile and, in a team, the
    /// thread's columns of a product.
    pub(super) fn own<T: Float>(
        &self,
        job: &Job<'_, T>,
        columns: &Columns<T>,
        rows: usize,
    ) -> usize {
        let registers = job.program.registers;
        let widest = if job.is_shared() { columns.widest() } else { 0 };
        registers.next_multiple_of(ALIGNED) + self.steps * rows * widest
    }
}

/// The rows that run at a step.
#[derive(Default)]
struct Running {
    /// Ranges of rows, and whether they run for the first time.
    runs: SmallVec<[(Range<usize>, bool); 2]>,
    /// For each product, the offsets of these rows in its operand and in its result; of those that
    /// run for the first time in the second place.
    offsets: Vec<[[Offsets; 2]; 2]>,
}

/// What a team has done since its threads last waited for each other.
#[derive(Clone, Copy, PartialEq)]
enum Since {
    Nothing,
    Products,
    Instructions,
}

/// One thread's share of a scan.
pub(super) struct Part<'j, 'a, T: Float> {
    job: &'j Job<'a, T>,
    rows: Range<usize>,
    /// The rows, counted from the first, whose instructions this thread runs.
    own: Range<usize>,
    columns: &'j Columns<T>,
    /// The thread's membership in a team.
    team: Option<(Member<'j>, Since)>,
    memory: *mut T,
    staging: &'j mut [T],
    layout: &'j Layout,
    /// The first step of the chunk, in order.
    chunk: usize,
    running: Running,
    /// Offsets of the rows of a product of several steps: of its operand and its result. Those of
    /// this thread's columns of a result.
    offsets: [Offsets; 2],
    staged: Offsets,
    /// The registers and the program's buffers at this step, for rows that have run before and for
    /// the others.
    buffers: [SmallVec<[Rows<T>; 16]>; 2],
    /// The same from a later row on.
    tile: SmallVec<[Rows<T>; 16]>,
}

/// The memory of a part: what it may share with the other threads of a team, and its own.
pub(super) struct Room<'j, T> {
    pub(super) layout: &'j Layout,
    pub(super) shared: *mut T,
    pub(super) own: &'j mut [T],
}

impl<'j, 'a, T: Float> Part<'j, 'a, T> {
    /// # Safety
    /// `room.shared` has the elements of the layout. Only this thread uses them, or the threads of
    /// a team with the same rows, of which each has other `own` rows and other columns.
    pub(super) unsafe fn new(
        job: &'j Job<'a, T>,
        (rows, own): (Range<usize>, Range<usize>),
        (columns, team): (&'j Columns<T>, Option<Member<'j>>),
        room: Room<'j, T>,
    ) -> Self {
        let registers = job.program.registers.next_multiple_of(ALIGNED);
        let (registers, staging) = room.own.split_at_mut(registers);
        let registers = Rows {
            at: registers.as_mut_ptr(),
            stride: 0,
        };
        let buffers: SmallVec<[_; 16]> = smallvec![registers; job.buffers.len() + 1];
        Self {
            job,
            rows,
            own,
            columns,
            team: team.map(|member| (member, Since::Nothing)),
            memory: room.shared,
            staging,
            layout: room.layout,
            chunk: 0,
            running: Running::default(),
            offsets: Default::default(),
            staged: Offsets::new(),
            tile: SmallVec::new(),
            buffers: [buffers.clone(), buffers],
        }
    }

    pub(super) fn run(mut self) -> Result<()> {
        let Self { job, .. } = self;
        for r in self.own.clone() {
            if job.length(self.rows.start + r) == 0 {
                self.finish_row(r, None);
            }
        }
        let mut steps = 0..0;
        while steps.end < job.steps {
            steps = steps.end..job.steps.min(steps.end + self.layout.steps);
            self.chunk = steps.start;
            self.many_steps(&job.program.phases[..job.program.ahead], steps.clone())?;
            for i in steps.clone() {
                self.step(i)?;
            }
            self.many_steps(&job.program.phases[job.program.behind..], steps.clone())?;
        }
        if let Some((member, _)) = self.team {
            member.done();
        }
        Ok(())
    }

    /// Waits for the other threads of a team if `next` reads what they computed, or overwrites what
    /// they read: products and instructions share the rows out in different ways.
    fn wait_for(&mut self, next: Since) -> Result<()> {
        match &mut self.team {
            Some((member, since)) if *since != next => {
                if *since != Since::Nothing {
                    member.wait()?;
                }
                *since = next;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The time of the `i`-th step in order.
    fn time(&self, i: usize) -> usize {
        match self.job.reverse {
            true => self.job.steps - 1 - i,
            false => i,
        }
    }

    /// Runs the steps' own phases, and finishes rows that end with the step.
    fn step(&mut self, i: usize) -> Result<()> {
        let Self { job, .. } = *self;
        let t = self.time(i);
        self.find_running(i, t);
        self.clear_ended(t);
        if self.running.runs.is_empty() {
            return Ok(());
        }
        self.find_buffers(t, 0);
        let all = std::mem::take(&mut self.running.offsets);
        let mut offsets = all.iter();
        for phase in &job.program.phases[job.program.ahead..job.program.behind] {
            match phase {
                Phase::Product(product) => {
                    self.wait_for(Since::Products)?;
                    for (first, offsets) in offsets.next().into_iter().flatten().enumerate() {
                        self.product_of_step(product, offsets, first);
                    }
                }
                Phase::Tile(code) => {
                    self.wait_for(Since::Instructions)?;
                    self.run_tiles(code, 0);
                }
            }
        }
        self.running.offsets = all;
        // Rows are finished by the thread that runs their instructions.
        self.wait_for(Since::Instructions)?;
        for r in self.own.clone() {
            let length = job.length(self.rows.start + r);
            let last = if job.reverse {
                t == 0 && length > 0
            } else {
                t + 1 == length
            };
            if last {
                self.finish_row(r, Some((i, t)));
            }
        }
        Ok(())
    }

    /// Runs phases for several steps at a time.
    fn many_steps(&mut self, phases: &[Phase], steps: Range<usize>) -> Result<()> {
        for phase in phases {
            match phase {
                Phase::Product(product) => {
                    self.wait_for(Since::Products)?;
                    self.product_of_steps(product, steps.clone());
                }
                Phase::Tile(code) => {
                    self.wait_for(Since::Instructions)?;
                    if self.own.len() < steps.len() {
                        self.run_steps_of_rows(code, steps.clone());
                        continue;
                    }
                    for i in steps.clone() {
                        let t = self.time(i);
                        self.find_running(i, t);
                        self.find_buffers(t, 1);
                        self.run_tiles(code, 1);
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs instructions for the rows of several steps, with the steps of a row as a tile's rows.
    fn run_steps_of_rows(&mut self, code: &[Instruction], steps: Range<usize>) {
        let ends = [steps.start, steps.end - 1].map(|i| self.time(i));
        let (start, end) = (ends[0].min(ends[1]), ends[0].max(ends[1]) + 1);
        for r in self.own.clone() {
            let times = start..end.min(self.job.length(self.rows.start + r));
            if times.is_empty() {
                continue;
            }
            for &number in &self.job.program.used[1] {
                let buffer = &self.job.buffers[number - 1];
                let stride = match buffer.memory {
                    Memory::Input(k) => self.job.inputs[k].steps,
                    Memory::Output(_) => self.job.program.batch * buffer.row,
                    Memory::Chunk(_) => self.rows.len() * buffer.row,
                    Memory::Captured(_) | Memory::Constants => 0,
                    // A verified program has these in the steps only.
                    _ => continue,
                };
                let at = self.address(buffer, times.clone(), false);
                // SAFETY: the row is one of this thread's.
                let at = unsafe { at.add(r * buffer.row) };
                self.buffers[0][number] = Rows { at, stride };
            }
            self.tiles(code, 0..times.len(), [0, 1]);
        }
    }

    /// Whether a row runs at step `t`, and whether for the first time.
    fn state_of(&self, row: usize, t: usize) -> Option<bool> {
        let length = self.job.length(self.rows.start + row);
        let first = if self.job.reverse {
            t + 1 == length
        } else {
            t == 0
        };
        (t < length).then_some(first)
    }

    /// Finds the rows that run at step `t`, the `i`-th in order.
    fn find_running(&mut self, i: usize, t: usize) {
        // Without lengths, the rows change with the second step only.
        if self.job.lengths.is_none() && i > 1 {
            return;
        }
        let mut runs: SmallVec<[(Range<usize>, bool); 2]> = SmallVec::new();
        for r in 0..self.rows.len() {
            match (self.state_of(r, t), runs.last_mut()) {
                (None, _) => {}
                (Some(first), Some((range, known))) if *known == first && range.end == r => {
                    range.end += 1;
                }
                (Some(first), _) => runs.push((r..r + 1, first)),
            }
        }
        if runs == self.running.runs {
            return;
        }
        self.running.runs = runs;
        let program = self.job.program;
        let products = products(&program.phases[program.ahead..program.behind]);
        let Running { runs, offsets } = &mut self.running;
        offsets.resize_with(products.clone().count(), Default::default);
        for (product, offsets) in products.zip(offsets) {
            for (first, offsets) in offsets.iter_mut().enumerate() {
                for (row, offsets) in [product.a, product.out].into_iter().zip(offsets) {
                    let stride = self.job.buffers[row.buffer - 1].row;
                    let runs = runs.iter().filter(|run| usize::from(run.1) == first);
                    let rows = runs.flat_map(|(range, _)| range.clone());
                    offsets.clear();
                    offsets.extend(rows.map(|r| row.offset + r * stride));
                }
            }
        }
    }

    /// Sets the outputs of rows that do not run to 0.
    fn clear_ended(&self, t: usize) {
        let mut next = self.own.start;
        let end = (self.own.end..self.own.end, false);
        for (range, _) in self.running.runs.iter().chain([&end]) {
            let outputs = self.job.program.outputs.iter().take(self.job.cleared);
            for (i, &width) in outputs.enumerate() {
                for r in next..range.start.min(self.own.end) {
                    let at = (t * self.job.program.batch + self.rows.start + r) * width;
                    // SAFETY: the output has these elements, and only this thread uses them.
                    unsafe {
                        slice::from_raw_parts_mut(self.job.outputs[i].0.add(at), width)
                            .fill(T::ZERO);
                    }
                }
            }
            next = next.max(range.end);
        }
    }

    /// Where this thread's rows of a new state are after step `t`, the `i`-th in order.
    fn state_after(&self, state: usize, i: usize, t: usize) -> *mut T {
        let program = self.job.program;
        // SAFETY: outputs have rows for all steps, and the memory is laid out for the states.
        unsafe {
            match program.carried[state] {
                Carried::Output(output) => {
                    let row = t * program.batch + self.rows.start;
                    self.job.outputs[output]
                        .0
                        .add(row * program.outputs[output])
                }
                Carried::Chunk(k) => self
                    .memory
                    .add(self.layout.chunks[k])
                    .add(self.slot(i) * self.rows.len() * program.chunks[k]),
                Carried::Next => self.memory.add(self.layout.states[state][i % 2]),
            }
        }
    }

    /// Copies the state of row `r` after a step, or the initial one, to its final state.
    fn finish_row(&self, r: usize, step: Option<(usize, usize)>) {
        for (state, &width) in self.job.program.states.iter().enumerate() {
            let row = self.rows.start + r;
            // SAFETY: these are rows of the thread, and the buffers differ.
            unsafe {
                let to = self.job.finals[state].0.add(row * width);
                let from = match step {
                    Some((i, t)) => self.state_after(state, i, t).add(r * width).cast_const(),
                    None => self.job.initial[state][row * width..][..width].as_ptr(),
                };
                to.copy_from_nonoverlapping(from, width);
            }
        }
    }

    /// Where this thread's rows of a buffer are at the first of some times.
    #[inline(always)]
    fn address(&self, buffer: &Buffer, times: Range<usize>, first: bool) -> *mut T {
        let Job {
            program, inputs, ..
        } = self.job;
        let start = self.rows.start;
        let t = times.start;
        let i = self.time(t);
        // SAFETY: outputs have rows for all steps, and the memory is laid out for the others.
        unsafe {
            match buffer.memory {
                Memory::Register(_) => self.buffers[0][0].at,
                Memory::Constants => self.job.constants.as_ptr().cast_mut(),
                Memory::Input(k) => {
                    let from = inputs[k].row(t, start);
                    let to = inputs[k].row(times.end - 1, self.rows.end - 1) + program.inputs[k];
                    inputs[k].data[from..to].as_ptr().cast_mut()
                }
                Memory::Captured(k) => self.job.captured[k]
                    .as_ptr()
                    .cast_mut()
                    .add(start * buffer.row),
                Memory::State(k) if first => self.job.initial[k][start * buffer.row..]
                    .as_ptr()
                    .cast_mut(),
                Memory::State(k) => {
                    let before = if self.job.reverse { t + 1 } else { t - 1 };
                    self.state_after(k, i - 1, before)
                }
                Memory::Next(k) => self.state_after(k, i, t),
                Memory::Output(k) => {
                    let row = t * program.batch + start;
                    self.job.outputs[k].0.add(row * buffer.row)
                }
                Memory::Scratch(k) => self.memory.add(self.layout.scratch[k]),
                Memory::Chunk(k) => {
                    let chunk = self.memory.add(self.layout.chunks[k]);
                    chunk.add(self.start_of(buffer, i, t))
                }
            }
        }
    }

    /// Finds the buffers of the steps' phases, or of those of several steps, for the rows that run
    /// at step `t`.
    fn find_buffers(&mut self, t: usize, of_steps: usize) {
        for first in [false, true] {
            if self.running.runs.iter().any(|run| run.1 == first) {
                for &number in &self.job.program.used[of_steps] {
                    let buffer = &self.job.buffers[number - 1];
                    self.buffers[usize::from(first)][number] = Rows {
                        at: self.address(buffer, t..t + 1, first),
                        stride: buffer.row,
                    };
                }
            }
        }
    }

    /// A product of the rows that run at some steps.
    fn product_of_steps(&mut self, product: &Product, steps: Range<usize>) {
        let job = self.job;
        let mut offsets = std::mem::take(&mut self.offsets);
        offsets.iter_mut().for_each(SmallVec::clear);
        for i in steps {
            let t = self.time(i);
            for (row, offsets) in [product.a, product.out].into_iter().zip(&mut offsets) {
                let buffer = &job.buffers[row.buffer - 1];
                let start = self.start_of(buffer, i, t) + row.offset;
                let running = (0..self.rows.len()).filter(|r| t < job.length(self.rows.start + r));
                offsets.extend(running.map(|r| start + r * buffer.row));
            }
        }
        let (a, out) = (self.memory_of(product.a), self.memory_of(product.out));
        // SAFETY: the program's places lie within these buffers, which are the inputs or memory
        // for the rows of this thread or its team.
        unsafe { self.product(product, a, out, &offsets) };
        self.offsets = offsets;
    }

    /// A product of the rows that run at this step: those that have run before, or the others.
    fn product_of_step(&mut self, product: &Product, offsets: &[Offsets; 2], first: usize) {
        let memory = |row: Row, width: usize| {
            let stride = self.job.buffers[row.buffer - 1].row;
            let len = (self.rows.len() - 1) * stride + row.offset + width;
            (self.buffers[first][row.buffer].at, len)
        };
        let (a, out) = (memory(product.a, product.k), memory(product.out, product.n));
        // SAFETY: the program's places lie within their buffers, here for the rows of this thread
        // or its team.
        unsafe { self.product(product, a, out, offsets) };
    }

    /// Computes this thread's columns of a product of rows at the given offsets.
    ///
    /// # Safety
    /// Operand and result are different memory of these lengths, for rows of this thread or its
    /// team. No other thread writes to the operand, or uses this thread's columns of the result.
    unsafe fn product(
        &mut self,
        product: &Product,
        (a, a_len): (*mut T, usize),
        (out, out_len): (*mut T, usize),
        [a_at, out_at]: &[Offsets; 2],
    ) {
        let (job, own) = (self.job, self.columns);
        let columns = own.ranges[product.matrix].clone();
        if a_at.is_empty() || columns.is_empty() {
            return;
        }
        let start = match product.start {
            Start::Zero => Accumulate::Zero,
            Start::Existing => Accumulate::Existing,
            Start::Bias(k, offset) => {
                Accumulate::Bias(&job.captured[k][offset + columns.start..][..columns.len()])
            }
        };
        let matrix = &own.matrices[product.matrix];
        // SAFETY: the caller promises it.
        let a = unsafe { slice::from_raw_parts(a, a_len) };
        if self.team.is_none() {
            // SAFETY: the caller promises it; without a team these are rows of this thread.
            let out = unsafe { slice::from_raw_parts_mut(out, out_len) };
            return matrix.multiply(job.arch, (a, a_at), start, (out, out_at));
        }
        // The rows of the result are shared, so that this thread's columns are computed apart.
        let width = columns.len();
        self.staged.clear();
        self.staged.extend((0..out_at.len()).map(|r| r * width));
        let staging = &mut self.staging[..out_at.len() * width];
        let shared = |at: usize| {
            assert!(
                at + columns.end <= out_len,
                "a row of the result is within its buffer"
            );
            // SAFETY: the buffer has this row.
            unsafe { out.add(at + columns.start) }
        };
        if let Start::Existing = product.start {
            for (to, at) in staging.chunks_exact_mut(width).zip(out_at) {
                // SAFETY: only this thread uses these columns.
                unsafe { shared(*at).copy_to_nonoverlapping(to.as_mut_ptr(), width) };
            }
        }
        matrix.multiply(job.arch, (a, a_at), start, (staging, &self.staged));
        for (from, at) in staging.chunks_exact(width).zip(out_at) {
            // SAFETY: as above.
            unsafe { shared(*at).copy_from_nonoverlapping(from.as_ptr(), width) };
        }
    }

    /// The memory of a buffer whose rows are known for several steps, and its length.
    fn memory_of(&self, row: Row) -> (*mut T, usize) {
        let Job { program, .. } = self.job;
        match self.job.buffers[row.buffer - 1].memory {
            Memory::Input(k) => {
                let data = &self.job.inputs[k].data;
                (data.as_ptr().cast_mut(), data.len())
            }
            Memory::Chunk(k) => {
                let len = self.layout.steps * self.rows.len() * program.chunks[k];
                // SAFETY: the memory is laid out for the chunks.
                (unsafe { self.memory.add(self.layout.chunks[k]) }, len)
            }
            _ => unreachable!("a verified program computes no products with other memory"),
        }
    }

    /// The offset of this thread's first row in such a buffer at step `t`, the `i`-th in order.
    fn start_of(&self, buffer: &Buffer, i: usize, t: usize) -> usize {
        match buffer.memory {
            Memory::Input(k) => self.job.inputs[k].row(t, self.rows.start),
            Memory::Chunk(_) => self.slot(i) * self.rows.len() * buffer.row,
            _ => (t * self.job.program.batch + self.rows.start) * buffer.row,
        }
    }

    /// The place in a chunk, where steps are in the order of their times, of the `i`-th step, or of
    /// the last step of the chunk before.
    fn slot(&self, i: usize) -> usize {
        let last = self.layout.steps - 1;
        let slot = i.checked_sub(self.chunk).unwrap_or(last);
        match self.job.reverse {
            true => last - slot,
            false => slot,
        }
    }

    /// Runs instructions for the rows that run at a step, in tiles for steps or for several.
    fn run_tiles(&mut self, code: &[Instruction], of_steps: usize) {
        for run in 0..self.running.runs.len() {
            let (range, first) = self.running.runs[run].clone();
            let range = range.start.max(self.own.start)..range.end.min(self.own.end);
            self.tiles(code, range, [usize::from(first), of_steps]);
        }
    }

    /// Runs instructions for some rows of the buffers.
    fn tiles(&mut self, code: &[Instruction], rows: Range<usize>, [first, of_steps]: [usize; 2]) {
        let most = self.job.program.tile_rows[of_steps];
        for row in rows.clone().step_by(most) {
            let mut buffers = &self.buffers[first];
            if row > 0 {
                self.tile.clear();
                self.tile.extend(buffers.iter().map(|rows| Rows {
                    at: rows.at.wrapping_add(row * rows.stride),
                    ..*rows
                }));
                buffers = &self.tile;
            }
            let rows = most.min(rows.end - row);
            // SAFETY: the program has been verified: its places lie within their buffers for all
            // rows. The buffers are those of this thread's rows at these steps.
            unsafe { tile::run(self.job.arch, code, buffers, rows) };
        }
    }
}
