//! A layer's operands and sizes, shared by the forward operation and its gradient.

use std::any::TypeId;
use std::mem;
use std::ops::Range;

use backend_api::{Error, Precision, Recurrence, Result, SequencePlan};
use pulp::Arch;

use crate::amx;
use crate::device::Cpu;
use crate::element::Float;
use crate::packed_matrix::PackedMatrix;
use crate::pool::Scratch;
use crate::product::Accumulate;
use crate::simd::{Pointwise, RowKernel, Source, Target};
use crate::steps::{Inputs, row_ranges};
use crate::storage::{Dense, Input};

/// Rows, summed over consecutive steps, whose inputs are multiplied at a time.
pub(super) const CHUNK_ROWS: usize = 256;

/// The sizes of a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerDims {
    pub(super) steps: usize,
    pub(super) batch: usize,
    pub(super) inputs: usize,
    /// Hidden units.
    pub(super) n: usize,
    /// The width of `h`: differs from `n` with a projection.
    pub(super) p: usize,
    pub(super) gates: usize,
}

/// The operands of a sequence, shared by the forward operation and its gradient.
pub(super) struct Layer<'a, T> {
    pub(super) arch: Arch,
    pub(super) recurrence: Recurrence,
    pub(super) sizes: LayerDims,
    /// Whether packed weights are cached with the weights' buffer.
    pub(super) reuse: bool,
    /// Whether matmuls may round their operands to bfloat16.
    pub(super) bf16: bool,
    /// Whether AMX computes the matmuls. This depends on the batch size, not on the number of
    /// running rows, so that a stream takes the same path as the whole sequence.
    pub(super) amx: bool,
    pub(super) x: Inputs<'a, T>,
    pub(super) kernel: Input<'a>,
    pub(super) bias: Input<'a>,
    /// The parameters applied to the state: first the matrices, then the vectors.
    pub(super) matrices: Vec<Input<'a>>,
    pub(super) vectors: Vec<Dense<'a, T>>,
    pub(super) initial: Vec<Dense<'a, T>>,
    pub(super) lengths: Option<Scratch<usize>>,
}

