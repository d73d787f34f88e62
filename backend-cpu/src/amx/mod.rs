//! Products on the processor's matrix unit (Intel AMX), which multiplies bfloat16 numbers and sums in `f32`.
//!
//! A number of single precision is the sum of three of bfloat16, each the rest of the one before: rounded on the left side, cut off on the
//! right one, which is split while it is multiplied. Of the nine products of
//! two such sums six are made; the others are less than 2^-23 of the whole together. So products are as exact as those of `f32`, and their
//! sums are more exact than a chain of additions, as the unit sums 32 products before it adds them to the rest; and
//! this takes half the time of multiplying `f32`, or less. Where rounded operands have been asked for, there is one product of rounded
//! numbers.
//!
//! `right.rs` has the right sides, packed or as they lie in memory, `pack.rs` what brings numbers into tiles, `multiply.rs` the loops over
//! tiles, `kernels.rs` the innermost ones.
//!
//! The unit has no infinite sums of parts: a matrix with a number of 2^127 or more, infinite or NaN, is not for it, and such rows of the
//! left side are multiplied by ordinary instructions. Subnormal parts count as 0.
//!
//! The sum of an element is made in one order, whatever rows are computed together.
//!
//! A module with unsafe code: the unit's instructions, and vector instructions of the processors that have it.
#![allow(unsafe_code)]

mod kernels;
mod multiply;
mod pack;
mod right;
#[cfg(test)]
mod tests;

use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use self::multiply::{LeftTiles, multiply};
use self::pack::{has_special, pack_row, transpose};
use self::right::Right;
pub(crate) use self::right::{Packed, Rows};
use crate::packed::Start;

/// A tile: 16 rows of 64 bytes. As 16-bit words; as rows of the inner index on the left side; and as columns of a result.
const WORDS: usize = 512;
const DEPTH: usize = 32;
const COLUMNS: usize = 16;
const ROWS: usize = 16;
/// Words of a row of a tile.
const ROW: usize = 32;
/// Columns of two tiles, which are computed at a time.
const PAIR: usize = 2 * COLUMNS;
/// The parts of a number of single precision.
const SPLIT: usize = 3;
/// Words of the parts of a block: 32 rows of 32 columns of the right side.
const BLOCK: usize = 2 * SPLIT * WORDS;
/// Rows from which on the unit is faster than multiplying `f32`, as parts or rounded.
pub(crate) const MIN_ROWS: usize = 8;

/// Whether this processor has the unit and the system lets the process use it.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let vectors = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512bf16");
        // Leaf 7: AMX-BF16 and AMX-TILE.
        vectors && {
            let features = __cpuid_count(7, 0).edx;
            features >> 22 & 1 == 1 && features >> 24 & 1 == 1 && ask_system()
        }
    })
}

/// Linux saves the tiles of a process only if it has asked for that, once for all threads.
#[cfg(target_os = "linux")]
fn ask_system() -> bool {
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: a system call with two numbers, which changes no memory of the process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask_system() -> bool {
    false
}

/// `out = start + a b` for some rows, as [`crate::packed::Product`].
pub(crate) fn product(
    (a, a_at): (&[f32], &[usize]),
    b: &Packed,
    start: Start<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    assert_eq!(a_at.len(), out_at.len(), "a row for each row");
    let (k, n) = Right::Packed(b).sizes();
    // SAFETY: there is a packed matrix, so the processor has these instructions.
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
        return multiply(pack_rows(a, &from), Right::Packed(b), start, (out, &to));
    }
    multiply(pack_rows(a, a_at), Right::Packed(b), start, (out, out_at));
}

/// A row that has no parts.
fn special_row(a: &[f32], b: &Packed, start: Start<'_, f32>, out: &mut [f32]) {
    for (j, out) in out.iter_mut().enumerate() {
        let start = match start {
            Start::Zero => 0.0,
            Start::Row(row) => row[j],
            Start::There => *out,
        };
        let terms = a.iter().enumerate();
        *out = terms.fold(start, |sum, (p, a)| a.mul_add(b.at(p, j), sum));
    }
}

/// `out = start + a b`, with a right side that is used once. Says whether all is finite: numbers without parts lead to others, and the
/// result is worth nothing then.
#[must_use]
pub(crate) fn single_product(
    a: Left<'_>,
    b: Rows<'_>,
    start: Start<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) -> bool {
    assert!(is_available(), "there is a matrix unit");
    match a {
        Left::Rows { data, at } => {
            assert_eq!(at.len(), out_at.len(), "a row for each row");
            multiply(pack_rows(data, at), Right::Rows(b), start, (out, out_at));
        }
        Left::Columns(columns) => {
            multiply(pack_columns(columns), Right::Rows(b), start, (out, out_at));
        }
    }
    // A number without parts makes all of its row or column so.
    let firsts = out_at.iter().map(|&at| &out[at..at + b.n.min(1)]);
    let row = out_at.first().map(|&at| &out[at..at + b.n]);
    firsts.chain(row).flatten().all(|x| x.is_finite())
}

/// The left side of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left<'a> {
    /// Rows that begin in these places.
    Rows {
        data: &'a [f32],
        at: &'a [usize],
    },
    Columns(Columns<'a>),
}

/// Columns of a matrix that is `width` wide, from one on. Its rows lie in two places, so many of them in the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    pub(crate) parts: [&'a [f32]; 2],
    pub(crate) split: usize,
    pub(crate) width: usize,
    pub(crate) first: usize,
}

/// Brings rows that begin in these places into tiles.
fn pack_rows(a: &[f32], at: &[usize]) -> impl Fn(LeftTiles<'_>) {
    move |to| {
        for (r, &at) in at[to.rows].iter().enumerate() {
            let (whole, rest) = a[at + to.depth.start..at + to.depth.end].as_chunks::<DEPTH>();
            let mut tiles = to.tiles.chunks_exact_mut(to.parts * WORDS);
            for (numbers, tiles) in whole.iter().zip(&mut tiles) {
                // SAFETY: there is a product, so the processor has these instructions.
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

/// Brings columns into tiles, as rows.
fn pack_columns(x: Columns<'_>) -> impl Fn(LeftTiles<'_>) {
    move |to| {
        let (column, count) = (x.first + to.rows.start, to.rows.len());
        let row = |p: usize| match p.checked_sub(x.split) {
            None => &x.parts[0][p * x.width + column..][..count],
            Some(p) => &x.parts[1][p * x.width + column..][..count],
        };
        let blocks = to.depth.clone().step_by(DEPTH);
        // All of them are set for each block.
        let mut numbers = [[0.0; DEPTH]; ROWS];
        for (p, tiles) in blocks.zip(to.tiles.chunks_exact_mut(to.parts * WORDS)) {
            let rows = p..to.depth.end.min(p + DEPTH);
            for half in 0..DEPTH / 16 {
                let line = |i: usize| match p + half * 16 + i {
                    p if rows.contains(&p) => row(p),
                    _ => &[],
                };
                // SAFETY: there is a product, so the processor has these instructions.
                unsafe { transpose(line, count, &mut numbers, half * 16) };
            }
            for (r, numbers) in numbers.iter().enumerate().take(count) {
                // SAFETY: as above.
                unsafe { pack_row(numbers, r, tiles) };
            }
        }
    }
}
