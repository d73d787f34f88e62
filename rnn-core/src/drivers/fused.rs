//! Cells that run over a whole sequence at once.

use backend_api::{Backend, Result, Tensor};

use super::lengths::{Lengths, upload};
use super::{DynamicRnn, RnnOutput};
use crate::{Cell, Nest};

/// A recurrence over a whole time-major sequence; TensorFlow's `FusedRNNCell`.
pub trait FusedRnnCell {
    /// The backend.
    type Backend: Backend;
    /// The recurrent state.
    type State: Nest<Self::Backend>;

    /// Runs over `[time, batch, depth]`. The initial state defaults to zero, the length of each row
    /// to the number of steps.
    ///
    /// # Errors
    /// Inputs, state or lengths do not fit.
    fn run(
        &self,
        inputs: &Tensor<Self::Backend>,
        initial_state: Option<&Self::State>,
        sequence_length: Option<&[i64]>,
    ) -> Result<RnnOutput<Tensor<Self::Backend>, Self::State>>;
}

/// Adapts a cell to [`FusedRnnCell`]; TensorFlow's `FusedRNNCellAdaptor`. TensorFlow's option to
/// use a static instead of a dynamic loop is omitted, because every cell here processes whole
/// sequences.
#[derive(Clone, Debug)]
pub struct FusedRnnCellAdaptor<C>(pub C);

impl<B, C> FusedRnnCell for FusedRnnCellAdaptor<C>
where
    B: Backend,
    C: Cell<Backend = B, Input = Tensor<B>, Output = Tensor<B>>,
{
    type Backend = B;
    type State = C::State;

    fn run(
        &self,
        inputs: &Tensor<B>,
        initial_state: Option<&C::State>,
        sequence_length: Option<&[i64]>,
    ) -> Result<RnnOutput<Tensor<B>, C::State>> {
        let mut rnn = DynamicRnn::new(&self.0).time_major(true);
        if let Some(state) = initial_state {
            rnn = rnn.initial_state(state.clone());
        }
        if let Some(lengths) = sequence_length {
            rnn = rnn.sequence_length(lengths);
        }
        rnn.run(inputs)
    }
}

/// Runs a [`FusedRnnCell`] over each row from its last step to its first; TensorFlow's
/// `TimeReversedFusedRNN`.
///
/// ```
/// use recurrent::{
///     Device, FusedRnnCell, FusedRnnCellAdaptor, GruCell, Tensor, TimeReversedFusedRnn,
/// };
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let back = TimeReversedFusedRnn(FusedRnnCellAdaptor(GruCell::new(&device, 4, 8)?));
/// let x = Tensor::from_slice(&device, &[0.1f32; 5 * 2 * 4], &[5, 2, 4])?;
/// assert_eq!(back.run(&x, None, Some(&[5, 3]))?.outputs.shape().dims(), [5, 2, 8]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TimeReversedFusedRnn<F>(pub F);

impl<F: FusedRnnCell> FusedRnnCell for TimeReversedFusedRnn<F> {
    type Backend = F::Backend;
    type State = F::State;

    fn run(
        &self,
        inputs: &Tensor<F::Backend>,
        initial_state: Option<&F::State>,
        sequence_length: Option<&[i64]>,
    ) -> Result<RnnOutput<Tensor<F::Backend>, F::State>> {
        let op = "time_reversed_fused_rnn";
        let (steps, rows) = super::dynamic_rnn::extent(op, inputs, true)?;
        let lengths = match sequence_length {
            Some(lengths) => Lengths::<F::Backend>::from(lengths).check_within(op, rows, steps)?,
            None => vec![steps; rows],
        };
        let lengths = upload(inputs.device(), &lengths)?;
        let turned = inputs.reverse(&lengths, 0, 1)?;
        let result = self.0.run(&turned, initial_state, sequence_length)?;
        Ok(RnnOutput {
            outputs: result.outputs.reverse(&lengths, 0, 1)?,
            state: result.state,
        })
    }
}
