//! Cuts a step into what can be computed for all steps at once and what has to run step by step.
//!
//! What no state reaches is computed before the steps, and what no state needs after them, both by
//! ordinary operations with a leading axis for the time. On a device that records operations for a
//! gradient these are recorded as any others, so that only the steps themselves need a gradient of
//! their own. Cheap operations stay in the steps, where a value is read while it is still in the
//! cache.

use std::fmt;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::evaluate::{Lifted, lift};
use super::graph::{Node, Operand, StepGraph, Value, Work};
use super::plan::{CompiledStep, RowSource, RowSum, ScanPlan, SharedProgram};
use super::rows::Rows;
use crate::{
    Backend, Binary, DType, Error, Fused, MAX_RANK, Meta, Op, Reduce, Result, Tensor, Unary,
};

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
}

/// Where a node is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Once, as it depends on captured tensors only.
    Once,
    /// For all steps at once, if something outside of the steps needs it.
    Lifted,
    /// In the steps.
    Core,
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
    /// The rows that it sums over all steps.
    sums: Vec<SmallVec<[Operand; 2]>>,
}

/// Which values depend on what.
#[derive(Debug)]
struct Uses {
    /// For each node: whether it depends on an input, a state or the time.
    timed: Vec<bool>,
    /// For each node: whether it depends on a state.
    stateful: Vec<bool>,
}

impl Uses {
    fn new(graph: &StepGraph) -> Self {
        let mut uses = Self {
            timed: Vec::with_capacity(graph.nodes.len()),
            stateful: Vec::with_capacity(graph.nodes.len()),
        };
        for node in &graph.nodes {
            let noise = matches!(node.work, Work::Noise { .. });
            let mut operands = node.operands.iter();
            let timed = noise || operands.any(|o| uses.is_timed(o.value));
            let stateful = node.operands.iter().any(|o| uses.is_stateful(o.value));
            uses.timed.push(timed);
            uses.stateful.push(stateful);
        }
        uses
    }

    fn is_timed(&self, value: Value) -> bool {
        match value {
            Value::Input(_) | Value::State(_) => true,
            Value::Captured(_) => false,
            Value::Node(node, _) => self.timed[node],
        }
    }

    fn is_stateful(&self, value: Value) -> bool {
        match value {
            Value::State(_) => true,
            Value::Input(_) | Value::Captured(_) => false,
            Value::Node(node, _) => self.stateful[node],
        }
    }
}

/// Whether a node costs little enough to stay in the steps where it could leave them.
fn is_light(graph: &StepGraph, node: &Node) -> bool {
    let known = |dtype: DType| matches!(dtype, DType::F32 | DType::F64 | DType::Bool);
    let types = node.operands.iter().map(|o| o.dtype);
    let mut types = types.chain(node.results.iter().map(|m| m.dtype));
    let rows = |o: &Operand| match o.value {
        Value::Captured(_) => true,
        value => graph.meta_of(value).shape.rank() > 0,
    };
    types.all(known)
        && node.operands.iter().all(rows)
        && match &node.work {
            Work::Op(op) => match op {
                Op::Unary(_)
                | Op::Affine { .. }
                | Op::Clamp { .. }
                | Op::Binary(_)
                | Op::Compare(_)
                | Op::Select
                | Op::Copy
                | Op::Cast { .. } => true,
                Op::Reduce { axis, .. } | Op::Concat { axis } => *axis > 0,
                Op::Fused(Fused::ActivationGrad { .. } | Fused::BiasActivation { .. }) => true,
                Op::Fused(fused) => fused.is_of_rows(),
                _ => false,
            },
            Work::AddAt(_) | Work::Detach => true,
            Work::Noise { .. } => false,
        }
}

