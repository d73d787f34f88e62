//! Derives the gradient of a compiled step, once, from its graph: by back-propagation on symbols.
//!
//! The gradient of a step is itself a step, which runs from the last time to the first: its state
//! is the gradient of the state, its inputs are the step's inputs, the gradients of the outputs and
//! the values that the forward steps saved. Both directions are therefore the same operation,
//! [`Fused::Scan`].

use std::collections::HashMap;
use std::sync::Arc;

use backend_api::trace::{
    CompiledStep, Node, Operand, Recorder, Regions, ScanPlan, StepGraph, Symbol, Symbolic, Value,
    Work, row_nodes, run_step,
};
use backend_api::{Backend, DType, Error, Fused, Meta, Op, Result, Tensor, Unary};
use smallvec::SmallVec;

use super::backward::{Reach, vjp};
use super::node::Graph;
use super::scan::{Backward, Source};
use super::{Autodiff, Differentiable};
use crate::Gradient;

type Recorded = Tensor<Autodiff<Symbolic>>;

/// The forward steps of a step whose gradient is wanted: they save values.
struct Forward {
    step: Arc<CompiledStep>,
    saved: usize,
}

/// The plan that saves what the gradient reads, or `None` if the gradient cannot be derived; the
/// step's operations are then recorded one by one. `tracked` has an entry for each operand.
pub(super) fn saving<B: Backend>(
    device: &B,
    plan: &ScanPlan,
    tracked: &[bool],
) -> Option<ScanPlan> {
    let graph = plan.graph();
    if !plan.is_compiled() || plan.saved > 0 {
        return None;
    }
    let key = &tracked[..graph.inputs.len() + graph.captured.len()];
    // A gradient that cannot be derived is not tried again.
    let derived = plan.step.derived(key, || Ok(derive(device, graph, key)));
    let forward: Arc<Result<Forward>> = derived.ok()?;
    let forward = forward.as_ref().as_ref().ok()?;
    Some(ScanPlan {
        step: forward.step.clone(),
        saved: forward.saved,
        ..plan.clone()
    })
}

/// The graphs of a step that saves values for its gradient, and of the gradient.
struct Derived {
    forward: StepGraph,
    saved: usize,
    step: StepGraph,
    /// As in [`Backward`].
    inputs: Vec<Source>,
    captured: Vec<usize>,
    input_grads: Vec<usize>,
    captured_grads: Vec<usize>,
}

/// Derives the gradient of a step with respect to its state, the inputs and captured tensors that
/// are `wanted`, and compiles it.
fn derive<B: Backend>(device: &B, graph: &StepGraph, wanted: &[bool]) -> Result<Forward> {
    let derived = graphs(graph, wanted)?;
    let program = device.compile_step(&derived.forward);
    if let Err(reason) = &program {
        return Err(underived(reason));
    }
    let regions = Regions::of_step(device, derived.step);
    if let Some(Err(reason)) = regions.core().map(|core| core.program()) {
        return Err(underived(reason));
    }
    let step = Arc::new(CompiledStep::new(derived.forward, program));
    step.derived(&[], || {
        Ok(Backward {
            regions,
            inputs: derived.inputs,
            captured: derived.captured,
            input_grads: derived.input_grads,
            captured_grads: derived.captured_grads,
        })
    })?;
    Ok(Forward {
        step,
        saved: derived.saved,
    })
}

