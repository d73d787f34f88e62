//! Splitting work over the threads of a device.

use std::ops::Range;

use crate::device::Cpu;

/// Work below this, in element operations, is not worth another thread.
const MIN_WORK: usize = 1 << 15;

impl Cpu {
    /// Runs `f` on ranges of rows and the parts of `outs` that belong to them, in parallel if there is
    /// enough work. Each of `outs` has a number of elements to a row. `f` must treat each row
    /// alike whatever the range, as the ranges depend on the number of threads.
    pub(crate) fn split<T: Send, const N: usize>(
        &self,
        rows: usize,
        outs: [(&mut [T], usize); N],
        work_per_row: usize,
        f: impl Fn(Range<usize>, [&mut [T]; N]) + Sync,
    ) {
        let work = rows.saturating_mul(work_per_row.max(1));
        let pieces = self.threads().min(work / MIN_WORK).min(rows);
        match self.workers() {
            Some(workers) if pieces > 1 => {
                workers.install(|| halve(0..rows, outs, pieces, &f));
            }
            _ => f(0..rows, outs.map(|(out, _)| out)),
        }
    }
}

fn halve<T: Send, const N: usize>(
    rows: Range<usize>,
    outs: [(&mut [T], usize); N],
    pieces: usize,
    f: &(impl Fn(Range<usize>, [&mut [T]; N]) + Sync),
) {
    if pieces < 2 || rows.len() < 2 {
        return f(rows, outs.map(|(out, _)| out));
    }
    let left_pieces = pieces / 2;
    let left_rows = rows.len() * left_pieces / pieces;
    let middle = rows.start + left_rows;
    let mut right = [const { None }; N];
    let mut i = 0;
    let left = outs.map(|(out, width)| {
        let (a, b) = out.split_at_mut(left_rows * width);
        right[i] = Some((b, width));
        i += 1;
        (a, width)
    });
    let right = right.map(|part| part.unwrap_or((&mut [], 0)));
    rayon::join(
        || halve(rows.start..middle, left, left_pieces, f),
        || halve(middle..rows.end, right, pieces - left_pieces, f),
    );
}
