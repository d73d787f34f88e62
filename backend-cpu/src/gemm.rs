//! Bindings to the `gemm-f32` and `gemm-f64` crates.
//!
//! This module contains unsafe code: the crates take pointers.
#![allow(unsafe_code)]

use std::ops::Range;

use gemm_common::Parallelism;

/// Rows for which it is worth that each thread packs the other operand.
const MIN_SPLIT_ROWS: usize = 12;
/// The largest number of columns for which the crate may sum in another order.
const MOST_FEW_COLUMNS: usize = 64;

/// The function of one of the crates: sizes m, n, k; the result, its column and row stride and
/// whether to add to it; both operands, each with column and row stride; the factors of the old
/// result and of the product; three flags for complex numbers; threads.
type Kernel<T> = unsafe fn(
    usize,
    usize,
    usize,
    *mut T,
    isize,
    isize,
    bool,
    *const T,
    isize,
    isize,
    *const T,
    isize,
    isize,
    T,
    T,
    bool,
    bool,
    bool,
    Parallelism,
);

/// An element type of products.
pub(crate) trait Gemm: Copy {
    /// 1, the factor of the old result.
    const UNIT: Self;

    /// The function for this type and this CPU.
    fn kernel() -> Kernel<Self>;
}

impl Gemm for f32 {
    const UNIT: Self = 1.0;

    fn kernel() -> Kernel<Self> {
        gemm_f32::gemm::f32::get_gemm_fn()
    }
}

impl Gemm for f64 {
    const UNIT: Self = 1.0;

    fn kernel() -> Kernel<Self> {
        gemm_f64::gemm::f64::get_gemm_fn()
    }
}

/// A matrix operand: element `(i, j)` is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GemmOperand<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<T> GemmOperand<'_, T> {
    /// Some of the rows.
    pub(crate) fn row_range(&self, range: Range<usize>) -> Self {
        Self {
            data: &self.data[range.start * self.row_stride..],
            rows: range.len(),
            ..*self
        }
    }

    fn check(&self) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        let row = (self.rows - 1).checked_mul(self.row_stride);
        let column = (self.columns - 1).checked_mul(self.column_stride);
        let last = row
            .zip(column)
            .and_then(|(row, column)| row.checked_add(column));
        assert!(
            last.is_some_and(|last| last < self.data.len()),
            "a matrix is within its buffer"
        );
    }
}

/// Whether each of several threads should multiply a range of the rows: they are enough, and have
/// the bits of the whole. The crate sums products of few rows and columns in another order.
pub(crate) fn may_split<T>(a: &GemmOperand<'_, T>, b: &GemmOperand<'_, T>, threads: usize) -> bool {
    a.rows / threads >= MIN_SPLIT_ROWS && b.columns > MOST_FEW_COLUMNS
}

