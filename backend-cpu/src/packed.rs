//! Products with a matrix that is used again and again: the kernels of a layer, step after step.
//!
//! The matrix is brought into panels once, and a tile of the result is summed in registers over the
//! whole inner size. So each element is one chain of multiply-adds in the order of
//! the inner index, whatever rows are computed together: that is what lets rows be split over
//! threads, and finished rows be left out, without a change of bits.

use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::Result;
use bytemuck::Pod;
use pulp::{Simd, WithSimd};

use crate::device::Cpu;
use crate::element::Float;
use crate::pool::Scratch;
use crate::prefetch::prefetch;

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
    /// Whether the last product with few rows began at the first column.
    forward: AtomicBool,
}

/// Rows of a panel that are filled together where the source lies the other way: what is written to stays in the
/// first-level cache.
const TRANSPOSED_ROWS: usize = 16;

/// A matrix to pack: element `(p, j)` is at `p * row_stride + columns[j] * column_stride`.
pub(crate) struct Unpacked<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) k: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
    /// Which columns are taken, in order.
    pub(crate) columns: Vec<usize>,
}

impl<T: Float> Packed<T> {
    pub(crate) fn new(cpu: &Cpu, source: &Unpacked<'_, T>) -> Result<Self> {
        let (k, n, width) = (source.k, source.columns.len(), panel::<T>());
        let panels = n.div_ceil(width);
        let mut data = cpu.pool().scratch::<T>(panels * width * k)?;
        if k > 0 {
            let work = k * width;
            cpu.split(panels, [(&mut data, k * width)], work, |range, [data]| {
                let columns = &source.columns[range.start * width..n.min(range.end * width)];
                if source.column_stride == 1 {
                    source.pack_rows(data, columns);
                } else {
                    for (panel, columns) in
                        data.chunks_exact_mut(k * width).zip(columns.chunks(width))
                    {
                        source.pack_transposed(panel, columns);
                    }
                }
            });
        }
        Ok(Self {
            data,
            k,
            n,
            forward: AtomicBool::new(false),
        })
    }
}

impl<T: Float> Unpacked<'_, T> {
    /// No matrix: for where none is needed.
    pub(crate) fn nothing() -> Self {
        Self {
            data: &[],
            k: 0,
            row_stride: 0,
            column_stride: 0,
            columns: Vec::new(),
        }
    }

    /// Fills panels from a matrix that is read row by row, as it lies.
    fn pack_rows(&self, data: &mut [T], columns: &[usize]) {
        let (width, size) = (panel::<T>(), panel::<T>() * self.k);
        let in_a_row: Vec<bool> = columns
            .chunks(width)
            .map(|c| c.iter().enumerate().all(|(i, &x)| x == c[0] + i))
            .collect();
        for p in 0..self.k {
            let from = &self.data[p * self.row_stride..];
            for (i, columns) in columns.chunks(width).enumerate() {
                let to = &mut data[i * size + p * width..][..width];
                if in_a_row[i] {
                    to[..columns.len()].copy_from_slice(&from[columns[0]..][..columns.len()]);
                } else {
                    for (to, &column) in to.iter_mut().zip(columns) {
                        *to = from[column];
                    }
                }
                to[columns.len()..].fill(T::ZERO);
            }
        }
    }

    /// Fills a panel from a matrix that lies the other way.
    fn pack_transposed(&self, panel: &mut [T], columns: &[usize]) {
        let width = PANEL_BYTES / size_of::<T>();
        if columns.len() < width {
            panel.fill(T::ZERO);
        }
        for (block, rows) in panel.chunks_mut(TRANSPOSED_ROWS * width).enumerate() {
            let start = block * TRANSPOSED_ROWS * self.row_stride;
            for (j, &column) in columns.iter().enumerate() {
                let from = self.data[start + column * self.column_stride..].iter();
                let from = from.step_by(self.row_stride.max(1));
                for (to, from) in rows[j..].iter_mut().step_by(width).zip(from) {
                    *to = *from;
                }
            }
        }
    }
}

/// What a product starts from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a, T> {
    Zero,
    /// The same row for every row.
    Row(&'a [T]),
    /// What is there: the product is added.
    There,
}

/// `out = start + a b` for some rows: `a_at` and `out_at` say where each begins.
pub(crate) struct Product<'a, T> {
    pub(crate) a: &'a [T],
    pub(crate) a_at: &'a [usize],
    pub(crate) b: &'a Packed<T>,
    pub(crate) start: Start<'a, T>,
    pub(crate) out: &'a mut [T],
    pub(crate) out_at: &'a [usize],
}

/// The most rows of a tile with two vectors of columns, where there are 32 vector registers and where there are 16. With
/// more of them in the first case the pointers to the rows do not fit their registers, and a fifth of the speed is lost.
const MOST_ROWS: [usize; 2] = [8, 6];
/// With so many tiles at most the next panel is asked for while the second one is computed.
const FEW_TILES: usize = 4;

