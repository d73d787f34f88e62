//! Matmuls of bfloat16 numbers, accumulated in `f32`, on CPUs with the instruction for it
//! (`vdpbf16ps` of AVX-512-BF16).
//!
//! Pairs of matrix rows are interleaved, as the instruction multiplies pairs: it adds the products
//! of two rows to each sum, in order. It treats subnormal numbers as 0.
//!
//! This module contains unsafe code: the instruction, and loads by pointer.
#![allow(unsafe_code)]

use std::cell::RefCell;

use backend_api::Result;

use crate::device::Cpu;
use crate::features::has_bf16;
use crate::half::f32_to_bf16;
use crate::packed::MatrixView;
use crate::pool::Scratch;
use crate::product::Accumulate;

/// Columns of a panel: two vectors.
const WIDTH: usize = 32;

/// A matrix `[k, n]` in panels of 32 columns, with one word for two rows of a column; padded with
/// zeros.
#[derive(Debug)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "only x86-64 has bfloat16 matmuls")
)]
pub(crate) struct PackedRowPairs {
    data: Scratch<u32>,
    /// Rows and columns, and pairs of rows.
    k: usize,
    n: usize,
    pairs: usize,
}

fn pair(low: f32, high: f32) -> u32 {
    u32::from(f32_to_bf16(low)) | u32::from(f32_to_bf16(high)) << 16
}

impl PackedRowPairs {
    pub(crate) fn new(cpu: &Cpu, source: &MatrixView<'_, f32>) -> Result<Self> {
        let (k, n) = (source.k, source.columns.len());
        let (pairs, panels) = (k.div_ceil(2), n.div_ceil(WIDTH));
        let mut data = cpu
            .pool()
            .packed::<u32>((panels * WIDTH).saturating_mul(pairs))?;
        for p in 0..pairs {
            let at = |row: usize, column: usize| match row < k {
                true => source.data[row * source.row_stride + column * source.column_stride],
                false => 0.0,
            };
            for panel in 0..panels {
                let to = &mut data[(panel * pairs + p) * WIDTH..][..WIDTH];
                let columns = source.columns[panel * WIDTH..].iter().take(WIDTH);
                to.fill(0);
                for (to, &column) in to.iter_mut().zip(columns) {
                    *to = pair(at(2 * p, column), at(2 * p + 1, column));
                }
            }
        }
        Ok(Self { data, k, n, pairs })
    }
}

