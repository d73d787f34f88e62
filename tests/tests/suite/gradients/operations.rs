//! The gradient of each operation compared with finite differences.

use backend_api::{
    Activation, Backend, Binary, Compare, DType, Fused, LstmGates, Op, Precision, Reduce, Result,
    Tensor, Unfused,
};
use backend_cpu::Cpu;
use recurrent_tests::finite_differences::check;
use rnn_core::{Initializer, Module, Param, Visitor};
use rnn_train::{Autodiff, Differentiable};

/// The operands of an operation as parameters.
#[derive(Clone, Debug)]
struct Operands<B: Backend>(Vec<Param<B>>);

impl<B: Backend> Module for Operands<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        for (i, param) in self.0.iter_mut().enumerate() {
            v.param(&format!("operand_{i}"), param);
        }
    }
}

/// Checks `f` on operands of the given shapes, drawn from `low..high`.
pub fn check_op<B: Differentiable>(
    device: &B,
    name: &str,
    shapes: &[&[usize]],
    (low, high): (f64, f64),
    f: impl Fn(&[Tensor<B>]) -> Result<Tensor<B>>,
) {
    let uniform = Initializer::Uniform { low, high };
    let operands = shapes
        .iter()
        .zip(1..)
        .map(|(dims, key)| {
            // Fixed initial values: a parameter's default values depend on the number of parameters
            // created so far.
            let mut param = Param::new(device, uniform, dims, DType::F64).unwrap();
            let value = uniform.tensor(device, key, param.meta()).unwrap();
            param.set(value).unwrap();
            param
        })
        .collect();
    let mut operands = Operands(operands);
    // The same numbers regardless of the tests that run in parallel.
    operands.initialize(11).unwrap();
    let loss = |m: &Operands<B>| {
        let operands: Vec<_> = m.0.iter().map(|p| p.value().clone()).collect();
        let y = f(&operands)?;
        // A different weight for each element.
        let weights: Vec<f64> = (0..y.shape().count())
            .map(|k| 0.5 + (k as f64).sin())
            .collect();
        let weights = Tensor::from_slice(y.device(), &weights, &y.dims())?;
        y.mul(&weights)?.sum_all()
    };
    if let Err(error) = check(&operands, loss, 1e-7) {
        panic!("{name}: {error}");
    }
}

fn ints<B: Backend>(device: &B, values: &[i64], dims: &[usize]) -> Result<Tensor<B>> {
    Tensor::from_slice(device, values, dims)
}

