//! Micro-kernels of matmuls with a packed matrix: some rows times some vectors of columns,
//! accumulated in registers.
//!
//! This module contains unsafe code: rows are read by pointer. Slices would carry a length each,
//! and with eight of them the compiler spills the sums to memory: 118 instead of 207 GFLOP/s,
//! measured at a peak of 234.
#![allow(unsafe_code)]

use pulp::Simd;

use crate::element::Float;
use crate::prefetch::prefetch;

/// Data to prefetch while a tile is computed: one cache line for each row of the panel, `stride`
/// elements further each time.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) at: usize,
    pub(crate) stride: usize,
}

/// `sums[m] += a[m] b` for `M` rows and `V` vectors; `b` holds the rows of the panel, of `V`
/// vectors each.
#[inline(always)]
pub(crate) fn add_rows<S: Simd, T: Float, const M: usize, const V: usize>(
    simd: S,
    a: [&[T]; M],
    b: &[[T::Vector<S>; V]],
    ahead: Ahead<'_, T>,
    mut sums: [[T::Vector<S>; V]; M],
) -> [[T::Vector<S>; V]; M] {
    assert!(
        a.iter().all(|a| a.len() >= b.len()),
        "every row of the left operand is long enough"
    );
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
    sums
}

/// The same for `Q` vectors of columns of a wide panel whose rows have `width` vectors; `b` starts
/// at the first of these columns. Nothing is prefetched: the CPU's hardware prefetcher follows a
/// single pass over all columns.
#[inline(always)]
pub(crate) fn add_wide<S: Simd, T: Float, const M: usize, const Q: usize>(
    simd: S,
    a: [&[T]; M],
    (b, width): (&[T::Vector<S>], usize),
    mut sums: [[T::Vector<S>; Q]; M],
) -> [[T::Vector<S>; Q]; M] {
    let rows = a.iter().map(|a| a.len()).min().unwrap_or(0);
    let last = rows.saturating_sub(1).checked_mul(width);
    let end = last.and_then(|last| last.checked_add(Q));
    assert!(
        rows == 0 || end.is_some_and(|end| end <= b.len()),
        "the panel has a row for each element"
    );
    let (a, mut from) = (a.map(<[T]>::as_ptr), b.as_ptr());
    for p in 0..rows {
        let mut x = [T::splat(simd, T::ZERO); M];
        for (x, a) in x.iter_mut().zip(a) {
            // SAFETY: `p` is less than the length of each row.
            *x = T::splat(simd, unsafe { *a.add(p) });
        }
        for q in 0..Q {
            // SAFETY: row `p` of the panel has `Q` vectors from `from` on, as asserted.
            let b = unsafe { *from.add(q) };
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[q] = T::mul_add(simd, x, b, sums[q]);
            }
        }
        from = from.wrapping_add(width);
    }
    sums
}
