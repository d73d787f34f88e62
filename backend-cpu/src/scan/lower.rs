//! From a step graph to what it computes for one row of the batch.
//!
//! The proof that rows are independent goes operation by operation: a value has the batch as its
//! first axis, and each operation reads, for a row of its result, the same row of its operands or
//! captured elements that are the same for all rows.

use backend_api::trace::{Node, Operand, StepGraph, Value, Work};
use backend_api::{
    Activation, Binary, Compare, DType, Fused, Layout, LstmGates, Op, Reduce, Shape, Unary,
};
use smallvec::{SmallVec, smallvec};

use super::instruction::Code;

/// Axes of one row: the lengths or the strides.
pub(super) type Axes = SmallVec<[usize; 6]>;

/// What a step computes for one row of the batch.
#[derive(Debug)]
pub(super) struct RowGraph {
    pub(super) batch: usize,
    pub(super) dtype: DType,
    /// Elements of a row of each input, state and output.
    pub(super) inputs: Vec<usize>,
    pub(super) states: Vec<usize>,
    pub(super) outputs: Vec<usize>,
    /// Elements of each captured tensor.
    pub(super) captured: Vec<usize>,
    pub(super) constants: Vec<f64>,
    /// Right sides of products: views of captured tensors.
    pub(super) matrices: Vec<Matrix>,
    /// In an order of computation: operands come first.
    pub(super) values: Vec<RowValue>,
    /// The step's outputs, then the new states.
    pub(super) results: Vec<Span>,
}

/// A right side `[k, n]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matrix {
    /// Index of the captured tensor, and the view of it.
    pub(super) captured: usize,
    pub(super) layout: Layout,
    /// Whether it is multiplied with the rows of several steps at a time.
    pub(super) chunked: bool,
}

/// A value of one row, of `width` elements without gaps.
#[derive(Debug)]
pub(super) struct RowValue {
    pub(super) width: usize,
    pub(super) work: RowWork,
}

/// How a value is computed.
#[derive(Debug)]
pub(super) enum RowWork {
    /// An instruction for each index of `axes`. A reduction reduces the last axis.
    Map {
        code: Code,
        axes: Axes,
        ins: SmallVec<[Span; 3]>,
    },
    /// `start` plus the products of the terms, in order.
    Product {
        terms: SmallVec<[Term; 2]>,
        start: Option<Span>,
    },
    /// Parts of other values, in order. If they are not `disjoint`, later ones replace earlier
    /// ones. Together, they cover the value.
    Parts { parts: Vec<Part>, disjoint: bool },
}

/// A product of contiguous elements of a row and a matrix.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) a: Span,
    /// Index of the matrix.
    pub(super) matrix: usize,
}

/// A part of a value: its elements, and where they go.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) from: Span,
    pub(super) at: usize,
    pub(super) strides: Axes,
}

/// Elements of a row of a source, of the shape `axes`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) source: Source,
    pub(super) offset: usize,
    pub(super) axes: Axes,
    pub(super) strides: Axes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// Index of a [`RowValue`].
    Value(usize),
    Input(usize),
    State(usize),
    /// A captured tensor, and the distance of its rows; 0 if it is the same for all rows.
    Captured(usize, usize),
    /// Index of a constant; all strides are 0.
    Constant(usize),
}

/// Row-major strides.
pub(super) fn row_major(axes: &[usize]) -> Axes {
    let mut strides: Axes = smallvec![0; axes.len()];
    let mut step = 1;
    for (stride, &len) in strides.iter_mut().zip(axes).rev() {
        *stride = step;
        step *= len.max(1);
    }
    strides
}

/// Elements of the given axes.
pub(super) fn count(axes: &[usize]) -> usize {
    axes.iter().product()
}

impl Span {
    fn whole(source: Source, axes: &[usize]) -> Self {
        Self {
            source,
            offset: 0,
            axes: axes.into(),
            strides: row_major(axes),
        }
    }

    /// Whether the elements are contiguous and in order.
    pub(super) fn is_contiguous(&self) -> bool {
        let wanted = row_major(&self.axes);
        let mut pairs = self.axes.iter().zip(self.strides.iter().zip(&wanted));
        pairs.all(|(&len, (stride, wanted))| len == 1 || stride == wanted) || count(&self.axes) == 0
    }

    /// The value of which this is the whole row.
    pub(super) fn is_whole(&self, width: usize) -> bool {
        self.offset == 0 && count(&self.axes) == width && self.is_contiguous()
    }

    /// A range of the last axis.
    fn cut(&self, start: usize, len: usize) -> Self {
        let mut cut = self.clone();
        if let (Some(last), Some(stride)) = (cut.axes.last_mut(), cut.strides.last()) {
            *last = len;
            cut.offset += start * stride;
        }
        cut
    }

