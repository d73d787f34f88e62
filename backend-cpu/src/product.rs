//! Matmuls with a matrix that is reused at every step, such as a layer's kernels.
//!
//! The matrix is packed into column panels once ([`crate::packed`]). A micro-kernel accumulates a
//! tile of the result in registers. Each output element is one chain of multiply-adds in the order
//! of the inner index, beginning with the value it is added to. The chain does not depend on which
//! rows are computed together. Rows can therefore be split over threads, and finished rows left
//! out, without changing any bit of the result.

use std::ops::Range;

use bytemuck::Pod;
use pulp::{Simd, WithSimd};

use crate::bf16::Pair;
use crate::element::Float;
use crate::packed::{FEW, Panel, Panels, Stored, WIDE_VECTORS};
pub(crate) use crate::tile::Accumulate;
use crate::tile::{Ahead, Sums, add_rows, add_wide};

/// The largest number of rows of a tile, with 32 vector registers, with 16, and without vectors.
fn most_rows<S: Simd>() -> usize {
    match S::REGISTER_COUNT {
        _ if S::IS_SCALAR => 1,
        32.. => 8,
        _ => 4,
    }
}

/// Bytes of a panel that are multiplied with all rows before the next ones, so that they stay in
/// L2.
const BLOCK_BYTES: usize = 200 << 10;

/// `out = start + a b` for some rows: `a_at` and `out_at` hold the offset of each row.
pub(crate) struct Product<'a, T, W = T> {
    pub(crate) a: &'a [T],
    pub(crate) a_at: &'a [usize],
    pub(crate) b: &'a Panels<W>,
    pub(crate) start: Accumulate<'a, T>,
    pub(crate) out: &'a mut [T],
    pub(crate) out_at: &'a [usize],
}

impl<T: Float> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.check::<S>();
        if self.b.vectors == WIDE_VECTORS {
            return few_rows::<S, T, T>(simd, &mut self);
        }
        for i in 0..self.b.panels() {
            let panel = self.b.panel(i);
            match panel.vectors {
                3 => many_rows::<S, T, 3>(simd, &mut self, panel),
                2 => many_rows::<S, T, 2>(simd, &mut self, panel),
                _ => many_rows::<S, T, 1>(simd, &mut self, panel),
            }
        }
    }
}

impl WithSimd for Product<'_, f32, Pair> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.check::<S>();
        few_rows::<S, f32, Pair>(simd, &mut self);
    }
}

/// All rows times a panel of `V` vectors, one block of the panel after another: the first tile of
/// rows brings the block into L2, the others read it from there.
#[inline(always)]
fn many_rows<S: Simd, T: Float, const V: usize>(
    simd: S,
    product: &mut Product<'_, T>,
    panel: Panel,
) {
    let most = most_rows::<S>();
    let count = product.a_at.len();
    let tiles = count.div_ceil(most).max(1);
    let (k, width) = (product.b.k, V * product.b.lanes);
    let blocks = (k * width * size_of::<T>()).div_ceil(BLOCK_BYTES).max(1);
    let block = k.div_ceil(blocks).max(1);
    for start in (0..k.max(1)).step_by(block) {
        let end = k.min(start + block);
        let mut row = 0;
        for i in 0..tiles {
            let rows = (count - row).div_ceil(tiles - i);
            let at = TileRange {
                panel,
                row,
                inner: [start, end],
                // Together, the tiles prefetch the whole next block.
                ahead: panel.at + end * width + (end - start) * width * i / tiles,
                stride: width / tiles,
            };
            match rows {
                8 if most == 8 => tile::<S, T, 8, V>(simd, product, at),
                7 if most == 8 => tile::<S, T, 7, V>(simd, product, at),
                6 if most == 8 => tile::<S, T, 6, V>(simd, product, at),
                5 if most == 8 => tile::<S, T, 5, V>(simd, product, at),
                4 if most >= 4 => tile::<S, T, 4, V>(simd, product, at),
                3 if most >= 4 => tile::<S, T, 3, V>(simd, product, at),
                2 if most >= 4 => tile::<S, T, 2, V>(simd, product, at),
                1 => tile::<S, T, 1, V>(simd, product, at),
                _ => {}
            }
            row += rows;
        }
    }
}

/// The position of a tile: its panel, its first row, and the range of the inner index. `ahead` and
/// `stride` say which part of the panel to prefetch.
#[derive(Clone, Copy)]
struct TileRange {
    panel: Panel,
    row: usize,
    inner: [usize; 2],
    ahead: usize,
    stride: usize,
}

