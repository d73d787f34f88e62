//! Backward steps: the computation of one thread, for its rows or its units.

use std::mem;
use std::ops::Range;

use backend_api::{Error, ExtendedLstm, Recurrence, Result};
use smallvec::SmallVec;

use super::all_gather::Member;
use super::layer::{Layer, LayerDims, missing, source, target, unknown};
use super::saved::SavedForward;
use super::sharing::UnitGroup;
use crate::activations::with_activation;
use crate::element::Float;
use crate::packed_matrix::PackedMatrix;
use crate::pointwise::{
    ActivationGrad, ClippedLstmGrad, GruAfterGrad, GruOutputGrad, GruResetGrad, LstmGrad,
    LstmOutput,
};
use crate::product::Accumulate;
use crate::simd::{Source, Target};

/// One thread's share of the backward pass.
pub(super) struct BackwardPart<'a, T: Float> {
    pub(super) rows: Range<usize>,
    /// All units, except in a unit group.
    pub(super) units: Range<usize>,
    /// The recurrent matrices, transposed.
    pub(super) weights: &'a [PackedMatrix<T>],
    pub(super) group: Option<UnitGroup<'a, T>>,
    /// One slice per step, of running rows only: `dz`, and the other operands of the matmuls over
    /// all steps. In a unit group the first thread has them.
    pub(super) dz: Vec<&'a mut [T]>,
    pub(super) kept: Vec<Vec<&'a mut [T]>>,
    /// The gradients of the states; in the end those of the initial states.
    pub(super) dstate: Vec<&'a mut [T]>,
    /// `dz` of one step, of all rows, for steps that some rows do not reach.
    pub(super) sums: &'a mut [T],
    /// In a unit group: `dz` of one step, of the thread's own units; then the gradient that passes
    /// through the candidate's kernel, of all units.
    pub(super) own_dz: &'a mut [T],
    pub(super) all_reset: &'a mut [T],
    /// Working memory of one step: `[rows, max(n, p)]` each.
    pub(super) spare: [&'a mut [T]; 4],
    pub(super) offsets: RowOffsets,
}

/// Buffers for row indices and offsets.
#[derive(Default)]
pub(super) struct RowOffsets {
    active: Vec<usize>,
    /// Offsets of the rows of an operand and of a result.
    from: Vec<usize>,
    to: Vec<usize>,
}

