//! The sequence context that a driver passes to a cell.

mod explanation;
mod lengths;
mod segments;
mod trace;

use std::any::Any;
use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::trace::{Regions, ScanOperands};
use backend_api::{Backend, DType, Error, MemoryPolicy, Meta, Result, Shape, Stacker, Tensor};

pub use self::explanation::{ExplainedPart, Explanation, StepPath};
use crate::nest::rebuilt;
use crate::widened::{is_narrow, narrow, wide as widen, widened};
use crate::{Cell, Mode, Module, Nest, StepContext};

/// A sequence as a cell sees it: time is the first axis, batch the second.
///
/// Holds the driver's settings (lengths, mode, random stream, memory policy) and the loops that
/// apply them, so that cells do not handle them.
///
/// ```
/// use recurrent::{Cell, Device, DynamicRnn, GruCell, StepContext, Tensor, Unroll};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 4, 8)?;
/// let x = Tensor::ones(&device, &[5, 2, 4])?; // [time, batch, depth]
/// // What a driver does.
/// let unroll = Unroll::new(StepContext::default(), 5, 2);
/// let (outputs, _) = cell.unroll(&unroll, &x, &cell.zero_state(2)?)?;
/// let rnn = DynamicRnn::new(&cell).time_major(true).run(&x)?;
/// assert_eq!(outputs.to_vec::<f32>()?, rnn.outputs.to_vec::<f32>()?);
/// # Ok(()) }
/// ```
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
    /// The steps that a stream, whose weights do not change, traces once for all its runs.
    pub(crate) traced: Option<Arc<TracedSteps<B>>>,
    /// The number of cells that have stepped in this run of a stream.
    pub(crate) stepped: Arc<AtomicUsize>,
    /// Where the parts of the cell note how they run, if the caller asks for it.
    pub(crate) explanation: Option<Arc<Mutex<Explanation>>>,
}

/// The traced steps of cells. There are few, and comparing a key is faster than hashing it.
type TracedSteps<B> = Mutex<Vec<(StepKey, Traced<B>)>>;

/// A cell's step in a stream: its place among the cells that step in one run of the stream, the
/// cell's random stream and type, and the inputs and the state of one step. The place distinguishes
/// two cells of one type that a composite cell gives the same [`Unroll`].
#[derive(Debug)]
pub(crate) struct StepKey {
    place: usize,
    stream: u64,
    cell: &'static str,
    inputs: Vec<Meta>,
    state: Vec<Meta>,
}

/// A traced step, or why a graph would not stand for the step.
type Traced<B> = Result<Arc<Step<B>>, String>;

