//! Programs against the graphs' operations, one by one: graphs, operands and runs of both.

mod cells;
mod random;

use std::sync::Arc;

use backend_api::trace::{
    CompiledStep, Node, Operand, RowSource, RowSum, ScanPlan, StepGraph, Value, Work,
};
use backend_api::{
    Activation, Backend, Binary, Compare, DType, Element, Fused, Layout, LstmGates, Meta, Op,
    Precision, Reduce, Shape, Tensor, Unary,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::program::compile;
use super::team;
use crate::device::Cpu;
use crate::element::Float;

fn cpu(threads: usize) -> Cpu {
    Cpu::builder().threads(threads).amx(false).build().unwrap()
}

/// A graph under construction.
struct Builder {
    graph: StepGraph,
    dtype: DType,
    batch: usize,
}

impl Builder {
    fn new(dtype: DType, batch: usize) -> Self {
        Self {
            graph: StepGraph::default(),
            dtype,
            batch,
        }
    }

    fn meta(&self, dims: &[usize]) -> Meta {
        Meta::new(Shape::new(dims).unwrap(), self.dtype)
    }

    fn rows(&self, width: usize) -> Meta {
        self.meta(&[self.batch, width])
    }

    fn input(&mut self, width: usize) -> Operand {
        let meta = self.rows(width);
        self.graph.inputs.push(meta);
        Operand::whole(Value::Input(self.graph.inputs.len() - 1), meta)
    }

    fn state(&mut self, width: usize) -> Operand {
        let meta = self.rows(width);
        self.graph.states.push(meta);
        Operand::whole(Value::State(self.graph.states.len() - 1), meta)
    }

    fn captured(&mut self, dims: &[usize]) -> Operand {
        let meta = self.meta(dims);
        self.graph.captured.push(meta);
        Operand::whole(Value::Captured(self.graph.captured.len() - 1), meta)
    }

    fn add(&mut self, work: Work, operands: &[Operand], results: &[Meta]) -> Vec<Operand> {
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

    fn all(&mut self, op: Op, operands: &[Operand]) -> Vec<Operand> {
        let metas: Vec<_> = operands.iter().map(Operand::meta).collect();
        let results = op.infer(&metas).unwrap();
        self.add(Work::Op(op), operands, &results)
    }

    fn op(&mut self, op: Op, operands: &[Operand]) -> Operand {
        self.all(op, operands)[0]
    }

    fn unary(&mut self, f: Unary, x: Operand) -> Operand {
        self.op(Op::Unary(f), &[x])
    }

    fn binary(&mut self, f: Binary, a: Operand, b: Operand) -> Operand {
        self.op(Op::Binary(f), &[a, b])
    }

    fn matmul(&mut self, a: Operand, b: Operand) -> Operand {
        let op = Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        };
        self.op(op, &[a, b])
    }

    fn concat(&mut self, parts: &[Operand]) -> Operand {
        self.op(Op::Concat { axis: 1 }, parts)
    }

    fn sum(&mut self, x: Operand) -> Operand {
        let sum = Op::Reduce {
            kind: Reduce::Sum,
            axis: x.layout.shape().rank() - 1,
        };
        let sum = self.op(sum, &[x]);
        reshape(sum, &[self.batch, 1])
    }

    fn affine(&mut self, x: Operand, mul: f64, add: f64) -> Operand {
        self.op(Op::Affine { mul, add }, &[x])
    }

    fn add_at(&mut self, dst: Operand, at: Layout, src: Operand) -> Operand {
        self.add(Work::AddAt(at), &[dst, src], &[dst.meta()])[0]
    }
}

fn reshape(x: Operand, dims: &[usize]) -> Operand {
    let layout = x.layout.reshape(Shape::new(dims).unwrap()).unwrap();
    Operand { layout, ..x }
}

fn slice(x: Operand, start: usize, len: usize) -> Operand {
    let axis = x.layout.shape().rank() - 1;
    let layout = x.layout.slice(axis, start..start + len).unwrap();
    Operand { layout, ..x }
}

/// The operands of a scan, as numbers.
#[derive(Clone, Debug)]
struct Data {
    steps: usize,
    inputs: Vec<Vec<f64>>,
    captured: Vec<Vec<f64>>,
    states: Vec<Vec<f64>>,
    lengths: Option<Vec<i64>>,
}

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    let at = |i: usize| ((i * 7 + seed * 31 + 5) * 7919) % 2003;
    (0..count).map(|i| at(i) as f64 / 1001.0 - 1.0).collect()
}

