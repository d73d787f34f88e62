//! TensorFlow's `dynamic_rnn`.

use std::sync::{Arc, Mutex};

use backend_api::{Backend, Error, MemoryPolicy, Meta, Result, Shape, Tensor};

use super::lengths::{Lengths, upload};
use super::memory::MemorySettings;
use crate::unroll::locked;
use crate::{Cell, Explanation, Mode, Nest, StepContext, Unroll};

/// Runs a cell over a batch of sequences; TensorFlow's `dynamic_rnn`.
///
/// Inputs are `[batch, time, ..]` in every leaf, or `[time, batch, ..]` with
/// [`time_major`](Self::time_major). Outputs have the same order of axes.
///
/// With [`sequence_length`](Self::sequence_length), the outputs of a row are zero at and after its
/// length, and its final state is the state after its last step. Padding therefore affects neither
/// results nor gradients, even if it is NaN. A row of length 0 returns its initial state, which may
/// be NaN too; a length above the number of steps is the same as the number of steps.
///
/// ```
/// use recurrent::{BasicLstmCell, Device, DynamicRnn, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicLstmCell::new(&device, 4, 8)?;
/// let x = Tensor::from_slice(&device, &[0.1f32; 2 * 5 * 4], &[2, 5, 4])?;
/// let rnn = DynamicRnn::new(&cell).sequence_length(&[5, 3]).run(&x)?;
/// assert_eq!(rnn.outputs.shape().dims(), [2, 5, 8]);
/// assert_eq!(rnn.outputs.to_vec::<f32>()?[8 * 8..], [0.0; 2 * 8]);
/// assert_eq!(rnn.state.h.shape().dims(), [2, 8]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "call `run`"]
pub struct DynamicRnn<'a, C: Cell> {
    pub(super) cell: &'a C,
    lengths: Option<Lengths<C::Backend>>,
    initial_state: Option<C::State>,
    time_major: bool,
    pub(super) mode: Option<Mode>,
    /// The number of steps before the inputs, for random numbers.
    pub(super) start: usize,
    pub(super) memory: MemorySettings,
}

/// Outputs and final state of a driver.
///
/// ```
/// use recurrent::{Device, DynamicRnn, GruCell, RnnOutput, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 4, 8)?;
/// let x = Tensor::ones(&device, &[2, 5, 4])?;
/// let RnnOutput { outputs, state, .. } = DynamicRnn::new(&cell).sequence_length(&[5, 3]).run(&x)?;
/// // The output of a GRU is its state: that of row 1 is of its third step.
/// assert_eq!(outputs.at((1, 2))?.to_vec::<f32>()?, state.at(1)?.to_vec::<f32>()?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RnnOutput<O, S> {
    /// The output of each step, in the axis order of the inputs.
    pub outputs: O,
    /// The state of each row after its last step.
    pub state: S,
}

impl<'a, C: Cell> DynamicRnn<'a, C> {
    /// Creates a driver with the defaults: batch-major, all rows of full length, zero initial
    /// state, the mode of the innermost [`Mode::scope`]: training in the loss of
    /// `value_and_grad`, else inference.
    pub fn new(cell: &'a C) -> Self {
        Self {
            cell,
            lengths: None,
            initial_state: None,
            time_major: false,
            mode: None,
            start: 0,
            memory: MemorySettings::default(),
        }
    }

    /// Sets the length of each row in steps: integers of any type, or a tensor of them, `[batch]`.
    pub fn sequence_length(mut self, lengths: impl Into<Lengths<C::Backend>>) -> Self {
        self.lengths = Some(lengths.into());
        self
    }

    /// Sets the initial state. Default: the cell's zero state.
    pub fn initial_state(mut self, state: C::State) -> Self {
        self.initial_state = Some(state);
        self
    }

    /// Whether inputs and outputs are `[time, batch, ..]`; `true` avoids two transposes.
    pub fn time_major(mut self, time_major: bool) -> Self {
        self.time_major = time_major;
        self
    }

    /// Sets inference or training, also within a [`Mode::scope`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets training, with the seed of the random numbers (for example of dropout). Equal seeds
    /// give equal numbers: a training loop that sets seeds needs another one for each step.
    pub fn training(self, seed: u64) -> Self {
        self.mode(Mode::Training { seed })
    }

