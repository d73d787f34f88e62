//! Models of other frameworks: TensorFlow 1 checkpoints and graphs, Keras, PyTorch, ONNX, NumPy.

#![forbid(unsafe_code)]

pub mod onnx;
