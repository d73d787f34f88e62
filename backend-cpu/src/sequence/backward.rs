//! Gradients of a layer over all steps: back through the steps for some rows on each thread, then the gradients of the
//! kernels as products over all rows of all steps at once.
//!
//! What these products take is written without the rows that have ended: step after step, in each the rows that
//! run, in order.

use std::mem;
use std::ops::Range;

use backend_api::{Buffers, Dests, Error, ExtendedLstm, Recurrence, Result, SequencePlan};
use smallvec::{SmallVec, smallvec};

use super::kernel_grads::Stack;
use super::weights::{Matrix, Weights};
use super::{Layer, Sizes, cut_rows, missing, run_parts, source, take, target, unknown};
use crate::activations::with_curve;
use crate::device::Cpu;
use crate::element::Float;
use crate::gates::{
    ClippedLstmGrad, GruAfterGrad, GruOutputGrad, GruResetGrad, LstmGrad, LstmOutput, Slope,
};
use crate::packed::Start;
use crate::pool::Scratch;
use crate::simd::{Source, Target};
use crate::storage::{CpuBuffer, Dense, Input, Output};

/// Rows whose gradients of the inputs a thread makes at a time, if there is more than one.
const INPUT_ROWS: usize = 1024;

/// What the forward pass left, and the gradients that come in: sequences over all rows.
pub(super) struct Given<'a, T> {
    pub(super) outputs: Dense<'a, T>,
    pub(super) saved: Vec<Dense<'a, T>>,
    doutputs: Dense<'a, T>,
    dfinal: Vec<Dense<'a, T>>,
}

/// What the rows of a range write.
struct Part<'a, T: Float> {
    rows: Range<usize>,
    weights: &'a Weights<'a, T>,
    /// One for each step, rows that run only: `dz`, and what else a product over all steps takes.
    dz: Vec<&'a mut [T]>,
    kept: Vec<Vec<&'a mut [T]>>,
    /// The gradients of the states, which end as those of the initial ones.
    dstate: Vec<&'a mut [T]>,
    /// `dz` of a step, of all rows, where some have ended.
    sums: &'a mut [T],
    /// Of a step: `[rows, max(n, p)]` each.
    spare: [&'a mut [T]; 4],
    active: Vec<usize>,
    /// Where the rows of an operand and of a result are.
    from: Vec<usize>,
    to: Vec<usize>,
}

