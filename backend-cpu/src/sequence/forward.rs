//! A layer over all steps, forward.

use std::marker::PhantomData;
use std::mem;
use std::ops::Range;
use std::sync::Mutex;

use backend_api::{Buffers, Dests, ExtendedLstm, Recurrence, Result, SequencePlan};

use super::exchange::Exchange;
use super::weights::Weights;
use super::{
    Layer, MIN_PRODUCTS, Sizes, clear_others, cut_rows, cut_steps, missing, run_parts, source,
    take, target, unknown,
};
use crate::activations::with_curve;
use crate::device::Cpu;
use crate::element::Float;
use crate::gates::{Activate, ClippedLstm, GruAfter, GruGates, GruOutput, Lstm, limit_of};
use crate::packed::Start;
use crate::simd::{RowKernel, Source, Target};
use crate::storage::{CpuBuffer, Input, Output};

/// Rows for each thread from which on none shares units: with fewer, the weights that every thread would read are more
/// than what threads have to tell one another. Saved values, which a team has to put together, shift that.
const ROWS_ALONE: usize = 12;
const ROWS_ALONE_SAVING: usize = 4;
/// Units that a thread has at least where units are shared: fewer are not worth meeting for.
const MIN_UNITS: usize = 32;
/// Bytes of weights that a core may find in a cache of its own in the next step again. More are read from afar, by each thread all
/// that it multiplies with.
const OWN_CACHE: usize = 2 << 20;
/// What it costs to tell other threads a byte, in bytes of weights read.
const TELLING: usize = 8;

/// Where the results of a sequence go: for all rows and units, or a part's own share.
struct Results<'a, T> {
    /// `[steps, rows, width]` step by step; the second empty if nothing is saved.
    outputs: Vec<&'a mut [T]>,
    gates: Vec<&'a mut [T]>,
    /// For LSTMs. Two that take turns if nothing is saved.
    cells: Vec<&'a mut [T]>,
    /// The final states.
    finals: Vec<&'a mut [T]>,
}

/// Threads that share the units of the same rows.
struct Team<'a, T> {
    member: usize,
    h: &'a Exchange<T>,
    /// For the GRU: the reset state.
    reset: &'a Exchange<T>,
}

/// What a thread computes.
struct Part<'a, T: Float> {
    rows: Range<usize>,
    /// All, but in a team.
    units: Range<usize>,
    weights: &'a Weights<'a, T>,
    team: Option<Team<'a, T>>,
    results: Results<'a, T>,
    /// Sums of some steps before activation: `[steps, rows, gates units]`.
    sums: &'a mut [T],
    /// Of a step: for the GRUs `u` and `r h`, or what is reset; with a projection what is projected.
    spare: [&'a mut [T]; 2],
    /// In a team: all units of `h`, and of what is reset.
    all: [Vec<T>; 2],
    active: Vec<usize>,
    /// Where the rows of an operand and of a result are.
    from: Vec<usize>,
    to: Vec<usize>,
}

/// The steps of a result if it is asked for, else none.
fn cut_output<'a, T: Float>(
    output: Option<&'a mut Output>,
    width: usize,
    sizes: Sizes,
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
            match layer.unit_ranges(self, plan.save) {
                Some(ranges) => layer.run_team(self, &ranges, &mut results)?,
                None => layer.run_rows(self, &mut results)?,
            }
        }
        Ok(results.into_iter().map(Output::finish).collect())
    }
}

