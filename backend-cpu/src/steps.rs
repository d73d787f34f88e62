//! Rows of sequences: where they are, and which threads compute them.

use std::ops::Range;

use backend_api::Result;
use smallvec::SmallVec;

use crate::device::Cpu;
use crate::element::Float;
use crate::storage::{Dense, Input};

/// Multiplications below which rows are not worth another thread.
pub(crate) const MIN_PRODUCTS: usize = 1 << 18;
/// Minimum rows per thread: fewer rows leave registers of the micro-kernel unused.
pub(crate) const TILE_ROWS: usize = 4;

/// The inputs of all steps, `[steps, batch, ..]`: rows that are each contiguous, at any stride.
#[derive(Debug)]
pub(crate) struct Inputs<'a, T> {
    pub(crate) data: Dense<'a, T>,
    /// Offset of the first row, then the strides between steps (`steps`) and between rows of the
    /// batch (`rows`).
    pub(crate) at: usize,
    pub(crate) steps: usize,
    pub(crate) rows: usize,
}

impl<'a, T: Float> Inputs<'a, T> {
    pub(crate) fn new(cpu: &Cpu, x: &Input<'a>) -> Result<Self> {
        let (shape, strides) = (x.layout.shape(), x.layout.strides());
        if shape.count() > 0 && x.layout.is_contiguous_from(2) {
            return Ok(Self {
                data: Dense::Borrowed(x.buffer.elements()),
                at: x.layout.offset(),
                steps: strides[0],
                rows: strides[1],
            });
        }
        let width: usize = shape.dims()[2..].iter().product();
        Ok(Self {
            data: cpu.dense(x)?,
            at: 0,
            steps: shape[1] * width,
            rows: width,
        })
    }

    /// The offset of a row of the batch at step `t`.
    pub(crate) fn row(&self, t: usize, row: usize) -> usize {
        self.at + t * self.steps + row * self.rows
    }
}

/// The ranges of rows for the threads, balanced by the number of steps to run: `length` is that of
/// a row, and `work` the multiplications of a number of rows of one step.
pub(crate) fn row_ranges(
    cpu: &Cpu,
    batch: usize,
    length: impl Fn(usize) -> usize,
    work: impl Fn(usize) -> usize,
) -> SmallVec<[Range<usize>; 4]> {
    let total: usize = (0..batch).map(&length).sum();
    let pieces = cpu
        .threads()
        .min(work(total) / MIN_PRODUCTS)
        .min(batch / TILE_ROWS)
        .max(1);
    let mut ranges = SmallVec::with_capacity(pieces);
    let (mut start, mut done) = (0, 0);
    for i in 1..=pieces {
        let mut end = start;
        // Leaves the minimum number of rows for each remaining piece.
        let most = batch - (pieces - i) * TILE_ROWS.min(batch / pieces);
        while end < most && (i == pieces || done * pieces < i * total || end < start + 1) {
            done += length(end);
            end += 1;
        }
        ranges.push(start..end);
        start = end;
    }
    ranges
}
