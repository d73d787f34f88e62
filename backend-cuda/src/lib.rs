//! The CUDA backend of `recurrent`: tensors and recurrent layers on NVIDIA GPUs.
//!
//! Building needs no part of CUDA. Creating a [`Cuda`] loads the driver, NVRTC and cuBLAS; a
//! missing library is reported as [`Error::Unavailable`](backend_api::Error::Unavailable). The
//! kernel sources are in `kernels/`. NVRTC compiles them for the device's architecture at first
//! use, and a disk cache keeps the machine code ([`kernels`]).
//!
//! All work is queued on one stream and runs in order. The host waits only when it reads a result.
//! Device memory comes from a pool per device, so a loop in steady state does not allocate from the
//! driver.

mod arguments;
mod backend;
mod blas;
mod buffer;
mod builder;
mod cache;
mod codes;
mod device;
mod driver;
mod elementwise;
mod fault;
mod gates;
mod graphs;
mod host;
pub mod kernels;
mod launch;
mod libraries;
mod load;
mod loss;
mod matmul;
mod optimizer;
mod persistent;
mod pool;
mod primary;
mod random;
mod ranges;
mod reduce;
mod rows;
mod scan;
mod steps;
mod strided;
mod swap;
mod swapper;

pub use buffer::CudaBuffer;
pub use builder::CudaBuilder;
pub use device::Cuda;
pub use scan::step_source;
pub use swapper::Swapped;
