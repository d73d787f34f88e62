//! Models of ONNX: its own tests, models of ONNX Runtime and PyTorch, written models, errors.

mod cases;
mod errors;
mod export;
mod external;
