//! Matmuls on Intel AMX, which multiplies bfloat16 numbers and accumulates in `f32`.
//!
//! A single-precision number is split into the sum of three bfloat16 parts; each further part
//! approximates the remainder of the previous ones. Parts of the left-hand side are rounded. Parts
//! of the right-hand side, which is split during the multiplication, are truncated. Of the nine
//! products of parts, six are computed; the other three are together less than 2^-23 of the whole.
//! Products are therefore as accurate as in `f32`. Their sums are more accurate than a chain of
//! additions, as AMX sums 32 products before it adds them to the accumulator. This takes half the
//! time of multiplying `f32`, or less. If rounded operands are requested, one product of rounded
//! numbers is computed instead.
//!
//! `right.rs` holds the right-hand sides, packed or in place; `pack.rs` packs numbers into tiles;
//! `multiply.rs` has the loops over tiles, and `kernels.rs` the innermost loops.
//!
//! Numbers of magnitude 2^127 or more, infinities and NaN cannot be split into parts. A right-hand
//! side that contains one is not multiplied by AMX, and a left-hand row that contains one is
//! multiplied with ordinary instructions. Subnormal parts count as 0.
//!
//! Each element is summed in a fixed order that does not depend on which rows are computed
//! together.
//!
//! This module contains unsafe code: AMX instructions, and AVX-512 instructions of the CPUs that
//! have AMX.
#![allow(unsafe_code)]

mod kernels;
mod multiply;
mod pack;
mod right;
#[cfg(test)]
mod tests;

use self::multiply::{LeftTiles, multiply};
use self::pack::{has_special, pack_row, transpose};
use self::right::Right;
pub(crate) use self::right::{PackedAmx, Rows};
use crate::features::has_amx;
use crate::product::Accumulate;

/// A tile has 16 rows of 64 bytes. `WORDS` is its size in 16-bit words, `DEPTH` the range of the
/// inner index in a left-hand tile, `COLUMNS` the columns and `ROWS` the rows of a result tile.
const WORDS: usize = 512;
const DEPTH: usize = 32;
const COLUMNS: usize = 16;
const ROWS: usize = 16;
/// Words in a row of a tile.
const ROW: usize = 32;
/// Columns of two tiles, which are computed together.
const PAIR: usize = 2 * COLUMNS;
/// Parts of a single-precision number.
const SPLIT: usize = 3;
/// Words of the parts of a block: 32 rows of 32 columns of the right-hand side.
const BLOCK: usize = 2 * SPLIT * WORDS;
/// Rows from which on AMX is faster than multiplying `f32`, with parts or rounded.
pub(crate) const MIN_ROWS: usize = 8;

/// `out = start + a b` for some rows, like [`crate::product::Product`].
pub(crate) fn product(
    (a, a_at): (&[f32], &[usize]),
    b: &PackedAmx,
    start: Accumulate<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    assert_eq!(
        a_at.len(),
        out_at.len(),
        "each row of the operand has a row of the result"
    );
    let (k, n) = Right::PackedAmx(b).sizes();
    // SAFETY: a `PackedAmx` exists only if `has_amx`, so the CPU has these instructions.
    let special = |at: &usize| !b.is_rounded() && unsafe { has_special(&a[*at..*at + k]) };
    if a_at.iter().any(special) {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (&a_at, &out_at) in a_at.iter().zip(out_at) {
            if special(&a_at) {
                special_row(&a[a_at..a_at + k], b, start, &mut out[out_at..out_at + n]);
            } else {
                from.push(a_at);
                to.push(out_at);
            }
        }
        return multiply(pack_rows(a, &from), Right::PackedAmx(b), start, (out, &to));
    }
    multiply(
        pack_rows(a, a_at),
        Right::PackedAmx(b),
        start,
        (out, out_at),
    );
}

/// A row that contains numbers that cannot be split.
fn special_row(a: &[f32], b: &PackedAmx, start: Accumulate<'_, f32>, out: &mut [f32]) {
    for (j, out) in out.iter_mut().enumerate() {
        let start = match start {
            Accumulate::Zero => 0.0,
            Accumulate::Bias(row) => row[j],
            Accumulate::Existing => *out,
        };
        let terms = a.iter().enumerate();
        *out = terms.fold(start, |sum, (p, a)| a.mul_add(b.at(p, j), sum));
    }
}

