//! A program over all steps of a sequence.
//!
//! Rows of the batch are independent, so each thread runs all steps of some rows and never waits
//! for the others. Where there are too few rows for that, the threads form a team that runs the
//! steps of all rows: each computes some columns of a product, then they wait for each other. Each
//! number is computed by the same operations in the same order in both cases.
//!
//! Rows past their length take part in nothing: instructions and products are computed for runs of
//! running rows. A row that runs for the first time reads the initial state, the others the state
//! that the step before left.
//!
//! This module contains unsafe code: several threads write to outputs, each its own rows.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::borrow::Cow;
use std::ops::Range;

use backend_api::trace::{ScanPlan, StepGraph};
use backend_api::{Buffers, DType, Dests, Error, Meta, Precision, Result};
use pulp::Arch;

use super::barrier::Barrier;
use super::instruction::Instruction;
use super::lower::lower;
use super::part::{ALIGNED, Layout, Part, Room};
use super::program::{Buffer, Memory, Phase, Program};
use crate::amx;
use crate::device::Cpu;
use crate::element::Float;
use crate::int8;
use crate::packed::MatrixView;
use crate::packed_matrix::{PackedMatrix, Packing};
use crate::pool::Scratch;
use crate::steps::{Inputs, MIN_PRODUCTS, row_ranges};
use crate::storage::{CpuBuffer, Dense, Input, Output, PackKey};

/// Rows per thread from which on threads split the rows. With fewer, reading all weights in every
/// thread costs more than waiting for each other. The limit is lower when values are saved and in
/// gradients, where a step computes more.
const MIN_ROWS_PER_THREAD: [usize; 2] = [12, 4];
/// Columns of a product per thread: fewer are not worth waiting for the others.
const MIN_COLUMNS: usize = 32;
/// Bytes of weights that stay in a core's own cache from one step to the next. Larger weights are
/// read from a shared cache or memory, by each thread all that it multiplies with.
const OWN_CACHE: usize = 2 << 20;
/// The cost of exchanging one byte with the other threads, in bytes of weights read.
const EXCHANGE_COST: usize = 16;

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
        let sums = results.len().saturating_sub(plan.step.sums().len());
        let (rows, sums) = results.split_at_mut_checked(sums).ok_or_else(missing)?;
        let mut job = Job::<T>::new(self, plan, program, ins, rows)?;
        job.run(self, plan, ins)?;
        job.sum_rows(self, plan.step.sums(), sums)?;
        drop(job);
        Ok(results.into_iter().map(Output::finish).collect())
    }
}

/// A pointer to elements that several threads use.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub(super) *mut T);

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

/// Some columns of the right sides of a program's products.
#[derive(Debug)]
pub(super) struct Columns<T> {
    pub(super) ranges: Vec<Range<usize>>,
    pub(super) matrices: Vec<PackedMatrix<T>>,
}

impl<T> Columns<T> {
    /// The largest number of columns of a matrix.
    pub(super) fn widest(&self) -> usize {
        self.ranges.iter().map(Range::len).max().unwrap_or(0)
    }
}

