//! Forward steps: the computation of one thread, for its rows or its units.

use std::marker::PhantomData;
use std::mem;
use std::ops::Range;

use backend_api::{ExtendedLstm, Recurrence, Result};

use super::all_gather::Member;
use super::layer::{Layer, LayerDims, clear_others, missing, source, target, unknown};
use super::sharing::UnitGroup;
use super::weights::Weights;
use crate::activations::with_activation;
use crate::element::Float;
use crate::pointwise::{Activate, ClippedLstm, GruAfter, GruGates, GruOutput, Lstm, limit_of};
use crate::product::Accumulate;
use crate::simd::{RowKernel, Source, Target};

/// The destinations of a sequence's results: of all rows and units, or of one thread's share.
pub(super) struct Results<'a, T> {
    /// One slice `[rows, width]` per step, as for `gates`, which is empty if nothing is saved.
    pub(super) outputs: Vec<&'a mut [T]>,
    pub(super) gates: Vec<&'a mut [T]>,
    /// For LSTMs: one slice per step, or two alternating ones if nothing is saved.
    pub(super) cells: Vec<&'a mut [T]>,
    /// The final states.
    pub(super) finals: Vec<&'a mut [T]>,
}

/// One thread's share of a sequence.
pub(super) struct ForwardPart<'a, T: Float> {
    pub(super) rows: Range<usize>,
    /// All units, except in a unit group.
    pub(super) units: Range<usize>,
    pub(super) weights: &'a Weights<'a, T>,
    pub(super) group: Option<UnitGroup<'a, T>>,
    pub(super) results: Results<'a, T>,
    /// Sums of some steps before activation: `[steps, rows, gates units]`.
    pub(super) sums: &'a mut [T],
    /// Working memory of one step. For the GRUs: `u` and `r h`, or the product that is reset. With
    /// a projection: the state before it is projected.
    pub(super) spare: [&'a mut [T]; 2],
    /// In a unit group: `h` and the reset state, of all units.
    pub(super) all: [Vec<T>; 2],
    pub(super) active: Vec<usize>,
    /// Offsets of the rows of an operand and of a result.
    pub(super) from: Vec<usize>,
    pub(super) to: Vec<usize>,
}

impl<T: Float> ForwardPart<'_, T> {
    pub(super) fn run(mut self, layer: &Layer<'_, T>) -> Result<()> {
        let guards = self.group.as_ref().map(UnitGroup::guards);
        self.run_steps(layer)?;
        guards.into_iter().flatten().for_each(Member::done);
        Ok(())
    }

    fn run_steps(&mut self, layer: &Layer<'_, T>) -> Result<()> {
        let LayerDims { n, p, steps, .. } = layer.sizes;
        let len = self.units.len();
        let last = self.results.finals.len() - 1;
        for (which, state) in self.results.finals.iter_mut().enumerate() {
            // `unit_ranges` returns no ranges with a projection, so `p` equals `n` in a unit group.
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
                    if let Some(group) = &mut self.group {
                        group.round += 1;
                    }
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

    /// Computes the inputs of some steps times their kernel, plus the bias, for the running rows.
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
        let start = Accumulate::Bias(&self.weights.bias);
        let out = (&mut *self.sums, &*to);
        layer.product((&layer.x.data, &from), &self.weights.input, start, out);
        (self.from, self.to) = (from, to);
    }

    /// Sets the outputs of rows past their length to 0. Their saved values are set to 0 as well, as
    /// they must be finite.
    fn clear_ended(&mut self, layer: &Layer<'_, T>, t: usize, active: &[usize]) {
        if active.len() == self.rows.len() {
            return;
        }
        let len = self.units.len();
        let p = if self.group.is_some() {
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

    /// Copies the state of row `r` after step `t` to its final state.
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
        let LayerDims { n, p, steps, .. } = layer.sizes;
        let len = self.units.len();
        let width = layer.sum_width(len);
        let Self {
            rows,
            units,
            weights,
            group,
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
        // A row that runs at this step also ran at the previous one, so its last output is its
        // state.
        let before = t.checked_sub(1);
        let initial = &layer.initial[layer.initial.len() - 1];
        let (h, start): (&[T], usize) = match (before, &group) {
            (None, _) => (initial, rows.start * p),
            (Some(_), Some(_)) => (all_h, 0),
            (Some(before), None) => (&*results.outputs[before], 0),
        };
        let offsets = |offsets: &mut Vec<usize>, width: usize, at: usize| {
            offsets.clear();
            offsets.extend(active.iter().map(|r| r * width + at));
        };
        offsets(from, p, start);
        offsets(to, width, 0);
        layer.product(
            (h, from),
            &weights.recurrent[0],
            Accumulate::Existing,
            (sums, to),
        );
        // The state of this thread's own units.
        let own_h = match before {
            None => source(initial, n, rows.start * n + units.start),
            Some(before) => source(&*results.outputs[before], len, 0),
        };
        let saved = results.gates.get_mut(t);
        match layer.recurrence {
            Recurrence::Basic { activation } => with_activation!(activation, C => {
                let f = Activate(C::default());
                if active.len() == rows.len() {
                    // The rows are contiguous and are processed as one long row.
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
                let slots = results.cells.len();
                let c_new = mem::take(&mut results.cells[t % slots]);
                let c = match before {
                    Some(before) => source(&*results.cells[before % slots], len, 0),
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
                            offsets(from, n, 0);
                            offsets(to, p, 0);
                            let kernel = &weights.recurrent[1];
                            layer.product((spare, from), kernel, Accumulate::Zero, (out, to));
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
                        with_activation!(constants.activation, C => {
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
                results.cells[t % slots] = c_new;
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
                if let Some(group) = &group {
                    group.gather(1, spare, (all_reset, n))?;
                    reset = all_reset;
                }
                offsets(from, n, 0);
                offsets(to, width, 2 * len);
                let kernel = &weights.recurrent[1];
                // The candidate's columns are the last ones of the sums.
                layer.product(
                    (reset, from),
                    kernel,
                    Accumulate::Existing,
                    (&mut *sums, to),
                );
                let candidate = source(&*sums, width, 2 * len);
                let ins = [candidate, source(second, len, 0), own_h];
                with_activation!(activation, C => {
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
                offsets(from, p, start);
                offsets(to, len, 0);
                let bias = Accumulate::Bias(weights.vectors[0]);
                layer.product((h, from), &weights.recurrent[1], bias, (spare, to));
                let part = |i| source(&*sums, width, i * len);
                let ins = [part(0), part(1), part(2), source(spare, len, 0), own_h];
                with_activation!(activation, C => {
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
        if let Some(group) = &group
            && t + 1 < steps
        {
            group.gather(0, out, (all_h, n))?;
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
    with_activation!(lstm.gates.activation, C => {
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
