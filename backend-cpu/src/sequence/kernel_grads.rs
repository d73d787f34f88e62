//! Gradients of a layer's kernels and biases: matmuls and sums over all rows of all steps that ran.

use std::ops::Range;

use backend_api::{Recurrence, Result};
use smallvec::{SmallVec, smallvec};

use super::layer::{Layer, LayerDims, unknown};
use super::saved::SavedForward;
use crate::device::Cpu;
use crate::element::Float;
use crate::gemm::GemmOperand;
use crate::matmul::AMX_COLUMNS;
use crate::pool::Scratch;
use crate::steps::Inputs;
use crate::storage::{Dense, Output};

/// A matrix whose rows lie in one or two slices, one after the other.
pub(super) struct Stack<'a, T> {
    pub(super) width: usize,
    pub(super) parts: SmallVec<[&'a [T]; 2]>,
}

impl<T: Float> Layer<'_, T> {
    /// The inputs of the running rows of all steps, in order.
    pub(super) fn running_inputs(&self, cpu: &Cpu, rows: usize) -> Result<Dense<'_, T>> {
        let LayerDims {
            steps,
            batch,
            inputs,
            ..
        } = self.sizes;
        let Inputs { data, at, .. } = &self.x;
        let in_order = self.x.rows == inputs && (steps == 1 || self.x.steps == batch * inputs);
        if self.lengths.is_none() && (in_order || rows == 0) {
            return Ok(Dense::Borrowed(&data[..][*at..][..rows * inputs]));
        }
        let gathered = self.gather(cpu, rows, inputs, |t, row| &data[self.x.row(t, row)..])?;
        Ok(Dense::Copied(gathered))
    }

    /// The state before the step of each running row, in order.
    pub(super) fn running_states(
        &self,
        cpu: &Cpu,
        rows: usize,
        forward: &SavedForward<'_, T>,
    ) -> Result<Scratch<T>> {
        let LayerDims { batch, p, .. } = self.sizes;
        let initial = &self.initial[self.initial.len() - 1];
        self.gather(cpu, rows, p, |t, row| match t.checked_sub(1) {
            None => &initial[row * p..],
            Some(before) => &forward.outputs[(before * batch + row) * p..],
        })
    }

    /// Copies the running rows, in order, to contiguous memory.
    fn gather<'d>(
        &self,
        cpu: &Cpu,
        rows: usize,
        width: usize,
        from: impl Fn(usize, usize) -> &'d [T],
    ) -> Result<Scratch<T>>
    where
        T: 'd,
    {
        let mut all = cpu.pool().scratch::<T>(rows * width)?;
        if width > 0 {
            let mut to = all.chunks_exact_mut(width);
            for t in 0..self.sizes.steps {
                for row in (0..self.sizes.batch).filter(|&row| t < self.length(row)) {
                    if let Some(to) = to.next() {
                        to.copy_from_slice(&from(t, row)[..width]);
                    }
                }
            }
        }
        Ok(all)
    }

    /// Sums columns over all running rows. Each number is multiplied by another one if `by` returns
    /// a row: `by` gets the step, the row and the columns.
    pub(super) fn sums<'d>(
        &self,
        cpu: &Cpu,
        (data, width, first): (&[T], usize, usize),
        out: &mut [T],
        by: impl Fn(usize, usize, Range<usize>) -> Option<&'d [T]> + Sync,
    ) where
        T: 'd,
    {
        let LayerDims { steps, batch, .. } = self.sizes;
        let count = data.len().checked_div(width).unwrap_or(0);
        cpu.split(out.len(), [(out, 1)], count, |columns, [out]| {
            out.fill(T::ZERO);
            let mut rows = data.chunks_exact(width.max(1));
            for t in 0..steps {
                for row in (0..batch).filter(|&row| t < self.length(row)) {
                    let Some(from) = rows.next() else { return };
                    let from = &from[first + columns.start..first + columns.end];
                    match by(t, row, columns.clone()) {
                        None => {
                            for (sum, x) in out.iter_mut().zip(from) {
                                *sum = sum.add(*x);
                            }
                        }
                        Some(by) => {
                            for ((sum, x), by) in out.iter_mut().zip(from).zip(by) {
                                *sum = sum.add(x.mul(*by));
                            }
                        }
                    }
                }
            }
        });
    }

    /// The gradients of the recurrent parameters, from `dz` and the rows kept by the backward pass.
    pub(super) fn parameter_grads(
        &self,
        cpu: &Cpu,
        forward: &SavedForward<'_, T>,
        h: &Stack<'_, T>,
        (dz, kept): (&[T], &[Scratch<T>]),
        out: &mut [Output],
    ) -> Result<()> {
        let LayerDims {
            batch, n, p, gates, ..
        } = self.sizes;
        let width = gates * n;
        let whole = |data, width| Stack {
            width,
            parts: smallvec![data],
        };
        match (self.recurrence, out) {
            (Recurrence::Basic { .. } | Recurrence::Lstm(_), [kernel]) => {
                self.outer(cpu, kernel.elements(), h, (dz, width, 0..width))?;
            }
            (Recurrence::ExtendedLstm(lstm), [kernel, rest @ ..]) => {
                self.outer(cpu, kernel.elements(), h, (dz, width, 0..width))?;
                let (projection, peepholes) = rest.split_at_mut(usize::from(lstm.projection));
                if let ([projection], [m, through]) = (projection, kept) {
                    let m = whole(&**m, n);
                    self.outer(cpu, projection.elements(), &m, (through, p, 0..p))?;
                }
                // `w_f` and `w_i` read the old cell state, `w_o` the new one.
                for (out, (gate, old)) in
                    peepholes.iter_mut().zip([(2, true), (0, true), (3, false)])
                {
                    let seen = |t: usize, row: usize, columns: Range<usize>| {
                        let (data, at): (&[T], _) = match (old, t) {
                            (true, 0) => (&self.initial[0], row),
                            (true, _) => (&forward.saved[1], (t - 1) * batch + row),
                            (false, _) => (&forward.saved[1], t * batch + row),
                        };
                        Some(&data[at * n + columns.start..at * n + columns.end])
                    };
                    self.sums(cpu, (dz, width, gate * n), out.elements(), seen);
                }
            }
            (Recurrence::Gru { .. }, [gates, candidate]) => {
                self.outer(cpu, gates.elements(), h, (dz, width, 0..2 * n))?;
                let reset = whole(&*kept[0], n);
                self.outer(cpu, candidate.elements(), &reset, (dz, width, 2 * n..3 * n))?;
            }
            (Recurrence::GruResetAfter { .. }, [gates, candidate, bias]) => {
                self.outer(cpu, gates.elements(), h, (dz, width, 0..2 * n))?;
                self.outer(cpu, candidate.elements(), h, (&kept[0], n, 0..n))?;
                self.sums(cpu, (&kept[0], n, 0), bias.elements(), |_, _, _| None);
            }
            (other, _) => return Err(unknown(other)),
        }
        Ok(())
    }
}

