//! Inference on sequences that come step by step.

use backend_api::{Error, Result};

use super::dynamic_rnn::extent;
use crate::{Cell, Mode, Nest, Step, Unroll};

/// Runs a cell on sequences whose steps come one at a time, or some at a time: the state is carried from call to call.
///
/// The numbers are those that [`DynamicRnn`](crate::DynamicRnn) gives for the whole sequence, however it is cut: bit for bit on the
/// processor, for cells that run as one operation there (of `f32` or `f64`), else within rounding. What the processor makes of
/// the weights is kept while they live, so that a step does no more with them than read them once; once a stream has
/// run, the device's pool asks the system for nothing. The cell cannot change meanwhile, as the stream borrows it.
///
/// ```
/// use backend_api::Tensor;
/// use backend_cpu::Cpu;
/// use rnn_core::{BasicLstmCell, DynamicRnn, StreamingRnn};
///
/// # fn main() -> backend_api::Result<()> {
/// let device = Cpu::new();
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
    unroll: Unroll<C::B>,
    state: C::State,
}

impl<'a, C: Cell> StreamingRnn<'a, C> {
    /// A stream of so many rows, from the cell's zero state.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(cell: &'a C, batch: usize) -> Result<Self> {
        Self::from_state(cell, batch, cell.zero_state(batch)?)
    }

    /// A stream of so many rows that begins with a state.
    ///
    /// # Errors
    /// None yet: whether the state fits shows in the first step.
    pub fn from_state(cell: &'a C, batch: usize, state: C::State) -> Result<Self> {
        let mut unroll = Unroll::new(Step::new(Mode::Evaluation, 0), 1, batch);
        unroll.memo = Some(Default::default());
        Ok(Self {
            cell,
            unroll,
            state,
        })
    }

    /// The state after the last step.
    pub fn state(&self) -> &C::State {
        &self.state
    }

    /// How many steps have been taken.
    pub fn time(&self) -> usize {
        self.unroll.start
    }

    /// Begins anew with a state.
    pub fn restart(&mut self, state: C::State) {
        self.state = state;
        self.unroll.start = 0;
    }

    /// One step: `[batch, depth]` in every leaf to an output `[batch, units]`. After an error the state is as before.
    ///
    /// # Errors
    /// The input or the state does not fit the cell or the number of rows.
    pub fn step(&mut self, input: &C::Input) -> Result<C::Output> {
        let inputs = input.map(&mut |x| x.unsqueeze(0))?;
        self.run(&inputs)?.map(&mut |x| x.select(0, 0))
    }

    /// Some steps: `[time, batch, depth]` in every leaf to outputs `[time, batch, units]`.
    ///
    /// # Errors
    /// The inputs or the state do not fit the cell or the number of rows.
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
        let (outputs, state) = self.cell.unroll(&self.unroll, inputs, &self.state)?;
        self.state = state;
        self.unroll.start += steps;
        Ok(outputs)
    }
}
