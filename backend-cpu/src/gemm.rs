//! Bindings to the `gemm` crate.
//!
//! This module contains unsafe code: the `gemm` crate takes pointers.
#![allow(unsafe_code)]

use gemm::Parallelism;

use crate::element::Float;

/// A matrix operand: element `(i, j)` is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<T> Matrix<'_, T> {
    fn check(&self) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        let last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
        assert!(last < self.data.len(), "a matrix is within its buffer");
    }
}

/// `out = alpha * a b`, or `out += alpha * a b` if `accumulate`; `out` is contiguous and row-major.
///
/// With more than one thread, the caller must run it inside the rayon pool to use. The result does
/// not depend on the number of threads: each element is summed over the same blocks of `k` in the
/// same order, and only tiles of the result are distributed over threads.
pub(crate) fn gemm<T: Float>(
    out: &mut [T],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    alpha: T,
    accumulate: bool,
    threads: usize,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(b.rows, k, "inner sizes agree");
    assert_eq!(out.len(), m * n, "the result has the size of the product");
    a.check();
    b.check();
    let parallelism = if threads > 1 {
        Parallelism::Rayon(threads)
    } else {
        Parallelism::None
    };
    // SAFETY: the two checks above show that every element of `a` and `b` that is read lies in its
    // slice. `out` has exactly m * n elements, with row stride n and column stride 1. `out` is
    // borrowed mutably, so it does not overlap the others. `T` is f32 or f64, the only `Float`
    // types, which `gemm` supports. Strides fit `isize`, as slices are at most `isize::MAX` bytes
    // long; a stride that does not fit belongs to an axis of length 1 or less and is never applied.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
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

    fn matrix(data: &[f32], rows: usize, columns: usize) -> Matrix<'_, f32> {
        Matrix {
            data,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// The crate's guarantee that thread counts do not change results relies on this.
    #[test]
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
            }
        }
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