/// A tile as a function of its own, so that each size is compiled only once.
struct Tile<'p, 'a, T, const M: usize, const V: usize> {
    product: &'p mut Product<'a, T>,
    at: TileRange,
}

#[inline(always)]
fn tile<S: Simd, T: Float, const M: usize, const V: usize>(
    simd: S,
    product: &mut Product<'_, T>,
    at: TileRange,
) {
    simd.vectorize(Tile::<'_, '_, T, M, V> { product, at });
}

impl<T: Float, const M: usize, const V: usize> WithSimd for Tile<'_, '_, T, M, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product, at } = self;
        let (Panels { data, lanes, .. }, [start, end]) = (product.b, at.inner);
        let width = V * lanes;
        let b = &data[at.panel.at + start * width..at.panel.at + end * width];
        let from = if start == 0 {
            product.start
        } else {
            Accumulate::Existing
        };
        let ahead = Ahead {
            data,
            at: at.ahead,
            stride: at.stride,
        };
        let a = product.rows(at.row, start..end);
        let b = T::vectors::<S>(b).as_chunks::<V>().0;
        let place = (at.row, at.panel.column);
        let mut edge = product.edge::<S, M, V>(simd, from, place);
        let sums = product.sums(&mut edge, from, place);
        add_rows::<S, T, M, V>(simd, a, b, ahead, sums);
        product.store_edge::<S, M, V>(&edge, place);
    }
}

/// All columns for few rows.
#[inline(always)]
fn few_rows<S: Simd, T: Float, W: Stored<T>>(simd: S, product: &mut Product<'_, T, W>) {
    let most = most_rows::<S>().min(FEW);
    for row in (0..product.a_at.len()).step_by(most) {
        let rows = most.min(product.a_at.len() - row);
        for panel in product.b.order.of(product.b.panels()) {
            let panel = product.b.panel(panel);
            match (rows, panel.vectors) {
                (1, 8) => wide_tile::<S, T, W, 1, 8>(simd, product, panel, row),
                (1, 4) => wide_tile::<S, T, W, 1, 4>(simd, product, panel, row),
                (1, 2) => wide_tile::<S, T, W, 1, 2>(simd, product, panel, row),
                (1, _) => wide_tile::<S, T, W, 1, 1>(simd, product, panel, row),
                _ if most == 1 => {}
                (2, 8) if S::REGISTER_COUNT >= 32 => {
                    wide_tile::<S, T, W, 2, 8>(simd, product, panel, row)
                }
                (2, 4 | 8) => wide_tile::<S, T, W, 2, 4>(simd, product, panel, row),
                (2, 2) => wide_tile::<S, T, W, 2, 2>(simd, product, panel, row),
                (2, _) => wide_tile::<S, T, W, 2, 1>(simd, product, panel, row),
                (_, 8) if S::REGISTER_COUNT >= 32 => {
                    wide_tile::<S, T, W, 3, 8>(simd, product, panel, row)
                }
                (_, 4 | 8) => wide_tile::<S, T, W, 3, 4>(simd, product, panel, row),
                (_, 2) => wide_tile::<S, T, W, 3, 2>(simd, product, panel, row),
                (_, _) => wide_tile::<S, T, W, 3, 1>(simd, product, panel, row),
            }
        }
    }
}

/// `M` rows times a wide panel, `Q` vectors at a time.
struct WideTile<'p, 'a, T, W, const M: usize, const Q: usize> {
    product: &'p mut Product<'a, T, W>,
    panel: Panel,
    row: usize,
}

#[inline(always)]
fn wide_tile<S: Simd, T: Float, W: Stored<T>, const M: usize, const Q: usize>(
    simd: S,
    product: &mut Product<'_, T, W>,
    panel: Panel,
    row: usize,
) {
    simd.vectorize(WideTile::<'_, '_, T, W, M, Q> {
        product,
        panel,
        row,
    });
}

impl<T: Float, W: Stored<T>, const M: usize, const Q: usize> WithSimd
    for WideTile<'_, '_, T, W, M, Q>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            product,
            panel,
            row,
        } = self;
        let Panels { data, k, lanes, .. } = product.b;
        let width = panel.vectors.div_ceil(W::NUMBERS);
        let b = W::vectors::<S>(&data[panel.at / W::NUMBERS..][..k * width * lanes]);
        for first in (0..panel.vectors).step_by(Q) {
            let column = panel.column + first * lanes;
            let b = (b.get(first / W::NUMBERS..).unwrap_or_default(), width);
            let (a, place, start) = (product.rows(row, 0..*k), (row, column), product.start);
            let mut edge = product.edge::<S, M, Q>(simd, start, place);
            let sums = product.sums(&mut edge, start, place);
            add_wide::<S, T, W, M, Q>(simd, a, b, sums);
            product.store_edge::<S, M, Q>(&edge, place);
        }
    }
}

