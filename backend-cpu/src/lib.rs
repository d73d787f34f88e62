//! The CPU backend: its own thread pools, SIMD kernels chosen at run time, pooled buffers.
//!
//! ```
//! use backend_api::Tensor;
//! use backend_cpu::Cpu;
//!
//! let cpu = Cpu::builder().threads(1).build()?;
//! let x = Tensor::from_slice(&cpu, &[1.0f32, 2.0, 3.0], &[3])?;
//! assert_eq!(x.square()?.to_vec::<f32>()?, [1.0, 4.0, 9.0]);
//! # Ok::<(), backend_api::Error>(())
//! ```
//!
//! # Reproducible results
//!
//! The same operation on the same operands gives the same bits for any number of threads: only
//! independent results are split over threads, and every sum has a fixed order. CPUs with other
//! vector instructions, or with AMX, may differ in the last bits, as matmuls accumulate with the
//! fused multiply-add of the CPU.
//!
//! # Precision
//!
//! Operations compute in the type of their operands; arithmetic on 16-bit floats is done in `f32`.
//! [`Builder::precision`] allows inference with weights of bfloat16 numbers or 8-bit integers.
//! Operands are never rounded otherwise.
//!
//! # Memory
//!
//! Freed buffers are kept for reuse, so that a training loop allocates nothing from the operating
//! system after its first step; see [`Cpu`] for the limit.

#![deny(unsafe_code)]

mod activations;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_amx.rs")]
mod amx;
mod backend;
mod bf16;
mod device;
mod element;
mod elementwise;
mod features;
mod functions;
mod gates;
mod gemm;
mod half;
mod int8;
mod lanes;
mod loss;
mod math;
mod matmul;
mod optimizer;
mod packed;
mod packed_matrix;
mod pages;
mod parallel;
mod pointwise;
mod pool;
mod prefetch;
mod product;
mod random;
mod reduce;
mod rows;
mod scan;
mod simd;
mod spin_pool;
mod steps;
mod storage;
mod streams;
mod strided;
mod tile;

pub use device::{Builder, Cpu, MAX_THREADS};
pub use storage::CpuBuffer;
