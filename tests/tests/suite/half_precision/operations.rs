//! 16-bit floats on every device: every operation returns the rounded result of the `f32`
//! operation.

use backend_api::{
    Activation, AdamStep, Backend, Binary, Compare, DType, Dest, Distribution, Fused, Layout,
    LstmGates, Meta, Op, Precision, Reduce, Shape, Tensor, Unary, View,
};
use recurrent_tests::devices::{TestBackend, TestDevice, device};
use recurrent_tests::halves::{HALVES, bits, on_devices, rounded};
use rnn_core::Initializer;

type T = Tensor<TestDevice>;

fn tensor<E: backend_api::Element>(device: &TestDevice, data: &[E], dims: &[usize]) -> T {
    Tensor::from_slice(device, data, dims).unwrap()
}

/// Operations with their operands: floats, which are rounded to 16 bits, and other types.
struct Cases<'d> {
    device: &'d TestDevice,
    key: u64,
    all: Vec<(Op, Vec<T>)>,
}

impl Cases<'_> {
    fn floats(&mut self, dims: &[usize]) -> T {
        self.key += 1;
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        let normal = Initializer::Normal {
            mean: 0.1,
            std: 1.0,
        };
        normal.tensor(self.device, self.key, meta).unwrap()
    }

    fn ints(&self, data: &[i32]) -> T {
        tensor(self.device, data, &[data.len()])
    }

    fn push(&mut self, op: Op, ins: Vec<T>) {
        self.all.push((op, ins));
    }

    /// With operands of these shapes.
    fn of(&mut self, op: Op, shapes: &[&[usize]]) {
        let ins = shapes.iter().map(|dims| self.floats(dims)).collect();
        self.push(op, ins);
    }

    fn fused(&mut self, fused: Fused, shapes: &[&[usize]]) {
        self.of(Op::Fused(fused), shapes);
    }
}

