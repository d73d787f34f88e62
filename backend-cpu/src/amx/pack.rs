//! Packing single-precision numbers into tiles, as bfloat16 parts.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, _mm256_setzero_si256, _mm256_storeu_si256, _mm512_and_si512,
    _mm512_castpd_ps, _mm512_castps_pd, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtneps_pbh, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_loadu_ps,
    _mm512_max_epu32, _mm512_or_si512, _mm512_reduce_max_epu32, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_slli_epi32,
    _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::{array, mem};

use super::{COLUMNS, DEPTH, PAIR, ROW, SPLIT, WORDS};
use crate::packed::MatrixView;

/// Bits of 2^127. From this magnitude on a number has no three parts, as the first could round to
/// infinity.
const TOO_LARGE: u32 = (127 + 127) << 23;

/// Copies a block of up to 32 rows and 32 columns; the remainder is set to 0.
pub(super) fn gather(
    source: &MatrixView<'_, f32>,
    first: usize,
    columns: &[usize],
    to: &mut [[f32; PAIR]; DEPTH],
) {
    let rows = DEPTH.min(source.k - first);
    let in_a_row = source.column_stride == 1
        && columns
            .iter()
            .enumerate()
            .all(|(i, &c)| c == columns[0] + i);
    if rows < DEPTH || columns.len() < PAIR {
        *to = [[0.0; PAIR]; DEPTH];
    }
    if in_a_row {
        for (p, to) in to.iter_mut().enumerate().take(rows) {
            let from = &source.data[(first + p) * source.row_stride + columns[0]..];
            match from.first_chunk() {
                // A copy of constant length needs no call.
                Some(whole) if columns.len() == PAIR => *to = *whole,
                _ => to[..columns.len()].copy_from_slice(&from[..columns.len()]),
            }
        }
    } else if source.row_stride == 1 {
        for (half, columns) in columns.chunks(COLUMNS).enumerate() {
            let lines = |i: usize, p: usize| match columns.get(i) {
                Some(column) => &source.data[first + p + column * source.column_stride..],
                None => &[],
            };
            for (p, to) in (0..rows).step_by(16).zip(to.as_chunks_mut::<16>().0) {
                let count = 16.min(rows - p);
                // SAFETY: numbers are packed only if AMX is available, and then the CPU has these
                // instructions.
                unsafe { transpose(|i| lines(i, p), count, to, half * COLUMNS) };
            }
        }
    } else {
        for (p, to) in to.iter_mut().enumerate().take(rows) {
            let from = &source.data[(first + p) * source.row_stride..];
            for (to, &column) in to.iter_mut().zip(columns) {
                *to = from[column * source.column_stride];
            }
        }
    }
}

/// Writes 16 rows as columns `at..at + 16` of `to`, using the first `count` numbers of each row.
/// Further numbers and empty rows are written as 0.
#[target_feature(enable = "avx512f")]
pub(super) fn transpose<'a, const WIDTH: usize>(
    row: impl Fn(usize) -> &'a [f32],
    count: usize,
    to: &mut [[f32; WIDTH]; 16],
    at: usize,
) {
    let there = (1_u32 << count) - 1;
    let rows: [__m512; 16] = array::from_fn(|i| match row(i) {
        [] => _mm512_setzero_ps(),
        row => {
            let row = &row[..count];
            // SAFETY: the row has `count` numbers, and the mask loads no others.
            unsafe { _mm512_maskz_loadu_ps(there as u16, row.as_ptr()) }
        }
    });
    // Transpose the 4 x 4 blocks in the 128-bit lanes of four rows: rows 4 g + 0..4 become the
    // vectors of group g.
    let mut groups = rows;
    for (g, group) in rows.as_chunks::<4>().0.iter().enumerate() {
        let [a, b, c, d] = *group;
        let pairs = [
            _mm512_unpacklo_ps(a, b),
            _mm512_unpackhi_ps(a, b),
            _mm512_unpacklo_ps(c, d),
            _mm512_unpackhi_ps(c, d),
        ]
        .map(|x| _mm512_castps_pd(x));
        groups[4 * g] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs[0], pairs[2]));
        groups[4 * g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[0], pairs[2]));
        groups[4 * g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs[1], pairs[3]));
        groups[4 * g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[1], pairs[3]));
    }
    // Lane q of vector i of group g is lane g of column 4 q + i.
    for i in 0..4 {
        let [a, b, c, d] = [groups[i], groups[4 + i], groups[8 + i], groups[12 + i]];
        // Lanes 0 and 1 of two groups, and lanes 2 and 3.
        let (ab, cd) = (
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b01_00_01_00>(c, d),
        );
        let (ab_high, cd_high) = (
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(c, d),
        );
        let quarters = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_high, cd_high),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_high, cd_high),
        ];
        for (q, column) in quarters.into_iter().enumerate() {
            let to = &mut to[4 * q + i][at..at + 16];
            // SAFETY: `to` has 16 numbers.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), column) };
        }
    }
}