impl<'a, T: Float> Layer<'a, T> {
    pub(super) fn new(
        cpu: &Cpu,
        op: &'static str,
        plan: &SequencePlan,
        ins: &[Input<'a>],
    ) -> Result<Self> {
        let recurrence = plan.recurrence;
        let dense = |ins: &[Input<'a>]| ins.iter().map(|x| cpu.dense(x)).collect::<Result<_>>();
        let [x, kernel, bias, rest @ ..] = ins else {
            return Err(missing());
        };
        let parts = rest.split_at_checked(recurrence.parameter_count());
        let (parameters, rest) = parts.ok_or_else(missing)?;
        let parts = rest.split_at_checked(recurrence.states());
        let (initial, rest) = parts.ok_or_else(missing)?;
        let lengths = rest.first().filter(|_| plan.ragged);
        let is_matrix = |x: &Input<'_>| x.layout.shape().rank() == 2;
        let (matrices, vectors) =
            parameters.split_at(parameters.iter().take_while(|x| is_matrix(x)).count());
        let shape = x.layout.shape();
        let steps = shape[0];
        let width = |state: &Input<'_>| state.layout.shape()[1];
        Ok(Self {
            arch: cpu.arch(),
            recurrence,
            sizes: LayerDims {
                steps,
                batch: shape[1],
                inputs: shape[2],
                n: width(&initial[0]),
                p: width(&initial[initial.len() - 1]),
                gates: recurrence.gates(),
            },
            reuse: plan.reuse,
            bf16: cpu.precision() == Precision::Bf16 && !plan.save,
            amx: cpu.has_amx()
                && TypeId::of::<T>() == TypeId::of::<f32>()
                && shape[1] >= amx::MIN_ROWS,
            x: Inputs::new(cpu, x)?,
            kernel: *kernel,
            bias: *bias,
            matrices: matrices.to_vec(),
            vectors: dense(vectors)?,
            initial: dense(initial)?,
            lengths: lengths
                .map(|lengths| cpu.indices(op, "lengths", lengths, steps, true))
                .transpose()?,
        })
    }

    /// The number of steps of a row.
    pub(super) fn length(&self, row: usize) -> usize {
        self.lengths
            .as_ref()
            .map_or(self.sizes.steps, |lengths| lengths[row])
    }

    /// Sets `active` to the rows that still run at step `t`, counted from the range's start.
    pub(super) fn find_active(&self, t: usize, rows: &Range<usize>, active: &mut Vec<usize>) {
        active.clear();
        active.extend((0..rows.len()).filter(|r| t < self.length(rows.start + r)));
    }

    /// A view of a sequence `[steps, batch, width]`: the given rows at step `t`, from `column` on.
    pub(super) fn at_step<'d>(
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

    /// `out = start + a b` for the rows at the given offsets.
    pub(super) fn product(
        &self,
        a: (&[T], &[usize]),
        b: &PackedMatrix<T>,
        start: Accumulate<'_, T>,
        out: (&mut [T], &[usize]),
    ) {
        b.multiply(self.arch, a, start, out);
    }

    /// Applies `f` to the given rows of `n` units.
    pub(super) fn each_row<const I: usize, const O: usize, const M: usize>(
        &self,
        (rows, n): (&[usize], usize),
        ins: [Source<'_, T>; I],
        outs: [Target<'_, T>; M],
        f: impl Pointwise<T, I, O>,
    ) {
        self.arch.dispatch(RowKernel {
            f,
            rows: rows.iter().copied(),
            n,
            ins,
            outs,
        });
    }

    /// Steps whose inputs are multiplied at a time, by a thread with `rows` rows.
    pub(super) fn chunk(&self, rows: usize) -> usize {
        CHUNK_ROWS
            .div_ceil(rows.max(1))
            .min(self.sizes.steps)
            .max(1)
    }

    /// The ranges of rows for the threads, balanced by the number of steps to run.
    pub(super) fn row_ranges(&self, cpu: &Cpu) -> Vec<Range<usize>> {
        let length = |row| self.length(row);
        row_ranges(cpu, self.sizes.batch, length, |rows| self.work_of(rows))
    }

    /// Multiplications of `rows` rows of one step.
    pub(super) fn work_of(&self, rows: usize) -> usize {
        let LayerDims {
            n,
            p,
            gates,
            inputs,
            ..
        } = self.sizes;
        [n, gates, p + inputs]
            .iter()
            .fold(rows, |a, &b| a.saturating_mul(b))
    }
}

/// A read-only matrix view with contiguous rows.
pub(super) fn source<T>(data: &[T], stride: usize, at: usize) -> Source<'_, T> {
    Source { data, stride, at }
}

/// A writable view of a whole matrix.
pub(super) fn target<T>(data: &mut [T], parts: usize, n: usize) -> Target<'_, T> {
    Target {
        data,
        stride: parts * n,
        at: 0,
        parts,
    }
}

/// Sets the rows that are not in `active` (ascending) to 0.
pub(super) fn clear_others<T: Float>(data: &mut [T], width: usize, active: &[usize]) {
    if width == 0 {
        return;
    }
    let mut active = active.iter().peekable();
    for (r, row) in data.chunks_exact_mut(width).enumerate() {
        if active.next_if(|&&a| a == r).is_none() {
            row.fill(T::ZERO);
        }
    }
}

/// Splits a sequence `[steps, batch, width]` into its steps for each range of rows.
pub(super) fn cut_steps<'a, T>(
    data: &'a mut [T],
    width: usize,
    sizes: LayerDims,
    ranges: &[Range<usize>],
) -> Vec<Vec<&'a mut [T]>> {
    let with_room = || Vec::with_capacity(sizes.steps);
    let mut cut: Vec<Vec<&mut [T]>> = ranges.iter().map(|_| with_room()).collect();
    let mut rest = data;
    for _ in 0..sizes.steps {
        let step = take(&mut rest, sizes.batch * width);
        for (rows, cut) in cut_rows(step, width, ranges).into_iter().zip(&mut cut) {
            cut.push(rows);
        }
    }
    cut
}

/// Splits a matrix `[batch, width]` into the ranges of rows.
pub(super) fn cut_rows<'a, T>(
    mut data: &'a mut [T],
    width: usize,
    ranges: &[Range<usize>],
) -> Vec<&'a mut [T]> {
    ranges
        .iter()
        .map(|range| take(&mut data, range.len() * width))
        .collect()
}

/// Splits the first `len` elements off a slice.
pub(super) fn take<'a, T>(data: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (first, rest) = mem::take(data).split_at_mut(len);
    *data = rest;
    first
}

pub(super) fn missing() -> Error {
    Error::argument("sequence", "operands", "are missing")
}

pub(super) fn unknown(recurrence: Recurrence) -> Error {
    Error::argument(
        "sequence",
        format!("{recurrence:?}"),
        "is not supported by the CPU backend",
    )
}