/// `out = start + a b`, with a right-hand side that is used once. Returns whether the result is
/// finite. If it is not, an operand may contain a number that cannot be split; the result is then
/// invalid.
#[must_use]
pub(crate) fn single_product(
    a: Left<'_>,
    b: Rows<'_>,
    start: Accumulate<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) -> bool {
    assert!(has_amx(), "AMX is available");
    match a {
        Left::Rows { data, at } => {
            assert_eq!(
                at.len(),
                out_at.len(),
                "each row of the operand has a row of the result"
            );
            multiply(pack_rows(data, at), Right::Rows(b), start, (out, out_at));
        }
        Left::Columns(columns) => {
            multiply(pack_columns(columns), Right::Rows(b), start, (out, out_at));
        }
    }
    // A number that cannot be split makes its whole row or column of the result non-finite, so it
    // suffices to check the first column and the first row.
    let firsts = out_at.iter().map(|&at| &out[at..at + b.n.min(1)]);
    let row = out_at.first().map(|&at| &out[at..at + b.n]);
    firsts.chain(row).flatten().all(|x| x.is_finite())
}

/// The left-hand side of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left<'a> {
    /// Rows at the offsets `at`.
    Rows {
        data: &'a [f32],
        at: &'a [usize],
    },
    Columns(Columns<'a>),
}

/// Columns of a matrix of `width` columns, from `first` on, used as rows of the left-hand side. The
/// first `split` rows of the matrix lie in `parts[0]`, the others in `parts[1]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    pub(crate) parts: [&'a [f32]; 2],
    pub(crate) split: usize,
    pub(crate) width: usize,
    pub(crate) first: usize,
}

/// Packs the rows at the offsets `at` into tiles.
fn pack_rows(a: &[f32], at: &[usize]) -> impl Fn(LeftTiles<'_>) {
    move |to| {
        for (r, &at) in at[to.rows].iter().enumerate() {
            let (whole, rest) = a[at + to.depth.start..at + to.depth.end].as_chunks::<DEPTH>();
            let mut tiles = to.tiles.chunks_exact_mut(to.parts * WORDS);
            for (numbers, tiles) in whole.iter().zip(&mut tiles) {
                // SAFETY: called by `multiply`, whose callers ensure that AMX is available; so are
                // these instructions.
                unsafe { pack_row(numbers, r, tiles) };
            }
            if let (false, Some(tiles)) = (rest.is_empty(), tiles.next()) {
                let mut numbers = [0.0; DEPTH];
                numbers[..rest.len()].copy_from_slice(rest);
                // SAFETY: as above.
                unsafe { pack_row(&numbers, r, tiles) };
            }
        }
    }
}

/// Packs columns into tiles, as rows.
fn pack_columns(x: Columns<'_>) -> impl Fn(LeftTiles<'_>) {
    move |to| {
        let (column, count) = (x.first + to.rows.start, to.rows.len());
        let row = |p: usize| match p.checked_sub(x.split) {
            None => &x.parts[0][p * x.width + column..][..count],
            Some(p) => &x.parts[1][p * x.width + column..][..count],
        };
        let blocks = to.depth.clone().step_by(DEPTH);
        // Every block overwrites all of them.
        let mut numbers = [[0.0; DEPTH]; ROWS];
        for (p, tiles) in blocks.zip(to.tiles.chunks_exact_mut(to.parts * WORDS)) {
            let rows = p..to.depth.end.min(p + DEPTH);
            for half in 0..DEPTH / 16 {
                let line = |i: usize| match p + half * 16 + i {
                    p if rows.contains(&p) => row(p),
                    _ => &[],
                };
                // SAFETY: called by `multiply`, whose callers ensure that AMX is available; so are
                // these instructions.
                unsafe { transpose(line, count, &mut numbers, half * 16) };
            }
            for (r, numbers) in numbers.iter().enumerate().take(count) {
                // SAFETY: as above.
                unsafe { pack_row(numbers, r, tiles) };
            }
        }
    }
}
