//! Programs against the graphs' operations, one by one.

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

use super::compile::compile;
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

/// What a random graph does, in numbers that choose operations and operands.
type Choice = (u8, u8, u8, u8);

#[derive(Clone, Debug)]
struct Recipe {
    width: usize,
    batch: usize,
    steps: usize,
    choices: Vec<Choice>,
    lengths: Option<Vec<i64>>,
    reverse: bool,
    products: bool,
}

fn recipes(products: bool) -> impl Strategy<Value = Recipe> {
    let choices = prop::collection::vec(any::<Choice>(), 1..24);
    let lengths = prop::option::of(prop::collection::vec(0..8i64, 5));
    (
        1..70usize,
        1..6usize,
        0..6usize,
        choices,
        lengths,
        any::<bool>(),
    )
        .prop_map(
            move |(width, batch, steps, choices, lengths, reverse)| Recipe {
                width,
                batch,
                steps,
                choices,
                lengths: lengths.map(|all| all[..batch].to_vec()),
                reverse,
                products,
            },
        )
}

impl Recipe {
    /// The graph for some rows of the batch.
    fn graph(&self, dtype: DType, batch: usize) -> StepGraph {
        let w = self.width;
        let mut b = Builder::new(dtype, batch);
        let mut pool = vec![b.input(w), b.state(w), b.input(w), b.state(w)];
        let narrow = b.input(1);
        let row = b.captured(&[w]);
        let scalar = b.captured(&[]);
        let square = b.captured(&[w, w]);
        let tall = b.captured(&[2 * w, w]);
        let mut outputs = Vec::new();
        for &(op, i, j, k) in &self.choices {
            let pick = |i: u8| pool[usize::from(i) % pool.len()];
            let (x, y, z) = (pick(i), pick(j), pick(k));
            let activation = [
                Activation::Tanh,
                Activation::Sigmoid,
                Activation::Softsign,
                Activation::Relu,
                Activation::HardSigmoid,
            ][usize::from(k) % 5];
            let gates = LstmGates {
                forget_bias: 1.0,
                activation: Activation::Tanh,
            };
            let cut = usize::from(k) % (w + 1);
            let mut new = match op % 24 {
                0 => vec![b.unary(Unary::Activation(activation), x)],
                1 => {
                    let smooth = [Unary::Neg, Unary::Sin, Unary::Cos, Unary::Square];
                    let rough = [Unary::Floor, Unary::Sign, Unary::Abs, Unary::Sqrt];
                    let all = if self.products { smooth } else { rough };
                    vec![b.unary(all[usize::from(j) % 4], x)]
                }
                2 => {
                    let smooth = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Add];
                    let rough = [Binary::Max, Binary::Min, Binary::Div, Binary::FloorMod];
                    let all = if self.products { smooth } else { rough };
                    vec![b.binary(all[usize::from(k) % 4], x, y)]
                }
                3 => {
                    let other = [narrow, row, scalar][usize::from(k) % 3];
                    let f = [Binary::Add, Binary::Sub, Binary::Mul][usize::from(j) % 3];
                    if k < 128 {
                        vec![b.binary(f, x, other)]
                    } else {
                        vec![b.binary(f, other, x)]
                    }
                }
                4 => vec![b.affine(x, 0.5, f64::from(j) / 128.0 - 1.0)],
                5 => {
                    let clamp = Op::Clamp {
                        min: -0.5,
                        max: 0.75,
                    };
                    vec![b.op(clamp, &[x])]
                }
                6 if !self.products => {
                    let truth = b.op(Op::Compare(Compare::Lt), &[x, y]);
                    let number = b.op(Op::Cast { to: dtype }, &[truth]);
                    vec![b.op(Op::Select, &[truth, z, x]), number]
                }
                7 => {
                    let sum = b.sum(x);
                    let mean = b.affine(sum, 1.0 / w as f64, 0.0);
                    vec![b.binary(Binary::Sub, x, mean)]
                }
                8 => {
                    let square = b.binary(Binary::Mul, x, y);
                    let sum = b.sum(square);
                    let sum = b.affine(sum, 1.0 / w as f64, 0.0);
                    vec![b.binary(Binary::Mul, z, sum)]
                }
                9 => {
                    let max = Op::Reduce {
                        kind: Reduce::Max,
                        axis: 1,
                    };
                    let max = b.op(max, &[x]);
                    let max = reshape(max, &[batch, 1]);
                    vec![b.binary(Binary::Sub, x, max)]
                }
                10 => vec![b.concat(&[slice(x, cut, w - cut), slice(y, 0, cut)])],
                11 => {
                    let both = b.concat(&[x, y]);
                    vec![slice(both, cut, w), slice(both, w - cut, w)]
                }
                12 => {
                    let all = b.concat(&[x, y]);
                    let pairs = reshape(all, &[batch, 2, w]);
                    let sum = Op::Reduce {
                        kind: Reduce::Sum,
                        axis: 1,
                    };
                    vec![b.op(sum, &[pairs])]
                }
                13 => {
                    let all = b.concat(&[x, y]);
                    let pairs = reshape(all, &[batch, 2, w]);
                    let turned = Operand {
                        layout: pairs.layout.permute(&[0, 2, 1]).unwrap(),
                        ..pairs
                    };
                    let other = reshape(x, &[batch, w, 1]);
                    let sum = b.binary(Binary::Add, turned, other);
                    vec![slice(reshape(sum, &[batch, 2 * w]), cut, w)]
                }
                14 => {
                    let zeros = Op::Fill {
                        value: 0.0,
                        meta: b.rows(2 * w),
                    };
                    let zeros = b.op(zeros, &[]);
                    let at = |start| slice(zeros, start, w).layout;
                    let first = b.add_at(zeros, at(cut), x);
                    let start = if j < 128 { 0 } else { w };
                    let sum = b.add_at(first, at(start), y);
                    vec![slice(sum, 0, w), slice(sum, w, w)]
                }
                15 => {
                    let at = Layout::contiguous(y.layout.shape());
                    let at = |len| at.slice(1, 0..len).unwrap();
                    let none = b.add_at(y, at(0), slice(x, 0, 0));
                    vec![none, b.add_at(y, at(cut), slice(x, w - cut, cut))]
                }
                16 => {
                    let z = b.concat(&[x, y, z, x]);
                    b.all(Op::Fused(Fused::LstmStep(gates)), &[z, y])
                }
                17 => {
                    let saved = b.concat(&[x, y, z, x]);
                    let grad = Op::Fused(Fused::LstmStepGrad(gates));
                    b.all(grad, &[saved, x, y, z, x])
                }
                18 => {
                    let z = b.concat(&[x, y]);
                    b.all(Op::Fused(Fused::GruGates), &[z, z_or(z, w)])
                }
                19 => {
                    let output = Op::Fused(Fused::GruOutput {
                        activation: Activation::Tanh,
                    });
                    b.all(output, &[x, y, z])
                }
                20 => {
                    let grad = Op::Fused(Fused::GruOutputGrad {
                        activation: Activation::Sigmoid,
                    });
                    let mut all = b.all(grad, &[x, y, z, x]);
                    all.extend(b.all(Op::Fused(Fused::GruGatesGrad), &[x, y, z, x, y]));
                    all
                }
                21 => {
                    let common = [Activation::Tanh, Activation::Relu][usize::from(k) % 2];
                    let grad = Op::Fused(Fused::ActivationGrad { activation: common });
                    let bias = Op::Fused(Fused::BiasActivation { activation: common });
                    vec![b.op(grad, &[x, y]), b.op(bias, &[x, row])]
                }
                22 if self.products => {
                    let square = match k % 3 {
                        0 => square,
                        1 => Operand {
                            layout: square.layout.permute(&[1, 0]).unwrap(),
                            ..square
                        },
                        _ => Operand {
                            layout: tall.layout.slice(0, cut..cut + w).unwrap(),
                            ..tall
                        },
                    };
                    let product = b.matmul(x, square);
                    let sum = b.binary(Binary::Add, y, product);
                    vec![b.binary(Binary::Add, sum, row), product]
                }
                23 if self.products => {
                    let both = b.concat(&[x, y]);
                    let op = Op::MatMul {
                        alpha: if j < 128 { 1.0 } else { 0.5 },
                        precision: Precision::Exact,
                    };
                    let sum = b.op(op, &[both, tall, z]);
                    let product = b.matmul(both, tall);
                    let biased = b.binary(Binary::Add, product, row);
                    let more = b.matmul(z, square);
                    vec![b.binary(Binary::Add, biased, more), sum]
                }
                _ => {
                    let x = b.add(Work::Detach, &[slice(x, 0, w)], &[b.rows(w)])[0];
                    vec![b.op(Op::Copy, &[x])]
                }
            };
            for x in &mut new {
                if x.layout.shape().dims() != [batch, w] {
                    outputs.push(*x);
                    *x = slice(*x, 0, w);
                }
                pool.push(*x);
            }
        }
        let last = |n: usize| pool[pool.len() - 1 - n];
        outputs.extend([
            last(0),
            pool[1],
            last(1),
            pool[pool.len() / 2],
            last(0),
            pool[0],
        ]);
        let mut next = [last(0), last(2)];
        if self.products {
            // Keeps the numbers small.
            next = next.map(|x| b.unary(Unary::Activation(Activation::Tanh), x));
        }
        b.graph.outputs = outputs;
        b.graph.new_states = next.to_vec();
        b.graph
    }
}

