//! The trait of recurrent cells.

use backend_api::Result;

use crate::{Module, Nest, Sizes, StepContext, Unroll};

/// One step of a recurrence: `(input, state) -> (output, state)`.
///
/// A custom cell implements the items without a default. It then runs under every driver and on
/// every device, with gradients. Batch is the first axis of every leaf of inputs, states and
/// outputs. A step sees neither the time axis nor lengths nor padding; the drivers handle them.
///
/// ```
/// use recurrent::Result;
/// use recurrent::prelude::*;
///
/// /// `h' = tanh(x · kernel + h)`.
/// #[derive(Clone, Debug)]
/// struct Adding {
///     kernel: Dense,
///     units: usize,
/// }
///
/// module!(Adding { kernel });
///
/// impl Cell for Adding {
///     type Input = Tensor;
///     type State = Tensor;
///     type Output = Tensor;
///
///     fn zero_state(&self, batch: usize) -> Result<Tensor> {
///         let kernel = &self.named_params()[0].1;
///         Tensor::zeros(kernel.device(), (&[batch, self.units], kernel.dtype()))
///     }
///
///     fn zero_output(&self, batch: usize) -> Result<Tensor> {
///         self.zero_state(batch)
///     }
///
///     fn step(&self, _: &StepContext, x: &Tensor, h: &Tensor) -> Result<(Tensor, Tensor)> {
///         let h = (self.kernel.forward(x)? + h)?.tanh()?;
///         Ok((h.clone(), h))
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let device = Device::cpu();
/// let cell = Adding { kernel: Dense::new(&device, 3, 4)?, units: 4 };
/// let rnn = DynamicRnn::new(&cell).run(&Tensor::ones(&device, &[2, 5, 3])?)?;
/// assert_eq!(rnn.outputs.dims()[..], [2, 5, 4]);
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a recurrent cell",
    note = "a cell implements `Module` (its parameters) and `Cell` (its step)",
    note = "drivers borrow a cell: `DynamicRnn::new(&cell)`; wrappers and stacks own it: pass \
            `cell`, or `cell.clone()`, which shares the parameters"
)]
pub trait Cell: Module {
    /// The input of a step: a tensor `[batch, depth]`, or a nest of tensors.
    type Input: Nest<Self::Backend>;
    /// The recurrent state, passed from each step to the next.
    type State: Nest<Self::Backend>;
    /// The output of a step: a tensor `[batch, units]`, or a nest of tensors.
    type Output: Nest<Self::Backend>;

    /// The name of the cell's variable scope in TensorFlow, for example `lstm_cell`. Stacks prefix
    /// the names of the cell's parameters with it. Empty if the cell has none.
    fn scope(&self) -> String {
        String::new()
    }

    /// The initial state of a sequence if the caller gives none.
    fn zero_state(&self, batch: usize) -> Result<Self::State>;

    /// An output of zeros: the output of rows past their length. It also defines the structure,
    /// shapes and types of the outputs.
    fn zero_output(&self, batch: usize) -> Result<Self::Output>;

    /// The shapes of the tensors of the state, without the batch axis; TensorFlow's `state_size`.
    ///
    /// # Errors
    /// As [`zero_state`](Self::zero_state).
    fn state_size(&self) -> Result<Sizes> {
        Sizes::of(&self.zero_state(0)?)
    }

    /// The shapes of the tensors of the output, without the batch axis; TensorFlow's `output_size`.
    ///
    /// # Errors
    /// As [`zero_output`](Self::zero_output).
    fn output_size(&self) -> Result<Sizes> {
        Sizes::of(&self.zero_output(0)?)
    }

    /// Computes one step.
    ///
    /// Must be a pure function of its arguments and the parameters, because a memory policy may run
    /// it again. Random numbers come from [`StepContext::key`].
    ///
    /// # Errors
    /// The input or the state does not fit the parameters.
    fn step(
        &self,
        cx: &StepContext,
        input: &Self::Input,
        state: &Self::State,
    ) -> Result<(Self::Output, Self::State)>;

    /// Computes all steps of a sequence. Time is the first axis of inputs and outputs.
    ///
    /// The default implementation runs [`step`](Self::step) for each time; what depends on no
    /// state, such as the product of the inputs, is computed for all times at once. Cells that
    /// consist of cells override it: a stack runs all steps of a layer before those of the next, so
    /// that the inputs of every layer are known for all times, and a wrapper calls the `unroll` of
    /// its cell. The results must equal those of the steps within rounding.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    fn unroll(
        &self,
        u: &Unroll<Self::Backend>,
        inputs: &Self::Input,
        state: &Self::State,
    ) -> Result<(Self::Output, Self::State)> {
        u.stepwise(self, inputs, state)
    }
}
