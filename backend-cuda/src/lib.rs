//! NVIDIA GPUs as a device of `recurrent`.
//!
//! Nothing of CUDA is needed to build: the driver, NVRTC and cuBLAS are looked for when a [`Cuda`] is made, and what is
//! missing then is an [`Error::Unavailable`](backend_api::Error::Unavailable) that says so. The kernels lie in `kernels/`;
//! NVRTC compiles them for the device's architecture at first use, and what it made is kept on disk ([`kernels`]).
//!
//! Work is queued on one stream and done in order; a result is waited for when it is read. Memory is taken from a
//! pool of the device's own and goes back to it, so that a loop in steady state asks the driver for none.

mod blas;
mod buffer;
mod cache;
mod codes;
mod device;
mod driver;
mod elementwise;
mod fault;
mod gates;
mod host;
pub mod kernels;
mod launch;
mod load;
mod loss;
mod matmul;
mod optimizer;
mod persistent;
mod pool;
mod random;
mod reduce;
mod replay;
mod rows;
mod sequence;
mod sequence_grad;
mod strided;
mod swap;

pub use buffer::CudaBuffer;
pub use device::Cuda;
pub use swap::Swapped;