impl<T: Float> Layer<'_, T> {
    /// Units of scratch memory that a row needs besides the sums.
    fn spare_units(&self) -> usize {
        match self.recurrence {
            Recurrence::Basic { .. } => 0,
            Recurrence::ExtendedLstm(lstm) if lstm.projection => 3,
            _ => 2,
        }
    }

    /// How threads share the units, if there are too few rows to share.
    fn unit_ranges(&self, cpu: &Cpu, saving: bool) -> Option<Vec<Range<usize>>> {
        let Sizes { batch, n, .. } = self.sizes;
        let one_step = self.work_of(batch);
        let pieces = cpu
            .threads()
            .min(n / MIN_UNITS)
            .min(4 * one_step / MIN_PRODUCTS);
        let alone = if saving {
            ROWS_ALONE_SAVING
        } else {
            ROWS_ALONE
        };
        let few = batch < pieces * alone || self.reads_more_than_it_tells(pieces, saving);
        if pieces < 2 || !few || self.recurrence.is_projected() {
            return None;
        }
        // Multiples of a cache line.
        let blocks = n.div_ceil(16);
        let at = |i: usize| (i * blocks / pieces * 16).min(n);
        Some((0..pieces).map(|i| at(i)..at(i + 1)).collect())
    }

    /// Whether so many threads that share rows would read more weights, in each step, than threads that share units tell one another.
    fn reads_more_than_it_tells(&self, pieces: usize, saving: bool) -> bool {
        let Sizes {
            batch, n, p, gates, ..
        } = self.sizes;
        let weights = p * gates * n * size_of::<T>();
        let read = weights - weights / pieces.max(1);
        // The state is put and taken, and so are results, when they are put together.
        let saved: usize = self.recurrence.saved_widths().iter().sum();
        let results = 1 + if saving { saved } else { 0 };
        let told = batch * n * size_of::<T>() * 2 * (1 + results);
        weights > OWN_CACHE && read > TELLING * told
    }

    /// Numbers from one row of sums to the next. Rows a large power of two apart would share few places of a cache.
    fn sum_width(&self, units: usize) -> usize {
        let width = self.sizes.gates * units;
        match self.sizes.gates > 1 && (width * size_of::<T>()).is_multiple_of(2048) {
            true => width + 64 / size_of::<T>(),
            false => width,
        }
    }

    /// Each thread has some rows.
    fn run_rows(&self, cpu: &Cpu, results: &mut [Output]) -> Result<()> {
        let sizes = self.sizes;
        let Sizes { n, p, .. } = sizes;
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
        // One block for all threads, so that their number does not show in the pool.
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
        run_parts(cpu, parts, |part| part.run(self))
    }

    fn part<'a>(
        &self,
        (rows, units): (Range<usize>, Range<usize>),
        (weights, team): (&'a Weights<'a, T>, Option<Team<'a, T>>),
        mut results: Results<'a, T>,
        sums: &'a mut [T],
        mut spare: &'a mut [T],
    ) -> Part<'a, T> {
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
        let all = match &team {
            Some(_) => [(); 2].map(|()| vec![T::ZERO; rows.len() * self.sizes.n]),
            None => Default::default(),
        };
        Part {
            active: Vec::with_capacity(rows.len()),
            from: Vec::new(),
            to: Vec::new(),
            rows,
            units,
            weights,
            team,
            results,
            sums,
            spare,
            all,
        }
    }

    /// Each thread has some units of all rows, with results of its own that are put together in the end.
    fn run_team(&self, cpu: &Cpu, ranges: &[Range<usize>], results: &mut [Output]) -> Result<()> {
        let Sizes {
            steps, batch, n, ..
        } = self.sizes;
        let states = self.recurrence.states();
        let exchange = || Exchange::new(ranges);
        let (h, reset) = (exchange(), exchange());
        let weights = ranges
            .iter()
            .map(|units| self.weights(cpu, units))
            .collect::<Result<Vec<_>>>()?;
        // Widths in units of what each thread gives: outputs, states, saved values.
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
            let team = Team {
                member,
                h: &h,
                reset: &reset,
            };
            let sums = take(&mut block, sum_rows * self.sum_width(len));
            let place = (0..batch, units.clone());
            parts.push(Mutex::new(Some(self.part(
                place,
                (weights, Some(team)),
                results,
                sums,
                block,
            ))));
        }
        let failure = Mutex::new(None);
        let ran = cpu.run_team(&|member| {
            let part = parts.get(member).and_then(|part| part.lock().ok()?.take());
            if let Some(Err(error)) = part.map(|part| part.run(self))
                && let Ok(mut failure) = failure.lock()
            {
                failure.get_or_insert(error);
            }
        });
        drop(parts);
        if !ran {
            return self.run_rows(cpu, results);
        }
        if let Ok(Some(error)) = failure.into_inner() {
            return Err(error);
        }
        // The results in order, and where each begins in a thread's block.
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
            cpu.split(out.len() / n, [(out, n)], n, |rows, [out]| {
                for (units, block) in ranges.iter().zip(&blocks) {
                    let len = units.len();
                    let pieces = block[(at + rows.start) * len..].chunks_exact(len);
                    for (to, from) in out.chunks_exact_mut(n).zip(pieces) {
                        to[units.clone()].copy_from_slice(from);
                    }
                }
            });
        }
        Ok(())
    }
}

