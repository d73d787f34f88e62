//! Products on the processor's matrix unit (Intel AMX), which multiplies bfloat16 numbers and sums in `f32`.
//!
//! A number of single precision is the sum of three of bfloat16, each the rest of the one before, rounded. Of the nine products of
//! two such sums six are made; the others are less than 2^-23 of the whole together. So products are as exact as those of `f32`, and their
//! sums are more exact than a chain of additions, as the unit sums 32 products before it adds them to the rest; and
//! this takes half the time of multiplying `f32`, or less. Where rounded operands have been asked for, the first numbers alone make
//! one product.
//!
//! The unit has no infinite sums of parts: a matrix with a number of 2^127 or more, infinite or NaN, is not for it, and such rows of the
//! left side are multiplied by ordinary instructions. Subnormal parts count as 0.
//!
//! The sum of an element is made in one order, whatever rows are computed together.
//!
//! A module with unsafe code: the unit's instructions, and vector instructions of the processors that have it.
#![allow(unsafe_code)]

mod kernels;
mod pack;

use std::arch::x86_64::__cpuid_count;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::Result;

use self::kernels::{Operands, Sums};
use self::pack::{gather, has_special, pack_pairs, pack_row, transpose};
use crate::device::Cpu;
use crate::half::bf16_to_f32;
use crate::packed::{Start, Unpacked};
use crate::pool::Scratch;
use crate::storage::Line;

/// A tile: 16 rows of 64 bytes. As 16-bit words; as rows of the inner index on the left side; and as columns of a result.
const WORDS: usize = 512;
const DEPTH: usize = 32;
const COLUMNS: usize = 16;
const ROWS: usize = 16;
/// Words of a row of a tile.
const ROW: usize = 32;
/// Columns of a result that are computed at a time, at most.
const GROUP: usize = 4 * COLUMNS;
/// The parts of a number of single precision.
pub(crate) const SPLIT: usize = 3;
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

/// A matrix `[k, n]` in tiles: for each two columns of tiles (32 of the matrix), for each 32 rows, one of each part for the first
/// column of tiles, then for the second, so that a kernel reads it from one end to the other. A tile holds pairs of rows. Filled up with
/// zeros.
#[derive(Debug)]
pub(crate) struct Packed {
    data: Scratch<u16>,
    k: usize,
    n: usize,
    /// Tiles along `k` and along `n`.
    blocks: usize,
    columns: usize,
    parts: usize,
    special: bool,
}

