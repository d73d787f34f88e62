//! Engines that move bytes between the ranks of a job: implementations of
//! [`Collective`](rnn_train::parallel::Collective) for training on several machines.
//!
//! | engine | between | needs |
//! |---|---|---|
//! | [`Mpi`] | processes | a library of MPI with the standard ABI of MPI 5, found at run time |
//! | [`Mpi`] (feature `rsmpi`) | processes | the library of MPI that the program was built for |
//! | `Nccl` (feature `nccl`) | GPUs of NVIDIA | NCCL, found at run time |
//!
//! [`Local`](rnn_train::parallel::Local), between threads, is beside the trait.

#![deny(unsafe_code)]

#[cfg(any(not(feature = "rsmpi"), feature = "nccl"))]
mod library;
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;

pub use mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