/// The sums of a tile at the last columns, which are not whole vectors.
type Edge<V, const M: usize, const N: usize> = Option<[[V; N]; M]>;

impl<'a, T: Float, W> Product<'a, T, W> {
    #[inline(always)]
    fn check<S: Simd>(&self) {
        assert_eq!(
            self.a_at.len(),
            self.out_at.len(),
            "each row of the operand has a row of the result"
        );
        let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
        assert_eq!(
            self.b.lanes, lanes,
            "the matrix is packed for this vector width"
        );
    }

    /// A range of `M` rows of the left-hand side.
    #[inline(always)]
    fn rows<const M: usize>(&self, row: usize, inner: Range<usize>) -> [&'a [T]; M] {
        let mut a: [&[T]; M] = [&[]; M];
        for (a, &start) in a.iter_mut().zip(&self.a_at[row..]) {
            *a = &self.a[start + inner.start..start + inner.end];
        }
        a
    }

    /// The number of columns that `V` vectors from `column` on have.
    #[inline(always)]
    fn columns(&self, column: usize, vectors: usize) -> usize {
        (vectors * self.b.lanes).min(self.b.n.saturating_sub(column))
    }

    /// The sums of a tile as whole vectors, if its columns in the result are not.
    #[inline(always)]
    fn edge<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        start: Accumulate<'_, T>,
        (row, column): (usize, usize),
    ) -> Edge<T::Vector<S>, M, V> {
        let (columns, width) = (self.columns(column, V), V * self.b.lanes);
        if columns == width {
            return None;
        }
        let mut edge = [[T::splat(simd, T::ZERO); V]; M];
        let to = bytemuck::cast_slice_mut(edge.as_flattened_mut());
        self.read_edge(to, width, columns, start, (row, column));
        Some(edge)
    }

    /// Copies what a product is added to, if it is not zero, to rows of `width` elements. This
    /// function and [`write_edge`](Self::write_edge) run for few tiles, and are compiled once for
    /// all sizes.
    #[inline(never)]
    fn read_edge(
        &self,
        to: &mut [T],
        width: usize,
        columns: usize,
        start: Accumulate<'_, T>,
        (row, column): (usize, usize),
    ) {
        for (to, out) in to.chunks_exact_mut(width).zip(&self.out_at[row..]) {
            let from = match start {
                Accumulate::Zero => return,
                Accumulate::Existing => &self.out[out + column..],
                Accumulate::Bias(bias) => &bias[column..],
            };
            to[..columns].copy_from_slice(&from[..columns]);
        }
    }

    /// Copies rows of `width` elements to the result.
    #[inline(never)]
    fn write_edge(
        &mut self,
        from: &[T],
        width: usize,
        columns: usize,
        (row, column): (usize, usize),
    ) {
        for (from, out) in from.chunks_exact(width).zip(&self.out_at[row..]) {
            self.out[out + column..][..columns].copy_from_slice(&from[..columns]);
        }
    }

    /// The sums of a tile, in its edge or in the result.
    #[inline(always)]
    fn sums<'s, V: Pod, const M: usize, const N: usize>(
        &'s mut self,
        edge: &'s mut Edge<V, M, N>,
        start: Accumulate<'s, T>,
        (row, column): (usize, usize),
    ) -> Sums<'s, T, M> {
        let mut at = [0; M];
        match edge {
            None => {
                for (at, out) in at.iter_mut().zip(&self.out_at[row..][..M]) {
                    *at = out + column;
                }
                Sums {
                    out: self.out,
                    at,
                    start: match start {
                        Accumulate::Bias(bias) => Accumulate::Bias(&bias[column..]),
                        other => other,
                    },
                }
            }
            Some(edge) => {
                for (m, at) in at.iter_mut().enumerate() {
                    *at = m * N * self.b.lanes;
                }
                Sums {
                    out: bytemuck::cast_slice_mut(edge.as_flattened_mut()),
                    at,
                    start: Accumulate::Existing,
                }
            }
        }
    }

    /// Copies the sums of an edge to the result.
    #[inline(always)]
    fn store_edge<S: Simd, const M: usize, const V: usize>(
        &mut self,
        edge: &Edge<T::Vector<S>, M, V>,
        (row, column): (usize, usize),
    ) {
        let (columns, width) = (self.columns(column, V), V * self.b.lanes);
        let Some(edge) = edge else { return };
        let from = bytemuck::cast_slice(edge.as_flattened());
        self.write_edge(from, width, columns, (row, column));
    }
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::*;
    use crate::device::Cpu;
    use crate::packed::{MatrixView, PackedExact, VECTORS};
    use crate::simd::tests::archs;

    fn numbers(count: usize, seed: usize) -> Vec<f64> {
        (0..count)
            .map(|i| (((i + seed) * 7919) % 1013) as f64 / 506.0 - 1.0)
            .collect()
    }

    /// All columns of a matrix, or (`reversed`) its columns in reverse order.
    fn check(arch: Arch, vectors: usize, sizes: [usize; 3], transposed: bool, reversed: bool) {
        let [rows, k, n] = sizes;
        let (a, b, row) = (numbers(rows * k, 1), numbers(k * n, 2), numbers(n, 3));
        let mut columns: Vec<usize> = (0..n).collect();
        if reversed {
            columns.reverse();
        }
        let [row_stride, column_stride] = if transposed { [1, k] } else { [n, 1] };
        let source = MatrixView {
            data: &b,
            k,
            row_stride,
            column_stride,
            columns: columns.clone(),
        };
        let cpu = Cpu::builder().threads(1).build().unwrap();
        let packed = PackedExact::with(&cpu, arch, &source, vectors).unwrap();
        let product = |rows: &[usize], start, out: &mut [f64]| {
            let at = |width: usize| rows.iter().map(|r| r * width).collect::<Vec<_>>();
            arch.dispatch(Product {
                a: &a,
                a_at: &at(k),
                b: &packed,
                start,
                out,
                out_at: &at(n),
            });
        };
        let all: Vec<usize> = (0..rows).collect();
        let mut out = vec![f64::NAN; rows * n];
        product(&all, Accumulate::Bias(&row), &mut out);
        for r in 0..rows {
            for j in 0..n {
                let at = |p: usize| p * row_stride + columns[j] * column_stride;
                let sum: f64 = (0..k).map(|p| a[r * k + p] * b[at(p)]).sum();
                let found = out[r * n + j];
                assert!((found - row[j] - sum).abs() < 1e-11, "({r}, {j}): {found}");
            }
        }
        // Any subset of rows gives the same bits and modifies no other rows, for every `start`.
        for keep in [|r: usize| r % 3 != 1, |r| r % 5 == 2, |r| r == 0, |r| r < 2] {
            let some: Vec<usize> = all.iter().copied().filter(|&r| keep(r)).collect();
            let mut part = vec![-7.0; rows * n];
            for &r in &some {
                part[r * n..][..n].copy_from_slice(&row);
            }
            product(&some, Accumulate::Existing, &mut part);
            for r in 0..rows {
                let (part, out) = (&part[r * n..][..n], &out[r * n..][..n]);
                if keep(r) {
                    assert_eq!(part, out);
                } else {
                    assert!(part.iter().all(|&x| x == -7.0));
                }
            }
        }
        let mut plain = vec![0.0; rows * n];
        product(&all, Accumulate::Zero, &mut plain);
        let mut zero = vec![0.0; rows * n];
        product(&all, Accumulate::Existing, &mut zero);
        assert_eq!(plain, zero);
    }

    #[test]
    fn products_are_exact_and_rows_independent() {
        for arch in archs() {
            // Miri is slow.
            let fits = |sizes: &[usize; 3]| !cfg!(miri) || sizes.iter().product::<usize>() < 1000;
            let all = [
                [1, 1, 1],
                [3, 5, 16],
                [8, 17, 33],
                [9, 3, 20],
                [12, 9, 40],
                [13, 40, 70],
                [21, 8, 64],
                [50, 64, 31],
                [2, 30, 150],
                [11, 2500, 50],
                [0, 3, 4],
                [5, 0, 4],
            ];
            for sizes in all.into_iter().filter(fits) {
                for vectors in [VECTORS, WIDE_VECTORS] {
                    check(arch, vectors, sizes, false, false);
                    check(arch, vectors, sizes, true, false);
                    check(arch, vectors, sizes, false, true);
                    check(arch, vectors, sizes, true, true);
                }
            }
        }
    }
}
