//! Matrix multiplication.

use std::any::TypeId;
use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::{Buffers, Dests, Error, Result};
use pulp::{Simd, WithSimd};

use crate::amx::{self, PackedAmx};
use crate::device::Cpu;
use crate::element::{Float, singles, singles_mut};
use crate::gemm::{GemmOperand, gemm};
use crate::packed::{Accumulate, MatrixView};
use crate::storage::{CpuBuffer, Input, Output, dests};
use crate::strided::{Stream, Walk};

/// Multiplications below which a matmul is not worth another thread.
const MIN_PRODUCTS: usize = 1 << 20;
/// Columns, and inner size, from which on a matmul runs on AMX; and rows, if the right-hand side
/// has to be packed first.
pub(crate) const UNIT_COLUMNS: usize = 32;
const UNIT_ROWS: usize = 32;

impl Cpu {
    pub(crate) fn matmul<T: Float>(
        &self,
        alpha: f64,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [a, b, addend @ ..] = ins else {
            return Err(Error::argument("matmul", "operands", "are missing"));
        };
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<T>();
        let addend = addend
            .first()
            .map(|c| Stream::new(c.buffer.elements::<T>(), &c.layout));
        if let Some(c) = &addend {
            self.split(out.len(), [(&mut *out, 1)], 1, |range, [out]| {
                c.read(range.start, out)
            });
        } else if a.layout.shape().last() == 0 {
            out.fill(T::ZERO);
        }
        let alpha = T::from_f64(alpha);
        let batches = Batches::new(a, b)?;
        let [m, k, n] = batches.sizes;
        // If there is nothing to sum, the result is already complete.
        if !out.is_empty() && k > 0 {
            let accumulate = addend.is_some();
            let one = m * n * k;
            let split_product = batches.count == 1 || one >= 4 * MIN_PRODUCTS;
            if split_product {
                for i in 0..batches.count {
                    let at = i * m * n;
                    let out = &mut out[at..at + m * n];
                    let (a, b) = (batches.lhs(i), batches.rhs(i));
                    if self.suits_unit(&a, &b, alpha) {
                        if self.unit_product(out, a, b, accumulate)? {
                            continue;
                        }
                        if let Some(c) = &addend {
                            c.read(at, out);
                        }
                    }
                    self.product(out, a, b, alpha, accumulate);
                }
            } else {
                self.split(batches.count, [(out, m * n)], one / 8, |range, [out]| {
                    for (i, out) in range.zip(out.chunks_exact_mut(m * n)) {
                        self.serial_product(out, batches.lhs(i), batches.rhs(i), alpha, accumulate);
                    }
                });
            }
        }
        Ok([output.finish()].into_iter().collect())
    }

    /// `out (+)= alpha * a b` with all threads.
    pub(crate) fn product<T: Float>(
        &self,
        out: &mut [T],
        a: GemmOperand<'_, T>,
        b: GemmOperand<'_, T>,
        alpha: T,
        accumulate: bool,
    ) {
        if let Some(kernel) = MatVec::of(&a, &b, alpha) {
            self.split(out.len(), [(out, 1)], b.rows / 4, |range, [out]| {
                self.arch()
                    .dispatch(kernel.part(range.start, out, accumulate));
            });
            return;
        }
        match self.workers() {
            Some(workers) if a.rows * a.columns * b.columns >= MIN_PRODUCTS => {
                workers.install(|| gemm(out, a, b, alpha, accumulate, self.threads()));
            }
            _ => gemm(out, a, b, alpha, accumulate, 1),
        }
    }

    /// Whether a matmul should run on AMX.
    fn suits_unit<T: Float>(
        &self,
        a: &GemmOperand<'_, T>,
        b: &GemmOperand<'_, T>,
        alpha: T,
    ) -> bool {
        let is_row_major = |x: &GemmOperand<'_, T>| x.column_stride == 1;
        let is_column_major = |x: &GemmOperand<'_, T>| x.row_stride == 1;
        // A right-hand side that is not row-major has to be packed first.
        let pays = is_row_major(b) || is_column_major(b) && is_row_major(a) && a.rows >= UNIT_ROWS;
        self.has_matrix_unit()
            && TypeId::of::<T>() == TypeId::of::<f32>()
            && alpha == T::ONE
            && a.rows >= amx::MIN_ROWS
            && a.columns.min(b.columns) >= UNIT_COLUMNS
            && a.rows * a.columns * b.columns >= MIN_PRODUCTS
            && (is_row_major(a) || is_column_major(a))
            && pays
    }