impl<T: Float> Layer<'_, T> {
    /// `out = xᵀ y` for some columns of `y`, which has `width` columns in all.
    pub(super) fn outer(
        &self,
        cpu: &Cpu,
        out: &mut [T],
        x: &Stack<'_, T>,
        (y, width, columns): (&[T], usize, Range<usize>),
    ) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        if x.parts.iter().all(|part| part.is_empty()) {
            out.fill(T::ZERO);
            return Ok(());
        }
        let rows_of = |rows: Range<usize>| GemmOperand {
            data: &y[rows.start * width + columns.start..],
            rows: rows.len(),
            columns: columns.len(),
            row_stride: width,
            column_stride: 1,
        };
        let whole = x.parts.iter().map(|part| part.len() / x.width).sum();
        if self.amx
            && columns.len() >= AMX_COLUMNS
            && cpu.amx_outer(out, (&x.parts, x.width), rows_of(0..whole))?
        {
            return Ok(());
        }
        let mut row = 0;
        for part in x.parts.iter().filter(|part| !part.is_empty()) {
            let rows = row..row + part.len() / x.width;
            let a = GemmOperand {
                data: part,
                rows: x.width,
                columns: rows.len(),
                row_stride: 1,
                column_stride: x.width,
            };
            cpu.product(out, a, rows_of(rows.clone()), T::ONE, row > 0);
            row = rows.end;
        }
        Ok(())
    }
}