impl Cpu {
    pub(crate) fn sequence_grad<T: Float>(
        &self,
        plan: &SequencePlan,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let parts = ins.split_at_checked(plan.operands());
        let (operands, given) = parts.ok_or_else(missing)?;
        let plan = &SequencePlan {
            save: true,
            ..*plan
        };
        let layer = Layer::<T>::new(self, "sequence_grad", plan, operands)?;
        let [outputs, given @ ..] = given else {
            return Err(missing());
        };
        let parts = given.split_at_checked(plan.recurrence.saved_widths().len());
        let (saved, given) = parts.ok_or_else(missing)?;
        let [doutputs, dfinal @ ..] = given else {
            return Err(missing());
        };
        let given = Given {
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
        layer.gradients(self, plan, &given, &mut results)?;
        Ok(results.into_iter().map(Output::finish).collect())
    }
}

impl<T: Float> Layer<'_, T> {
    /// The widths of what is kept of each row besides `dz`: for the GRUs what meets the candidate's kernel on one side,
    /// for a projection both sides of its gradient.
    fn kept_widths(&self) -> SmallVec<[usize; 2]> {
        let Sizes { n, p, .. } = self.sizes;
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
        given: &Given<'_, T>,
        results: &mut [Output],
    ) -> Result<()> {
        let Sizes {
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
        let ranges = self.row_ranges(cpu);
        let counts = self.counts(&ranges);
        let rows: usize = counts.iter().flatten().sum();
        let mut dz = cpu.pool().scratch::<T>(rows * width)?;
        let mut kept = self
            .kept_widths()
            .iter()
            .map(|width| cpu.pool().scratch::<T>(rows * width))
            .collect::<Result<Vec<_>>>()?;
        if batch * n > 0 {
            let dx = dx.first_mut().map(|dx| dx.elements::<T>());
            self.run_back(
                cpu,
                given,
                (&ranges, &counts),
                dx,
                (&mut dz, &mut kept),
                dinitial,
            )?;
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
                    smallvec![h0, &given.outputs[..split]]
                },
            }
        } else {
            gathered = self.running_states(cpu, rows, given)?;
            Stack {
                width: self.sizes.p,
                parts: smallvec![&*gathered],
            }
        };
        self.parameter_grads(cpu, given, &h, (&dz, &kept), dparameters)
    }

    /// How many rows run in each range at each step.
    fn counts(&self, ranges: &[Range<usize>]) -> Vec<Vec<usize>> {
        let running = |t: usize, rows: &Range<usize>| {
            rows.clone().filter(|&row| t < self.length(row)).count()
        };
        (0..self.sizes.steps)
            .map(|t| ranges.iter().map(|rows| running(t, rows)).collect())
            .collect()
    }

    fn run_back(
        &self,
        cpu: &Cpu,
        given: &Given<'_, T>,
        (ranges, counts): (&[Range<usize>], &[Vec<usize>]),
        dx: Option<&mut [T]>,
        (dz, kept): (&mut [T], &mut [Scratch<T>]),
        dinitial: &mut [Output],
    ) -> Result<()> {
        let Sizes {
            batch, n, p, gates, ..
        } = self.sizes;
        let weights = self.transposed(cpu, dx.is_some())?;
        let mut dz_cut = cut_running(dz, gates * n, counts, ranges.len()).into_iter();
        let mut kept_cut: Vec<_> = kept
            .iter_mut()
            .zip(self.kept_widths())
            .map(|(data, width)| cut_running(data, width, counts, ranges.len()).into_iter())
            .collect();
        let last = dinitial.len() - 1;
        let mut dstate_cut: Vec<_> = dinitial
            .iter_mut()
            .enumerate()
            .map(|(i, state)| {
                let width = if i == last { p } else { n };
                cut_rows(state.elements::<T>(), width, ranges).into_iter()
            })
            .collect();
        let uneven = if self.lengths.is_some() { batch } else { 0 };
        let mut sums = cpu.pool().scratch::<T>(uneven * gates * n)?;
        let mut sums = &mut *sums;
        let widest = n.max(p);
        let mut spare = cpu.pool().scratch::<T>(4 * batch * widest)?;
        let mut spare_cut = cut_rows(&mut spare, 4 * widest, ranges).into_iter();
        let mut parts = Vec::with_capacity(ranges.len());
        for rows in ranges {
            let mut spare = spare_cut.next().unwrap_or_default();
            let uneven = rows.len().min(uneven);
            parts.push(Part {
                rows: rows.clone(),
                weights: &weights,
                dz: dz_cut.next().unwrap_or_default(),
                kept: kept_cut.iter_mut().filter_map(Iterator::next).collect(),
                dstate: dstate_cut.iter_mut().filter_map(Iterator::next).collect(),
                sums: take(&mut sums, uneven * gates * n),
                spare: [(); 4].map(|()| take(&mut spare, rows.len() * widest)),
                active: Vec::with_capacity(rows.len()),
                from: Vec::new(),
                to: Vec::new(),
            });
        }
        run_parts(cpu, parts, |part| part.run(self, given))?;
        if let Some(dx) = dx {
            self.input_gradients(cpu, &weights.input, (dz, counts), dx);
        }
        Ok(())
    }

    /// The gradients of the inputs. Past a row's length nothing depends on them.
    fn input_gradients(
        &self,
        cpu: &Cpu,
        kernel: &Matrix<T>,
        (dz, counts): (&[T], &[Vec<usize>]),
        dx: &mut [T],
    ) {
        let Sizes {
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
        // Rows of some steps, so that all threads have some that run.
        let size = cpu.threads() * INPUT_ROWS;
        for (i, dx) in dx.chunks_mut(size * inputs).enumerate() {
            let out = [(&mut *dx, inputs)];
            let count = size.min(steps * batch - i * size);
            cpu.split(count, out, width * inputs, |rows, [dx]| {
                let rows = i * size + rows.start..i * size + rows.end;
                let runs = |row: &usize| row / batch < self.length(row % batch);
                let earlier = counts[..rows.start / batch].iter().flatten();
                let same_step = rows.start / batch * batch..rows.start;
                let first = earlier.sum::<usize>() + same_step.filter(runs).count();
                let mut to = Vec::with_capacity(rows.len());
                for (row, (place, dx)) in rows.zip(dx.chunks_exact_mut(inputs).enumerate()) {
                    match runs(&row) {
                        true => to.push(place * inputs),
                        false => dx.fill(T::ZERO),
                    }
                }
                let from: Vec<usize> = (first..first + to.len()).map(|i| i * width).collect();
                self.product((dz, &from), kernel, Start::Zero, (dx, &to));
            });
        }
    }
}