/// A traced step on a device.
#[derive(Debug)]
pub(crate) struct Step<B: Backend> {
    device: B,
    regions: Arc<Regions>,
    captured: Vec<Tensor<B>>,
    /// An output of zeros, of the cell's type.
    zero: Arc<dyn Any + Send + Sync>,
}

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
            traced: None,
            stepped: Arc::default(),
            explanation: None,
        }
    }

    /// The batch size.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Inference or training, for a cell that behaves differently in training.
    ///
    /// # Errors
    /// Those of [`StepContext::mode`].
    pub fn mode<M: Module>(&self, cell: &M) -> Result<Mode> {
        self.step.mode(cell)
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
    ///
    /// # Errors
    /// Those of `body`.
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
        if self.is_whole() {
            return body(self, inputs, state);
        }
        segments::run(self, inputs, state, body)
    }

    /// Whether the memory policy leaves the sequence whole.
    fn is_whole(&self) -> bool {
        self.memory_policy == MemoryPolicy::Store && self.segment.is_none()
    }

    /// Runs a cell step by step: the default of [`Cell::unroll`].
    ///
    /// A cell of 16-bit floats runs in `f32`, with its parameters, inputs and state cast once, and
    /// outputs and state are rounded at the end: its state, and the gradients of the parameters,
    /// are sums over all steps.
    ///
    /// # Errors
    /// Those of [`Cell::step`], or the inputs have another number of steps or rows.
    pub fn stepwise<C: Cell<Backend = B>>(
        &self,
        cell: &C,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        self.check_steps(inputs)?;
        if !is_narrow(state) {
            return self.all_steps(Cow::Borrowed(cell), inputs, state);
        }
        let wide = widened(cell)?;
        // The cell checks the types that its tensors have before they are cast.
        let step = |cx: &StepContext, x: &C::Input, s: &C::State| cell.step(cx, x, s);
        trace::check::<B, _, _, _>(&self.step, inputs, state, &step)?;
        let (outputs, new) =
            self.all_steps::<C>(Cow::Owned(wide), &widen(inputs)?, &widen(state)?)?;
        Ok((
            narrow(&outputs, &cell.zero_output(self.batch)?)?,
            narrow(&new, state)?,
        ))
    }

    /// The steps of a cell, in the segments of the memory policy.
    fn all_steps<C: Cell<Backend = B>>(
        &self,
        cell: Cow<'_, C>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let run = |u: &Self, cell: &C, inputs: &C::Input, state: &C::State| {
            let zero = || cell.zero_output(u.batch());
            let of_cell = Some(std::any::type_name::<C>());
            let step = |cx: &StepContext, x: &C::Input, s: &C::State| cell.step(cx, x, s);
            u.scan_steps(inputs, state, zero, of_cell, step)
        };
        if self.is_whole() {
            return run(self, &cell, inputs, state);
        }
        let cell = cell.into_owned();
        self.segments(inputs, state, move |u, inputs, state| {
            run(u, &cell, inputs, state)
        })
    }

    /// Calls `step` for each time. For rows past their length it keeps the state and sets the
    /// output to zero.
    ///
    /// `zero` is an output of zeros. `step` is called once, on tensors without elements, and the
    /// device runs what it did; so `step` must be a pure function of its arguments and of what it
    /// captures. A step that reads the elements of a tensor, or asks for its time, is called for
    /// each time instead.
    ///
    /// # Errors
    /// Those of `step`, or the inputs have another number of steps or rows.
    pub fn scan<I, S, O>(
        &self,
        inputs: &I,
        state: &S,
        zero: &O,
        step: impl Fn(&StepContext, &I, &S) -> Result<(O, S)>,
    ) -> Result<(O, S)>
    where
        I: Nest<B>,
        S: Nest<B>,
        O: Nest<B>,
    {
        self.check_steps(inputs)?;
        self.scan_steps(inputs, state, || Ok(zero.clone()), None, step)
    }

    /// Checks that the first axis of the inputs is the time. The cell checks the other axes, of one
    /// step.
    fn check_steps<I: Nest<B>>(&self, inputs: &I) -> Result<()> {
        let other = |x: &&Tensor<B>| x.shape().dims().first() != Some(&self.steps);
        match inputs.leaves().into_iter().find(other) {
            Some(x) => {
                let expected = format!("a sequence [{}, batch, ..] is needed", self.steps);
                Err(Error::shape("unroll", "inputs", x.shape(), expected))
            }
            None => Ok(()),
        }
    }

    /// [`scan`](Self::scan); `of_cell` is the type of the cell if `step` depends on nothing but the
    /// cell, so that a stream can trace it once.
    fn scan_steps<I, S, O>(
        &self,
        inputs: &I,
        state: &S,
        zero: impl FnOnce() -> Result<O>,
        of_cell: Option<&'static str>,
        step: impl Fn(&StepContext, &I, &S) -> Result<(O, S)>,
    ) -> Result<(O, S)>
    where
        I: Nest<B>,
        S: Nest<B>,
        O: Nest<B>,
    {
        if self.steps == 0 {
            return self.without_steps(inputs, state, step);
        }
        let leaves = [inputs.leaves(), state.leaves()];
        let stream = self.traced.as_ref().zip(of_cell);
        let stream = stream.map(|(steps, cell)| {
            let place = self.stepped.fetch_add(1, Ordering::Relaxed);
            (steps, (place, self.step.stream(), cell))
        });
        let known = stream.and_then(|(steps, of)| {
            let steps = locked(steps);
            let found = steps.iter().find(|(key, _)| key.is_of(of, &leaves));
            found.map(|(_, traced)| traced.clone())
        });
        if let Some(Ok(step)) = &known
            && let Some(zero) = step.zero.downcast_ref::<O>()
        {
            return self.run_traced(step, &leaves, state, zero);
        }
        let zero = zero()?;
        let traced = match known {
            Some(traced) => traced,
            None => {
                let traced = self.trace(inputs, state, &zero, &step);
                if let Some((steps, of)) = stream {
                    locked(steps).push((StepKey::new(of, &leaves)?, traced.clone()));
                }
                traced
            }
        };
        let mixes = |step: &Step<B>| {
            let mixing = self.lengths.as_ref().and(step.regions.mixes_rows())?;
            Some(format!("rows have lengths, and {mixing} mixes rows"))
        };
        match traced.and_then(|step| mixes(&step).map_or(Ok(step), Err)) {
            Ok(step) => return self.run_traced(&step, &leaves, state, &zero),
            Err(reason) => self.explain(|| (StepPath::Called(reason), String::new())),
        }
        let zeros = zero.leaves();
        let mut stacks: Vec<Stacker<B>> = zeros.iter().map(|_| Stacker::new(self.steps)).collect();
        let mut state = state.clone();
        for t in 0..self.steps {
            let time = self.start + t;
            let input = inputs.map(&mut |x| x.select(0, t))?;
            let (output, new) = step(&self.step.at(time), &input, &state)?;
            if self.lengths.is_some() {
                lengths::same_shapes("output", &output, "`zero_output`", &zero)?;
                lengths::same_shapes("state", &new, "the state before the step", &state)?;
            }
            let output = self.masked(time, output, &zero)?;
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

    /// Notes how a part of the cell runs, if the caller asks for it.
    fn explain(&self, part: impl FnOnce() -> (StepPath, String)) {
        if let Some(explanation) = &self.explanation {
            let (path, text) = part();
            locked(explanation).parts.push(ExplainedPart { path, text });
        }
    }

    /// The step as a graph, cut into regions. Otherwise the text says why a graph would not stand
    /// for the step.
    fn trace<I, S, O>(
        &self,
        inputs: &I,
        state: &S,
        zero: &O,
        step: &impl Fn(&StepContext, &I, &S) -> Result<(O, S)>,
    ) -> Traced<B>
    where
        I: Nest<B>,
        S: Nest<B>,
        O: Nest<B>,
    {
        let traced = trace::run(&self.step, inputs, state, zero, step)?;
        Ok(Arc::new(Step {
            regions: Regions::of_step(&traced.device, traced.graph),
            device: traced.device,
            captured: traced.captured,
            zero: Arc::new(zero.clone()),
        }))
    }

    /// Runs a traced step for each time. The leaves are those of the inputs and of the state.
    fn run_traced<S, O>(
        &self,
        step: &Step<B>,
        [inputs, states]: &[Vec<&Tensor<B>>; 2],
        state: &S,
        zero: &O,
    ) -> Result<(O, S)>
    where
        S: Nest<B>,
        O: Nest<B>,
    {
        let lengths = self.remaining_lengths()?;
        let operands = ScanOperands {
            inputs,
            captured: &step.captured,
            states,
            lengths: lengths.as_ref(),
            steps: self.steps,
            start: self.start,
            reverse: false,
            reuse: !self.step.is_training(),
        };
        let results = step.regions.run(&step.device, &operands)?;
        // Only after the run does the device know what it refuses.
        self.explain(|| {
            let regions = &step.regions;
            let path = match regions.core().map(|core| core.program()) {
                Some(Err(reason)) => StepPath::Stepwise(reason.to_owned()),
                _ => StepPath::Compiled,
            };
            (path, regions.to_string())
        });
        let outputs = rebuilt(zero, results.outputs)?;
        Ok((outputs, rebuilt(state, results.states)?))
    }

    /// No outputs, and the state unchanged. One step on zeros is computed and discarded, so that
    /// the results depend on the parameters of the cell: their gradients are zero.
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
                let one = Meta::new(x.shape().without(0)?, x.dtype());
                Tensor::zeros(x.device(), one)
            }
        })?;
        let (output, new) = step(
            &self.step.at(self.start),
            &input,
            &lengths::zeros_like(state)?,
        )?;
        let outputs = output.map(&mut |o| o.unsqueeze(0)?.slice(0, 0..0))?;
        let state = state.zip(&new, &mut |old, new| {
            let never = Meta::new(Shape::SCALAR, DType::Bool);
            Tensor::zeros(old.device(), never)?.select_from(new, old)
        })?;
        Ok((outputs, state))
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
}

