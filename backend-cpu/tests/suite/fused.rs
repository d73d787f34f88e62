//! Fused operations against their default bodies, over random sizes, strides and types.

use crate::common::{Rng, call, check_into, close, default_body, random, random_ids};
use backend_api::{Activation, AdamStep, Backend, DType, Fused, LstmGates, Op, Tensor, Unfused};
use backend_cpu::Cpu;

fn against_default(cpu: &Cpu, rng: &mut Rng, fused: Fused, ins: &[&Tensor<Cpu>], dtype: DType) {
    let op = Op::Fused(fused);
    let found = call(cpu, &op, ins).unwrap();
    let expected = default_body(cpu, &op, ins);
    assert_eq!(found.len(), expected.len());
    let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-13 };
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.meta(), expected.meta());
        let what = format!("{} result {i}", op.name());
        let found = found.to_f64_vec().unwrap();
        close(&what, &found, &expected.to_f64_vec().unwrap(), tolerance);
    }
    check_into(cpu, rng, &op, ins);
}

/// Runs `test` for some seeds, thread counts and types, with numbers of rows and units.
fn cases(test: impl Fn(&Cpu, &mut Rng, [usize; 2], DType)) {
    let sizes = [0, 1, 2, 5, 16, 33, 150, 300];
    for threads in [1, 3] {
        let cpu = Cpu::builder().threads(threads).build().unwrap();
        for seed in 0..25 {
            let mut rng = Rng::new(seed + 100);
            let size = [sizes[rng.below(7)], sizes[rng.below(8)]];
            for dtype in [DType::F32, DType::F64] {
                test(&cpu, &mut rng, size, dtype);
            }
        }
    }
}

#[test]
fn activations() {
    cases(|cpu, rng, [rows, n], dtype| {
        for activation in Activation::ALL {
            let mut new = |dims: &[usize]| random(cpu, rng, dims, dtype).0;
            let (x, dy) = (new(&[2, rows, n]), new(&[2, rows, n]));
            let bias = new(&[n]);
            let fused = Fused::BiasActivation { activation };
            against_default(cpu, rng, fused, &[&x, &bias], dtype);
            against_default(
                cpu,
                rng,
                Fused::ActivationGrad { activation },
                &[&x, &dy],
                dtype,
            );
        }
    });
}

#[test]
fn lstm_steps() {
    cases(|cpu, rng, [rows, n], dtype| {
        let activation = Activation::ALL[rng.below(Activation::ALL.len())];
        let gates = LstmGates {
            recurrent_activation: Activation::Sigmoid,
            forget_bias: 1.0,
            activation,
        };
        let mut new = |width: usize| random(cpu, rng, &[rows, width], dtype).0;
        let (z, c) = (new(4 * n), new(n));
        let (c_new, dc, dh) = (new(n), new(n), new(n));
        against_default(cpu, rng, Fused::LstmStep(gates), &[&z, &c], dtype);
        let ins = [&z, &c, &c_new, &dc, &dh];
        against_default(cpu, rng, Fused::LstmStepGrad(gates), &ins, dtype);
    });
}

#[test]
fn gru_steps() {
    cases(|cpu, rng, [rows, n], dtype| {
        let activation = Activation::ALL[rng.below(Activation::ALL.len())];
        let mut new = |width: usize| random(cpu, rng, &[rows, width], dtype).0;
        let z = new(2 * n);
        let [a, b, c, d, e] = [(); 5].map(|()| new(n));
        against_default(
            cpu,
            rng,
            Fused::GruGates {
                activation: Activation::Sigmoid,
            },
            &[&z, &a],
            dtype,
        );
        against_default(
            cpu,
            rng,
            Fused::GruGatesGrad {
                activation: Activation::Sigmoid,
            },
            &[&a, &b, &c, &d, &e],
            dtype,
        );
        against_default(
            cpu,
            rng,
            Fused::GruOutput { activation },
            &[&a, &b, &c],
            dtype,
        );
        let fused = Fused::GruOutputGrad { activation };
        against_default(cpu, rng, fused, &[&a, &b, &c, &d], dtype);
    });
}

#[test]
fn masked_updates() {
    cases(|cpu, rng, [rows, n], _| {
        let ints = [DType::I32, DType::I64][rng.below(2)];
        let lengths = random_ids(cpu, rng, &[rows], 5, ints).0;
        for dtype in [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8] {
            let new = random(cpu, rng, &[rows, n, 2], dtype).0;
            let old = random(cpu, rng, &[rows, n, 2], dtype).0;
            let time = rng.below(5);
            let fused = Fused::MaskedUpdate { time };
            against_default(cpu, rng, fused, &[&lengths, &new, &old], dtype);
        }
    });
}