impl<T: Float> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let count = self.a_at.len();
        assert_eq!(count, self.out_at.len(), "a row for each row");
        let most = if S::REGISTER_COUNT >= 32 {
            MOST_ROWS[0]
        } else {
            MOST_ROWS[1]
        };
        let tiles = count.div_ceil(most).max(1);
        let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
        let per_row = panel::<T>() / lanes;
        if count <= 3 && (per_row == 2 || per_row == 4) {
            return match (count, per_row) {
                (1, 2) => few::<S, T, 1, 4, 2>(simd, &mut self),
                (2, 2) => few::<S, T, 2, 2, 2>(simd, &mut self),
                (3, 2) => few::<S, T, 3, 2, 2>(simd, &mut self),
                (1, 4) => few::<S, T, 1, 2, 4>(simd, &mut self),
                (2, 4) => few::<S, T, 2, 1, 4>(simd, &mut self),
                (3, 4) => few::<S, T, 3, 1, 4>(simd, &mut self),
                _ => {}
            };
        }
        for start in (0..self.b.n).step_by(panel::<T>()) {
            // The panel is read once for all rows, from a cache after the first tile.
            for part in 0..per_row / 2 {
                let column = start + part * 2 * lanes;
                if column >= self.b.n {
                    break;
                }
                let mut row = 0;
                for left in (1..=tiles).rev() {
                    let rows = (count - row).div_ceil(left);
                    // The first tile reads the panel from far, the second from near. Among many it matters little.
                    let ahead = left + 1 == tiles && tiles <= FEW_TILES;
                    let at = Place { column, row, ahead };
                    match rows {
                        8 => tile::<S, T, 8>(simd, &mut self, at),
                        7 => tile::<S, T, 7>(simd, &mut self, at),
                        6 => tile::<S, T, 6>(simd, &mut self, at),
                        5 => tile::<S, T, 5>(simd, &mut self, at),
                        4 => tile::<S, T, 4>(simd, &mut self, at),
                        3 => tile::<S, T, 3>(simd, &mut self, at),
                        2 => tile::<S, T, 2>(simd, &mut self, at),
                        1 => tile::<S, T, 1>(simd, &mut self, at),
                        _ => {}
                    }
                    row += rows;
                }
            }
        }
    }
}

/// All columns for few rows: more of them at a time, as one sum has to wait for the one before.
#[inline(always)]
fn few<S: Simd, T: Float, const M: usize, const P: usize, const Q: usize>(
    simd: S,
    product: &mut Product<'_, T>,
) {
    let width = panel::<T>();
    let panels = product.b.n.div_ceil(width);
    let groups = panels / P;
    // With so few rows all time goes into reading the matrix. What the last product read last may still be in the
    // cache, so each begins where the one before has ended.
    let backward = product.b.forward.fetch_not(Ordering::Relaxed);
    for i in 0..groups {
        let i = if backward { groups - 1 - i } else { i };
        let column = i * P * width;
        wide_tile::<S, T, M, P, Q>(
            simd,
            product,
            Place {
                column,
                row: 0,
                ahead: false,
            },
        );
    }
    for i in groups * P..panels {
        let column = i * width;
        wide_tile::<S, T, M, 1, Q>(
            simd,
            product,
            Place {
                column,
                row: 0,
                ahead: false,
            },
        );
    }
}

/// Where a tile begins: its first column, and its first row among those of the product.
#[derive(Clone, Copy)]
struct Place {
    column: usize,
    row: usize,
    /// Whether the next panel is asked for meanwhile.
    ahead: bool,
}

/// The sums of `M` rows and two vectors of columns.
#[inline(always)]
fn tile<S: Simd, T: Float, const M: usize>(simd: S, product: &mut Product<'_, T>, at: Place) {
    let width = panel::<T>();
    let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
    let a = operands::<T, M>(product, at.row);
    let panel = at.panel::<S, T>(product, 0);
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [[zero; 2]; M];
    // As plain as can be: what the compiler does not unroll as a whole it keeps in memory.
    for (p, b) in (0..product.b.k).zip(panel.chunks(width / lanes)) {
        let (b0, b1) = (b[0], b[1]);
        if at.ahead {
            let row = (width / lanes) * (product.b.k + p);
            prefetch(panel, row);
            prefetch(panel, row + width / lanes / 2);
        }
        for (sum, a) in sums.iter_mut().zip(a) {
            let x = T::splat(simd, a[p]);
            sum[0] = T::mul_add(simd, x, b0, sum[0]);
            sum[1] = T::mul_add(simd, x, b1, sum[1]);
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        store::<S, T>(simd, product, at.row + m, at.column, sums);
    }
}

/// The sums of `M` rows and of `Q` vectors of columns in each of `P` panels.
#[inline(always)]
fn wide_tile<S: Simd, T: Float, const M: usize, const P: usize, const Q: usize>(
    simd: S,
    product: &mut Product<'_, T>,
    at: Place,
) {
    let width = panel::<T>();
    let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
    let a = operands::<T, M>(product, at.row);
    let mut panels: [&[T::Vector<S>]; P] = [&[]; P];
    for (i, panel) in panels.iter_mut().enumerate() {
        *panel = at.panel::<S, T>(product, i);
    }
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [[[zero; Q]; P]; M];
    for p in 0..product.b.k {
        let mut b = [[zero; Q]; P];
        for (b, panel) in b.iter_mut().zip(&panels) {
            b.copy_from_slice(&panel[p * (width / lanes)..][..Q]);
        }
        for (sums, a) in sums.iter_mut().zip(&a) {
            let x = T::splat(simd, a[p]);
            for (sums, b) in sums.iter_mut().zip(&b) {
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = T::mul_add(simd, x, *b, *sum);
                }
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        for (i, sums) in sums.iter().enumerate() {
            store::<S, T>(simd, product, at.row + m, at.column + i * width, sums);
        }
    }
}

/// The rows of the left side from one on.
#[inline(always)]
fn operands<'a, T: Float, const M: usize>(product: &Product<'a, T>, row: usize) -> [&'a [T]; M] {
    let mut a: [&[T]; M] = [&[]; M];
    for (a, &start) in a.iter_mut().zip(&product.a_at[row..]) {
        *a = &product.a[start..][..product.b.k];
    }
    a
}

impl Place {
    /// The `i`-th panel from the place's on, without the vectors before its column.
    #[inline(always)]
    fn panel<'a, S: Simd, T: Float>(
        self,
        product: &Product<'a, T>,
        i: usize,
    ) -> &'a [T::Vector<S>] {
        let (width, lanes) = (panel::<T>(), size_of::<T::Vector<S>>() / size_of::<T>());
        let size = width * product.b.k;
        let start = (self.column / width + i) * size;
        let panel = T::vectors::<S>(&product.b.data[start..][..size]);
        panel.get(self.column % width / lanes..).unwrap_or_default()
    }
}