/// The parts of 16 numbers, rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn split<const PARTS: usize>(mut x: __m512) -> [__m256i; PARTS] {
    let mut parts = [_mm256_setzero_si256(); PARTS];
    for part in &mut parts {
        // SAFETY: both types are 32 bytes, and every bit pattern is valid for both.
        *part = unsafe { mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) };
        let rounded = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(*part));
        x = _mm512_sub_ps(x, _mm512_castsi512_ps(rounded));
    }
    parts
}

/// Whether a row contains a number that cannot be split.
#[target_feature(enable = "avx512f")]
pub(super) fn has_special(row: &[f32]) -> bool {
    let (vectors, rest) = row.as_chunks::<16>();
    let magnitude = _mm512_set1_epi32(i32::MAX);
    let mut largest = _mm512_setzero_si512();
    for x in vectors {
        // SAFETY: `x` has 16 numbers.
        let x = unsafe { _mm512_loadu_si512(x.as_ptr().cast()) };
        largest = _mm512_max_epu32(largest, _mm512_and_si512(x, magnitude));
    }
    let rest = rest.iter().map(|x| x.to_bits() & 0x7fff_ffff).max();
    _mm512_reduce_max_epu32(largest).max(rest.unwrap_or(0)) >= TOO_LARGE
}

/// Rounds rows of numbers and packs them in pairs into two tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn pack_pairs(numbers: &[[f32; PAIR]; DEPTH], tiles: &mut [u16]) {
    for (half, tile) in tiles.as_chunks_mut::<WORDS>().0.iter_mut().enumerate() {
        let rows = numbers.as_chunks::<2>().0;
        for ([low, high], words) in rows.iter().zip(tile.as_chunks_mut::<ROW>().0) {
            let [low, high] = [low, high].map(|row| {
                let numbers = &row[half * COLUMNS..][..COLUMNS];
                // SAFETY: `numbers` has 16 elements.
                let [rounded] = split::<1>(unsafe { _mm512_loadu_ps(numbers.as_ptr()) });
                _mm512_cvtepu16_epi32(rounded)
            });
            let pairs = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
            // SAFETY: a row of a tile has 32 words.
            unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), pairs) };
        }
    }
}

/// Packs 32 numbers into row `r` of one tile for each part.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn pack_row(numbers: &[f32; DEPTH], r: usize, tiles: &mut [u16]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn row<const PARTS: usize>(numbers: &[f32; DEPTH], r: usize, tiles: &mut [u16]) {
        let (tiles, _) = tiles.as_chunks_mut::<WORDS>();
        for (half, numbers) in numbers.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: there are 16 numbers, and half a row has 16 words.
            unsafe {
                let parts = split::<PARTS>(_mm512_loadu_ps(numbers.as_ptr()));
                for (part, tile) in parts.into_iter().zip(&mut *tiles) {
                    let words = &mut tile[r * ROW + half * 16..][..16];
                    _mm256_storeu_si256(words.as_mut_ptr().cast(), part);
                }
            }
        }
    }
    match tiles.len() / WORDS {
        SPLIT => row::<SPLIT>(numbers, r, tiles),
        _ => row::<1>(numbers, r, tiles),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        if crate::features::has_amx() {
            let rows: [[f32; 16]; 16] = array::from_fn(|i| array::from_fn(|j| (16 * i + j) as f32));
            for count in [1, 7, 16] {
                let row = |i: usize| if i < 13 { &rows[i][..] } else { &[] };
                let mut columns = [[-1.0; 20]; 16];
                // SAFETY: AMX is available, so the CPU has the instructions.
                unsafe { transpose(row, count, &mut columns, 3) };
                for (j, column) in columns.iter().enumerate() {
                    for (i, &found) in column.iter().enumerate() {
                        let expected = match i.checked_sub(3) {
                            Some(i) if i < 13 && j < count => rows[i][j],
                            Some(i) if i < 16 => 0.0,
                            _ => -1.0,
                        };
                        assert_eq!(found, expected, "{i} {j} {count}");
                    }
                }
            }
        }
    }
}
