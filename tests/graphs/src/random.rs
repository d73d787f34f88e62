//! Random graphs.

use backend_api::trace::{Operand, StepGraph, Work};
use backend_api::{
    Activation, Binary, Compare, DType, Fused, Layout, LstmGates, Op, Precision, Reduce, Unary,
};
use proptest::prelude::*;

use crate::{Builder, Data, reshape, slice};

/// What a random graph does, in numbers that choose operations and operands.
type Choice = (u8, u8, u8, u8);

/// The operations of a random graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All but products. Devices that compute the same functions compute the same bits.
    Exact,
    /// Products and continuous functions: small errors stay small.
    Continuous,
    /// Products and functions that have a continuous gradient. Sums into parts and gradients of
    /// fused operations have none.
    Smooth,
}

/// How to make a random graph, and data for it.
#[derive(Clone, Debug)]
pub struct Recipe {
    width: usize,
    /// Rows of the batch.
    pub batch: usize,
    steps: usize,
    choices: Vec<Choice>,
    lengths: Option<Vec<i64>>,
    /// Whether the steps run from the last to the first.
    pub reverse: bool,
    kind: Kind,
}

/// Recipes of graphs with up to 23 operations, of different widths, for up to 5 rows and steps.
pub fn recipes(kind: Kind) -> impl Strategy<Value = Recipe> {
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
                kind,
            },
        )
}

impl Recipe {
    /// Operands of the graph; see [`Data::padded`].
    pub fn data(&self, graph: &StepGraph, padding: f64) -> Data {
        Data::new(graph, self.steps, self.lengths.clone()).padded(graph, padding)
    }

    /// The graph for some rows of the batch.
    pub fn graph(&self, dtype: DType, batch: usize) -> StepGraph {
        let w = self.width;
        let (products, smooth) = (self.kind != Kind::Exact, self.kind == Kind::Smooth);
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
            let activations = [
                Activation::Tanh,
                Activation::Sigmoid,
                Activation::Softsign,
                Activation::Relu,
                Activation::HardSigmoid,
            ];
            let activation = activations[usize::from(k) % if smooth { 3 } else { 5 }];
            let gates = LstmGates {
                recurrent_activation: activation,
                forget_bias: 1.0,
                activation: Activation::Tanh,
            };
            let cut = usize::from(k) % (w + 1);
            // The last result of some operations is for their gradient, and has none itself.
            let shown = |mut results: Vec<Operand>| {
                results.truncate(results.len() - usize::from(smooth));
                results
            };
            let mut new = match op % 24 {
                0 => vec![b.unary(Unary::Activation(activation), x)],
                1 => {
                    let even = [Unary::Neg, Unary::Sin, Unary::Cos, Unary::Square];
                    let rough = [Unary::Floor, Unary::Sign, Unary::Abs, Unary::Sqrt];
                    let f = if products { even } else { rough }[usize::from(j) % 4];
                    // The sine of a large number is no more exact than the number.
                    let x = match f {
                        Unary::Sin | Unary::Cos => b.unary(Unary::Activation(Activation::Tanh), x),
                        _ => x,
                    };
                    vec![b.unary(f, x)]
                }
                2 => {
                    let even = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Add];
                    let rough = [Binary::Max, Binary::Min, Binary::Div, Binary::FloorMod];
                    let f = if products { even } else { rough }[usize::from(k) % 4];
                    // Zeros of both signs are equal, but their quotients are not.
                    let y = match f {
                        Binary::Div => b.unary(Unary::Abs, y),
                        _ => y,
                    };
                    vec![b.binary(f, x, y)]
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
                5 if !smooth => {
                    let clamp = Op::Clamp {
                        min: -0.5,
                        max: 0.75,
                    };
                    vec![b.op(clamp, &[x])]
                }
                6 if !products => {
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
                9 if !smooth => {
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
                14 if !smooth => {
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
                15 if !smooth => {
                    let at = Layout::contiguous(y.layout.shape());
                    let at = |len| at.slice(1, 0..len).unwrap();
                    let none = b.add_at(y, at(0), slice(x, 0, 0));
                    vec![none, b.add_at(y, at(cut), slice(x, w - cut, cut))]
                }
                16 => {
                    let z = b.concat(&[x, y, z, x]);
                    shown(b.all(Op::Fused(Fused::LstmStep(gates)), &[z, y]))
                }
                17 if !smooth => {
                    let saved = b.concat(&[x, y, z, x]);
                    let grad = Op::Fused(Fused::LstmStepGrad(gates));
                    b.all(grad, &[saved, x, y, z, x])
                }
                18 => {
                    let z = b.concat(&[x, y]);
                    let gates = Op::Fused(Fused::GruGates {
                        activation: Activation::Sigmoid,
                    });
                    shown(b.all(gates, &[z, z_or(z, w)]))
                }
                19 => {
                    let output = Op::Fused(Fused::GruOutput {
                        activation: Activation::Tanh,
                    });
                    shown(b.all(output, &[x, y, z]))
                }
                20 if !smooth => {
                    let grad = Op::Fused(Fused::GruOutputGrad {
                        activation: Activation::Sigmoid,
                    });
                    let mut all = b.all(grad, &[x, y, z, x]);
                    all.extend(b.all(
                        Op::Fused(Fused::GruGatesGrad {
                            activation: Activation::Sigmoid,
                        }),
                        &[x, y, z, x, y],
                    ));
                    all
                }
                21 if !smooth => {
                    let common = [Activation::Tanh, Activation::Relu][usize::from(k) % 2];
                    let grad = Op::Fused(Fused::ActivationGrad { activation: common });
                    let bias = Op::Fused(Fused::BiasActivation { activation: common });
                    vec![b.op(grad, &[x, y]), b.op(bias, &[x, row])]
                }
                22 if products && k < 64 => {
                    // Both are read later, too.
                    let both = b.concat(&[y, z]);
                    let wide = Operand {
                        layout: tall.layout.permute(&[1, 0]).unwrap(),
                        ..tall
                    };
                    let product = b.matmul(x, wide);
                    let sum = b.binary(Binary::Add, both, product);
                    vec![slice(sum, 0, w), slice(sum, w, w)]
                }
                22 if products => {
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
                23 if products => {
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
        if products {
            // Keeps the numbers small.
            next = next.map(|x| b.unary(Unary::Activation(Activation::Tanh), x));
        }
        b.graph.outputs = outputs;
        b.graph.new_states = next.to_vec();
        // As the graph of a traced step.
        b.graph.prune();
        b.graph
    }
}

/// A part of a value that is twice as wide.
fn z_or(z: Operand, w: usize) -> Operand {
    slice(z, w / 2, w)
}
