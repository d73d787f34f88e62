//! Cells around cells.

mod concat_state;
mod multi;

pub use concat_state::ConcatState;
pub use multi::{MultiRnnCell, MultiRnnCellConfig};