/// `out = alpha * a b`, or `out += alpha * a b` if `accumulate`; `out` is contiguous and row-major.
///
/// With more than one thread, the caller must run it inside the rayon pool to use. The result does
/// not depend on the number of threads: each element is summed over the same blocks of `k` in the
/// same order, and only tiles of the result are distributed over threads.
pub(crate) fn gemm<T: Gemm>(
    out: &mut [T],
    a: GemmOperand<'_, T>,
    b: GemmOperand<'_, T>,
    alpha: T,
    accumulate: bool,
    threads: usize,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(b.rows, k, "inner sizes agree");
    assert_eq!(
        Some(out.len()),
        m.checked_mul(n),
        "the result has the size of the product"
    );
    a.check();
    b.check();
    let parallelism = if threads > 1 {
        Parallelism::Rayon(threads)
    } else {
        Parallelism::None
    };
    // A stride that does not fit belongs to an axis of length 1 or less, and is never applied.
    let stride = |stride: usize| isize::try_from(stride).unwrap_or(0);
    let (rows, columns) = (stride(n), 1);
    let (a, b) = (
        (
            a.data.as_ptr(),
            stride(a.row_stride),
            stride(a.column_stride),
        ),
        (
            b.data.as_ptr(),
            stride(b.row_stride),
            stride(b.column_stride),
        ),
    );
    // The kernels prefer a column-major result, so a row-major one is computed transposed:
    // out^T = b^T a^T. A result of one column is column-major.
    let ((m, n), (row, column), left, right) = match columns < rows {
        true => ((n, m), (columns, rows), (b.0, b.2, b.1), (a.0, a.2, a.1)),
        false => ((m, n), (rows, columns), a, b),
    };
    // SAFETY: the two checks above show that every element of `a` and `b` that is read lies in its
    // slice. `out` has exactly m * n elements, with row stride n and column stride 1. `out` is
    // borrowed mutably, so it does not overlap the others. Strides fit `isize`, as slices are at
    // most `isize::MAX` bytes long.
    unsafe {
        T::kernel()(
            m,
            n,
            k,
            out.as_mut_ptr(),
            column,
            row,
            accumulate,
            left.0,
            left.2,
            left.1,
            right.0,
            right.2,
            right.1,
            T::UNIT,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(data: &[f32], rows: usize, columns: usize) -> GemmOperand<'_, f32> {
        GemmOperand {
            data,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// The crate's guarantee that thread counts do not change results relies on this.
    #[test]
    #[cfg_attr(miri, ignore = "too large")]
    fn threads_do_not_change_bits() {
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .unwrap();
        let number = |i: usize| ((i * 7919) % 1000) as f32 / 500.0 - 1.0;
        for (m, n, k) in [
            (150, 150, 150),
            (64, 2048, 512),
            (20, 2600, 650),
            (650, 130, 1400),
            (33, 2000, 1030),
            (600, 10, 4200),
            (16, 65, 1030),
            (64, 256, 1400),
        ] {
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (0..k * n).map(number).collect();
            let c: Vec<f32> = (0..m * n).map(number).collect();
            let product = |threads| {
                let mut out = c.clone();
                gemm(
                    &mut out,
                    matrix(&a, m, k),
                    matrix(&b, k, n),
                    1.0,
                    true,
                    threads,
                );
                out
            };
            let alone = product(1);
            for threads in [2, 3] {
                let together = workers.install(|| product(threads));
                let same = alone
                    .iter()
                    .zip(&together)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{m} x {k} x {n} with {threads} threads");
                let (a, b) = (matrix(&a, m, k), matrix(&b, k, n));
                if may_split(&a, &b, threads) {
                    let mut out = c.clone();
                    for (i, out) in out.chunks_mut(m.div_ceil(threads) * n).enumerate() {
                        let start = i * m.div_ceil(threads);
                        let rows = a.row_range(start..start + out.len() / n);
                        gemm(out, rows, b, 1.0, true, 1);
                    }
                    let same = alone
                        .iter()
                        .zip(&out)
                        .all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{m} x {k} x {n} in {threads} ranges of rows");
                }
            }
        }
    }

    /// The offset of the last element is 4 modulo 2^64.
    #[test]
    #[should_panic(expected = "within its buffer")]
    fn an_offset_that_overflows_is_caught() {
        let data = [0.0f32; 5];
        let far = GemmOperand {
            row_stride: 1 << 63,
            column_stride: 4,
            ..matrix(&data, 3, 2)
        };
        gemm(&mut [0.0; 3], far, matrix(&data, 2, 1), 1.0, false, 1);
    }

    #[test]
    #[should_panic(expected = "the size of the product")]
    fn a_result_whose_size_overflows_is_caught() {
        let data = [0.0f32; 1];
        let (tall, wide) = (matrix(&data, 1 << 32, 0), matrix(&data, 0, 1 << 32));
        gemm(&mut [], tall, wide, 1.0, false, 1);
    }

    #[test]
    #[should_panic(expected = "within its buffer")]
    fn a_matrix_larger_than_its_buffer_is_caught() {
        let data = [0.0f32; 5];
        gemm(
            &mut [0.0; 4],
            matrix(&data, 2, 3),
            matrix(&data, 3, 2),
            1.0,
            false,
            1,
        );
    }
}