    /// Sets the memory policy of back-propagation: what is stored for the gradient. Does not affect
    /// results for a given [`segment_length`](Self::segment_length).
    pub fn memory_policy(mut self, memory_policy: MemoryPolicy) -> Self {
        self.memory.policy = memory_policy;
        self
    }

    /// Chooses the memory policy: the first of `Store`, `Recompute` and, if the device can offload,
    /// `Offload` that stores at most this many bytes for the gradient at a time.
    /// [`explain`](Self::explain) says which one. Overrides [`memory_policy`](Self::memory_policy).
    ///
    /// The driver runs a few steps more in order to count. Inputs, outputs and their gradients, and
    /// what the device needs for the computation itself, do not count.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory.budget = Some(bytes);
        self
    }

    /// TensorFlow's `swap_memory`: [`MemoryPolicy::Offload`], which moves values stored for the
    /// gradient out of the memory of a device that can do so, and else has no effect.
    pub fn swap_memory(mut self, swap: bool) -> Self {
        self.memory.swap(swap);
        self
    }

    /// TensorFlow's `parallel_iterations`: how many independent steps may run at once. The steps of
    /// a recurrent cell depend on each other, so this has no effect.
    pub fn parallel_iterations(self, _iterations: usize) -> Self {
        self
    }

    /// Splits the sequence into segments of `steps` steps for the memory policy. Default: one
    /// segment if everything is stored, else the square root of the number of steps. The length
    /// affects the rounding of gradients, which are summed in another order.
    pub fn segment_length(mut self, steps: usize) -> Self {
        self.memory.segment = Some(steps.max(1));
        self
    }

    /// Runs the cell over the inputs.
    ///
    /// # Errors
    /// * The inputs have no leaf, or a leaf lacks an axis of time, batch or depth (integer ids need
    ///   no depth), or the leaves differ in time or batch.
    /// * The number of lengths differs from the batch size, or a length is negative.
    /// * The inputs or the initial state do not fit the cell.
    /// * No memory policy fits the [budget](Self::memory_budget).
    pub fn run(&self, inputs: &C::Input) -> Result<RnnOutput<C::Output, C::State>> {
        self.run_explained(inputs, None)
    }

    /// How the device runs the cell over these inputs: which parts of the cell's step it computes
    /// for all steps at once, the program that it made of the rest, and the reason if there is
    /// none. In a loss of `value_and_grad`, also what is stored for the gradient. Runs the cell.
    ///
    /// ```
    /// use recurrent::cells::UgrnnCell;
    /// use recurrent::{Device, DynamicRnn, StepPath, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let cell = UgrnnCell::new(&device, 4, 8)?;
    /// let x = Tensor::from_slice(&device, &[0.1f32; 2 * 5 * 4], &[2, 5, 4])?;
    /// let how = DynamicRnn::new(&cell).explain(&x)?;
    /// assert_eq!(how.parts[0].path, StepPath::Compiled);
    /// println!("{how}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn explain(&self, inputs: &C::Input) -> Result<Explanation> {
        let explanation: Arc<Mutex<Explanation>> = Arc::default();
        self.run_explained(inputs, Some(explanation.clone()))?;
        let explanation = std::mem::take(&mut *locked(&explanation));
        Ok(explanation)
    }

    fn run_explained(
        &self,
        inputs: &C::Input,
        explanation: Option<Arc<Mutex<Explanation>>>,
    ) -> Result<RnnOutput<C::Output, C::State>> {
        let lengths = match &self.lengths {
            Some(lengths) => {
                let (_, batch) = self.extent(inputs)?;
                Some(lengths.check("dynamic_rnn", batch)?)
            }
            None => None,
        };
        self.run_lengths(inputs, lengths, explanation)
    }

    /// Steps and batch size.
    pub(super) fn extent(&self, inputs: &C::Input) -> Result<(usize, usize)> {
        extent("dynamic_rnn", inputs, self.time_major)
    }

    /// [`run`](Self::run) with checked lengths in place of the driver's.
    pub(super) fn run_lengths(
        &self,
        inputs: &C::Input,
        lengths: Option<Vec<usize>>,
        explanation: Option<Arc<Mutex<Explanation>>>,
    ) -> Result<RnnOutput<C::Output, C::State>> {
        let (steps, batch) = self.extent(inputs)?;
        let inputs = if self.time_major {
            inputs.clone()
        } else {
            swap_batch_time(inputs)?
        };
        let state = match &self.initial_state {
            Some(state) => state.clone(),
            None => self.cell.zero_state(batch)?,
        };
        // Steps past every row's length are not computed: their outputs are zero.
        let longest = lengths.as_ref().and_then(|l| l.iter().max());
        let active = longest.map_or(steps, |&l| steps.min(l));
        let mut unroll = Unroll::new(StepContext::of(self.mode), active, batch);
        unroll.start = self.start;
        unroll.explanation = explanation;
        let given = self.initial_state.is_some();
        let empty_rows = given && active > 0 && lengths.iter().flatten().any(|&l| l == 0);
        unroll.lengths = match lengths.filter(|l| l.iter().any(|&l| l < active)) {
            Some(lengths) => {
                let end = |&l: &usize| self.start.saturating_add(l.min(active));
                let lengths: Vec<usize> = lengths.iter().map(end).collect();
                let device = inputs.leaves()[0].device().clone();
                Some(upload(&device, &lengths)?)
            }
            None => None,
        };
        let taken = inputs.map(&mut |x| x.slice(0, 0..active))?;
        let taken = unroll.mask_inputs(&taken)?;
        let initial = match empty_rows {
            true => unroll.mask_state(&state)?,
            false => state.clone(),
        };
        self.memory
            .apply(self.cell, &mut unroll, &taken, &initial)?;
        if let Some(explanation) = &unroll.explanation {
            locked(explanation).memory =
                MemorySettings::explain(self.cell, &unroll, &taken, &initial)?;
        }
        let run = || self.cell.unroll(&unroll, &taken, &initial);
        let (outputs, mut last) = Mode::outside(run)?;
        if empty_rows {
            last = unroll.masked(self.start, last, &state)?;
        }
        let outputs = outputs.map(&mut |o| pad(o, steps))?;
        let outputs = if self.time_major {
            outputs
        } else {
            swap_batch_time(&outputs)?
        };
        Ok(RnnOutput {
            outputs,
            state: last,
        })
    }
}

