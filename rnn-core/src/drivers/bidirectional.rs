//! Drivers that run over sequences in both directions.

use backend_api::{Backend, Error, MemoryPolicy, Result, Tensor};

use super::dynamic_rnn::{extent, swap_batch_time};
use super::lengths::{Lengths, upload};
use super::static_rnn::batch;
use super::{DynamicRnn, RnnOutput, StaticRnn};
use crate::module::{param_ids, share_parameters};
use crate::{Cell, Mode, Module, Nest};

/// Runs two cells over a batch of sequences, one forward and one backward; TensorFlow's
/// `bidirectional_dynamic_rnn`.
///
/// The backward cell reads each row from its last step to its first; padding stays in place. The
/// backward output at `t` therefore depends on the steps from `t` on, and the final backward state
/// on the whole row. The outputs of both directions are separate; [`Tensor::concat`] on the last
/// axis joins them.
///
/// ```
/// use recurrent::{BidirectionalDynamicRnn, Device, GruCell, LstmCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let (forward, backward) = (GruCell::new(&device, 4, 8)?, LstmCell::new(&device, 4, 6)?);
/// let x = Tensor::from_slice(&device, &[0.1f32; 2 * 5 * 4], &[2, 5, 4])?;
/// let rnn = BidirectionalDynamicRnn::new(&forward, &backward).sequence_length(&[5, 3]).run(&x)?;
/// assert_eq!(rnn.outputs.0.shape().dims(), [2, 5, 8]);
/// assert_eq!(rnn.outputs.1.shape().dims(), [2, 5, 6]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "call `run`"]
pub struct BidirectionalDynamicRnn<'a, F: Cell, G: Cell> {
    forward: DynamicRnn<'a, F>,
    backward: DynamicRnn<'a, G>,
    lengths: Option<Lengths<F::Backend>>,
    time_major: bool,
    shared: bool,
}

/// Output of a bidirectional driver: pairs of forward and backward.
///
/// ```
/// use recurrent::{
///     BidirectionalDynamicRnn, BidirectionalOutput, Device, GruCell, Result, Tensor,
/// };
///
/// # fn main() -> recurrent::Result<()> {
/// fn joined(rnn: &BidirectionalOutput<Tensor, Tensor, Tensor, Tensor>) -> Result<Tensor> {
///     Tensor::concat(&[&rnn.outputs.0, &rnn.outputs.1], 2)
/// }
/// let device = Device::cpu();
/// let (ahead, back) = (GruCell::new(&device, 4, 8)?, GruCell::new(&device, 4, 6)?);
/// let x = Tensor::ones(&device, &[2, 5, 4])?;
/// let rnn = BidirectionalDynamicRnn::new(&ahead, &back).run(&x)?;
/// assert_eq!(joined(&rnn)?.shape().dims(), [2, 5, 8 + 6]);
/// # Ok(()) }
/// ```
pub type BidirectionalOutput<OF, OB, SF, SB> = RnnOutput<(OF, OB), (SF, SB)>;