/// Rows that run, cut by step for each of some ranges.
fn cut_running<'a, T>(
    mut data: &'a mut [T],
    width: usize,
    counts: &[Vec<usize>],
    ranges: usize,
) -> Vec<Vec<&'a mut [T]>> {
    let mut cut: Vec<Vec<&mut [T]>> = (0..ranges).map(|_| Vec::new()).collect();
    for counts in counts {
        for (cut, count) in cut.iter_mut().zip(counts) {
            cut.push(take(&mut data, count * width));
        }
    }
    cut
}

impl<T: Float> Part<'_, T> {
    fn run(mut self, layer: &Layer<'_, T>, given: &Given<'_, T>) -> Result<()> {
        let Sizes {
            n, gates, steps, ..
        } = layer.sizes;
        for (dstate, dfinal) in self.dstate.iter_mut().zip(&given.dfinal) {
            let width = dfinal.len() / layer.sizes.batch;
            let start = self.rows.start * width;
            dstate.copy_from_slice(&dfinal[start..start + dstate.len()]);
        }
        for t in (0..steps).rev() {
            let mut active = mem::take(&mut self.active);
            layer.find_active(t, &self.rows, &mut active);
            let dz = mem::take(&mut self.dz[t]);
            if active.len() == self.rows.len() {
                self.step(layer, given, t, dz, &active)?;
            } else if !active.is_empty() {
                let sums = mem::take(&mut self.sums);
                self.step(layer, given, t, sums, &active)?;
                keep_rows(dz, sums, &active, gates * n);
                self.sums = sums;
            }
            self.active = active;
        }
        Ok(())
    }

    /// One step back, of the active rows, each of which has its place in `dz`.
    fn step(
        &mut self,
        layer: &Layer<'_, T>,
        given: &Given<'_, T>,
        t: usize,
        dz: &mut [T],
        active: &[usize],
    ) -> Result<()> {
        let Sizes { n, p, gates, .. } = layer.sizes;
        let width = gates * n;
        let Self {
            rows,
            weights,
            kept,
            dstate,
            spare: [spare, direct, third, fourth],
            from,
            to,
            ..
        } = self;
        let each = (active, n);
        let places = |places: &mut Vec<usize>, width: usize, at: usize| {
            places.clear();
            places.extend(active.iter().map(|r| r * width + at));
        };
        let units = |data| layer.at_step(data, n, t, rows, 0);
        // A state of the step before: an initial one, or from a sequence.
        let before = |which: usize, data| match t.checked_sub(1) {
            Some(before) => layer.at_step(data, n, before, rows, 0),
            None => layer.at_step(&layer.initial[which], n, 0, rows, 0),
        };
        let dout = layer.at_step(&given.doutputs, p, t, rows, 0);
        let saved = |i: usize| {
            let data = given.saved.get(i).ok_or_else(missing)?;
            Ok::<&[T], Error>(data)
        };
        match (layer.recurrence, &mut **dstate) {
            (Recurrence::Basic { activation }, [dh]) => {
                let ins = [units(&given.outputs), source(dh, n, 0), dout];
                with_curve!(activation, C => {
                    layer.each_row(each, ins, [target(&mut *dz, 1, n)], Slope(C::default()));
                });
                places(from, n, 0);
                layer.product((dz, from), &weights.recurrent[0], Start::Zero, (dh, from));
            }
            (Recurrence::Lstm(constants), [dc, dh]) => {
                let (gates, cells) = (saved(0)?, saved(1)?);
                let gate = |i: usize| layer.at_step(gates, width, t, rows, i * n);
                let ins = [
                    gate(0),
                    gate(1),
                    gate(2),
                    gate(3),
                    before(0, cells),
                    units(cells),
                    source(dc, n, 0),
                    source(dh, n, 0),
                    dout,
                ];
                with_curve!(constants.activation, C => {
                    let outs = [target(&mut *dz, 4, n), target(spare, 1, n)];
                    layer.each_row(each, ins, outs, LstmGrad(C::default()));
                });
                copy_rows(dc, spare, active, n);
                places(from, width, 0);
                places(to, n, 0);
                layer.product((dz, from), &weights.recurrent[0], Start::Zero, (dh, to));
            }
            (Recurrence::ExtendedLstm(lstm), [dc, dh]) => {
                let (gates, cells) = (saved(0)?, saved(1)?);
                let gate = |i: usize| layer.at_step(gates, width, t, rows, i * n);
                // The gradient of `h`, then of what was projected.
                let y = layer.at_step(&given.outputs, p, t, rows, 0);
                let limit = lstm.proj_clip.filter(|_| lstm.projection);
                let limit = limit.map_or(T::INFINITY, T::from_f64);
                for &r in active {
                    let rows = [source(dh, p, 0), dout, y].map(|s| s.row(r, p));
                    let to = third[r * p..(r + 1) * p].iter_mut();
                    for (i, to) in to.enumerate() {
                        let [dh, dout, y] = rows.map(|row| row[i]);
                        *to = if y.abs() < limit {
                            dh.add(dout)
                        } else {
                            T::ZERO
                        };
                    }
                }
                let mut dm: &[T] = third;
                if lstm.projection {
                    let [kept_m, kept_through] = &mut **kept else {
                        return Err(missing());
                    };
                    places(from, p, 0);
                    places(to, n, 0);
                    let kernel = &weights.recurrent[1];
                    layer.product((third, from), kernel, Start::Zero, (fourth, to));
                    let ins = [gate(3), units(cells)];
                    with_curve!(lstm.gates.activation, C => {
                        let out = [target(direct, 1, n)];
                        layer.each_row(each, ins, out, LstmOutput(C::default()));
                    });
                    keep_rows(kept_m[t], direct, active, n);
                    keep_rows(kept_through[t], third, active, p);
                    dm = fourth;
                }
                let ins = [
                    gate(0),
                    gate(1),
                    gate(2),
                    gate(3),
                    before(0, cells),
                    units(cells),
                    source(dc, n, 0),
                    source(dm, n, 0),
                ];
                let outs = [target(&mut *dz, 4, n), target(spare, 1, n)];
                extended_grad(layer, &lstm, each, ins, &weights.vectors, outs)?;
                copy_rows(dc, spare, active, n);
                places(from, width, 0);
                places(to, p, 0);
                layer.product((dz, from), &weights.recurrent[0], Start::Zero, (dh, to));
            }
            (Recurrence::Gru { activation }, [dh]) => {
                let gates = saved(0)?;
                let gate = |i: usize| layer.at_step(gates, width, t, rows, i * n);
                let h = before(0, &given.outputs);
                let ins = [gate(2), gate(1), h, source(dh, n, 0), dout];
                with_curve!(activation, C => {
                    // The sums of `u` and of the candidate are the last two of three.
                    let sums = Target { at: n, parts: 2, ..target(&mut *dz, 3, n) };
                    let outs = [sums, target(direct, 1, n)];
                    layer.each_row(each, ins, outs, GruOutputGrad(C::default()));
                });
                places(from, width, 2 * n);
                places(to, n, 0);
                layer.product((dz, from), &weights.recurrent[1], Start::Zero, (spare, to));
                let ins = [gate(0), h, source(spare, n, 0), source(direct, n, 0)];
                let reset_sum = Target {
                    parts: 1,
                    ..target(&mut *dz, 3, n)
                };
                // `dh` is not read any more, so it takes what goes to `h` without the kernel.
                let outs = [reset_sum, target(dh, 1, n), target(third, 1, n)];
                layer.each_row(each, ins, outs, GruResetGrad);
                keep_rows(kept[0][t], third, active, n);
                places(from, width, 0);
                layer.product((dz, from), &weights.recurrent[0], Start::There, (dh, to));
            }
            (Recurrence::GruResetAfter { activation }, [dh]) => {
                let gates = saved(0)?;
                let gate = |i: usize| layer.at_step(gates, 4 * n, t, rows, i * n);
                let h = before(0, &given.outputs);
                let ins = [
                    gate(0),
                    gate(1),
                    gate(2),
                    gate(3),
                    h,
                    source(dh, n, 0),
                    dout,
                ];
                with_curve!(activation, C => {
                    let outs = [
                        target(&mut *dz, 3, n),
                        target(spare, 1, n),
                        target(direct, 1, n),
                    ];
                    layer.each_row(each, ins, outs, GruAfterGrad(C::default()));
                });
                copy_rows(dh, direct, active, n);
                keep_rows(kept[0][t], spare, active, n);
                places(from, width, 0);
                places(to, n, 0);
                layer.product((dz, from), &weights.recurrent[0], Start::There, (dh, to));
                layer.product((spare, to), &weights.recurrent[1], Start::There, (dh, to));
            }
            (other, _) => return Err(unknown(other)),
        }
        Ok(())
    }
}

