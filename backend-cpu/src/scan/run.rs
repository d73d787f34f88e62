//! A program over all steps of a sequence.
//!
//! Rows of the batch are independent, so each thread runs all steps of some rows and never waits
//! for the others. Rows past their length take part in nothing: instructions and products are
//! computed for runs of running rows. A row that runs for the first time reads the initial state,
//! the others the state that the step before left.
//!
//! This module contains unsafe code: the buffers of a program are outputs that several threads
//! write to, each its own rows, and memory whose parts are operands and results of one product.
//! Slices cannot express that.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::borrow::Cow;
use std::ops::Range;
use std::slice;

use backend_api::trace::{ScanPlan, StepGraph};
use backend_api::{Buffers, DType, Dests, Error, Meta, Result};
use pulp::Arch;

use super::instruction::Instruction;
use super::lower::lower;
use super::program::{Buffer, Carried, Memory, Phase, Product, Program, Row, Start};
use super::tile;
use crate::amx;
use crate::device::Cpu;
use crate::element::Float;
use crate::packed::MatrixView;
use crate::packed_matrix::{PackedMatrix, Packing};
use crate::pool::Scratch;
use crate::product::Accumulate;
use crate::steps::{Inputs, row_ranges};
use crate::storage::{CpuBuffer, Dense, Input, Output, PackKey};

/// Elements that parts of a thread's memory are aligned to.
const ALIGNED: usize = 16;

/// Compiles a step.
///
/// # Errors
/// The node that cannot be part of a program, and why.
pub(crate) fn compile(graph: &StepGraph) -> Result<Program, String> {
    Program::new(lower(graph)?)
}

impl Cpu {
    /// Runs the steps of a plan; see [`ScanPlan`] for operands and results.
    pub(crate) fn scan<T: Float>(
        &self,
        plan: &ScanPlan,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let program = plan.program::<Program>().ok_or_else(|| {
            Error::argument("scan", "step", "is not compiled for the CPU backend")
        })?;
        let outs = outs.into_iter().map(|dest| Output::new(self.pool(), dest));
        let mut results = outs.collect::<Result<Vec<_>>>()?;
        let job = Job::<T>::new(self, plan, program, ins, &mut results)?;
        job.run(self)?;
        drop(job);
        Ok(results.into_iter().map(Output::finish).collect())
    }
}

/// A pointer to elements that several threads use.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: the threads use elements of different rows.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T: Float> Shared<T> {
    fn of(output: &mut Output, wanted: usize) -> Result<Self> {
        let elements = output.elements::<T>();
        if elements.len() != wanted {
            let problem = format!("has {} elements, but needs {wanted}", elements.len());
            return Err(Error::argument("scan", "result", problem));
        }
        Ok(Self(elements.as_mut_ptr()))
    }
}

/// The operands and results of a scan.
struct Job<'a, T: Float> {
    arch: Arch,
    program: &'a Program,
    /// The program's phases and buffers, for the strides of these inputs.
    phases: Cow<'a, [Phase]>,
    buffers: Cow<'a, [Buffer]>,
    steps: usize,
    reverse: bool,
    inputs: Vec<Inputs<'a, T>>,
    captured: Vec<Dense<'a, T>>,
    initial: Vec<Dense<'a, T>>,
    constants: Vec<T>,
    matrices: Vec<PackedMatrix<T>>,
    lengths: Option<Scratch<usize>>,
    outputs: Vec<Shared<T>>,
    finals: Vec<Shared<T>>,
}

fn missing() -> Error {
    Error::argument("scan", "operands", "are missing")
}

fn check(arg: &str, x: &Input<'_>, steps: Option<usize>, meta: Meta) -> Result<()> {
    let shape = x.layout.shape();
    let wanted = steps.iter().chain(meta.shape.dims());
    if !shape.dims().iter().eq(wanted.clone()) {
        let wanted: Vec<_> = wanted.collect();
        return Err(Error::shape(
            "scan",
            arg,
            shape,
            format!("{wanted:?} is needed"),
        ));
    }
    if x.dtype != meta.dtype {
        let wanted = format!("{} is needed", meta.dtype);
        return Err(Error::dtype("scan", arg, x.dtype, wanted));
    }
    Ok(())
}