/// Every operation that reads floats.
fn cases(device: &TestDevice) -> Vec<(Op, Vec<T>)> {
    let mut cases = Cases {
        device,
        key: 0,
        all: Vec::new(),
    };
    let all = &mut cases;
    let unary = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Square,
        Unary::Recip,
        Unary::Exp,
        Unary::Floor,
        Unary::Sin,
        Unary::Cos,
    ];
    let activated = Activation::ALL.map(Unary::Activation);
    for f in unary.into_iter().chain(activated) {
        all.of(Op::Unary(f), &[&[3, 70]]);
    }
    for f in [Unary::Sqrt, Unary::Log] {
        let x = all.floats(&[50]).square().unwrap();
        all.push(Op::Unary(f), vec![x]);
    }
    all.of(Op::Copy, &[&[3, 5]]);
    all.of(
        Op::Affine {
            mul: 0.1,
            add: 1.0 / 3.0,
        },
        &[&[40]],
    );
    all.of(
        Op::Clamp {
            min: -0.3,
            max: 0.7,
        },
        &[&[40]],
    );
    for f in [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Max,
        Binary::Min,
        Binary::FloorMod,
    ] {
        all.of(Op::Binary(f), &[&[4, 1, 3], &[5, 3]]);
    }
    for f in [
        Compare::Eq,
        Compare::Ne,
        Compare::Lt,
        Compare::Le,
        Compare::Gt,
        Compare::Ge,
    ] {
        all.of(Op::Compare(f), &[&[6, 3], &[3]]);
    }
    let condition = all.floats(&[4, 3]).cast(DType::I32).unwrap();
    let (a, b) = (all.floats(&[4, 3]), all.floats(&[3]));
    all.push(Op::Select, vec![condition.cast(DType::Bool).unwrap(), a, b]);
    for axis in 0..3 {
        for kind in [Reduce::Sum, Reduce::Max] {
            all.of(Op::Reduce { kind, axis }, &[&[5, 40, 3]]);
        }
        all.of(Op::ArgMax { axis }, &[&[5, 40, 3]]);
    }
    let kind = Reduce::Sum;
    all.of(Op::Reduce { kind, axis: 0 }, &[&[6400]]);
    all.of(Op::Reduce { kind, axis: 0 }, &[&[6400, 2]]);
    all.of(Op::Concat { axis: 1 }, &[&[2, 3], &[2, 1], &[2, 4]]);
    let (x, lengths) = (all.floats(&[3, 4, 2]), all.ints(&[2, 4, 0]));
    all.push(Op::Reverse { time: 1, batch: 0 }, vec![x, lengths]);
    let (table, ids) = (all.floats(&[5, 3]), all.ints(&[4, 0, 4]));
    all.push(Op::Gather, vec![table.clone(), ids.clone()]);
    let rows = all.floats(&[3, 3]);
    all.push(Op::ScatterAdd { rows: 5 }, vec![ids.clone(), rows.clone()]);
    all.push(Op::Fused(Fused::ScatterUpdate), vec![table, ids, rows]);

    let activation = Activation::Tanh;
    let gates = LstmGates {
        recurrent_activation: Activation::Sigmoid,
        forget_bias: 1.0,
        activation,
    };
    all.fused(Fused::BiasActivation { activation }, &[&[4, 5], &[5]]);
    for activation in Activation::ALL {
        all.fused(Fused::ActivationGrad { activation }, &[&[4, 5], &[4, 5]]);
    }
    let (one, two, four): ([_; 2], [_; 2], [_; 2]) = ([3, 5], [3, 10], [3, 20]);
    all.fused(Fused::LstmStep(gates), &[&four, &one]);
    all.fused(Fused::LstmStepGrad(gates), &[&four, &one, &one, &one, &one]);
    all.fused(
        Fused::GruGates {
            activation: Activation::Sigmoid,
        },
        &[&two, &one],
    );
    all.fused(
        Fused::GruGatesGrad {
            activation: Activation::Sigmoid,
        },
        &[&one, &one, &one, &one, &one],
    );
    all.fused(Fused::GruOutput { activation }, &[&one, &one, &one]);
    all.fused(
        Fused::GruOutputGrad { activation },
        &[&one, &one, &one, &one],
    );
    let (new, old) = (all.floats(&[3, 5]), all.floats(&[3, 5]));
    let lengths = all.ints(&[1, 3, 2]);
    all.push(
        Op::Fused(Fused::MaskedUpdate { time: 2 }),
        vec![lengths, new, old],
    );
    let (logits, labels) = (all.floats(&[3, 7]), all.ints(&[6, 0, 2]));
    let dloss = all.floats(&[3]);
    all.push(
        Op::Fused(Fused::SoftmaxCrossEntropy),
        vec![logits.clone(), labels.clone()],
    );
    all.push(
        Op::Fused(Fused::SoftmaxCrossEntropyGrad),
        vec![logits, labels, dloss],
    );
    all.fused(Fused::SquaredNorm, &[&[7, 9], &[5]]);
    all.fused(Fused::SquaredNorm, &[&[6400]]);
    let (ids, rows) = (all.ints(&[1; 6400]), all.floats(&[6400]));
    all.push(Op::ScatterAdd { rows: 2 }, vec![ids, rows]);
    all.fused(Fused::Sgd { lr: 0.01 }, &[&[30], &[30]]);
    let step = AdamStep {
        lr: 0.001,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        step: 3,
        keep: 0.875,
    };
    let mut adam: Vec<T> = (0..4).map(|_| all.floats(&[30])).collect();
    adam[2] = adam[2].square().unwrap();
    all.push(Op::Fused(Fused::Adam(step)), adam);
    cases.all
}

/// The operands times a factor in 16 bits, and the same numbers in `f32`.
fn both(ins: &[T], factor: f64, dtype: DType) -> [Vec<T>; 2] {
    let cast = |t: &T, to| match t.dtype() {
        DType::F32 => t.affine(factor, 0.0).unwrap().cast(to).unwrap(),
        _ => t.clone(),
    };
    let narrow: Vec<T> = ins.iter().map(|t| cast(t, dtype)).collect();
    let wide = ins.iter().map(|t| match t.dtype() {
        DType::F32 => cast(t, dtype).cast(DType::F32).unwrap(),
        _ => t.clone(),
    });
    let wide = wide.collect();
    [narrow, wide]
}