/// Whether a node is a product of rows with a captured matrix, or one that is computed once. A
/// device's program computes it for several steps at a time if no state needs it to be computed
/// step by step.
fn is_product(graph: &StepGraph, uses: &Uses, node: &Node) -> bool {
    let [a, b, ..] = &*node.operands else {
        return false;
    };
    let known = |dtype: DType| matches!(dtype, DType::F32 | DType::F64);
    matches!(node.work, Work::Op(Op::MatMul { .. }))
        && known(a.dtype)
        && a.layout.shape().rank() == 2
        && a.layout.shape()[0] == graph.batch()
        && uses.is_timed(a.value)
        && b.layout.shape().rank() == 2
        && !uses.is_timed(b.value)
}

/// Whether a node can be computed for all steps at once.
fn is_liftable(graph: &StepGraph, uses: &Uses, node: &Node) -> bool {
    let timed = |i: usize| node.operands.get(i).is_some_and(|o| uses.is_timed(o.value));
    let rank = |i: usize| node.operands.get(i).map_or(0, |o| o.layout.shape().rank());
    let room = node.results.iter().all(|m| m.shape.rank() < MAX_RANK)
        && node
            .operands
            .iter()
            .all(|o| o.layout.shape().rank() < MAX_RANK);
    let flat = |o: &Operand| o.layout.shape().rank() == 2 && o.layout.shape()[0] == graph.batch();
    room && match &node.work {
        Work::Op(op) => match op {
            Op::Unary(_)
            | Op::Affine { .. }
            | Op::Clamp { .. }
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Select
            | Op::Copy
            | Op::Cast { .. }
            | Op::Reduce { .. }
            | Op::ArgMax { .. }
            | Op::Concat { .. } => true,
            // One right side for all steps, or one for each.
            Op::MatMul { .. } => match (timed(0), timed(1)) {
                (_, false) => rank(1) == 2 || rank(0) == rank(1),
                (true, true) => rank(0) == rank(1),
                (false, true) => false,
            },
            Op::Gather => !timed(0),
            Op::Fill { .. } => true,
            Op::Fused(Fused::BiasActivation { .. }) => !timed(1),
            Op::Fused(Fused::ActivationGrad { .. }) => true,
            Op::Fused(Fused::SoftmaxCrossEntropy) => true,
            // All operands are rows, so that the rows of all steps can be one batch.
            Op::Fused(fused) if fused.is_of_rows() => node.operands.iter().all(flat),
            _ => false,
        },
        Work::AddAt(_) | Work::Detach | Work::Noise { .. } => true,
    }
}

impl Regions {
    /// Cuts a step into regions. `compile` makes a program of the part that runs step by step.
    pub fn new(
        graph: StepGraph,
        compile: impl FnOnce(&StepGraph) -> Result<SharedProgram, String>,
    ) -> Self {
        let graph = split_products(graph);
        let uses = Uses::new(&graph);
        let mut regions = Self::placed(graph, uses, true);
        regions.core = regions.cut(compile);
        let reason = regions.core().and_then(|step| step.program().err());
        if let Some(reason) = reason.map(str::to_owned) {
            regions = Self::placed(regions.graph, regions.uses, false);
            regions.core = regions.cut(|_| Err(reason));
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
            graph,
            places,
            outside,
            uses,
        }
    }

    /// The regions of a step on a device, from its cache if it has one.
    pub fn of_step<B: Backend>(device: &B, graph: StepGraph) -> Arc<Self> {
        let make = |graph| Self::new(graph, |core| device.compile_step(core));
        match device.step_cache() {
            Some(cache) => cache.regions(graph, make),
            None => Arc::new(make(graph)),
        }
    }

    /// The part that runs step by step, if there is one.
    pub fn core(&self) -> Option<&Arc<CompiledStep>> {
        self.core.as_ref().map(|core| &core.step)
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

    /// Whether the steps' operation sums rows over all steps: some are known in the steps only.
    fn is_summed_inside(&self, rows: &[Operand]) -> bool {
        let whole = |o: &Operand| *o == Operand::whole(o.value, self.graph.meta_of(o.value));
        rows.iter().any(|o| !self.is_outside(o.value))
            && rows.iter().all(|o| !self.is_outside(o.value) || whole(o))
    }

    /// Collects what the steps compute.
    fn cut(
        &self,
        compile: impl FnOnce(&StepGraph) -> Result<SharedProgram, String>,
    ) -> Option<Core> {
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
            outputs,
            sums,
        })
    }
}

