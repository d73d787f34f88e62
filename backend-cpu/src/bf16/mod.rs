//! Matrices of bfloat16 numbers, for inference with
//! [`Precision::Bf16`](backend_api::Precision::Bf16).
//!
//! The matrix is rounded, and the rest is as in an exact product: numbers become `f32` in
//! registers, and each result is one chain of multiply-adds in `f32`. The bits of a result are
//! those of the exact product with the rounded matrix. Larger batches use the instruction for
//! bfloat16 products where the CPU has it, and have other bits.

mod row_pairs;

use backend_api::Result;
use bytemuck::{Pod, Zeroable};
use pulp::{Arch, Simd};

pub(crate) use self::row_pairs::{PackedRowPairs, product};
use crate::device::Cpu;
use crate::element::{Float, singles_mut};
use crate::half::{bf16_to_f32, f32_to_bf16};
use crate::packed::{MatrixView, Panels, Stored, WIDE_VECTORS};

/// A number of one vector in the low half, and of the next vector in the high half.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct Pair(u32);

/// A matrix for products of few rows, whose time is that of reading it.
pub(crate) type PackedBf16 = Panels<Pair>;

impl Stored<f32> for Pair {
    const NUMBERS: usize = 2;
    type Vector<S: Simd> = S::u32s;

    #[inline(always)]
    fn vectors<S: Simd>(data: &[Self]) -> &[S::u32s] {
        S::as_simd_u32s(bytemuck::cast_slice(data)).0
    }

    #[inline(always)]
    fn numbers<S: Simd>(simd: S, pairs: S::u32s, i: usize) -> S::f32s {
        let bits = match i {
            0 => simd.wrapping_dyn_shl_u32s(pairs, simd.splat_u32s(16)),
            _ => simd.and_u32s(pairs, simd.splat_u32s(0xffff_0000)),
        };
        simd.transmute_f32s_u32s(bits)
    }
}

impl PackedBf16 {
    pub(crate) fn rounded(cpu: &Cpu, arch: Arch, source: &MatrixView<'_, f32>) -> Result<Self> {
        let exact = Panels::with(cpu, arch, source, WIDE_VECTORS)?;
        let (k, lanes) = (exact.k, exact.lanes);
        let stored = |vectors: usize| vectors.div_ceil(2) * lanes;
        let all = (0..exact.panels()).map(|i| stored(exact.panel(i).vectors) * k);
        let mut data = cpu.pool().packed::<Pair>(all.sum())?;
        if k > 0 {
            for i in 0..exact.panels() {
                let panel = exact.panel(i);
                let from = exact.data[panel.at..].chunks_exact(panel.vectors * lanes);
                let to = data[panel.at / 2..].chunks_exact_mut(stored(panel.vectors));
                for (from, to) in from.zip(to).take(k) {
                    let vectors = from.chunks(2 * lanes);
                    for (from, to) in vectors.zip(to.chunks_exact_mut(lanes)) {
                        let (low, high) = from.split_at(lanes);
                        // The last panel may have a single vector.
                        let high = high.iter().chain(std::iter::repeat(&0.0));
                        for (to, (low, high)) in to.iter_mut().zip(low.iter().zip(high)) {
                            let [low, high] = [low, high].map(|x| u32::from(f32_to_bf16(*x)));
                            *to = Pair(low | high << 16);
                        }
                    }
                }
            }
        }
        Ok(exact.stored_as(data))
    }
}

/// Rounds numbers, if they are `f32`.
pub(crate) fn round<T: Float>(data: &mut [T]) {
    for x in singles_mut(data).into_iter().flatten() {
        *x = bf16_to_f32(f32_to_bf16(*x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::VECTORS;
    use crate::product::{Accumulate, Product};
    use crate::simd::tests::archs;

    pub(in crate::bf16) fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| (((i + seed) * 7919) % 1013) as f32 / 506.0 - 1.0)
            .collect()
    }

    #[test]
    fn products_have_the_bits_of_exact_ones_with_a_rounded_matrix() {
        let cpu = Cpu::builder().threads(1).build().unwrap();
        // Miri is slow.
        let fits = |sizes: &[usize; 3]| !cfg!(miri) || sizes.iter().product::<usize>() < 1000;
        let all = [
            [1, 1, 1],
            [1, 7, 200],
            [2, 30, 129],
            [3, 5, 70],
            [4, 12, 64],
            [5, 33, 31],
            [9, 40, 150],
            [0, 3, 4],
            [3, 0, 5],
        ];
        for [rows, k, n] in all.into_iter().filter(fits) {
            let (a, b, bias) = (numbers(rows * k, 1), numbers(k * n, 2), numbers(n, 3));
            let source = MatrixView {
                data: &b,
                k,
                row_stride: n,
                column_stride: 1,
                columns: (0..n).rev().collect(),
            };
            let at = |width: usize| (0..rows).map(|r| r * width).collect::<Vec<_>>();
            for arch in archs() {
                let mut expected: Vec<f32> = Vec::with_capacity(rows * n);
                for r in 0..rows {
                    for (j, bias) in bias.iter().enumerate() {
                        expected.push((0..k).fold(*bias, |sum, p| {
                            let a = a[r * k + p];
                            let b = bf16_to_f32(f32_to_bf16(b[p * n + n - 1 - j]));
                            match arch {
                                Arch::Scalar => a * b + sum,
                                _ => a.mul_add(b, sum),
                            }
                        }));
                    }
                }
                let mut out = vec![f32::NAN; rows * n];
                arch.dispatch(Product {
                    a: &a,
                    a_at: &at(k),
                    b: &PackedBf16::rounded(&cpu, arch, &source).unwrap(),
                    start: Accumulate::Bias(&bias),
                    out: &mut out,
                    out_at: &at(n),
                });
                assert_eq!(out, expected, "{arch:?} {rows} {k} {n}");
                let mut many = Panels::with(&cpu, arch, &source, VECTORS).unwrap();
                round(&mut many.data);
                let mut out = vec![f32::NAN; rows * n];
                arch.dispatch(Product {
                    a: &a,
                    a_at: &at(k),
                    b: &many,
                    start: Accumulate::Bias(&bias),
                    out: &mut out,
                    out_at: &at(n),
                });
                assert_eq!(out, expected, "{arch:?} {rows} {k} {n}, many rows");
            }
        }
    }
}
