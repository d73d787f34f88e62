//! Cells that wrap other cells.

mod attention;
mod compiled;
mod concat_state;
mod device;
mod dropout;
mod embedding;
mod highway;
mod input_projection;
mod multi;
mod output_projection;
mod residual;

pub use attention::{AttentionCellWrapper, AttentionCellWrapperBuilder};
pub use compiled::CompiledWrapperConfig;
pub use concat_state::ConcatState;
pub use device::{DeviceWrapper, DeviceWrapperConfig};
pub use dropout::{DropoutWrapper, DropoutWrapperBuilder, NoiseSource, StateFilter};
pub use embedding::{EmbeddingWrapper, EmbeddingWrapperConfig};
pub use highway::{HighwayWrapper, HighwayWrapperConfig};
pub use input_projection::{InputProjectionWrapper, InputProjectionWrapperConfig};
pub use multi::{Layers, MultiRnnCell, MultiRnnCellConfig};
pub use output_projection::{OutputProjectionWrapper, OutputProjectionWrapperConfig};
pub use residual::{ResidualWrapper, ResidualWrapperConfig};

use backend_api::{Error, Result, Tensor};

use crate::{Cell, Nest};

/// The first output tensor of a cell, for one row. A wrapper's own parameters have its device, type
/// and width.
fn sample_output<C: Cell>(cell: &C) -> Result<Tensor<C::Backend>> {
    match cell.zero_output(1)?.leaves().first() {
        Some(&leaf) => Ok(leaf.clone()),
        None => Err(Error::argument("wrapper", "cell", "has no output")),
    }
}
