//! Cuts a step into what can be computed for all steps at once and what has to run step by step.
//!
//! What no state reaches is computed before the steps, and what no state needs after them, both by
//! ordinary operations with a leading axis for the time. On a device that records operations for a
//! gradient these are recorded as any others, so that only the steps themselves need a gradient of
//! their own. Cheap operations stay in the steps, where a value is read while it is still in the
//! cache.

mod places;
mod products;
pub(super) mod run;
mod sums;

use std::fmt;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use self::places::{Place, Uses, is_liftable, places};
use self::products::split_products;
use super::graph::{Node, Operand, StepGraph, Value};
use super::plan::{CompiledStep, RowSource, RowSum, SharedProgram};
use super::rows::{Rows, mixing_node};
use crate::{Backend, Result};

/// A step, cut into regions.
#[derive(Debug)]
pub struct Regions {
    graph: StepGraph,
    /// For each node, where it is computed.
    places: Vec<Place>,
    /// What remains in the steps; `None` if nothing does.
    core: Option<Core>,
    /// For each node, whether it can be computed outside of the steps.
    outside: Vec<bool>,
    uses: Uses,
    /// The operation that mixes rows, as text, once it is asked for.
    mixing: OnceLock<Option<String>>,
}

/// The part that runs step by step.
#[derive(Debug)]
struct Core {
    step: Arc<CompiledStep>,
    /// The values that are the inputs and captured tensors of the part.
    inputs: Vec<Value>,
    captured: Vec<Value>,
    /// The operands that are its outputs, but for those that only sums read.
    outputs: Vec<Operand>,
    /// Whether these are the outputs of the whole step, in its order.
    has_all_outputs: bool,
    /// The rows that it sums over all steps.
    sums: Vec<SmallVec<[Operand; 2]>>,
}

impl Regions {
    /// Cuts a step into regions. `compile` makes a program of the part that runs step by step.
    pub fn new(
        graph: StepGraph,
        compile: &dyn Fn(&StepGraph) -> Result<SharedProgram, String>,
    ) -> Self {
        let graph = split_products(graph);
        let uses = Uses::new(&graph);
        let mut regions = Self::placed(graph, uses, true);
        regions.core = regions.cut(compile);
        let reason = regions.core().and_then(|step| step.program().err());
        if let Some(reason) = reason.map(str::to_owned) {
            regions = Self::placed(regions.graph, regions.uses, false);
            regions.core = regions.cut(&|_| Err(reason.clone()));
        }
        regions
    }

    /// The regions of a step without what runs step by step, for a device that has a program for
    /// that, or none.
    fn placed(graph: StepGraph, uses: Uses, compiled: bool) -> Self {
        let places = places(&graph, &uses, compiled);
        let mut outside: Vec<bool> = Vec::with_capacity(graph.nodes.len());
        for (node, place) in graph.nodes.iter().zip(&places) {
            let known = |o: &Operand| !matches!(o.value, Value::Node(n, _) if !outside[n]);
            let stateful = |o: &Operand| uses.is_stateful(o.value);
            let alone = is_liftable(&graph, &uses, node)
                && !node.operands.iter().any(stateful)
                && node.operands.iter().all(known);
            outside.push(*place != Place::Core || alone);
        }
        Self {
            core: None,
            mixing: OnceLock::new(),
            graph,
            places,
            outside,
            uses,
        }
    }

    /// The regions of a step on a device, from its cache if it has one.
    pub fn of_step<B: Backend>(device: &B, graph: StepGraph) -> Arc<Self> {
        let make = |graph| Self::new(graph, &|core| device.compile_step(core));
        match device.step_cache() {
            Some(cache) => cache.regions(graph, make),
            None => Arc::new(make(graph)),
        }
    }

    /// The part that runs step by step, if there is one.
    pub fn core(&self) -> Option<&Arc<CompiledStep>> {
        self.core.as_ref().map(|core| &core.step)
    }

    /// The operation that computes a row from other rows of the state, if there is one. Where rows
    /// have lengths, results would then depend on how the step is cut: the caller runs the cell
    /// itself for each time.
    pub fn mixes_rows(&self) -> Option<&str> {
        let graph = &self.graph;
        let found = || mixing_node(graph).map(|node| graph.nodes[node].described(node));
        self.mixing.get_or_init(found).as_deref()
    }

    /// Whether something outside of the steps may read an input. Where rows have lengths, its
    /// padding must then be zero.
    pub fn reads_outside(&self, input: usize) -> bool {
        let graph = &self.graph;
        let nodes = graph.nodes.iter().zip(&self.outside);
        let nodes = nodes.filter(|(_, outside)| **outside);
        let mut operands = nodes
            .flat_map(|(node, _)| &node.operands)
            .chain(graph.results());
        operands.any(|o| o.value == Value::Input(input))
    }

