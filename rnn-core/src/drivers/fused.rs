//! Cells that run over a whole sequence at once.

use backend_api::{Backend, Result, Tensor};

use super::lengths::{Lengths, upload};
use super::{DynamicRnn, RnnOutput};
use crate::{Cell, Nest};

/// A recurrence over a whole time-major sequence; TensorFlow's `FusedRNNCell`.
///
/// ```
/// use recurrent::cells::LstmBlockFusedCell;
/// use recurrent::{Device, FusedRnnCell, FusedRnnCellAdaptor, GruCell, Result, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// /// The last output of any layer over `[time, batch, depth]`.
/// fn last<F: FusedRnnCell<Backend = Device>>(layer: &F, x: &Tensor) -> Result<Tensor> {
///     layer.run(x, None, None)?.outputs.at(-1)
/// }
/// let device = Device::cpu();
/// let x = Tensor::ones(&device, &[5, 2, 4])?;
/// let lstm = LstmBlockFusedCell::new(&device, 4, 8)?;
/// let gru = FusedRnnCellAdaptor(GruCell::new(&device, 4, 6)?);
/// assert_eq!(last(&lstm, &x)?.shape().dims(), [2, 8]);
/// assert_eq!(last(&gru, &x)?.shape().dims(), [2, 6]);
/// # Ok(()) }
/// ```
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
        sequence_length: Option<&Lengths<Self::Backend>>,
    ) -> Result<RnnOutput<Tensor<Self::Backend>, Self::State>>;
}

/// Adapts a cell to [`FusedRnnCell`]; TensorFlow's `FusedRNNCellAdaptor`. TensorFlow's option to
/// use a static instead of a dynamic loop is omitted, because every cell here processes whole
/// sequences.
///
/// ```
/// use recurrent::{Device, FusedRnnCell, FusedRnnCellAdaptor, GruCell, Lengths, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let layer = FusedRnnCellAdaptor(GruCell::new(&device, 4, 8)?);
/// let x = Tensor::ones(&device, &[5, 2, 4])?; // [time, batch, depth]
/// let first = layer.run(&x, None, None)?;
/// let second = layer.run(&x, Some(&first.state), Some(&Lengths::from(&[5, 3])))?;
/// assert_eq!(second.outputs.at((3.., 1))?.to_vec::<f32>()?, [0.0; 2 * 8]);
/// # Ok(()) }
/// ```
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
        sequence_length: Option<&Lengths<B>>,
    ) -> Result<RnnOutput<Tensor<B>, C::State>> {
        let mut rnn = DynamicRnn::new(&self.0).time_major(true);
        if let Some(state) = initial_state {
            rnn = rnn.initial_state(state.clone());
        }
        if let Some(lengths) = sequence_length {
            rnn = rnn.sequence_length(lengths.clone());
        }
        rnn.run(inputs)
    }
}

/// Runs a [`FusedRnnCell`] over each row from its last step to its first; TensorFlow's
/// `TimeReversedFusedRNN`.
///
/// ```
/// use recurrent::{
///     Device, FusedRnnCell, FusedRnnCellAdaptor, GruCell, Lengths, Tensor, TimeReversedFusedRnn,
/// };
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let back = TimeReversedFusedRnn(FusedRnnCellAdaptor(GruCell::new(&device, 4, 8)?));
/// let x = Tensor::from_slice(&device, &[0.1f32; 5 * 2 * 4], &[5, 2, 4])?;
/// let rnn = back.run(&x, None, Some(&Lengths::from(&[5, 3])))?;
/// assert_eq!(rnn.outputs.shape().dims(), [5, 2, 8]);
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
        sequence_length: Option<&Lengths<F::Backend>>,
    ) -> Result<RnnOutput<Tensor<F::Backend>, F::State>> {
        let op = "time_reversed_fused_rnn";
        let (steps, rows) = super::dynamic_rnn::extent(op, inputs, true)?;
        let lengths = match sequence_length {
            Some(lengths) => lengths.check_within(op, rows, steps)?,
            None => vec![steps; rows],
        };
        let checked = sequence_length.map(|_| Lengths::from(&lengths));
        let lengths = upload(inputs.device(), &lengths)?;
        let turned = inputs.reverse(&lengths, 0, 1)?;
        let result = self.0.run(&turned, initial_state, checked.as_ref())?;
        Ok(RnnOutput {
            outputs: result.outputs.reverse(&lengths, 0, 1)?,
            state: result.state,
        })
    }
}
