//! From a step graph to what it computes for one row of the batch.
//!
//! The proof that rows are independent goes operation by operation: a value has the batch as its
//! first axis, and each operation reads, for a row of its result, the same row of its operands or
//! captured elements that are the same for all rows.

mod fused;
mod parts;

use crate::trace::graph::{Node, Operand, StepGraph, Value, Work};
use crate::{Binary, Compare, DType, Fused, Layout, Op, Reduce, Shape};
use smallvec::{SmallVec, smallvec};

use super::instruction::Code;
use super::row_graph::{
    Axes, Matrix, Part, RowGraph, RowValue, RowWork, Source, Span, Term, count, row_major,
};

/// What is known of a result of a node: where its row-major elements begin.
type Known = (Source, usize);

/// Zeros with some parts written so far.
struct Sparse {
    parts: Vec<Part>,
    covered: Vec<bool>,
}

struct Lowering<'a> {
    graph: &'a StepGraph,
    out: RowGraph,
    known: Vec<SmallVec<[Known; 1]>>,
    /// Uses of the results of nodes.
    uses: Vec<usize>,
    /// Values that are zeros except for some parts, by index.
    sparse: Vec<Option<Sparse>>,
}

/// What each row of the batch needs.
///
/// # Errors
/// The node that cannot be computed row by row, and why.
pub(super) fn lower(graph: &StepGraph) -> Result<RowGraph, String> {
    let outputs = graph.outputs.iter().map(|o| o.meta());
    let metas = graph.inputs.iter().chain(&graph.states).copied();
    let metas: Vec<_> = metas.chain(outputs.clone()).collect();
    let first = metas
        .first()
        .ok_or("the step has no inputs, states and outputs")?;
    if !matches!(first.dtype, DType::F32 | DType::F64) {
        return Err(format!("the step computes with {}", first.dtype));
    }
    let batch = *first
        .shape
        .dims()
        .first()
        .ok_or("an input or state has no batch axis")?;
    for meta in &metas {
        if meta.dtype != first.dtype {
            let (a, b) = (first.dtype, meta.dtype);
            return Err(format!(
                "inputs, states and outputs are of the types {a} and {b}"
            ));
        }
        if meta.shape.dims().first() != Some(&batch) {
            return Err(format!(
                "{} has not the batch {batch} as its first axis",
                meta.shape
            ));
        }
    }
    if graph.new_states.len() != graph.states.len() {
        let (old, new) = (graph.states.len(), graph.new_states.len());
        return Err(format!(
            "the step has {old} states before it and {new} after it"
        ));
    }
    for (old, new) in graph.states.iter().zip(&graph.new_states) {
        if *old != new.meta() {
            return Err(format!(
                "a state of {} becomes {}",
                old.shape,
                new.layout.shape()
            ));
        }
    }
    let width = |shape: Shape| shape.dims()[1..].iter().product();
    let mut lowering = Lowering {
        graph,
        out: RowGraph {
            batch,
            dtype: first.dtype,
            inputs: graph.inputs.iter().map(|m| width(m.shape)).collect(),
            states: graph.states.iter().map(|m| width(m.shape)).collect(),
            outputs: outputs.map(|m| width(m.shape)).collect(),
            captured: graph.captured.iter().map(|m| m.shape.count()).collect(),
            constants: Vec::new(),
            matrices: Vec::new(),
            values: Vec::new(),
            results: Vec::new(),
        },
        known: Vec::with_capacity(graph.nodes.len()),
        uses: vec![0; graph.nodes.len()],
        sparse: Vec::new(),
    };
    lowering.count_uses();
    for (i, node) in graph.nodes.iter().enumerate() {
        let results = match lowering.uses[i] {
            0 => SmallVec::new(),
            _ => lowering
                .node(node)
                .map_err(|why| format!("%{i} ({}): {why}", node.work.name()))?,
        };
        lowering.known.push(results);
    }
    for (i, operand) in graph.outputs.iter().chain(&graph.new_states).enumerate() {
        let result = lowering.operand(operand);
        let result = result.map_err(|why| format!("result {i}: {why}"))?;
        lowering.out.results.push(result);
    }
    Ok(lowering.out)
}

