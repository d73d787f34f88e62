//! Stacks of bidirectional cells.

use backend_api::{Backend, Error, MemoryPolicy, Result, Tensor};

use super::bidirectional::{BidirectionalDynamicRnn, check_separate, static_bidirectional_rnn};
use super::lengths::Lengths;
use super::{RnnOutput, StaticRnn};
use crate::{Cell, Mode};

/// Layers of bidirectional cells; TensorFlow's `stack_bidirectional_dynamic_rnn`. The concatenated
/// outputs of both directions are the input of the next layer.
///
/// ```
/// use recurrent::{Device, GruCell, StackBidirectionalDynamicRnn, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = |depth| GruCell::new(&device, depth, 8);
/// let (forward, backward) = ([cell(4)?, cell(16)?], [cell(4)?, cell(16)?]);
/// let x = Tensor::from_slice(&device, &[0.1f32; 2 * 5 * 4], &[2, 5, 4])?;
/// let rnn = StackBidirectionalDynamicRnn::new(&forward, &backward).run(&x)?;
/// assert_eq!(rnn.outputs.shape().dims(), [2, 5, 16]);
/// assert_eq!(rnn.state.0.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "call `run`"]
pub struct StackBidirectionalDynamicRnn<'a, F: Cell, G: Cell> {
    forward: &'a [F],
    backward: &'a [G],
    lengths: Option<Lengths<F::Backend>>,
    initial_states_fw: Option<Vec<F::State>>,
    initial_states_bw: Option<Vec<G::State>>,
    time_major: bool,
    memory_policy: MemoryPolicy,
    segment: Option<usize>,
    mode: Option<Mode>,
}

impl<'a, B, F, G> StackBidirectionalDynamicRnn<'a, F, G>
where
    B: Backend,
    F: Cell<Backend = B, Input = Tensor<B>, Output = Tensor<B>>,
    G: Cell<Backend = B, Input = Tensor<B>, Output = Tensor<B>>,
{
    /// Creates a driver with one layer per cell of each list.
    pub fn new(forward: &'a [F], backward: &'a [G]) -> Self {
        Self {
            forward,
            backward,
            lengths: None,
            initial_states_fw: None,
            initial_states_bw: None,
            time_major: false,
            memory_policy: MemoryPolicy::Store,
            segment: None,
            mode: None,
        }
    }

    /// Sets the length of each row in steps: integers of any type, or a tensor of them, `[batch]`.
    /// A length must not be above the number of steps.
    pub fn sequence_length(mut self, lengths: impl Into<Lengths<B>>) -> Self {
        self.lengths = Some(lengths.into());
        self
    }

    /// Sets the initial state of each forward cell.
    pub fn initial_states_fw(mut self, states: Vec<F::State>) -> Self {
        self.initial_states_fw = Some(states);
        self
    }

    /// Sets the initial state of each backward cell.
    pub fn initial_states_bw(mut self, states: Vec<G::State>) -> Self {
        self.initial_states_bw = Some(states);
        self
    }

    /// Whether inputs and outputs are `[time, batch, depth]`; `true` avoids transposes.
    pub fn time_major(mut self, time_major: bool) -> Self {
        self.time_major = time_major;
        self
    }

    /// Sets inference or training, also within a [`Mode::scope`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets training, with the seed of the random numbers.
    pub fn training(self, seed: u64) -> Self {
        self.mode(Mode::Training { seed })
    }

    /// TensorFlow's `swap_memory`; see [`DynamicRnn::swap_memory`](crate::DynamicRnn::swap_memory).
    pub fn swap_memory(self, swap: bool) -> Self {
        self.memory_policy(match swap {
            true => MemoryPolicy::Offload,
            false => MemoryPolicy::Store,
        })
    }

    /// Sets the memory policy of back-propagation; see
    /// [`DynamicRnn::memory_policy`](crate::DynamicRnn::memory_policy).
    pub fn memory_policy(mut self, memory_policy: MemoryPolicy) -> Self {
        self.memory_policy = memory_policy;
        self
    }

    /// Sets the length of segments for the memory policy; see
    /// [`DynamicRnn::segment_length`](crate::DynamicRnn::segment_length).
    pub fn segment_length(mut self, steps: usize) -> Self {
        self.segment = Some(steps);
        self
    }

    /// TensorFlow's `parallel_iterations`; see
    /// [`DynamicRnn::parallel_iterations`](crate::DynamicRnn::parallel_iterations).
    pub fn parallel_iterations(self, _iterations: usize) -> Self {
        self
    }

    /// Runs the layers over the inputs. Returns the concatenated outputs of the last layer and the
    /// states of all layers.
    ///
    /// # Errors
    /// There is no cell, two cells share a parameter, or the lists of cells and initial states
    /// differ in length; also as [`BidirectionalDynamicRnn::run`].
    pub fn run(
        &self,
        inputs: &Tensor<B>,
    ) -> Result<RnnOutput<Tensor<B>, (Vec<F::State>, Vec<G::State>)>> {
        let op = "stack_bidirectional_dynamic_rnn";
        let states_fw = self.initial_states_fw.as_ref().map(Vec::len);
        let states_bw = self.initial_states_bw.as_ref().map(Vec::len);
        let layers = layers(
            op,
            self.forward.len(),
            &[
                ("cells_bw", Some(self.backward.len())),
                ("initial_states_fw", states_fw),
                ("initial_states_bw", states_bw),
            ],
        )?;
        let cells = (
            self.forward.iter().collect::<Vec<_>>(),
            self.backward.iter().collect::<Vec<_>>(),
        );
        check_separate(op, &cells.0, &cells.1)?;
        let mut value = inputs.clone();
        let (mut states_fw, mut states_bw) = (Vec::new(), Vec::new());
        for i in 0..layers {
            let mut rnn = BidirectionalDynamicRnn::new(&self.forward[i], &self.backward[i])
                .time_major(self.time_major)
                .memory_policy(self.memory_policy);
            if let Some(steps) = self.segment {
                rnn = rnn.segment_length(steps);
            }
            if let Some(mode) = self.mode {
                rnn = rnn.mode(mode.child(i as u64));
            }
            if let Some(lengths) = &self.lengths {
                rnn = rnn.sequence_length(lengths.clone());
            }
            if let Some(states) = &self.initial_states_fw {
                rnn = rnn.initial_state_fw(states[i].clone());
            }
            if let Some(states) = &self.initial_states_bw {
                rnn = rnn.initial_state_bw(states[i].clone());
            }
            let layer = rnn.run(&value)?;
            value = Tensor::concat(&[&layer.outputs.0, &layer.outputs.1], 2)?;
            states_fw.push(layer.state.0);
            states_bw.push(layer.state.1);
        }
        Ok(RnnOutput {
            outputs: value,
            state: (states_fw, states_bw),
        })
    }
}