impl<'a, F, G> BidirectionalDynamicRnn<'a, F, G>
where
    F: Cell,
    G: Cell<Backend = F::Backend, Input = F::Input>,
{
    /// Creates a driver for two cells, each with its own parameters.
    pub fn new(forward: &'a F, backward: &'a G) -> Self {
        Self {
            shared: false,
            forward: DynamicRnn::new(forward).time_major(true),
            backward: DynamicRnn::new(backward).time_major(true),
            lengths: None,
            time_major: false,
        }
    }

    /// Sets the length of each row in steps: integers of any type, or a tensor of them, `[batch]`.
    /// A length must not be above the number of steps.
    pub fn sequence_length(mut self, lengths: impl Into<Lengths<F::Backend>>) -> Self {
        self.lengths = Some(lengths.into());
        self
    }

    /// Sets the initial state of the forward cell.
    pub fn initial_state_fw(mut self, state: F::State) -> Self {
        self.forward = self.forward.initial_state(state);
        self
    }

    /// Sets the initial state of the backward cell, at the last step of each row.
    pub fn initial_state_bw(mut self, state: G::State) -> Self {
        self.backward = self.backward.initial_state(state);
        self
    }

    /// Whether inputs and outputs are `[time, batch, ..]`; `true` avoids transposes.
    pub fn time_major(mut self, time_major: bool) -> Self {
        self.time_major = time_major;
        self
    }

    /// Sets inference or training, also within a [`Mode::scope`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.forward = self.forward.mode(mode);
        // The two cells have independent random streams.
        self.backward = self.backward.mode(mode.child(1));
        self
    }

    /// Sets training, with the seed of the random numbers.
    pub fn training(self, seed: u64) -> Self {
        self.mode(Mode::Training { seed })
    }

    /// TensorFlow's `swap_memory`; see [`DynamicRnn::swap_memory`].
    pub fn swap_memory(mut self, swap: bool) -> Self {
        self.forward = self.forward.swap_memory(swap);
        self.backward = self.backward.swap_memory(swap);
        self
    }

    /// Sets the memory policy of back-propagation; see [`DynamicRnn::memory_policy`].
    ///
    /// ```
    /// use recurrent::{BidirectionalDynamicRnn, Device, GruCell, MemoryPolicy, Tensor};
    /// use recurrent::value_and_grad;
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let cells = (GruCell::new(&device, 3, 4)?, GruCell::new(&device, 3, 4)?);
    /// let x = Tensor::ones(&device, &[2, 50, 3])?;
    /// let norm = |policy| {
    ///     let (_, grads) = value_and_grad(&cells, |(ahead, back)| {
    ///         let rnn = BidirectionalDynamicRnn::new(ahead, back).memory_policy(policy).run(&x)?;
    ///         rnn.state.0.sum_all()? + rnn.outputs.1.sum_all()?
    ///     })?;
    ///     grads.global_norm()?.item()
    /// };
    /// assert_eq!(norm(MemoryPolicy::Recompute)?, norm(MemoryPolicy::Store)?);
    /// # Ok(()) }
    /// ```
    pub fn memory_policy(mut self, memory_policy: MemoryPolicy) -> Self {
        self.forward = self.forward.memory_policy(memory_policy);
        self.backward = self.backward.memory_policy(memory_policy);
        self
    }

    /// Sets the length of segments for the memory policy; see [`DynamicRnn::segment_length`].
    pub fn segment_length(mut self, steps: usize) -> Self {
        self.forward = self.forward.segment_length(steps);
        self.backward = self.backward.segment_length(steps);
        self
    }

    /// TensorFlow's `parallel_iterations`; see [`DynamicRnn::parallel_iterations`].
    pub fn parallel_iterations(self, _iterations: usize) -> Self {
        self
    }

    /// Runs the cells over the inputs.
    ///
    /// # Errors
    /// As [`DynamicRnn::run`]; also if a length is above the number of steps, or the cells share a
    /// parameter, which only [`shared`](BidirectionalDynamicRnn::shared) allows.
    pub fn run(
        &self,
        inputs: &F::Input,
    ) -> Result<BidirectionalOutput<F::Output, G::Output, F::State, G::State>> {
        let op = "bidirectional_dynamic_rnn";
        if !self.shared {
            check_separate(op, &[self.forward.cell], &[self.backward.cell])?;
        }
        let (steps, rows) = extent(op, inputs, self.time_major)?;
        let inputs = if self.time_major {
            inputs.clone()
        } else {
            swap_batch_time(inputs)?
        };
        let given = match &self.lengths {
            Some(lengths) => Some(lengths.check_within(op, rows, steps)?),
            None => None,
        };
        let lengths = given.clone().unwrap_or_else(|| vec![steps; rows]);
        let forward = self.forward.run_lengths(&inputs, given.clone(), None)?;
        let backward = reversed(&inputs, &lengths)?;
        let backward = self.backward.run_lengths(&backward, given, None)?;
        let outputs = (forward.outputs, reversed(&backward.outputs, &lengths)?);
        let outputs = if self.time_major {
            outputs
        } else {
            (swap_batch_time(&outputs.0)?, swap_batch_time(&outputs.1)?)
        };
        Ok(RnnOutput {
            outputs,
            state: (forward.state, backward.state),
        })
    }
}

impl<'a, C: Cell> BidirectionalDynamicRnn<'a, C, C> {
    /// Creates a driver that runs one cell in both directions, with one set of parameters.
    pub fn shared(cell: &'a C) -> Self {
        Self {
            shared: true,
            ..Self::new(cell, cell)
        }
    }
}