fn all<B: Differentiable>(device: &B) {
    let both = (-2.0, 2.0);
    let positive = (0.3, 2.5);
    let op = |op: Op, ins: &[&Tensor<B>]| Tensor::call(ins[0].device(), &op, ins);

    check_op(device, "copy of a view", &[&[3, 4]], both, |x| {
        x[0].transpose(0, 1)?.copy()
    });
    check_op(device, "neg", &[&[5]], both, |x| x[0].neg());
    check_op(device, "abs", &[&[5]], both, |x| x[0].abs());
    check_op(device, "square", &[&[5]], both, |x| x[0].square());
    check_op(device, "sqrt", &[&[5]], positive, |x| x[0].sqrt());
    check_op(device, "recip", &[&[5]], positive, |x| x[0].recip());
    check_op(device, "exp", &[&[5]], both, |x| x[0].exp());
    check_op(device, "log", &[&[5]], positive, |x| x[0].log());
    check_op(device, "sin", &[&[5]], both, |x| x[0].sin());
    check_op(device, "cos", &[&[5]], both, |x| x[0].cos());
    for f in Activation::ALL {
        let range = match f {
            // The interval covers all three pieces.
            Activation::HardSigmoid | Activation::Relu6 => (-4.0, 8.0),
            _ => both,
        };
        check_op(device, f.name(), &[&[3, 7]], range, |x| x[0].activate(f));
    }
    check_op(device, "affine", &[&[5]], both, |x| x[0].affine(-1.5, 0.25));
    check_op(device, "clamp", &[&[9]], both, |x| x[0].clamp(-0.5, 1.0));
    check_op(device, "cast to its own type", &[&[4]], both, |x| {
        x[0].cast(DType::F64)
    });
    for (name, f) in [
        ("add", Binary::Add),
        ("sub", Binary::Sub),
        ("mul", Binary::Mul),
        ("maximum", Binary::Max),
        ("minimum", Binary::Min),
    ] {
        for shapes in [
            [&[3, 4][..], &[3, 4]],
            [&[2, 3, 4], &[4]],
            [&[3, 1], &[2, 1, 5]],
            [&[], &[7]],
        ] {
            // One number compared with seven may never be selected, and then has no gradient.
            if shapes[0].is_empty() && matches!(f, Binary::Max | Binary::Min) {
                continue;
            }
            check_op(device, name, &shapes, both, |x| {
                op(Op::Binary(f), &[&x[0], &x[1]])
            });
        }
    }
    check_op(device, "div", &[&[3, 4], &[4]], positive, |x| {
        x[0].div(&x[1])
    });
    check_op(device, "div of a constant", &[&[4]], positive, |x| {
        x[0].affine(0.0, 2.0)?.detach().div(&x[0])
    });
    check_op(device, "floor_mod", &[&[6], &[6]], (0.4, 1.9), |x| {
        x[0].affine(3.0, 0.0)?.floor_mod(&x[1])
    });
    check_op(device, "select", &[&[3, 4], &[4]], both, |x| {
        let positive = x[0].detach().compare(
            Compare::Gt,
            &Tensor::scalar(x[0].device(), 0.0, DType::F64)?,
        )?;
        positive.select_from(&x[0], &x[1])
    });
    for axis in 0..3 {
        check_op(device, "sum", &[&[2, 3, 4]], both, |x| x[0].sum(axis));
        check_op(device, "max", &[&[2, 3, 4]], both, |x| {
            let kind = Reduce::Max;
            op(Op::Reduce { kind, axis }, &[&x[0]])
        });
    }
    for (name, shapes) in [
        ("matmul", [&[3, 4][..], &[4, 5]]),
        ("matmul of one kernel", [&[2, 3, 4], &[4, 5]]),
        ("matmul of batches", [&[2, 3, 4], &[2, 4, 5]]),
        ("matmul of a row", [&[1, 4], &[4, 5]]),
    ] {
        check_op(device, name, &shapes, both, |x| x[0].matmul(&x[1]));
    }
    check_op(
        device,
        "scaled matmul with addend",
        &[&[3, 4], &[4, 5], &[3, 5]],
        both,
        |x| {
            let matmul = Op::MatMul {
                alpha: 0.7,
                precision: Precision::Exact,
            };
            op(matmul, &[&x[0], &x[1], &x[2]])
        },
    );
    check_op(device, "matmul of views", &[&[4, 3], &[5, 4]], both, |x| {
        x[0].transpose(0, 1)?.matmul(&x[1].transpose(0, 1)?)
    });
    check_op(device, "matmul with itself", &[&[3, 3]], both, |x| {
        x[0].matmul(&x[0])
    });
    check_op(device, "concat", &[&[2, 3], &[2, 1]], both, |x| {
        Tensor::concat(&[&x[0], &x[1], &x[0]], 1)
    });
    check_op(device, "slices of one tensor", &[&[4, 3]], both, |x| {
        x[0].slice(0, 0..3)?
            .mul(&x[0].slice(0, 1..4)?)?
            .add(&x[0].select(1, 2)?.slice(0, 1..4)?.unsqueeze(1)?)
    });
    check_op(device, "reverse", &[&[3, 4, 2]], both, |x| {
        x[0].reverse(&ints(x[0].device(), &[4, 0, 3], &[3])?, 1, 0)
    });
    check_op(device, "gather", &[&[4, 3]], both, |x| {
        // Row 2 twice; every row at least once.
        x[0].gather(&ints(x[0].device(), &[2, 0, 3, 2, 1, 2], &[2, 3])?)
    });
    check_op(device, "gathers of one table", &[&[4, 3]], both, |x| {
        let wide = x[0].gather(&ints(x[0].device(), &[2, 0], &[2])?)?;
        let more = Tensor::from_slice(x[0].device(), &[1i32, 2, 3], &[3])?;
        Tensor::concat(&[&wide, &x[0].gather(&more)?], 0)
    });
    check_op(device, "a table tied to a product", &[&[4, 3]], both, |x| {
        let rows = x[0].gather(&ints(x[0].device(), &[2, 0, 2], &[3])?)?;
        rows.matmul(&x[0].transpose(0, 1)?)
    });
    check_op(device, "gather of a view", &[&[5, 3]], both, |x| {
        let ids = ints(x[0].device(), &[2, 0, 2], &[3])?;
        let rows = x[0].slice(0, 1..5)?.gather(&ids)?;
        let columns = x[0].transpose(0, 1)?.gather(&ids)?;
        rows.matmul(&columns)
    });
    check_op(device, "scatter_add", &[&[3, 2]], both, |x| {
        let ids = ints(x[0].device(), &[4, 1, 4], &[3])?;
        op(Op::ScatterAdd { rows: 5 }, &[&ids, &x[0]])
    });
    check_op(device, "scatter_update", &[&[4, 2], &[3, 2]], both, |x| {
        // Of the two rows for id 1, the last one counts.
        let ids = ints(x[0].device(), &[1, 3, 1], &[3])?;
        x[0].scatter_update(&ids, &x[1])
    });
    fused(device);
}