/// Where each node is computed.
fn places(graph: &StepGraph, uses: &Uses, compiled: bool) -> Vec<Place> {
    let count = graph.nodes.len();
    let mut places = vec![Place::Core; count];
    let is_light =
        |node: &Node| is_light(graph, node) || (compiled && is_product(graph, uses, node));
    // What no state reaches leaves the steps if it is not light, with all that it depends on.
    let mut leaves = vec![false; count];
    for i in (0..count).rev() {
        let node = &graph.nodes[i];
        if matches!(node.work, Work::Op(Op::Fill { .. })) {
            // A constant of the steps costs nothing; as a captured tensor it would be read.
            places[i] = Place::Core;
        } else if !uses.timed[i] {
            places[i] = Place::Once;
        } else if !uses.stateful[i]
            && is_liftable(graph, uses, node)
            && (leaves[i] || !is_light(node))
        {
            places[i] = Place::Lifted;
            for operand in &node.operands {
                if let Value::Node(node, _) = operand.value {
                    leaves[node] = true;
                }
            }
        }
    }
    let heavy = graph.nodes.iter().filter(|node| !is_light(node));
    let results = heavy.flat_map(|node| &node.results);
    let large = results.chain(&graph.inputs).chain(&graph.states);
    let most = large.map(|m| m.shape.count()).max().unwrap_or(0);
    for i in 0..count {
        let node = &graph.nodes[i];
        let stays = |o: &Operand| matches!(o.value, Value::Node(n, _) if places[n] == Place::Core);
        let stays = node.operands.iter().any(stays);
        if places[i] == Place::Lifted && stays {
            // A lifted node cannot depend on one that stays.
            places[i] = Place::Core;
        } else if places[i] == Place::Core && !compiled && !uses.stateful[i] && !stays {
            // Without a program for the steps each operation in them costs a call, so that light
            // ones leave as well, unless they take much more memory for all steps.
            let small = node.results.iter().all(|m| m.shape.count() <= most);
            if small && is_liftable(graph, uses, node) {
                places[i] = Place::Lifted;
            }
        }
    }
    // What no state needs leaves the steps from the first operation on that is not light.
    let mut needed = vec![false; count];
    let mut after = vec![false; count];
    for operand in &graph.new_states {
        if let Value::Node(node, _) = operand.value {
            needed[node] = true;
        }
    }
    for i in (0..count).rev().filter(|i| needed[*i]).collect::<Vec<_>>() {
        mark(graph, i, &mut needed);
    }
    let mut fits = true;
    for i in 0..count {
        let node = &graph.nodes[i];
        let follows = node
            .operands
            .iter()
            .any(|o| matches!(o.value, Value::Node(n, _) if after[n]));
        if needed[i] || !uses.stateful[i] {
            continue;
        }
        if follows || !is_light(node) {
            after[i] = is_liftable(graph, uses, node);
            fits &= after[i] || !follows;
        }
    }
    if fits {
        for i in (0..count).filter(|i| after[*i]) {
            places[i] = Place::Lifted;
        }
    }
    places
}

/// Marks what a marked node depends on.
fn mark(graph: &StepGraph, from: usize, marked: &mut [bool]) {
    let mut left = vec![from];
    while let Some(node) = left.pop() {
        for operand in &graph.nodes[node].operands {
            if let Value::Node(node, _) = operand.value
                && !std::mem::replace(&mut marked[node], true)
            {
                left.push(node);
            }
        }
    }
}

