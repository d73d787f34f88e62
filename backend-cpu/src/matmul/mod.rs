//! Matrix multiplication.

mod on_amx;
mod row_times_matrix;

use backend_api::{Buffers, Dests, Error, Result};

pub(crate) use self::on_amx::AMX_COLUMNS;
use self::row_times_matrix::RowTimesMatrix;
use crate::device::Cpu;
use crate::element::Float;
use crate::gemm::{self, GemmOperand, gemm};
use crate::storage::{CpuBuffer, Input, Output, dests};
use crate::strided::{Stream, Walk};

/// Multiplications below which a matmul is not worth another thread.
const MIN_PRODUCTS: usize = 1 << 20;
/// The same for the rayon pool, whose threads sleep.
const MIN_POOLED: usize = 1 << 23;

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
            .map(|c| Stream::new(c.buffer.elements::<T>(), c.layout));
        if let Some(c) = &addend {
            self.split(out.len(), [(&mut *out, 1)], 1, &|range, [out]| {
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
                    if self.suits_amx(&a, &b, alpha) {
                        if self.amx_product(out, a, b, accumulate)? {
                            continue;
                        }
                        if let Some(c) = &addend {
                            c.read(at, out);
                        }
                    }
                    self.product(out, a, b, alpha, accumulate);
                }
            } else {
                self.split(batches.count, [(out, m * n)], one / 8, &|range, [out]| {
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
        if let Some(kernel) = RowTimesMatrix::of(&a, &b, alpha) {
            self.split(out.len(), [(out, 1)], b.rows / 4, &|range, [out]| {
                self.arch()
                    .dispatch(kernel.part(range.start, out, accumulate));
            });
            return;
        }
        let products = a.rows * a.columns * b.columns;
        if products >= MIN_PRODUCTS && gemm::may_split(&a, &b, self.threads()) {
            let per_row = a.columns * b.columns;
            self.split(a.rows, [(out, b.columns)], per_row, &|range, [out]| {
                gemm(out, a.row_range(range), b, alpha, accumulate, 1);
            });
            return;
        }
        match self.workers() {
            Some(workers) if products >= MIN_POOLED => {
                workers.install(|| gemm(out, a, b, alpha, accumulate, self.threads()));
            }
            _ => gemm(out, a, b, alpha, accumulate, 1),
        }
    }

    fn serial_product<T: Float>(
        &self,
        out: &mut [T],
        a: GemmOperand<'_, T>,
        b: GemmOperand<'_, T>,
        alpha: T,
        accumulate: bool,
    ) {
        match RowTimesMatrix::of(&a, &b, alpha) {
            Some(kernel) => self.arch().dispatch(kernel.part(0, out, accumulate)),
            None => gemm(out, a, b, alpha, accumulate, 1),
        }
    }
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