fn fused<B: Differentiable>(device: &B) {
    let both = (-2.0, 2.0);
    let several = |f: Fused, ins: &[&Tensor<B>], results: usize| -> Result<Tensor<B>> {
        let outs = Tensor::call_all(ins[0].device(), &Op::Fused(f), ins)?;
        // All results except the saved ones.
        let outs: Vec<_> = outs.iter().take(results).collect();
        Tensor::concat(&outs, 1)
    };
    for activation in Activation::ALL {
        check_op(device, "bias_activation", &[&[2, 3, 4], &[4]], both, |x| {
            x[0].fused(Fused::BiasActivation { activation }, &[&x[1]])
        });
        for recurrent_activation in [Activation::Sigmoid, Activation::Tanh] {
            let gates = LstmGates {
                recurrent_activation,
                forget_bias: 0.6,
                activation,
            };
            check_op(device, "lstm_step", &[&[2, 12], &[2, 3]], both, |x| {
                several(Fused::LstmStep(gates), &[&x[0], &x[1]], 2)
            });
        }
        check_op(device, "gru_gates", &[&[2, 6], &[2, 3]], both, |x| {
            several(Fused::GruGates { activation }, &[&x[0], &x[1]], 2)
        });
        check_op(
            device,
            "gru_output",
            &[&[2, 3], &[2, 3], &[2, 3]],
            both,
            |x| several(Fused::GruOutput { activation }, &[&x[0], &x[1], &x[2]], 1),
        );
    }
    check_op(
        device,
        "masked_update",
        &[&[3, 2, 2], &[3, 2, 2]],
        both,
        |x| {
            let lengths = ints(x[0].device(), &[2, 0, 1], &[3])?;
            lengths.fused(Fused::MaskedUpdate { time: 1 }, &[&x[0], &x[1]])
        },
    );
    check_op(device, "softmax_cross_entropy", &[&[2, 3, 5]], both, |x| {
        let labels = ints(x[0].device(), &[0, 4, 2, 2, 1, 3], &[2, 3])?;
        x[0].fused(Fused::SoftmaxCrossEntropy, &[&labels])
    });
    check_op(device, "squared_norm", &[&[2, 3], &[4]], both, |x| {
        x[0].fused(Fused::SquaredNorm, &[&x[1]])
    });
    // These have no gradient rule; the operations of their default bodies are recorded.
    check_op(device, "sgd", &[&[4], &[4]], both, |x| {
        x[0].fused(Fused::Sgd { lr: 0.3 }, &[&x[1]])
    });
}

