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

use backend_api::trace::ScanPlan;
use backend_api::{Buffers, Dests, Error, Precision, Result};
use smallvec::SmallVec;

use super::barrier::Barrier;
use super::job::{Columns, Job, Shared, missing};
use super::part::{ALIGNED, Layout, Part, Room};
use super::program::Program;
use super::team;
use crate::amx;
use crate::device::Cpu;
use crate::element::Float;
use crate::features::has_bf16;
use crate::int8;
use crate::packed::{FEW, MatrixView};
use crate::packed_matrix::{PackedMatrix, Packing};
use crate::steps::row_ranges;
use crate::storage::{CpuBuffer, Input, Output, PackKey};

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
        let mut results: SmallVec<[Output; 4]> = SmallVec::with_capacity(outs.len());
        for dest in outs {
            results.push(Output::new(self.pool(), dest)?);
        }
        let sums = results.len().saturating_sub(plan.step.sums().len());
        let (rows, sums) = results.split_at_mut_checked(sums).ok_or_else(missing)?;
        let mut job = Job::<T>::new(self, plan, program, ins, rows)?;
        job.run(self, plan, ins)?;
        job.sum_rows(self, plan.step.sums(), sums)?;
        drop(job);
        Ok(results.into_iter().map(Output::finish).collect())
    }
}

impl<T: Float> Job<'_, T> {
    /// Runs all steps.
    fn run(&mut self, cpu: &Cpu, plan: &ScanPlan, ins: &[Input<'_>]) -> Result<()> {
        if self.program.batch == 0 {
            return Ok(());
        }
        let captured = &ins[plan.graph().inputs.len()..];
        let saves = plan.saved > 0 || !plan.step.sums().is_empty();
        let members = team::members(self.program, cpu.threads(), saves);
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
            ranges: SmallVec::new(),
            matrices: SmallVec::new(),
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
                // By the batch, so that a cut stream has the bits of the whole sequence.
                row_pairs: has_bf16() && batch > FEW,
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
                layout: *captured[matrix.captured].layout,
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
        let layouts: SmallVec<[Layout; 1]> =
            ranges.iter().map(|r| Layout::new(self, r.len())).collect();
        let columns = &self.columns[0];
        let sizes = ranges.iter().zip(&layouts);
        let sizes = sizes.map(|(r, layout)| [layout.size, layout.own(self, columns, r.len())]);
        let mut block = cpu.pool().scratch::<T>(sizes.clone().flatten().sum())?;
        let mut rest: &mut [T] = &mut block;
        let mut parts: SmallVec<[_; 1]> = SmallVec::with_capacity(ranges.len());
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