    /// Equal parts of the last axis.
    fn split<const N: usize>(&self) -> [Self; N] {
        let n = self.axes.last().copied().unwrap_or(0) / N;
        std::array::from_fn(|i| self.cut(i * n, n))
    }
}

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
        let same = |known: &f64| known.to_bits() == value.to_bits();
        let found = self.out.constants.iter().position(same);
        Source::Constant(found.unwrap_or_else(|| {
            self.out.constants.push(value);
            self.out.constants.len() - 1
        }))
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

    fn binary(&mut self, f: Binary, a: &Span, b: &Span) -> Span {
        self.map(Code::Binary(f), [a, b])
    }

    fn activation(&mut self, f: Activation, x: &Span) -> Span {
        self.map(Code::Unary(Unary::Activation(f)), [x])
    }

    fn gradient(&mut self, f: Activation, y: &Span, dy: &Span) -> Span {
        self.map(Code::ActivationGrad(f), [y, dy])
    }

    fn affine(&mut self, x: &Span, mul: f64, add: f64) -> Span {
        self.map(Code::Affine { mul, add }, [x])
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

    /// The default bodies of fused operations.
    fn fused(&mut self, fused: &Fused, ins: &[Span]) -> Result<SmallVec<[Span; 3]>, String> {
        use Binary::{Add, Mul, Sub};
        let sigmoid = Activation::Sigmoid;
        Ok(match (fused, ins) {
            (Fused::BiasActivation { activation }, [x, bias]) => {
                let sum = self.binary(Add, x, bias);
                smallvec![self.activation(*activation, &sum)]
            }
            (Fused::LstmStep(gates), [z, c]) => self.lstm_step(*gates, z, c),
            (Fused::LstmStepGrad(gates), [saved, c, c_new, dc, dh]) => {
                self.lstm_step_grad(*gates, saved, [c, c_new, dc, dh])
            }
            (Fused::GruGates, [z, h]) => {
                let [r, u] = z.split().map(|z| self.activation(sigmoid, &z));
                let rh = self.binary(Mul, &r, h);
                smallvec![u, rh, r]
            }
            (Fused::GruGatesGrad, [r, u, h, du, drh]) => {
                let dr = self.binary(Mul, drh, h);
                let dr = self.gradient(sigmoid, r, &dr);
                let du = self.gradient(sigmoid, u, du);
                let axis = dr.axes.len() - 1;
                smallvec![self.concat(&[dr, du], axis), self.binary(Mul, drh, r)]
            }
            (Fused::GruOutput { activation }, [z, u, h]) => {
                let q = self.activation(*activation, z);
                let kept = self.binary(Mul, u, h);
                let rest = self.affine(u, -1.0, 1.0);
                let new = self.binary(Mul, &rest, &q);
                smallvec![self.binary(Add, &kept, &new), q]
            }
            (Fused::GruOutputGrad { activation }, [q, u, h, dh]) => {
                let rest = self.affine(u, -1.0, 1.0);
                let dq = self.binary(Mul, &rest, dh);
                let dz = self.gradient(*activation, q, &dq);
                let change = self.binary(Sub, h, q);
                smallvec![dz, self.binary(Mul, &change, dh), self.binary(Mul, u, dh)]
            }
            _ => return Err("no instruction computes it".to_owned()),
        })
    }

    fn lstm_step(&mut self, g: LstmGates, z: &Span, c: &Span) -> SmallVec<[Span; 3]> {
        let [i, j, f, o] = z.split();
        let i = self.activation(Activation::Sigmoid, &i);
        let j = self.activation(g.activation, &j);
        let f = self.affine(&f, 1.0, g.forget_bias);
        let f = self.activation(Activation::Sigmoid, &f);
        let o = self.activation(Activation::Sigmoid, &o);
        let kept = self.binary(Binary::Mul, c, &f);
        let new = self.binary(Binary::Mul, &i, &j);
        let c = self.binary(Binary::Add, &kept, &new);
        let a = self.activation(g.activation, &c);
        let h = self.binary(Binary::Mul, &a, &o);
        let axis = i.axes.len() - 1;
        smallvec![c, h, self.concat(&[i, j, f, o], axis)]
    }

    fn lstm_step_grad(
        &mut self,
        g: LstmGates,
        gates: &Span,
        [c, c_new, dc, dh]: [&Span; 4],
    ) -> SmallVec<[Span; 3]> {
        use Binary::{Add, Mul};
        let sigmoid = Activation::Sigmoid;
        let [i, j, f, o] = &gates.split();
        let a = self.activation(g.activation, c_new);
        let through = self.binary(Mul, dh, o);
        let through = self.gradient(g.activation, &a, &through);
        let dc = self.binary(Add, dc, &through);
        let [di, dj, df] = [(sigmoid, i, j), (g.activation, j, i), (sigmoid, f, c)].map(
            |(activation, y, factor)| {
                let dy = self.binary(Mul, &dc, factor);
                self.gradient(activation, y, &dy)
            },
        );
        let d_o = self.binary(Mul, dh, &a);
        let d_o = self.gradient(sigmoid, o, &d_o);
        let axis = di.axes.len() - 1;
        let dz = self.concat(&[di, dj, df, d_o], axis);
        smallvec![dz, self.binary(Mul, &dc, f)]
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

    /// `dst`, with `src` added to the elements that a layout selects. Parts that are added to
    /// zeros are written, not added, so that `-0.0` stays.
    fn add_at(&mut self, node: &Node, at: &Layout) -> Result<Known, String> {
        let [dst, src] = &*node.operands else {
            return Err("it has not two operands".to_owned());
        };
        let shape = dst.layout.shape();
        let axes = self.row_axes(shape)?;
        let width = count(&axes);
        let whole = self.operand(dst)?;
        let src = self.broadcast(src, at.shape())?;
        let rank = at.shape().rank() - src.axes.len();
        let by_row = if self.out.batch == 1 {
            width
        } else {
            at.strides()[0]
        };
        if (self.out.batch > 1 && by_row != width) || !lies_within(at, rank, width) {
            return Err(format!("{at:?} of {shape} mixes rows of the batch"));
        }
        let place = Part {
            from: src,
            at: at.offset(),
            strides: at.strides()[rank..].into(),
        };
        let mut before = match whole.source {
            Source::Constant(i) if self.out.constants[i] == 0.0 => Some(Sparse {
                parts: Vec::new(),
                covered: vec![false; width],
            }),
            Source::Value(i) if whole.is_whole(width) => match dst.value {
                // Its last use takes the parts along.
                Value::Node(node, _) if self.uses[node] == 1 => self.sparse[i].take(),
                _ => None,
            },
            _ => None,
        };
        if let Some(sparse) = &mut before
            && !cover(&mut sparse.covered, &place)
        {
            // The part lies over another one.
            before = None;
        }
        let Some(mut sparse) = before else {
            let selected = Span {
                source: whole.source,
                offset: whole.offset
                    + if let Source::Constant(_) = whole.source {
                        0
                    } else {
                        place.at
                    },
                axes: place.from.axes.clone(),
                strides: place.strides.clone(),
            };
            return self.add_over(&axes, whole, selected, place);
        };
        sparse.parts.push(place);
        let mut parts = sparse.parts.clone();
        // Zeros between the parts.
        let source = self.constant(0.0);
        let mut start = 0;
        for run in sparse.covered.chunk_by(|a, b| a == b) {
            if !run[0] {
                parts.push(Part {
                    from: Span {
                        source,
                        offset: 0,
                        axes: smallvec![run.len()],
                        strides: smallvec![0],
                    },
                    at: start,
                    strides: smallvec![1],
                });
            }
            start += run.len();
        }
        let work = RowWork::Parts {
            parts,
            disjoint: true,
        };
        let known = self.add(width, work);
        if let Some(last) = self.sparse.last_mut() {
            *last = Some(sparse);
        }
        Ok(known)
    }

    fn add_over(
        &mut self,
        axes: &Axes,
        whole: Span,
        mut selected: Span,
        place: Part,
    ) -> Result<Known, String> {
        if !whole.is_contiguous() {
            let copy = self.map(Code::Copy, [&whole]);
            selected.source = copy.source;
            selected.offset = place.at;
            return self.add_over(axes, copy, selected, place);
        }
        let sum = self.binary(Binary::Add, &selected, &place.from);
        let width = count(axes);
        if count(&sum.axes) == width && place.at == 0 && place.strides == row_major(&sum.axes) {
            return Ok((sum.source, 0));
        }
        let parts = vec![
            Part {
                strides: row_major(&whole.axes),
                from: whole,
                at: 0,
            },
            Part { from: sum, ..place },
        ];
        let work = RowWork::Parts {
            parts,
            disjoint: false,
        };
        Ok(self.add(width, work))
    }
}

impl RowGraph {
    /// The index of a matrix.
    pub(super) fn matrix(&mut self, matrix: Matrix) -> usize {
        let found = self.matrices.iter().position(|known| *known == matrix);
        found.unwrap_or_else(|| {
            self.matrices.push(matrix);
            self.matrices.len() - 1
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

/// Marks the elements of a part; whether none was marked before.
fn cover(covered: &mut [bool], part: &Part) -> bool {
    let mut free = true;
    for_each_index(&part.from.axes, &part.strides, part.at, &mut |i| {
        free &= !covered[i];
        covered[i] = true;
    });
    free
}

/// Calls `f` with the offset of each element.
pub(super) fn for_each_index(
    axes: &[usize],
    strides: &[usize],
    at: usize,
    f: &mut impl FnMut(usize),
) {
    match (axes, strides) {
        ([len, axes @ ..], [stride, strides @ ..]) => {
            for i in 0..*len {
                for_each_index(axes, strides, at + i * stride, f);
            }
        }
        _ => f(at),
    }
}