/// A part of a value that is twice as wide.
fn z_or(z: Operand, w: usize) -> Operand {
    slice(z, w / 2, w)
}

fn check<T: Float + Element>(recipe: &Recipe, dtype: DType, limit: Option<f64>) -> TestCaseResult {
    let graph = recipe.graph(dtype, recipe.batch);
    let mut data = Data::new(&graph, recipe.steps, recipe.lengths.clone());
    let device = cpu(1);
    let wanted = stepwise::<T>(&device, &graph, &data, recipe.reverse);
    if let Some(lengths) = &data.lengths {
        // What is behind the lengths has no effect.
        for (x, meta) in data.inputs.iter_mut().zip(&graph.inputs) {
            let n = meta.shape.count() / recipe.batch;
            for (row, x) in x.chunks_exact_mut(n.max(1)).enumerate() {
                if (row / recipe.batch) as i64 >= lengths[row % recipe.batch] {
                    x.fill(f64::NAN);
                }
            }
        }
    }
    let found = fused::<T>(&device, &graph, &data, recipe.reverse);
    let result = match limit {
        None => same(&found, &wanted),
        Some(limit) => close(&found, &wanted, limit),
    };
    prop_assert!(
        result.is_ok(),
        "{}\n{}\n{}",
        result.unwrap_err(),
        graph,
        compile(&graph).unwrap()
    );
    // A row alone.
    let alone = recipe.graph(dtype, 1);
    for r in 0..recipe.batch {
        let row = |all: &[f64], n: usize| -> Vec<f64> {
            let rows = all.chunks_exact(n.max(1)).skip(r).step_by(recipe.batch);
            rows.flatten().copied().collect()
        };
        let rows = |all: &[Vec<f64>], metas: &[Meta]| -> Vec<Vec<f64>> {
            let all = all.iter().zip(metas);
            all.map(|(x, meta)| row(x, meta.shape.count())).collect()
        };
        let one = Data {
            inputs: rows(&data.inputs, &alone.inputs),
            states: rows(&data.states, &alone.states),
            captured: data.captured.clone(),
            lengths: data.lengths.as_ref().map(|lengths| vec![lengths[r]]),
            steps: data.steps,
        };
        let one = fused::<T>(&device, &alone, &one, recipe.reverse);
        for (i, (all, one)) in found.iter().zip(&one).enumerate() {
            let times = if i < graph.outputs.len() {
                recipe.steps
            } else {
                1
            };
            if times == 0 {
                continue;
            }
            let n = one.len() / times;
            let rows = all.chunks_exact(n.max(1)).skip(r).step_by(recipe.batch);
            let all: Vec<T> = rows.flatten().copied().collect();
            let result = same(&[all], std::slice::from_ref(one));
            prop_assert!(result.is_ok(), "row {r} alone: {:?}\n{graph}", result);
        }
    }
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn programs_without_products_have_the_bits_of_the_operations(recipe in recipes(false)) {
        check::<f32>(&recipe, DType::F32, None)?;
    }

    #[test]
    fn programs_with_products_agree_with_the_operations(recipe in recipes(true)) {
        check::<f64>(&recipe, DType::F64, Some(1e-9))?;
    }
}