fn call(device: &TestDevice, op: &Op, ins: &[T]) -> Vec<T> {
    let ins: Vec<&T> = ins.iter().collect();
    match T::call_all(device, op, &ins) {
        Ok(outs) => outs.into_vec(),
        Err(error) => panic!("{}: {error}", op.name()),
    }
}

#[test]
fn operations_round_the_f32_result() {
    on_devices(|name, device| {
        // Squares of the large numbers exceed `f16`, those of the small ones underflow.
        let factors: &[f64] = match name {
            "cpu" => &[1.0, 300.0, 1e-4],
            _ => &[1.0],
        };
        let cases = cases(device);
        let factors = factors
            .iter()
            .flat_map(|factor| cases.iter().map(move |c| (factor, c)));
        for (factor, (op, ins)) in factors {
            for dtype in HALVES {
                let [narrow, wide] = both(ins, *factor, dtype);
                let found = call(device, op, &narrow);
                let expected = call(device, op, &wide);
                assert_eq!(found.len(), expected.len());
                for (k, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let label = format!("{name} {dtype} {op:?} of {factor} result {k}");
                    let expected = match expected.dtype() {
                        DType::F32 => expected.cast(dtype).unwrap(),
                        _ => expected.clone(),
                    };
                    assert_eq!(found.meta(), expected.meta(), "{label}");
                    let bytes = |t: &T| t.to_bytes().unwrap();
                    assert_eq!(bytes(found), bytes(&expected), "{label}");
                }
            }
        }
    });
}

/// The order of summation may differ, so a result can round to a neighbour.
#[test]
fn matmuls_round_the_f32_sum() {
    on_devices(|name, device| {
        let mut make = Cases {
            device,
            key: 50,
            all: Vec::new(),
        };
        let precision = Precision::Exact;
        let product = |alpha| Op::MatMul { alpha, precision };
        make.of(product(1.0), &[&[7, 33], &[33, 5]]);
        make.of(product(0.3), &[&[2, 3, 4, 33], &[33, 5]]);
        make.of(product(-2.0), &[&[2, 4, 9], &[2, 9, 5], &[2, 4, 5]]);
        make.of(product(1.0), &[&[4, 0], &[0, 5], &[4, 5]]);
        let (a, b) = (make.floats(&[33, 7]), make.floats(&[5, 33]));
        let views = vec![a.transpose(0, 1).unwrap(), b.transpose(0, 1).unwrap()];
        make.push(product(1.0), views);
        for (op, ins) in make.all {
            for dtype in HALVES {
                let [narrow, wide] = both(&ins, 1.0, dtype);
                let found = call(device, &op, &narrow).remove(0);
                let expected = call(device, &op, &wide).remove(0).to_f64_vec().unwrap();
                let step: f64 = if dtype == DType::F16 { 11.0 } else { 8.0 };
                for (found, expected) in found.to_f64_vec().unwrap().into_iter().zip(expected) {
                    let bound = expected.abs() * (-step).exp2() * 1.001 + 1e-5;
                    let label = format!("{name} {dtype} {op:?}");
                    assert!(
                        (found - expected).abs() <= bound,
                        "{label}: {found}, not {expected}"
                    );
                }
            }
        }
    });
}

#[test]
fn gpus_multiply_16_bit_floats_directly() {
    let device = device("sim").unwrap();
    let TestBackend::Cuda(cuda) = device.inner() else {
        panic!("a CUDA device is named sim");
    };
    for dtype in HALVES {
        let meta = Meta::new(Shape::new(&[8, 8]).unwrap(), dtype);
        let x = T::full(&device, 1.5, meta).unwrap();
        let before = cuda.launches();
        assert_eq!(bits(&x.matmul(&x).unwrap()), [rounded(dtype, 18.0); 64]);
        assert_eq!(cuda.launches() - before, 1, "{dtype}");
        let _ = x.add(&x).unwrap();
        assert_eq!(cuda.launches() - before, 5, "{dtype}: casts around a sum");
    }
}

