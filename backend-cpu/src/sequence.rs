//! Whole sequences: all steps of a recurrence in one operation.
//!
//! Rows of the batch are independent, so each thread runs all steps of some rows and never waits
//! for the others.

use std::marker::PhantomData;
use std::mem;
use std::ops::Range;

use backend_api::{Buffers, Dests, Error, Recurrence, Result, SequencePlan};
use pulp::Arch;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::activations::with_curve;
use crate::device::Cpu;
use crate::element::Float;
use crate::gates::{Activate, GruGates, GruOutput, Lstm};
use crate::packed::{Packed, Product};
use crate::pool::Scratch;
use crate::simd::{Pointwise, RowKernel, Source, Target};
use crate::storage::{CpuBuffer, Dense, Input, Output};

/// Multiplications below which rows are not worth another thread.
const MIN_PRODUCTS: usize = 1 << 18;
/// Rows that a thread should have at least: fewer use the registers badly.
const MIN_ROWS: usize = 4;

/// The sizes of a sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) n: usize,
    pub(crate) gates: usize,
}

/// What is read and shared by all threads.
pub(crate) struct Shared<'a, T> {
    pub(crate) arch: Arch,
    pub(crate) recurrence: Recurrence,
    pub(crate) sizes: Sizes,
    pub(crate) kernels: Vec<Packed<T>>,
    pub(crate) initial: Vec<Dense<'a, T>>,
    pub(crate) lengths: Option<Scratch<usize>>,
}

impl<T: Float> Shared<'_, T> {
    /// The number of steps of a row.
    pub(crate) fn length(&self, row: usize) -> usize {
        self.lengths
            .as_ref()
            .map_or(self.sizes.steps, |lengths| lengths[row])
    }

    /// Sets `active` to the rows that still run at step `t`, counted from the range's start.
    pub(crate) fn find_active(&self, t: usize, rows: &Range<usize>, active: &mut Vec<usize>) {
        active.clear();
        active.extend((0..rows.len()).filter(|r| t < self.length(rows.start + r)));
    }

    /// A part of a sequence `[steps, batch, width]`: the given rows at step `t`, from a column on.
    pub(crate) fn at_step<'d>(
        &self,
        data: &'d [T],
        width: usize,
        t: usize,
        rows: &Range<usize>,
        column: usize,
    ) -> Source<'d, T> {
        Source {
            data,
            stride: width,
            at: (t * self.sizes.batch + rows.start) * width + column,
        }
    }

    /// An initial state, for the given rows.
    pub(crate) fn initial(&self, which: usize, rows: &Range<usize>) -> Source<'_, T> {
        self.at_step(&self.initial[which], self.sizes.n, 0, rows, 0)
    }

    /// `out = init + a b` for some rows.
    pub(crate) fn product(
        &self,
        rows: &[usize],
        a: Source<'_, T>,
        kernel: usize,
        init: Option<Source<'_, T>>,
        (out, out_stride): (&mut [T], usize),
    ) {
        self.arch.dispatch(Product {
            rows,
            a,
            b: &self.kernels[kernel],
            init,
            out,
            out_stride,
        });
    }

    /// Applies `f` to some rows of `n` units.
    pub(crate) fn each_row<const I: usize, const O: usize, const M: usize>(
        &self,
        rows: &[usize],
        ins: [Source<'_, T>; I],
        outs: [Target<'_, T>; M],
        f: impl Pointwise<T, I, O>,
    ) {
        self.arch.dispatch(RowKernel {
            f,
            rows: rows.iter().copied(),
            n: self.sizes.n,
            ins,
            outs,
        });
    }
}

/// A matrix without gaps to read.
pub(crate) fn source<T>(data: &[T], stride: usize, at: usize) -> Source<'_, T> {
    Source { data, stride, at }
}

/// All of a matrix to write.
pub(crate) fn target<T>(data: &mut [T], parts: usize, n: usize) -> Target<'_, T> {
    Target {
        data,
        stride: parts * n,
        at: 0,
        parts,
    }
}

/// Sets the rows that are not among `active` (in order) to 0.
pub(crate) fn clear_others<T: Float>(data: &mut [T], width: usize, active: &[usize]) {
    let mut active = active.iter().peekable();
    for (r, row) in data.chunks_exact_mut(width).enumerate() {
        if active.next_if(|&&a| a == r).is_none() {
            row.fill(T::ZERO);
        }
    }
}

