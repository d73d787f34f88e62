//! TensorFlow's `CompiledWrapper`.

use backend_api::{Backend, DType, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::{AnyCell, CellConfig, cell_from_config};

/// Options of TensorFlow's `CompiledWrapper`, which requests that a cell be compiled. Cells here
/// always use the fastest path of their device, so this builds the cell itself.
///
/// ```
/// use recurrent::{Cell, DType, Device, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let gru = serde_json::json!({ "type": "GRUCell", "num_units": 5 });
/// let options = serde_json::json!({ "type": "CompiledWrapper", "cell": gru });
/// assert_eq!(cell_from_config(&Device::cpu(), &options, 3, DType::F32)?.scope(), "gru_cell");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompiledWrapperConfig {
    cell: Value,
    #[serde(default, rename = "compile_stateful")]
    _compile_stateful: bool,
}

impl CellConfig for CompiledWrapperConfig {
    const CLASS: &'static str = "CompiledWrapper";
    type Cell<B: Backend> = AnyCell<B>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<AnyCell<B>> {
        cell_from_config(device, &self.cell, input_size, dtype)
    }
}