impl<T: Float> Part<'_, T> {
    fn run(mut self, layer: &Layer<'_, T>) -> Result<()> {
        let team = self.team.as_ref().map(|team| (team.h, team.reset));
        let members = team.map(|(h, reset)| (h.member(), reset.member()));
        self.run_steps(layer)?;
        if let Some((h, reset)) = members {
            h.done();
            reset.done();
        }
        Ok(())
    }

    fn run_steps(&mut self, layer: &Layer<'_, T>) -> Result<()> {
        let Sizes { n, p, steps, .. } = layer.sizes;
        let len = self.units.len();
        let last = self.results.finals.len() - 1;
        for (which, state) in self.results.finals.iter_mut().enumerate() {
            // A team never projects, so that `p` is `n` where units are shared.
            let width = if which == last { p } else { n };
            let own = if width == n { self.units.clone() } else { 0..p };
            let from = layer.initial[which]
                .chunks_exact(width)
                .skip(self.rows.start);
            for (to, from) in state.chunks_exact_mut(own.len()).zip(from) {
                to.copy_from_slice(&from[own.clone()]);
            }
        }
        let chunk = layer.chunk(self.rows.len());
        let width = layer.sum_width(len);
        for start in (0..steps).step_by(chunk) {
            let end = steps.min(start + chunk);
            self.project(layer, start..end, width);
            for t in start..end {
                let mut active = mem::take(&mut self.active);
                layer.find_active(t, &self.rows, &mut active);
                self.clear_ended(layer, t, &active);
                if !active.is_empty() {
                    self.step(layer, t, (t - start) * self.rows.len() * width, &active)?;
                    for &r in &active {
                        if layer.length(self.rows.start + r) == t + 1 {
                            self.finish_row(r, t);
                        }
                    }
                }
                self.active = active;
            }
        }
        Ok(())
    }

    /// The inputs of some steps times their kernel, bias added, for the rows that still run.
    fn project(&mut self, layer: &Layer<'_, T>, steps: Range<usize>, width: usize) {
        let (mut from, mut to) = (mem::take(&mut self.from), mem::take(&mut self.to));
        from.clear();
        to.clear();
        for (i, t) in steps.enumerate() {
            layer.find_active(t, &self.rows, &mut self.active);
            from.extend(
                self.active
                    .iter()
                    .map(|r| layer.x.row(t, self.rows.start + r)),
            );
            to.extend(
                self.active
                    .iter()
                    .map(|r| (i * self.rows.len() + r) * width),
            );
        }
        let start = Start::Row(&self.weights.bias);
        let out = (&mut *self.sums, &*to);
        layer.product((&layer.x.data, &from), &self.weights.input, start, out);
        (self.from, self.to) = (from, to);
    }

    /// Past a row's length outputs are 0; saved values just have to be numbers.
    fn clear_ended(&mut self, layer: &Layer<'_, T>, t: usize, active: &[usize]) {
        if active.len() == self.rows.len() {
            return;
        }
        let len = self.units.len();
        let p = if self.team.is_some() {
            len
        } else {
            layer.sizes.p
        };
        clear_others(self.results.outputs[t], p, active);
        let widths = layer.recurrence.saved_widths();
        if let Some(saved) = self.results.gates.get_mut(t) {
            clear_others(saved, widths[0] * len, active);
            if let Some(cells) = self.results.cells.get_mut(t) {
                clear_others(cells, len, active);
            }
        }
    }

    /// The state of row `r` as of step `t` is its final one.
    fn finish_row(&mut self, r: usize, t: usize) {
        let Results {
            outputs,
            cells,
            finals,
            ..
        } = &mut self.results;
        let copy = |to: &mut [T], from: &[T], rows: usize| {
            let row = r * (from.len() / rows)..(r + 1) * (from.len() / rows);
            to[row.clone()].copy_from_slice(&from[row]);
        };
        let rows = self.rows.len();
        match &mut **finals {
            [c, h] => {
                copy(c, cells[t % cells.len()], rows);
                copy(h, outputs[t], rows);
            }
            [h] => copy(h, outputs[t], rows),
            _ => {}
        }
    }

    /// One step of the active rows. Their projected inputs are in the sums, from `at` on.
    fn step(&mut self, layer: &Layer<'_, T>, t: usize, at: usize, active: &[usize]) -> Result<()> {
        let Sizes { n, p, steps, .. } = layer.sizes;
        let len = self.units.len();
        let width = layer.sum_width(len);
        let Self {
            rows,
            units,
            weights,
            team,
            results,
            spare: [spare, second],
            all: [all_h, all_reset],
            from,
            to,
            ..
        } = self;
        let each = (active, len);
        let sums = &mut self.sums[at..][..rows.len() * width];
        let out = mem::take(&mut results.outputs[t]);
        // Rows that run now ran before, so their output is their state.
        let before = t.checked_sub(1);
        let initial = &layer.initial[layer.initial.len() - 1];
        let (h, start): (&[T], usize) = match (before, &team) {
            (None, _) => (initial, rows.start * p),
            (Some(_), Some(_)) => (all_h, 0),
            (Some(before), None) => (&*results.outputs[before], 0),
        };
        let places = |places: &mut Vec<usize>, width: usize, at: usize| {
            places.clear();
            places.extend(active.iter().map(|r| r * width + at));
        };
        places(from, p, start);
        places(to, width, 0);
        layer.product((h, from), &weights.recurrent[0], Start::There, (sums, to));
        // The part's own units of the state.
        let own_h = match before {
            None => source(initial, n, rows.start * n + units.start),
            Some(before) => source(&*results.outputs[before], len, 0),
        };
        let saved = results.gates.get_mut(t);
        match layer.recurrence {
            Recurrence::Basic { activation } => with_curve!(activation, C => {
                let f = Activate(C::default());
                if active.len() == rows.len() {
                    // Rows without gaps are one long row.
                    layer.arch.dispatch(RowKernel {
                        f,
                        rows: 0..1,
                        n: out.len(),
                        ins: [source(sums, 0, 0)],
                        outs: [target(out, 1, 0)],
                    });
                } else {
                    layer.each_row(each, [source(sums, len, 0)], [target(out, 1, len)], f);
                }
            }),
            Recurrence::Lstm(_) | Recurrence::ExtendedLstm(_) => {
                let turns = results.cells.len();
                let c_new = mem::take(&mut results.cells[t % turns]);
                let c = match before {
                    Some(before) => source(&*results.cells[before % turns], len, 0),
                    None => source(&layer.initial[0], n, rows.start * n + units.start),
                };
                let part = |i| source(&*sums, width, i * len);
                let ins = [part(0), part(1), part(2), part(3), c];
                match layer.recurrence {
                    Recurrence::ExtendedLstm(lstm) => {
                        let h = if lstm.projection {
                            &mut **spare
                        } else {
                            &mut *out
                        };
                        let state = [target(c_new, 1, len), target(h, 1, len)];
                        let vectors = &weights.vectors;
                        extended_step(layer, &lstm, each, ins, vectors, (state, saved))?;
                        if lstm.projection {
                            places(from, n, 0);
                            places(to, p, 0);
                            let kernel = &weights.recurrent[1];
                            layer.product((spare, from), kernel, Start::Zero, (out, to));
                            if let Some(limit) = lstm.proj_clip {
                                let limit = T::from_f64(limit);
                                for &at in &*to {
                                    for x in &mut out[at..at + p] {
                                        *x = limit_of(*x, limit);
                                    }
                                }
                            }
                        }
                    }
                    Recurrence::Lstm(constants) => {
                        let state = [target(c_new, 1, len), target(&mut *out, 1, len)];
                        with_curve!(constants.activation, C => {
                            let f = Lstm {
                                forget_bias: T::from_f64(constants.forget_bias),
                                curve: PhantomData::<C>,
                            };
                            match saved {
                                Some(saved) => {
                                    let [c_new, out] = state;
                                    let outs = [c_new, out, target(saved, 4, len)];
                                    layer.each_row::<5, 6, 3>(each, ins, outs, f);
                                }
                                None => layer.each_row::<5, 2, 2>(each, ins, state, f),
                            }
                        });
                    }
                    other => return Err(unknown(other)),
                }
                results.cells[t % turns] = c_new;
            }
            Recurrence::Gru { activation } => {
                let ins = [source(&*sums, width, 0), source(&*sums, width, len), own_h];
                let halves = [target(second, 1, len), target(spare, 1, len)];
                let mut saved = saved;
                match &mut saved {
                    Some(saved) => {
                        let [update, reset] = halves;
                        let gates = Target {
                            parts: 2,
                            ..target(saved, 3, len)
                        };
                        layer.each_row::<3, 4, 3>(each, ins, [gates, update, reset], GruGates);
                    }
                    None => layer.each_row::<3, 2, 2>(each, ins, halves, GruGates),
                }
                let mut reset: &[T] = spare;
                if let Some(team) = &team {
                    team.reset.share(t, team.member, spare, (all_reset, n))?;
                    reset = all_reset;
                }
                places(from, n, 0);
                places(to, width, 2 * len);
                let kernel = &weights.recurrent[1];
                // The kernel's columns are the last ones of the sums.
                layer.product((reset, from), kernel, Start::There, (&mut *sums, to));
                let candidate = source(&*sums, width, 2 * len);
                let ins = [candidate, source(second, len, 0), own_h];
                with_curve!(activation, C => {
                    let f = GruOutput(C::default());
                    match saved {
                        Some(saved) => {
                            let q = Target {
                                at: 2 * len,
                                parts: 1,
                                ..target(saved, 3, len)
                            };
                            layer.each_row::<3, 2, 2>(each, ins, [target(&mut *out, 1, len), q], f);
                        }
                        None => {
                            layer.each_row::<3, 1, 1>(each, ins, [target(&mut *out, 1, len)], f);
                        }
                    }
                });
            }
            Recurrence::GruResetAfter { activation } => {
                places(from, p, start);
                places(to, len, 0);
                let bias = Start::Row(weights.vectors[0]);
                layer.product((h, from), &weights.recurrent[1], bias, (spare, to));
                let part = |i| source(&*sums, width, i * len);
                let ins = [part(0), part(1), part(2), source(spare, len, 0), own_h];
                with_curve!(activation, C => {
                    let f = GruAfter(C::default());
                    match saved {
                        Some(saved) => {
                            let outs = [target(&mut *out, 1, len), target(saved, 4, len)];
                            layer.each_row::<5, 5, 2>(each, ins, outs, f);
                        }
                        None => {
                            layer.each_row::<5, 1, 1>(each, ins, [target(&mut *out, 1, len)], f);
                        }
                    }
                });
            }
            other => return Err(unknown(other)),
        }
        if let Some(team) = &team
            && t + 1 < steps
        {
            team.h.share(t, team.member, out, (all_h, n))?;
        }
        results.outputs[t] = out;
        Ok(())
    }
}