/// The operands and results of a scan.
pub(super) struct Job<'a, T: Float> {
    pub(super) arch: Arch,
    pub(super) program: &'a Program,
    /// The program's phases and buffers, for the strides of these inputs.
    pub(super) phases: Cow<'a, [Phase]>,
    pub(super) buffers: Cow<'a, [Buffer]>,
    pub(super) steps: usize,
    pub(super) reverse: bool,
    pub(super) inputs: Vec<Inputs<'a, T>>,
    pub(super) captured: Vec<Dense<'a, T>>,
    pub(super) initial: Vec<Dense<'a, T>>,
    pub(super) constants: Vec<T>,
    /// Of each thread of a team, or one entry for all threads, which have other rows each.
    columns: Vec<Columns<T>>,
    pub(super) lengths: Option<Scratch<usize>>,
    pub(super) outputs: Vec<Shared<T>>,
    pub(super) finals: Vec<Shared<T>>,
    /// The memory of outputs that are no results.
    _hidden: Vec<Scratch<T>>,
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
        let hidden = program
            .outputs
            .get(shown + saved.len()..)
            .unwrap_or_default()
            .iter();
        let hidden =
            hidden.map(|width| cpu.pool().scratch::<T>(plan.steps * program.batch * width));
        let mut hidden = hidden.collect::<Result<Vec<_>>>()?;
        if finals.len() != graph.states.len()
            || saved.len() != plan.saved
            || lengths.len() != usize::from(plan.ragged)
        {
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
        let mut job = Self {
            arch: cpu.arch(),
            program,
            phases: Cow::Borrowed(&program.phases),
            buffers: Cow::Borrowed(&program.buffers),
            steps,
            reverse: plan.reverse,
            inputs,
            columns: Vec::new(),
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
                hidden
                    .iter_mut()
                    .map(|rows| Shared(rows.as_mut_ptr()))
                    .collect(),
            ]
            .concat(),
            finals: rows(finals, &program.states, 1)?,
            _hidden: hidden,
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
    pub(super) fn length(&self, row: usize) -> usize {
        self.lengths
            .as_ref()
            .map_or(self.steps, |lengths| lengths[row])
    }

    /// Whether the threads compute the same rows, each some columns of the products.
    pub(super) fn is_shared(&self) -> bool {
        self.columns.len() > 1
    }

    /// Runs all steps.
    fn run(&mut self, cpu: &Cpu, plan: &ScanPlan, ins: &[Input<'_>]) -> Result<()> {
        if self.program.batch == 0 {
            return Ok(());
        }
        let captured = &ins[plan.graph().inputs.len()..];
        let members = self.members(cpu, plan);
        let columns = (0..members).map(|member| self.pack(cpu, plan, captured, [member, members]));
        self.columns = columns.collect::<Result<_>>()?;
        if self.is_shared() {
            if self.run_team(cpu)? {
                return Ok(());
            }
            self.columns = vec![self.pack(cpu, plan, captured, [0, 1])?];
        }
        self.run_rows(cpu)
    }

    /// The number of threads that compute the same rows; 1 if threads split the rows. A team is
    /// better when a thread would get few rows. It is also better when threads that split the rows
    /// would read more weights in each step than a team exchanges.
    fn members(&self, cpu: &Cpu, plan: &ScanPlan) -> usize {
        let program = self.program;
        let products = |phases: &[Phase]| {
            let products = phases.iter().filter_map(|phase| match phase {
                Phase::Product(product) => Some([product.k, product.n]),
                Phase::Tile(_) => None,
            });
            products.collect::<Vec<_>>()
        };
        let widest = products(&self.phases).iter().map(|[_, n]| *n).max();
        let work = program.work.saturating_mul(program.batch);
        let members = cpu
            .threads()
            .min(widest.unwrap_or(0) / MIN_COLUMNS)
            .min(work.saturating_mul(4) / MIN_PRODUCTS);
        if members < 2 {
            return 1;
        }
        let in_steps = products(&self.phases[program.ahead..program.behind]);
        let weights = in_steps.iter().map(|[k, n]| k * n * size_of::<T>());
        let weights: usize = weights.sum();
        let exchanged = in_steps.iter().map(|[k, n]| (k + n) * size_of::<T>());
        let exchanged = exchanged.sum::<usize>() * program.batch * EXCHANGE_COST;
        let saving = plan.saved > 0 || !plan.step.sums().is_empty();
        let alone = MIN_ROWS_PER_THREAD[usize::from(saving)];
        let read = weights - weights / members;
        if program.batch >= members * alone && (weights <= OWN_CACHE || read <= exchanged) {
            return 1;
        }
        members
    }

    /// Packs the columns of one of several threads.
    fn pack(
        &self,
        cpu: &Cpu,
        plan: &ScanPlan,
        captured: &[Input<'_>],
        [member, members]: [usize; 2],
    ) -> Result<Columns<T>> {
        let program = self.program;
        let batch = program.batch;
        let single = TypeId::of::<T>() == TypeId::of::<f32>();
        let mut columns = Columns {
            ranges: Vec::with_capacity(program.matrices.len()),
            matrices: Vec::with_capacity(program.matrices.len()),
        };
        for matrix in &program.matrices {
            let layout = matrix.layout;
            let (shape, strides) = (layout.shape(), layout.strides());
            // Multiples of a cache line.
            let blocks = shape[1].div_ceil(ALIGNED);
            let at = |i: usize| (i * blocks / members * ALIGNED).min(shape[1]);
            let range = at(member)..at(member + 1);
            let packing = Packing {
                rows: if matrix.chunked {
                    batch * self.steps
                } else {
                    batch
                },
                amx: cpu.has_amx() && single && batch >= amx::MIN_ROWS,
                precision: match cpu.precision() {
                    // Only inference rounds.
                    _ if !plan.reuse || plan.saved > 0 => Precision::Exact,
                    // More integers have sums that do not fit.
                    Precision::Int8 if shape[0] > int8::MOST_INNER => Precision::Exact,
                    precision => precision,
                },
                reuse: plan.reuse,
            };
            let of = PackKey {
                layout: captured[matrix.captured].layout,
                view: Some(layout),
                part: range.clone(),
                form: (packing.is_for_few(), packing.precision),
            };
            let input = &captured[matrix.captured];
            let packed = PackedMatrix::new(cpu, input, &of, packing, |data| MatrixView {
                data: data.get(layout.offset()..).unwrap_or_default(),
                k: shape[0],
                row_stride: strides[0],
                column_stride: strides[1],
                columns: range.clone().collect(),
            })?;
            columns.ranges.push(range);
            columns.matrices.push(packed);
        }
        Ok(columns)
    }

    /// Each thread runs all steps of some rows.
    fn run_rows(&self, cpu: &Cpu) -> Result<()> {
        let program = self.program;
        let length = |row| self.length(row);
        let work = |rows: usize| rows.saturating_mul(program.work);
        let ranges = row_ranges(cpu, program.batch, length, work);
        let layouts: Vec<Layout> = ranges.iter().map(|r| Layout::new(self, r.len())).collect();
        let columns = &self.columns[0];
        let sizes = ranges.iter().zip(&layouts);
        let sizes = sizes.map(|(r, layout)| [layout.size, layout.own(self, columns, r.len())]);
        let mut block = cpu.pool().scratch::<T>(sizes.clone().flatten().sum())?;
        let mut rest: &mut [T] = &mut block;
        let mut parts = Vec::with_capacity(ranges.len());
        for ((rows, layout), sizes) in ranges.iter().zip(&layouts).zip(sizes) {
            let memory = sizes.map(|size| take(&mut rest, size));
            parts.push((rows.clone(), layout, memory));
        }
        cpu.run_parts(parts, |(rows, layout, [memory, own])| {
            let room = Room {
                layout,
                shared: memory.as_mut_ptr(),
                own,
            };
            let own = 0..rows.len();
            // SAFETY: the memory is that of this part alone.
            unsafe { Part::new(self, (rows, own), (columns, None), room) }.run()
        })
    }

    /// All threads run the steps of all rows together. Returns `false`, without running them, if
    /// the threads are busy.
    fn run_team(&self, cpu: &Cpu) -> Result<bool> {
        let (batch, members) = (self.program.batch, self.columns.len());
        let layout = &Layout::new(self, batch);
        let sizes = self
            .columns
            .iter()
            .map(|columns| layout.own(self, columns, batch));
        let mut block = cpu
            .pool()
            .scratch::<T>(layout.size + sizes.clone().sum::<usize>())?;
        let mut rest: &mut [T] = &mut block;
        let shared = Shared(take(&mut rest, layout.size).as_mut_ptr());
        let barrier = Barrier::new(members);
        let mut parts = Vec::with_capacity(members);
        for (i, (columns, size)) in self.columns.iter().zip(sizes).enumerate() {
            let own = batch * i / members..batch * (i + 1) / members;
            parts.push((own, columns, barrier.member(), take(&mut rest, size)));
        }
        let shared = &shared;
        cpu.run_together(parts, |(rows, columns, member, own)| {
            let room = Room {
                layout,
                shared: shared.0,
                own,
            };
            // SAFETY: the threads of this team have the same rows, other own rows and columns.
            unsafe { Part::new(self, (0..batch, rows), (columns, Some(member)), room) }.run()
        })
    }
}

/// Splits the first `len` elements off a slice.
fn take<'a, T>(data: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (first, rest) = std::mem::take(data).split_at_mut(len);
    *data = rest;
    first
}