/// Turns the product of a concatenation into a sum of products, so that the parts that no state
/// reaches can leave the steps.
fn split_products(graph: StepGraph) -> StepGraph {
    let uses = Uses::new(&graph);
    let concatenated = |operand: &Operand| -> Option<&Node> {
        let Value::Node(i, _) = operand.value else {
            return None;
        };
        let node = &graph.nodes[i];
        let whole = *operand == Operand::whole(operand.value, node.results[0]);
        let last = Op::Concat {
            axis: node.results[0].shape.rank().wrapping_sub(1),
        };
        let is_stateful = |o: &Operand| uses.is_stateful(o.value);
        let mixed = node.operands.iter().any(is_stateful)
            && node
                .operands
                .iter()
                .any(|o| !is_stateful(o) && uses.is_timed(o.value));
        (whole && node.work == Work::Op(last) && mixed).then_some(node)
    };
    if !graph.nodes.iter().any(|n| {
        matches!(n.work, Work::Op(Op::MatMul { .. })) && concatenated(&n.operands[0]).is_some()
    }) {
        return graph;
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len() + 4);
    let mut at = Vec::with_capacity(graph.nodes.len());
    let renamed = |at: &[usize], o: &Operand| match o.value {
        Value::Node(node, k) => Operand {
            value: Value::Node(at[node], k),
            ..*o
        },
        _ => *o,
    };
    for node in &graph.nodes {
        let parts = match (&node.work, &node.operands[..]) {
            (Work::Op(Op::MatMul { alpha: 1.0, .. }), [a, b, ..])
                if b.layout.shape().rank() == 2 =>
            {
                concatenated(a)
            }
            _ => None,
        };
        let Some(parts) = parts else {
            nodes.push(Node {
                operands: node.operands.iter().map(|o| renamed(&at, o)).collect(),
                ..node.clone()
            });
            at.push(nodes.len() - 1);
            continue;
        };
        let mut sum = node.operands.get(2).map(|c| renamed(&at, c));
        let mut row = 0;
        let mut pieces: Vec<(Operand, Operand)> = Vec::new();
        for part in &parts.operands {
            let rows = part.layout.shape().last();
            if let Ok(layout) = node.operands[1].layout.slice(0, row..row + rows) {
                let b = Operand {
                    layout,
                    ..node.operands[1]
                };
                pieces.push((*part, renamed(&at, &b)));
            }
            row += rows;
        }
        pieces.sort_by_key(|(part, _)| uses.is_stateful(part.value));
        for (part, b) in pieces {
            let mut operands: SmallVec<[Operand; 3]> = SmallVec::new();
            operands.extend([renamed(&at, &part), b]);
            operands.extend(sum);
            nodes.push(Node {
                work: node.work.clone(),
                operands,
                results: node.results.clone(),
            });
            sum = Some(Operand::whole(
                Value::Node(nodes.len() - 1, 0),
                node.results[0],
            ));
        }
        at.push(nodes.len() - 1);
    }
    let all = |operands: &[Operand]| operands.iter().map(|o| renamed(&at, o)).collect();
    StepGraph {
        outputs: all(&graph.outputs),
        new_states: all(&graph.new_states),
        sums: all(&graph.sums),
        nodes,
        inputs: graph.inputs.clone(),
        states: graph.states.clone(),
        captured: graph.captured.clone(),
    }
}

/// The tensors that a run of a step works on.
#[derive(Debug)]
pub struct ScanOperands<'a, B: Backend> {
    /// The inputs of all steps, `[steps, batch, ..]` each.
    pub inputs: &'a [Tensor<B>],
    /// The captured tensors.
    pub captured: &'a [Tensor<B>],
    /// The initial state.
    pub states: &'a [Tensor<B>],
    /// The number of steps of each row, counted from the first of these steps.
    pub lengths: Option<&'a Tensor<B>>,
    /// Number of steps.
    pub steps: usize,
    /// The time of the first step.
    pub start: usize,
    /// Whether the steps run from the last one to the first.
    pub reverse: bool,
    /// Whether the device may cache what it makes of the captured tensors.
    pub reuse: bool,
}