/// The number of layers. Checks that every given list has one entry per forward cell.
fn layers(op: &'static str, forward: usize, others: &[(&str, Option<usize>)]) -> Result<usize> {
    if forward == 0 {
        return Err(Error::argument(op, "cells_fw", "must not be empty"));
    }
    for &(arg, count) in others {
        if let Some(count) = count.filter(|&count| count != forward) {
            let problem = format!("has length {count}, but cells_fw has length {forward}");
            return Err(Error::argument(op, arg, problem));
        }
    }
    Ok(forward)
}

/// The list form of [`StackBidirectionalDynamicRnn`]; TensorFlow's `stack_bidirectional_rnn`. Runs
/// layers of two cells each over a list of inputs `[batch, depth]`. Returns the list of the last
/// layer's concatenated outputs and the states of all layers.
///
/// The [`StaticRnn`]s define the initial states, zero by default. Lengths as in
/// [`BidirectionalDynamicRnn::sequence_length`].
///
/// ```
/// use recurrent::{Device, GruCell, StaticRnn, Tensor, stack_bidirectional_rnn};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = |depth| GruCell::new(&device, depth, 8);
/// let (forward, backward) = ([cell(4)?, cell(16)?], [cell(4)?, cell(16)?]);
/// let x = Tensor::from_slice(&device, &[0.1f32; 2 * 4], &[2, 4])?;
/// let inputs = vec![x; 5];
/// let forward = forward.iter().map(StaticRnn::new).collect();
/// let backward = backward.iter().map(StaticRnn::new).collect();
/// let rnn = stack_bidirectional_rnn(forward, backward, &inputs, Some(&[5, 3]))?;
/// assert_eq!((rnn.outputs.len(), rnn.outputs[0].shape().dims()), (5, &[2, 16][..]));
/// assert_eq!(rnn.state.0.len(), 2);
/// # Ok(()) }
/// ```
///
/// # Errors
/// There is no cell, two cells share a parameter, or the lists differ in length; also as
/// [`static_bidirectional_rnn`].
#[expect(
    clippy::type_complexity,
    reason = "one state for each layer and direction"
)]
pub fn stack_bidirectional_rnn<B, F, G>(
    forward: Vec<StaticRnn<'_, F>>,
    backward: Vec<StaticRnn<'_, G>>,
    inputs: &[Tensor<B>],
    sequence_length: Option<&[i64]>,
) -> Result<RnnOutput<Vec<Tensor<B>>, (Vec<F::State>, Vec<G::State>)>>
where
    B: Backend,
    F: Cell<Backend = B, Input = Tensor<B>, Output = Tensor<B>>,
    G: Cell<Backend = B, Input = Tensor<B>, Output = Tensor<B>>,
{
    let others = [("cells_bw", Some(backward.len()))];
    let op = "stack_bidirectional_rnn";
    layers(op, forward.len(), &others)?;
    let cells_fw: Vec<&F> = forward.iter().map(|rnn| rnn.cell).collect();
    let cells_bw: Vec<&G> = backward.iter().map(|rnn| rnn.cell).collect();
    check_separate(op, &cells_fw, &cells_bw)?;
    let mut outputs = inputs.to_vec();
    let (mut states_fw, mut states_bw) = (Vec::new(), Vec::new());
    for (forward, backward) in forward.into_iter().zip(backward) {
        let layer = static_bidirectional_rnn(forward, backward, &outputs, sequence_length)?;
        outputs = layer.outputs;
        states_fw.push(layer.state.0);
        states_bw.push(layer.state.1);
    }
    Ok(RnnOutput {
        outputs,
        state: (states_fw, states_bw),
    })
}
