//! The sequence context that a driver passes to a cell.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use backend_api::{
    Backend, Binary, DType, Fused, MemoryPolicy, Meta, Op, Recurrence, Result, SequenceRequest,
    Shape, Stacker, Tensor,
};

use crate::module::ParamId;
use crate::{Cell, Mode, Nest, StepContext};

/// A sequence as a cell sees it: time is the first axis, batch the second.
///
/// Holds the driver's settings (lengths, mode, random stream, memory policy) and the loops that
/// apply them, so that cells do not handle them.
#[derive(Clone, Debug)]
pub struct Unroll<B: Backend> {
    pub(crate) step: StepContext,
    /// Number of steps of the sequence before this part.
    pub(crate) start: usize,
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    /// `[batch]` integers, counted from the start of the whole sequence. `None` if no row ends
    /// early.
    pub(crate) lengths: Option<Tensor<B>>,
    pub(crate) memory_policy: MemoryPolicy,
    /// Steps per segment of the memory policy; `None` for a single segment.
    pub(crate) segment: Option<usize>,
    /// Cache of tensors that cells derive from their weights, for streams, whose weights do not
    /// change.
    pub(crate) cache: Option<WeightCache<B>>,
}

/// Derived tensors by parameter and name; shared by all runs of a stream.
type WeightCache<B> = Arc<Mutex<HashMap<(ParamId, &'static str), Vec<Tensor<B>>>>>;

impl<B: Backend> Unroll<B> {
    /// A sequence of `steps` steps in which no row ends early.
    pub fn new(step: StepContext, steps: usize, batch: usize) -> Self {
        Self {
            step,
            start: 0,
            steps,
            batch,
            lengths: None,
            memory_policy: MemoryPolicy::Store,
            segment: None,
            cache: None,
        }
    }

    /// A tensor that depends only on the cell's weights. A stream
    /// ([`StreamingRnn`](crate::StreamingRnn)) computes it once and caches it; other drivers
    /// compute it each time. `name` distinguishes the uses of a parameter.
    pub(crate) fn cached<const N: usize>(
        &self,
        of: ParamId,
        name: &'static str,
        make: impl FnOnce() -> Result<[Tensor<B>; N]>,
    ) -> Result<[Tensor<B>; N]> {
        let Some(cache) = &self.cache else {
            return make();
        };
        let key = (of, name);
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cache.get(&key)
            && let Ok(known) = <[Tensor<B>; N]>::try_from(known.clone())
        {
            return Ok(known);
        }
        let made = make()?;
        cache.insert(key, made.to_vec());
        Ok(made)
    }

    /// The batch size.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Inference or training.
    pub fn mode(&self) -> Mode {
        self.step.mode
    }

    /// Number of steps in this part of the sequence.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The same sequence for sub-cell `i` of a composite cell, with its own random stream.
    pub fn child(&self, i: usize) -> Self {
        let mut part = self.clone();
        part.step = self.step.child(i);
        part
    }

    /// Runs `body` on each segment of the memory policy, passing the state from one segment to the
    /// next.
    pub fn segments<I, S, O>(
        &self,
        inputs: &I,
        state: &S,
        body: impl Fn(&Self, &I, &S) -> Result<(O, S)> + Clone + Send + Sync + 'static,
    ) -> Result<(O, S)>
    where
        I: Nest<B>,
        S: Nest<B>,
        O: Nest<B>,
    {
        if self.memory_policy == MemoryPolicy::Store && self.segment.is_none() {
            return body(self, inputs, state);
        }
        segmented::run(self, inputs, state, body)
    }

    /// Runs a cell step by step: the default of [`Cell::unroll`].
    pub fn stepwise<C: Cell<Backend = B>>(
        &self,
        cell: &C,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let cell = cell.clone();
        self.segments(inputs, state, move |u, inputs, state| {
            let zero = cell.zero_output(u.batch())?;
            u.scan(inputs, state, &zero, |cx, x, state| cell.step(cx, x, state))
        })
    }

    /// Calls `step` for each time. For rows past their length it keeps the state and sets the
    /// output to zero.
    ///
    /// `zero` is an output of zeros.
    pub fn scan<I, S, O>(
        &self,
        inputs: &I,
        state: &S,
        zero: &O,
        mut step: impl FnMut(&StepContext, &I, &S) -> Result<(O, S)>,
    ) -> Result<(O, S)>
    where
        I: Nest<B>,
        S: Nest<B>,
        O: Nest<B>,
    {
        if self.steps == 0 {
            return self.without_steps(inputs, state, step);
        }
        let zeros = zero.leaves();
        let mut stacks: Vec<Stacker<B>> = zeros.iter().map(|_| Stacker::new(self.steps)).collect();
        let mut state = state.clone();
        for t in 0..self.steps {
            let time = self.start + t;
            let input = inputs.map(&mut |x| x.select(0, t))?;
            let (output, new) = step(&self.step.at(time), &input, &state)?;
            let output = self.masked(time, output, zero)?;
            for (stack, leaf) in stacks.iter_mut().zip(output.leaves()) {
                stack.push(leaf.clone())?;
            }
            state = self.masked(time, new, &state)?;
        }
        let mut stacks = stacks.into_iter();
        let outputs = zero.map(&mut |zero| match stacks.next() {
            Some(stack) => stack.finish(zero),
            None => Ok(zero.clone()),
        })?;
        Ok((outputs, state))
    }

    /// No outputs, and the state unchanged. One step on zeros is computed and discarded, so that
    /// the results depend on the parameters of the cell: their gradients are zero, as with a
    /// device's operation for whole sequences.
    fn without_steps<I, S, O>(
        &self,
        inputs: &I,
        state: &S,
        step: impl FnOnce(&StepContext, &I, &S) -> Result<(O, S)>,
    ) -> Result<(O, S)>
    where
        I: Nest<B>,
        S: Nest<B>,
        O: Nest<B>,
    {
        // A sum over no steps is zero, and depends on the inputs.
        let input = inputs.map(&mut |x| match x.dtype().is_float() {
            true => x.sum(0),
            false => {
                let one = Meta::new(x.shape().without(0), x.dtype());
                Tensor::zeros(x.device(), one)
            }
        })?;
        let (output, new) = step(&self.step.at(self.start), &input, &zeros_like(state)?)?;
        let outputs = output.map(&mut |o| o.unsqueeze(0)?.slice(0, 0..0))?;
        let state = state.zip(&new, &mut |old, new| {
            let never = Meta::new(Shape::SCALAR, DType::Bool);
            Tensor::zeros(old.device(), never)?.select_from(new, old)
        })?;
        Ok((outputs, state))
    }

    /// Sets the floats among the inputs to zero past each row's length.
    ///
    /// Steps run on the padding too, and their results are discarded. Their gradients are products
    /// with a gradient of zero, which an infinity or a NaN in the padding would make NaN.
    pub(crate) fn mask_inputs<I: Nest<B>>(&self, inputs: &I) -> Result<I> {
        let Some(lengths) = &self.lengths else {
            return Ok(inputs.clone());
        };
        inputs.map(&mut |x| match x.dtype().is_float() {
            true => x.mask_padding(lengths, self.start),
            false => Ok(x.clone()),
        })
    }

    /// [`mask_inputs`](Self::mask_inputs) for the inputs of one step.
    pub(crate) fn mask_input<I: Nest<B>>(&self, time: usize, input: &I) -> Result<I> {
        let Some(lengths) = &self.lengths else {
            return Ok(input.clone());
        };
        input.map(&mut |x| match x.dtype().is_float() {
            true => {
                let zero = Tensor::zeros(x.device(), x.meta())?;
                lengths.fused(Fused::MaskedUpdate { time }, &[x, &zero])
            }
            false => Ok(x.clone()),
        })
    }

    /// The state with zeros in rows of length 0, which take no step: their initial state may hold
    /// NaN, as the padding may.
    pub(crate) fn mask_state<S: Nest<B>>(&self, state: &S) -> Result<S> {
        self.masked(0, state.clone(), &zeros_like(state)?)
    }

    /// Sets the outputs of all steps to zero past each row's length: for wrappers that modify the
    /// outputs of a whole sequence.
    pub fn mask_padding<O: Nest<B>>(&self, outputs: &O) -> Result<O> {
        let Some(lengths) = &self.lengths else {
            return Ok(outputs.clone());
        };
        outputs.map(&mut |o| o.mask_padding(lengths, self.start))
    }

    /// The random numbers of all steps, `[time, ..]`; `noise` computes those of one step. They do
    /// not depend on how the sequence is cut into parts. `like` has the shape of one step.
    pub(crate) fn noise(
        &self,
        like: &Tensor<B>,
        noise: impl Fn(&StepContext) -> Result<Tensor<B>>,
    ) -> Result<Tensor<B>> {
        let mut stack = Stacker::new(self.steps);
        for time in self.start..self.start + self.steps {
            stack.push(noise(&self.step.at(time))?)?;
        }
        stack.finish(like)
    }

    /// The same sequence for a cell on another device.
    pub(crate) fn to(&self, device: &B) -> Result<Self> {
        let lengths = self.lengths.as_ref().map(|l| l.to(device)).transpose()?;
        Ok(Self {
            lengths,
            ..self.clone()
        })
    }

    /// `new` for the rows that are still running at `time`, else `old`.
    pub(crate) fn masked<N: Nest<B>>(&self, time: usize, new: N, old: &N) -> Result<N> {
        match &self.lengths {
            None => Ok(new),
            Some(lengths) => new.zip(old, &mut |new, old| {
                lengths.fused(Fused::MaskedUpdate { time }, &[new, old])
            }),
        }
    }

    /// Runs a layer as one operation on the device's fastest path.
    ///
    /// `inputs` are the inputs `[time, batch, depth]`, the input kernel `[depth, gates * units]`
    /// and the bias `[gates * units]`. `parameters` are the [recurrent
    /// parameters](Recurrence::parameters). Returns the outputs `[time, batch, units]` (or the
    /// width of the projection) and the final state. Returns `None` if the device has no plan for
    /// the layer; the cell should then [`scan`](Self::scan).
    ///
    /// # Errors
    /// Shapes or types do not fit each other.
    pub fn sequence(
        &self,
        recurrence: Recurrence,
        inputs: [&Tensor<B>; 3],
        parameters: &[&Tensor<B>],
        state: &[&Tensor<B>],
    ) -> Result<Option<(Tensor<B>, Vec<Tensor<B>>)>> {
        let x = inputs[0];
        let device = x.device();
        let request = SequenceRequest {
            recurrence,
            inputs: x.shape().last(),
            steps: self.steps,
            batch: self.batch,
            units: state.first().map_or(0, |t| t.shape().last()),
            ragged: self.lengths.is_some(),
            reuse: self.mode() == Mode::Evaluation,
            dtype: x.dtype(),
        };
        let Some(plan) = device.plan_sequence(&request) else {
            return Ok(None);
        };
        let lengths = self.remaining_lengths()?;
        let mut ins = inputs.to_vec();
        ins.extend(parameters);
        ins.extend(state);
        ins.extend(&lengths);
        let mut results = Tensor::call_all(device, &Op::Fused(Fused::Sequence(plan)), &ins)?;
        let outputs = results.remove(0);
        Ok(Some((outputs, results.into_vec())))
    }

    /// The lengths counted from the start of this part, and at least 0.
    fn remaining_lengths(&self) -> Result<Option<Tensor<B>>> {
        let Some(lengths) = &self.lengths else {
            return Ok(None);
        };
        if self.start == 0 {
            return Ok(Some(lengths.clone()));
        }
        let device = lengths.device();
        let meta = Meta::new(Shape::SCALAR, lengths.dtype());
        let start = Tensor::full(device, self.start as f64, meta)?;
        let left = lengths.sub(&start)?;
        let zero = Tensor::zeros(device, meta)?;
        Ok(Some(Tensor::call(
            device,
            &Op::Binary(Binary::Max),
            &[&left, &zero],
        )?))
    }
}

fn zeros_like<B: Backend, N: Nest<B>>(nest: &N) -> Result<N> {
    nest.map(&mut |t| Tensor::zeros(t.device(), t.meta()))
}

mod segmented {
    //! Splits a sequence into segments for the memory policy.

    use std::sync::Arc;

    use super::{Backend, MemoryPolicy, Nest, Result, Tensor, Unroll};

    pub(super) fn run<B, I, S, O>(
        u: &Unroll<B>,
        inputs: &I,
        state: &S,
        body: impl Fn(&Unroll<B>, &I, &S) -> Result<(O, S)> + Clone + Send + Sync + 'static,
    ) -> Result<(O, S)>
    where
        B: Backend,
        I: Nest<B>,
        S: Nest<B>,
        O: Nest<B>,
    {
        let Some(device) = device(inputs, state) else {
            // Without tensors there is no device, and nothing to store.
            return body(u, inputs, state);
        };
        let length = u.segment.unwrap_or(u.steps).max(1);
        let mut state = state.clone();
        let mut parts: Vec<O> = Vec::new();
        let mut t = 0;
        // Run once even for an empty sequence, because only the body knows the structure of the
        // outputs.
        while t < u.steps || parts.is_empty() {
            let end = (t + length).min(u.steps);
            let part = Unroll {
                start: u.start + t,
                steps: end - t,
                ..u.clone()
            };
            let slice = inputs.map(&mut |x| x.slice(0, t..end))?;
            let (output, new) = one(&device, &part, &slice, &state, body.clone())?;
            parts.push(output);
            state = new;
            t = end.max(t + 1);
        }
        let columns: Vec<Vec<&Tensor<B>>> = parts.iter().map(Nest::leaves).collect();
        let mut column = 0;
        let outputs = parts[0].map(&mut |_| {
            let leaves: Vec<_> = columns.iter().map(|leaves| leaves[column]).collect();
            column += 1;
            Tensor::concat(&leaves, 0)
        })?;
        Ok((outputs, state))
    }

    fn device<B: Backend, I: Nest<B>, S: Nest<B>>(inputs: &I, state: &S) -> Option<B> {
        let leaves = [inputs.leaves(), state.leaves()].concat();
        leaves.first().map(|t| t.device().clone())
    }

    /// Runs one segment. Inputs, outputs and state are passed to the device as a flat list of
    /// tensors.
    fn one<B, I, S, O>(
        device: &B,
        part: &Unroll<B>,
        inputs: &I,
        state: &S,
        body: impl Fn(&Unroll<B>, &I, &S) -> Result<(O, S)> + Send + Sync + 'static,
    ) -> Result<(O, S)>
    where
        B: Backend,
        I: Nest<B>,
        S: Nest<B>,
        O: Nest<B>,
    {
        // The structure of the outputs is known only after the body has run.
        let shape: Arc<std::sync::OnceLock<(O, S)>> = Arc::default();
        let (like_inputs, like_state) = (detached(inputs)?, detached(state)?);
        let mut flat: Vec<Tensor<B>> = inputs.leaves().into_iter().cloned().collect();
        let split = flat.len();
        flat.extend(state.leaves().into_iter().cloned());
        // Sub-cells do not split a segment again.
        let unroll = Unroll {
            memory_policy: MemoryPolicy::Store,
            segment: None,
            ..part.clone()
        };
        let seen = shape.clone();
        let results = device.segment(
            part.memory_policy,
            &flat,
            Arc::new(move |_: &B, leaves: &[Tensor<B>]| {
                let inputs = like_inputs.rebuild(&leaves[..split])?;
                let state = like_state.rebuild(&leaves[split..])?;
                let (output, state) = body(&unroll, &inputs, &state)?;
                let mut flat: Vec<Tensor<B>> = output.leaves().into_iter().cloned().collect();
                flat.extend(state.leaves().into_iter().cloned());
                // Only the structure is used; detached, so that it keeps no history alive.
                if seen.get().is_none() {
                    let _ = seen.set((detached(&output)?, detached(&state)?));
                }
                Ok(flat)
            }),
        )?;
        let Some((output, state)) = shape.get() else {
            return Err(backend_api::Error::argument(
                "segment",
                "body",
                "was not run by the device",
            ));
        };
        let split = output.leaves().len();
        let outputs = output.rebuild(&results[..split])?;
        Ok((outputs, state.rebuild(&results[split..])?))
    }

    fn detached<B: Backend, N: Nest<B>>(nest: &N) -> Result<N> {
        nest.map(&mut |t| Ok(t.detach()))
    }
}