/// Copies rows to their places.
fn copy_rows<T: Copy>(to: &mut [T], from: &[T], rows: &[usize], width: usize) {
    for row in rows.iter().map(|r| r * width..(r + 1) * width) {
        to[row.clone()].copy_from_slice(&from[row]);
    }
}

/// Copies rows one after the other.
fn keep_rows<T: Copy>(to: &mut [T], from: &[T], rows: &[usize], width: usize) {
    for (to, r) in to.chunks_exact_mut(width).zip(rows) {
        to.copy_from_slice(&from[r * width..(r + 1) * width]);
    }
}

fn extended_grad<T: Float>(
    layer: &Layer<'_, T>,
    lstm: &ExtendedLstm,
    each: (&[usize], usize),
    ins: [Source<'_, T>; 8],
    vectors: &[&[T]],
    outs: [Target<'_, T>; 2],
) -> Result<()> {
    let limit = lstm.cell_clip.map_or(T::INFINITY, T::from_f64);
    with_curve!(lstm.gates.activation, C => {
        let f = ClippedLstmGrad {
            limit,
            curve: std::marker::PhantomData::<C>,
        };
        match vectors {
            [] => layer.each_row::<8, 5, 2>(each, ins, outs, f),
            [w_f, w_i, w_o] => {
                let [i, j, g, o, c, c_new, dc, dm] = ins;
                let [w_f, w_i, w_o] = [w_f, w_i, w_o].map(|w| source(w, 0, 0));
                let ins = [i, j, g, o, c, c_new, dc, dm, w_f, w_i, w_o];
                layer.each_row::<11, 5, 2>(each, ins, outs, f);
            }
            _ => return Err(missing()),
        }
    });
    Ok(())
}
