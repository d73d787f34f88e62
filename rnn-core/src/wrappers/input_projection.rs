//! TensorFlow's `InputProjectionWrapper`.

use backend_api::{Activation, Backend, DType, Result, Tensor};
use serde::Deserialize;
use serde_json::Value;

use super::sample_output;
use crate::limits::{check_elements, check_sizes};
use crate::{
    AnyCell, Cell, CellConfig, Dense, Module, StepContext, Unroll, Visitor, cell_from_config,
};

/// A cell with a fully connected layer before its input (TensorFlow's `InputProjectionWrapper`):
///
/// `y, state' = cell(act(x · kernel + bias), state)`; the output is `y`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `[input, num_proj]` | Glorot uniform |
/// | `bias` | `[num_proj]` | 0 |
///
/// The wrapped cell takes inputs of depth `num_proj`; its parameters are in its own scope. Input
/// `[batch, input]`; state and output are the cell's.
///
/// ```
/// use recurrent::wrappers::InputProjectionWrapper;
/// use recurrent::{Device, DynamicRnn, GruCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = InputProjectionWrapper::new(GruCell::new(&device, 6, 5)?, 3, 6)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 4 * 3], &[2, 4, 3])?;
/// assert_eq!(DynamicRnn::new(&cell).run(&x)?.outputs.shape().dims(), [2, 4, 5]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct InputProjectionWrapper<C: Cell> {
    cell: C,
    layer: Dense<C::Backend>,
}

impl<C: Cell<Input = Tensor<<C as Module>::Backend>>> InputProjectionWrapper<C> {
    /// Wraps a cell with a projection from `input_size` to `num_proj`, the cell's input depth,
    /// without an activation.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn new(cell: C, input_size: usize, num_proj: usize) -> Result<Self> {
        Self::with(cell, input_size, num_proj, Activation::Identity)
    }

    /// As [`new`](Self::new), with an activation.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(
        cell: C,
        input_size: usize,
        num_proj: usize,
        activation: Activation,
    ) -> Result<Self> {
        let op = "input_projection_wrapper";
        check_sizes(op, [("input_size", input_size), ("num_proj", num_proj)])?;
        check_elements(op, "num_proj", &[input_size, num_proj])?;
        let y = sample_output(&cell)?;
        let layer = Dense::with(y.device(), input_size, num_proj, activation, y.dtype())?;
        Ok(Self { cell, layer })
    }
}

impl<C: Cell> Module for InputProjectionWrapper<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        self.layer.params(v);
        v.child(&self.cell.scope(), &mut self.cell);
    }
}

impl<C: Cell<Input = Tensor<<C as Module>::Backend>>> Cell for InputProjectionWrapper<C> {
    type Input = C::Input;
    type State = C::State;
    type Output = C::Output;

    fn scope(&self) -> String {
        "input_projection_wrapper".into()
    }

    fn zero_state(&self, batch: usize) -> Result<C::State> {
        self.cell.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        self.cell.zero_output(batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        x: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        self.cell.step(cx, &self.layer.forward(x)?, state)
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        xs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let wrapper = self.clone();
        u.segments(xs, state, move |u, xs, state| {
            wrapper.cell.unroll(u, &wrapper.layer.forward(xs)?, state)
        })
    }
}

/// Options of an [`InputProjectionWrapper`] around a cell from JSON.
///
/// ```
/// use recurrent::serde_json::json;
/// use recurrent::{DType, Device, Module, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let gru = json!({ "type": "GRUCell", "num_units": 5 });
/// let options = json!({ "type": "InputProjectionWrapper", "cell": gru, "num_proj": 4 });
/// let cell = cell_from_config(&Device::cpu(), &options, 3, DType::F32)?;
/// assert!(cell.named_params().iter().any(|(_, param)| param.shape().dims() == [3, 4]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputProjectionWrapperConfig {
    cell: Value,
    num_proj: usize,
    #[serde(default)]
    activation: Option<Activation>,
}

impl CellConfig for InputProjectionWrapperConfig {
    const CLASS: &'static str = "InputProjectionWrapper";
    type Cell<B: Backend> = InputProjectionWrapper<AnyCell<B>>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        let cell = cell_from_config(device, &self.cell, self.num_proj, dtype)?;
        let activation = self.activation.unwrap_or(Activation::Identity);
        InputProjectionWrapper::with(cell, input_size, self.num_proj, activation)
    }
}
