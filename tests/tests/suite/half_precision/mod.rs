//! 16-bit floats: casts, operations, whole models, and matmuls that round to bfloat16.

mod bf16_inference;
mod casts;
mod models;
mod operations;