/// Puts sums of a row to their columns.
#[inline(always)]
fn store<S: Simd, T: Float>(
    simd: S,
    product: &mut Product<'_, T>,
    row: usize,
    column: usize,
    sums: &[T::Vector<S>],
) {
    let n = product.b.n;
    let count = sums.len() * (size_of::<T::Vector<S>>() / size_of::<T>());
    let columns = count.min(n - column);
    let place = product.out_at[row] + column;
    let out = &mut product.out[place..place + columns];
    if columns == count {
        let out = T::vectors_mut::<S>(out);
        match product.start {
            Start::Zero => out.copy_from_slice(sums),
            Start::There => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = T::add_vectors(simd, *out, *sum);
                }
            }
            Start::Row(row) => {
                let row = T::vectors::<S>(&row[column..column + columns]);
                for ((out, sum), row) in out.iter_mut().zip(sums).zip(row) {
                    *out = T::add_vectors(simd, *row, *sum);
                }
            }
        }
        return;
    }
    let mut spare = [T::ZERO; MAX_PANEL];
    T::vectors_mut::<S>(&mut spare[..count]).copy_from_slice(sums);
    for (j, (out, &sum)) in out.iter_mut().zip(&spare).enumerate() {
        *out = match product.start {
            Start::Zero => sum,
            Start::There => out.add(sum),
            Start::Row(row) => row[column + j].add(sum),
        };
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

    /// All columns of a matrix, or its columns the other way round.
    fn check(arch: Arch, [rows, k, n]: [usize; 3], transposed: bool, turned: bool) {
        let (a, b, row) = (numbers(rows * k, 1), numbers(k * n, 2), numbers(n, 3));
        let mut columns: Vec<usize> = (0..n).collect();
        if turned {
            columns.reverse();
        }
        let [row_stride, column_stride] = if transposed { [1, k] } else { [n, 1] };
        let source = Unpacked {
            data: &b,
            k,
            row_stride,
            column_stride,
            columns: columns.clone(),
        };
        let packed = Packed::new(&Cpu::builder().threads(1).build().unwrap(), &source).unwrap();
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
        product(&all, Start::Row(&row), &mut out);
        for r in 0..rows {
            for j in 0..n {
                let at = |p: usize| p * row_stride + columns[j] * column_stride;
                let sum: f64 = (0..k).map(|p| a[r * k + p] * b[at(p)]).sum();
                let found = out[r * n + j];
                assert!((found - row[j] - sum).abs() < 1e-11, "({r}, {j}): {found}");
            }
        }
        // Any selection of rows gives the same bits and touches nothing else; so does any way to begin.
        for keep in [|r: usize| r % 3 != 1, |r| r % 5 == 2, |r| r == 0, |r| r < 2] {
            let some: Vec<usize> = all.iter().copied().filter(|&r| keep(r)).collect();
            let mut part = vec![-7.0; rows * n];
            for &r in &some {
                part[r * n..][..n].copy_from_slice(&row);
            }
            product(&some, Start::There, &mut part);
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
        product(&all, Start::Zero, &mut plain);
        let mut zero = vec![0.0; rows * n];
        product(&all, Start::There, &mut zero);
        assert_eq!(plain, zero);
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
                [2, 30, 150],
                [0, 3, 4],
                [5, 0, 4],
            ] {
                check(arch, sizes, false, false);
                check(arch, sizes, true, false);
                check(arch, sizes, false, true);
                check(arch, sizes, true, true);
            }
        }
    }
}
