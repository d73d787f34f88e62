//! Threads that split the hidden units of all rows: when, and how their results are combined.

use std::ops::Range;

use backend_api::Result;

use super::all_gather::{AllGather, Member};
use super::layer::{Layer, LayerDims};
use crate::device::Cpu;
use crate::element::Float;
use crate::pool::Scratch;
use crate::steps::MIN_PRODUCTS;

/// Rows per thread from which on threads split the rows. With fewer, reading all weights in every
/// thread costs more than exchanging the states. The limit is lower when values are saved and in
/// gradients, where a step computes more.
pub(super) const MIN_ROWS_PER_THREAD: usize = 12;
pub(super) const MIN_ROWS_PER_THREAD_SAVING: usize = 4;
/// Minimum units per thread: fewer units are not worth a synchronisation.
const MIN_UNITS: usize = 32;
/// Bytes of weights that stay in a core's own cache from one step to the next. Larger weights are
/// read from a shared cache or memory, by each thread all that it multiplies with.
const OWN_CACHE: usize = 2 << 20;
/// The cost of exchanging one byte with the other threads, and of copying one byte of a result to
/// its final offset, in bytes of weights read.
const EXCHANGE_COST: usize = 16;
const SCATTER_COST: usize = 4;

/// A thread's membership in a group that splits the units of the same rows.
pub(super) struct UnitGroup<'a, T> {
    pub(super) member: usize,
    /// The round of the all-gathers: the number of steps done.
    pub(super) round: usize,
    /// Forward, for `h` and for the reset state of the GRU. Backward, for `dz` and for the gradient
    /// that passes through the candidate's kernel.
    pub(super) gathers: [&'a AllGather<T>; 2],
}

impl<'a, T: Copy> UnitGroup<'a, T> {
    /// All-gathers this thread's own columns into `all`, `n` columns wide.
    pub(super) fn gather(&self, which: usize, own: &[T], all: (&mut [T], usize)) -> Result<()> {
        self.gathers[which].all_gather(self.round, self.member, own, all)
    }

    /// Guards that signal a failure of this thread to the group.
    pub(super) fn guards(&self) -> [Member<'a>; 2] {
        self.gathers.map(AllGather::member)
    }
}

impl<T: Float> Layer<'_, T> {
    /// The ranges of units for the threads, or `None` if splitting the rows is better. Splitting
    /// the units is better when a thread would get fewer than `alone` rows. It is also better when
    /// threads that split the rows would read more weights in each step than threads that split the
    /// units exchange. The latter exchange `exchanged` matrices of all units per step, and copy
    /// `results` matrices to the results.
    pub(super) fn unit_ranges(
        &self,
        cpu: &Cpu,
        alone: usize,
        [exchanged, results]: [usize; 2],
    ) -> Option<Vec<Range<usize>>> {
        let LayerDims {
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
        let exchanged =
            batch * n * size_of::<T>() * (EXCHANGE_COST * exchanged + SCATTER_COST * results);
        if batch >= pieces * alone && (weights <= OWN_CACHE || read <= exchanged) {
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
pub(super) fn scatter_units<T: Float>(
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
