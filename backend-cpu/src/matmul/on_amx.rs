//! Matmuls of `f32` on AMX.

use std::any::TypeId;
use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::Result;

use super::MIN_PRODUCTS;
use crate::amx::{self, PackedAmx};
use crate::device::Cpu;
use crate::element::{Float, singles, singles_mut};
use crate::gemm::GemmOperand;
use crate::packed::MatrixView;
use crate::product::Accumulate;

/// Columns, and inner size, from which on a matmul runs on AMX; and rows, if the right-hand side
/// has to be packed first.
pub(crate) const AMX_COLUMNS: usize = 32;
const AMX_ROWS: usize = 32;

/// The left-hand side of a matmul on AMX: rows `stride` apart, or columns of a matrix whose rows
/// lie in two slices.
#[derive(Clone, Copy)]
enum Left<'a> {
    Rows {
        data: &'a [f32],
        stride: usize,
    },
    Columns {
        parts: [&'a [f32]; 2],
        split: usize,
        width: usize,
    },
}

impl Cpu {
    /// Whether a matmul should run on AMX.
    pub(super) fn suits_amx<T: Float>(
        &self,
        a: &GemmOperand<'_, T>,
        b: &GemmOperand<'_, T>,
        alpha: T,
    ) -> bool {
        let is_row_major = |x: &GemmOperand<'_, T>| x.column_stride == 1;
        let is_column_major = |x: &GemmOperand<'_, T>| x.row_stride == 1;
        // A right-hand side that is not row-major has to be packed first.
        let pays = is_row_major(b) || is_column_major(b) && is_row_major(a) && a.rows >= AMX_ROWS;
        self.has_amx()
            && TypeId::of::<T>() == TypeId::of::<f32>()
            && alpha == T::ONE
            && a.rows >= amx::MIN_ROWS
            && a.columns.min(b.columns) >= AMX_COLUMNS
            && a.rows * a.columns * b.columns >= MIN_PRODUCTS
            && (is_row_major(a) || is_column_major(a))
            && pays
    }

    /// `out (+)= a b` with AMX and all threads. Returns `false` if an operand contains numbers that
    /// AMX cannot multiply; the result is then invalid.
    pub(crate) fn amx_product<T: Float>(
        &self,
        out: &mut [T],
        a: GemmOperand<'_, T>,
        b: GemmOperand<'_, T>,
        accumulate: bool,
    ) -> Result<bool> {
        let (Some(out), Some(data)) = (singles_mut(out), singles(a.data)) else {
            return Ok(false);
        };
        let left = match a.column_stride {
            1 => Left::Rows {
                data,
                stride: a.row_stride,
            },
            width => Left::Columns {
                parts: [data, &[]],
                split: a.columns,
                width,
            },
        };
        self.multiply_on_amx(out, left, b, accumulate)
    }

    fn multiply_on_amx<T: Float>(
        &self,
        out: &mut [f32],
        left: Left<'_>,
        b: GemmOperand<'_, T>,
        accumulate: bool,
    ) -> Result<bool> {
        let Some(right) = singles(b.data) else {
            return Ok(false);
        };
        let (k, n) = (b.rows, b.columns);
        let packed = match b.column_stride {
            1 => None,
            column_stride => {
                let source = MatrixView {
                    data: right,
                    k,
                    row_stride: b.row_stride,
                    column_stride,
                    columns: (0..n).collect(),
                };
                let packed = PackedAmx::new(self, &source, false)?;
                if !packed.is_regular() {
                    return Ok(false);
                }
                Some(packed)
            }
        };
        let start = match accumulate {
            true => Accumulate::Existing,
            false => Accumulate::Zero,
        };
        let finite = AtomicBool::new(true);
        self.split(out.len() / n, [(out, n)], k * n, &|rows, [out]| {
            let from: Vec<usize>;
            let to: Vec<usize> = (0..rows.len()).map(|i| i * n).collect();
            let out = (out, &to[..]);
            let left = match left {
                Left::Rows { data, stride } => {
                    from = rows.map(|i| i * stride).collect();
                    if let Some(packed) = &packed {
                        amx::product((data, &from), packed, start, out);
                        return;
                    }
                    amx::Left::Rows { data, at: &from }
                }
                Left::Columns {
                    parts,
                    split,
                    width,
                } => amx::Left::Columns(amx::Columns {
                    parts,
                    split,
                    width,
                    first: rows.start,
                }),
            };
            let right = amx::Rows {
                data: right,
                k,
                n,
                stride: b.row_stride,
            };
            if !amx::single_product(left, right, start, out) {
                finite.store(false, Ordering::Relaxed);
            }
        });
        Ok(finite.into_inner())
    }
}
