//! Gradients compared with finite differences.

mod cells;
mod contributed_cells;
mod driver;
mod operations;

pub use operations::check_op;
