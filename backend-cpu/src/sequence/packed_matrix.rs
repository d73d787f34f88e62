//! A packed right-hand matrix in any of its forms.

use std::sync::Arc;

use pulp::Arch;

use crate::amx::{self, PackedAmx};
use crate::bf16::{self, PackedBf16};
use crate::element::{Float, singles, singles_mut};
use crate::packed::PackedExact;
use crate::product::{Accumulate, Product};

/// A packed right-hand matrix, for the precision of the device.
#[derive(Clone, Debug)]
pub(super) enum PackedMatrix<T> {
    Exact(Arc<PackedExact<T>>),
    Bf16(Arc<PackedBf16>),
    /// For AMX, exact or rounded to bfloat16.
    Amx(Arc<PackedAmx>),
}

impl<T: Float> PackedMatrix<T> {
    /// `out = start + a b` for the rows at the given offsets.
    pub(super) fn multiply(
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
            Self::Bf16(_) | Self::Amx(_) => {
                let (Some(a), Some(start), Some(out)) =
                    (singles(a), start.singles(), singles_mut(out))
                else {
                    unreachable!("`Layer::packed` creates these forms for `f32` only");
                };
                let (from, to) = ((a, a_at), (out, out_at));
                match self {
                    Self::Bf16(b) => bf16::product(from, b, start, to),
                    Self::Amx(b) => amx::product(from, b, start, to),
                    Self::Exact(_) => {}
                }
            }
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