    /// `out (+)= a b` with AMX and all threads. Returns `false` if an operand contains numbers that
    /// AMX cannot multiply; the result is then invalid.
    fn unit_product<T: Float>(
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
            1 => UnitLeft::Rows {
                data,
                stride: a.row_stride,
            },
            width => UnitLeft::Columns {
                parts: [data, &[]],
                split: a.columns,
                width,
            },
        };
        self.multiply_by_unit(out, left, b, accumulate)
    }

    /// `out = x^T b` like [`Self::unit_product`]. `x` has rows of `width` elements, which lie in
    /// one or two slices.
    pub(crate) fn unit_outer<T: Float>(
        &self,
        out: &mut [T],
        (parts, width): (&[&[T]], usize),
        b: GemmOperand<'_, T>,
    ) -> Result<bool> {
        let (first, second) = match *parts {
            [first] => (first, &[][..]),
            [first, second] => (first, second),
            _ => return Ok(false),
        };
        let (Some(out), Some(first), Some(second)) =
            (singles_mut(out), singles(first), singles(second))
        else {
            return Ok(false);
        };
        let left = UnitLeft::Columns {
            parts: [first, second],
            split: first.len() / width,
            width,
        };
        self.multiply_by_unit(out, left, b, false)
    }

    fn multiply_by_unit<T: Float>(
        &self,
        out: &mut [f32],
        left: UnitLeft<'_>,
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
        self.split(out.len() / n, [(out, n)], k * n, |rows, [out]| {
            let from: Vec<usize>;
            let to: Vec<usize> = (0..rows.len()).map(|i| i * n).collect();
            let out = (out, &to[..]);
            let left = match left {
                UnitLeft::Rows { data, stride } => {
                    from = rows.map(|i| i * stride).collect();
                    if let Some(packed) = &packed {
                        amx::product((data, &from), packed, start, out);
                        return;
                    }
                    amx::Left::Rows { data, at: &from }
                }
                UnitLeft::Columns {
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

    fn serial_product<T: Float>(
        &self,
        out: &mut [T],
        a: GemmOperand<'_, T>,
        b: GemmOperand<'_, T>,
        alpha: T,
        accumulate: bool,
    ) {
        match MatVec::of(&a, &b, alpha) {
            Some(kernel) => self.arch().dispatch(kernel.part(0, out, accumulate)),
            None => gemm(out, a, b, alpha, accumulate, 1),
        }
    }
}

/// The left-hand side of a matmul on AMX: rows `stride` apart, or columns of a matrix whose rows
/// lie in two slices.
#[derive(Clone, Copy)]
enum UnitLeft<'a> {
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

/// The matrices of a batched matmul.
struct Batches<'a, T> {
    a: (&'a [T], Input<'a>),
    b: (&'a [T], Input<'a>),
    /// `m, k, n`.
    sizes: [usize; 3],
    count: usize,
    /// Row stride and row count of the left-hand side with all leading axes joined, if all batches
    /// share one right-hand side.
    joined: Option<(usize, usize)>,
}

impl<'a, T: Float> Batches<'a, T> {
    fn new(a: &Input<'a>, b: &Input<'a>) -> Result<Self> {
        let (rank_a, rank_b) = (a.layout.shape().rank(), b.layout.shape().rank());
        if rank_a < 2 || rank_b < 2 {
            return Err(Error::argument(
                "matmul",
                "operands",
                "have fewer than two axes",
            ));
        }
        let (dims_a, dims_b) = (a.layout.shape(), b.layout.shape());
        let (m, k, n) = (dims_a[rank_a - 2], dims_a[rank_a - 1], dims_b[rank_b - 1]);
        let leading: usize = dims_a.dims()[..rank_a - 2].iter().product();
        let mut all = Self {
            a: (a.buffer.elements(), *a),
            b: (b.buffer.elements(), *b),
            sizes: [m, k, n],
            count: leading,
            joined: None,
        };
        if rank_b == 2 && leading != 1 && k > 0 {
            // One column of the left-hand side, over the rows of all batches.
            let rows = Walk::new(&a.layout.select(rank_a - 1, 0)?);
            if let Some(stride) = rows.single_stride() {
                all.joined = Some((stride, leading * m));
                all.sizes[0] = leading * m;
                all.count = 1;
            }
        }
        Ok(all)
    }

    fn lhs(&self, i: usize) -> GemmOperand<'a, T> {
        let (data, view) = &self.a;
        let mut matrix = matrix(data, view, i);
        if let Some((stride, rows)) = self.joined {
            matrix.row_stride = stride;
            matrix.rows = rows;
        }
        matrix
    }

    fn rhs(&self, i: usize) -> GemmOperand<'a, T> {
        let (data, view) = &self.b;
        matrix(
            data,
            view,
            if view.layout.shape().rank() == 2 {
                0
            } else {
                i
            },
        )
    }
}

/// The `i`-th matrix of the last two axes.
fn matrix<'a, T>(data: &'a [T], view: &Input<'a>, i: usize) -> GemmOperand<'a, T> {
    let (shape, strides) = (view.layout.shape(), view.layout.strides());
    let lead = shape.rank() - 2;
    let (mut at, mut rest) = (view.layout.offset(), i);
    for axis in (0..lead).rev() {
        at += rest % shape[axis] * strides[axis];
        rest /= shape[axis];
    }
    GemmOperand {
        data: &data[at..],
        rows: shape[lead],
        columns: shape[lead + 1],
        row_stride: strides[lead],
        column_stride: strides[lead + 1],
    }
}

/// A row times a matrix. Its time is that of reading the matrix once, for which a tiled matmul is
/// slow.
#[derive(Clone, Copy)]
struct MatVec<'a, T> {
    x: &'a [T],
    b: GemmOperand<'a, T>,
}

