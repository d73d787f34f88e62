//! A row times a matrix, and the dot products of its transposed form.

use pulp::{Simd, WithSimd};

use crate::element::Float;
use crate::gemm::GemmOperand;

/// A row times a matrix. Its time is that of reading the matrix once, for which a tiled matmul is
/// slow.
#[derive(Clone, Copy)]
pub(super) struct RowTimesMatrix<'a, T> {
    x: &'a [T],
    b: GemmOperand<'a, T>,
}

/// Columns that are summed at a time: they stay in L1.
const COLUMNS: usize = 1024;
/// Rows of the matrix that are added at a time, and running sums of a dot product.
const ROWS: usize = 4;
const SUMS: usize = 64;

impl<'a, T: Float> RowTimesMatrix<'a, T> {
    /// The kernel if it applies: one row, and a row-major or transposed matrix.
    pub(super) fn of(a: &GemmOperand<'a, T>, b: &GemmOperand<'a, T>, alpha: T) -> Option<Self> {
        let suits = a.rows == 1
            && alpha == T::ONE
            && (a.column_stride == 1 || a.columns == 1)
            && (b.column_stride == 1 || b.row_stride == 1);
        suits.then(|| Self {
            x: &a.data[..a.columns],
            b: *b,
        })
    }

    /// The columns from `start` on, as many as `out` has elements.
    pub(super) fn part<'o>(
        self,
        start: usize,
        out: &'o mut [T],
        accumulate: bool,
    ) -> RowPart<'a, 'o, T> {
        RowPart {
            whole: self,
            start,
            out,
            accumulate,
        }
    }
}

pub(super) struct RowPart<'a, 'o, T> {
    whole: RowTimesMatrix<'a, T>,
    start: usize,
    out: &'o mut [T],
    accumulate: bool,
}

impl<T: Float> WithSimd for RowPart<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let RowTimesMatrix { x, b } = self.whole;
        if !self.accumulate {
            self.out.fill(T::ZERO);
        }
        if b.column_stride == 1 {
            for (block, out) in self.out.chunks_mut(COLUMNS).enumerate() {
                let at = self.start + block * COLUMNS;
                add_rows(out, x, b.data, at, b.row_stride);
            }
        } else {
            for (j, out) in self.out.iter_mut().enumerate() {
                let row = &b.data[(self.start + j) * b.column_stride..][..x.len()];
                *out = out.add(dot(x, row));
            }
        }
    }
}

/// `out += x[0] * row 0 + x[1] * row 1 + ..`, rows at `at` and each `stride` after.
#[inline(always)]
fn add_rows<T: Float>(out: &mut [T], x: &[T], data: &[T], at: usize, stride: usize) {
    let n = out.len();
    let (groups, rest) = x.as_chunks::<ROWS>();
    for (g, x) in groups.iter().enumerate() {
        let row = |i: usize| &data[at + (g * ROWS + i) * stride..][..n];
        let [r0, r1, r2, r3] = [row(0), row(1), row(2), row(3)];
        for (j, out) in out.iter_mut().enumerate() {
            let sum = x[0].mul(r0[j]).add(x[1].mul(r1[j]));
            let more = x[2].mul(r2[j]).add(x[3].mul(r3[j]));
            *out = out.add(sum.add(more));
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        let row = &data[at + (groups.len() * ROWS + i) * stride..][..n];
        for (out, &r) in out.iter_mut().zip(row) {
            *out = out.add(x.mul(r));
        }
    }
}

/// The dot product of two rows: [`SUMS`] interleaved partial sums that are added in a fixed order.
#[inline(always)]
fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::ZERO; SUMS];
    let (a, rest_a) = a.as_chunks::<SUMS>();
    let (b, rest_b) = b.as_chunks::<SUMS>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..SUMS {
            sums[i] = sums[i].add(a[i].mul(b[i]));
        }
    }
    let mut total = T::ZERO;
    for (&a, &b) in rest_a.iter().zip(rest_b) {
        total = total.add(a.mul(b));
    }
    // Halving keeps the additions in vectors.
    let mut width = SUMS / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] = sums[i].add(sums[i + width]);
        }
        width /= 2;
    }
    total.add(sums[0])
}
