//! Gradients of a layer over all steps. Each thread first runs back through the steps, for some
//! rows or some units. The gradients of the kernels are then matmuls over all rows of all steps at
//! once.
//!
//! The operands of these matmuls contain only running rows: step after step, the rows that run at
//! the step, in order.

use std::mem;
use std::ops::Range;

use backend_api::{Buffers, Dests, Recurrence, Result, SequencePlan};
use smallvec::{SmallVec, smallvec};

use super::all_gather::AllGather;
use super::backward_step::{BackwardPart, RowOffsets};
use super::kernel_grads::Stack;
use super::layer::{Layer, LayerDims, cut_rows, missing, take};
use super::saved::SavedForward;
use super::sharing::scatter_units;
use super::sharing::{MIN_ROWS_PER_THREAD_SAVING, UnitGroup};
use crate::device::Cpu;
use crate::element::Float;
use crate::packed_matrix::PackedMatrix;
use crate::pool::Scratch;
use crate::product::Accumulate;
use crate::storage::{CpuBuffer, Input, Output};

/// Rows per thread whose input gradients are computed at a time.
const INPUT_ROWS: usize = 1024;

impl Cpu {
    pub(crate) fn sequence_grad<T: Float>(
        &self,
        plan: &SequencePlan,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let parts = ins.split_at_checked(plan.operands());
        let (operands, forward) = parts.ok_or_else(missing)?;
        let plan = &SequencePlan {
            save: true,
            ..*plan
        };
        let layer = Layer::<T>::new(self, "sequence_grad", plan, operands)?;
        let [outputs, forward @ ..] = forward else {
            return Err(missing());
        };
        let parts = forward.split_at_checked(plan.recurrence.saved_widths().len());
        let (saved, forward) = parts.ok_or_else(missing)?;
        let [doutputs, dfinal @ ..] = forward else {
            return Err(missing());
        };
        let forward = SavedForward {
            outputs: self.dense(outputs)?,
            saved: saved.iter().map(|x| self.dense(x)).collect::<Result<_>>()?,
            doutputs: self.dense(doutputs)?,
            dfinal: dfinal
                .iter()
                .map(|x| self.dense(x))
                .collect::<Result<_>>()?,
        };
        let mut results = outs
            .into_iter()
            .map(|dest| Output::new(self.pool(), dest))
            .collect::<Result<Vec<_>>>()?;
        layer.gradients(self, plan, &forward, &mut results)?;
        Ok(results.into_iter().map(Output::finish).collect())
    }
}

