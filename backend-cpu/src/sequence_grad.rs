//! Gradients of whole sequences: back through the steps for some rows on each thread, then the
//! gradients of the kernels as products over all steps at once.

use std::ops::Range;

use backend_api::{Buffers, Dests, Error, Recurrence, Result, SequencePlan};

use crate::activations::with_curve;
use crate::device::Cpu;
use crate::element::Float;
use crate::gates::{GruOutputGrad, GruResetGrad, LstmGrad, Slope};
use crate::gemm::Matrix;
use crate::packed::Packed;
use crate::sequence::{
    Shared, Sizes, clear_others, cut_rows, cut_steps, missing, row_ranges, run_parts, source, take,
    target,
};
use crate::simd::Target;
use crate::storage::{CpuBuffer, Dense, Input, Output};

/// What the forward pass left, and the gradients that come in: sequences over all rows.
struct Given<'a, T> {
    outputs: Dense<'a, T>,
    saved: Vec<Dense<'a, T>>,
    doutputs: Dense<'a, T>,
    dfinal: Vec<Dense<'a, T>>,
}

/// What the rows of a range write.
struct Part<'a, T> {
    rows: Range<usize>,
    /// One for each step.
    dz: Vec<&'a mut [T]>,
    /// For the GRU, one for each step: `r h`, which multiplied the candidate's kernel.
    reset: Vec<&'a mut [T]>,
    /// The gradients of the states, which end as those of the initial ones.
    dstate: Vec<&'a mut [T]>,
    /// For the LSTM: the next gradient of `c`. For the GRU: the gradients of `r h` and of `h`.
    spare: [&'a mut [T]; 2],
}

impl Cpu {
    pub(crate) fn sequence_grad<T: Float>(
        &self,
        plan: &SequencePlan,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let recurrence = plan.recurrence;
        let saved = SequencePlan {
            save: true,
            ..*plan
        }
        .saved();
        let states = recurrence.states();
        let mut rest = ins;
        let mut next = |count: usize| {
            let (now, later) = rest.split_at_checked(count).ok_or_else(missing)?;
            rest = later;
            Ok::<_, Error>(now)
        };
        let kernels = next(recurrence.kernels())?;
        let initial = next(states)?;
        let lengths = next(usize::from(plan.ragged))?.first();
        let outputs = &next(1)?[0];
        let shape = outputs.layout.shape();
        let n = shape[2];
        let sizes = Sizes {
            steps: shape[0],
            batch: shape[1],
            n,
            gates: recurrence.gates(),
        };
        let given = Given {
            outputs: self.dense(outputs)?,
            saved: next(saved)?
                .iter()
                .map(|x| self.dense(x))
                .collect::<Result<_>>()?,
            doutputs: self.dense(&next(1)?[0])?,
            dfinal: next(states)?
                .iter()
                .map(|x| self.dense(x))
                .collect::<Result<_>>()?,
        };
        let shared = Shared {
            arch: self.arch(),
            recurrence,
            sizes,
            // Transposed: the gradients of the sums go back to the state.
            kernels: kernels
                .iter()
                .map(|kernel| {
                    let width = kernel.layout.shape()[1];
                    let dense = self.dense::<T>(kernel)?;
                    Packed::new(self.pool(), &dense, [width, n], [1, width])
                })
                .collect::<Result<_>>()?,
            initial: initial
                .iter()
                .map(|x| self.dense(x))
                .collect::<Result<_>>()?,
            lengths: lengths
                .map(|lengths| self.indices("sequence_grad", "lengths", lengths, sizes.steps, true))
                .transpose()?,
        };
        let mut results = outs
            .into_iter()
            .map(|dest| Output::new(self.pool(), dest))
            .collect::<Result<Vec<_>>>()?;
        self.fill_gradients(&shared, &given, &mut results)?;
        Ok(results.into_iter().map(Output::finish).collect())
    }