/// The ranges of rows that threads work on.
pub(crate) fn row_ranges(cpu: &Cpu, sizes: Sizes) -> Vec<Range<usize>> {
    let Sizes {
        steps,
        batch,
        n,
        gates,
    } = sizes;
    let work = [batch, n, n, gates]
        .iter()
        .fold(steps, |a, &b| a.saturating_mul(b));
    let pieces = cpu
        .threads()
        .min(work / MIN_PRODUCTS)
        .min(batch.div_ceil(MIN_ROWS))
        .max(1);
    (0..pieces)
        .map(|i| i * batch / pieces..(i + 1) * batch / pieces)
        .collect()
}

/// Cuts a sequence `[steps, batch, width]` into its steps for each range of rows.
pub(crate) fn cut_steps<'a, T>(
    data: &'a mut [T],
    width: usize,
    sizes: Sizes,
    ranges: &[Range<usize>],
) -> Vec<Vec<&'a mut [T]>> {
    let mut cut: Vec<Vec<&mut [T]>> = ranges
        .iter()
        .map(|_| Vec::with_capacity(sizes.steps))
        .collect();
    for step in data.chunks_exact_mut(sizes.batch * width) {
        for (rows, cut) in cut_rows(step, width, ranges).into_iter().zip(&mut cut) {
            cut.push(rows);
        }
    }
    cut
}

/// Cuts a matrix `[batch, width]` into the ranges of rows.
pub(crate) fn cut_rows<'a, T>(
    mut data: &'a mut [T],
    width: usize,
    ranges: &[Range<usize>],
) -> Vec<&'a mut [T]> {
    ranges
        .iter()
        .map(|range| {
            let (rows, rest) = mem::take(&mut data).split_at_mut(range.len() * width);
            data = rest;
            rows
        })
        .collect()
}

/// Takes the first `len` elements off a slice.
pub(crate) fn take<'a, T>(data: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (first, rest) = mem::take(data).split_at_mut(len);
    *data = rest;
    first
}

/// Runs the parts of a sequence, on the threads of the device if there are several.
pub(crate) fn run_parts<P: Send>(
    cpu: &Cpu,
    parts: Vec<P>,
    run: impl Fn(P) -> Result<()> + Send + Sync,
) -> Result<()> {
    match cpu.workers() {
        Some(workers) if parts.len() > 1 => {
            workers.install(|| parts.into_par_iter().try_for_each(run))
        }
        _ => parts.into_iter().try_for_each(run),
    }
}

pub(crate) fn missing() -> Error {
    Error::argument("sequence", "operands", "are missing")
}

