//! TensorFlow's `DeviceWrapper`.

use backend_api::{Backend, DType, Error, Result};
use serde::Deserialize;
use serde_json::Value;

use super::sample_output;
use crate::{
    AnyCell, Cell, CellConfig, Mode, Module, Nest, StepContext, Unroll, Visitor, cell_from_config,
};

/// Runs a cell on another device than the network around it (TensorFlow's `DeviceWrapper`).
///
/// [`new`](Self::new) copies the cell's parameters to the device. Inputs and states are copied
/// there, and outputs and states are copied back to the device on which the cell was built. A
/// sequence is copied as a whole. Results do not change. Parameters keep their names. If both
/// devices are the same, nothing is copied.
///
/// A copy between devices has no gradient, so training across two devices is an error.
/// [`Module::to`] only moves parameters: move a cell to the network's device before wrapping it.
///
/// ```
/// use recurrent::wrappers::DeviceWrapper;
/// use recurrent::{Cell, Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let (outer, inner) = (Device::cpu(), Device::cpu());
/// let cell = DeviceWrapper::new(GruCell::new(&outer, 3, 5)?, &inner)?;
/// assert_eq!(cell.zero_state(2)?.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct DeviceWrapper<C: Cell> {
    cell: C,
    /// The device on which the cell runs.
    device: C::Backend,
    /// The device of the network around it.
    home: C::Backend,
}

impl<C: Cell> DeviceWrapper<C> {
    /// Creates a wrapper that runs a cell on a device.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(cell: C, device: &C::Backend) -> Result<Self> {
        Ok(Self {
            home: sample_output(&cell)?.device().clone(),
            cell: cell.to(device)?,
            device: device.clone(),
        })
    }

    fn to_device<N: Nest<C::Backend>>(&self, nest: &N) -> Result<N> {
        nest.map(&mut |t| t.to(&self.device))
    }

    fn back<N: Nest<C::Backend>>(&self, nest: &N) -> Result<N> {
        nest.map(&mut |t| t.to(&self.home))
    }

    /// Runs the cell with all operands on its device.
    fn run(
        &self,
        mode: Mode,
        input: &C::Input,
        state: &C::State,
        cell: impl FnOnce(&C::Input, &C::State) -> Result<(C::Output, C::State)>,
    ) -> Result<(C::Output, C::State)> {
        if mode.is_training() && !self.device.same_device(&self.home) {
            let (inner, outer) = (self.device.name(), self.home.name());
            let problem = format!(
                "is {inner}, but the inputs are on {outer}, and gradients do not cross devices"
            );
            return Err(Error::argument("device_wrapper", "device", problem));
        }
        let (output, state) = cell(&self.to_device(input)?, &self.to_device(state)?)?;
        Ok((self.back(&output)?, self.back(&state)?))
    }
}

impl<C: Cell> Module for DeviceWrapper<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        self.cell.params(v);
    }
}

impl<C: Cell> Cell for DeviceWrapper<C> {
    type Input = C::Input;
    type State = C::State;
    type Output = C::Output;

    fn scope(&self) -> String {
        self.cell.scope()
    }

    fn zero_state(&self, batch: usize) -> Result<C::State> {
        self.back(&self.cell.zero_state(batch)?)
    }

    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        self.back(&self.cell.zero_output(batch)?)
    }

    fn step(
        &self,
        cx: &StepContext,
        input: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        self.run(cx.mode(self)?, input, state, |input, state| {
            self.cell.step(cx, input, state)
        })
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        self.run(u.mode(self)?, inputs, state, |inputs, state| {
            self.cell.unroll(&u.to(&self.device)?, inputs, state)
        })
    }
}

/// Options of a [`DeviceWrapper`] around a cell from JSON. TensorFlow's device names, for example
/// `/gpu:0`, have no meaning here. Placement does not affect results, so the cell runs on the
/// device on which it is built.
///
/// ```
/// use recurrent::serde_json::json;
/// use recurrent::{Cell, DType, Device, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let gru = json!({ "type": "GRUCell", "num_units": 5 });
/// let options = json!({ "type": "DeviceWrapper", "cell": gru, "device": "/gpu:0" });
/// let cell = cell_from_config(&Device::cpu(), &options, 3, DType::F32)?;
/// assert_eq!(cell.output_size()?.total(), 5);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceWrapperConfig {
    cell: Value,
    #[serde(rename = "device")]
    _device: String,
}

impl CellConfig for DeviceWrapperConfig {
    const CLASS: &'static str = "DeviceWrapper";
    type Cell<B: Backend> = DeviceWrapper<AnyCell<B>>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        let cell = cell_from_config(device, &self.cell, input_size, dtype)?;
        DeviceWrapper::new(cell, device)
    }
}
