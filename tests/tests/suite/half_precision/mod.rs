//! 16-bit floats: casts, operations, whole models, long sums, and matmuls that round to bfloat16.

mod bf16_inference;
mod casts;
mod long_sums;
mod models;
mod operations;