/// What the rows of a range read and write.
struct Part<'a, T> {
    rows: Range<usize>,
    /// One for each step, as the next two are.
    outputs: Vec<&'a mut [T]>,
    /// Empty if nothing is saved.
    gates: Vec<&'a mut [T]>,
    /// For the LSTM. Two that take turns if nothing is saved.
    cells: Vec<&'a mut [T]>,
    /// The final states.
    finals: Vec<&'a mut [T]>,
    /// The sums of a step, before activation.
    sums: &'a mut [T],
    /// For the GRU: `u`, and `r h`.
    update: &'a mut [T],
    reset: &'a mut [T],
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
        let recurrence = plan.recurrence;
        let (z, rest) = ins.split_first().ok_or_else(missing)?;
        let (kernels, rest) = rest
            .split_at_checked(recurrence.kernels())
            .ok_or_else(missing)?;
        let (initial, rest) = rest
            .split_at_checked(recurrence.states())
            .ok_or_else(missing)?;
        let shape = z.layout.shape();
        let n = initial[0].layout.shape()[1];
        let sizes = Sizes {
            steps: shape[0],
            batch: shape[1],
            n,
            gates: recurrence.gates(),
        };
        let lengths = rest.first().filter(|_| plan.ragged);
        let shared = Shared {
            arch: self.arch(),
            recurrence,
            sizes,
            kernels: kernels
                .iter()
                .map(|kernel| {
                    let shape = kernel.layout.shape();
                    let dense = self.dense::<T>(kernel)?;
                    Packed::new(self.pool(), &dense, [n, shape[1]], [shape[1], 1])
                })
                .collect::<Result<_>>()?,
            initial: initial
                .iter()
                .map(|x| self.dense(x))
                .collect::<Result<_>>()?,
            lengths: lengths
                .map(|lengths| self.indices("sequence", "lengths", lengths, sizes.steps, true))
                .transpose()?,
        };
        let z = self.dense::<T>(z)?;
        let mut results = outs
            .into_iter()
            .map(|dest| Output::new(self.pool(), dest))
            .collect::<Result<Vec<_>>>()?;
        if sizes.batch * n > 0 {
            self.fill_sequence(plan, &shared, &z, &mut results)?;
        }
        Ok(results.into_iter().map(Output::finish).collect())
    }

    fn fill_sequence<T: Float>(
        &self,
        plan: &SequencePlan,
        shared: &Shared<'_, T>,
        z: &[T],
        results: &mut [Output],
    ) -> Result<()> {
        let sizes = shared.sizes;
        let Sizes { n, gates, .. } = sizes;
        let ranges = row_ranges(self, sizes);
        let lstm = matches!(plan.recurrence, Recurrence::Lstm(_));
        let gru = matches!(plan.recurrence, Recurrence::Gru { .. });

        let (outputs, results) = results.split_first_mut().ok_or_else(missing)?;
        let (finals, saved) = results
            .split_at_mut_checked(plan.recurrence.states())
            .ok_or_else(missing)?;
        let mut saved = saved.iter_mut();
        // Saved by the LSTM: gates, then cell states. By the GRU: gates.
        let mut gates_cut = cut_output(saved.next(), gates * n, sizes, &ranges).into_iter();
        let mut cells_cut = cut_output(saved.next(), n, sizes, &ranges).into_iter();
        let mut outputs_cut = cut_output(Some(outputs), n, sizes, &ranges).into_iter();
        let mut finals_cut: Vec<_> = finals
            .iter_mut()
            .map(|state| cut_rows(state.elements::<T>(), n, &ranges).into_iter())
            .collect();
        // One block for all threads, so that their number does not show in the pool.
        let spare_units = gates + if lstm || gru { 2 } else { 0 };
        let mut spare = self.pool().scratch::<T>(sizes.batch * spare_units * n)?;
        let mut spare_cut = cut_rows(&mut spare, spare_units * n, &ranges).into_iter();

        let mut parts = Vec::with_capacity(ranges.len());
        for rows in &ranges {
            let mut spare = spare_cut.next().unwrap_or_default();
            let mut cells = cells_cut.next().unwrap_or_default();
            let count = rows.len() * n;
            let sums = take(&mut spare, gates * count);
            let (update, reset) = if gru {
                (take(&mut spare, count), take(&mut spare, count))
            } else {
                Default::default()
            };
            if lstm && cells.is_empty() {
                cells.extend([take(&mut spare, count), take(&mut spare, count)]);
            }
            parts.push(Part {
                rows: rows.clone(),
                outputs: outputs_cut.next().unwrap_or_default(),
                gates: gates_cut.next().unwrap_or_default(),
                cells,
                finals: finals_cut.iter_mut().filter_map(Iterator::next).collect(),
                sums,
                update,
                reset,
            });
        }
        run_parts(self, parts, |part| part.run(shared, z))
    }
}

