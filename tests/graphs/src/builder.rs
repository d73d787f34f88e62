//! Graphs by hand.

use backend_api::trace::{Node, Operand, StepGraph, Value, Work};
use backend_api::{Binary, DType, Layout, Meta, Op, Precision, Reduce, Shape, Unary};

/// A graph under construction. Its methods panic if an operand does not fit.
#[derive(Debug)]
pub struct Builder {
    /// The graph so far; outputs and new states are set at the end.
    pub graph: StepGraph,
    dtype: DType,
    batch: usize,
}

impl Builder {
    /// A graph for steps of `batch` rows.
    pub fn new(dtype: DType, batch: usize) -> Self {
        Self {
            graph: StepGraph::default(),
            dtype,
            batch,
        }
    }

    fn meta(&self, dims: &[usize]) -> Meta {
        Meta::new(Shape::new(dims).unwrap(), self.dtype)
    }

    /// Rows of the batch.
    pub fn rows(&self, width: usize) -> Meta {
        self.meta(&[self.batch, width])
    }

    /// A new input.
    pub fn input(&mut self, width: usize) -> Operand {
        let meta = self.rows(width);
        self.graph.inputs.push(meta);
        Operand::whole(Value::Input(self.graph.inputs.len() - 1), meta)
    }

    /// A new state.
    pub fn state(&mut self, width: usize) -> Operand {
        let meta = self.rows(width);
        self.graph.states.push(meta);
        Operand::whole(Value::State(self.graph.states.len() - 1), meta)
    }

    /// A new captured tensor.
    pub fn captured(&mut self, dims: &[usize]) -> Operand {
        let meta = self.meta(dims);
        self.graph.captured.push(meta);
        Operand::whole(Value::Captured(self.graph.captured.len() - 1), meta)
    }

    /// A new node.
    pub fn add(&mut self, work: Work, operands: &[Operand], results: &[Meta]) -> Vec<Operand> {
        self.graph.nodes.push(Node {
            work,
            operands: operands.iter().copied().collect(),
            results: results.iter().copied().collect(),
        });
        let node = self.graph.nodes.len() - 1;
        let results = results.iter().enumerate();
        results
            .map(|(i, meta)| Operand::whole(Value::Node(node, i), *meta))
            .collect()
    }

    /// The results of an operation.
    pub fn all(&mut self, op: Op, operands: &[Operand]) -> Vec<Operand> {
        let metas: Vec<_> = operands.iter().map(Operand::meta).collect();
        let results = op.infer(&metas).unwrap();
        self.add(Work::Op(op), operands, &results)
    }

    /// The only result of an operation.
    pub fn op(&mut self, op: Op, operands: &[Operand]) -> Operand {
        self.all(op, operands)[0]
    }

    /// A unary operation.
    pub fn unary(&mut self, f: Unary, x: Operand) -> Operand {
        self.op(Op::Unary(f), &[x])
    }

    /// A binary operation.
    pub fn binary(&mut self, f: Binary, a: Operand, b: Operand) -> Operand {
        self.op(Op::Binary(f), &[a, b])
    }

    /// A product.
    pub fn matmul(&mut self, a: Operand, b: Operand) -> Operand {
        let op = Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        };
        self.op(op, &[a, b])
    }

    /// Rows side by side.
    pub fn concat(&mut self, parts: &[Operand]) -> Operand {
        self.op(Op::Concat { axis: 1 }, parts)
    }

    /// The sum of each row, as a row of one element.
    pub fn sum(&mut self, x: Operand) -> Operand {
        let sum = Op::Reduce {
            kind: Reduce::Sum,
            axis: x.layout.shape().rank() - 1,
        };
        let sum = self.op(sum, &[x]);
        reshape(sum, &[self.batch, 1])
    }

    /// `x · mul + add`.
    pub fn affine(&mut self, x: Operand, mul: f64, add: f64) -> Operand {
        self.op(Op::Affine { mul, add }, &[x])
    }

    /// `dst` with `src` added to a part of it.
    pub fn add_at(&mut self, dst: Operand, at: Layout, src: Operand) -> Operand {
        self.add(Work::AddAt(at), &[dst, src], &[dst.meta()])[0]
    }
}

/// A view with other axes.
pub fn reshape(x: Operand, dims: &[usize]) -> Operand {
    let layout = x.layout.reshape(Shape::new(dims).unwrap()).unwrap();
    Operand { layout, ..x }
}

/// A view of columns.
pub fn slice(x: Operand, start: usize, len: usize) -> Operand {
    let axis = x.layout.shape().rank() - 1;
    let layout = x.layout.slice(axis, start..start + len).unwrap();
    Operand { layout, ..x }
}