/// The gates of an LSTM with peepholes or clipping.
fn extended_step<T: Float>(
    layer: &Layer<'_, T>,
    lstm: &ExtendedLstm,
    each: (&[usize], usize),
    ins: [Source<'_, T>; 5],
    vectors: &[&[T]],
    (state, saved): ([Target<'_, T>; 2], Option<&mut &mut [T]>),
) -> Result<()> {
    let [i, j, f, o, c] = ins;
    let [c_new, h] = state;
    let n = each.1;
    with_curve!(lstm.gates.activation, C => {
        let step = ClippedLstm {
            forget_bias: T::from_f64(lstm.gates.forget_bias),
            limit: lstm.cell_clip.map_or(T::INFINITY, T::from_f64),
            curve: PhantomData::<C>,
        };
        match (vectors, saved) {
            ([], None) => {
                let ins = [i, j, f, o, c];
                layer.each_row::<5, 2, 2>(each, ins, [c_new, h], step);
            }
            ([], Some(saved)) => {
                let outs = [c_new, h, target(saved, 4, n)];
                layer.each_row::<5, 6, 3>(each, [i, j, f, o, c], outs, step);
            }
            ([w_f, w_i, w_o], saved) => {
                let [w_f, w_i, w_o] = [w_f, w_i, w_o].map(|w| source(w, 0, 0));
                let ins = [i, j, f, o, c, w_f, w_i, w_o];
                match saved {
                    None => layer.each_row::<8, 2, 2>(each, ins, [c_new, h], step),
                    Some(saved) => {
                        let outs = [c_new, h, target(saved, 4, n)];
                        layer.each_row::<8, 6, 3>(each, ins, outs, step);
                    }
                }
            }
            _ => return Err(missing()),
        }
    });
    Ok(())
}
