//! Matmuls of 8-bit integers with sums of 32 bits: for inference with
//! [`Precision::Int8`](backend_api::Precision::Int8).
//!
//! A column of the matrix, and a row of the left-hand side, is a vector of integers from -127 to
//! 127 times a scale: its largest magnitude over 127. Integers are rounded to nearest, ties to
//! even. Sums of integers are exact, and so the same in any order and with any instructions. A sum
//! is multiplied by both scales and added to what the product starts with, in `f32`.
//!
//! A row or column with an infinity or a NaN has no scale; its results are NaN. One whose numbers
//! are all below 2^-121 counts as 0.

mod kernels;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use backend_api::Result;
use pulp::{Arch, Simd, WithSimd};

use self::kernels::{Kernel, Tile};
use crate::device::Cpu;
use crate::packed::{MatrixView, Order};
use crate::pool::Scratch;
use crate::product::Accumulate;

/// The largest integer. With -128 left out, products of two pairs fit 16 bits.
const LARGEST: f32 = 127.0;
/// Rows of the matrix that are multiplied together: four bytes are one lane.
const QUAD: usize = 4;
/// Columns of a vector.
const LANES: usize = 16;
/// Vectors per row of a panel.
const VECTORS: usize = 8;
/// The largest inner dimension whose sums fit 32 bits.
pub(crate) const MOST_INNER: usize = i32::MAX as usize / (127 * 127);

/// A matrix `[k, n]` of integers in column panels. A row of a panel has four numbers of each
/// column. Columns are padded to whole vectors and rows to quads, with zeros.
#[derive(Debug)]
pub(crate) struct PackedInt8 {
    data: Scratch<[i8; QUAD]>,
    /// The scale of each column.
    scales: Scratch<f32>,
    /// -128 times the sum of each column, modulo 2^32: what a kernel adds that adds 128 to the
    /// left-hand side.
    corrections: Scratch<i32>,
    k: usize,
    n: usize,
    order: Order,
}

/// The factor that makes integers of numbers up to a magnitude (its bits), and the scale that makes
/// numbers of the integers.
#[inline(always)]
fn factors(magnitude: u32) -> [f32; 2] {
    let magnitude = f32::from_bits(magnitude);
    let to_integer = LARGEST / magnitude;
    if !magnitude.is_finite() {
        [0.0, f32::NAN]
    } else if !to_integer.is_finite() {
        [0.0, 0.0]
    } else {
        [to_integer, magnitude / LARGEST]
    }
}

/// The bits of a magnitude. They are ordered like the magnitudes, and NaN is above them all.
#[inline(always)]
fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

#[inline(always)]
fn integer(x: f32, to_integer: f32) -> i8 {
    /// From here to the double the spacing of `f32` numbers is 1, so that the addition rounds. The
    /// last byte is that of the integer.
    const ONES: f32 = 3.0 * (1 << 22) as f32;
    (x * to_integer + ONES).to_bits() as i8
}

impl PackedInt8 {
    /// Packs a matrix of at most [`MOST_INNER`] rows.
    pub(crate) fn new(cpu: &Cpu, source: &MatrixView<'_, f32>) -> Result<Self> {
        let (k, n) = (source.k, source.columns.len());
        let padded = n.next_multiple_of(LANES);
        let pool = cpu.pool();
        let mut packed = Self {
            data: pool.packed(padded.saturating_mul(k.div_ceil(QUAD)))?,
            scales: pool.scratch(padded)?,
            corrections: pool.scratch(padded)?,
            k,
            n,
            order: Order::default(),
        };
        packed.data.fill([0; QUAD]);
        packed.scales.fill(0.0);
        packed.corrections.fill(0);
        packed.fill(source);
        Ok(packed)
    }

    fn fill(&mut self, source: &MatrixView<'_, f32>) {
        let row = |p: usize| {
            let columns = source.columns.iter();
            columns.map(move |j| source.data[p * source.row_stride + j * source.column_stride])
        };
        let mut magnitudes = vec![0; self.n];
        for p in 0..self.k {
            for (most, x) in magnitudes.iter_mut().zip(row(p)) {
                *most = magnitude(x).max(*most);
            }
        }
        let factors: Vec<_> = magnitudes.into_iter().map(factors).collect();
        for (scale, [_, found]) in self.scales.iter_mut().zip(&factors) {
            *scale = *found;
        }
        for p in 0..self.k {
            let mut numbers = row(p).zip(&factors);
            for i in 0..self.panels() {
                let panel = self.panel(i);
                let (first, count) = (panel.column, panel.width.min(self.n - panel.column));
                let quads = &mut self.data[panel.at + p / QUAD * panel.width..][..count];
                let sums = &mut self.corrections[first..][..count];
                for ((quad, sum), (x, [to_integer, _])) in
                    quads.iter_mut().zip(sums).zip(&mut numbers)
                {
                    let x = integer(x, *to_integer);
                    quad[p % QUAD] = x;
                    *sum = sum.wrapping_sub(128 * i32::from(x));
                }
            }
        }
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(VECTORS * LANES)
    }