/// The results of all steps.
#[derive(Debug)]
pub struct ScanResults<B: Backend> {
    /// The outputs, `[steps, batch, ..]` each, zero at and after a row's length.
    pub outputs: Vec<Tensor<B>>,
    /// The final state.
    pub states: Vec<Tensor<B>>,
    /// The sums over all steps.
    pub sums: Vec<Tensor<B>>,
}

/// How a value is summed over all steps.
enum Sum {
    /// The sum of an operation's results is the operation on the sums of its operands.
    Linear,
    /// `aᵀ b`, where `[a, b]` are rows: one product over the rows of all steps.
    Product([Operand; 2], Box<Op>),
    /// The sum of the rows of all steps.
    Rows(Operand),
    /// The value of each step first.
    Each,
    /// A constant.
    Zero,
}

/// Whether a product has no factor.
fn is_plain(product: &Op) -> bool {
    matches!(product, Op::MatMul { alpha: 1.0, .. })
}

impl Regions {
    /// How a value is summed over all steps.
    fn sum_of(&self, value: Value) -> Sum {
        let Value::Node(node, 0) = value else {
            return Sum::Each;
        };
        let node = &self.graph.nodes[node];
        let batch = self.graph.batch();
        let is_row = |o: &Operand| {
            let shape = o.layout.shape();
            shape.rank() == 2 && shape[0] == batch && self.uses.is_timed(o.value)
        };
        match (&node.work, &node.operands[..]) {
            (Work::Op(op @ Op::MatMul { .. }), [a, b]) if a.layout.shape().rank() == 2 => {
                let turned = a.layout.permute(&[1, 0]);
                match turned.map(|layout| Operand { layout, ..*a }) {
                    Ok(a) if is_row(&a) && is_row(b) => Sum::Product([a, *b], Box::new(op.clone())),
                    _ => Sum::Each,
                }
            }
            (
                Work::Op(Op::Reduce {
                    kind: Reduce::Sum,
                    axis,
                }),
                [x],
            ) => match *axis == 0 && is_row(x) {
                true => Sum::Rows(*x),
                false => Sum::Linear,
            },
            (Work::Op(Op::Binary(Binary::Add | Binary::Sub)), [a, b])
                if a.layout.shape() == b.layout.shape() =>
            {
                Sum::Linear
            }
            (Work::Op(Op::Affine { add: 0.0, .. } | Op::Unary(Unary::Neg) | Op::Copy), _)
            | (Work::AddAt(_), _) => Sum::Linear,
            (Work::Op(Op::Fill { value: 0.0, .. }), _) => Sum::Zero,
            _ => Sum::Each,
        }
    }

    /// Calls `found` with the operands that the sum of a value reads, and whether they are the rows
    /// of a sum.
    fn summands(&self, value: Value, found: &mut impl FnMut(SmallVec<[Operand; 2]>, bool)) {
        let mut left = vec![value];
        while let Some(value) = left.pop() {
            match (self.sum_of(value), value) {
                (Sum::Linear, Value::Node(node, _)) => {
                    left.extend(self.graph.nodes[node].operands.iter().map(|o| o.value));
                }
                (Sum::Product(ab, op), _) => found(ab.into(), is_plain(&op)),
                (Sum::Rows(x), _) => found(smallvec![x], true),
                (Sum::Zero, _) => {}
                (_, value) => {
                    let whole = Operand::whole(value, self.graph.meta_of(value));
                    found(smallvec![whole], false);
                }
            }
        }
    }

