//! Micro-kernels of matmuls with a packed matrix: some rows times some vectors of columns,
//! accumulated in registers.
//!
//! This module contains unsafe code: rows and sums are accessed by pointer. Slices would carry a
//! length each, and with eight of them the compiler spills the sums to memory: 118 instead of 207
//! GFLOP/s, measured at a peak of 234. Sums that are loaded or stored by functions that take or
//! return vectors pass through the stack as well, at the ends of each tile.
#![allow(unsafe_code)]

use pulp::Simd;

use crate::element::Float;
use crate::packed::Stored;
use crate::prefetch::prefetch;

/// The value that a product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Accumulate<'a, T> {
    Zero,
    /// The same row for every row of the result.
    Bias(&'a [T]),
    /// The existing contents of the result.
    Existing,
}

/// Data to prefetch while a tile is computed: one cache line for each row of the panel, `stride`
/// elements further each time.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) at: usize,
    pub(crate) stride: usize,
}

/// The sums of a tile: `M` rows of whole vectors, at the offsets `at` of `out`. If they begin with
/// a bias, its first element belongs to the first column of the tile.
pub(crate) struct Sums<'a, T, const M: usize> {
    pub(crate) out: &'a mut [T],
    pub(crate) at: [usize; M],
    pub(crate) start: Accumulate<'a, T>,
}

impl<T: Float, const M: usize> Sums<'_, T, M> {
    /// The address of each row, which has `V` vectors.
    #[inline(always)]
    fn rows<S: Simd, const V: usize>(&mut self) -> [*mut T::Vector<S>; M] {
        let last = self
            .out
            .len()
            .checked_sub(size_of::<[T::Vector<S>; V]>() / size_of::<T>());
        assert!(
            last.is_some_and(|last| self.at.iter().all(|&at| at <= last)),
            "every row of the sums is within the result"
        );
        let out = self.out.as_mut_ptr();
        self.at.map(|at| out.wrapping_add(at).cast())
    }

    /// The first sums.
    ///
    /// # Safety
    /// `rows` must be the addresses that [`Self::rows`] returned for as many vectors.
    #[allow(
        clippy::needless_range_loop,
        reason = "each vector goes to a column of the sums"
    )]
    #[inline(always)]
    unsafe fn load<S: Simd, const V: usize>(
        &self,
        simd: S,
        rows: [*mut T::Vector<S>; M],
    ) -> [[T::Vector<S>; V]; M] {
        let mut sums = [[T::splat(simd, T::ZERO); V]; M];
        match self.start {
            Accumulate::Zero => {}
            Accumulate::Existing => {
                for m in 0..M {
                    for v in 0..V {
                        // SAFETY: row `m` has `V` vectors, see above.
                        sums[m][v] = unsafe { rows[m].add(v).read_unaligned() };
                    }
                }
            }
            Accumulate::Bias(bias) => {
                let bias = &bias[..size_of::<[T::Vector<S>; V]>() / size_of::<T>()];
                for v in 0..V {
                    // SAFETY: the slice has `V` vectors.
                    let bias =
                        unsafe { bias.as_ptr().cast::<T::Vector<S>>().add(v).read_unaligned() };
                    for sums in &mut sums {
                        sums[v] = bias;
                    }
                }
            }
        }
        sums
    }
}

/// Stores the sums of a tile.
///
/// # Safety
/// `rows` must be the addresses that [`Sums::rows`] returned for as many vectors.
#[inline(always)]
unsafe fn store<V: Copy, const M: usize, const N: usize>(rows: [*mut V; M], sums: [[V; N]; M]) {
    for (row, sums) in rows.into_iter().zip(sums) {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: the row has `N` vectors, see above.
            unsafe { row.add(v).write_unaligned(sum) };
        }
    }
}

/// `sums[m] += a[m] b` for `M` rows and `V` vectors; `b` holds the rows of the panel, of `V`
/// vectors each.
#[inline(always)]
pub(crate) fn add_rows<S: Simd, T: Float, const M: usize, const V: usize>(
    simd: S,
    a: [&[T]; M],
    b: &[[T::Vector<S>; V]],
    ahead: Ahead<'_, T>,
    mut to: Sums<'_, T, M>,
) {
    assert!(
        a.iter().all(|a| a.len() >= b.len()),
        "every row of the left operand is long enough"
    );
    let rows = to.rows::<S, V>();
    // SAFETY: these are the addresses of the rows.
    let mut sums = unsafe { to.load::<S, V>(simd, rows) };
    let a = a.map(<[T]>::as_ptr);
    let mut at = ahead.at;
    for (p, b) in b.iter().enumerate() {
        prefetch(ahead.data, at);
        at = at.wrapping_add(ahead.stride);
        for (sums, a) in sums.iter_mut().zip(a) {
            // SAFETY: each row has an element for each row of the panel, as asserted.
            let x = T::splat(simd, unsafe { *a.add(p) });
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = T::mul_add(simd, x, *b, *sum);
            }
        }
    }
    // SAFETY: as for `load`.
    unsafe { store(rows, sums) };
}

/// The same for `Q` vectors of columns of a wide panel whose rows have `width` vectors; `b` starts
/// at the element with the first of these columns. The CPU's hardware prefetcher follows a single
/// pass over all columns.
#[inline(always)]
pub(crate) fn add_wide<S: Simd, T: Float, W: Stored<T>, const M: usize, const Q: usize>(
    simd: S,
    a: [&[T]; M],
    (b, width): (&[W::Vector<S>], usize),
    mut to: Sums<'_, T, M>,
) {
    let len = a.iter().map(|a| a.len()).min().unwrap_or(0);
    let last = len.saturating_sub(1).checked_mul(width);
    let end = last.and_then(|last| last.checked_add(Q.div_ceil(W::NUMBERS)));
    assert!(
        len == 0 || end.is_some_and(|end| end <= b.len()),
        "the panel has a row for each element"
    );
    let rows = to.rows::<S, Q>();
    // SAFETY: these are the addresses of the rows.
    let mut sums = unsafe { to.load::<S, Q>(simd, rows) };
    let (a, mut from) = (a.map(<[T]>::as_ptr), b.as_ptr());
    for p in 0..len {
        let mut x = [T::splat(simd, T::ZERO); M];
        for (x, a) in x.iter_mut().zip(a) {
            // SAFETY: `p` is less than the length of each row.
            *x = T::splat(simd, unsafe { *a.add(p) });
        }
        for q in 0..Q {
            // SAFETY: row `p` of the panel has `Q` vectors of numbers from `from` on, as asserted.
            let stored = unsafe { *from.add(q / W::NUMBERS) };
            let b = W::numbers(simd, stored, q % W::NUMBERS);
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[q] = T::mul_add(simd, x, b, sums[q]);
            }
        }
        from = from.wrapping_add(width);
    }
    // SAFETY: as for `load`.
    unsafe { store(rows, sums) };
}