/// Returns an error if two of the cells share a parameter. A clone of a cell shares its parameters.
pub(super) fn check_separate<F: Module, G: Module>(
    op: &'static str,
    forward: &[&F],
    backward: &[&G],
) -> Result<()> {
    let forward = forward.iter().map(|&cell| param_ids(cell));
    if share_parameters(forward.chain(backward.iter().map(|&cell| param_ids(cell)))) {
        let problem = "share parameters: build a cell for each direction and layer, or use \
                       `BidirectionalDynamicRnn::shared`";
        return Err(Error::argument(op, "cells", problem));
    }
    Ok(())
}

/// Time-major sequences with each row reversed up to its length.
fn reversed<B: Backend, N: Nest<B>>(sequences: &N, lengths: &[usize]) -> Result<N> {
    sequences.map(&mut |x| x.reverse(&upload(x.device(), lengths)?, 0, 1))
}

/// Runs two cells over a list of inputs, one forward and one backward, and concatenates their
/// outputs of each step on the last axis; TensorFlow's `static_bidirectional_rnn`.
///
/// Lengths as in [`BidirectionalDynamicRnn::sequence_length`]. Initial states default to zero.
///
/// ```
/// use recurrent::{Device, GruCell, StaticRnn, Tensor, static_bidirectional_rnn};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let (ahead, back) = (GruCell::new(&device, 4, 8)?, GruCell::new(&device, 4, 8)?);
/// let steps = vec![Tensor::ones(&device, &[2, 4])?; 3];
/// let (ahead, back) = (StaticRnn::new(&ahead), StaticRnn::new(&back));
/// let rnn = static_bidirectional_rnn(ahead, back, &steps, Some(&[3, 1]))?;
/// assert_eq!(rnn.outputs[0].shape().dims(), [2, 16]); // both directions
/// assert_eq!(rnn.outputs[2].at(1)?.to_vec::<f32>()?, [0.0; 16]); // past the length
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`StaticRnn::run`]; also if a length is above the number of steps, or the cells share a
/// parameter.
pub fn static_bidirectional_rnn<F, G>(
    forward: StaticRnn<'_, F>,
    backward: StaticRnn<'_, G>,
    inputs: &[F::Input],
    sequence_length: Option<&[i64]>,
) -> Result<RnnOutput<Vec<F::Output>, (F::State, G::State)>>
where
    F: Cell,
    G: Cell<Backend = F::Backend, Input = F::Input, Output = F::Output>,
{
    let op = "static_bidirectional_rnn";
    check_separate(op, &[forward.cell], &[backward.cell])?;
    let rows = batch(op, inputs)?;
    let (forward, backward, lengths) = match sequence_length {
        Some(lengths) => (
            forward.sequence_length(lengths),
            backward.sequence_length(lengths),
            Lengths::<F::Backend>::from(lengths).check_within(op, rows, inputs.len())?,
        ),
        None => (forward, backward, vec![inputs.len(); rows]),
    };
    let ahead = forward.run(inputs)?;
    let back = backward.run(&reversed_list(inputs, &lengths)?)?;
    let back_outputs = reversed_list(&back.outputs, &lengths)?;
    let outputs = ahead
        .outputs
        .iter()
        .zip(&back_outputs)
        .map(|(a, b)| {
            a.zip(b, &mut |a, b| match a.shape().rank() {
                0 => Err(Error::shape(
                    op,
                    "output",
                    a.shape(),
                    "at least one axis is needed",
                )),
                rank => Tensor::concat(&[a, b], rank - 1),
            })
        })
        .collect::<Result<_>>()?;
    Ok(RnnOutput {
        outputs,
        state: (ahead.state, back.state),
    })
}

/// A list of steps with each row reversed up to its length.
fn reversed_list<B: Backend, N: Nest<B>>(steps: &[N], lengths: &[usize]) -> Result<Vec<N>> {
    let leaves: Vec<Vec<&Tensor<B>>> = steps.iter().map(Nest::leaves).collect();
    let columns = leaves.first().map_or(0, Vec::len);
    let mut turned = Vec::with_capacity(columns);
    for i in 0..columns {
        let column: Vec<Tensor<B>> = leaves
            .iter()
            .map(|leaves| leaves[i].unsqueeze(0))
            .collect::<Result<_>>()?;
        let column: Vec<&Tensor<B>> = column.iter().collect();
        turned.push(reversed(&Tensor::concat(&column, 0)?, lengths)?);
    }
    steps
        .iter()
        .enumerate()
        .map(|(t, step)| {
            let leaves: Vec<Tensor<B>> = turned
                .iter()
                .map(|sequence| sequence.select(0, t))
                .collect::<Result<_>>()?;
            step.rebuild(&leaves)
        })
        .collect()
}
