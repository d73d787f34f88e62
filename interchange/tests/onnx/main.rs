//! Models of ONNX: its own tests, models of ONNX Runtime and PyTorch, written models, damaged files.

mod cases;
mod damaged;
mod errors;
mod export;