impl Data {
    fn new(graph: &StepGraph, steps: usize, lengths: Option<Vec<i64>>) -> Self {
        let all = |metas: &[Meta], times: usize, seed: usize| {
            let metas = metas.iter().enumerate();
            let each = |(i, m): (usize, &Meta)| numbers(times * m.shape.count(), seed + i);
            metas.map(each).collect::<Vec<_>>()
        };
        let mut captured = all(&graph.captured, 1, 300);
        for (data, meta) in captured.iter_mut().zip(&graph.captured) {
            // Products stay small.
            if meta.shape.rank() == 2 {
                let scale = 1.0 / (meta.shape[0] as f64).sqrt();
                data.iter_mut().for_each(|x| *x *= scale);
            }
        }
        Self {
            steps,
            inputs: all(&graph.inputs, steps, 100),
            captured,
            states: all(&graph.states, 1, 200),
            lengths,
        }
    }
}

fn tensor<T: Float + Element>(cpu: &Cpu, data: &[f64], dims: &[usize]) -> Tensor<Cpu> {
    let data: Vec<T> = data.iter().map(|&x| T::from_f64(x)).collect();
    Tensor::from_slice(cpu, &data, dims).unwrap()
}

fn with_steps(steps: usize, meta: Meta) -> Vec<usize> {
    [&[steps], meta.shape.dims()].concat()
}

/// The operands of a scan as tensors.
fn operands<T: Float + Element>(cpu: &Cpu, graph: &StepGraph, data: &Data) -> Vec<Tensor<Cpu>> {
    let mut ins = Vec::new();
    for (i, (x, meta)) in data.inputs.iter().zip(&graph.inputs).enumerate() {
        let dims = with_steps(data.steps, *meta);
        let x = tensor::<T>(cpu, x, &dims);
        // Every other input has the batch first in memory.
        ins.push(match i % 2 {
            0 => x,
            _ => x
                .transpose(0, 1)
                .unwrap()
                .copy()
                .unwrap()
                .transpose(0, 1)
                .unwrap(),
        });
    }
    for (x, meta) in data.captured.iter().zip(&graph.captured) {
        ins.push(tensor::<T>(cpu, x, meta.shape.dims()));
    }
    for (x, meta) in data.states.iter().zip(&graph.states) {
        ins.push(tensor::<T>(cpu, x, meta.shape.dims()));
    }
    if let Some(lengths) = &data.lengths {
        ins.push(Tensor::from_slice(cpu, lengths, &[lengths.len()]).unwrap());
    }
    ins
}

/// The results of a step's scan.
fn scanned<T: Float + Element>(
    cpu: &Cpu,
    step: CompiledStep,
    data: &Data,
    reverse: bool,
) -> Vec<Vec<T>> {
    let plan = ScanPlan {
        step: Arc::new(step),
        steps: data.steps,
        saved: 0,
        reverse,
        ragged: data.lengths.is_some(),
        reuse: true,
    };
    let ins = operands::<T>(cpu, plan.graph(), data);
    let ins: Vec<_> = ins.iter().collect();
    let results = Tensor::call_all(cpu, &Op::Fused(Fused::Scan(plan)), &ins).unwrap();
    results.iter().map(|t| t.to_vec().unwrap()).collect()
}

/// The results of the program.
fn fused<T: Float + Element>(
    cpu: &Cpu,
    graph: &StepGraph,
    data: &Data,
    reverse: bool,
) -> Vec<Vec<T>> {
    let step = CompiledStep::new(graph.clone(), cpu.compile_step(graph));
    assert!(step.program().is_ok());
    scanned(cpu, step, data, reverse)
}

