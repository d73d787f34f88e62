//! The contract of a recurrent cell.

use backend_api::Result;

use crate::{Module, Nest, Step, Unroll};

/// One step of a recurrence: `(input, state) -> (output, state)`.
///
/// A cell of your own implements the five items without a default and then works under every driver,
/// on every device, with gradients. Batch is the first axis of every leaf of inputs, states and
/// outputs; a cell never sees time, lengths or padding.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a recurrent cell",
    note = "a cell implements `Module` (its parameters) and `Cell` (its step)"
)]
pub trait Cell: Module {
    /// What a step takes: a tensor `[batch, depth]`, or a nest of tensors.
    type Input: Nest<Self::B>;
    /// What a step hands to the next.
    type State: Nest<Self::B>;
    /// What a step gives: a tensor `[batch, units]`, or a nest of tensors.
    type Output: Nest<Self::B>;

    /// The name of the cell's variable scope in TensorFlow, such as `lstm_cell`: what stacks put before the names of
    /// its parameters. Empty if it has none.
    fn scope(&self) -> String {
        String::new()
    }

    /// The state that a sequence starts from if none is given.
    fn zero_state(&self, batch: usize) -> Result<Self::State>;

    /// An output of zeros, which stands where a sequence has ended: it tells structure, shapes
    /// and types of the output.
    fn zero_output(&self, batch: usize) -> Result<Self::Output>;

    /// One step.
    ///
    /// Must be a pure function of its arguments and of the parameters: a memory policy may run it again.
    /// Random numbers come from [`Step::key`].
    ///
    /// # Errors
    /// The input or the state does not fit the parameters.
    fn step(
        &self,
        cx: &Step,
        input: &Self::Input,
        state: &Self::State,
    ) -> Result<(Self::Output, Self::State)>;

    /// All steps of a sequence, time first in inputs and outputs: the one place where a cell can be
    /// faster than its steps, by asking the device to run the layer as one operation, or by multiplying the inputs of all
    /// steps at once. Gives the numbers that the steps give, within rounding.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    fn unroll(
        &self,
        u: &Unroll<Self::B>,
        inputs: &Self::Input,
        state: &Self::State,
    ) -> Result<(Self::Output, Self::State)> {
        u.stepwise(self, inputs, state)
    }
}