/// The graphs do not depend on the device, and this function is compiled once for all: it
/// instantiates the rules of all operations.
fn graphs(graph: &StepGraph, wanted: &[bool]) -> Result<Derived> {
    let recorder = Recorder::new();
    let inner = Symbolic::new(recorder.clone());
    let tape = Autodiff::new(inner.clone());
    let symbol = |symbol: Symbol, meta: Meta| -> Result<Recorded> {
        let layout = backend_api::Layout::contiguous(meta.shape);
        let buffer = Autodiff::wrap(symbol);
        Tensor::from_parts(&tape, buffer, layout, meta.dtype)
    };
    let leaf = |s: Symbol, meta: Meta, wanted: bool| match wanted && meta.dtype.is_float() {
        true => tape.leaf(&symbol(s, meta)?),
        false => symbol(s, meta),
    };
    // The recorder's inputs: the step's inputs, its states, the gradients of its outputs. The
    // recorder's states are the gradients of the states.
    let (wanted_inputs, wanted_captured) = wanted.split_at(graph.inputs.len());
    let inputs = graph.inputs.iter().zip(wanted_inputs);
    let inputs = inputs.map(|(meta, wanted)| leaf(recorder.input(*meta), *meta, *wanted));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let states = graph.states.iter();
    let states = states.map(|meta| leaf(recorder.input(*meta), *meta, true));
    let states = states.collect::<Result<Vec<_>>>()?;
    let captured = graph.captured.iter().zip(wanted_captured);
    let captured =
        captured.map(|(meta, wanted)| leaf(recorder.capture(Arc::new(()), *meta), *meta, *wanted));
    let captured = captured.collect::<Result<Vec<_>>>()?;
    let (outputs, new_states) = run_step(&tape, graph, inputs.clone(), &captured, &states)?;
    let forward_nodes = recorder.so_far().nodes.len();
    let operand = |t: &Recorded| -> Result<Operand> {
        Ok(Operand {
            value: t.buffer()?.inner.value(),
            layout: *t.layout(),
            dtype: t.dtype(),
        })
    };
    let mut seeds: Vec<(&Recorded, Tensor<Symbolic>)> = Vec::new();
    for output in &outputs {
        let grad = recorder.input(output.meta());
        seeds.push((output, inner.tensor(grad, output.meta())?));
    }
    for state in &new_states {
        let grad = recorder.state(state.meta());
        seeds.push((state, inner.tensor(grad, state.meta())?));
    }
    let leaves = [&inputs, &captured, &states];
    let leaves = leaves.into_iter().flatten().filter(|t| t.is_recorded());
    let leaves: Vec<&Recorded> = leaves.collect();
    let mut found = vec![None; leaves.len()];
    let take = &mut |leaf: usize, grad| {
        found[leaf] = grad;
        Ok(())
    };
    vjp(
        &tape,
        seeds,
        &leaves,
        Reach::Anything,
        Graph::Consumed,
        take,
    )?;
    let mut found = found.into_iter();
    let mut gradients = |of: &[Recorded], always: bool| -> Result<Vec<(usize, Operand)>> {
        let mut all = Vec::new();
        for (i, leaf) in of.iter().enumerate() {
            let grad = match leaf.is_recorded() {
                true => found.next().flatten(),
                false => None,
            };
            match grad {
                Some(Gradient::Dense(grad)) => all.push((i, operand(&grad)?)),
                Some(Gradient::Sparse(_)) => return Err(underived("a lookup in the steps")),
                None if always => {
                    let zeros = Tensor::zeros(&inner, leaf.meta())?;
                    let value = zeros.buffer()?.value();
                    all.push((i, Operand::whole(value, leaf.meta())));
                }
                None => {}
            }
        }
        Ok(all)
    };
    let (of_inputs, of_captured) = (gradients(&inputs, false)?, gradients(&captured, false)?);
    let of_states = gradients(&states, true)?;
    let mut recorded = recorder.so_far();
    recorded.outputs = of_inputs.iter().map(|(_, grad)| *grad).collect();
    recorded.sums = of_captured.iter().map(|(_, grad)| *grad).collect();
    recorded.new_states = of_states.iter().map(|(_, grad)| *grad).collect();
    let forward_outputs = outputs.iter().map(operand).collect::<Result<Vec<_>>>()?;
    let forward_states = new_states.iter().map(operand).collect::<Result<Vec<_>>>()?;

    let mut cut = Cut {
        graph,
        recorded: &recorded,
        forward_nodes,
        rows: row_nodes(&recorded),
        saved: Vec::new(),
        inputs: Vec::new(),
    };
    let step = cut.backward();
    let (saved, sources) = (cut.saved, cut.inputs);
    let mut forward = StepGraph {
        inputs: graph.inputs.clone(),
        states: graph.states.clone(),
        captured: graph.captured.clone(),
        nodes: recorded.nodes[..forward_nodes].to_vec(),
        outputs: forward_outputs,
        new_states: forward_states,
        sums: Vec::new(),
    };
    forward.outputs.extend(
        saved
            .iter()
            .map(|value| Operand::whole(*value, recorded.meta_of(*value))),
    );
    let as_step = |operand: &mut Operand| {
        if let Value::Input(i) = operand.value
            && i >= graph.inputs.len()
        {
            operand.value = Value::State(i - graph.inputs.len());
        }
    };
    let operands = forward.nodes.iter_mut().flat_map(|n| &mut n.operands);
    operands.for_each(as_step);
    let results = forward.outputs.iter_mut().chain(&mut forward.new_states);
    results.for_each(as_step);
    let all: Vec<usize> = (0..graph.captured.len()).collect();
    // Every captured tensor stays an operand, used or not.
    let kept = forward.prune();
    if kept != all {
        return Err(underived("an unused captured tensor"));
    }
    let mut step = step;
    step.simplify()?;
    let captured = step.prune();
    Ok(Derived {
        forward,
        saved: saved.len(),
        step,
        inputs: sources,
        captured,
        input_grads: of_inputs.iter().map(|(i, _)| *i).collect(),
        captured_grads: of_captured.iter().map(|(i, _)| *i).collect(),
    })
}

