//! Jobs of several ranks.

mod job;
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod run;