    fn panel(&self, i: usize) -> Panel {
        let column = i * VECTORS * LANES;
        let padded = self.n.next_multiple_of(LANES);
        Panel {
            column,
            at: column * self.k.div_ceil(QUAD),
            width: (VECTORS * LANES).min(padded - column),
        }
    }
}

/// A column panel: its first column, its offset in the data, and its columns with the padding.
struct Panel {
    column: usize,
    at: usize,
    width: usize,
}

/// The left-hand side of a product.
#[derive(Default)]
struct Left {
    /// The integers of each row, in words of four.
    words: Vec<u32>,
    scales: Vec<f32>,
}

thread_local! {
    static LEFT: RefCell<Left> = RefCell::default();
}

/// Makes integers of a row.
struct Quantize<'a> {
    row: &'a [f32],
    integers: &'a mut [i8],
}

impl WithSimd for Quantize<'_> {
    type Output = f32;

    /// Returns the scale.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        // Several maxima, which a vector holds.
        let mut most = [0; 32];
        let (whole, rest) = self.row.as_chunks::<32>();
        for chunk in whole {
            for (most, x) in most.iter_mut().zip(chunk) {
                *most = magnitude(*x).max(*most);
            }
        }
        let rest = rest.iter().map(|x| magnitude(*x));
        let [to_integer, scale] = factors(most.into_iter().chain(rest).max().unwrap_or(0));
        for (to, x) in self.integers.iter_mut().zip(self.row) {
            *to = integer(*x, to_integer);
        }
        scale
    }
}

/// Adds a row of sums to what the product starts with.
struct Finish<'a> {
    sums: &'a [i32],
    scale: f32,
    scales: &'a [f32],
    start: Accumulate<'a, f32>,
    out: &'a mut [f32],
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let product = |sum: i32, scale: f32| sum as f32 * (self.scale * scale);
        let sums = self.sums.iter().zip(self.scales);
        match self.start {
            Accumulate::Zero => {
                for (out, (sum, scale)) in self.out.iter_mut().zip(sums) {
                    *out = product(*sum, *scale);
                }
            }
            Accumulate::Existing => {
                for (out, (sum, scale)) in self.out.iter_mut().zip(sums) {
                    *out += product(*sum, *scale);
                }
            }
            Accumulate::Bias(bias) => {
                for ((out, (sum, scale)), bias) in self.out.iter_mut().zip(sums).zip(bias) {
                    *out = bias + product(*sum, *scale);
                }
            }
        }
    }
}

/// `out = start + a b` for some rows, like [`crate::product::Product`].
pub(crate) fn product(
    arch: Arch,
    a: (&[f32], &[usize]),
    b: &PackedInt8,
    start: Accumulate<'_, f32>,
    out: (&mut [f32], &[usize]),
) {
    product_by((arch, Kernel::of(arch)), a, b, start, out);
}

fn product_by(
    (arch, kernel): (Arch, Kernel),
    (a, a_at): (&[f32], &[usize]),
    b: &PackedInt8,
    start: Accumulate<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    assert_eq!(
        a_at.len(),
        out_at.len(),
        "each row of the operand has a row of the result"
    );
    LEFT.with_borrow_mut(|left| {
        let quads = b.k.div_ceil(QUAD);
        left.words.clear();
        left.words.resize(a_at.len() * quads, 0);
        left.scales.clear();
        for (r, &at) in a_at.iter().enumerate() {
            let integers = bytemuck::cast_slice_mut(&mut left.words[r * quads..][..quads]);
            let row = &a[at..at + b.k];
            left.scales.push(arch.dispatch(Quantize { row, integers }));
        }
        let mut sums = [0; kernels::MOST_SUMS];
        for panel in b.order.of(b.panels()) {
            let panel = b.panel(panel);
            let mut row = 0;
            while row < a_at.len() {
                let rows = kernels::MOST_ROWS.min(a_at.len() - row);
                let mut vector = 0;
                while vector < panel.width / LANES {
                    let vectors = kernel.vectors(rows, panel.width / LANES - vector);
                    let (first, columns) = (panel.column + vector * LANES, vectors * LANES);
                    kernel.run(
                        &Tile {
                            a: &left.words[row * quads..][..rows * quads],
                            quads,
                            b: &b.data[panel.at..][..panel.width * quads],
                            width: panel.width,
                            first: vector * LANES,
                            corrections: &b.corrections[first..][..columns],
                        },
                        [rows, vectors],
                        &mut sums,
                    );
                    let end = b.n.min(first + columns);
                    let sums = sums.chunks_exact(columns).zip(&left.scales[row..]);
                    for ((sums, scale), out_at) in sums.zip(&out_at[row..]).take(rows) {
                        arch.dispatch(Finish {
                            sums,
                            scale: *scale,
                            scales: &b.scales[first..end],
                            start: match start {
                                Accumulate::Bias(bias) => Accumulate::Bias(&bias[first..end]),
                                other => other,
                            },
                            out: &mut out[out_at + first..out_at + end],
                        });
                    }
                    vector += vectors;
                }
                row += rows;
            }
        }
    });
}