/// An LSTM step on projected inputs.
fn lstm(dtype: DType, batch: usize, n: usize) -> StepGraph {
    let mut b = Builder::new(dtype, batch);
    let (x, c, h) = (b.input(4 * n), b.state(n), b.state(n));
    let w = b.captured(&[n, 4 * n]);
    let product = b.matmul(h, w);
    let z = b.binary(Binary::Add, x, product);
    let gates = LstmGates {
        forget_bias: 1.0,
        activation: Activation::Tanh,
    };
    let results = b.all(Op::Fused(Fused::LstmStep(gates)), &[z, c]);
    b.graph.outputs = vec![results[1]];
    b.graph.new_states = vec![results[0], results[1]];
    b.graph
}

/// A layer-normalized LSTM step on projected inputs.
fn layer_norm_lstm(dtype: DType, batch: usize, n: usize) -> StepGraph {
    let mut b = Builder::new(dtype, batch);
    let (x, c, h) = (b.input(4 * n), b.state(n), b.state(n));
    let w = b.captured(&[n, 4 * n]);
    let scales: Vec<_> = (0..10).map(|_| b.captured(&[n])).collect();
    let product = b.matmul(h, w);
    let z = b.binary(Binary::Add, x, product);
    let norm = |b: &mut Builder, x: Operand, i: usize| {
        let mean = b.sum(x);
        let mean = b.affine(mean, 1.0 / n as f64, 0.0);
        let centred = b.binary(Binary::Sub, x, mean);
        let squares = b.unary(Unary::Square, centred);
        let variance = b.sum(squares);
        let variance = b.affine(variance, 1.0 / n as f64, 1e-6);
        let deviation = b.unary(Unary::Sqrt, variance);
        let normal = b.binary(Binary::Div, centred, deviation);
        let scaled = b.binary(Binary::Mul, normal, scales[2 * i]);
        b.binary(Binary::Add, scaled, scales[2 * i + 1])
    };
    let parts: Vec<_> = (0..4)
        .map(|i| norm(&mut b, slice(z, i * n, n), i))
        .collect();
    let act = |b: &mut Builder, f, x| b.unary(Unary::Activation(f), x);
    let i = act(&mut b, Activation::Sigmoid, parts[0]);
    let j = act(&mut b, Activation::Tanh, parts[1]);
    let f = b.affine(parts[2], 1.0, 1.0);
    let f = act(&mut b, Activation::Sigmoid, f);
    let o = act(&mut b, Activation::Sigmoid, parts[3]);
    let kept = b.binary(Binary::Mul, c, f);
    let new = b.binary(Binary::Mul, i, j);
    let c = b.binary(Binary::Add, kept, new);
    let normal = norm(&mut b, c, 4);
    let a = act(&mut b, Activation::Tanh, normal);
    let h = b.binary(Binary::Mul, a, o);
    b.graph.outputs = vec![h];
    b.graph.new_states = vec![c, h];
    b.graph
}

