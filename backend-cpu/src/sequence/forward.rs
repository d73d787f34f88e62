//! A layer over all steps, forward.

use std::ops::Range;

use backend_api::{Buffers, Dests, Recurrence, Result, SequencePlan};

use super::all_gather::AllGather;
use super::forward_step::{ForwardPart, Results};
use super::layer::{Layer, LayerDims, cut_rows, cut_steps, missing, take};
use super::sharing::scatter_units;
use super::sharing::{MIN_ROWS_PER_THREAD, MIN_ROWS_PER_THREAD_SAVING, UnitGroup};
use super::weights::Weights;
use crate::device::Cpu;
use crate::element::Float;
use crate::storage::{CpuBuffer, Input, Output};

/// Splits an output into steps and row ranges; empty if the output is not requested.
fn cut_output<'a, T: Float>(
    output: Option<&'a mut Output>,
    width: usize,
    sizes: LayerDims,
    ranges: &[Range<usize>],
) -> Vec<Vec<&'a mut [T]>> {
    match output {
        Some(output) => cut_steps(output.elements(), width, sizes, ranges),
        None => ranges.iter().map(|_| Vec::new()).collect(),
    }
}

impl Cpu {
    pub(crate) fn sequence<T: Float>(
        &self,
        plan: &SequencePlan,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let layer = Layer::<T>::new(self, "sequence", plan, ins)?;
        let mut results = outs
            .into_iter()
            .map(|dest| Output::new(self.pool(), dest))
            .collect::<Result<Vec<_>>>()?;
        if layer.sizes.batch * layer.sizes.n > 0 {
            match layer.forward_units(self, plan.save) {
                Some(ranges) => layer.run_by_units(self, &ranges, &mut results)?,
                None => layer.run_by_rows(self, &mut results)?,
            }
        }
        Ok(results.into_iter().map(Output::finish).collect())
    }
}

