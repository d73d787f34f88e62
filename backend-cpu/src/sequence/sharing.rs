//! Threads that split the hidden units of all rows: when, and how their results are combined.

use std::ops::Range;

use super::{Layer, MIN_PRODUCTS, Sizes};
use crate::device::Cpu;
use crate::element::Float;
use crate::pool::Scratch;

/// Rows per thread from which on threads split the rows. With fewer, reading all weights in every
/// thread costs more than exchanging the states. The limit is lower when values are saved and in
/// gradients, where a step computes more.
pub(super) const ROWS_ALONE: usize = 12;
pub(super) const ROWS_ALONE_SAVING: usize = 4;
/// Minimum units per thread: fewer units are not worth a synchronisation.
const MIN_UNITS: usize = 32;
/// Bytes of weights that stay in a core's own cache from one step to the next. Larger weights are
/// read from a shared cache or memory, by each thread all that it multiplies with.
const OWN_CACHE: usize = 2 << 20;
/// The cost of exchanging one byte with the other threads, and of copying one byte of a result to
/// its final offset, in bytes of weights read.
const TELLING: usize = 16;
const PLACING: usize = 4;

impl<T: Float> Layer<'_, T> {
    /// The ranges of units for the threads, or `None` if splitting the rows is better. Splitting
    /// the units is better when a thread would get fewer than `alone` rows. It is also better when
    /// threads that split the rows would read more weights in each step than threads that split the
    /// units exchange. The latter exchange `told` matrices of all units per step, and copy
    /// `results` matrices to the results.
    pub(super) fn unit_ranges(
        &self,
        cpu: &Cpu,
        alone: usize,
        [told, results]: [usize; 2],
    ) -> Option<Vec<Range<usize>>> {
        let Sizes {
            batch, n, p, gates, ..
        } = self.sizes;
        let pieces = cpu
            .threads()
            .min(n / MIN_UNITS)
            .min(4 * self.work_of(batch) / MIN_PRODUCTS);
        if pieces < 2 || self.recurrence.is_projected() {
            return None;
        }
        let weights = p * gates * n * size_of::<T>();
        let read = weights - weights / pieces;
        let told = batch * n * size_of::<T>() * (TELLING * told + PLACING * results);
        if batch >= pieces * alone && (weights <= OWN_CACHE || read <= told) {
            return None;
        }
        // Multiples of a cache line.
        let blocks = n.div_ceil(16);
        let at = |i: usize| (i * blocks / pieces * 16).min(n);
        Some((0..pieces).map(|i| at(i)..at(i + 1)).collect())
    }
}

/// Combines a result of `n` units from the blocks of threads that have each computed the units
/// `units[i]`. In its block, a thread's result begins at row `first`.
pub(super) fn put_together<T: Float>(
    cpu: &Cpu,
    out: &mut [T],
    n: usize,
    units: &[Range<usize>],
    blocks: &[Scratch<T>],
    first: usize,
) {
    cpu.split(out.len() / n, [(out, n)], n, |rows, [out]| {
        for (units, block) in units.iter().zip(blocks) {
            let len = units.len();
            let pieces = block[(first + rows.start) * len..].chunks_exact(len);
            for (to, from) in out.chunks_exact_mut(n).zip(pieces) {
                to[units.clone()].copy_from_slice(from);
            }
        }
    });
}