#[test]
fn random_numbers_and_fills_in_16_bits() {
    on_devices(|name, device| {
        for dtype in HALVES {
            let shape = Shape::new(&[300]).unwrap();
            let random = |dtype| {
                let normal = Distribution::Normal {
                    mean: 0.5,
                    std: 2.0,
                };
                T::random(device, 9, normal, Meta::new(shape, dtype)).unwrap()
            };
            let expected = random(DType::F32).cast(dtype).unwrap();
            assert_eq!(bits(&random(dtype)), bits(&expected), "{name} {dtype}");
            // The upper end is excluded, though it is the number nearest to many of these.
            for high in [1.0, -0.3, 1000.7] {
                let low = high - 0.01;
                let uniform = Distribution::Uniform { low, high };
                let x = T::random(device, 9, uniform, Meta::new(shape, dtype)).unwrap();
                let largest = x
                    .to_f64_vec()
                    .unwrap()
                    .into_iter()
                    .fold(low - 9.0, f64::max);
                assert!(
                    largest < high,
                    "{name} {dtype}: {largest} is not below {high}"
                );
            }
            let filled = T::full(device, 0.1, Meta::new(shape, dtype)).unwrap();
            assert_eq!(bits(&filled), [rounded(dtype, 0.1); 300], "{name} {dtype}");
        }
        // 20000 fits into `f16`, the sum does not.
        let large = T::full(
            device,
            2e4,
            Meta::new(Shape::new(&[100]).unwrap(), DType::F16),
        );
        let large = large.unwrap();
        assert_eq!(large.mean_all().unwrap().item().unwrap(), 20000.0);
        assert_eq!(large.sum_all().unwrap().item().unwrap(), f64::INFINITY);
    });
}

#[test]
fn results_are_written_into_destinations() {
    on_devices(|name, device| {
        for dtype in HALVES {
            let x: Vec<f32> = (0..6).map(|i| 0.1 + i as f32).collect();
            let x = tensor(device, &x, &[2, 3]).cast(dtype).unwrap();
            let meta = Meta::new(Shape::new(&[2, 4]).unwrap(), dtype);
            let layout = Layout::contiguous(meta.shape).slice(1, 1..4).unwrap();
            let whole = |buffer, layout| T::from_parts(device, buffer, layout, dtype).unwrap();
            let view = |t: &T| bits(&whole(t.buffer().unwrap().clone(), layout));
            let ones = || T::full(device, 1.0, meta).unwrap();

            let into = Dest::Into(Box::new((ones().into_buffer().unwrap(), layout)));
            let op = Op::Binary(Binary::Mul);
            let outs = device.run(
                &op,
                &[x.view().unwrap(), x.view().unwrap()],
                [into].into_iter().collect(),
            );
            let outs = outs.unwrap().swap_remove(0);
            let outs = whole(outs, Layout::contiguous(meta.shape));
            assert_eq!(view(&outs), bits(&x.mul(&x).unwrap()), "{name} {dtype}");
            let one = rounded(dtype, 1.0);
            assert_eq!([bits(&outs)[0], bits(&outs)[4]], [one; 2], "{name} {dtype}");

            let shared = ones();
            let dst = shared.buffer().unwrap().clone();
            let sum = device.accumulate(dst, &layout, x.view().unwrap()).unwrap();
            let sum = whole(sum, Layout::contiguous(meta.shape));
            let expected = x.affine(1.0, 1.0).unwrap();
            assert_eq!(view(&sum), bits(&expected), "{name} {dtype}");
            assert_eq!([bits(&sum)[0], bits(&sum)[4]], [one; 2], "{name} {dtype}");
            assert_eq!(bits(&shared), [one; 8], "{name} {dtype}");

            let swapped = device.swap_out(x.buffer().unwrap().clone()).unwrap();
            let back = device.swap_in(swapped).unwrap();
            assert_eq!(bits(&whole(back, *x.layout())), bits(&x), "{name} {dtype}");
            let mut bytes = [0; 4];
            let column = View {
                layout: &x.layout().select(1, 2).unwrap(),
                ..x.view().unwrap()
            };
            device.download(column, &mut bytes).unwrap();
            let words = bytes.as_chunks::<2>().0.iter();
            let words: Vec<u16> = words.map(|w| u16::from_ne_bytes(*w)).collect();
            assert_eq!(words, [bits(&x)[2], bits(&x)[5]], "{name} {dtype}");
        }
    });
}
