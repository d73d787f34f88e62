//! The gradient of a compiled step over all steps.

use std::sync::Arc;

use backend_api::trace::{CompiledStep, Regions, ScanOperands, ScanPlan};
use backend_api::{Backend, Error, Result};

use super::arguments::{Arguments, InputGrads, Needs};

/// The gradient of a step: a step that runs in the opposite direction.
pub(super) struct Backward {
    pub(super) regions: Arc<Regions>,
    /// The inputs of the gradient's step.
    pub(super) inputs: Vec<Source>,
    /// Of the step's captured tensors, those that the gradient's step captures.
    pub(super) captured: Vec<usize>,
    /// The inputs of the step whose gradient is wanted, and the captured tensors.
    pub(super) input_grads: Vec<usize>,
    pub(super) captured_grads: Vec<usize>,
}

/// An input of a gradient's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// An input of the step.
    Input(usize),
    /// A value that the forward steps saved.
    Saved(usize),
    /// The gradient of an output.
    Output(usize),
}

/// The values that the gradient reads.
pub(super) fn needs(plan: &ScanPlan) -> Needs {
    let graph = plan.graph();
    let mut operands = Vec::new();
    if let Ok(backward) = backward(&plan.step) {
        operands.extend(backward.inputs.iter().filter_map(|source| match source {
            Source::Input(i) => Some(*i),
            Source::Saved(_) | Source::Output(_) => None,
        }));
        operands.extend(backward.captured.iter().map(|i| graph.inputs.len() + i));
    }
    if plan.ragged {
        operands.push(plan.operands() - 1);
    }
    let first = plan.shown() + graph.states.len();
    let saved: Vec<usize> = (first..first + plan.saved).collect();
    Needs::inputs(&operands).and_outputs(&saved)
}

/// Whether a gradient was derived for the steps; they may save nothing for it.
pub(super) fn is_derived(plan: &ScanPlan) -> bool {
    backward(&plan.step).is_ok()
}

fn backward(step: &CompiledStep) -> Result<Arc<Backward>> {
    step.derived(&[], || {
        Err(Error::Gradient("scan: the step has no gradient".to_owned()))
    })
}

/// The gradients of a scan's operands.
pub(super) fn gradient<B: Backend>(plan: &ScanPlan, a: &Arguments<'_, B>) -> Result<InputGrads<B>> {
    let graph = plan.graph();
    let backward = backward(&plan.step)?;
    let shown = plan.shown();
    let first_saved = shown + graph.states.len();
    for k in 0..plan.saved {
        a.saved(first_saved + k, "scan")?;
    }
    let lengths = plan
        .ragged
        .then(|| a.input(plan.operands() - 1))
        .transpose()?;
    let inputs = backward.inputs.iter().enumerate();
    let inputs = inputs.map(|(place, source)| match (*source, &lengths) {
        (Source::Input(i), _) => a.input(i),
        (Source::Saved(k), _) => a.output(first_saved + k),
        (Source::Output(k), Some(lengths)) if backward.regions.reads_outside(place) => {
            a.grad(k)?.mask_padding(lengths, 0)
        }
        (Source::Output(k), _) => a.grad(k),
    });
    let captured = backward.captured.iter();
    let captured = captured.map(|i| a.input(graph.inputs.len() + i));
    let states = (0..graph.states.len()).map(|i| a.grad(shown + i));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let states = states.collect::<Result<Vec<_>>>()?;
    let operands = ScanOperands {
        inputs: &inputs.iter().collect::<Vec<_>>(),
        captured: &captured.collect::<Result<Vec<_>>>()?,
        states: &states.iter().collect::<Vec<_>>(),
        lengths: lengths.as_ref(),
        steps: plan.steps,
        start: 0,
        reverse: !plan.reverse,
        reuse: false,
    };
    let results = backward.regions.run(a.device, &operands)?;
    let mut grads: InputGrads<B> = (0..plan.operands()).map(|_| None).collect();
    let outputs = backward.input_grads.iter().zip(results.outputs);
    for (i, grad) in outputs {
        grads[*i] = Some(grad);
    }
    let sums = backward.captured_grads.iter().zip(results.sums);
    for (i, grad) in sums {
        grads[graph.inputs.len() + i] = Some(grad);
    }
    let first_state = graph.inputs.len() + graph.captured.len();
    for (i, grad) in results.states.into_iter().enumerate() {
        grads[first_state + i] = Some(grad);
    }
    Ok(grads)
}
