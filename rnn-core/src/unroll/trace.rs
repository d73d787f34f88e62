//! Traces a step: runs it once on tensors without elements.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use backend_api::trace::{Operand, Recorder, StepGraph};
use backend_api::{Backend, Error, Meta, Result, Tensor};

use super::{Nest, StepContext};

/// A step as a graph.
pub(super) struct Traced<B: Backend> {
    pub(super) device: B,
    pub(super) graph: StepGraph,
    pub(super) captured: Vec<Tensor<B>>,
}

/// Traces a step. `inputs` have a leading axis for the time. The text says why the graph would
/// not stand for the step.
pub(super) fn run<B, I, S, O>(
    cx: &StepContext,
    inputs: &I,
    state: &S,
    zero: &O,
    step: &impl Fn(&StepContext, &I, &S) -> Result<(O, S)>,
) -> Result<Traced<B>, String>
where
    B: Backend,
    I: Nest<B>,
    S: Nest<B>,
    O: Nest<B>,
{
    let leaves = [state.leaves(), inputs.leaves()].concat();
    let Some(device) = leaves.first().map(|t| t.device().clone()) else {
        return Err("the step has neither inputs nor a state".to_owned());
    };
    if leaves.iter().any(|t| t.as_symbol().is_some()) {
        return Err("the step is part of another one that is traced".to_owned());
    }
    let recorder = Recorder::new();
    let result = record::<B, _, _, _>(&recorder, cx, inputs, state, step);
    let operand = |t: &&Tensor<B>| match t.as_symbol() {
        Some(symbol) => {
            if !Arc::ptr_eq(symbol.recorder(), &recorder) {
                recorder.refuse("the step returns a value of another traced step");
            }
            Operand {
                value: symbol.value(),
                layout: *t.layout(),
                dtype: t.dtype(),
            }
        }
        None => {
            let captured = recorder.capture(Arc::new((*t).clone()), t.meta());
            Operand::whole(captured.value(), t.meta())
        }
    };
    let (outputs, new_states): (Vec<Operand>, Vec<Operand>) = match &result {
        Ok((output, new)) => (
            output.leaves().iter().map(operand).collect(),
            new.leaves().iter().map(operand).collect(),
        ),
        Err(_) => (Vec::new(), Vec::new()),
    };
    let (graph, captured) = recorder.finish(outputs, new_states)?;
    let fits = |found: &[Operand], expected: Vec<&Tensor<B>>| {
        found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(f, e)| f.meta() == e.meta())
    };
    if let Err(error) = result {
        return Err(error.to_string());
    }
    if !fits(&graph.outputs, zero.leaves()) || !fits(&graph.new_states, state.leaves()) {
        return Err("the step changes the shape or type of its state or output".to_owned());
    }
    let captured = captured
        .into_iter()
        .map(|t| t.downcast_ref::<Tensor<B>>().cloned())
        .collect::<Option<Vec<_>>>()
        .ok_or("the step works on tensors of another kind of device")?;
    if captured.iter().any(|t| !t.device().same_device(&device)) {
        return Err("the step works on several devices".to_owned());
    }
    Ok(Traced {
        device,
        graph,
        captured,
    })
}

/// Has a step check its operands, without computing anything.
///
/// # Errors
/// The step refuses them. A step that cannot be traced checks nothing here.
pub(super) fn check<B, I, S, O>(
    cx: &StepContext,
    inputs: &I,
    state: &S,
    step: &impl Fn(&StepContext, &I, &S) -> Result<(O, S)>,
) -> Result<()>
where
    B: Backend,
    I: Nest<B>,
    S: Nest<B>,
{
    let leaves = [state.leaves(), inputs.leaves()].concat();
    if leaves.iter().any(|t| t.as_symbol().is_some()) {
        return Ok(());
    }
    let recorder = Recorder::new();
    match record::<B, _, _, _>(&recorder, cx, inputs, state, step) {
        Err(error) if recorder.finish(Vec::new(), Vec::new()).is_ok() => Err(error),
        _ => Ok(()),
    }
}

/// Runs a step on symbols of a recording.
fn record<B, I, S, O>(
    recorder: &Arc<Recorder>,
    cx: &StepContext,
    inputs: &I,
    state: &S,
    step: &impl Fn(&StepContext, &I, &S) -> Result<(O, S)>,
) -> Result<(O, S)>
where
    B: Backend,
    I: Nest<B>,
    S: Nest<B>,
{
    let input = inputs.map(&mut |x| {
        let meta = Meta::new(x.shape().without(0)?, x.dtype());
        Ok(Tensor::symbol(x.device(), recorder.input(meta), meta))
    })?;
    let state = state.map(&mut |s| {
        let meta = s.meta();
        Ok(Tensor::symbol(s.device(), recorder.state(meta), meta))
    })?;
    // A step may unwrap the error of reading an element. It then runs for each time, where it has
    // the elements.
    let traced = catch_unwind(AssertUnwindSafe(|| {
        step(&cx.traced(recorder), &input, &state)
    }));
    match traced {
        Ok(result) => result,
        Err(_) if recorder.is_refused() => {
            Err(Error::argument("trace", "step", "panics without elements"))
        }
        Err(panic) => resume_unwind(panic),
    }
}