impl<T: Float> Layer<'_, T> {
    /// Scratch memory per row besides the sums, in multiples of the number of units.
    fn spare_units(&self) -> usize {
        match self.recurrence {
            Recurrence::Basic { .. } => 0,
            Recurrence::ExtendedLstm(lstm) if lstm.projection => 3,
            _ => 2,
        }
    }

    /// The ranges of units if splitting the units is better than splitting the rows.
    fn forward_units(&self, cpu: &Cpu, saving: bool) -> Option<Vec<Range<usize>>> {
        let shared = match self.recurrence {
            Recurrence::Gru { .. } => 2,
            _ => 1,
        };
        let saved: usize = self.recurrence.saved_widths().iter().sum();
        match saving {
            true => self.unit_ranges(cpu, MIN_ROWS_PER_THREAD_SAVING, [shared, 1 + saved]),
            false => self.unit_ranges(cpu, MIN_ROWS_PER_THREAD, [shared, 1]),
        }
    }

    /// Stride between rows of sums, in elements. A stride of a large power of two maps all rows to
    /// a few cache sets, so one cache line of padding is added.
    pub(super) fn sum_width(&self, units: usize) -> usize {
        let width = self.sizes.gates * units;
        match self.sizes.gates > 1 && (width * size_of::<T>()).is_multiple_of(2048) {
            true => width + 64 / size_of::<T>(),
            false => width,
        }
    }

    /// Splits the rows over the threads.
    fn run_by_rows(&self, cpu: &Cpu, results: &mut [Output]) -> Result<()> {
        let sizes = self.sizes;
        let LayerDims { n, p, .. } = sizes;
        let sum_width = self.sum_width(n);
        let ranges = self.row_ranges(cpu);
        let weights = self.weights(cpu, &(0..n))?;
        let (outputs, results) = results.split_first_mut().ok_or_else(missing)?;
        let (finals, saved) = results
            .split_at_mut_checked(self.recurrence.states())
            .ok_or_else(missing)?;
        let mut saved = saved.iter_mut();
        let widths = self.recurrence.saved_widths();
        let width = |i: usize| widths.get(i).map_or(0, |w| w * n);
        let mut gates_cut = cut_output(saved.next(), width(0), sizes, &ranges).into_iter();
        let mut cells_cut = cut_output(saved.next(), width(1), sizes, &ranges).into_iter();
        let mut outputs_cut = cut_output(Some(outputs), p, sizes, &ranges).into_iter();
        let last = finals.len() - 1;
        let mut finals_cut: Vec<_> = finals
            .iter_mut()
            .enumerate()
            .map(|(i, state)| {
                let width = if i == last { p } else { n };
                cut_rows(state.elements::<T>(), width, &ranges).into_iter()
            })
            .collect();
        // One block for all threads, so that the pool's memory use does not depend on their number.
        let most_steps = self.chunk(1);
        let spare_units = self.spare_units();
        let sum_rows: usize = ranges.iter().map(|r| self.chunk(r.len()) * r.len()).sum();
        let sum_rows = sum_rows.max(most_steps);
        let mut sums = cpu.pool().scratch::<T>(sum_rows * sum_width)?;
        let mut sums = &mut *sums;
        let mut spare = cpu.pool().scratch::<T>(sizes.batch * spare_units * n)?;
        let mut spare_cut = cut_rows(&mut spare, spare_units * n, &ranges).into_iter();
        let mut parts = Vec::with_capacity(ranges.len());
        for rows in &ranges {
            let results = Results {
                outputs: outputs_cut.next().unwrap_or_default(),
                gates: gates_cut.next().unwrap_or_default(),
                cells: cells_cut.next().unwrap_or_default(),
                finals: finals_cut.iter_mut().filter_map(Iterator::next).collect(),
            };
            let count = self.chunk(rows.len()) * rows.len() * sum_width;
            parts.push(self.part(
                (rows.clone(), 0..n),
                (&weights, None),
                results,
                take(&mut sums, count),
                spare_cut.next().unwrap_or_default(),
            ));
        }
        cpu.run_parts(parts, |part| part.run(self))
    }

    fn part<'a>(
        &self,
        (rows, units): (Range<usize>, Range<usize>),
        (weights, group): (&'a Weights<'a, T>, Option<UnitGroup<'a, T>>),
        mut results: Results<'a, T>,
        sums: &'a mut [T],
        mut spare: &'a mut [T],
    ) -> ForwardPart<'a, T> {
        let count = rows.len() * units.len();
        let mut next = || take(&mut spare, count);
        let lstm = self.recurrence.states() == 2;
        let spare = match self.recurrence {
            Recurrence::Gru { .. } | Recurrence::GruResetAfter { .. } => [next(), next()],
            _ => {
                if lstm && results.cells.is_empty() {
                    results.cells.extend([next(), next()]);
                }
                let projected = if self.recurrence.is_projected() {
                    next()
                } else {
                    Default::default()
                };
                [projected, Default::default()]
            }
        };
        let all = match &group {
            Some(_) => [
                self.sizes.steps > 1,
                matches!(self.recurrence, Recurrence::Gru { .. }),
            ]
            .map(|exchanged| vec![T::ZERO; usize::from(exchanged) * rows.len() * self.sizes.n]),
            None => Default::default(),
        };
        ForwardPart {
            active: Vec::with_capacity(rows.len()),
            from: Vec::new(),
            to: Vec::new(),
            rows,
            units,
            weights,
            group,
            results,
            sums,
            spare,
            all,
        }
    }

    /// Splits the units over the threads. Each writes results of its own, which are combined at the
    /// end.
    fn run_by_units(
        &self,
        cpu: &Cpu,
        ranges: &[Range<usize>],
        results: &mut [Output],
    ) -> Result<()> {
        let LayerDims {
            steps, batch, n, ..
        } = self.sizes;
        let states = self.recurrence.states();
        let gathers = [(); 2].map(|()| AllGather::new(ranges));
        let weights = ranges
            .iter()
            .map(|units| self.weights(cpu, units))
            .collect::<Result<Vec<_>>>()?;
        // Widths, in units, of each thread's outputs and saved values.
        let saving = results.len() - 1 - states;
        let saved = self.recurrence.saved_widths().iter().take(saving);
        let widths: Vec<usize> = [1].iter().chain(saved).copied().collect();
        let rows_of = |width: usize| steps * batch * width;
        let own: usize = widths.iter().map(|w| rows_of(*w)).sum::<usize>() + states * batch;
        let sum_rows = self.chunk(batch) * batch;
        let each = own + self.spare_units() * batch;
        let mut blocks = ranges
            .iter()
            .map(|units| {
                let sums = sum_rows * self.sum_width(units.len());
                cpu.pool().scratch::<T>(each * units.len() + sums)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut parts = Vec::with_capacity(ranges.len());
        for (member, block) in blocks.iter_mut().enumerate() {
            let (units, weights) = (&ranges[member], &weights[member]);
            let len = units.len();
            let mut block: &mut [T] = block;
            let mut stacks = widths.iter().map(|&width| {
                let data = take(&mut block, rows_of(width) * len);
                data.chunks_exact_mut(batch * width * len)
                    .collect::<Vec<_>>()
            });
            let outputs = stacks.next().unwrap_or_default();
            let saved_gates = stacks.next().unwrap_or_default();
            let cells = stacks.next().unwrap_or_default();
            drop(stacks);
            let finals = (0..states).map(|_| take(&mut block, batch * len)).collect();
            let results = Results {
                outputs,
                gates: saved_gates,
                cells,
                finals,
            };
            let group = UnitGroup {
                member,
                round: 0,
                gathers: gathers.each_ref(),
            };
            let sums = take(&mut block, sum_rows * self.sum_width(len));
            let place = (0..batch, units.clone());
            parts.push(self.part(place, (weights, Some(group)), results, sums, block));
        }
        if !cpu.run_together(parts, |part| part.run(self))? {
            return self.run_by_rows(cpu, results);
        }
        // The results in order: the offset of each in a thread's block, in rows, and its width.
        let mut at = 0;
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(results.len());
        for &width in &widths {
            places.push((at, width));
            at += rows_of(width);
        }
        for state in 0..states {
            places.insert(1 + state, (at, 1));
            at += batch;
        }
        for (result, (at, width)) in results.iter_mut().zip(places) {
            let out = result.elements::<T>();
            debug_assert_eq!(out.len() % (width * n), 0);
            scatter_units(cpu, out, n, ranges, &blocks, at);
        }
        Ok(())
    }
}