    /// Runs all steps.
    ///
    /// # Errors
    /// The operands do not fit the graph, or the device failed.
    pub fn run<B: Backend>(
        &self,
        device: &B,
        operands: &ScanOperands<'_, B>,
    ) -> Result<ScanResults<B>> {
        let mut run = Run {
            regions: self,
            device,
            operands,
            known: self.graph.nodes.iter().map(|_| None).collect(),
            core: Vec::new(),
            sums: Vec::new(),
        };
        let mut states = operands.states.to_vec();
        if let Some(core) = &self.core {
            let plan = ScanPlan {
                step: core.step.clone(),
                steps: operands.steps,
                reverse: operands.reverse,
                ragged: operands.lengths.is_some(),
                reuse: operands.reuse,
                saved: 0,
            };
            let mut ins = Vec::with_capacity(plan.operands());
            for value in &core.inputs {
                ins.push(run.lifted(*value)?.tensor);
            }
            for value in &core.captured {
                ins.push(run.lifted(*value)?.tensor);
            }
            ins.extend_from_slice(operands.states);
            ins.extend(operands.lengths.cloned());
            let ins: Vec<_> = ins.iter().collect();
            let op = Op::Fused(Fused::Scan(plan));
            let mut results = Tensor::call_all(device, &op, &ins)?.into_vec();
            states = results.split_off(core.outputs.len());
            run.sums = states.split_off(operands.states.len());
            run.core = results;
        }
        let outputs = &self.graph.outputs;
        let outputs = outputs
            .iter()
            .map(|o| run.output(o))
            .collect::<Result<_>>()?;
        let sums = self.graph.sums.iter();
        let sums = sums.map(|o| run.summed(o)).collect::<Result<_>>()?;
        Ok(ScanResults {
            outputs,
            states,
            sums,
        })
    }
}

/// A run of a step's regions.
struct Run<'a, B: Backend> {
    regions: &'a Regions,
    device: &'a B,
    operands: &'a ScanOperands<'a, B>,
    /// The results of nodes that were computed outside of the steps.
    known: Vec<Option<SmallVec<[Lifted<B>; 2]>>>,
    /// The outputs of the steps, and their sums.
    core: Vec<Tensor<B>>,
    sums: Vec<Tensor<B>>,
}

