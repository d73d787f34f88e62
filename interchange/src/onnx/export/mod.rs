//! Cells as ONNX models.

mod graph;
mod layer;

pub use graph::{write, write_bidirectional};
pub use layer::{Exportable, Layer};