impl StepKey {
    fn new<B: Backend>(
        (place, stream, cell): (usize, u64, &'static str),
        [inputs, state]: &[Vec<&Tensor<B>>; 2],
    ) -> Result<Self> {
        let of_step = |x: &&Tensor<B>| Ok(Meta::new(x.shape().without(0)?, x.dtype()));
        Ok(Self {
            place,
            stream,
            cell,
            inputs: inputs.iter().map(of_step).collect::<Result<_>>()?,
            state: state.iter().map(|s| s.meta()).collect(),
        })
    }

    /// Whether this is the key of a step, here with the inputs of all steps.
    fn is_of<B: Backend>(
        &self,
        of: (usize, u64, &'static str),
        [inputs, state]: &[Vec<&Tensor<B>>; 2],
    ) -> bool {
        let of_step = |(x, meta): (&&Tensor<B>, &Meta)| {
            let all = x.meta();
            meta.is_step_of(&all, all.shape.dims().first().copied())
        };
        (self.place, self.stream, self.cell) == of
            && (self.inputs.len(), self.state.len()) == (inputs.len(), state.len())
            && inputs.iter().zip(&self.inputs).all(of_step)
            && state
                .iter()
                .zip(&self.state)
                .all(|(s, meta)| s.meta() == *meta)
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked is complete even after a panic under the lock: every change is one insertion.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
