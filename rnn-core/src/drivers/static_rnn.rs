//! TensorFlow's `static_rnn`.

use backend_api::{Error, Result, Shape};

use super::RnnOutput;
use super::lengths::{Lengths, upload};
use crate::{Cell, Mode, Nest, StepContext, Unroll};

/// Runs a cell over a list of inputs, one per step; TensorFlow's `static_rnn`.
///
/// Computes the same results as [`DynamicRnn`](super::DynamicRnn), for callers that have the steps
/// as separate tensors or need the outputs as such. Inputs are `[batch, ..]` in every leaf; there
/// is one output per input.
///
/// ```
/// use recurrent::{Device, GruCell, StaticRnn, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 4, 8)?;
/// let step = Tensor::from_slice(&device, &[0.1f32; 2 * 4], &[2, 4])?;
/// let rnn = StaticRnn::new(&cell).sequence_length(&[3, 1]).run(&vec![step; 3])?;
/// assert_eq!(rnn.outputs.len(), 3);
/// assert_eq!(rnn.outputs[2].to_vec::<f32>()?[8..], [0.0; 8]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "call `run`"]
pub struct StaticRnn<'a, C: Cell> {
    pub(super) cell: &'a C,
    lengths: Option<Lengths<C::Backend>>,
    initial_state: Option<C::State>,
    mode: Option<Mode>,
}

impl<'a, C: Cell> StaticRnn<'a, C> {
    /// Creates a driver with the defaults: all rows of full length, zero initial state, the mode
    /// of the innermost [`Mode::scope`].
    pub fn new(cell: &'a C) -> Self {
        Self {
            cell,
            lengths: None,
            initial_state: None,
            mode: None,
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

    /// Sets inference or training, also within a [`Mode::scope`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets training, with the seed of the random numbers; see
    /// [`DynamicRnn::training`](super::DynamicRnn::training).
    pub fn training(self, seed: u64) -> Self {
        self.mode(Mode::Training { seed })
    }

    /// Runs the cell over the inputs.
    ///
    /// # Errors
    /// * There is no input, an input has no batch axis, or the inputs differ in batch size.
    /// * The number of lengths differs from the batch size, or a length is negative.
    /// * An input or the initial state does not fit the cell.
    pub fn run(&self, inputs: &[C::Input]) -> Result<RnnOutput<Vec<C::Output>, C::State>> {
        let batch = batch("static_rnn", inputs)?;
        let lengths = match &self.lengths {
            Some(lengths) => Some(lengths.check("static_rnn", batch)?),
            None => None,
        };
        let longest = lengths.as_ref().and_then(|l| l.iter().copied().max());
        let shortest = lengths.as_ref().and_then(|l| l.iter().copied().min());
        let step = StepContext::of(self.mode);
        let mut unroll = Unroll::new(step.clone(), inputs.len(), batch);
        unroll.lengths = match lengths.filter(|l| l.iter().any(|&l| l < inputs.len())) {
            Some(lengths) => {
                let device = inputs[0].leaves()[0].device().clone();
                Some(upload(&device, &lengths)?)
            }
            None => None,
        };
        let zero = self.cell.zero_output(batch)?;
        let initial = match &self.initial_state {
            Some(state) => state.clone(),
            None => self.cell.zero_state(batch)?,
        };
        let empty_rows = self.initial_state.is_some() && shortest == Some(0);
        let mut state = match empty_rows {
            true => unroll.mask_state(&initial)?,
            false => initial.clone(),
        };
        let mut outputs = Vec::with_capacity(inputs.len());
        for (time, input) in inputs.iter().enumerate() {
            // The cell does not run for steps past every row's length. It runs once even if all
            // lengths are 0, so that its parameters have gradients, which are zero.
            if longest.is_some_and(|longest| time >= longest.max(1)) {
                outputs.push(zero.clone());
                continue;
            }
            let masked;
            let input = match shortest {
                Some(shortest) if time >= shortest => {
                    masked = unroll.mask_input(time, input)?;
                    &masked
                }
                _ => input,
            };
            let (output, new) = Mode::outside(|| self.cell.step(&step.at(time), input, &state))?;
            outputs.push(unroll.masked(time, output, &zero)?);
            state = unroll.masked(time, new, &state)?;
        }
        if empty_rows {
            state = unroll.masked(0, state, &initial)?;
        }
        Ok(RnnOutput { outputs, state })
    }
}

/// The common batch size of a list of inputs.
pub(super) fn batch<B: backend_api::Backend, N: Nest<B>>(
    op: &'static str,
    inputs: &[N],
) -> Result<usize> {
    let mut first: Option<Shape> = None;
    for leaf in inputs.iter().flat_map(Nest::leaves) {
        let shape = leaf.shape();
        if shape.rank() == 0 {
            let expected = "a batch axis is needed";
            return Err(Error::shape(op, "inputs", shape, expected));
        }
        let first = first.get_or_insert(shape);
        if shape[0] != first[0] {
            let expected = format!("another input is {first}, and the batch sizes must be equal");
            return Err(Error::shape(op, "inputs", shape, expected));
        }
    }
    match first {
        Some(shape) => Ok(shape[0]),
        None => Err(Error::argument(op, "inputs", "must not be empty")),
    }
}
