//! Matrix multiplication with cuBLAS.
//!
//! cuBLAS is column-major: it reads a row-major matrix as its transpose. So `a b` is computed as
//! `bᵀ aᵀ`.

use std::ffi::c_void;

use backend_api::{Buffers, DType, Dest, Dests, Error, Layout, Precision, Result};
use cudarc::cublas::{result, sys};
use cudarc::driver::sys::CUdeviceptr;
use smallvec::smallvec;

use crate::blas::{self, Blas};
use crate::buffer::{CudaBuffer, Input, Output};
use crate::device::Cuda;

/// A matrix in device memory, in a form that cuBLAS can read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    /// Address of the first element.
    pub(crate) address: CUdeviceptr,
    /// Elements from one row to the next, or from one column to the next if `transposed`.
    pub(crate) stride: usize,
    /// Whether the elements of a column are adjacent, instead of those of a row.
    pub(crate) transposed: bool,
    /// Elements from one matrix of a batch to the next.
    pub(crate) batch_stride: usize,
}

impl Matrix {
    /// A single matrix whose rows are `stride` elements apart.
    pub(crate) fn rows(address: CUdeviceptr, stride: usize) -> Self {
        Self {
            address,
            stride,
            transposed: false,
            batch_stride: 0,
        }
    }

    pub(crate) fn transpose(mut self) -> Self {
        self.transposed = !self.transposed;
        self
    }

    fn operation(&self) -> sys::cublasOperation_t {
        match self.transposed {
            false => sys::cublasOperation_t::CUBLAS_OP_N,
            true => sys::cublasOperation_t::CUBLAS_OP_T,
        }
    }
}

/// `c = alpha * a b + beta * c`, for each of `count` matrices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) dtype: DType,
    pub(crate) precision: Precision,
    /// `m, k, n` of `[m, k] [k, n]`.
    pub(crate) sizes: [usize; 3],
    pub(crate) count: usize,
    pub(crate) alpha: f64,
    pub(crate) beta: f64,
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) c: Matrix,
}

impl Cuda {
    pub(crate) fn matmul(
        &self,
        dtype: DType,
        alpha: f64,
        precision: Precision,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let ([a, b], addend) = match ins {
            [a, b] => ([a, b], None),
            [a, b, c] => ([a, b], Some(c)),
            _ => return Err(Error::argument("matmul", "operands", "are missing")),
        };
        let (shape_a, shape_b) = (a.layout.shape(), b.layout.shape());
        let (rank_a, rank_b) = (shape_a.rank(), shape_b.rank());
        let (k, n) = (shape_b[rank_b - 2], shape_b[rank_b - 1]);
        let mut rows = shape_a[rank_a - 2];
        let mut count: usize = shape_a.dims()[..rank_a - 2].iter().product();
        if rank_b == 2 {
            // With a single right-hand side, the rows of all left-hand sides form one matrix.
            rows *= count;
            count = 1;
        }
        let [dest] = match <[_; 1]>::try_from(outs.into_vec()) {
            Ok(dest) => dest,
            Err(outs) => {
                let problem = format!("is {}, but must be 1", outs.len());
                return Err(Error::argument("run", "number of results", problem));
            }
        };
        let output = Output::new(self, dest)?;
        let to = output.layout();
        if !to.is_contiguous() {
            // The result has gaps: multiply into a dense buffer and copy it to the result.
            let meta = backend_api::Meta::new(to.shape(), dtype);
            let product = self.matmul(dtype, alpha, precision, ins, smallvec![Dest::New(meta)])?;
            let dense = Layout::contiguous(to.shape());
            self.copy_view(&product[0].view(&dense), output.address(), to)?;
            return Ok(smallvec![output.finish()]);
        }
        if let Some(c) = addend {
            self.copy_view(c, output.address(), to)?;
        }
        let address = output.address() + (to.offset() * dtype.size()) as u64;
        if to.shape().count() == 0 {
            return Ok(smallvec![output.finish()]);
        }
        if k == 0 {
            if addend.is_none() {
                self.clear(address, to.shape().count() * dtype.size())?;
            }
            return Ok(smallvec![output.finish()]);
        }
        let (a, _a) = self.matrix(a, rank_b == 2)?;
        let (b, _b) = self.matrix(b, false)?;
        let mut c = Matrix::rows(address, n);
        c.batch_stride = rows * n;
        self.product(&Product {
            dtype,
            precision,
            sizes: [rows, k, n],
            count,
            alpha,
            beta: if addend.is_some() { 1.0 } else { 0.0 },
            a,
            b,
            c,
        })?;
        Ok(smallvec![output.finish()])
    }

    /// An operand in a form that cuBLAS can read, copied if necessary. With `joined`, all leading
    /// axes are rows.
    pub(crate) fn matrix(&self, x: &Input<'_>, joined: bool) -> Result<(Matrix, CudaBuffer)> {
        let place = |buffer: &CudaBuffer, offset: usize| {
            Ok::<_, Error>(buffer.address()? + (offset * x.dtype.size()) as u64)
        };
        if let Some(mut matrix) = readable(x.layout, joined) {
            matrix.address = place(x.buffer, x.layout.offset())?;
            return Ok((matrix, x.buffer.clone()));
        }
        let (buffer, offset) = self.dense(x)?;
        let shape = x.layout.shape();
        let rank = shape.rank();
        let mut matrix = Matrix::rows(place(&buffer, offset)?, shape[rank - 1].max(1));
        matrix.batch_stride = shape[rank - 2] * shape[rank - 1];
        Ok((matrix, buffer))
    }