/// A GRU step, with two products in a row.
fn gru(dtype: DType, batch: usize, n: usize) -> StepGraph {
    let mut b = Builder::new(dtype, batch);
    let (x, h) = (b.input(n), b.state(n));
    let (gates, candidate) = (b.captured(&[2 * n, 2 * n]), b.captured(&[2 * n, n]));
    let bias = b.captured(&[2 * n]);
    let both = b.concat(&[x, h]);
    let z = b.matmul(both, gates);
    let z = b.binary(Binary::Add, z, bias);
    let all = b.all(Op::Fused(Fused::GruGates), &[z, h]);
    let both = b.concat(&[x, all[1]]);
    let z = b.matmul(both, candidate);
    let output = Op::Fused(Fused::GruOutput {
        activation: Activation::Tanh,
    });
    let new = b.all(output, &[z, all[0], h]);
    b.graph.outputs = vec![new[0], all[0], h];
    b.graph.new_states = vec![new[0]];
    b.graph
}

#[test]
fn cells_agree_with_their_operations() {
    for batch in [1, 3, 9] {
        for graph in [lstm, layer_norm_lstm, gru].map(|f| f(DType::F32, batch, 48)) {
            let device = cpu(1);
            let lengths = (0..batch as i64).map(|r| r * 5 % 8).collect();
            for (lengths, reverse) in [(None, false), (Some(lengths), true)] {
                let data = Data::new(&graph, 7, lengths);
                let wanted = stepwise::<f32>(&device, &graph, &data, reverse);
                let found = fused::<f32>(&device, &graph, &data, reverse);
                close(&found, &wanted, 2e-6).unwrap();
            }
        }
    }
}

