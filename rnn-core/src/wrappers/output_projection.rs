//! TensorFlow's `OutputProjectionWrapper`.

use backend_api::{Activation, Backend, DType, Result, Tensor};
use serde::Deserialize;
use serde_json::Value;

use super::sample_output;
use crate::limits::{check_elements, check_sizes};
use crate::{
    AnyCell, Cell, CellConfig, Dense, Module, StepContext, Unroll, Visitor, cell_from_config,
};

/// A cell with a fully connected layer after its output (TensorFlow's `OutputProjectionWrapper`):
///
/// `y, state' = cell(x, state)`; the output is `act(y · kernel + bias)`. The state is not
/// projected.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[cell's output, output_size]` | Glorot uniform |
/// | `bias` | `[output_size]` | 0 |
///
/// The cell's parameters are in its own scope. Input and state are the cell's; output
/// `[batch, output_size]`.
///
/// ```
/// use recurrent::wrappers::OutputProjectionWrapper;
/// use recurrent::{BasicLstmCell, Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = OutputProjectionWrapper::new(BasicLstmCell::new(&Device::cpu(), 3, 8)?, 2)?;
/// assert_eq!(cell.zero_output(5)?.shape().dims(), [5, 2]);
/// assert_eq!(cell.zero_state(5)?.h.shape().dims(), [5, 8]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct OutputProjectionWrapper<C: Cell> {
    cell: C,
    layer: Dense<C::Backend>,
}

impl<C: Cell<Output = Tensor<<C as Module>::Backend>>> OutputProjectionWrapper<C> {
    /// Wraps a cell with a projection to `output_size`, without an activation.
    ///
    /// # Errors
    /// `output_size` is 0, or the device is out of memory.
    pub fn new(cell: C, output_size: usize) -> Result<Self> {
        Self::with(cell, output_size, Activation::Identity)
    }

    /// As [`new`](Self::new), with an activation.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(cell: C, output_size: usize, activation: Activation) -> Result<Self> {
        let op = "output_projection_wrapper";
        check_sizes(op, [("output_size", output_size)])?;
        let y = sample_output(&cell)?;
        let width = y.shape().last();
        check_elements(op, "output_size", &[width, output_size])?;
        let layer = Dense::with(y.device(), width, output_size, activation, y.dtype())?;
        Ok(Self { cell, layer })
    }
}

impl<C: Cell> Module for OutputProjectionWrapper<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        self.layer.params(v);
        v.child(&self.cell.scope(), &mut self.cell);
    }
}

impl<C: Cell<Output = Tensor<<C as Module>::Backend>>> Cell for OutputProjectionWrapper<C> {
    type Input = C::Input;
    type State = C::State;
    type Output = C::Output;

    fn scope(&self) -> String {
        "output_projection_wrapper".into()
    }

    fn zero_state(&self, batch: usize) -> Result<C::State> {
        self.cell.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        self.layer.zeros(batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        input: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let (output, state) = self.cell.step(cx, input, state)?;
        Ok((self.layer.forward(&output)?, state))
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let wrapper = self.clone();
        u.segments(inputs, state, move |u, inputs, state| {
            let (outputs, state) = wrapper.cell.unroll(u, inputs, state)?;
            let projected = wrapper.layer.forward(&outputs)?;
            Ok((u.mask_padding(&projected)?, state))
        })
    }
}

/// Options of an [`OutputProjectionWrapper`] around a cell from JSON.
///
/// ```
/// use recurrent::serde_json::json;
/// use recurrent::{Cell, DType, Device, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let gru = json!({ "type": "GRUCell", "num_units": 5 });
/// let options = json!({ "type": "OutputProjectionWrapper", "cell": gru, "output_size": 2 });
/// let cell = cell_from_config(&Device::cpu(), &options, 3, DType::F32)?;
/// assert_eq!(cell.output_size()?.total(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputProjectionWrapperConfig {
    cell: Value,
    output_size: usize,
    #[serde(default)]
    activation: Option<Activation>,
}

impl CellConfig for OutputProjectionWrapperConfig {
    const CLASS: &'static str = "OutputProjectionWrapper";
    type Cell<B: Backend> = OutputProjectionWrapper<AnyCell<B>>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        let cell = cell_from_config(device, &self.cell, input_size, dtype)?;
        let activation = self.activation.unwrap_or(Activation::Identity);
        OutputProjectionWrapper::with(cell, self.output_size, activation)
    }
}