    /// Queues a matmul. No size may be 0.
    pub(crate) fn product(&self, p: &Product) -> Result<()> {
        let products = || self.with_blas(|blas| self.product_with(blas, p));
        self.pool().with_room(0, products)?;
        self.launched("cuBLAS")
    }

    /// Like [`product`](Self::product), with another handle and thus on its stream.
    pub(crate) fn product_with(&self, blas: &Blas, p: &Product) -> Result<()> {
        let [m, k, n] = p.sizes;
        let size = |x: usize| {
            i32::try_from(x).map_err(|_| {
                let problem = format!("have an axis of length {x}, which is too long for cuBLAS");
                Error::argument("matmul", "operands", problem)
            })
        };
        let (rows, inner, columns) = (size(m)?, size(k)?, size(n)?);
        let (lda, ldb, ldc) = (size(p.a.stride)?, size(p.b.stride)?, size(p.c.stride)?);
        let count = size(p.count)?;
        let (opa, opb) = (p.a.operation(), p.b.operation());
        let [stride_a, stride_b, stride_c] = [p.a, p.b, p.c].map(|x| x.batch_stride as i64);
        let [a, b, c] = [p.a, p.b, p.c].map(|x| x.address as *mut c_void);
        // `alpha` and `beta` have the compute type.
        let (alpha32, beta32) = (p.alpha as f32, p.beta as f32);
        let (alpha64, beta64) = (p.alpha, p.beta);
        use sys::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F};
        use sys::cudaDataType_t::{CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F, CUDA_R_64F};
        let (kind, compute) = match p.dtype {
            DType::F16 => (CUDA_R_16F, CUBLAS_COMPUTE_32F),
            DType::Bf16 => (CUDA_R_16BF, CUBLAS_COMPUTE_32F),
            DType::F32 => (CUDA_R_32F, compute_type(self.precision(p.precision))),
            _ => (CUDA_R_64F, CUBLAS_COMPUTE_64F),
        };
        let (alpha, beta): (*const c_void, *const c_void) = match p.dtype {
            DType::F64 => ((&raw const alpha64).cast(), (&raw const beta64).cast()),
            _ => ((&raw const alpha32).cast(), (&raw const beta32).cast()),
        };
        let algorithm = sys::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT;
        // SAFETY: the addresses are those of live buffers with as many elements as sizes and
        // strides require (checked by `infer`). The call reads the factors before it returns, and
        // the handle's stream orders the work.
        unsafe {
            if count == 1 {
                result::gemm_ex(
                    blas.handle(),
                    opb,
                    opa,
                    columns,
                    rows,
                    inner,
                    alpha,
                    b,
                    kind,
                    ldb,
                    a,
                    kind,
                    lda,
                    beta,
                    c,
                    kind,
                    ldc,
                    compute,
                    algorithm,
                )
            } else {
                result::gemm_strided_batched_ex(
                    blas.handle(),
                    opb,
                    opa,
                    columns,
                    rows,
                    inner,
                    alpha,
                    b,
                    kind,
                    ldb,
                    stride_b,
                    a,
                    kind,
                    lda,
                    stride_a,
                    beta,
                    c,
                    kind,
                    ldc,
                    stride_c,
                    count,
                    compute,
                    algorithm,
                )
            }
        }
        .map_err(|e| blas::failure(self.primary(), e))
    }
}

/// The cuBLAS compute type of `f32` matmuls.
fn compute_type(precision: Precision) -> sys::cublasComputeType_t {
    match precision {
        Precision::Tf32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        Precision::Bf16 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_16BF,
        _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    }
}

/// A matrix that reads `layout` in place, with the address still 0. `None` if cuBLAS cannot read
/// it.
fn readable(layout: &Layout, joined: bool) -> Option<Matrix> {
    let (shape, strides) = (layout.shape(), layout.strides());
    let lead = shape.rank() - 2;
    let (mut rows, columns) = (shape[lead], shape[lead + 1]);
    let (mut row_stride, column_stride) = (strides[lead], strides[lead + 1]);
    // Merge the leading axes into one, innermost first. Axes of length 1 do not matter.
    let (mut batch, mut batch_stride) = (1, 0);
    for axis in (0..lead).rev().filter(|&axis| shape[axis] != 1) {
        if batch == 1 {
            batch_stride = strides[axis];
        } else if strides[axis] != batch_stride * batch {
            return None;
        }
        batch *= shape[axis];
    }
    if joined && batch > 1 {
        if rows == 1 {
            row_stride = batch_stride;
        } else if batch_stride != row_stride * rows {
            return None;
        }
        rows *= batch;
        batch_stride = 0;
    }
    let matrix = |stride, transposed| Matrix {
        address: 0,
        stride,
        transposed,
        batch_stride,
    };
    // The stride of a single row or column is irrelevant.
    if (column_stride == 1 || columns == 1) && (row_stride >= columns || rows == 1) {
        let stride = if rows == 1 { columns } else { row_stride };
        Some(matrix(stride.max(1), false))
    } else if (row_stride == 1 || rows == 1) && (column_stride >= rows || columns == 1) {
        let stride = if columns == 1 { rows } else { column_stride };
        Some(matrix(stride.max(1), true))
    } else {
        None
    }
}