impl<T: Float> BackwardPart<'_, T> {
    pub(super) fn run(mut self, layer: &Layer<'_, T>, forward: &SavedForward<'_, T>) -> Result<()> {
        let guards = self.group.as_ref().map(UnitGroup::guards);
        self.run_steps(layer, forward)?;
        guards.into_iter().flatten().for_each(Member::done);
        Ok(())
    }

    fn run_steps(&mut self, layer: &Layer<'_, T>, forward: &SavedForward<'_, T>) -> Result<()> {
        let LayerDims {
            n, gates, steps, ..
        } = layer.sizes;
        for (dstate, dfinal) in self.dstate.iter_mut().zip(&forward.dfinal) {
            let width = dfinal.len() / layer.sizes.batch;
            let own = if width == n {
                self.units.clone()
            } else {
                0..width
            };
            let from = dfinal.chunks_exact(width).skip(self.rows.start);
            for (to, from) in dstate.chunks_exact_mut(own.len()).zip(from) {
                to.copy_from_slice(&from[own.clone()]);
            }
        }
        for t in (0..steps).rev() {
            let mut active = mem::take(&mut self.offsets.active);
            layer.find_active(t, &self.rows, &mut active);
            match self.dz.get_mut(t).map(mem::take) {
                Some(dz) if active.len() == self.rows.len() => {
                    self.step(layer, forward, t, dz, &active)?;
                }
                dz if !active.is_empty() => {
                    let sums = mem::take(&mut self.sums);
                    self.step(layer, forward, t, sums, &active)?;
                    if let Some(dz) = dz {
                        compact_rows(dz, sums, &active, gates * n);
                    }
                    self.sums = sums;
                }
                _ => {}
            }
            if let (false, Some(group)) = (active.is_empty(), &mut self.group) {
                group.round += 1;
            }
            self.offsets.active = active;
        }
        Ok(())
    }

    /// One step back of the active rows. `dz` has a row for each row of the range.
    fn step(
        &mut self,
        layer: &Layer<'_, T>,
        forward: &SavedForward<'_, T>,
        t: usize,
        dz: &mut [T],
        active: &[usize],
    ) -> Result<()> {
        let LayerDims { n, p, gates, .. } = layer.sizes;
        let width = gates * n;
        let Self {
            rows,
            units,
            weights,
            group,
            own_dz,
            all_reset,
            kept,
            dstate,
            spare: [spare, direct, third, fourth],
            offsets: RowOffsets { from, to, .. },
            ..
        } = self;
        let (first, len) = (units.start, units.len());
        let h_width = if layer.recurrence.is_projected() {
            p
        } else {
            len
        };
        let each = (active, len);
        let offsets = |offsets: &mut Vec<usize>, width: usize, at: usize| {
            offsets.clear();
            offsets.extend(active.iter().map(|r| r * width + at));
        };
        let own = |data| layer.at_step(data, n, t, rows, first);
        // A state before the step: an initial one, or from the previous step of a sequence.
        let before = |which: usize, data| match t.checked_sub(1) {
            Some(before) => layer.at_step(data, n, before, rows, first),
            None => layer.at_step(&layer.initial[which], n, 0, rows, first),
        };
        let dout = layer.at_step(&forward.doutputs, p, t, rows, first);
        let saved = |i: usize| {
            let data = forward.saved.get(i).ok_or_else(missing)?;
            Ok::<&[T], Error>(data)
        };
        // The values that both LSTM gradients read: the gates, and the cell states before and
        // after.
        let lstm_seen = |gates, cells| {
            let gate = |i: usize| layer.at_step(gates, width, t, rows, i * n + first);
            [
                gate(0),
                gate(1),
                gate(2),
                gate(3),
                before(0, cells),
                own(cells),
            ]
        };
        // The destination of the gradients of this thread's sums.
        let sums: &mut [T] = match group {
            Some(_) => own_dz,
            None => &mut *dz,
        };
        // The value that the gradient of the previous state accumulates onto; the matmul with the
        // kernel below adds to it.
        let start = match (layer.recurrence, &mut **dstate) {
            (Recurrence::Basic { activation }, [dh]) => {
                let ins = [own(&forward.outputs), source(dh, len, 0), dout];
                with_activation!(activation, C => {
                    layer.each_row(each, ins, [target(sums, 1, len)], ActivationGrad(C::default()));
                });
                Accumulate::Zero
            }
            (Recurrence::Lstm(constants), [dc, dh]) => {
                let [i, j, f, o, c, c_new] = lstm_seen(saved(0)?, saved(1)?);
                let (dc_in, dh_in) = (source(dc, len, 0), source(dh, len, 0));
                let ins = [i, j, f, o, c, c_new, dc_in, dh_in, dout];
                with_activation!(constants.activation, C => {
                    let outs = [target(sums, 4, len), target(spare, 1, len)];
                    layer.each_row(each, ins, outs, LstmGrad(C::default()));
                });
                copy_rows(dc, spare, active, len);
                Accumulate::Zero
            }
            (Recurrence::ExtendedLstm(lstm), [dc, dh]) => {
                let [i, j, f, o, c, c_new] = lstm_seen(saved(0)?, saved(1)?);
                // The gradient of `h`, and then that of the value before the projection.
                let y = layer.at_step(&forward.outputs, p, t, rows, first);
                let limit = lstm.proj_clip.filter(|_| lstm.projection);
                let limit = limit.map_or(T::INFINITY, T::from_f64);
                for &r in active {
                    let rows = [source(dh, h_width, 0), dout, y].map(|s| s.row(r, h_width));
                    let to = third[r * h_width..(r + 1) * h_width].iter_mut();
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
                    offsets(from, p, 0);
                    offsets(to, n, 0);
                    let kernel = &weights[1];
                    layer.product((third, from), kernel, Accumulate::Zero, (fourth, to));
                    let ins = [o, c_new];
                    with_activation!(lstm.gates.activation, C => {
                        let out = [target(direct, 1, n)];
                        layer.each_row(each, ins, out, LstmOutput(C::default()));
                    });
                    compact_rows(kept_m[t], direct, active, n);
                    compact_rows(kept_through[t], third, active, p);
                    dm = fourth;
                }
                let (dc_in, dm_in) = (source(dc, len, 0), source(dm, len, 0));
                let ins = [i, j, f, o, c, c_new, dc_in, dm_in];
                let outs = [target(sums, 4, len), target(spare, 1, len)];
                let vectors: SmallVec<[&[T]; 3]> =
                    layer.vectors.iter().map(|v| &v[units.clone()]).collect();
                extended_grad(layer, &lstm, each, ins, &vectors, outs)?;
                copy_rows(dc, spare, active, len);
                Accumulate::Zero
            }
            (Recurrence::Gru { activation }, [dh]) => {
                let gates = saved(0)?;
                let gate = |i: usize| layer.at_step(gates, width, t, rows, i * n + first);
                let h = before(0, &forward.outputs);
                let ins = [gate(2), gate(1), h, source(dh, n, 0), dout];
                with_activation!(activation, C => {
                    // The gradients of the sums of `u` and of the candidate are the last two of
                    // three.
                    let sums = Target { at: n, parts: 2, ..target(&mut *dz, 3, n) };
                    let outs = [sums, target(direct, 1, n)];
                    layer.each_row(each, ins, outs, GruOutputGrad(C::default()));
                });
                offsets(from, width, 2 * n);
                offsets(to, n, 0);
                layer.product((dz, from), &weights[1], Accumulate::Zero, (spare, to));
                let ins = [gate(0), h, source(spare, n, 0), source(direct, n, 0)];
                let reset_sum = Target {
                    parts: 1,
                    ..target(&mut *dz, 3, n)
                };
                // `dh` has been read and can be overwritten with the gradient that reaches `h`
                // without the kernel.
                let outs = [reset_sum, target(dh, 1, n), target(third, 1, n)];
                layer.each_row(each, ins, outs, GruResetGrad);
                compact_rows(kept[0][t], third, active, n);
                Accumulate::Existing
            }
            (Recurrence::GruResetAfter { activation }, [dh]) => {
                let gates = saved(0)?;
                let gate = |i: usize| layer.at_step(gates, 4 * n, t, rows, i * n + first);
                let h = before(0, &forward.outputs);
                let ins = [
                    gate(0),
                    gate(1),
                    gate(2),
                    gate(3),
                    h,
                    source(dh, len, 0),
                    dout,
                ];
                with_activation!(activation, C => {
                    let outs = [
                        target(sums, 3, len),
                        target(spare, 1, len),
                        target(direct, 1, len),
                    ];
                    layer.each_row(each, ins, outs, GruAfterGrad(C::default()));
                });
                copy_rows(dh, direct, active, len);
                if let Some(group) = group {
                    group.gather(1, spare, (&mut *all_reset, n))?;
                }
                Accumulate::Existing
            }
            (other, _) => return Err(unknown(other)),
        };
        let Some(dh) = dstate.last_mut() else {
            return Err(missing());
        };
        if let Some(group) = group {
            group.gather(0, own_dz, (&mut *dz, n))?;
        }
        offsets(from, width, 0);
        offsets(to, h_width, 0);
        layer.product((dz, from), &weights[0], start, (dh, to));
        if let Recurrence::GruResetAfter { .. } = layer.recurrence {
            let reset: &[T] = if group.is_some() { all_reset } else { spare };
            if let [kept] = &mut **kept {
                compact_rows(kept[t], reset, active, n);
            }
            offsets(from, n, 0);
            layer.product((reset, from), &weights[1], Accumulate::Existing, (dh, to));
        }
        Ok(())
    }
}

/// Copies rows to the same row indices.
fn copy_rows<T: Copy>(to: &mut [T], from: &[T], rows: &[usize], width: usize) {
    for row in rows.iter().map(|r| r * width..(r + 1) * width) {
        to[row.clone()].copy_from_slice(&from[row]);
    }
}

/// Copies the given rows to consecutive rows.
fn compact_rows<T: Copy>(to: &mut [T], from: &[T], rows: &[usize], width: usize) {
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
    with_activation!(lstm.gates.activation, C => {
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
