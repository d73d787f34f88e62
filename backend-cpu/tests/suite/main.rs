//! The operations, sequences and devices of the CPU backend.

mod callers;
mod common;
mod device;
mod fused;
mod ops;
