//! Inference on sequences that arrive step by step.

use std::sync::Arc;

use backend_api::{Error, Result};

use super::dynamic_rnn::extent;
use crate::{Cell, Mode, Nest, StepContext, Unroll};

/// Runs a cell on sequences that arrive one or several steps at a time. The state is carried from
/// call to call.
///
/// The results equal those of [`DynamicRnn`](crate::DynamicRnn) on the whole sequence, however the
/// sequence is split into calls. They are bit-identical on the CPU for `f32` and `f64` cells that
/// run there as one operation, and equal within rounding otherwise.
///
/// The CPU caches the packed weights as long as the weights live, so that a step only reads them
/// once. After the first steps, the device's pool allocates nothing from the operating system. The
/// stream borrows the cell, so the weights cannot change during the stream.
///
/// ```
/// use recurrent::{BasicLstmCell, Device, DynamicRnn, StreamingRnn, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicLstmCell::new(&device, 4, 8)?;
/// let x = Tensor::from_slice(&device, &[0.1f32; 2 * 5 * 4], &[2, 5, 4])?;
/// let all = DynamicRnn::new(&cell).run(&x)?;
/// let mut stream = StreamingRnn::new(&cell, 2)?;
/// for t in 0..5 {
///     let output = stream.step(&x.select(1, t)?)?;
///     assert_eq!(output.to_vec::<f32>()?, all.outputs.select(1, t)?.to_vec::<f32>()?);
/// }
/// assert_eq!(stream.state().h.to_vec::<f32>()?, all.state.h.to_vec::<f32>()?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct StreamingRnn<'a, C: Cell> {
    cell: &'a C,
    unroll: Unroll<C::Backend>,
    state: C::State,
}

impl<'a, C: Cell> StreamingRnn<'a, C> {
    /// Creates a stream of `batch` rows that starts from the cell's zero state.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(cell: &'a C, batch: usize) -> Result<Self> {
        Self::from_state(cell, batch, cell.zero_state(batch)?)
    }

    /// Creates a stream of `batch` rows that starts from the given state.
    ///
    /// # Errors
    /// None at present: the first step checks the state.
    pub fn from_state(cell: &'a C, batch: usize, state: C::State) -> Result<Self> {
        let mut unroll = Unroll::new(StepContext::new(Mode::Evaluation), 1, batch);
        unroll.traced = Some(Default::default());
        Ok(Self {
            cell,
            unroll,
            state,
        })
    }

    /// The current state.
    pub fn state(&self) -> &C::State {
        &self.state
    }

    /// The number of steps taken.
    pub fn time(&self) -> usize {
        self.unroll.start
    }

    /// Restarts the stream from the given state.
    pub fn restart(&mut self, state: C::State) {
        self.state = state;
        self.unroll.start = 0;
    }

    /// Runs one step: `[batch, depth]` in every leaf to an output `[batch, units]`. After an error
    /// the state is unchanged.
    ///
    /// # Errors
    /// The input or the state does not fit the cell or the batch size.
    pub fn step(&mut self, input: &C::Input) -> Result<C::Output> {
        let inputs = input.map(&mut |x| x.unsqueeze(0))?;
        self.run(&inputs)?.map(&mut |x| x.select(0, 0))
    }

    /// Runs several steps: `[time, batch, depth]` in every leaf to outputs `[time, batch, units]`.
    /// After an error the state is unchanged.
    ///
    /// # Errors
    /// The inputs or the state do not fit the cell or the batch size.
    pub fn run(&mut self, inputs: &C::Input) -> Result<C::Output> {
        let (steps, batch) = extent("streaming_rnn", inputs, true)?;
        if batch != self.unroll.batch {
            let problem = format!(
                "have {batch} rows, but the stream has {}",
                self.unroll.batch
            );
            return Err(Error::argument("streaming_rnn", "inputs", problem));
        }
        self.unroll.steps = steps;
        match Arc::get_mut(&mut self.unroll.stepped) {
            Some(stepped) => *stepped.get_mut() = 0,
            // A copy of the stream counts for itself.
            None => self.unroll.stepped = Arc::default(),
        }
        let (outputs, state) =
            Mode::outside(|| self.cell.unroll(&self.unroll, inputs, &self.state))?;
        self.state = state;
        self.unroll.start += steps;
        Ok(outputs)
    }
}