/// One step, operation by operation: the outputs and the new states.
fn step(
    cpu: &Cpu,
    graph: &StepGraph,
    [inputs, captured, states]: [&[Tensor<Cpu>]; 3],
) -> Vec<Tensor<Cpu>> {
    let mut results: Vec<Vec<Tensor<Cpu>>> = Vec::new();
    let operand = |results: &[Vec<Tensor<Cpu>>], operand: &Operand| {
        let value = match operand.value {
            Value::Input(i) => &inputs[i],
            Value::State(i) => &states[i],
            Value::Captured(i) => &captured[i],
            Value::Node(i, k) => &results[i][k],
        };
        let buffer = value.buffer().unwrap().clone();
        Tensor::from_parts(cpu, buffer, operand.layout, operand.dtype).unwrap()
    };
    for node in &graph.nodes {
        let ins: Vec<_> = node.operands.iter().map(|o| operand(&results, o)).collect();
        results.push(match &node.work {
            Work::Op(op) => {
                let ins: Vec<_> = ins.iter().collect();
                Tensor::call_all(cpu, op, &ins).unwrap().to_vec()
            }
            Work::AddAt(at) => {
                let dst = ins[0].copy().unwrap();
                let (layout, dtype) = (*dst.layout(), dst.dtype());
                let sum = cpu
                    .accumulate(dst.into_buffer().unwrap(), at, ins[1].view().unwrap())
                    .unwrap();
                vec![Tensor::from_parts(cpu, sum, layout, dtype).unwrap()]
            }
            Work::Detach => vec![ins[0].copy().unwrap()],
            Work::Noise { .. } => unreachable!("random numbers are drawn outside"),
        });
    }
    let all = graph.outputs.iter().chain(&graph.new_states);
    all.map(|o| operand(&results, o).copy().unwrap()).collect()
}

/// The results of the operations, step by step.
fn stepwise<T: Float + Element>(
    cpu: &Cpu,
    graph: &StepGraph,
    data: &Data,
    reverse: bool,
) -> Vec<Vec<T>> {
    let captured = data.captured.iter().zip(&graph.captured);
    let captured: Vec<_> = captured
        .map(|(x, m)| tensor::<T>(cpu, x, m.shape.dims()))
        .collect();
    let mut states: Vec<Vec<T>> = data
        .states
        .iter()
        .map(|x| x.iter().map(|&x| T::from_f64(x)).collect())
        .collect();
    let widths = |o: &Operand| o.layout.shape().count();
    let mut outputs: Vec<Vec<T>> = graph
        .outputs
        .iter()
        .map(|o| vec![T::ZERO; data.steps * widths(o)])
        .collect();
    let batch = graph.states[0].shape[0];
    for i in 0..data.steps {
        let t = if reverse { data.steps - 1 - i } else { i };
        let inputs = data.inputs.iter().zip(&graph.inputs);
        let inputs: Vec<_> = inputs
            .map(|(x, m)| {
                let n = m.shape.count();
                tensor::<T>(cpu, &x[t * n..(t + 1) * n], m.shape.dims())
            })
            .collect();
        let old = states.iter().zip(&graph.states);
        let old: Vec<_> = old
            .map(|(x, m)| Tensor::from_slice(cpu, x, m.shape.dims()).unwrap())
            .collect();
        let new = step(cpu, graph, [&inputs, &captured, &old]);
        for r in 0..batch {
            let length = data.lengths.as_ref().map_or(data.steps as i64, |l| l[r]);
            if t as i64 >= length {
                continue;
            }
            for (k, new) in new.iter().enumerate() {
                let new: Vec<T> = new.to_vec().unwrap();
                let n = new.len() / batch;
                let to = match k.checked_sub(outputs.len()) {
                    None => &mut outputs[k][(t * batch + r) * n..][..n],
                    Some(k) => &mut states[k][r * n..][..n],
                };
                to.copy_from_slice(&new[r * n..][..n]);
            }
        }
    }
    outputs.extend(states);
    outputs
}

/// The same numbers. NaN equals NaN, and a zero of any sign the other.
fn same<T: Float>(a: &[Vec<T>], b: &[Vec<T>]) -> Result<(), String> {
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        for (k, (a, b)) in a.iter().zip(b).enumerate() {
            if a != b && !(a.is_nan() && b.is_nan()) {
                return Err(format!("result {i}, element {k}: {a:?} instead of {b:?}"));
            }
        }
    }
    Ok(())
}

fn close<T: Float>(a: &[Vec<T>], b: &[Vec<T>], limit: f64) -> Result<(), String> {
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let largest = b.iter().fold(1e-30f64, |m, x| m.max(x.to_f64().abs()));
        for (k, (a, b)) in a.iter().zip(b).enumerate() {
            let (a, b) = (a.to_f64(), b.to_f64());
            if a.is_nan() != b.is_nan() || (a - b).abs() > limit * largest {
                return Err(format!("result {i}, element {k}: {a} instead of {b}"));
            }
        }
    }
    Ok(())
}