/// A basic layer with all its products: of the input before the steps, and of the output after
/// them. The second output is computed from the inputs alone.
fn layer(dtype: DType, batch: usize, n: usize) -> StepGraph {
    let mut b = Builder::new(dtype, batch);
    let (x, h) = (b.input(n + 1), b.state(n));
    let (wx, bias, wh) = (
        b.captured(&[n + 1, n]),
        b.captured(&[n]),
        b.captured(&[n, n]),
    );
    let (wy, wz) = (b.captured(&[n, 2 * n]), b.captured(&[2 * n, 5]));
    let tanh = Unary::Activation(Activation::Tanh);
    let before = b.matmul(x, wx);
    let before = b.binary(Binary::Add, before, bias);
    let product = b.matmul(h, wh);
    let z = b.binary(Binary::Add, product, before);
    let h = b.unary(tanh, z);
    let after = b.matmul(h, wy);
    let after = b.unary(tanh, after);
    let last = b.matmul(after, wz);
    let half = b.affine(x, 0.5, 0.0);
    let alone = b.matmul(half, wx);
    b.graph.outputs = vec![last, alone, after, h];
    b.graph.new_states = vec![h];
    b.graph
}

#[test]
fn products_without_a_state_run_for_several_steps() {
    let program = compile(&layer(DType::F32, 3, 20)).unwrap().to_string();
    let lines: Vec<&str> = program
        .lines()
        .filter(|line| line.contains(" * w"))
        .collect();
    let chunked = lines.iter().map(|line| line.ends_with("for several steps"));
    assert_eq!(
        chunked.collect::<Vec<_>>(),
        [true, true, false, true, true],
        "{program}"
    );
}

