//! TensorFlow's `state_is_tuple=False`.

use backend_api::{Error, Result, Tensor};

use crate::{Cell, Module, Nest, StepContext, Unroll, Visitor};

/// A cell whose state is a single tensor `[batch, total size]`: the concatenation of the wrapped
/// cell's state tensors, in order (`c` before `h`). TensorFlow's `state_is_tuple=False`, which old
/// checkpoints and scripts use.
///
/// ```
/// use recurrent::{BasicLstmCell, Cell, ConcatState, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = ConcatState::new(BasicLstmCell::new(&Device::cpu(), 3, 5)?);
/// assert_eq!(cell.zero_state(2)?.shape().dims(), [2, 10]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ConcatState<C> {
    cell: C,
}

impl<C: Cell> ConcatState<C> {
    /// Wraps a cell whose state tensors are `[batch, size]` each.
    pub fn new(cell: C) -> Self {
        Self { cell }
    }

    /// Concatenates the inner state.
    fn join(&self, state: &C::State) -> Result<Tensor<C::Backend>> {
        Tensor::concat(&state.leaves(), 1)
    }

    /// Splits the tensor into the inner state.
    fn split(&self, state: &Tensor<C::Backend>) -> Result<C::State> {
        if state.shape().rank() != 2 {
            let expected = "[batch, sum of the state sizes] is needed";
            return Err(Error::shape(
                "concat_state",
                "state",
                state.shape(),
                expected,
            ));
        }
        let like = self.cell.zero_state(state.shape()[0])?;
        let total: usize = like.leaves().iter().map(|t| t.shape().last()).sum();
        if state.shape()[1] != total {
            let expected = format!("[{}, {total}] is needed", state.shape()[0]);
            return Err(Error::shape(
                "concat_state",
                "state",
                state.shape(),
                expected,
            ));
        }
        let mut start = 0;
        like.map(&mut |part| {
            let end = start + part.shape().last();
            let slice = state.slice(1, start..end)?;
            start = end;
            Ok(slice)
        })
    }
}

impl<C: Cell> Module for ConcatState<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        self.cell.params(v);
    }
}

impl<C: Cell> Cell for ConcatState<C> {
    type Input = C::Input;
    type State = Tensor<C::Backend>;
    type Output = C::Output;

    fn scope(&self) -> String {
        self.cell.scope()
    }

    fn zero_state(&self, batch: usize) -> Result<Self::State> {
        self.join(&self.cell.zero_state(batch)?)
    }

    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        self.cell.zero_output(batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        input: &C::Input,
        state: &Self::State,
    ) -> Result<(C::Output, Self::State)> {
        let (output, state) = self.cell.step(cx, input, &self.split(state)?)?;
        Ok((output, self.join(&state)?))
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &Self::State,
    ) -> Result<(C::Output, Self::State)> {
        let (outputs, state) = self.cell.unroll(u, inputs, &self.split(state)?)?;
        Ok((outputs, self.join(&state)?))
    }
}
