//! Where the nodes of a step are computed.

use crate::trace::graph::{Node, Operand, StepGraph, Value, Work};
use crate::{DType, Fused, MAX_RANK, Op};

/// Where a node is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Once, as it depends on captured tensors only.
    Once,
    /// For all steps at once, if something outside of the steps needs it.
    Lifted,
    /// In the steps.
    Core,
}

/// Which values depend on what.
#[derive(Debug)]
pub(super) struct Uses {
    /// For each node: whether it depends on an input, a state or the time.
    pub(super) timed: Vec<bool>,
    /// For each node: whether it depends on a state.
    pub(super) stateful: Vec<bool>,
}

impl Uses {
    pub(super) fn new(graph: &StepGraph) -> Self {
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

    pub(super) fn is_timed(&self, value: Value) -> bool {
        match value {
            Value::Input(_) | Value::State(_) => true,
            Value::Captured(_) => false,
            Value::Node(node, _) => self.timed[node],
        }
    }

    pub(super) fn is_stateful(&self, value: Value) -> bool {
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
pub(super) fn is_liftable(graph: &StepGraph, uses: &Uses, node: &Node) -> bool {
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

/// Where each node is computed.
pub(super) fn places(graph: &StepGraph, uses: &Uses, compiled: bool) -> Vec<Place> {
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
