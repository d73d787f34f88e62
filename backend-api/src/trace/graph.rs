//! One step of a recurrence as data.

use std::fmt;
use std::hash::{Hash, Hasher};

use smallvec::SmallVec;

use crate::{DType, Distribution, Layout, Meta, Metas, Op};

/// One step of a recurrence as data: operations on the step's inputs, the state and captured
/// tensors.
///
/// [`trace`](crate::trace) makes a graph by running a step once on symbols. Batch is the first axis
/// of inputs, states and outputs. Captured tensors are the same for all steps: weights, and
/// whatever a step computes from them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepGraph {
    /// The step's inputs, `[batch, ..]` each.
    pub inputs: Vec<Meta>,
    /// The state before the step, `[batch, ..]` each.
    pub states: Vec<Meta>,
    /// The captured tensors, of any shape.
    pub captured: Vec<Meta>,
    /// The operations; the operands of a node are leaves or results of earlier nodes.
    pub nodes: Vec<Node>,
    /// The step's outputs, `[batch, ..]` each.
    pub outputs: Vec<Operand>,
    /// The state after the step, as many as `states`, with their shapes and types.
    pub new_states: Vec<Operand>,
    /// Values that are summed over all steps, of any shape: the gradients of captured tensors.
    pub sums: Vec<Operand>,
}

/// One operation of a [`StepGraph`].
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The computation.
    pub work: Work,
    /// Its operands.
    pub operands: SmallVec<[Operand; 3]>,
    /// Shapes and types of its results. Each result is row-major and without gaps.
    pub results: Metas,
}

/// The computation of a [`Node`].
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// An operation.
    Op(Op),
    /// `(dst, src) -> dst`, with `src` added to the elements of `dst` that the layout selects:
    /// [`Backend::accumulate`](crate::Backend::accumulate).
    AddAt(Layout),
    /// `(x) -> x`, without a gradient.
    Detach,
    /// `() -> numbers`: the random numbers of the step, as [`Op::Random`] computes them. The key is
    /// derived from `stream`, the time of the step and, if there is one, `salt`, in this order.
    Noise {
        /// The stream of the run.
        stream: u64,
        /// Distinguishes uses of the stream.
        salt: Option<u64>,
        /// The distribution of the numbers.
        distribution: Distribution,
    },
}

impl Work {
    /// The name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Op(op) => op.name(),
            Self::AddAt(_) => "add_at",
            Self::Detach => "detach",
            Self::Noise { .. } => "random",
        }
    }
}

/// An operand of a [`Node`]: a view of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// The value. Its elements are row-major and without gaps.
    pub value: Value,
    /// The elements of the value that are read. Strides of 0 repeat elements.
    pub layout: Layout,
    /// The element type.
    pub dtype: DType,
}

/// A value of a [`StepGraph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// An input of the step.
    Input(usize),
    /// A state before the step.
    State(usize),
    /// A captured tensor.
    Captured(usize),
    /// A result of a node: the index of the node, and the index of the result.
    Node(usize, usize),
}

impl Operand {
    /// The whole value.
    pub fn whole(value: Value, meta: Meta) -> Self {
        Self {
            value,
            layout: Layout::contiguous(meta.shape),
            dtype: meta.dtype,
        }
    }

    /// Shape and type of the view.
    pub fn meta(&self) -> Meta {
        Meta::new(self.layout.shape(), self.dtype)
    }
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

    /// Shape and type of a value.
    pub fn meta_of(&self, value: Value) -> Meta {
        match value {
            Value::Input(i) => self.inputs[i],
            Value::State(i) => self.states[i],
            Value::Captured(i) => self.captured[i],
            Value::Node(node, result) => self.nodes[node].results[result],
        }
    }
}

impl StepGraph {
    /// The outputs, the new state and the sums.
    pub fn results(&self) -> impl Iterator<Item = &Operand> {
        let results = self.outputs.iter().chain(&self.new_states);
        results.chain(&self.sums)
    }

