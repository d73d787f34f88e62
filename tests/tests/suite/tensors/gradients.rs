//! Gradients compared with finite differences.

use backend_api::{Backend, DType, Result, Tensor};
use recurrent_tests::devices::device;
use rnn_train::{Differentiable, value_and_grad};

use super::super::gradients::check_op;

fn column<B: Backend>(x: &Tensor<B>) -> Result<Tensor<B>> {
    x.at((.., ..1))
}

fn all<B: Differentiable>(device: &B) {
    let both = (-2.0, 2.0);
    let positive = (0.3, 2.5);
    check_op(device, "softmax", &[&[3, 4]], both, |x| x[0].softmax(1));
    check_op(device, "log_softmax", &[&[3, 4]], both, |x| {
        x[0].log_softmax(0)
    });
    check_op(device, "top_k", &[&[2, 3, 5]], both, |x| {
        Ok(x[0].top_k(2)?.0)
    });
    check_op(device, "mean", &[&[3, 4]], both, |x| x[0].mean(0));
    check_op(device, "var", &[&[3, 4]], both, |x| x[0].var(1));
    check_op(device, "pow", &[&[3, 4], &[4]], positive, |x| {
        x[0].pow(&x[1])
    });
    for exponent in [-1.5, -1.0, 1.0, 2.0, 3.0, 5.0] {
        check_op(device, "pow of a number", &[&[3, 4]], positive, |x| {
            x[0].pow(exponent)
        });
    }
    // Integers have powers of negative numbers, too.
    for exponent in [-3.0, -2.0, 2.0, 3.0] {
        check_op(
            device,
            "pow of negative numbers",
            &[&[5]],
            (-1.2, -0.8),
            |x| x[0].pow(exponent),
        );
    }
    check_op(device, "stack", &[&[3], &[3]], both, |x| {
        Tensor::stack(&[&x[0], &x[1], &x[0]], 1)
    });
    check_op(device, "unstack", &[&[3, 2]], both, |x| {
        let parts = x[0].unstack(1)?;
        parts[0].mul(&parts[1])
    });
    check_op(device, "pad", &[&[2, 3]], both, |x| {
        x[0].pad(&[(1, 2), (0, 1)], 3)?.square()
    });
    check_op(device, "at", &[&[2, 3, 4]], both, |x| {
        x[0].at((.., -1, 1..3))
    });
    check_op(device, "slice_assign", &[&[3, 4], &[2]], both, |x| {
        x[0].slice_assign((1.., 1..3), &x[1])?.square()
    });
    check_op(device, "broadcast_to", &[&[3, 1]], both, |x| {
        x[0].broadcast_to(&[2, 3, 4])
    });
    check_op(device, "operators", &[&[3, 4], &[4]], positive, |x| {
        let quotient = (1.0 - (&x[0] * &x[1])?)? / 3.0;
        (2 * quotient? + &x[0]) / column(&x[0])?
    });
    check_op(device, "select_from a number", &[&[3, 4]], both, |x| {
        x[0].detach().greater(0)?.select_from(&x[0], 1)
    });
}

#[test]
fn they_agree_with_finite_differences() {
    for name in ["cpu", "sim"] {
        all(&device(name).unwrap());
    }
}

/// TensorFlow's gradients, where they are finite.
#[test]
fn slopes_of_powers_at_the_edges() {
    let device = device("cpu").unwrap();
    let x = [-2.0, -2.0, 0.0, 0.0, 0.0, 0.0, 2.0, -0.5];
    let y = [3.0, -2.0, 2.0, 1.0, 0.5, 0.0, 10.0, -3.0];
    let slopes = [12.0, 0.25, 0.0, 1.0, 0.0, 0.0, 5120.0, -48.0];
    let last = 1024.0 * std::f64::consts::LN_2;
    let of_exponents = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, last, 0.0];
    let param = |data: &[f64]| -> Result<_> {
        let zero = rnn_core::Initializer::Constant(0.0);
        let mut param = rnn_core::Param::new(&device, zero, &[8], DType::F64)?;
        param.set(Tensor::from_slice(&device, data, &[8])?)?;
        Ok(param)
    };
    let model = Pair(param(&x).unwrap(), param(&y).unwrap());
    let (_, grads) = value_and_grad(&model, |m| m.0.pow(&m.1)?.sum_all()).unwrap();
    for (name, expected) in [("x", slopes), ("y", of_exponents)] {
        let found = grads.get(name).unwrap().to_dense().unwrap();
        super::close(&found, &expected, 1e-12);
    }
    // By products, too.
    let (_, grads) = value_and_grad(&model, |m| m.0.pow(2)?.sum_all()).unwrap();
    let found = grads.get("x").unwrap().to_dense().unwrap();
    super::close(&found, &x.map(|x| 2.0 * x), 1e-12);
}

type Param = rnn_core::Param<recurrent_tests::devices::TestDevice>;

#[derive(Clone, Debug)]
struct Pair(Param, Param);

impl rnn_core::Module for Pair {
    type Backend = recurrent_tests::devices::TestDevice;
    fn params(&mut self, v: &mut rnn_core::Visitor<'_, Self::Backend>) {
        v.param("x", &mut self.0);
        v.param("y", &mut self.1);
    }
}
