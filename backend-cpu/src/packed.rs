//! Products with a matrix that is used again and again: the recurrent kernels of a sequence.
//!
//! The matrix is brought into panels once, and a tile of the result is summed in registers over the
//! whole inner size. So each element is one chain of multiply-adds in the order of
//! the inner index, whatever rows are computed together: that is what lets rows be split over
//! threads, and finished rows be left out, without a change of bits.

use std::sync::Arc;

use backend_api::Result;
use bytemuck::Pod;
use pulp::{Simd, WithSimd};

use crate::element::Float;
use crate::pool::{Pool, Scratch};
use crate::simd::Source;

/// Bytes of a row of a panel: two of the longest vectors.
const PANEL_BYTES: usize = 128;
/// The most elements in that: of single precision.
const MAX_PANEL: usize = PANEL_BYTES / 4;

const fn panel<T>() -> usize {
    PANEL_BYTES / size_of::<T>()
}

/// A float type's vectors.
pub(crate) trait Lanes: Pod {
    /// A vector of the unit `S`.
    type Vector<S: Simd>: Copy;
    fn vectors<S: Simd>(data: &[Self]) -> &[Self::Vector<S>];
    fn vectors_mut<S: Simd>(data: &mut [Self]) -> &mut [Self::Vector<S>];
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    fn add_vectors<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a * b + c`, rounded once where the unit can.
    fn mul_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;
}

impl Lanes for f32 {
    type Vector<S: Simd> = S::f32s;

    #[inline(always)]
    fn vectors<S: Simd>(data: &[f32]) -> &[S::f32s] {
        S::as_simd_f32s(data).0
    }
    #[inline(always)]
    fn vectors_mut<S: Simd>(data: &mut [f32]) -> &mut [S::f32s] {
        S::as_mut_simd_f32s(data).0
    }
    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f32) -> S::f32s {
        simd.splat_f32s(x)
    }
    #[inline(always)]
    fn add_vectors<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.add_f32s(a, b)
    }
    #[inline(always)]
    fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(a, b, c)
    }
}

impl Lanes for f64 {
    type Vector<S: Simd> = S::f64s;

    #[inline(always)]
    fn vectors<S: Simd>(data: &[f64]) -> &[S::f64s] {
        S::as_simd_f64s(data).0
    }
    #[inline(always)]
    fn vectors_mut<S: Simd>(data: &mut [f64]) -> &mut [S::f64s] {
        S::as_mut_simd_f64s(data).0
    }
    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f64) -> S::f64s {
        simd.splat_f64s(x)
    }
    #[inline(always)]
    fn add_vectors<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.add_f64s(a, b)
    }
    #[inline(always)]
    fn mul_add<S: Simd>(simd: S, a: S::f64s, b: S::f64s, c: S::f64s) -> S::f64s {
        simd.mul_add_e_f64s(a, b, c)
    }
}

/// A matrix `[k, n]` in panels of some columns each: within one, row after row, and the last
/// filled up with zeros.
#[derive(Debug)]
pub(crate) struct Packed<T> {
    data: Scratch<T>,
    k: usize,
    n: usize,
}

impl<T: Float> Packed<T> {
    /// Packs the matrix whose element `(p, j)` is at `p * row_stride + j * column_stride`.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        source: &[T],
        [k, n]: [usize; 2],
        [row_stride, column_stride]: [usize; 2],
    ) -> Result<Self> {
        let width = panel::<T>();
        let mut data = pool.scratch::<T>(n.div_ceil(width) * width * k)?;
        if k > 0 {
            for (i, panel) in data.chunks_exact_mut(k * width).enumerate() {
                let start = i * width;
                let columns = width.min(n - start);
                if columns < width {
                    panel.fill(T::ZERO);
                }
                if column_stride == 1 {
                    for (p, row) in panel.chunks_exact_mut(width).enumerate() {
                        let from = &source[p * row_stride + start..][..columns];
                        row[..columns].copy_from_slice(from);
                    }
                } else {
                    for j in 0..columns {
                        let from = source[(start + j) * column_stride..].iter();
                        let from = from.step_by(row_stride.max(1));
                        for (to, from) in panel[j..].iter_mut().step_by(width).zip(from) {
                            *to = *from;
                        }
                    }
                }
            }
        }
        Ok(Self { data, k, n })
    }
}

/// `out[r] = init[r] + a[r] b` for some rows `r`, or without `init`. All indices of rows are those of the
/// operands and of the result alike.
pub(crate) struct Product<'a, T> {
    pub(crate) rows: &'a [usize],
    pub(crate) a: Source<'a, T>,
    pub(crate) b: &'a Packed<T>,
    pub(crate) init: Option<Source<'a, T>>,
    pub(crate) out: &'a mut [T],
    pub(crate) out_stride: usize,
}

impl<T: Float> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (k, width) = (self.b.k, panel::<T>());
        // As many rows as there are registers for, with two vectors of sums each.
        let most = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };
        let tiles = self.rows.len().div_ceil(most).max(1);
        let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
        let (b, n, rows) = (self.b, self.b.n, self.rows);
        for start in (0..n).step_by(width) {
            // The panel is read once for all rows, from a cache after the first tile.
            let panel = &b.data[start * k..][..width * k];
            for part in 0..width / (2 * lanes) {
                let column = start + part * 2 * lanes;
                if column >= n {
                    break;
                }
                let mut rest = rows;
                for left in (1..=tiles).rev() {
                    let (now, later) = rest.split_at(rest.len().div_ceil(left));
                    rest = later;
                    let at = Place {
                        panel,
                        part,
                        column,
                    };
                    match now.len() {
                        12 => tile::<S, T, 12>(simd, &mut self, now, at),
                        11 => tile::<S, T, 11>(simd, &mut self, now, at),
                        10 => tile::<S, T, 10>(simd, &mut self, now, at),
                        9 => tile::<S, T, 9>(simd, &mut self, now, at),
                        8 => tile::<S, T, 8>(simd, &mut self, now, at),
                        7 => tile::<S, T, 7>(simd, &mut self, now, at),
                        6 => tile::<S, T, 6>(simd, &mut self, now, at),
                        5 => tile::<S, T, 5>(simd, &mut self, now, at),
                        4 => tile::<S, T, 4>(simd, &mut self, now, at),
                        3 => tile::<S, T, 3>(simd, &mut self, now, at),
                        2 => tile::<S, T, 2>(simd, &mut self, now, at),
                        1 => tile::<S, T, 1>(simd, &mut self, now, at),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Which columns a tile covers.
#[derive(Clone, Copy)]
struct Place<'a, T> {
    panel: &'a [T],
    /// Which pair of vectors of the panel.
    part: usize,
    /// The first column in the result.
    column: usize,
}

/// The sums of `M` rows and two vectors of columns.
#[inline(always)]
fn tile<S: Simd, T: Float, const M: usize>(
    simd: S,
    product: &mut Product<'_, T>,
    rows: &[usize],
    at: Place<'_, T>,
) {
    let k = product.b.k;
    let mut a: [&[T]; M] = [&[]; M];
    for (a, &r) in a.iter_mut().zip(rows) {
        *a = product.a.row(r, k);
    }
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [[zero; 2]; M];
    let vectors = T::vectors::<S>(at.panel);
    let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
    let per_row = panel::<T>() / lanes;
    for (p, b) in (0..k).zip(vectors.chunks_exact(per_row)) {
        let (b0, b1) = (b[2 * at.part], b[2 * at.part + 1]);
        for (sum, a) in sums.iter_mut().zip(a) {
            let x = T::splat(simd, a[p]);
            sum[0] = T::mul_add(simd, x, b0, sum[0]);
            sum[1] = T::mul_add(simd, x, b1, sum[1]);
        }
    }
    let columns = (2 * lanes).min(product.b.n - at.column);
    for (sum, &r) in sums.iter().zip(rows) {
        let out = &mut product.out[r * product.out_stride + at.column..][..columns];
        let init = product.init.map(|init| {
            let row = init.row(r, at.column + columns);
            &row[at.column..]
        });
        if columns == 2 * lanes {
            let out = T::vectors_mut::<S>(out);
            match init.map(T::vectors::<S>) {
                Some(init) => {
                    out[0] = T::add_vectors(simd, init[0], sum[0]);
                    out[1] = T::add_vectors(simd, init[1], sum[1]);
                }
                None => out.copy_from_slice(sum),
            }
            continue;
        }
        let mut spare = [T::ZERO; MAX_PANEL];
        T::vectors_mut::<S>(&mut spare[..2 * lanes]).copy_from_slice(sum);
        match init {
            Some(init) => {
                for ((out, &init), &sum) in out.iter_mut().zip(init).zip(&spare) {
                    *out = init.add(sum);
                }
            }
            None => out.copy_from_slice(&spare[..columns]),
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::*;
    use crate::simd::tests::archs;

    fn numbers(count: usize, seed: usize) -> Vec<f64> {
        (0..count)
            .map(|i| (((i + seed) * 7919) % 1013) as f64 / 506.0 - 1.0)
            .collect()
    }

    fn check(arch: Arch, [rows, k, n]: [usize; 3], transposed: bool) {
        let pool = Arc::new(Pool::default());
        let (a, b, init) = (
            numbers(rows * k, 1),
            numbers(k * n, 2),
            numbers(rows * n, 3),
        );
        let strides = if transposed { [1, k] } else { [n, 1] };
        let packed = Packed::new(&pool, &b, [k, n], strides).unwrap();
        let source = |data, stride| Source {
            data,
            stride,
            at: 0,
        };
        let product = |rows: &[usize], out: &mut [f64]| {
            arch.dispatch(Product {
                rows,
                a: source(&a, k),
                b: &packed,
                init: Some(source(&init, n)),
                out,
                out_stride: n,
            });
        };
        let all: Vec<usize> = (0..rows).collect();
        let mut out = vec![f64::NAN; rows * n];
        product(&all, &mut out);
        for r in 0..rows {
            for j in 0..n {
                let at = |p: usize| p * strides[0] + j * strides[1];
                let sum: f64 = (0..k).map(|p| a[r * k + p] * b[at(p)]).sum();
                let found = out[r * n + j];
                assert!(
                    (found - init[r * n + j] - sum).abs() < 1e-11,
                    "({r}, {j}): {found}"
                );
            }
        }
        // Any selection of rows gives the same bits and touches nothing else.
        let some: Vec<usize> = all.iter().copied().filter(|r| r % 3 != 1).collect();
        let mut part = vec![-7.0; rows * n];
        product(&some, &mut part);
        for r in 0..rows {
            let (part, out) = (&part[r * n..][..n], &out[r * n..][..n]);
            if r % 3 == 1 {
                assert!(part.iter().all(|&x| x == -7.0));
            } else {
                assert_eq!(part, out);
            }
        }
    }

    #[test]
    fn products_are_exact_and_rows_independent() {
        for arch in archs() {
            for sizes in [
                [1, 1, 1],
                [3, 5, 16],
                [8, 17, 33],
                [9, 3, 20],
                [12, 9, 40],
                [13, 40, 70],
                [21, 8, 64],
                [50, 64, 31],
                [0, 3, 4],
                [5, 0, 4],
            ] {
                check(arch, sizes, false);
                check(arch, sizes, true);
            }
        }
    }
}