impl<'a, T: Float> Job<'a, T> {
    fn new(
        cpu: &Cpu,
        plan: &ScanPlan,
        program: &'a Program,
        ins: &[Input<'a>],
        results: &mut [Output],
    ) -> Result<Self> {
        let graph = plan.graph();
        let number = if TypeId::of::<T>() == TypeId::of::<f32>() {
            DType::F32
        } else {
            DType::F64
        };
        // The unsafe code rests on the program's sizes, and a plan can pair any program and graph.
        if !program.is_of(graph) {
            return Err(Error::argument(
                "scan",
                "step",
                "has the program of another step",
            ));
        }
        if program.dtype != number {
            return Err(Error::dtype(
                "scan",
                "state",
                program.dtype,
                format!("{number} is needed"),
            ));
        }
        let parts = ins
            .split_at_checked(graph.inputs.len())
            .ok_or_else(missing)?;
        let (inputs, rest) = parts;
        let parts = rest
            .split_at_checked(graph.captured.len())
            .ok_or_else(missing)?;
        let (captured, rest) = parts;
        let parts = rest
            .split_at_checked(graph.states.len())
            .ok_or_else(missing)?;
        let (initial, lengths) = parts;
        // The final state lies between the outputs and the saved ones.
        let shown = plan.shown();
        let (outputs, rest) = results.split_at_mut_checked(shown).ok_or_else(missing)?;
        let (finals, saved) = rest
            .split_at_mut_checked(graph.states.len())
            .ok_or_else(missing)?;
        if finals.len() != graph.states.len() || lengths.len() != usize::from(plan.ragged) {
            return Err(missing());
        }
        let steps = plan.steps;
        let operands = [
            ("x", Some(steps), inputs, &graph.inputs),
            ("captured", None, captured, &graph.captured),
            ("state", None, initial, &graph.states),
        ];
        for (name, steps, found, metas) in operands {
            for (i, (x, meta)) in found.iter().zip(metas).enumerate() {
                check(&format!("{name}{i}"), x, steps, *meta)?;
            }
        }
        let batch = program.batch;
        let rows = |all: &mut [Output], widths: &[usize], steps: usize| {
            let all = all.iter_mut().zip(widths);
            all.map(|(out, width)| Shared::of(out, steps * batch * width))
                .collect::<Result<Vec<_>>>()
        };
        let dense =
            |ins: &[Input<'a>]| ins.iter().map(|x| cpu.dense(x)).collect::<Result<Vec<_>>>();
        let inputs = inputs
            .iter()
            .map(|x| Inputs::new(cpu, x))
            .collect::<Result<Vec<_>>>()?;
        let packing = Packing {
            rows: batch,
            amx: cpu.has_amx()
                && TypeId::of::<T>() == TypeId::of::<f32>()
                && batch >= amx::MIN_ROWS,
            bf16: false,
            reuse: plan.reuse,
        };
        let matrices = program.matrices.iter().map(|matrix| {
            let (layout, input) = (matrix.layout, &captured[matrix.captured]);
            let of = PackKey {
                layout: input.layout,
                view: Some(layout),
                part: 0..layout.shape()[1],
                form: [packing.is_for_few(), false],
            };
            PackedMatrix::new(cpu, input, &of, packing, |data| MatrixView {
                data: data.get(layout.offset()..).unwrap_or_default(),
                k: layout.shape()[0],
                row_stride: layout.strides()[0],
                column_stride: layout.strides()[1],
                columns: (0..layout.shape()[1]).collect(),
            })
        });
        let mut job = Self {
            arch: cpu.arch(),
            program,
            phases: Cow::Borrowed(&program.phases),
            buffers: Cow::Borrowed(&program.buffers),
            steps,
            reverse: plan.reverse,
            inputs,
            matrices: matrices.collect::<Result<Vec<_>>>()?,
            captured: dense(captured)?,
            initial: dense(initial)?,
            constants: program.constants.iter().map(|&x| T::from_f64(x)).collect(),
            lengths: match lengths {
                [lengths] => {
                    if lengths.layout.shape().dims() != [batch] {
                        let expected = format!("the batch is {batch}");
                        let shape = lengths.layout.shape();
                        return Err(Error::shape("scan", "lengths", shape, expected));
                    }
                    Some(cpu.indices("scan", "lengths", lengths, steps, true)?)
                }
                _ => None,
            },
            outputs: [
                rows(outputs, &program.outputs[..shown], steps)?,
                rows(saved, &program.outputs[shown..], steps)?,
            ]
            .concat(),
            finals: rows(finals, &program.states, 1)?,
        };
        job.apply_strides();
        Ok(job)
    }

    /// Sets the distances between rows of inputs.
    fn apply_strides(&mut self) {
        let mut inputs = self.inputs.iter().zip(&self.program.inputs);
        if self.program.batch < 2 || inputs.all(|(input, width)| input.rows == *width) {
            return;
        }
        let buffers = self.buffers.to_mut();
        for buffer in buffers.iter_mut() {
            if let Memory::Input(i) = buffer.memory {
                buffer.row = self.inputs[i].rows;
            }
        }
        for phase in self.phases.to_mut() {
            let Phase::Tile(code) = phase else { continue };
            let places = |i: &mut Instruction| {
                for place in &mut i.ins {
                    if let Some(buffer) = place.buffer.checked_sub(1) {
                        place.row = buffers[buffer].row;
                    }
                }
            };
            code.iter_mut().for_each(places);
        }
    }

    /// The number of steps of a row.
    fn length(&self, row: usize) -> usize {
        self.lengths
            .as_ref()
            .map_or(self.steps, |lengths| lengths[row])
    }

    fn run(&self, cpu: &Cpu) -> Result<()> {
        let program = self.program;
        if program.batch == 0 {
            return Ok(());
        }
        let length = |row| self.length(row);
        let work = |rows: usize| rows.saturating_mul(program.work);
        let ranges = row_ranges(cpu, program.batch, length, work);
        let sizes = ranges
            .iter()
            .map(|rows| Layout::new(program, rows.len()).size);
        let mut block = cpu.pool().scratch::<T>(sizes.clone().sum())?;
        let mut rest: &mut [T] = &mut block;
        let mut parts = Vec::with_capacity(ranges.len());
        for (rows, size) in ranges.iter().zip(sizes) {
            let (memory, others) = std::mem::take(&mut rest).split_at_mut(size);
            rest = others;
            parts.push((rows.clone(), memory));
        }
        cpu.run_parts(parts, |(rows, memory)| {
            Part::new(self, rows, memory).run();
            Ok(())
        })
    }
}

/// The layout of a thread's memory, in elements.
struct Layout {
    scratch: Vec<usize>,
    /// Two buffers for each state that is not an output.
    states: Vec<[usize; 2]>,
    registers: usize,
    size: usize,
}

impl Layout {
    fn new(program: &Program, rows: usize) -> Self {
        let mut size = 0usize;
        let mut next = |elements: usize| {
            let at = size;
            size += elements.next_multiple_of(ALIGNED);
            at
        };
        let registers = next(program.registers * program.tile_rows);
        let scratch = program
            .scratch
            .iter()
            .map(|width| next(rows * width))
            .collect();
        let states = program
            .states
            .iter()
            .zip(&program.carried)
            .map(|(width, carried)| {
                let width = if *carried == Carried::Next { *width } else { 0 };
                [(); 2].map(|()| next(rows * width))
            });
        Self {
            scratch,
            states: states.collect(),
            registers,
            size,
        }
    }
}

/// The rows that run at a step.
#[derive(Default)]
struct Running {
    /// Ranges of rows, and whether they run for the first time.
    runs: Vec<(Range<usize>, bool)>,
    /// For each product, the offsets of these rows in its operand and in its result; of those that
    /// run for the first time in the second place.
    offsets: Vec<[[Vec<usize>; 2]; 2]>,
}

/// One thread's share of a scan.
struct Part<'j, 'a, T: Float> {
    job: &'j Job<'a, T>,
    rows: Range<usize>,
    memory: *mut T,
    layout: Layout,
    running: Running,
    /// The program's buffers at this step, for rows that have run before and for the others.
    buffers: [Vec<*mut T>; 2],
    /// The same from the first row of a tile on.
    tile: Vec<*mut T>,
}

impl<'j, 'a, T: Float> Part<'j, 'a, T> {
    fn new(job: &'j Job<'a, T>, rows: Range<usize>, memory: &'j mut [T]) -> Self {
        let layout = Layout::new(job.program, rows.len());
        assert!(
            memory.len() >= layout.size,
            "the memory of a thread has all parts"
        );
        let memory = memory.as_mut_ptr();
        // SAFETY: the offset lies within the memory.
        let registers = unsafe { memory.add(layout.registers) };
        let count = job.buffers.len();
        Self {
            job,
            rows,
            memory,
            layout,
            running: Running::default(),
            buffers: [(); 2].map(|()| vec![registers; count]),
            tile: vec![registers; count + 1],
        }
    }

    fn run(mut self) {
        let Self { job, .. } = self;
        for r in 0..self.rows.len() {
            if job.length(self.rows.start + r) == 0 {
                self.finish_row(r, None);
            }
        }
        for i in 0..job.steps {
            let t = if job.reverse { job.steps - 1 - i } else { i };
            self.find_running(i, t);
            self.clear_ended(t);
            if self.running.runs.is_empty() {
                continue;
            }
            self.step(i, t);
            for r in 0..self.rows.len() {
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
        let mut runs: Vec<(Range<usize>, bool)> = Vec::with_capacity(self.running.runs.len() + 2);
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
        let products = self.job.phases.iter().filter_map(|phase| match phase {
            Phase::Product(product) => Some(product),
            Phase::Tile(_) => None,
        });
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
        let mut next = 0;
        let end = (self.rows.len()..self.rows.len(), false);
        for (range, _) in self.running.runs.iter().chain([&end]) {
            for (i, &width) in self.job.program.outputs.iter().enumerate() {
                for r in next..range.start {
                    let at = (t * self.job.program.batch + self.rows.start + r) * width;
                    // SAFETY: the output has these elements, and only this thread uses them.
                    unsafe {
                        slice::from_raw_parts_mut(self.job.outputs[i].0.add(at), width)
                            .fill(T::ZERO);
                    }
                }
            }
            next = range.end;
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

    /// Finds this thread's rows of the buffers at step `t`, the `i`-th in order.
    fn find_buffers(&mut self, i: usize, t: usize, first: bool) {
        let Job {
            program, inputs, ..
        } = self.job;
        let start = self.rows.start;
        for (number, buffer) in self.job.buffers.iter().enumerate() {
            // SAFETY: outputs have rows for all steps, and the memory is laid out for the others.
            let at = unsafe {
                match buffer.memory {
                    Memory::Register(_) => self.memory.add(self.layout.registers),
                    Memory::Constants => self.job.constants.as_ptr().cast_mut(),
                    Memory::Input(k) => {
                        let from = inputs[k].row(t, start);
                        let to = inputs[k].row(t, self.rows.end - 1) + program.inputs[k];
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
                }
            };
            self.buffers[usize::from(first)][number] = at;
        }
    }

    fn step(&mut self, i: usize, t: usize) {
        for first in [false, true] {
            if self.running.runs.iter().any(|run| run.1 == first) {
                self.find_buffers(i, t, first);
            }
        }
        let Self { job, .. } = *self;
        let mut products = 0;
        for phase in &*job.phases {
            match phase {
                Phase::Product(product) => {
                    for first in [0, 1] {
                        self.product(product, products, first);
                    }
                    products += 1;
                }
                Phase::Tile(code) => {
                    for run in 0..self.running.runs.len() {
                        let (range, first) = self.running.runs[run].clone();
                        self.tiles(code, range, usize::from(first));
                    }
                }
            }
        }
    }

    fn product(&self, product: &Product, index: usize, first: usize) {
        let [a_at, out_at] = &self.running.offsets[index][first];
        if a_at.is_empty() {
            return;
        }
        let job = self.job;
        let rows = |row: Row, width: usize| {
            let stride = job.buffers[row.buffer - 1].row;
            let len = (self.rows.len() - 1) * stride + row.offset + width;
            (self.buffers[first][row.buffer - 1], len)
        };
        let (a, len) = rows(product.a, product.k);
        // SAFETY: the program's places lie within their buffers, here for the rows of this thread,
        // to which no other thread writes.
        let a = unsafe { slice::from_raw_parts(a, len) };
        let (out, len) = rows(product.out, product.n);
        // SAFETY: as above; operand and result are different buffers.
        let out = unsafe { slice::from_raw_parts_mut(out, len) };
        let start = match product.start {
            Start::Zero => Accumulate::Zero,
            Start::Existing => Accumulate::Existing,
            Start::Bias(k, offset) => Accumulate::Bias(&job.captured[k][offset..][..product.n]),
        };
        let matrix = &job.matrices[product.matrix];
        matrix.multiply(job.arch, (a, a_at), start, (out, out_at));
    }

    fn tiles(&mut self, code: &[Instruction], range: Range<usize>, first: usize) {
        let job = self.job;
        for row in range.clone().step_by(job.program.tile_rows) {
            let rows = job.program.tile_rows.min(range.end - row);
            let buffers = job.buffers.iter().zip(&self.buffers[first]);
            for (to, (buffer, from)) in self.tile[1..].iter_mut().zip(buffers) {
                // SAFETY: the row is one of this thread's.
                *to = unsafe { from.add(row * buffer.row) };
            }
            // SAFETY: the program has been verified: its places lie within their buffers for all
            // rows. The buffers are those of this thread's rows at this step.
            unsafe { tile::run(job.arch, code, &self.tile, rows) };
        }
    }
}