    /// Whether a value is computed outside of the steps, from other values outside of them.
    fn is_outside(&self, value: Value) -> bool {
        match value {
            Value::Input(_) | Value::Captured(_) => true,
            Value::State(_) => false,
            Value::Node(node, _) => self.outside[node],
        }
    }

    /// Collects what the steps compute.
    fn cut(&self, compile: &dyn Fn(&StepGraph) -> Result<SharedProgram, String>) -> Option<Core> {
        let graph = &self.graph;
        // The operands that values outside of the steps read from them.
        let mut outputs: Vec<Operand> = Vec::new();
        let mut seen = vec![false; graph.nodes.len()];
        let mut left: Vec<Operand> = graph.outputs.clone();
        let mut sums: Vec<SmallVec<[Operand; 2]>> = Vec::new();
        for operand in &graph.sums {
            self.summands(
                operand.value,
                &mut |rows: SmallVec<[Operand; 2]>, is_sum| {
                    if !is_sum || !self.is_summed_inside(&rows) {
                        left.extend(rows);
                    } else if !sums.contains(&rows) {
                        sums.push(rows);
                    }
                },
            );
        }
        left.reverse();
        while let Some(operand) = left.pop() {
            if !self.is_outside(operand.value) {
                if !outputs.contains(&operand) {
                    outputs.push(operand);
                }
            } else if let Value::Node(node, _) = operand.value
                && !std::mem::replace(&mut seen[node], true)
            {
                left.extend(&graph.nodes[node].operands);
            }
        }
        let shown = outputs.len();
        for operand in sums.iter().flatten() {
            if !self.is_outside(operand.value) && !outputs.contains(operand) {
                outputs.push(*operand);
            }
        }
        let hidden = outputs.len() - shown;
        if outputs.is_empty() && graph.states.is_empty() {
            return None;
        }
        // The nodes of the steps, and what they read.
        let mut inside = vec![false; graph.nodes.len()];
        let mut inputs: Vec<Value> = Vec::new();
        let mut captured: Vec<Value> = Vec::new();
        let mut left: Vec<Value> = outputs
            .iter()
            .chain(&graph.new_states)
            .map(|o| o.value)
            .collect();
        let mut found = vec![];
        while let Some(value) = left.pop() {
            match value {
                Value::Node(node, _) if self.places[node] == Place::Core => {
                    if !std::mem::replace(&mut inside[node], true) {
                        left.extend(graph.nodes[node].operands.iter().map(|o| o.value));
                    }
                }
                Value::State(_) => {}
                value => found.push(value),
            }
        }
        let outside = sums.iter().flatten().map(|o| o.value);
        found.extend(outside.filter(|value| self.is_outside(*value)));
        found.sort_by_key(|value| match *value {
            Value::Input(i) => (0, i, 0),
            Value::Captured(i) => (1, i, 0),
            Value::Node(i, k) => (2, i, k),
            Value::State(i) => (3, i, 0),
        });
        found.dedup();
        for value in found {
            match self.uses.is_timed(value) {
                true => inputs.push(value),
                false => captured.push(value),
            }
        }
        let mut at = vec![0; graph.nodes.len()];
        let mut nodes: Vec<Node> = Vec::new();
        let renamed = |at: &[usize], operand: &Operand| {
            let position = |list: &[Value]| list.iter().position(|v| *v == operand.value);
            let value = match operand.value {
                Value::State(i) => Value::State(i),
                Value::Node(node, k) if inside[node] => Value::Node(at[node], k),
                _ => match (position(&inputs), position(&captured)) {
                    (Some(i), _) => Value::Input(i),
                    (None, i) => Value::Captured(i.unwrap_or_default()),
                },
            };
            Operand { value, ..*operand }
        };
        for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| inside[*i]) {
            at[i] = nodes.len();
            nodes.push(Node {
                operands: node.operands.iter().map(|o| renamed(&at, o)).collect(),
                ..node.clone()
            });
        }
        let metas = |values: &[Value]| values.iter().map(|v| graph.meta_of(*v)).collect();
        let step = StepGraph {
            inputs: metas(&inputs),
            states: graph.states.clone(),
            captured: metas(&captured),
            outputs: outputs.iter().map(|o| renamed(&at, o)).collect(),
            new_states: graph.new_states.iter().map(|o| renamed(&at, o)).collect(),
            sums: Vec::new(),
            nodes,
        };
        let rows = Rows::new(&step);
        let mut results = step.outputs.iter().chain(&step.new_states);
        let program = match results.find(|o| !rows.contains(&step, o)) {
            Some(operand) => Err(format!("{operand} is not a row for each row of the batch")),
            None => compile(&step),
        };
        let source = |operand: &Operand| {
            let output = outputs.iter().position(|o| o == operand);
            let input = inputs.iter().position(|value| *value == operand.value);
            output
                .map(RowSource::Output)
                .or(input.map(RowSource::Input))
        };
        let rows = sums
            .iter()
            .map(|rows| rows.iter().map(source).collect::<Option<RowSum>>());
        let rows = rows.collect::<Option<Vec<_>>>()?;
        outputs.truncate(shown);
        Some(Core {
            step: Arc::new(CompiledStep::new(step, program).with_sums(rows, hidden)),
            inputs,
            captured,
            has_all_outputs: outputs == self.graph.outputs,
            outputs,
            sums,
        })
    }
}