    fn fill_gradients<T: Float>(
        &self,
        shared: &Shared<'_, T>,
        given: &Given<'_, T>,
        results: &mut [Output],
    ) -> Result<()> {
        let sizes = shared.sizes;
        let Sizes {
            n,
            gates,
            batch,
            steps,
        } = sizes;
        let gru = matches!(shared.recurrence, Recurrence::Gru { .. });
        let (dz, results) = results.split_first_mut().ok_or_else(missing)?;
        let (dkernels, dinitial) = results
            .split_at_mut_checked(shared.recurrence.kernels())
            .ok_or_else(missing)?;
        let dz = dz.elements::<T>();
        let mut reset = self
            .pool()
            .scratch::<T>(if gru { dz.len() / 3 } else { 0 })?;
        if batch * n > 0 {
            let ranges = row_ranges(self, sizes);
            let mut dz_cut = cut_steps(dz, gates * n, sizes, &ranges).into_iter();
            let mut reset_cut = cut_steps(&mut reset, n, sizes, &ranges).into_iter();
            let mut dstate_cut: Vec<_> = dinitial
                .iter_mut()
                .map(|state| cut_rows(state.elements::<T>(), n, &ranges).into_iter())
                .collect();
            let mut spare = self.pool().scratch::<T>(2 * batch * n)?;
            let mut spare_cut = cut_rows(&mut spare, 2 * n, &ranges).into_iter();
            let mut parts = Vec::with_capacity(ranges.len());
            for rows in &ranges {
                let mut spare = spare_cut.next().unwrap_or_default();
                let first = take(&mut spare, rows.len() * n);
                parts.push(Part {
                    rows: rows.clone(),
                    dz: dz_cut.next().unwrap_or_default(),
                    reset: reset_cut.next().unwrap_or_default(),
                    dstate: dstate_cut.iter_mut().filter_map(Iterator::next).collect(),
                    spare: [first, spare],
                });
            }
            run_parts(self, parts, |part| part.run(shared, given))?;
        }
        let h0 = &shared.initial[shared.initial.len() - 1];
        let before = Before {
            first: h0,
            rest: &given.outputs,
        };
        let width = gates * n;
        match dkernels {
            [gates, candidate] => {
                let (first, rest) = reset.split_at(reset.len().min(batch * n));
                let reset = Before { first, rest };
                let columns = 0..2 * n;
                self.kernel_grad(gates.elements(), before, dz, width, columns, sizes);
                let columns = 2 * n..3 * n;
                self.kernel_grad(candidate.elements(), reset, dz, width, columns, sizes);
            }
            [kernel] => self.kernel_grad(kernel.elements(), before, dz, width, 0..width, sizes),
            _ => return Err(missing()),
        }
        debug_assert_eq!(dz.len(), steps * batch * width);
        Ok(())
    }

    /// `Σ_t x_tᵀ dz_t`: one product for the first step, one for all others.
    fn kernel_grad<T: Float>(
        &self,
        out: &mut [T],
        x: Before<'_, T>,
        dz: &[T],
        width: usize,
        columns: Range<usize>,
        sizes: Sizes,
    ) {
        let Sizes {
            steps, batch, n, ..
        } = sizes;
        if out.is_empty() {
            return;
        }
        if steps * batch == 0 {
            out.fill(T::ZERO);
            return;
        }
        let transposed = |data, rows| Matrix {
            data,
            rows: n,
            columns: rows,
            row_stride: 1,
            column_stride: n,
        };
        let sums = |first_row: usize, rows| Matrix {
            data: &dz[first_row * width + columns.start..],
            rows,
            columns: columns.len(),
            row_stride: width,
            column_stride: 1,
        };
        self.product(
            out,
            transposed(x.first, batch),
            sums(0, batch),
            T::ONE,
            false,
        );
        let later = (steps - 1) * batch;
        if later > 0 {
            self.product(
                out,
                transposed(x.rest, later),
                sums(batch, later),
                T::ONE,
                true,
            );
        }
    }
}

/// What multiplied a kernel: at the first step, and at all others.
#[derive(Clone, Copy)]
struct Before<'a, T> {
    first: &'a [T],
    rest: &'a [T],
}