fn underived(reason: &str) -> Error {
    Error::Gradient(format!("scan: {reason} has no gradient in the steps"))
}

/// Cuts the gradient's step out of a recording that begins with the step itself.
struct Cut<'a> {
    graph: &'a StepGraph,
    recorded: &'a StepGraph,
    /// The first nodes are those of the step.
    forward_nodes: usize,
    /// For each node, whether its results are rows: no other values can be saved.
    rows: Vec<bool>,
    /// The values that the forward steps save.
    saved: Vec<Value>,
    inputs: Vec<Source>,
}

impl Cut<'_> {
    /// Whether the forward steps save a value, rather than that the gradient computes it again.
    fn is_saved(&self, value: Value) -> bool {
        match value {
            Value::Input(i) => {
                let states = self.graph.inputs.len()..;
                states.contains(&i) && i < self.graph.inputs.len() + self.graph.states.len()
            }
            Value::Node(node, _) => {
                node < self.forward_nodes
                    && self.rows[node]
                    && self.recorded.meta_of(value).dtype != DType::Bool
                    && is_costly(&self.recorded.nodes[node])
            }
            Value::State(_) | Value::Captured(_) => false,
        }
    }

    /// The source of a value that is an input of the gradient's step, if it is one.
    fn source(&mut self, value: Value) -> Option<Source> {
        if self.is_saved(value) {
            let place = self.saved.iter().position(|v| *v == value);
            let place = place.unwrap_or_else(|| {
                self.saved.push(value);
                self.saved.len() - 1
            });
            return Some(Source::Saved(place));
        }
        let (inputs, states) = (self.graph.inputs.len(), self.graph.states.len());
        match value {
            Value::Input(i) if i < inputs => Some(Source::Input(i)),
            Value::Input(i) => Some(Source::Output(i - inputs - states)),
            _ => None,
        }
    }

    /// The gradient's step.
    fn backward(&mut self) -> StepGraph {
        let recorded = self.recorded;
        let mut used = vec![false; recorded.nodes.len()];
        let mut left: Vec<Operand> = recorded.results().copied().collect();
        let mut places: HashMap<Value, usize> = HashMap::new();
        let mut metas: Vec<Meta> = Vec::new();
        while let Some(operand) = left.pop() {
            if let Some(source) = self.source(operand.value) {
                places.entry(operand.value).or_insert_with(|| {
                    self.inputs.push(source);
                    metas.push(recorded.meta_of(operand.value));
                    metas.len() - 1
                });
            } else if let Value::Node(node, _) = operand.value
                && !std::mem::replace(&mut used[node], true)
            {
                left.extend(&recorded.nodes[node].operands);
            }
        }
        let mut at = vec![0; used.len()];
        let mut nodes: Vec<Node> = Vec::new();
        let renamed = |at: &[usize], o: &Operand| Operand {
            value: match (places.get(&o.value), o.value) {
                (Some(place), _) => Value::Input(*place),
                (None, Value::Node(node, k)) => Value::Node(at[node], k),
                (None, value) => value,
            },
            ..*o
        };
        for (i, node) in recorded.nodes.iter().enumerate().filter(|(i, _)| used[*i]) {
            at[i] = nodes.len();
            let operands = node.operands.iter().map(|o| renamed(&at, o));
            nodes.push(Node {
                operands: operands.collect::<SmallVec<_>>(),
                ..node.clone()
            });
        }
        let all = |operands: &[Operand]| operands.iter().map(|o| renamed(&at, o)).collect();
        StepGraph {
            inputs: metas,
            states: recorded.states.clone(),
            captured: recorded.captured.clone(),
            outputs: all(&recorded.outputs),
            new_states: all(&recorded.new_states),
            sums: all(&recorded.sums),
            nodes,
        }
    }
}

/// Whether a node costs more to compute again than to save.
fn is_costly(node: &Node) -> bool {
    match &node.work {
        Work::Op(op) => match op {
            Op::Unary(f) => !matches!(
                f,
                Unary::Neg | Unary::Abs | Unary::Sign | Unary::Square | Unary::Floor
            ),
            Op::MatMul { .. } | Op::Reduce { .. } => true,
            Op::Fused(fused) => !matches!(fused, Fused::ActivationGrad { .. }),
            _ => false,
        },
        Work::AddAt(_) | Work::Detach | Work::Noise { .. } => false,
    }
}