    /// Removes the nodes and captured tensors that no result depends on. Returns the old indices of
    /// the captured tensors that stay.
    pub fn prune(&mut self) -> Vec<usize> {
        let mut used = vec![false; self.nodes.len()];
        let mut captured = vec![false; self.captured.len()];
        let mut mark = |used: &mut Vec<bool>, operand: &Operand| match operand.value {
            Value::Node(node, _) => used[node] = true,
            Value::Captured(i) => captured[i] = true,
            Value::Input(_) | Value::State(_) => {}
        };
        for operand in self.results() {
            mark(&mut used, operand);
        }
        for i in (0..self.nodes.len()).rev() {
            if used[i] {
                for operand in &self.nodes[i].operands {
                    mark(&mut used, operand);
                }
            }
        }
        let places = |used: &[bool]| -> Vec<usize> {
            let mut next = 0;
            let place = |&used: &bool| {
                next += usize::from(used);
                next - usize::from(used)
            };
            used.iter().map(place).collect()
        };
        let (node_at, captured_at) = (places(&used), places(&captured));
        let mut nodes = used.iter();
        self.nodes.retain(|_| nodes.next() == Some(&true));
        let kept: Vec<usize> = (0..captured.len()).filter(|&i| captured[i]).collect();
        self.captured = kept.iter().map(|&i| self.captured[i]).collect();
        let operands = self.nodes.iter_mut().flat_map(|n| &mut n.operands);
        let results = self.outputs.iter_mut().chain(&mut self.new_states);
        for operand in operands.chain(results).chain(&mut self.sums) {
            match &mut operand.value {
                Value::Node(node, _) => *node = node_at[*node],
                Value::Captured(i) => *i = captured_at[*i],
                Value::Input(_) | Value::State(_) => {}
            }
        }
        kept
    }

    /// The graph as words, for caches: equal for equal graphs only. Constants are compared by bits,
    /// so that `0.0` and `-0.0` differ and NaN equals itself.
    pub fn key(&self) -> GraphKey {
        let mut words = Words(Vec::with_capacity(24 * self.nodes.len() + 64));
        for metas in [&self.inputs, &self.states, &self.captured] {
            metas.hash(&mut words);
        }
        self.nodes.len().hash(&mut words);
        for node in &self.nodes {
            match &node.work {
                Work::Op(op) => (0u8, op).hash(&mut words),
                Work::AddAt(layout) => (1u8, layout).hash(&mut words),
                Work::Detach => 2u8.hash(&mut words),
                Work::Noise {
                    stream,
                    salt,
                    distribution,
                } => (3u8, stream, salt, distribution).hash(&mut words),
            }
            node.operands.hash(&mut words);
            node.results.hash(&mut words);
        }
        self.outputs.hash(&mut words);
        self.new_states.hash(&mut words);
        self.sums.hash(&mut words);
        GraphKey(words.0)
    }
}

/// A [`StepGraph`] as the key of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GraphKey(Vec<u64>);

/// Records what is hashed, instead of a hash of it.
struct Words(Vec<u64>);

impl Hasher for Words {
    fn finish(&self) -> u64 {
        0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0.push(u64::from_ne_bytes(word));
        }
    }
    fn write_u8(&mut self, x: u8) {
        self.0.push(u64::from(x));
    }
    fn write_u32(&mut self, x: u32) {
        self.0.push(u64::from(x));
    }
    fn write_u64(&mut self, x: u64) {
        self.0.push(x);
    }
    fn write_usize(&mut self, x: usize) {
        self.0.push(x as u64);
    }
}

impl fmt::Display for StepGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.nodes.iter().enumerate() {
            writeln!(f, "{}", node.described(i))?;
        }
        let list = |all: &[Operand]| {
            let all: Vec<_> = all.iter().map(|o| o.to_string()).collect();
            all.join(", ")
        };
        write!(
            f,
            "outputs {}; state {}",
            list(&self.outputs),
            list(&self.new_states)
        )
    }
}

impl Node {
    /// The node as text: its number, operation, operands and the shapes of its results.
    pub(super) fn described(&self, number: usize) -> String {
        let operands: Vec<_> = self.operands.iter().map(|o| o.to_string()).collect();
        let shapes: Vec<_> = self.results.iter().map(|m| m.shape.to_string()).collect();
        let (name, operands, shapes) = (self.work.name(), operands.join(", "), shapes.join(" "));
        format!("%{number} = {name}({operands}) {shapes}")
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::Input(i) => write!(f, "x{i}")?,
            Value::State(i) => write!(f, "s{i}")?,
            Value::Captured(i) => write!(f, "w{i}")?,
            Value::Node(i, 0) => write!(f, "%{i}")?,
            Value::Node(i, k) => write!(f, "%{i}.{k}")?,
        }
        if self.layout != Layout::contiguous(self.layout.shape()) {
            write!(f, "[{:?}]", self.layout)?;
        }
        Ok(())
    }
}