/// Columns that are summed at a time: they stay in L1.
const COLUMNS: usize = 1024;
/// Rows of the matrix that are added at a time, and running sums of a dot product.
const ROWS: usize = 4;
const SUMS: usize = 64;

impl<'a, T: Float> MatVec<'a, T> {
    /// The kernel if it applies: one row, and a row-major or transposed matrix.
    fn of(a: &GemmOperand<'a, T>, b: &GemmOperand<'a, T>, alpha: T) -> Option<Self> {
        let suits = a.rows == 1
            && alpha == T::ONE
            && (a.column_stride == 1 || a.columns == 1)
            && (b.column_stride == 1 || b.row_stride == 1);
        suits.then(|| Self {
            x: &a.data[..a.columns],
            b: *b,
        })
    }

    /// The columns from `start` on, as many as `out` has elements.
    fn part<'o>(self, start: usize, out: &'o mut [T], accumulate: bool) -> MatVecPart<'a, 'o, T> {
        MatVecPart {
            whole: self,
            start,
            out,
            accumulate,
        }
    }
}

struct MatVecPart<'a, 'o, T> {
    whole: MatVec<'a, T>,
    start: usize,
    out: &'o mut [T],
    accumulate: bool,
}

impl<T: Float> WithSimd for MatVecPart<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let MatVec { x, b } = self.whole;
        if !self.accumulate {
            self.out.fill(T::ZERO);
        }
        if b.column_stride == 1 {
            for (block, out) in self.out.chunks_mut(COLUMNS).enumerate() {
                let at = self.start + block * COLUMNS;
                add_rows(out, x, b.data, at, b.row_stride);
            }
        } else {
            for (j, out) in self.out.iter_mut().enumerate() {
                let row = &b.data[(self.start + j) * b.column_stride..][..x.len()];
                *out = out.add(dot(x, row));
            }
        }
    }
}

/// `out += x[0] * row 0 + x[1] * row 1 + ..`, rows at `at` and each `stride` after.
#[inline(always)]
fn add_rows<T: Float>(out: &mut [T], x: &[T], data: &[T], at: usize, stride: usize) {
    let n = out.len();
    let (groups, rest) = x.as_chunks::<ROWS>();
    for (g, x) in groups.iter().enumerate() {
        let row = |i: usize| &data[at + (g * ROWS + i) * stride..][..n];
        let [r0, r1, r2, r3] = [row(0), row(1), row(2), row(3)];
        for (j, out) in out.iter_mut().enumerate() {
            let sum = x[0].mul(r0[j]).add(x[1].mul(r1[j]));
            let more = x[2].mul(r2[j]).add(x[3].mul(r3[j]));
            *out = out.add(sum.add(more));
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        let row = &data[at + (groups.len() * ROWS + i) * stride..][..n];
        for (out, &r) in out.iter_mut().zip(row) {
            *out = out.add(x.mul(r));
        }
    }
}

/// The dot product of two rows: [`SUMS`] interleaved partial sums that are added in a fixed order.
#[inline(always)]
fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::ZERO; SUMS];
    let (a, rest_a) = a.as_chunks::<SUMS>();
    let (b, rest_b) = b.as_chunks::<SUMS>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..SUMS {
            sums[i] = sums[i].add(a[i].mul(b[i]));
        }
    }
    let mut total = T::ZERO;
    for (&a, &b) in rest_a.iter().zip(rest_b) {
        total = total.add(a.mul(b));
    }
    // Halving keeps the additions in vectors.
    let mut width = SUMS / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] = sums[i].add(sums[i + width]);
        }
        width /= 2;
    }
    total.add(sums[0])
}