impl fmt::Display for Regions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |place: Place| {
            let nodes = self.graph.nodes.iter().enumerate();
            nodes.filter(move |(i, _)| self.places[*i] == place)
        };
        let parts = [
            ("once", Place::Once),
            ("for all steps at once", Place::Lifted),
        ];
        for (when, place) in parts {
            if of(place).next().is_some() {
                writeln!(f, "{when}:")?;
                for (i, node) in of(place) {
                    writeln!(f, "  {}", node.described(i))?;
                }
            }
        }
        let Some(core) = &self.core else {
            return writeln!(f, "nothing step by step");
        };
        let text = match core.step.program() {
            Ok(program) => {
                writeln!(f, "step by step, compiled:")?;
                program.to_string()
            }
            Err(reason) => {
                writeln!(f, "step by step, operation by operation, since {reason}:")?;
                core.step.graph().to_string()
            }
        };
        text.lines().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Recorder, Symbol, Work};
    use crate::{Binary, DType, Layout, Meta, Op, Precision, Reduce, Shape};
    use smallvec::smallvec;

    /// The number of operations in the steps of `h' = h + (x · w + b) + sum(x * c)`, where `c` has
    /// `width` elements, which each element of `x` is multiplied by.
    fn operations(width: usize, program: Result<SharedProgram, String>) -> usize {
        let recorder = Recorder::new();
        let meta = |dims: &[usize]| Meta::new(Shape::new(dims).unwrap(), DType::F32);
        let captured = |dims: &[usize]| recorder.capture(Arc::new(()), meta(dims));
        let record = |op: Op, operands: &[(&Symbol, &[usize])], result: &[usize]| {
            let operands = operands.iter().map(|(symbol, dims)| {
                let layout = Layout::contiguous(Shape::new(dims).unwrap());
                ((*symbol).clone(), layout)
            });
            let operands: Vec<_> = operands.collect();
            let results = recorder.record(Work::Op(op), &operands, smallvec![meta(result)]);
            results.unwrap().swap_remove(0)
        };
        let (add, mul) = (Op::Binary(Binary::Add), Op::Binary(Binary::Mul));
        let sum = |axis| Op::Reduce {
            kind: Reduce::Sum,
            axis,
        };
        let product = Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        };
        let (x, h) = (recorder.input(meta(&[2, 3])), recorder.state(meta(&[2, 4])));
        let (w, b, c) = (captured(&[3, 4]), captured(&[4]), captured(&[width]));
        let z = record(product, &[(&x, &[2, 3]), (&w, &[3, 4])], &[2, 4]);
        let z = record(add.clone(), &[(&z, &[2, 4]), (&b, &[4])], &[2, 4]);
        let s = record(mul, &[(&x, &[2, 3, 1]), (&c, &[width])], &[2, 3, width]);
        let s = record(sum(2), &[(&s, &[2, 3, width])], &[2, 3]);
        let s = record(sum(1), &[(&s, &[2, 3])], &[2]);
        let h = record(add.clone(), &[(&h, &[2, 4]), (&z, &[2, 4])], &[2, 4]);
        let h = record(add, &[(&h, &[2, 4]), (&s, &[2, 1])], &[2, 4]);
        let h = Operand::whole(h.value(), meta(&[2, 4]));
        let (graph, _) = recorder.finish(vec![h], vec![h]).unwrap();
        let regions = Regions::new(graph, &|_| program.clone());
        regions.core().unwrap().graph().nodes.len()
    }

    #[test]
    fn light_operations_leave_steps_without_a_program_unless_they_are_large() {
        let program = || Ok(Arc::new("compiled") as SharedProgram);
        let none = || Err("there is none".to_owned());
        // All, the product too.
        assert_eq!(operations(1, program()), 7);
        // The two sums with the state.
        assert_eq!(operations(1, none()), 2);
        // With a large product of `x` and `c`, and the two sums over it.
        assert_eq!(operations(100, none()), 5);
    }
}