impl<T: Float> Part<'_, T> {
    fn run(mut self, shared: &Shared<'_, T>, given: &Given<'_, T>) -> Result<()> {
        let Sizes {
            n, gates, steps, ..
        } = shared.sizes;
        for (dstate, dfinal) in self.dstate.iter_mut().zip(&given.dfinal) {
            let start = self.rows.start * n;
            dstate.copy_from_slice(&dfinal[start..start + dstate.len()]);
        }
        let mut active = Vec::with_capacity(self.rows.len());
        for t in (0..steps).rev() {
            shared.find_active(t, &self.rows, &mut active);
            // Past a row's length its state was held, so the gradient of the state passes.
            if active.len() < self.rows.len() {
                clear_others(self.dz[t], gates * n, &active);
                if let Some(reset) = self.reset.get_mut(t) {
                    clear_others(reset, n, &active);
                }
            }
            if !active.is_empty() {
                self.step(shared, given, t, &active)?;
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        shared: &Shared<'_, T>,
        given: &Given<'_, T>,
        t: usize,
        active: &[usize],
    ) -> Result<()> {
        let Sizes { n, gates, .. } = shared.sizes;
        let width = gates * n;
        let rows = &self.rows;
        let units = |data| shared.at_step(data, n, t, rows, 0);
        // A state of the step before: an initial one, or from a sequence.
        let before = |which, data| match t.checked_sub(1) {
            Some(before) => shared.at_step(data, n, before, rows, 0),
            None => shared.initial(which, rows),
        };
        let dout = units(&given.doutputs);
        let dz = &mut *self.dz[t];
        match (shared.recurrence, &mut *self.dstate) {
            (Recurrence::Basic { activation }, [dh]) => {
                let ins = [units(&given.outputs), source(dh, n, 0), dout];
                with_curve!(activation, C => {
                    shared.each_row(active, ins, [target(dz, 1, n)], Slope(C::default()));
                });
                shared.product(active, source(dz, width, 0), 0, None, (dh, n));
            }
            (Recurrence::Lstm(constants), [dc, dh]) => {
                let [saved, cells] = &*given.saved else {
                    return Err(missing());
                };
                let gate = |i: usize| shared.at_step(saved, width, t, rows, i * n);
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
                let next = &mut *self.spare[0];
                with_curve!(constants.activation, C => {
                    let outs = [target(dz, 4, n), target(next, 1, n)];
                    shared.each_row(active, ins, outs, LstmGrad(C::default()));
                });
                for row in active.iter().map(|r| r * n..(r + 1) * n) {
                    dc[row.clone()].copy_from_slice(&next[row]);
                }
                shared.product(active, source(dz, width, 0), 0, None, (dh, n));
            }
            (Recurrence::Gru { activation }, [dh]) => {
                let [saved] = &*given.saved else {
                    return Err(missing());
                };
                let gate = |i: usize| shared.at_step(saved, width, t, rows, i * n);
                let h = before(0, &given.outputs);
                let [drh, dh_direct] = &mut self.spare;
                let ins = [gate(2), gate(1), h, source(dh, n, 0), dout];
                with_curve!(activation, C => {
                    // The sums of `u` and of the candidate are the last two of three.
                    let sums = Target { at: n, parts: 2, ..target(dz, 3, n) };
                    let outs = [sums, target(dh_direct, 1, n)];
                    shared.each_row(active, ins, outs, GruOutputGrad(C::default()));
                });
                shared.product(active, source(dz, width, 2 * n), 1, None, (drh, n));
                let ins = [gate(0), h, source(drh, n, 0), source(dh_direct, n, 0)];
                let reset_sum = Target {
                    parts: 1,
                    ..target(dz, 3, n)
                };
                // `dh` is not read any more, so it takes what goes to `h` without the kernel.
                let outs = [reset_sum, target(dh, 1, n), target(self.reset[t], 1, n)];
                shared.each_row(active, ins, outs, GruResetGrad);
                for row in active.iter().map(|r| r * n..(r + 1) * n) {
                    dh_direct[row.clone()].copy_from_slice(&dh[row]);
                }
                let direct = Some(source(dh_direct, n, 0));
                shared.product(active, source(dz, width, 0), 0, direct, (dh, n));
            }
            (other, _) => {
                return Err(Error::argument(
                    "sequence_grad",
                    format!("{other:?}"),
                    "is not known to the cpu backend",
                ));
            }
        }
        Ok(())
    }
}
