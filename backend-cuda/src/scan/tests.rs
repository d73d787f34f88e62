//! Which threads of a kernel wait for each other, and which products are one.

use backend_api::trace::{Node, Operand, StepGraph, Value, Work};
use backend_api::{
    Activation, Binary, DType, Fused, Layout, LstmGates, Meta, Op, Precision, Reduce, Shape, Unary,
};

use super::StepKernels;
use super::join::Launch;
use crate::kernels;

/// A step with one state `[2, ..]`, which is its output, too.
struct Step(StepGraph);

impl Step {
    fn new(dims: &[usize]) -> (Self, Operand) {
        let state = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        let graph = StepGraph {
            states: vec![state],
            ..StepGraph::default()
        };
        (Self(graph), Operand::whole(Value::State(0), state))
    }

    fn input(&mut self, dims: &[usize]) -> Operand {
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        self.0.inputs.push(meta);
        Operand::whole(Value::Input(self.0.inputs.len() - 1), meta)
    }

    fn captured(&mut self, dims: &[usize]) -> Operand {
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        self.0.captured.push(meta);
        Operand::whole(Value::Captured(self.0.captured.len() - 1), meta)
    }

    fn op(&mut self, op: Op, operands: &[Operand]) -> Operand {
        let metas: Vec<Meta> = operands.iter().map(Operand::meta).collect();
        let results = op.infer(&metas).unwrap();
        self.0.nodes.push(Node {
            work: Work::Op(op),
            operands: operands.iter().copied().collect(),
            results: results.clone(),
        });
        Operand::whole(Value::Node(self.0.nodes.len() - 1, 0), results[0])
    }

    fn tanh(&mut self, x: Operand) -> Operand {
        self.op(Op::Unary(Unary::Activation(Activation::Tanh)), &[x])
    }

    fn compiled(mut self, state: Operand) -> Result<StepKernels, String> {
        self.0.outputs = vec![state];
        self.0.new_states = vec![state];
        StepKernels::new(&self.0)
    }
}

/// The number of times that threads wait for each other in a row, and the blocks of a row.
fn waits(step: &StepKernels) -> (usize, usize) {
    let waits = step.source.matches("__syncthreads").count();
    (waits, step.grids[0].unwrap().split)
}

#[test]
fn threads_of_gates_share_nothing() {
    let _sim = cudasim::install().unwrap();
    for (units, split) in [(1, 1), (4, 1), (256, 1), (600, 3), (4000, 8)] {
        let (mut step, c) = Step::new(&[2, units]);
        let z = step.input(&[2, 4 * units]);
        let scaled = step.op(Op::Affine { mul: 2.0, add: 1.0 }, &[z]);
        let gates = LstmGates {
            recurrent_activation: Activation::Sigmoid,
            forget_bias: 1.0,
            activation: Activation::Tanh,
        };
        let new = step.op(Op::Fused(Fused::LstmStep(gates)), &[scaled, c]);
        let compiled = step.compiled(new).unwrap();
        assert_eq!(waits(&compiled), (0, split), "{units}: {}", compiled.source);
        assert!(!compiled.source.contains("__shared__"));
        kernels::compile("step.cu", &compiled.source, "sm_90a", false).unwrap();
    }
}

#[test]
fn sums_that_are_independent_wait_once() {
    // One warp needs no meeting.
    for (units, meetings) in [(20, 0), (100, 1)] {
        let (mut step, h) = Step::new(&[2, units]);
        let x = step.input(&[2, units]);
        let mut row = |x: Operand, kind| {
            let sum = step.op(Op::Reduce { kind, axis: 1 }, &[x]);
            let layout = sum.layout.reshape(Shape::new(&[2, 1]).unwrap()).unwrap();
            Operand { layout, ..sum }
        };
        let (a, b) = (row(h, Reduce::Sum), row(x, Reduce::Max));
        let both = step.op(Op::Binary(Binary::Add), &[a, b]);
        let new = step.op(Op::Binary(Binary::Mul), &[h, both]);
        let compiled = step.compiled(new).unwrap();
        // One more at the end of a row.
        assert_eq!(waits(&compiled), (meetings + 1, 1), "{}", compiled.source);
    }
}

#[test]
fn values_of_other_threads_are_shared() {
    let turned = |rows: usize, columns: usize| {
        let (mut step, h) = Step::new(&[2, rows, columns]);
        let y = step.tanh(h);
        let layout = y.layout.permute(&[0, 2, 1]).unwrap();
        let y = step.op(Op::Copy, &[Operand { layout, ..y }]);
        let shape = Shape::new(&[2, rows, columns]).unwrap();
        let layout = Layout::contiguous(shape);
        let new = step.tanh(Operand { layout, ..y });
        step.compiled(new)
    };
    let compiled = turned(2, 3).unwrap();
    assert_eq!(waits(&compiled), (2, 1), "{}", compiled.source);
    assert!(compiled.source.contains("__shared__ T r"));
    let problem = turned(200, 100).unwrap_err();
    assert_eq!(problem, "the threads of a row exchange 80000 bytes");
}

/// The rows and columns of the matrices of a step's products.
fn products(step: &StepKernels) -> Vec<[usize; 2]> {
    let products = step.launches.iter().filter_map(|launch| match launch {
        Launch::Product(product, matrix) => Some((product, &step.matrices[*matrix])),
        Launch::Kernel(_) => None,
    });
    let shapes = products.map(|(product, matrix)| {
        assert_eq!(matrix.shape, [product.k, product.n]);
        matrix.shape
    });
    shapes.collect()
}

#[test]
fn products_with_one_operand_or_one_result_are_one() {
    let matmul = Op::MatMul {
        alpha: 1.0,
        precision: Precision::Exact,
    };
    let add = Op::Binary(Binary::Add);
    let (mut step, h) = Step::new(&[2, 3]);
    let gates = [4, 5].map(|columns| {
        let w = step.captured(&[3, columns]);
        let z = step.op(matmul.clone(), &[h, w]);
        step.tanh(z)
    });
    let parts = gates.map(|gate| {
        let w = step.captured(&[gate.layout.shape().last(), 3]);
        step.op(matmul.clone(), &[gate, w])
    });
    let sum = step.op(add.clone(), &parts);
    let new = step.tanh(sum);
    let compiled = step.compiled(new).unwrap();
    assert_eq!(products(&compiled), [[3, 9], [9, 3]], "{compiled}");
    assert_eq!(compiled.launches.len(), 4, "{compiled}");

    // The state is an operand of a first product, and is copied for a later one.
    let (mut step, h) = Step::new(&[2, 3]);
    let [first, of_state, of_gate] = [(); 3].map(|()| step.captured(&[3, 3]));
    let z = step.op(matmul.clone(), &[h, first]);
    let gate = step.tanh(z);
    let parts = [(h, of_state), (gate, of_gate)].map(|(a, w)| step.op(matmul.clone(), &[a, w]));
    let sum = step.op(add, &parts);
    let new = step.tanh(sum);
    let compiled = step.compiled(new).unwrap();
    assert_eq!(products(&compiled), [[3, 3], [6, 3]], "{compiled}");
    assert_eq!(compiled.launches.len(), 4, "{compiled}");
}