impl<T: Float> Layer<'_, T> {
    /// Widths of the values kept for each row besides `dz`: for the GRUs one operand of the
    /// gradient of the candidate's kernel, for a projection both operands of its gradient.
    fn kept_widths(&self) -> SmallVec<[usize; 2]> {
        let LayerDims { n, p, .. } = self.sizes;
        match self.recurrence {
            Recurrence::Gru { .. } | Recurrence::GruResetAfter { .. } => smallvec![n],
            Recurrence::ExtendedLstm(lstm) if lstm.projection => smallvec![n, p],
            _ => smallvec![],
        }
    }

    fn gradients(
        &self,
        cpu: &Cpu,
        plan: &SequencePlan,
        forward: &SavedForward<'_, T>,
        results: &mut [Output],
    ) -> Result<()> {
        let LayerDims {
            steps,
            batch,
            inputs,
            n,
            gates,
            ..
        } = self.sizes;
        let (dx, results) = results
            .split_at_mut_checked(usize::from(plan.input_grad))
            .ok_or_else(missing)?;
        let [dkernel, dbias, results @ ..] = results else {
            return Err(missing());
        };
        let (dparameters, dinitial) = results
            .split_at_mut_checked(self.recurrence.parameter_count())
            .ok_or_else(missing)?;
        let width = gates * n;
        let counts = self.counts(&(0..batch));
        let rows: usize = counts.iter().sum();
        let mut dz = cpu.pool().scratch::<T>(rows * width)?;
        let mut kept = self
            .kept_widths()
            .iter()
            .map(|width| cpu.pool().scratch::<T>(rows * width))
            .collect::<Result<Vec<_>>>()?;
        if batch * n > 0 {
            let together = match self.gradient_units(cpu) {
                Some(units) => {
                    self.backward_by_units(cpu, forward, &units, (&mut dz, &mut kept), dinitial)?
                }
                None => false,
            };
            if !together {
                self.backward_by_rows(cpu, forward, (&mut dz, &mut kept), dinitial)?;
            }
            if let Some(dx) = dx.first_mut() {
                let kernel = self.transposed_input(cpu)?;
                self.input_gradients(cpu, &kernel, (&dz, &counts), dx.elements());
            }
        }
        let x = self.running_inputs(cpu, rows)?;
        let x = Stack {
            width: inputs,
            parts: smallvec![&*x],
        };
        self.outer(cpu, dkernel.elements(), &x, (&dz, width, 0..width))?;
        self.sums(cpu, (&dz, width, 0), dbias.elements(), |_, _, _| None);
        let gathered;
        let h = if self.lengths.is_none() {
            let split = steps.saturating_sub(1) * batch * self.sizes.p;
            let h0 = &self.initial[self.initial.len() - 1][..];
            Stack {
                width: self.sizes.p,
                parts: if steps == 0 {
                    smallvec![]
                } else {
                    smallvec![h0, &forward.outputs[..split]]
                },
            }
        } else {
            gathered = self.running_states(cpu, rows, forward)?;
            Stack {
                width: self.sizes.p,
                parts: smallvec![&*gathered],
            }
        };
        self.parameter_grads(cpu, forward, &h, (&dz, &kept), dparameters)
    }

    /// The number of rows of a range that run at each step.
    fn counts(&self, rows: &Range<usize>) -> Vec<usize> {
        let running = |t: usize| rows.clone().filter(|&row| t < self.length(row)).count();
        (0..self.sizes.steps).map(running).collect()
    }

    /// The ranges of units if splitting the units is better than splitting the rows.
    fn gradient_units(&self, cpu: &Cpu) -> Option<Vec<Range<usize>>> {
        // The GRU that resets before the matmul would have to synchronise three times per step.
        if matches!(self.recurrence, Recurrence::Gru { .. }) {
            return None;
        }
        // Each step gathers the gradients of all sums.
        self.unit_ranges(cpu, MIN_ROWS_PER_THREAD_SAVING, [self.sizes.gates, 0])
    }

    /// Splits the rows over the threads.
    fn backward_by_rows(
        &self,
        cpu: &Cpu,
        forward: &SavedForward<'_, T>,
        (dz, kept): (&mut [T], &mut [Scratch<T>]),
        dinitial: &mut [Output],
    ) -> Result<()> {
        let LayerDims {
            batch, n, p, gates, ..
        } = self.sizes;
        let ranges = self.row_ranges(cpu);
        let weights = self.transposed(cpu, &(0..n))?;
        let counts: Vec<_> = ranges.iter().map(|rows| self.counts(rows)).collect();
        let mut dz_cut = cut_running(dz, gates * n, &counts).into_iter();
        let mut kept_cut: Vec<_> = kept
            .iter_mut()
            .zip(self.kept_widths())
            .map(|(data, width)| cut_running(data, width, &counts).into_iter())
            .collect();
        let last = dinitial.len() - 1;
        let mut dstate_cut: Vec<_> = dinitial
            .iter_mut()
            .enumerate()
            .map(|(i, state)| {
                let width = if i == last { p } else { n };
                cut_rows(state.elements::<T>(), width, &ranges).into_iter()
            })
            .collect();
        let uneven = if self.lengths.is_some() { batch } else { 0 };
        let mut sums = cpu.pool().scratch::<T>(uneven * gates * n)?;
        let mut sums = &mut *sums;
        let widest = n.max(p);
        let mut spare = cpu.pool().scratch::<T>(4 * batch * widest)?;
        let mut spare_cut = cut_rows(&mut spare, 4 * widest, &ranges).into_iter();
        let mut parts = Vec::with_capacity(ranges.len());
        for rows in &ranges {
            let mut spare = spare_cut.next().unwrap_or_default();
            let uneven = rows.len().min(uneven);
            parts.push(BackwardPart {
                rows: rows.clone(),
                units: 0..n,
                weights: &weights,
                group: None,
                dz: dz_cut.next().unwrap_or_default(),
                kept: kept_cut.iter_mut().filter_map(Iterator::next).collect(),
                dstate: dstate_cut.iter_mut().filter_map(Iterator::next).collect(),
                sums: take(&mut sums, uneven * gates * n),
                own_dz: Default::default(),
                all_reset: Default::default(),
                spare: [(); 4].map(|()| take(&mut spare, rows.len() * widest)),
                offsets: RowOffsets::default(),
            });
        }
        cpu.run_parts(parts, |part| part.run(self, forward))
    }

    /// Splits the units over the threads; each needs the gradients of the sums of all units.
    /// Returns `false` if the worker pool is busy or cannot be started.
    fn backward_by_units(
        &self,
        cpu: &Cpu,
        forward: &SavedForward<'_, T>,
        units: &[Range<usize>],
        (dz, kept): (&mut [T], &mut [Scratch<T>]),
        dinitial: &mut [Output],
    ) -> Result<bool> {
        let LayerDims {
            batch, n, gates, ..
        } = self.sizes;
        let states = dinitial.len();
        let gathers = [(); 2].map(|()| AllGather::new(units));
        let weights = units
            .iter()
            .map(|units| self.transposed(cpu, units))
            .collect::<Result<Vec<_>>>()?;
        // The gradients of one step's sums and of the product that is reset, of all units; then, of
        // a thread's own units, the sums, the states and the working memory.
        let all = batch * (gates + 1) * n;
        let own = |units: &Range<usize>| batch * units.len() * (gates + states + 4);
        let mut blocks = units
            .iter()
            .map(|units| cpu.pool().scratch::<T>(own(units) + all))
            .collect::<Result<Vec<_>>>()?;
        // The first thread keeps the gathered values.
        let counts = [self.counts(&(0..batch))];
        let mut dz_cut = cut_running(dz, gates * n, &counts);
        let mut kept_cut: Vec<_> = kept
            .iter_mut()
            .zip(self.kept_widths())
            .filter_map(|(data, width)| cut_running(data, width, &counts).pop())
            .collect();
        let mut parts = Vec::with_capacity(units.len());
        for (member, block) in blocks.iter_mut().enumerate() {
            let units = units[member].clone();
            let size = batch * units.len();
            let mut block: &mut [T] = block;
            let dstate = (0..states).map(|_| take(&mut block, size)).collect();
            parts.push(BackwardPart {
                rows: 0..batch,
                weights: &weights[member],
                dz: dz_cut.pop().unwrap_or_default(),
                kept: mem::take(&mut kept_cut),
                dstate,
                sums: take(&mut block, batch * gates * n),
                group: Some(UnitGroup {
                    member,
                    round: 0,
                    gathers: gathers.each_ref(),
                }),
                own_dz: take(&mut block, gates * size),
                all_reset: take(&mut block, batch * n),
                spare: [(); 4].map(|()| take(&mut block, size)),
                units,
                offsets: RowOffsets::default(),
            });
        }
        if !cpu.run_together(parts, |part| part.run(self, forward))? {
            return Ok(false);
        }
        let mut at = 0;
        for state in dinitial {
            scatter_units(cpu, state.elements(), n, units, &blocks, at);
            at += batch;
        }
        Ok(true)
    }

    /// The gradients of the inputs; 0 past a row's length.
    fn input_gradients(
        &self,
        cpu: &Cpu,
        kernel: &PackedMatrix<T>,
        (dz, counts): (&[T], &[usize]),
        dx: &mut [T],
    ) {
        let LayerDims {
            steps,
            batch,
            inputs,
            n,
            gates,
            ..
        } = self.sizes;
        let width = gates * n;
        if inputs == 0 {
            return;
        }
        // Some steps at a time, so that every thread gets running rows.
        let size = cpu.threads() * INPUT_ROWS;
        for (i, dx) in dx.chunks_mut(size * inputs).enumerate() {
            let out = [(&mut *dx, inputs)];
            let count = size.min(steps * batch - i * size);
            cpu.split(count, out, width * inputs, |rows, [dx]| {
                let rows = i * size + rows.start..i * size + rows.end;
                let runs = |row: &usize| row / batch < self.length(row % batch);
                let earlier: usize = counts[..rows.start / batch].iter().sum();
                let same_step = rows.start / batch * batch..rows.start;
                let first = earlier + same_step.filter(runs).count();
                let mut to = Vec::with_capacity(rows.len());
                for (row, (place, dx)) in rows.zip(dx.chunks_exact_mut(inputs).enumerate()) {
                    match runs(&row) {
                        true => to.push(place * inputs),
                        false => dx.fill(T::ZERO),
                    }
                }
                let from: Vec<usize> = (first..first + to.len()).map(|i| i * width).collect();
                self.product((dz, &from), kernel, Accumulate::Zero, (dx, &to));
            });
        }
    }
}

/// Splits data of running rows by range and step; `counts` holds the number of rows of each.
fn cut_running<'a, T>(
    mut data: &'a mut [T],
    width: usize,
    counts: &[Vec<usize>],
) -> Vec<Vec<&'a mut [T]>> {
    let mut cut: Vec<Vec<&mut [T]>> = counts.iter().map(|_| Vec::new()).collect();
    for t in 0..counts.first().map_or(0, Vec::len) {
        for (cut, counts) in cut.iter_mut().zip(counts) {
            cut.push(take(&mut data, counts[t] * width));
        }
    }
    cut
}