/// Steps and batch size. Checks the caller's own inputs, so that error messages show the caller's
/// shapes.
pub(super) fn extent<B: Backend, N: Nest<B>>(
    op: &'static str,
    inputs: &N,
    time_major: bool,
) -> Result<(usize, usize)> {
    let axes = match time_major {
        true => "[time, batch",
        false => "[batch, time",
    };
    let mut first: Option<Shape> = None;
    for (i, leaf) in inputs.leaves().into_iter().enumerate() {
        let shape = leaf.shape();
        let wrong = |expected| {
            let arg = format!("inputs {}", inputs.named_leaves()[i].0);
            Error::shape(op, arg.trim_end(), shape, expected)
        };
        // Integers can be ids, which have no depth axis.
        if shape.rank() < 2 + usize::from(leaf.dtype().is_float()) {
            return Err(wrong(format!("{axes}, depth] is needed")));
        }
        let first = first.get_or_insert(shape);
        if shape.dims()[..2] != first.dims()[..2] {
            let expected = format!("another input is {first}, and {axes}] must be equal");
            return Err(wrong(expected));
        }
    }
    match first {
        Some(shape) if time_major => Ok((shape[0], shape[1])),
        Some(shape) => Ok((shape[1], shape[0])),
        None => Err(Error::argument(op, "inputs", "contain no tensor")),
    }
}

/// Swaps `[batch, time, ..]` and `[time, batch, ..]`.
pub(super) fn swap_batch_time<B: Backend, N: Nest<B>>(sequences: &N) -> Result<N> {
    sequences.map(&mut |x| x.transpose(0, 1))
}

/// Appends zeros for the steps that were not computed.
fn pad<B: Backend>(outputs: &Tensor<B>, steps: usize) -> Result<Tensor<B>> {
    let active = outputs.shape()[0];
    if active == steps {
        return Ok(outputs.clone());
    }
    let shape = outputs.shape().with(0, steps - active)?;
    let zeros = Tensor::zeros(outputs.device(), Meta::new(shape, outputs.dtype()))?;
    Tensor::concat(&[outputs, &zeros], 0)
}
