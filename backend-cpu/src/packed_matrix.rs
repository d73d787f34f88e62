//! A packed right-hand matrix in any of its forms.

use std::any::TypeId;
use std::sync::Arc;

use backend_api::{Precision, Result};
use pulp::Arch;

use crate::amx::{self, PackedAmx};
use crate::bf16::{self, PackedBf16, PackedRowPairs};
use crate::device::Cpu;
use crate::element::{Float, singles, singles_mut};
use crate::int8::{self, PackedInt8};
use crate::packed::{FEW, MatrixView, PackedExact};
use crate::product::{Accumulate, Product};
use crate::storage::{Input, PackKey};

/// A packed right-hand matrix, for the precision of the device.
#[derive(Clone, Debug)]
pub(crate) enum PackedMatrix<T> {
    Exact(Arc<PackedExact<T>>),
    Bf16(Arc<PackedBf16>),
    /// For AVX-512-BF16.
    RowPairs(Arc<PackedRowPairs>),
    Int8(Arc<PackedInt8>),
    /// For AMX, exact or rounded to bfloat16.
    Amx(Arc<PackedAmx>),
}

/// How matrices are packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    /// Rows that are multiplied at a time.
    pub(crate) rows: usize,
    /// Whether AMX computes the products.
    pub(crate) amx: bool,
    /// Whether AVX-512-BF16 may compute them, if the precision allows it.
    pub(crate) row_pairs: bool,
    /// The precision that products have at least.
    pub(crate) precision: Precision,
    /// Whether packed matrices are cached with the operand's buffer.
    pub(crate) reuse: bool,
}

impl Packing {
    /// Whether a matrix is packed for products of few rows.
    pub(crate) fn is_for_few(&self) -> bool {
        self.rows <= FEW
    }

    /// Computes a value from an operand. The value is cached with the operand if it is reused.
    pub(crate) fn kept<D: Send + Sync + 'static>(
        &self,
        operand: &Input<'_>,
        of: &PackKey,
        make: impl FnOnce() -> Result<D>,
    ) -> Result<Arc<D>> {
        match self.reuse {
            true => operand.buffer.cached(of, make),
            false => make().map(Arc::new),
        }
    }
}

impl<T: Float> PackedMatrix<T> {
    /// Packs a matrix whose elements `describe` finds among those of the operand.
    pub(crate) fn new(
        cpu: &Cpu,
        matrix: &Input<'_>,
        of: &PackKey,
        packing: Packing,
        describe: impl Fn(&[T]) -> MatrixView<'_, T>,
    ) -> Result<Self> {
        // The elements are only read if no packed matrix is cached.
        let data = || cpu.dense::<T>(matrix);
        let rounds = packing.precision == Precision::Bf16;
        if TypeId::of::<T>() == TypeId::of::<f32>() {
            if packing.precision == Precision::Int8 {
                let make = || PackedInt8::new(cpu, &describe(&data()?).singles());
                return Ok(Self::Int8(packing.kept(matrix, of, make)?));
            }
            if packing.amx {
                let make = || PackedAmx::new(cpu, &describe(&data()?).singles(), rounds);
                let packed = packing.kept(matrix, of, make)?;
                if packed.is_regular() {
                    return Ok(Self::Amx(packed));
                }
            }
            if rounds && packing.row_pairs {
                let make = || PackedRowPairs::new(cpu, &describe(&data()?).singles());
                return Ok(Self::RowPairs(packing.kept(matrix, of, make)?));
            }
            if rounds && packing.is_for_few() {
                let make = || PackedBf16::rounded(cpu, cpu.arch(), &describe(&data()?).singles());
                return Ok(Self::Bf16(packing.kept(matrix, of, make)?));
            }
        }
        let make = || {
            let mut packed = PackedExact::new(cpu, &describe(&data()?), packing.rows)?;
            if rounds {
                bf16::round(&mut packed.data);
            }
            Ok(packed)
        };
        Ok(Self::Exact(packing.kept(matrix, of, make)?))
    }

    /// `out = start + a b` for the rows at the given offsets.
    pub(crate) fn multiply(
        &self,
        arch: Arch,
        (a, a_at): (&[T], &[usize]),
        start: Accumulate<'_, T>,
        (out, out_at): (&mut [T], &[usize]),
    ) {
        match self {
            Self::Exact(b) => arch.dispatch(Product {
                a,
                a_at,
                b,
                start,
                out,
                out_at,
            }),
            Self::Bf16(_) | Self::RowPairs(_) | Self::Int8(_) | Self::Amx(_) => {
                let (Some(a), Some(start), Some(out)) =
                    (singles(a), start.singles(), singles_mut(out))
                else {
                    unreachable!("`PackedMatrix::new` creates these forms for `f32` only");
                };
                let (from, to) = ((a, a_at), (out, out_at));
                match self {
                    Self::Bf16(b) => rounded_product(arch, from, b, start, to),
                    Self::RowPairs(b) => bf16::product(from, b, start, to),
                    Self::Int8(b) => int8::product(arch, from, b, start, to),
                    Self::Amx(b) => amx::product(from, b, start, to),
                    Self::Exact(_) => {}
                }
            }
        }
    }
}

/// A product with rounded weights: a function without a type parameter is compiled once.
fn rounded_product(
    arch: Arch,
    (a, a_at): (&[f32], &[usize]),
    b: &PackedBf16,
    start: Accumulate<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    arch.dispatch(Product {
        a,
        a_at,
        b,
        start,
        out,
        out_at,
    });
}

impl<'a, T: Float> MatrixView<'a, T> {
    /// The matrix of `f32`; an empty one if its elements have another type.
    fn singles(self) -> MatrixView<'a, f32> {
        MatrixView {
            data: singles(self.data).unwrap_or_default(),
            k: self.k,
            row_stride: self.row_stride,
            column_stride: self.column_stride,
            columns: self.columns,
        }
    }
}

impl<'a, T: Float> Accumulate<'a, T> {
    fn singles(self) -> Option<Accumulate<'a, f32>> {
        Some(match self {
            Self::Zero => Accumulate::Zero,
            Self::Existing => Accumulate::Existing,
            Self::Bias(row) => Accumulate::Bias(singles(row)?),
        })
    }
}