#[test]
fn sums_over_all_rows_are_those_of_the_default_body() {
    for batch in [1, 3, 40] {
        let graph = layer(DType::F64, batch, 33);
        let sums: Vec<RowSum> = [
            vec![RowSource::Input(0), RowSource::Output(3)],
            vec![RowSource::Output(2), RowSource::Output(2)],
            vec![RowSource::Output(3)],
            vec![RowSource::Input(0)],
        ]
        .into_iter()
        .map(RowSum::from)
        .collect();
        let ragged = (0..batch).map(|r| r as i64 * 5 % 11).collect();
        for lengths in [None, Some(ragged)] {
            let mut data = Data::new(&graph, 9, lengths);
            for (i, x) in data.inputs[0].chunks_exact_mut(34).enumerate() {
                let lengths = data.lengths.as_ref();
                if lengths.is_some_and(|all| (i / batch) as i64 >= all[i % batch]) {
                    x.fill(f64::NAN);
                }
            }
            let step =
                |program| CompiledStep::new(graph.clone(), program).with_sums(sums.clone(), 2);
            for threads in [1, 2, 3] {
                let device = cpu(threads);
                let program = device.compile_step(&graph);
                let found = scanned::<f64>(&device, step(program), &data, false);
                let wanted = scanned(&device, step(Err("none".to_owned())), &data, false);
                assert_eq!(found.len(), 2 + 1 + 4);
                close(&found, &wanted, 1e-9).unwrap();
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let of = |batch: usize| {
        let n = if batch < 4 { 270 } else { 70 };
        [lstm, layer_norm_lstm, gru, layer].map(|f| (f(DType::F32, batch, n), batch))
    };
    for (graph, batch) in [1, 2, 17, 60].into_iter().flat_map(of) {
        for lengths in [None, Some((0..batch).map(|r| r as i64 * 5 % 11).collect())] {
            let data = Data::new(&graph, 9, lengths);
            for reverse in [false, true] {
                let wanted = fused::<f32>(&cpu(1), &graph, &data, reverse);
                for threads in 2..5 {
                    let found = fused::<f32>(&cpu(threads), &graph, &data, reverse);
                    assert_eq!(found, wanted);
                }
            }
        }
    }
}

#[test]
fn a_batch_may_be_empty() {
    let graph = lstm(DType::F32, 0, 5);
    let data = Data::new(&graph, 3, None);
    let found = fused::<f32>(&cpu(1), &graph, &data, false);
    assert!(found.iter().all(Vec::is_empty));
}

/// The unsafe code of a run rests on the sizes of the program.
#[test]
fn a_program_of_another_step_is_refused() {
    let cpu = Cpu::new();
    let step = |units: usize| {
        let meta = Meta::new(Shape::new(&[2, units]).unwrap(), DType::F32);
        let state = Operand::whole(Value::State(0), meta);
        StepGraph {
            states: vec![meta],
            outputs: vec![state],
            new_states: vec![state],
            ..StepGraph::default()
        }
    };
    let (small, large) = (step(3), step(400));
    let state = Tensor::from_slice(&cpu, &[0.5f32; 2 * 3], &[2, 3]).unwrap();
    for (program, fits) in [(&small, true), (&large, false)] {
        let program = cpu.compile_step(program);
        let plan = ScanPlan {
            step: Arc::new(CompiledStep::new(small.clone(), program)),
            steps: 4,
            reverse: false,
            ragged: false,
            reuse: false,
            saved: 0,
        };
        let op = Op::Fused(Fused::Scan(plan));
        let result = Tensor::call_all(&cpu, &op, &[&state]);
        assert_eq!(result.is_ok(), fits);
    }
}

#[test]
fn refusals_name_the_node_and_the_reason() {
    let refusal = |build: &dyn Fn(&mut Builder, Operand) -> Operand| {
        let mut b = Builder::new(DType::F32, 3);
        let state = b.state(4);
        let output = build(&mut b, state);
        b.graph.outputs = vec![output];
        b.graph.new_states = vec![state];
        compile(&b.graph).unwrap_err()
    };
    let turned = |b: &mut Builder, x: Operand| {
        let layout = x.layout.permute(&[1, 0]).unwrap();
        let turned = b.op(Op::Copy, &[Operand { layout, ..x }]);
        reshape(turned, &[3, 4])
    };
    assert_eq!(
        refusal(&turned),
        "%0 (copy): [4, 3] has not the batch 3 as its first axis"
    );
    let shifted = |b: &mut Builder, x: Operand| {
        let all = b.concat(&[x, x]);
        let all = reshape(all, &[6, 4]);
        let layout = all.layout.slice(0, 1..4).unwrap();
        b.op(Op::Copy, &[Operand { layout, ..all }])
    };
    assert!(
        refusal(&shifted).contains("mixes rows of the batch"),
        "{}",
        refusal(&shifted)
    );
    let reduced = |b: &mut Builder, x: Operand| {
        let sum = Op::Reduce {
            kind: Reduce::Sum,
            axis: 0,
        };
        let sum = b.op(sum, &[x]);
        b.binary(Binary::Add, x, sum)
    };
    assert_eq!(refusal(&reduced), "%0 (sum): it reduces the batch");
    let attention = |b: &mut Builder, x: Operand| {
        let y = reshape(x, &[3, 2, 2]);
        let y = b.matmul(y, y);
        reshape(y, &[3, 4])
    };
    assert_eq!(
        refusal(&attention),
        "%0 (matmul): its right operand is not a captured tensor"
    );
    let noise = |b: &mut Builder, _: Operand| {
        let noise = Op::Random {
            key: 1,
            distribution: backend_api::Distribution::Uniform {
                low: 0.0,
                high: 1.0,
            },
            meta: b.rows(4),
        };
        b.op(noise, &[])
    };
    assert_eq!(
        refusal(&noise),
        "%0 (random): its numbers differ from step to step"
    );
    let ids = |b: &mut Builder, x: Operand| {
        let ids = b.op(Op::Cast { to: DType::I32 }, &[x]);
        b.op(Op::Cast { to: DType::F32 }, &[ids])
    };
    assert_eq!(
        refusal(&ids),
        "%0 (cast): it has a value of i32, but the state is f32"
    );
}