thread_local! {
    /// The left-hand side of a product, in pairs.
    static PAIRS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// `out = start + a b` for some rows, like [`crate::packed::Product`].
pub(crate) fn product(
    (a, a_at): (&[f32], &[usize]),
    b: &PackedRowPairs,
    start: Accumulate<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    assert!(has_bf16(), "AVX-512-BF16 is available");
    PAIRS.with_borrow_mut(|pairs| {
        pairs.clear();
        for &at in a_at {
            let row = &a[at..at + b.k];
            let (whole, rest) = row.as_chunks::<2>();
            pairs.extend(whole.iter().map(|&[low, high]| pair(low, high)));
            pairs.extend(rest.iter().map(|&last| pair(last, 0.0)));
        }
        #[cfg(target_arch = "x86_64")]
        x86::product(pairs, b, start, out, out_at);
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (pairs, start, out, out_at);
    });
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };
    use std::mem;

    use super::{Accumulate, PackedRowPairs, WIDTH};

    /// The largest number of rows of a tile with two vectors of columns.
    const MOST_ROWS: usize = 8;

    /// `a` holds the rows in pairs, one after the other.
    pub(super) fn product(
        a: &[u32],
        b: &PackedRowPairs,
        start: Accumulate<'_, f32>,
        out: &mut [f32],
        out_at: &[usize],
    ) {
        let rows = out_at.len();
        let size = |rows: usize| rows.checked_mul(b.pairs);
        assert_eq!(Some(a.len()), size(rows), "the left operand has all rows");
        let padded = b.n.checked_next_multiple_of(WIDTH);
        assert_eq!(
            Some(b.data.len()),
            padded.and_then(size),
            "the right operand has all panels"
        );
        let tiles = rows.div_ceil(MOST_ROWS).max(1);
        let panels = b.n.div_ceil(WIDTH);
        for panel in 0..panels {
            let mut row = 0;
            for left in (1..=tiles).rev() {
                let count = (rows - row).div_ceil(left);
                let place = Place { a, b, panel, row };
                let mut tile = |run: unsafe fn(&Place<'_>, &mut [[f32; WIDTH]])| {
                    let mut sums = [[0.0; WIDTH]; MOST_ROWS];
                    // SAFETY: `super::product` asserts that the CPU has these instructions. The
                    // assertions before the loops ensure that the tile lies within its operands.
                    unsafe { run(&place, &mut sums) };
                    for (sums, out_at) in sums.iter().zip(&out_at[row..][..count]) {
                        store(start, sums, panel * WIDTH, b.n, &mut out[*out_at..]);
                    }
                };
                match count {
                    8 => tile(run::<8>),
                    7 => tile(run::<7>),
                    6 => tile(run::<6>),
                    5 => tile(run::<5>),
                    4 => tile(run::<4>),
                    3 => tile(run::<3>),
                    2 => tile(run::<2>),
                    1 => tile(run::<1>),
                    _ => {}
                }
                row += count;
            }
        }
    }

    /// The position of a tile.
    struct Place<'a> {
        a: &'a [u32],
        b: &'a PackedRowPairs,
        panel: usize,
        row: usize,
    }

    /// The sums of `M` rows and a panel; `M` is at most the number of `sums`.
    ///
    /// # Safety
    /// The CPU has AVX-512-BF16. `a` has `M` rows from `row` on, and `b` has the panel.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn run<const M: usize>(at: &Place<'_>, sums: &mut [[f32; WIDTH]]) {
        let pairs = at.b.pairs;
        let a = at.a[at.row * pairs..][..M * pairs].as_ptr();
        let b = at.b.data[at.panel * WIDTH * pairs..][..WIDTH * pairs].as_ptr();
        let mut all = [[_mm512_setzero_ps(); 2]; M];
        for p in 0..pairs {
            // SAFETY: the panel has `pairs` rows of two vectors.
            let words = unsafe {
                let row = b.add(p * WIDTH);
                [row, row.add(WIDTH / 2)].map(|at| bf16(_mm512_loadu_si512(at.cast())))
            };
            for (m, sums) in all.iter_mut().enumerate() {
                // SAFETY: row `m < M` has `pairs` words.
                let x = bf16(_mm512_set1_epi32(unsafe { *a.add(m * pairs + p) } as i32));
                sums[0] = _mm512_dpbf16_ps(sums[0], x, words[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], x, words[1]);
            }
        }
        for (to, from) in sums.iter_mut().zip(all) {
            // SAFETY: `to` has room for two vectors.
            unsafe {
                _mm512_storeu_ps(to.as_mut_ptr(), from[0]);
                _mm512_storeu_ps(to.as_mut_ptr().add(WIDTH / 2), from[1]);
            }
        }
    }

    /// Words as pairs of numbers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16(words: __m512i) -> __m512bh {
        // SAFETY: both types are 64 bytes, and every bit pattern is valid for both.
        unsafe { mem::transmute(words) }
    }

    fn store(
        start: Accumulate<'_, f32>,
        sums: &[f32; WIDTH],
        column: usize,
        n: usize,
        out: &mut [f32],
    ) {
        let count = WIDTH.min(n - column);
        let out = &mut out[column..column + count];
        match start {
            Accumulate::Zero => out.copy_from_slice(&sums[..count]),
            Accumulate::Existing => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
            Accumulate::Bias(row) => {
                for ((out, sum), row) in out.iter_mut().zip(sums).zip(&row[column..]) {
                    *out = row + sum;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::tests::numbers;
    use crate::half::bf16_to_f32;

    #[test]
    fn products_are_those_of_rounded_operands() {
        if !has_bf16() {
            eprintln!("skipped: this CPU has no AVX-512-BF16");
            return;
        }
        let cpu = Cpu::builder().threads(1).build().unwrap();
        let round = |x: &f32| f64::from(bf16_to_f32(f32_to_bf16(*x)));
        for [rows, k, n] in [
            [1, 1, 1],
            [1, 7, 200],
            [2, 30, 129],
            [3, 5, 70],
            [4, 12, 64],
            [5, 33, 31],
            [9, 40, 40],
            [21, 9, 33],
            [0, 3, 4],
            [3, 0, 5],
        ] {
            let (a, b, row) = (numbers(rows * k, 1), numbers(k * n, 2), numbers(n, 3));
            let source = MatrixView {
                data: &b,
                k,
                row_stride: n,
                column_stride: 1,
                columns: (0..n).collect(),
            };
            let packed = PackedRowPairs::new(&cpu, &source).unwrap();
            let at = |width: usize| (0..rows).map(|r| r * width).collect::<Vec<_>>();
            let mut out = vec![f32::NAN; rows * n];
            product(
                (&a, &at(k)),
                &packed,
                Accumulate::Bias(&row),
                (&mut out, &at(n)),
            );
            for r in 0..rows {
                for j in 0..n {
                    let terms = (0..k).map(|p| round(&a[r * k + p]) * round(&b[p * n + j]));
                    let expected = f64::from(row[j]) + terms.sum::<f64>();
                    let found = f64::from(out[r * n + j]);
                    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
                }
            }
            // Each row on its own gives the same bits.
            for r in 0..rows {
                let mut one = row.clone();
                product(
                    (&a, &[r * k]),
                    &packed,
                    Accumulate::Existing,
                    (&mut one, &[0]),
                );
                assert_eq!(one, out[r * n..][..n]);
            }
        }
    }
}