impl Packed {
    /// Packs a matrix as [`SPLIT`] parts, or rounded to one.
    pub(crate) fn new(cpu: &Cpu, source: &Unpacked<'_, f32>, parts: usize) -> Result<Self> {
        assert!(is_available(), "there is a matrix unit");
        let (k, n) = (source.k, source.columns.len());
        let (blocks, columns) = (k.div_ceil(DEPTH), n.div_ceil(COLUMNS).next_multiple_of(2));
        let size = blocks * parts * WORDS;
        let mut data = cpu.pool().scratch::<u16>(columns * size)?;
        let special = AtomicBool::new(false);
        if size > 0 {
            cpu.split(
                columns / 2,
                [(&mut data, 2 * size)],
                2 * size,
                |range, [data]| {
                    for (pair, data) in range.zip(data.chunks_exact_mut(2 * size)) {
                        let tiles = data.chunks_exact_mut(parts * WORDS);
                        for (i, tiles) in tiles.enumerate() {
                            let (block, j) = (i / 2, 2 * pair + i % 2);
                            let columns = source.columns.get(j * COLUMNS..).unwrap_or_default();
                            let columns = &columns[..columns.len().min(COLUMNS)];
                            let numbers = gather(source, block * DEPTH, columns);
                            // SAFETY: the processor has these instructions.
                            if unsafe { pack_pairs(&numbers, tiles) } && parts == SPLIT {
                                special.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                },
            );
        }
        Ok(Self {
            data,
            k,
            n,
            blocks,
            columns,
            parts,
            special: special.into_inner(),
        })
    }

    /// Whether all numbers have their parts. With others the matrix is worth nothing.
    pub(crate) fn is_regular(&self) -> bool {
        !self.special
    }

    /// Number `(p, j)`, up to the rounding of its parts.
    fn at(&self, p: usize, j: usize) -> f32 {
        let (pair, second) = (j / (2 * COLUMNS), j / COLUMNS % 2);
        let tile = ((pair * self.blocks + p / DEPTH) * 2 + second) * self.parts * WORDS;
        let word = p % DEPTH / 2 * ROW + j % COLUMNS * 2 + p % 2;
        let parts = self.data[tile..].chunks(WORDS).take(self.parts);
        // The smallest first: the sum is exact.
        parts.rev().map(|tile| bf16_to_f32(tile[word])).sum()
    }
}

thread_local! {
    /// The left side of a product, in tiles.
    static LEFT: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// How the rows of the left side lie in tiles: about equally many in each.
#[derive(Clone, Copy)]
struct Heights {
    rows: usize,
    tiles: usize,
    /// Rows of a tile; the last may have fewer.
    height: usize,
}

impl Heights {
    fn of(rows: usize) -> Self {
        let tiles = rows.div_ceil(ROWS).max(1);
        let height = rows.div_ceil(tiles);
        // Fewer tiles may do for so high ones.
        let tiles = rows.div_ceil(height.max(1));
        Self {
            rows,
            tiles,
            height,
        }
    }
}

/// `out = start + a b` for some rows, as [`crate::packed::Product`].
pub(crate) fn product(
    (a, a_at): (&[f32], &[usize]),
    b: &Packed,
    start: Start<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    // SAFETY: there is a packed matrix, so the processor has these instructions.
    let has_special = |row: &[f32]| unsafe { has_special(row) };
    let special = |at: &usize| b.parts == SPLIT && has_special(&a[*at..*at + b.k]);
    if a_at.iter().any(special) {
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (&a_at, &out_at) in a_at.iter().zip(out_at) {
            if special(&a_at) {
                special_row(&a[a_at..a_at + b.k], b, start, &mut out[out_at..][..b.n]);
            } else {
                from.push(a_at);
                to.push(out_at);
            }
        }
        return regular_rows((a, &from), b, start, (out, &to));
    }
    regular_rows((a, a_at), b, start, (out, out_at));
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

fn regular_rows(
    (a, a_at): (&[f32], &[usize]),
    b: &Packed,
    start: Start<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    assert_eq!(a_at.len(), out_at.len(), "a row for each row");
    let heights = Heights::of(a_at.len());
    with_left(heights, b, |left| {
        let size = b.blocks * b.parts * WORDS;
        let rows = a_at.chunks(heights.height.max(1));
        for (rows, tiles) in rows.zip(left.chunks_exact_mut(size.max(1))) {
            for (r, &at) in rows.iter().enumerate() {
                let (whole, rest) = a[at..at + b.k].as_chunks::<DEPTH>();
                let mut tiles = tiles.chunks_exact_mut(b.parts * WORDS);
                for (numbers, tiles) in whole.iter().zip(&mut tiles) {
                    // SAFETY: there is a packed matrix, so the processor has these instructions.
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
        multiply(left, heights, b, start, (out, out_at));
    });
}

/// `out = start + xᵀ b`, with columns of `x` as rows: those from `first` on, as many as `out_at` has. `x` is `[k, width]`. Says
/// whether a number of `x` has no parts; the result is worth nothing then.
pub(crate) fn transposed_product(
    (x, width, first): (&[f32], usize, usize),
    b: &Packed,
    start: Start<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) -> bool {
    let heights = Heights::of(out_at.len());
    let mut special = false;
    with_left(heights, b, |left| {
        let size = b.blocks * b.parts * WORDS;
        for (i, tiles) in left
            .chunks_exact_mut(size.max(1))
            .enumerate()
            .take(heights.tiles)
        {
            let column = first + i * heights.height;
            let count = heights.height.min(heights.rows - i * heights.height);
            for (block, tiles) in tiles.chunks_exact_mut(b.parts * WORDS).enumerate() {
                let mut numbers = [[0.0; DEPTH]; ROWS];
                let (first, rows) = (block * DEPTH, DEPTH.min(b.k - block * DEPTH));
                for half in 0..rows.div_ceil(16) {
                    let mut lines = [[0.0; 16]; 16];
                    for (p, line) in lines.iter_mut().enumerate().take(rows - half * 16) {
                        let from = &x[(first + half * 16 + p) * width + column..][..count];
                        line[..count].copy_from_slice(from);
                    }
                    // SAFETY: there is a packed matrix, so the processor has these instructions.
                    let turned = unsafe { transpose(&lines) };
                    for (to, from) in numbers.iter_mut().zip(turned) {
                        to[half * 16..][..16].copy_from_slice(&from);
                    }
                }
                // SAFETY: as above.
                special |= unsafe { has_special(numbers.as_flattened()) };
                for (r, numbers) in numbers.iter().enumerate().take(count) {
                    // SAFETY: there is a packed matrix, so the processor has these instructions.
                    unsafe { pack_row(numbers, r, tiles) };
                }
            }
        }
        multiply(left, heights, b, start, (out, out_at));
    });
    special
}

/// Room for the left side of a product.
fn with_left(heights: Heights, b: &Packed, f: impl FnOnce(&mut [u16])) {
    LEFT.with_borrow_mut(|lines| {
        let words = heights.tiles * b.blocks * b.parts * WORDS;
        let count = words.div_ceil(size_of::<Line>() / size_of::<u16>());
        if lines.len() < count {
            lines.resize(count, bytemuck::Zeroable::zeroed());
        }
        f(&mut bytemuck::cast_slice_mut(lines)[..words]);
    });
}

/// Where the rows of a tile of the result begin, if it has all its rows and they are equally far apart.
fn even_rows(out_at: &[usize], height: usize) -> Option<(usize, usize)> {
    let (&first, &last) = (out_at.first()?, out_at.last()?);
    if out_at.len() < height || last < first {
        return None;
    }
    let stride = (last - first).checked_div(out_at.len() - 1).unwrap_or(0);
    let mut rows = out_at.iter().enumerate();
    rows.all(|(r, &at)| at == first + r * stride)
        .then_some((first, stride))
}

/// `out = start + left b`.
fn multiply(
    left: &[u16],
    heights: Heights,
    b: &Packed,
    start: Start<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    let Heights {
        rows,
        tiles,
        height,
    } = heights;
    if rows == 0 || b.n == 0 {
        return;
    }
    assert_eq!(rows, out_at.len(), "a row for each row");
    assert!(
        out_at.iter().all(|at| at + b.n <= out.len()),
        "rows are within the result"
    );
    if let Start::Row(row) = start {
        assert_eq!(row.len(), b.n, "a number for each column");
    }
    let column_words = b.blocks * b.parts * WORDS;
    assert_eq!(b.data.len(), b.columns * column_words);
    assert!(left.len() >= tiles * column_words);
    let rows_of = |tile: usize| &out_at[tile * height..rows.min((tile + 1) * height)];
    let even: Vec<_> = (0..tiles)
        .map(|tile| even_rows(rows_of(tile), height))
        .collect();
    // What the rows and columns hold that the result does not have, does not matter.
    let mut spare = Spare([[[0.0; GROUP]; ROWS]; 2]);
    // SAFETY: there is a packed matrix, so there is the unit.
    unsafe { kernels::configure(height) };
    for group in (0..b.columns).step_by(GROUP / COLUMNS) {
        let count = (b.columns - group).min(GROUP / COLUMNS);
        for tile in (0..tiles).step_by(2) {
            let two = tile + 1 < tiles;
            // Two rows of tiles with two columns, or one with all: four sums at a time.
            for part in (0..count).step_by(if two { 2 } else { count }) {
                let width = if two { 2 } else { count };
                let first = group + part;
                let second = if two { tile + 1 } else { tile };
                let operands = Operands {
                    a: [tile, second].map(|tile| left[tile * column_words..].as_ptr()),
                    b: [first, first + width - 2].map(|c| b.data[c * column_words..].as_ptr()),
                    blocks: b.blocks,
                    parts: b.parts,
                };
                let column = first * COLUMNS;
                let place = Place {
                    tiles: [tile, second],
                    column,
                    width,
                };
                let direct = match (even[tile], even[second]) {
                    (Some((first, stride)), Some((other, same)))
                        if stride == same && column + width * COLUMNS <= b.n =>
                    {
                        Some(([first + column, other + column], stride))
                    }
                    _ => None,
                };
                match direct {
                    Some((at, stride)) => {
                        // The second has as many rows as the first, and both lie in `out`.
                        let all = out.as_mut_ptr();
                        let to = at.map(|at| all.wrapping_add(at));
                        let bytes = stride * size_of::<f32>();
                        let (from, from_stride) = match start {
                            Start::Zero => ([ZEROS.0.as_ptr(); 2], 0),
                            Start::Row(row) => ([row[column..].as_ptr(); 2], 0),
                            Start::There => (to.map(<*mut f32>::cast_const), bytes),
                        };
                        let sums = Sums {
                            from,
                            to,
                            from_stride,
                            to_stride: bytes,
                        };
                        // SAFETY: tiles have `height` rows; as many are in `out` from `to` on, `width` tiles wide, by
                        // what `even_rows` and the assertions say, and in `start`. `left` and `b` have all tiles.
                        unsafe { kernels::run(&operands, &sums, two, width) };
                    }
                    None => {
                        place.each_row(heights, b.n, |half, r, columns| {
                            let to = &mut spare.0[half][r][..columns.len()];
                            let at = out_at[place.tiles[half] * height + r];
                            match start {
                                Start::Zero => to.fill(0.0),
                                Start::Row(row) => to.copy_from_slice(&row[columns]),
                                Start::There => {
                                    to.copy_from_slice(&out[at + columns.start..at + columns.end])
                                }
                            }
                        });
                        let to = spare
                            .0
                            .each_mut()
                            .map(|tile| tile.as_mut_ptr().cast::<f32>());
                        let stride = size_of::<[f32; GROUP]>();
                        let sums = Sums {
                            from: to.map(<*mut f32>::cast_const),
                            to,
                            from_stride: stride,
                            to_stride: stride,
                        };
                        // SAFETY: there is room for 16 rows of four tiles each. `left` and `b` have all tiles.
                        unsafe { kernels::run(&operands, &sums, two, width) };
                        place.each_row(heights, b.n, |half, r, columns| {
                            let from = &spare.0[half][r][..columns.len()];
                            let at = out_at[place.tiles[half] * height + r];
                            out[at + columns.start..at + columns.end].copy_from_slice(from);
                        });
                    }
                }
            }
        }
    }
    // SAFETY: the tiles are not used any more.
    unsafe { kernels::release() };
}

/// Sums with rows or columns that the result does not have.
#[repr(C, align(64))]
struct Spare([[[f32; GROUP]; ROWS]; 2]);

#[repr(C, align(64))]
struct Zeros([f32; GROUP]);
static ZEROS: Zeros = Zeros([0.0; GROUP]);

/// Some tiles of a result.
#[derive(Clone, Copy)]
struct Place {
    tiles: [usize; 2],
    column: usize,
    width: usize,
}

impl Place {
    /// Calls `f` with each tile's rows that there are, and their columns that there are.
    fn each_row(&self, heights: Heights, n: usize, mut f: impl FnMut(usize, usize, Range<usize>)) {
        let columns = self.column..n.min(self.column + self.width * COLUMNS).max(self.column);
        let halves = 1 + usize::from(self.tiles[0] != self.tiles[1]);
        for (half, tile) in self.tiles.into_iter().enumerate().take(halves) {
            let rows = heights.height.min(heights.rows - tile * heights.height);
            for r in 0..rows {
                f(half, r, columns.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::half::f32_to_bf16;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let number = |i: usize| (((i + seed) * 7919) % 1013) as f32 / 506.0 - 1.0;
        // With bits in all places.
        (0..count).map(|i| number(i) * 1.234_567_9).collect()
    }

    fn pack(b: &[f32], [k, n]: [usize; 2], transposed: bool, parts: usize) -> Packed {
        let [row_stride, column_stride] = if transposed { [1, k] } else { [n, 1] };
        let source = Unpacked {
            data: b,
            k,
            row_stride,
            column_stride,
            columns: (0..n).collect(),
        };
        Packed::new(&Cpu::builder().threads(1).build().unwrap(), &source, parts).unwrap()
    }

    fn sizes() -> impl Iterator<Item = [usize; 3]> {
        [
            [1, 1, 1],
            [1, 7, 200],
            [2, 30, 129],
            [5, 33, 31],
            [9, 40, 40],
            [16, 32, 64],
            [20, 65, 96],
            [33, 70, 130],
            [64, 100, 64],
            [0, 3, 4],
            [3, 0, 5],
        ]
        .into_iter()
        .filter(|_| {
            is_available() || {
                eprintln!("skipped: no matrix unit here");
                false
            }
        })
    }

    /// `start + a b` in `f64`, with operands rounded if there is one part, and the sum of the terms' sizes.
    fn expected(a: &[f32], b: impl Fn(usize) -> f32, start: f32, parts: usize) -> [f64; 2] {
        let value = |x: f32| match parts {
            SPLIT => f64::from(x),
            _ => f64::from(bf16_to_f32(f32_to_bf16(x))),
        };
        let terms = a.iter().enumerate();
        let terms = terms.map(|(p, &a)| value(a) * value(b(p)));
        terms.fold([f64::from(start), f64::from(start.abs())], |sums, x| {
            [sums[0] + x, sums[1] + x.abs()]
        })
    }

    #[test]
    fn sums_are_no_less_exact_than_chains_of_single_precision() {
        if !is_available() {
            return;
        }
        let [rows, k, n] = [16, 512, 64];
        let (a, b) = (numbers(rows * k, 1), numbers(k * n, 2));
        let packed = pack(&b, [k, n], false, SPLIT);
        let at = |width: usize| (0..rows).map(|r| r * width).collect::<Vec<_>>();
        let mut out = vec![0.0; rows * n];
        product((&a, &at(k)), &packed, Start::Zero, (&mut out, &at(n)));
        let mut errors = [0.0, 0.0];
        for (i, found) in out.into_iter().enumerate() {
            let row = &a[i / n * k..][..k];
            let b = |p: usize| b[p * n + i % n];
            let [exact, _] = expected(row, b, 0.0, SPLIT);
            let terms = row.iter().enumerate();
            let chain = terms.fold(0.0f32, |sum, (p, a)| a.mul_add(b(p), sum));
            for (error, x) in errors.iter_mut().zip([found, chain]) {
                *error += (f64::from(x) - exact).powi(2);
            }
        }
        assert!(errors[0] < errors[1], "{errors:?}");
    }

    #[test]
    fn products_are_as_exact_as_single_precision_and_rows_independent() {
        for [rows, k, n] in sizes() {
            let (a, b, row) = (numbers(rows * k, 1), numbers(k * n, 2), numbers(n, 3));
            for (parts, transposed) in [(SPLIT, false), (SPLIT, true), (1, false), (1, true)] {
                let packed = pack(&b, [k, n], transposed, parts);
                // Rows with a gap, for which tiles are stored where they belong.
                let at = |rows: &[usize], width: usize| -> Vec<usize> {
                    rows.iter().map(|r| r * width).collect()
                };
                let all: Vec<usize> = (0..rows).collect();
                let wide = n + 5;
                let mut out = vec![-7.0; rows * wide];
                let from = (&a[..], &at(&all, k)[..]);
                product(from, &packed, Start::Row(&row), (&mut out, &at(&all, wide)));
                for r in 0..rows {
                    for j in 0..n {
                        let b = |p: usize| {
                            if transposed {
                                b[j * k + p]
                            } else {
                                b[p * n + j]
                            }
                        };
                        let [exact, size] = expected(&a[r * k..][..k], b, row[j], parts);
                        let found = f64::from(out[r * wide + j]);
                        let close = (found - exact).abs() <= 4e-7 * size;
                        assert!(close, "{found} {exact}");
                    }
                    assert!(out[r * wide + n..][..5].iter().all(|&x| x == -7.0));
                }
                // Any selection of rows, in any place, has the same bits.
                for keep in [
                    |r: usize| r % 3 != 1,
                    |r| r % 5 == 2,
                    |r| r == 0,
                    |r| r < 18,
                ] {
                    let some: Vec<usize> = all.iter().copied().filter(|&r| keep(r)).collect();
                    let mut part = vec![-7.0; rows * wide];
                    for &r in &some {
                        part[r * wide..][..n].copy_from_slice(&row);
                    }
                    let from = (&a[..], &at(&some, k)[..]);
                    product(from, &packed, Start::There, (&mut part, &at(&some, wide)));
                    for r in 0..rows {
                        let (part, out) = (&part[r * wide..][..wide], &out[r * wide..][..wide]);
                        if keep(r) {
                            assert_eq!(part, out);
                        } else {
                            assert!(part.iter().all(|&x| x == -7.0));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn columns_can_be_the_rows() {
        for [rows, k, n] in sizes() {
            let (a, b) = (numbers(rows * k, 1), numbers(k * n, 2));
            let packed = pack(&b, [k, n], false, SPLIT);
            let x: Vec<f32> = (0..k * rows).map(|i| a[i % rows * k + i / rows]).collect();
            let from: Vec<usize> = (0..rows).map(|r| r * k).collect();
            let to: Vec<usize> = (0..rows).map(|r| r * n).collect();
            let (mut plain, mut turned) = (vec![0.5; rows * n], vec![0.5; rows * n]);
            product((&a, &from), &packed, Start::There, (&mut plain, &to));
            let start = Start::There;
            let special = transposed_product((&x, rows, 0), &packed, start, (&mut turned, &to));
            assert!(!special && plain == turned);
            // The last rows alone.
            let some = rows / 2;
            let mut part = vec![0.5; rows * n];
            transposed_product((&x, rows, some), &packed, start, (&mut part, &to[some..]));
            assert_eq!(part[some * n..], plain[some * n..]);
        }
    }

    #[test]
    fn numbers_without_parts_are_not_for_the_unit() {
        if !is_available() {
            return;
        }
        let [rows, k, n] = [9, 40, 40];
        for special in [f32::INFINITY, f32::NAN, f32::MAX, -f32::MAX] {
            let (mut a, mut b) = (numbers(rows * k, 1), vec![0.5; k * n]);
            a[3 * k + 5] = special;
            let packed = pack(&b, [k, n], false, SPLIT);
            let at = |width: usize| (0..rows).map(|r| r * width).collect::<Vec<_>>();
            let mut out = vec![0.0; rows * n];
            product((&a, &at(k)), &packed, Start::Zero, (&mut out, &at(n)));
            for r in 0..rows {
                let sum: f32 = a[r * k..][..k].iter().map(|a| 0.5 * a).sum();
                for &x in &out[r * n..][..n] {
                    let same = (x - sum).abs() < 1e-4 || x == sum || x.is_nan() && sum.is_nan();
                    assert!(same, "{special}: {x} {sum}");
                }
            }
            b[77] = special;
            assert!(!pack(&b, [k, n], false, SPLIT).is_regular());
            assert!(pack(&b, [k, n], false, 1).is_regular());
        }
    }

    #[test]
    fn parts_make_the_number() {
        if !is_available() {
            return;
        }
        let b = [
            1.0 / 3.0,
            -1e-30,
            1e30,
            f32::MIN_POSITIVE,
            0.0,
            -0.1,
            16_777_215.0,
        ];
        let packed = pack(&b, [1, b.len()], false, SPLIT);
        for (j, &b) in b.iter().enumerate() {
            assert_eq!(packed.at(0, j), b);
        }
    }
}