/// Compared bit for bit, as rows are only moved. Ids repeat, and may be empty.
#[test]
fn scatter_updates() {
    cases(|cpu, rng, [count, n], _| {
        let ints = [DType::I32, DType::I64][rng.below(2)];
        let rows = [1, 2, 7, 40][rng.below(4)];
        let ids = random_ids(cpu, rng, &[count, 2], rows, ints).0;
        for dtype in [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8] {
            let table = random(cpu, rng, &[rows, n, 2], dtype).0;
            let new = random(cpu, rng, &[count, 2, n, 2], dtype).0;
            let op = Op::Fused(Fused::ScatterUpdate);
            let ins = [&table, &ids, &new];
            let found = call(cpu, &op, &ins).unwrap();
            let expected = default_body(cpu, &op, &ins);
            assert_eq!(found[0].meta(), table.meta());
            assert_eq!(
                found[0].to_bytes().unwrap(),
                expected[0].to_bytes().unwrap()
            );
            check_into(cpu, rng, &op, &ins);
        }
    });
}

#[test]
fn losses() {
    cases(|cpu, rng, [rows, n], dtype| {
        let classes = n.max(1);
        let ints = [DType::I32, DType::I64][rng.below(2)];
        let logits = random(cpu, rng, &[2, rows, classes], dtype).0;
        let labels = random_ids(cpu, rng, &[2, rows], classes, ints).0;
        let dloss = random(cpu, rng, &[2, rows], dtype).0;
        against_default(
            cpu,
            rng,
            Fused::SoftmaxCrossEntropy,
            &[&logits, &labels],
            dtype,
        );
        let ins = [&logits, &labels, &dloss];
        against_default(cpu, rng, Fused::SoftmaxCrossEntropyGrad, &ins, dtype);
    });
}

#[test]
fn losses_of_large_logits_are_finite() {
    let cpu = Cpu::new();
    let logits = Tensor::from_slice(&cpu, &[1000.0f32, 0.0, -1000.0], &[1, 3]).unwrap();
    let label = Tensor::from_slice(&cpu, &[2i32], &[1]).unwrap();
    let loss = logits.fused(Fused::SoftmaxCrossEntropy, &[&label]).unwrap();
    assert_eq!(loss.to_vec::<f32>().unwrap(), [2000.0]);
}

/// The errors of a loss and a gradient whose second label may be out of range.
fn refusals<B: Backend>(device: &B, label: i64) -> [Option<String>; 2] {
    let logits = Tensor::from_slice(device, &[0.5f32; 6], &[2, 3]).unwrap();
    let labels = Tensor::from_slice(device, &[1, label], &[2]).unwrap();
    let dloss = Tensor::from_slice(device, &[1.0f32; 2], &[2]).unwrap();
    let loss = logits.fused(Fused::SoftmaxCrossEntropy, &[&labels]);
    let grad = logits.fused(Fused::SoftmaxCrossEntropyGrad, &[&labels, &dloss]);
    [loss, grad].map(|result| result.err().map(|e| e.to_string()))
}

#[test]
fn invalid_labels_give_the_same_error_as_the_default_body() {
    for label in [-1, 0, 2, 3, i64::MAX] {
        let found = refusals(&Cpu::new(), label);
        assert_eq!(found, refusals(&Unfused(Cpu::new()), label));
        for message in &found {
            assert_eq!(message.is_some(), !(0..3).contains(&label), "{message:?}");
        }
    }
}

#[test]
fn optimizers() {
    cases(|cpu, rng, [rows, n], dtype| {
        let mut new = |positive: bool| {
            let x = random(cpu, rng, &[rows, n], dtype).0;
            if positive { x.square().unwrap() } else { x }
        };
        let (w, m, v, g) = (new(false), new(false), new(true), new(false));
        against_default(cpu, rng, Fused::Sgd { lr: 0.1 }, &[&w, &g], dtype);
        let step = AdamStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            step: 3,
            keep: 0.875,
        };
        against_default(cpu, rng, Fused::Adam(step), &[&w, &m, &v, &g], dtype);
        against_default(cpu, rng, Fused::SquaredNorm, &[&w, &m, &g], dtype);
    });
}

#[test]
fn the_norm_of_many_elements_is_exact() {
    for threads in [1, 3] {
        let cpu = Cpu::builder().threads(threads).build().unwrap();
        let data: Vec<f32> = (0..200_001).map(|i| (i % 7) as f32 - 3.0).collect();
        let expected: f32 = data.iter().map(|x| x * x).sum();
        let x = Tensor::from_slice(&cpu, &data, &[data.len()]).unwrap();
        let norm = x.fused(Fused::SquaredNorm, &[]).unwrap();
        assert_eq!(norm.to_vec::<f32>().unwrap(), [expected]);
    }
}