impl Lowering<'_> {
    /// Counts the uses of each node by results and by nodes that are used.
    fn count_uses(&mut self) {
        let graph = self.graph;
        let mut note = |operand: &Operand| {
            if let Value::Node(node, _) = operand.value {
                self.uses[node] += 1;
            }
        };
        graph
            .outputs
            .iter()
            .chain(&graph.new_states)
            .for_each(&mut note);
        for i in (0..graph.nodes.len()).rev() {
            if self.uses[i] > 0 {
                for operand in &graph.nodes[i].operands {
                    if let Value::Node(node, _) = operand.value {
                        self.uses[node] += 1;
                    }
                }
            }
        }
    }

    /// The axes of one row of a tensor. With a batch of 1, all elements are in one row.
    fn row_axes(&self, shape: Shape) -> Result<Axes, String> {
        match shape.dims() {
            all if self.out.batch == 1 => Ok(all.into()),
            [batch, rest @ ..] if *batch == self.out.batch => Ok(rest.into()),
            _ => Err(format!(
                "{shape} has not the batch {} as its first axis",
                self.out.batch
            )),
        }
    }

    fn check_type(&self, dtype: DType) -> Result<(), String> {
        match dtype {
            DType::Bool => Ok(()),
            other if other == self.out.dtype => Ok(()),
            other => Err(format!(
                "it has a value of {other}, but the state is {}",
                self.out.dtype
            )),
        }
    }

    /// Where the elements of a value begin.
    fn known(&self, value: Value) -> Result<Known, String> {
        Ok(match value {
            Value::Input(i) => (Source::Input(i), 0),
            Value::State(i) => (Source::State(i), 0),
            Value::Captured(i) => (Source::Captured(i, 0), 0),
            Value::Node(node, result) => self.known[node][result],
        })
    }

    fn operand(&self, operand: &Operand) -> Result<Span, String> {
        self.broadcast(operand, operand.layout.shape())
    }

    /// The elements of a row of an operand that is broadcast to `shape`.
    fn broadcast(&self, operand: &Operand, shape: Shape) -> Result<Span, String> {
        self.check_type(operand.dtype)?;
        let meta = self.graph.meta_of(operand.value);
        if operand.layout.extent() > meta.shape.count() {
            return Err(format!("{operand} exceeds {}", meta.shape));
        }
        let known = self.known(operand.value)?;
        let view = operand.layout.broadcast_to(shape);
        let view = view.map_err(|error| error.to_string())?;
        let axes = self.row_axes(shape)?;
        let strides = &view.strides()[shape.rank() - axes.len()..];
        let mut span = Span {
            source: known.0,
            offset: known.1 + view.offset(),
            strides: strides.into(),
            axes,
        };
        let by_row = if self.out.batch == 1 {
            0
        } else {
            view.strides()[0]
        };
        match &mut span.source {
            Source::Captured(_, row) => {
                if operand.dtype == DType::Bool {
                    return Err("it reads a captured tensor of bool".to_owned());
                }
                *row = by_row;
            }
            Source::Constant(_) => {
                span.offset = 0;
                span.strides.fill(0);
            }
            Source::Value(_) | Source::Input(_) | Source::State(_) => {
                let width = count(&self.row_axes(meta.shape)?);
                let same_row = self.out.batch < 2
                    || (operand.layout.shape().rank() == shape.rank() && by_row == width);
                if !same_row || !lies_within(&view, shape.rank() - span.axes.len(), width) {
                    return Err(format!(
                        "{operand} mixes rows of the batch: {:?} of {}",
                        operand.layout, meta.shape
                    ));
                }
            }
        }
        Ok(span)
    }

    fn constant(&mut self, value: f64) -> Source {
        self.out.constant(value)
    }

    fn add(&mut self, width: usize, work: RowWork) -> Known {
        self.out.values.push(RowValue { width, work });
        self.sparse.push(None);
        (Source::Value(self.out.values.len() - 1), 0)
    }

    /// A function of spans of equal shape.
    fn map<const N: usize>(&mut self, code: Code, ins: [&Span; N]) -> Span {
        let axes = ins[0].axes.clone();
        let ins = ins.into_iter().cloned().collect();
        let work = RowWork::Map {
            code,
            axes: axes.clone(),
            ins,
        };
        let (source, _) = self.add(count(&axes), work);
        Span::whole(source, &axes)
    }

    /// Side by side on one of the row's axes.
    fn concat(&mut self, spans: &[Span], axis: usize) -> Span {
        let mut axes = spans[0].axes.clone();
        axes[axis] = spans.iter().map(|span| span.axes[axis]).sum();
        let strides = row_major(&axes);
        let mut at = 0;
        let mut parts = Vec::with_capacity(spans.len());
        for from in spans {
            parts.push(Part {
                from: from.clone(),
                at,
                strides: strides.clone(),
            });
            at += from.axes[axis] * strides[axis];
        }
        let work = RowWork::Parts {
            parts,
            disjoint: true,
        };
        let (source, _) = self.add(count(&axes), work);
        Span::whole(source, &axes)
    }

    /// The elements of a span as a value: without a copy where they are contiguous in their row.
    fn materialized(&mut self, span: &Span) -> Known {
        match span.source {
            // A captured tensor that is repeated has no row of its own.
            Source::Captured(..) => {}
            Source::Constant(_) => return (span.source, 0),
            source if span.is_contiguous() => return (source, span.offset),
            _ => {}
        }
        (self.map(Code::Copy, [span]).source, 0)
    }

    fn node(&mut self, node: &Node) -> Result<SmallVec<[Known; 1]>, String> {
        for meta in &node.results {
            self.check_type(meta.dtype)?;
        }
        let op = match &node.work {
            Work::Op(op) => op,
            Work::Detach => {
                let x = self.operand(&node.operands[0])?;
                return Ok(smallvec![self.materialized(&x)]);
            }
            Work::AddAt(at) => return Ok(smallvec![self.add_at(node, at)?]),
            Work::Noise { .. } => return Err("random numbers are drawn outside".to_owned()),
        };
        let shape = node.results[0].shape;
        let elementwise = |this: &Self| -> Result<SmallVec<[Span; 3]>, String> {
            let operands = node.operands.iter();
            operands.map(|o| this.broadcast(o, shape)).collect()
        };
        let code = match op {
            Op::Fill { value, meta } => {
                let value = match meta.dtype {
                    DType::Bool => f64::from(*value != 0.0),
                    _ => *value,
                };
                return Ok(smallvec![(self.constant(value), 0)]);
            }
            Op::Copy => {
                let x = self.operand(&node.operands[0])?;
                return Ok(smallvec![self.materialized(&x)]);
            }
            Op::Cast { to } => {
                let x = self.operand(&node.operands[0])?;
                if *to != DType::Bool || node.operands[0].dtype == DType::Bool {
                    return Ok(smallvec![self.materialized(&x)]);
                }
                let zero = Span {
                    source: self.constant(0.0),
                    offset: 0,
                    axes: x.axes.clone(),
                    strides: smallvec![0; x.axes.len()],
                };
                let truth = self.map(Code::Compare(Compare::Ne), [&x, &zero]);
                return Ok(smallvec![(truth.source, 0)]);
            }
            Op::Unary(f) => Code::Unary(*f),
            Op::Affine { mul, add } => Code::Affine {
                mul: *mul,
                add: *add,
            },
            Op::Clamp { min, max } => Code::Clamp {
                min: *min,
                max: *max,
            },
            Op::Binary(f) => Code::Binary(*f),
            Op::Compare(f) => Code::Compare(*f),
            Op::Select => Code::Select,
            Op::Fused(Fused::ActivationGrad { activation }) => Code::ActivationGrad(*activation),
            Op::Reduce { kind, axis } => {
                let x = self.operand(&node.operands[0])?;
                return Ok(smallvec![self.reduce(*kind, *axis, x)?]);
            }
            Op::Concat { axis } => {
                let spans = node.operands.iter().map(|o| self.operand(o));
                let spans = spans.collect::<Result<Vec<_>, _>>()?;
                if self.out.batch != 1 && *axis == 0 {
                    return Err("it concatenates rows of the batch".to_owned());
                }
                let axis = axis - usize::from(self.out.batch != 1);
                return Ok(smallvec![match &*spans {
                    [x] => self.materialized(x),
                    spans => (self.concat(spans, axis).source, 0),
                }]);
            }
            Op::MatMul { alpha, .. } => return Ok(smallvec![self.matmul(*alpha, node)?]),
            Op::Fused(fused) => {
                let ins = match fused {
                    Fused::BiasActivation { .. } => elementwise(self)?.to_vec(),
                    _ => {
                        let spans = node.operands.iter().map(|o| self.operand(o));
                        spans.collect::<Result<Vec<_>, _>>()?
                    }
                };
                let results = self.fused(fused, &ins)?;
                return Ok(results.into_iter().map(|span| (span.source, 0)).collect());
            }
            Op::Random { .. } => return Err("its numbers differ from step to step".to_owned()),
            Op::ArgMax { .. } | Op::Reverse { .. } | Op::Gather | Op::ScatterAdd { .. } => {
                return Err("no instruction computes it".to_owned());
            }
        };
        let ins = elementwise(self)?;
        let axes = self.row_axes(shape)?;
        let width = count(&axes);
        Ok(smallvec![self.add(width, RowWork::Map { code, axes, ins })])
    }

    fn reduce(&mut self, kind: Reduce, axis: usize, mut x: Span) -> Result<Known, String> {
        if self.out.batch != 1 && axis == 0 {
            return Err("it reduces the batch".to_owned());
        }
        let axis = axis - usize::from(self.out.batch != 1);
        // The reduced axis becomes the last one.
        let (len, stride) = (x.axes.remove(axis), x.strides.remove(axis));
        let width = count(&x.axes);
        if len == 0 {
            return Ok((self.constant(0.0), 0));
        }
        x.axes.push(len);
        x.strides.push(stride);
        let work = RowWork::Map {
            code: Code::Reduce(kind),
            axes: x.axes.clone(),
            ins: smallvec![x],
        };
        Ok(self.add(width, work))
    }

    fn matmul(&mut self, alpha: f64, node: &Node) -> Result<Known, String> {
        let (a, b) = (&node.operands[0], &node.operands[1]);
        let Value::Captured(captured) = b.value else {
            return Err("its right operand is not a captured tensor".to_owned());
        };
        let (left, right) = (a.layout.shape(), b.layout.shape());
        if left.rank() != 2 || right.rank() != 2 {
            return Err(format!(
                "it multiplies {left} by {right}, not a matrix by a matrix"
            ));
        }
        if left[0] != self.out.batch {
            return Err(format!(
                "{left} has not the batch {} as its first axis",
                self.out.batch
            ));
        }
        let mut a = self.operand(a)?;
        if !a.is_contiguous() || matches!(a.source, Source::Captured(..) | Source::Constant(_)) {
            a = self.map(Code::Copy, [&a]);
        }
        let matrix = self.matrix(captured, b.layout);
        let axes = self.row_axes(node.results[0].shape)?;
        let work = RowWork::Product {
            terms: smallvec![Term { a, matrix }],
            start: None,
        };
        let (source, _) = self.add(right.last(), work);
        let mut product = Span::whole(source, &axes);
        if alpha != 1.0 {
            let factor = Span {
                source: self.constant(alpha),
                offset: 0,
                strides: smallvec![0; axes.len()],
                axes,
            };
            product = self.binary(Binary::Mul, &product, &factor);
        }
        if let Some(start) = node.operands.get(2) {
            let start = self.operand(start)?;
            product = self.binary(Binary::Add, &product, &start);
        }
        Ok((product.source, 0))
    }

    fn matrix(&mut self, captured: usize, layout: Layout) -> usize {
        self.out.matrix(Matrix {
            captured,
            layout,
            chunked: false,
        })
    }
}

/// Whether the elements of a layout, from axis `first` on, lie in a row of `width` elements.
fn lies_within(layout: &Layout, first: usize, width: usize) -> bool {
    let shape = layout.shape();
    if shape.count() == 0 {
        return true;
    }
    let axes = shape.dims().iter().zip(layout.strides()).skip(first);
    let mut last = layout.offset();
    for (&len, &stride) in axes {
        let Some(further) = (len - 1)
            .checked_mul(stride)
            .and_then(|d| last.checked_add(d))
        else {
            return false;
        };
        last = further;
    }
    last < width
}
