//! TensorFlow's `DeviceWrapper`.

use backend_api::{Backend, DType, Error, Result};
use serde::Deserialize;
use serde_json::Value;

use super::sample_output;
use crate::{
    AnyCell, Cell, CellConfig, Mode, Module, Nest, Step, Unroll, Visitor, cell_from_config,
};

/// A cell that runs on another device than the network around it (TensorFlow's `DeviceWrapper`).
///
/// The cell's parameters are moved to the device, once. Inputs and states are copied there, outputs and states are
/// copied back to the device that the cell was built on, for a whole sequence at once where the
/// cell runs over one; no number changes. Parameters keep their names. Where both devices are the same one, nothing is
/// copied.
///
/// A copy between devices has no gradient, so training across two devices is refused. [`Module::to`]
/// moves parameters only: wrap a cell once it is where the network is.
///
/// ```
/// use backend_cpu::Cpu;
/// use rnn_core::{Cell, DeviceWrapper, GruCell};
///
/// # fn main() -> backend_api::Result<()> {
/// let (here, there) = (Cpu::new(), Cpu::new());
/// let cell = DeviceWrapper::new(GruCell::new(&here, 3, 5)?, &there)?;
/// assert_eq!(cell.zero_state(2)?.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct DeviceWrapper<C: Cell> {
    cell: C,
    /// Where the cell runs.
    device: C::B,
    /// Where everything around it is.
    home: C::B,
}

impl<C: Cell> DeviceWrapper<C> {
    /// A wrapper that runs a cell on a device.
    ///
    /// # Errors
    /// A device has no room.
    pub fn new(cell: C, device: &C::B) -> Result<Self> {
        Ok(Self {
            home: sample_output(&cell)?.device().clone(),
            cell: cell.to(device)?,
            device: device.clone(),
        })
    }

    fn there<N: Nest<C::B>>(&self, nest: &N) -> Result<N> {
        nest.map(&mut |t| t.to(&self.device))
    }

    fn back<N: Nest<C::B>>(&self, nest: &N) -> Result<N> {
        nest.map(&mut |t| t.to(&self.home))
    }

    /// Runs the cell with everything on its device.
    fn run(
        &self,
        mode: Mode,
        input: &C::Input,
        state: &C::State,
        cell: impl FnOnce(&C::Input, &C::State) -> Result<(C::Output, C::State)>,
    ) -> Result<(C::Output, C::State)> {
        if mode == Mode::Training && !self.device.same_device(&self.home) {
            let (there, here) = (self.device.name(), self.home.name());
            let problem = format!(
                "is {there}, another than the {here} of the inputs, and gradients do not cross over"
            );
            return Err(Error::argument("device_wrapper", "device", problem));
        }
        let (output, state) = cell(&self.there(input)?, &self.there(state)?)?;
        Ok((self.back(&output)?, self.back(&state)?))
    }
}

impl<C: Cell> Module for DeviceWrapper<C> {
    type B = C::B;
    fn params(&mut self, v: &mut Visitor<'_, C::B>) {
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

    fn step(&self, cx: &Step, input: &C::Input, state: &C::State) -> Result<(C::Output, C::State)> {
        self.run(cx.mode, input, state, |input, state| {
            self.cell.step(cx, input, state)
        })
    }

    fn unroll(
        &self,
        u: &Unroll<C::B>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        self.run(u.mode(), inputs, state, |inputs, state| {
            self.cell.unroll(&u.to(&self.device)?, inputs, state)
        })
    }
}

/// Options of a [`DeviceWrapper`] around a cell that is known at run time. A name like TensorFlow's `/gpu:0` stands
/// for no device here, and placement changes no number: the cell is on the device that the rest is built on.
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
