//! cuBLAS compared with plain loops.

use crate::common::{Device, device, numbers};
use cudarc::cublas::{CudaBlas, result::CublasError, sys};
use cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr};
use half::{bf16, f16};
use sys::cublasComputeType_t as Compute;
use sys::cublasOperation_t::{CUBLAS_OP_N as N, CUBLAS_OP_T as T};
use sys::cudaDataType_t as Type;

const SHAPE: (usize, usize, usize) = (33, 29, 47);

/// Row-major C[m,n] = A[m,k] B[k,n] + beta C, computed as column-major C' = B' A'. Operands are
/// stored transposed if `transposed` says so.
struct Product<'a> {
    blas: &'a CudaBlas,
    types: (Type, Type),
    compute: Compute,
    transposed: (bool, bool),
    beta: f32,
    batch: usize,
}

impl Product<'_> {
    fn run<X: DeviceRepr, Y: DeviceRepr>(
        &self,
        device: &Device,
        a: &CudaSlice<X>,
        b: &CudaSlice<X>,
        c: &mut CudaSlice<Y>,
    ) -> Result<(), CublasError> {
        let (m, n, k) = SHAPE;
        let (wide, wide_one) = (f64::from(self.beta), 1_f64);
        let double = self.compute == Compute::CUBLAS_COMPUTE_64F;
        let (alpha, beta): (*const std::ffi::c_void, *const std::ffi::c_void) = if double {
            ((&raw const wide_one).cast(), (&raw const wide).cast())
        } else {
            ((&raw const ONE).cast(), (&raw const self.beta).cast())
        };
        let (op_a, lda) = if self.transposed.0 { (T, m) } else { (N, k) };
        let (op_b, ldb) = if self.transposed.1 { (T, k) } else { (N, n) };
        // SAFETY: the slices have the sizes of the matrices, and the scalars outlive the call.
        unsafe {
            cudarc::cublas::result::gemm_strided_batched_ex(
                *self.blas.handle(),
                op_b,
                op_a,
                n as i32,
                m as i32,
                k as i32,
                alpha,
                b.device_ptr(&device.stream).0 as *const _,
                self.types.0,
                ldb as i32,
                (k * n) as i64,
                a.device_ptr(&device.stream).0 as *const _,
                self.types.0,
                lda as i32,
                (m * k) as i64,
                beta,
                c.device_ptr_mut(&device.stream).0 as *mut _,
                self.types.1,
                n as i32,
                (m * n) as i64,
                self.batch as i32,
                self.compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
    }
}

static ONE: f32 = 1.0;

fn expected(a: &[f64], b: &[f64], transposed: (bool, bool)) -> Vec<f64> {
    let (m, n, k) = SHAPE;
    let at_a = |i: usize, p: usize| a[if transposed.0 { p * m + i } else { i * k + p }];
    let at_b = |p: usize, j: usize| b[if transposed.1 { j * k + p } else { p * n + j }];
    let element = |i, j| (0..k).map(|p| at_a(i, p) * at_b(p, j)).sum();
    (0..m)
        .flat_map(|i| (0..n).map(move |j| (i, j)))
        .map(|(i, j)| element(i, j))
        .collect()
}

fn error(got: impl IntoIterator<Item = f64>, want: &[f64]) -> f64 {
    got.into_iter()
        .zip(want)
        .map(|(g, w)| (g - w).abs())
        .fold(0.0, |a, b| if b.is_nan() { f64::NAN } else { a.max(b) })
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn all_transpositions_and_batches_in_f32_and_f64() {
    let device = device();
    let blas = CudaBlas::new(device.stream.clone()).unwrap();
    let (m, n, k) = SHAPE;
    let (a, b) = (numbers(2 * m * k, 1, 1.0), numbers(2 * k * n, 2, 1.0));
    for transposed in [(false, false), (false, true), (true, false), (true, true)] {
        let mut want = expected(&wide(&a[..m * k]), &wide(&b[..k * n]), transposed);
        want.extend(expected(&wide(&a[m * k..]), &wide(&b[k * n..]), transposed));
        let product = |types, compute| Product {
            blas: &blas,
            types,
            compute,
            transposed,
            beta: 0.0,
            batch: 2,
        };

        let (da, db) = (
            device.stream.clone_htod(&a).unwrap(),
            device.stream.clone_htod(&b).unwrap(),
        );
        // SAFETY: the product writes every element; with beta 0 it must not read the poison.
        let mut c = unsafe { device.stream.alloc::<f32>(2 * m * n) }.unwrap();
        let single = product(
            (Type::CUDA_R_32F, Type::CUDA_R_32F),
            Compute::CUBLAS_COMPUTE_32F,
        );
        single.run(&device, &da, &db, &mut c).unwrap();
        assert!(error(wide(&device.stream.clone_dtoh(&c).unwrap()), &want) < 1e-5);

        let (da, db) = (
            device.stream.clone_htod(&wide(&a)).unwrap(),
            device.stream.clone_htod(&wide(&b)).unwrap(),
        );
        let mut c = device.stream.alloc_zeros::<f64>(2 * m * n).unwrap();
        let double = product(
            (Type::CUDA_R_64F, Type::CUDA_R_64F),
            Compute::CUBLAS_COMPUTE_64F,
        );
        double.run(&device, &da, &db, &mut c).unwrap();
        assert!(error(device.stream.clone_dtoh(&c).unwrap(), &want) < 1e-13);
    }
}

#[test]
fn beta_adds_the_previous_content() {
    let device = device();
    let blas = CudaBlas::new(device.stream.clone()).unwrap();
    let (m, n, k) = SHAPE;
    let (a, b, old) = (
        numbers(m * k, 1, 1.0),
        numbers(k * n, 2, 1.0),
        numbers(m * n, 3, 1.0),
    );
    let (da, db) = (
        device.stream.clone_htod(&a).unwrap(),
        device.stream.clone_htod(&b).unwrap(),
    );
    let mut c = device.stream.clone_htod(&old).unwrap();
    let types = (Type::CUDA_R_32F, Type::CUDA_R_32F);
    let compute = Compute::CUBLAS_COMPUTE_32F;
    let product = Product {
        blas: &blas,
        types,
        compute,
        transposed: (false, false),
        beta: 0.5,
        batch: 1,
    };
    product.run(&device, &da, &db, &mut c).unwrap();
    let want = expected(&wide(&a), &wide(&b), (false, false));
    let want: Vec<f64> = want
        .iter()
        .zip(&old)
        .map(|(w, &o)| w + 0.5 * f64::from(o))
        .collect();
    assert!(error(wide(&device.stream.clone_dtoh(&c).unwrap()), &want) < 1e-5);
}

/// The error shows that inputs are rounded, and not more than expected.
#[test]
fn compute_types_and_math_modes_round_the_inputs() {
    let device = device();
    let blas = CudaBlas::new(device.stream.clone()).unwrap();
    let (m, n, k) = SHAPE;
    let (a, b) = (numbers(m * k, 1, 1.0), numbers(k * n, 2, 1.0));
    let want = expected(&wide(&a), &wide(&b), (false, false));
    let (da, db) = (
        device.stream.clone_htod(&a).unwrap(),
        device.stream.clone_htod(&b).unwrap(),
    );
    let error_of = |compute| {
        let types = (Type::CUDA_R_32F, Type::CUDA_R_32F);
        let product = Product {
            blas: &blas,
            types,
            compute,
            transposed: (false, false),
            beta: 0.0,
            batch: 1,
        };
        let mut c = device.stream.alloc_zeros::<f32>(m * n).unwrap();
        product.run(&device, &da, &db, &mut c).unwrap();
        error(wide(&device.stream.clone_dtoh(&c).unwrap()), &want)
    };
    let (tf32, bf16) = (1e-4..5e-3, 1e-3..5e-2);
    assert!(error_of(Compute::CUBLAS_COMPUTE_32F) < 1e-5);
    assert!(tf32.contains(&error_of(Compute::CUBLAS_COMPUTE_32F_FAST_TF32)));
    assert!(tf32.contains(&error_of(Compute::CUBLAS_COMPUTE_32F_FAST_16F)));
    assert!(bf16.contains(&error_of(Compute::CUBLAS_COMPUTE_32F_FAST_16BF)));
    // SAFETY: the handle is alive.
    unsafe {
        sys::cublasSetMathMode(
            *blas.handle(),
            sys::cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH,
        )
    }
    .result()
    .unwrap();
    assert!(tf32.contains(&error_of(Compute::CUBLAS_COMPUTE_32F)));
    assert!(error_of(Compute::CUBLAS_COMPUTE_32F_PEDANTIC) < 1e-5);
}

#[test]
fn types_of_16_bits_are_read_and_written() {
    let device = device();
    let blas = CudaBlas::new(device.stream.clone()).unwrap();
    let (m, n, k) = SHAPE;
    let (a, b) = (numbers(m * k, 1, 1.0), numbers(k * n, 2, 1.0));
    macro_rules! check {
        ($short:ty, $type:expr, $limit:expr) => {{
            let short = |x: &[f32]| x.iter().map(|&v| <$short>::from_f32(v)).collect::<Vec<_>>();
            let long = |x: &[$short]| x.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
            let (sa, sb) = (short(&a), short(&b));
            let want = expected(&long(&sa), &long(&sb), (false, false));
            let (da, db) = (
                device.stream.clone_htod(&sa).unwrap(),
                device.stream.clone_htod(&sb).unwrap(),
            );
            let compute = Compute::CUBLAS_COMPUTE_32F;
            let product = |types| Product {
                blas: &blas,
                types,
                compute,
                transposed: (false, false),
                beta: 0.0,
                batch: 1,
            };
            let mut c = device.stream.alloc_zeros::<f32>(m * n).unwrap();
            product(($type, Type::CUDA_R_32F))
                .run(&device, &da, &db, &mut c)
                .unwrap();
            assert!(error(wide(&device.stream.clone_dtoh(&c).unwrap()), &want) < 1e-5);
            let mut c = device
                .stream
                .clone_htod(&vec![<$short>::from_f32(0.0); m * n])
                .unwrap();
            product(($type, $type))
                .run(&device, &da, &db, &mut c)
                .unwrap();
            let e = error(long(&device.stream.clone_dtoh(&c).unwrap()), &want);
            assert!(e > 1e-5 && e < $limit, "{e}");
        }};
    }
    check!(f16, Type::CUDA_R_16F, 8e-3);
    check!(bf16, Type::CUDA_R_16BF, 6e-2);
}

#[test]
fn out_of_bounds_matrices_are_found() {
    let device = device();
    let blas = CudaBlas::new(device.stream.clone()).unwrap();
    let (m, n, k) = SHAPE;
    let (a, b) = (
        device.stream.alloc_zeros::<f32>(m * k - 1).unwrap(),
        device.stream.alloc_zeros::<f32>(k * n).unwrap(),
    );
    let mut c = device.stream.alloc_zeros::<f32>(m * n).unwrap();
    let types = (Type::CUDA_R_32F, Type::CUDA_R_32F);
    let compute = Compute::CUBLAS_COMPUTE_32F;
    let product = Product {
        blas: &blas,
        types,
        compute,
        transposed: (false, false),
        beta: 0.0,
        batch: 1,
    };
    product.run(&device, &a, &b, &mut c).unwrap();
    let (code, report) = device.failure();
    assert_eq!(
        code,
        Some(crate::common::sys_code::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS)
    );
    // Row-major A is the second operand of the column-major product.
    assert!(report.contains("matrix B"), "{report}");
}
