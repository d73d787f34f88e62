//! Threads that share the units of all rows: when, and how their results come together.

use std::ops::Range;

use super::{Layer, MIN_PRODUCTS, Sizes};
use crate::device::Cpu;
use crate::element::Float;
use crate::pool::Scratch;

/// Rows for each thread from which on none shares units: with fewer, the weights that every thread would read are more
/// than what threads have to tell one another. With saved values, and back from them, a step has more to do.
pub(super) const ROWS_ALONE: usize = 12;
pub(super) const ROWS_ALONE_SAVING: usize = 4;
/// Units that a thread has at least where units are shared: fewer are not worth meeting for.
const MIN_UNITS: usize = 32;
/// Bytes of weights that a core may find in a cache of its own in the next step again. More are read from afar, by each
/// thread all that it multiplies with.
const OWN_CACHE: usize = 2 << 20;
/// What it costs to tell other threads a byte, and to put a byte of a result in its place in the end, in bytes of weights read.
const TELLING: usize = 16;
const PLACING: usize = 4;

impl<T: Float> Layer<'_, T> {
    /// How threads share the units, if that is better than sharing the rows: as there are fewer than `alone` for each, or because so
    /// many threads that share rows would read more weights, in each step, than threads that share units tell one another. These
    /// are `told` matrices of all units, and as many in the results.
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

/// Puts a result in order, which threads have made some units of, `n` in all: theirs begin in a block for each, so many rows from its
/// start.
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
