//! Products of a step that are one on the device.

use backend_api::{Backend, DType, Meta, Result, Shape, Tensor};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use recurrent_tests::devices::simulator;
use rnn_core::{Cell, DynamicRnn, Initializer, Module, Param, StepContext, Visitor};
use rnn_train::{Autodiff, value_and_grad};

use crate::case::close;

const UNITS: usize = 3;

/// `y = tanh(h + x)`, `h' = y · a`, `z = s · b`,
/// `s' = tanh(s · a + tanh(z) · c' + z · a + y · b)`, where `c'` is transposed. The operands of the
/// last sum are a state, a value, a product and an output. Another product has the output, too, but
/// earlier in the step.
#[derive(Clone, Debug)]
struct Joined<B: Backend>([Param<B>; 3]);

impl<B: Backend> Joined<B> {
    fn new(device: &B) -> Result<Self> {
        let param = || Param::new(device, Initializer::GlorotUniform, &[UNITS; 2], DType::F64);
        let mut cell = Self([param()?, param()?, param()?]);
        cell.initialize(5)?;
        Ok(cell)
    }
}

impl<B: Backend> Module for Joined<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        for (name, param) in ["a", "b", "c"].into_iter().zip(&mut self.0) {
            v.param(name, param);
        }
    }
}

impl<B: Backend> Cell for Joined<B> {
    type Input = Tensor<B>;
    type State = (Tensor<B>, Tensor<B>);
    type Output = Tensor<B>;

    fn zero_state(&self, batch: usize) -> Result<Self::State> {
        Ok((self.zero_output(batch)?, self.zero_output(batch)?))
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        let meta = Meta::new(Shape::new(&[batch, UNITS])?, DType::F64);
        Tensor::zeros(self.0[0].device(), meta)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        (h, s): &Self::State,
    ) -> Result<(Tensor<B>, Self::State)> {
        let [a, b, c] = &self.0;
        let y = h.add(x)?.tanh()?;
        let z = s.matmul(b)?;
        let sum = s
            .matmul(a)?
            .add(&z.tanh()?.matmul(&c.transpose(0, 1)?)?)?
            .add(&z.matmul(a)?)?
            .add(&y.matmul(b)?)?;
        Ok((y.clone(), (y.matmul(a)?, sum.tanh()?)))
    }
}

/// Outputs, final states and gradients of ragged rows.
fn numbers<B: Backend>(device: &B) -> Result<Vec<f64>> {
    let device = Autodiff::new(device.clone());
    let cell = Joined::new(&device)?;
    let data: Vec<f64> = (0..5 * 4 * UNITS)
        .map(|i| (i * 7 % 11) as f64 * 0.1 - 0.4)
        .collect();
    let x = Tensor::from_slice(&device, &data, &[4, 5, UNITS])?;
    let mut all = Vec::new();
    let (_, grads) = value_and_grad(&cell, |cell| {
        let rnn = DynamicRnn::new(cell).sequence_length(&[5, 2, 0, 4]);
        let run = rnn.run(&x)?;
        let (h, s) = run.state;
        for t in [&run.outputs, &h, &s] {
            all.extend(t.to_vec::<f64>()?);
        }
        run.outputs.square()?.sum_all()? + s.sum_all()? + h.sum_all()?
    })?;
    for name in ["a", "b", "c"] {
        let grad = grads.get(name).expect("all parameters are used");
        all.extend(grad.to_dense()?.to_vec::<f64>()?);
    }
    Ok(all)
}

#[test]
fn joined_products_are_those_of_the_cpu() {
    let expected = numbers(&Cpu::new()).unwrap();
    let _sim = simulator();
    let device = Cuda::new(0).unwrap();
    close("numbers", &numbers(&device).unwrap(), &expected, 1e-12);
    let cell = Joined::new(&device).unwrap();
    let x = Tensor::zeros(
        &device,
        Meta::new(Shape::new(&[2, 4, UNITS]).unwrap(), DType::F64),
    );
    let how = DynamicRnn::new(&cell).explain(&x.unwrap()).unwrap();
    let launches = "6 launches a step, 3 of them products";
    assert!(how.to_string().contains(launches), "{how}");
}
