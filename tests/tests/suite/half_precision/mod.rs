//! 16-bit floats: casts, operations, whole models, long sums, and inference with rounded matmuls.

mod casts;
mod long_sums;
mod models;
mod operations;
mod rounded_inference;