impl<T: Float> Part<'_, T> {
    fn run(mut self, shared: &Shared<'_, T>, z: &[T]) -> Result<()> {
        let Sizes {
            n, gates, steps, ..
        } = shared.sizes;
        for (which, state) in self.finals.iter_mut().enumerate() {
            let start = self.rows.start * n;
            state.copy_from_slice(&shared.initial[which][start..start + state.len()]);
        }
        let mut active = Vec::with_capacity(self.rows.len());
        for t in 0..steps {
            shared.find_active(t, &self.rows, &mut active);
            // Past a row's length outputs are 0; saved values just have to be numbers.
            if active.len() < self.rows.len() {
                clear_others(self.outputs[t], n, &active);
                if let Some(saved) = self.gates.get_mut(t) {
                    clear_others(saved, gates * n, &active);
                    if let Some(cells) = self.cells.get_mut(t) {
                        clear_others(cells, n, &active);
                    }
                }
            }
            if active.is_empty() {
                continue;
            }
            self.step(shared, z, t, &active)?;
            for &r in &active {
                if shared.length(self.rows.start + r) == t + 1 {
                    self.finish_row(r, t, n);
                }
            }
        }
        Ok(())
    }

    /// The state of row `r` as of step `t` is its final one.
    fn finish_row(&mut self, r: usize, t: usize, n: usize) {
        let row = r * n..(r + 1) * n;
        match &mut *self.finals {
            [c, h] => {
                let cells = &self.cells[t % self.cells.len()];
                c[row.clone()].copy_from_slice(&cells[row.clone()]);
                h[row.clone()].copy_from_slice(&self.outputs[t][row]);
            }
            [h] => h[row.clone()].copy_from_slice(&self.outputs[t][row]),
            _ => {}
        }
    }

    fn step(&mut self, shared: &Shared<'_, T>, z: &[T], t: usize, active: &[usize]) -> Result<()> {
        let Sizes { n, gates, .. } = shared.sizes;
        let width = gates * n;
        let rows = &self.rows;
        let out = mem::take(&mut self.outputs[t]);
        // Rows that run now ran before, so their output is their state.
        let h = match t.checked_sub(1) {
            Some(before) => source(&*self.outputs[before], n, 0),
            None => shared.initial(shared.initial.len() - 1, rows),
        };
        let z = |column| shared.at_step(z, width, t, rows, column);
        let all = active.len() == rows.len();
        match shared.recurrence {
            Recurrence::Basic { activation } => {
                shared.product(active, h, 0, Some(z(0)), (self.sums, n));
                with_curve!(activation, C => {
                    let f = Activate(C::default());
                    if all {
                        // Rows without gaps are one long row.
                        shared.arch.dispatch(RowKernel {
                            f,
                            rows: 0..1,
                            n: out.len(),
                            ins: [source(self.sums, 0, 0)],
                            outs: [target(out, 1, 0)],
                        });
                    } else {
                        shared.each_row(active, [source(self.sums, n, 0)], [target(out, 1, n)], f);
                    }
                });
            }
            Recurrence::Lstm(constants) => {
                shared.product(active, h, 0, Some(z(0)), (self.sums, width));
                let turns = self.cells.len();
                let c_new = mem::take(&mut self.cells[t % turns]);
                let c = match t.checked_sub(1) {
                    Some(before) => source(&*self.cells[before % turns], n, 0),
                    None => shared.initial(0, rows),
                };
                let part = |i| source(&*self.sums, width, i * n);
                let ins = [part(0), part(1), part(2), part(3), c];
                with_curve!(constants.activation, C => {
                    let f = Lstm {
                        forget_bias: T::from_f64(constants.forget_bias),
                        curve: PhantomData::<C>,
                    };
                    let state = [target(c_new, 1, n), target(out, 1, n)];
                    match self.gates.get_mut(t) {
                        Some(saved) => {
                            let [c_new, out] = state;
                            let outs = [c_new, out, target(saved, 4, n)];
                            shared.each_row::<5, 6, 3>(active, ins, outs, f);
                        }
                        None => shared.each_row::<5, 2, 2>(active, ins, state, f),
                    }
                });
                self.cells[t % turns] = c_new;
            }
            Recurrence::Gru { activation } => {
                shared.product(active, h, 0, Some(z(0)), (self.sums, width));
                let ins = [
                    source(&*self.sums, width, 0),
                    source(&*self.sums, width, n),
                    h,
                ];
                let halves = [target(self.update, 1, n), target(self.reset, 1, n)];
                match self.gates.get_mut(t) {
                    Some(saved) => {
                        let [update, reset] = halves;
                        let gates = Target {
                            parts: 2,
                            ..target(saved, 3, n)
                        };
                        shared.each_row::<3, 4, 3>(active, ins, [gates, update, reset], GruGates);
                    }
                    None => shared.each_row::<3, 2, 2>(active, ins, halves, GruGates),
                }
                let reset = source(&*self.reset, n, 0);
                let candidate = (&mut self.sums[2 * n..], width);
                shared.product(active, reset, 1, Some(z(2 * n)), candidate);
                let candidate = source(&*self.sums, width, 2 * n);
                let ins = [candidate, source(&*self.update, n, 0), h];
                with_curve!(activation, C => {
                    let f = GruOutput(C::default());
                    match self.gates.get_mut(t) {
                        Some(saved) => {
                            let q = Target {
                                at: 2 * n,
                                parts: 1,
                                ..target(saved, 3, n)
                            };
                            shared.each_row::<3, 2, 2>(active, ins, [target(out, 1, n), q], f);
                        }
                        None => shared.each_row::<3, 1, 1>(active, ins, [target(out, 1, n)], f),
                    }
                });
            }
            other => {
                return Err(Error::argument(
                    "sequence",
                    format!("{other:?}"),
                    "is not known to the cpu backend",
                ));
            }
        }
        self.outputs[t] = out;
        Ok(())
    }
}