#[test]
fn cpu_kernels() {
    all(&Autodiff::new(Cpu::new()));
}

#[test]
fn default_bodies() {
    all(&Autodiff::new(Unfused(Cpu::new())));
}

#[test]
fn composed_gradients() {
    all(&Unfused(Autodiff::new(Cpu::new())));
}

/// The slopes at the points where pieces join, and for very small numbers, follow TensorFlow.
#[test]
fn gradients_at_the_kinks_of_piecewise_functions() {
    let device = Autodiff::new(Cpu::new());
    let slope = |f: Activation, x: f64| {
        let x = device.leaf(&Tensor::from_slice(&device, &[x], &[1])?)?;
        let grads = device.backward(&x.activate(f)?.sum_all()?, &[&x])?;
        grads[0].as_ref().unwrap().to_vec::<f64>()
    };
    for (f, x, expected) in [
        (Activation::Relu, 0.0, 0.0),
        (Activation::Elu, 0.0, 1.0),
        (Activation::Selu, 0.0, Activation::SELU_SCALE),
        (Activation::Relu6, 0.0, 0.0),
        (Activation::Relu6, 6.0, 0.0),
        (Activation::HardSigmoid, 3.0, 0.0),
    ] {
        assert_eq!(slope(f, x).unwrap(), [expected], "{f:?} at {x}");
    }
    let small = slope(Activation::Softplus, -40.0).unwrap()[0];
    let exact = 1.0 / (1.0 + 40f64.exp());
    assert!((small / exact - 1.0).abs() < 1e-12, "{small:e}, {exact:e}");
}

#[test]
fn backward_through_100_000_steps_does_not_recurse() {
    let run = || -> Result<()> {
        let device = Autodiff::new(Cpu::builder().threads(1).build()?);
        let x = device.leaf(&Tensor::from_slice(&device, &[1.0f64, 2.0], &[2])?)?;
        let mut y = x.clone();
        for _ in 0..100_000 {
            y = y.affine(1.0, 1e-6)?;
        }
        let unused = y.clone().affine(2.0, 0.0)?;
        let grads = device.backward(&y.sum_all()?, &[&x])?;
        assert_eq!(grads[0].as_ref().unwrap().to_vec::<f64>()?, [1.0, 1.0]);
        drop(unused);
        // A graph that is dropped without a backward pass.
        let mut z = x.clone();
        for _ in 0..100_000 {
            z = z.affine(1.0, 0.0)?;
        }
        drop(z);
        Ok(())
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    thread.spawn(run).unwrap().join().unwrap().unwrap();
}

#[test]
fn misuse_is_an_error() {
    let device = Autodiff::new(Cpu::new());
    let plain = Tensor::from_slice(&device, &[1.0f64, 2.0], &[2]).unwrap();
    let x = device.leaf(&plain).unwrap();
    let message = |r: Result<Vec<Option<Tensor<_>>>>| r.unwrap_err().to_string();
    assert!(
        message(device.backward(&plain.sum_all().unwrap(), &[&x]))
            .contains("does not depend on a tracked tensor")
    );
    assert!(message(device.backward(&x, &[&x])).contains("[2]"));
    let y = x.square().unwrap().sum_all().unwrap();
    assert!(message(device.backward(&y, &[&plain])).contains("leaf 0"));
    assert!(device.backward(&y, &[&x]).is_ok());
    assert!(message(device.backward(&y, &[&x])).contains("has freed the record"));
    // A leaf that the loss does not depend on has no gradient.
    let other = device.leaf(&plain).unwrap();
    let y = x.square().unwrap().sum_all().unwrap();
    assert!(device.backward(&y, &[&other]).unwrap()[0].is_none());
}