impl<B: Backend> Run<'_, B> {
    /// A value for all steps.
    fn lifted(&mut self, value: Value) -> Result<Lifted<B>> {
        match value {
            Value::Input(i) => Ok(Lifted::timed(self.operands.inputs[i].clone())),
            Value::Captured(i) => Ok(Lifted::once(self.operands.captured[i].clone())),
            Value::State(_) => Err(inside()),
            Value::Node(node, k) => {
                self.compute(node)?;
                let known = self.known[node].as_ref().and_then(|all| all.get(k));
                known.cloned().ok_or_else(inside)
            }
        }
    }

    /// Computes a node and all that it depends on, outside of the steps.
    fn compute(&mut self, wanted: usize) -> Result<()> {
        let mut left = vec![wanted];
        while let Some(&node) = left.last() {
            if self.known[node].is_some() {
                left.pop();
                continue;
            }
            let of = &self.regions.graph.nodes[node];
            let before = left.len();
            for operand in &of.operands {
                if let Value::Node(n, _) = operand.value
                    && self.known[n].is_none()
                    && self.regions.is_outside(operand.value)
                {
                    left.push(n);
                }
            }
            if left.len() == before {
                let operands = of
                    .operands
                    .iter()
                    .map(|o| self.operand(o))
                    .collect::<Result<_>>()?;
                let (steps, start) = (self.operands.steps, self.operands.start);
                self.known[node] = Some(lift(self.device, of, operands, steps, start)?);
                left.pop();
            }
        }
        Ok(())
    }

    /// An operand for all steps.
    fn operand(&mut self, operand: &Operand) -> Result<Lifted<B>> {
        if !self.regions.is_outside(operand.value) {
            let core = self.regions.core.as_ref();
            let outputs = core.map_or(&[][..], |core| &core.outputs);
            let place = outputs
                .iter()
                .position(|o| o == operand)
                .ok_or_else(inside)?;
            return Ok(Lifted::timed(self.core[place].clone()));
        }
        self.lifted(operand.value)?
            .view(&operand.layout, self.operands.steps)
    }

    /// An operand summed over all steps.
    fn summed(&mut self, operand: &Operand) -> Result<Tensor<B>> {
        let steps = self.operands.steps;
        let meta = self.regions.graph.meta_of(operand.value);
        let flat = |t: Tensor<B>| {
            let dims = t.dims();
            t.reshape(&[dims[0] * dims[1], dims[2]])
        };
        let known = |rows: &[Operand]| {
            let core = self.regions.core.as_ref();
            let place = core.and_then(|core| core.sums.iter().position(|known| **known == *rows));
            place.and_then(|place| self.sums.get(place)).cloned()
        };
        let sum = match (self.regions.sum_of(operand.value), operand.value) {
            (Sum::Product(ab, op), _) if is_plain(&op) && known(&ab).is_some() => {
                known(&ab).ok_or_else(inside)?
            }
            (Sum::Rows(x), _) if known(&[x]).is_some() => known(&[x]).ok_or_else(inside)?,
            (Sum::Product([a, b], op), _) => {
                let a = flat(self.operand(&a)?.tensor)?.transpose(0, 1)?;
                let b = flat(self.operand(&b)?.tensor)?;
                Tensor::call(self.device, &op, &[&a, &b])?
            }
            (Sum::Rows(x), _) => flat(self.operand(&x)?.tensor)?.sum(0)?,
            (Sum::Zero, _) => Tensor::zeros(self.device, meta)?,
            (Sum::Linear, Value::Node(node, _)) => {
                let node = &self.regions.graph.nodes[node];
                let operands = node.operands.iter();
                let operands = operands.map(|o| Ok(Lifted::once(self.summed(o)?)));
                let operands = operands.collect::<Result<Vec<_>>>()?;
                let mut sum = lift(self.device, node, operands, 0, 0)?;
                sum.swap_remove(0).tensor
            }
            (_, value) => {
                let whole = self.operand(&Operand::whole(value, meta))?;
                whole.for_all_steps(steps)?.tensor.sum(0)?
            }
        };
        Ok(Lifted::once(sum).view(&operand.layout, steps)?.tensor)
    }

    /// An output of the step for all steps.
    fn output(&mut self, operand: &Operand) -> Result<Tensor<B>> {
        let lifted = self.operand(operand)?;
        let output = lifted.for_all_steps(self.operands.steps)?.tensor;
        match self.operands.lengths {
            Some(lengths) if self.regions.is_outside(operand.value) => {
                output.mask_padding(lengths, 0)
            }
            _ => Ok(output),
        }
    }
}

/// Not reached: [`Regions::cut`] makes an output of every operand that is read outside.
fn inside() -> Error {
    Error::argument("scan", "a value", "is known in the steps only")
}

impl StepGraph {
    /// The batch size.
    pub fn batch(&self) -> usize {
        let first = |metas: &[Meta]| metas.first().map(|m| m.shape.dims().first().copied());
        let batch = first(&self.states)
            .or_else(|| first(&self.inputs))
            .flatten();
        batch.unwrap_or(1)
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
    use crate::trace::{Recorder, Symbol};
    use crate::{Layout, Precision, Shape};

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
        let regions = Regions::new(graph, |_| program);
        regions.core().unwrap().graph().nodes.len()
    }

    #[test]
    fn light_operations_leave_steps_without_a_program_unless_they_are_large() {
        let program = || Ok(Arc::new("compiled") as SharedProgram);
        let none = || Err("there is none".to_owned());
        // All but the product.
        assert_eq!(operations(1, program()), 6);
        // The two sums with the state.
        assert_eq!(operations(1, none()), 2);
        // With a large product of `x` and `c`, and the two sums over it.
        assert_eq!(operations(100, none()), 5);
    }
}
