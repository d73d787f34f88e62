//! Gradients of models: norms over several types, and refused second derivatives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backend_api::{Backend, DType, Error, MemoryPolicy, Result, Tensor};
use rnn_core::cells::UgrnnCell;
use rnn_core::{
    BasicLstmCell, DynamicRnn, Initializer, Module, Param, StepContext, Unroll, Visitor,
};
use rnn_train::data::{Batches, Remainder};
use rnn_train::optim::Sgd;
use rnn_train::training::Trainer;
use rnn_train::{
    Differentiable, Gradient, Gradients, Reach, tracked, value_and_grad, values_and_grads,
};

use crate::common::{Device, assert_says, device, tensor};

/// Parameters of any types, one number each.
#[derive(Clone, Debug)]
struct Mixed(Vec<Param<Device>>);

impl Module for Mixed {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        for (i, param) in self.0.iter_mut().enumerate() {
            v.param(&format!("p{i}"), param);
        }
    }
}

impl Mixed {
    fn new(dtypes: &[DType], value: f64) -> Self {
        Self::on(&device(), dtypes, value)
    }

    fn on(d: &Device, dtypes: &[DType], value: f64) -> Self {
        let first = Initializer::Constant(value);
        let param = |&dtype| Param::new(d, first, &[1], dtype).unwrap();
        Self(dtypes.iter().map(param).collect())
    }

    /// The sum of the parameters, each times its factor.
    fn loss(&self, factors: &[f64]) -> Result<Tensor<Device>> {
        let mut total = Tensor::scalar(self.0[0].device(), 0.0, DType::F64)?;
        for (param, &factor) in self.0.iter().zip(factors) {
            let wide = param.cast(DType::F64)?.affine(factor, 0.0)?;
            total = total.add(&wide.sum_all()?)?;
        }
        Ok(total)
    }

    fn grads(&self, factors: &[f64]) -> Gradients<Device> {
        value_and_grad(self, |m| m.loss(factors)).unwrap().1
    }
}

#[test]
fn norms_are_computed_in_the_widest_type() {
    use DType::{Bf16, F16, F32, F64};
    let norm = |dtypes: &[DType], factors: &[f64]| {
        let grads = Mixed::new(dtypes, 0.0).grads(factors);
        let norm = grads.global_norm().unwrap();
        (norm.dtype(), norm.item().unwrap())
    };
    assert_eq!(norm(&[F32, F64, F16], &[2.0, 3.0, 6.0]), (F64, 7.0));
    assert_eq!(norm(&[F16, Bf16], &[3.0, 4.0]), (F32, 5.0));
    // The squares exceed the largest number of the type.
    assert_eq!(norm(&[F16, F16], &[3000.0, 4000.0]), (F32, 5000.0));
}

#[test]
fn a_model_of_several_types_is_trained() {
    let mut model = Mixed::new(&[DType::F32, DType::F64], 1.0);
    let mut sgd = Sgd::new(1.0);
    let mut batches = Batches::new(1, 1, Remainder::Drop, 1).unwrap();
    let mut trainer = Trainer::new(1).clip_norm(2.5).show_progress(false);
    trainer
        .run_epoch(&mut model, &mut sgd, &mut batches, |m, _, _| {
            m.loss(&[3.0, 4.0])
        })
        .unwrap();
    let values = [&model.0[0], &model.0[1]].map(|p| p.to_f64_vec().unwrap()[0]);
    assert_eq!(values, [1.0 - 1.5, 1.0 - 2.0]);
}

/// `|p0|²`
fn square(model: &Mixed) -> Result<Tensor<Device>> {
    model.0[0].square()?.sum_all()
}

fn first(grads: &Gradients<Device>) -> Result<Tensor<Device>> {
    grads.get("p0").map(Gradient::to_dense).unwrap()
}

#[test]
fn nested_gradients_are_refused() {
    let model = Mixed::new(&[DType::F64], 2.0);
    // w² + |d w²/dw|²
    let penalty = value_and_grad(&model, |m| {
        let (value, grads) = value_and_grad(m, square)?;
        value.add(&first(&grads)?.square()?.sum_all()?)
    });
    let advice = ["second derivative", "detach"];
    assert_says(&penalty.unwrap_err(), &advice);
    let twice = tracked(&model).and_then(|m| tracked(&m));
    assert_says(&twice.unwrap_err(), &advice);
    let leaf = tracked(&model).and_then(|m| m.0[0].device().leaf(&m.0[0].square()?));
    assert_says(&leaf.unwrap_err(), &advice);
    // The inner gradient depends on the outer parameter, with respect to which it is not taken.
    let other = Mixed::on(model.0[0].device(), &[DType::F64], 3.0);
    let mixed = value_and_grad(&model, |m| {
        let (_, grads) = value_and_grad(&other, |o| o.0[0].mul(&m.0[0])?.square()?.sum_all())?;
        square(m)?.add(&first(&grads)?.sum_all()?)
    });
    assert_says(
        &mixed.unwrap_err(),
        &["outside of", "second derivative", "detach"],
    );
}

#[test]
fn gradients_that_are_constants_can_be_nested() {
    let model = Mixed::new(&[DType::F64], 2.0);
    let (value, grads) = value_and_grad(&model, |m| {
        // Independent of the parameters that are tracked here.
        let (_, grads) = value_and_grad(&model, square)?;
        let scale = m.0[0].detach();
        let other = Mixed::on(scale.device(), &[DType::F64], 3.0);
        let (_, more) = value_and_grad(&other, |o| o.0[0].mul(&scale)?.sum_all())?;
        square(m)?.add(&first(&grads)?.mul(&first(&more)?)?.sum_all()?)
    })
    .unwrap();
    assert_eq!(value.item().unwrap(), 4.0 + 4.0 * 2.0);
    assert_eq!(first(&grads).unwrap().item().unwrap(), 4.0);
    // Leaves of one computation need not all be wanted.
    let d = device();
    let [x, y] = [2.0, 3.0].map(|v| d.leaf(&tensor(&d, &[v], &[1])).unwrap());
    let product = x.mul(&y).unwrap().sum_all().unwrap();
    let grads = d.backward(&product, &[&y]).unwrap();
    assert_eq!(grads[0].as_ref().unwrap().item().unwrap(), 2.0);
}

#[test]
fn a_step_that_saves_nothing_keeps_what_it_detaches() {
    let d = device();
    let x = d.leaf(&tensor(&d, &[2.0, 3.0], &[2, 1, 1])).unwrap();
    let zero = tensor(&d, &[0.0], &[1, 1]);
    let unroll = Unroll::new(StepContext::default(), 2, 1);
    let (outputs, _) = unroll
        .scan(&x, &zero, &zero, |_, x, h| {
            let h = h.affine(0.5, 0.0)?.add(x)?.add(x.detach())?;
            Ok((h.clone(), h))
        })
        .unwrap();
    assert_eq!(outputs.to_vec::<f64>().unwrap(), [4.0, 8.0]);
    let grads = d.backward(&outputs.sum_all().unwrap(), &[&x]).unwrap();
    let grad = grads[0].as_ref().unwrap().to_vec::<f64>().unwrap();
    assert_eq!(grad, [1.5, 1.0]);
}

/// Looks up rows and runs a cell with a kernel and one with a compiled step.
#[derive(Clone, Debug)]
struct Layers {
    table: Param<Device>,
    lstm: BasicLstmCell<Device>,
    ugrnn: UgrnnCell<Device>,
}

rnn_core::module!(Layers on Device { table, lstm, ugrnn });

impl Layers {
    fn losses(&self, policy: MemoryPolicy) -> Result<[Tensor<Device>; 3]> {
        let ids = tensor(self.table.device(), &[0i64, 2, 2, 1, 3, 0], &[2, 3]);
        let x = self.table.gather(&ids)?;
        let rnn = DynamicRnn::new(&self.lstm)
            .memory_policy(policy)
            .segment_length(2);
        let x = rnn.run(&x)?.outputs;
        let rnn = DynamicRnn::new(&self.ugrnn)
            .memory_policy(policy)
            .segment_length(2);
        let y = rnn.run(&x)?.outputs;
        Ok([
            y.square()?.mean_all()?,
            x.square()?.mean_all()?,
            y.sum_all()?,
        ])
    }
}

fn named(grads: &Gradients<Device>) -> Vec<(String, Option<Vec<f64>>)> {
    let values = |grad: &Gradient<Device>| grad.to_dense().unwrap().to_vec().unwrap();
    let named = grads
        .iter()
        .map(|(name, grad)| (name.to_owned(), grad.map(values)));
    named.collect()
}

#[test]
fn several_gradients_of_one_forward_pass_are_those_of_several_passes() {
    let d = device();
    let mut model = Layers {
        table: Param::new(&d, Initializer::GlorotUniform, &[4, 3], DType::F64).unwrap(),
        lstm: BasicLstmCell::<Device>::builder(3, 5)
            .dtype(DType::F64)
            .build(&d)
            .unwrap(),
        ugrnn: UgrnnCell::<Device>::builder(5, 4)
            .dtype(DType::F64)
            .build(&d)
            .unwrap(),
    };
    model.initialize(1).unwrap();
    let policies = [
        MemoryPolicy::Store,
        MemoryPolicy::Recompute,
        MemoryPolicy::Offload,
    ];
    for policy in policies {
        let all = values_and_grads(&model, |m| m.losses(policy)).unwrap();
        for (i, (value, grads)) in all.into_iter().enumerate() {
            let one = |m: &Layers| Ok(m.losses(policy)?[i].clone());
            let (expected, alone) = value_and_grad(&model, one).unwrap();
            assert_eq!(value.item().unwrap(), expected.item().unwrap());
            assert_eq!(named(&grads), named(&alone), "loss {i}, {policy:?}");
            let of_ugrnn = grads.iter().filter(|(name, _)| name.starts_with("ugrnn"));
            assert!(
                of_ugrnn
                    .map(|(_, grad)| grad.is_some())
                    .all(|some| some == (i != 1))
            );
            assert!(matches!(grads.get("table"), Some(Gradient::Sparse(_))));
        }
    }
    assert!(values_and_grads(&model, |_| Ok([])).is_ok());
    let constant = values_and_grads(&model, |m| {
        let [loss, ..] = m.losses(MemoryPolicy::Store)?;
        Ok([loss.clone(), loss.detach()])
    });
    assert_says(&constant.unwrap_err(), &["does not depend on a tracked"]);
}

#[test]
fn a_second_backward_pass_says_what_to_do() {
    let tracked = tracked(&Mixed::new(&[DType::F64], 2.0)).unwrap();
    let loss = square(&tracked).unwrap();
    let leaf = tracked.0[0].value();
    let backward = || loss.device().backward(&loss, &[leaf]);
    assert!(backward().is_ok());
    assert_says(
        &backward().unwrap_err(),
        &["has freed the record", "values_and_grads"],
    );
}

fn leaf(device: &Device, value: f32) -> Tensor<Device> {
    device.leaf(&tensor(device, &[value], &[1])).unwrap()
}

/// A segment that is computed again in the backward pass.
fn again(
    device: &Device,
    x: Tensor<Device>,
    body: impl Fn(&Tensor<Device>) -> Result<Tensor<Device>> + Send + Sync + 'static,
) -> Result<Tensor<Device>> {
    let body = Arc::new(move |_: &Device, x: &[Tensor<Device>]| Ok(vec![body(&x[0])?]));
    Ok(device
        .segment(MemoryPolicy::Recompute, &[x], body)?
        .remove(0))
}

#[test]
fn a_gradient_is_passed_on_as_soon_as_it_is_complete() {
    let device = device();
    let mut stored = None;
    for recomputed in [false, true] {
        let [first, second, third, unused] = [0.5, -0.7, 0.3, 1.0].map(|x| leaf(&device, x));
        let times = |x: Tensor<Device>, factor: &Tensor<Device>| {
            let factor = factor.clone();
            let body = move |x: &Tensor<Device>| x.mul(&factor)?.tanh();
            match recomputed {
                true => again(&device, x, body),
                false => body(&x),
            }
        };
        // `third` is used at both ends.
        let x = times(tensor(&device, &[2.0f32], &[1]), &third).unwrap();
        let y = times(times(times(x, &first).unwrap(), &second).unwrap(), &third).unwrap();
        let (loss, other) = (
            y.sum_all().unwrap(),
            second.square().unwrap().sum_all().unwrap(),
        );
        let leaves = [&third, &first, &unused, &second, &first];
        let mut passed = Vec::new();
        let take = &mut |loss, leaf, grad: Option<Gradient<Device>>| {
            let dense = grad.map(|grad| grad.to_dense()?.item());
            passed.push((loss, leaf, dense.transpose()?));
            Ok(())
        };
        device
            .gradients_of(&[&other, &loss], &leaves, Reach::Anything, take)
            .unwrap();
        let order: Vec<_> = passed
            .iter()
            .map(|(loss, leaf, _)| (*loss, *leaf))
            .collect();
        let [of_other, of_loss]: [Vec<usize>; 2] = [0, 1].map(|wanted| {
            let of_wanted = order.iter().filter(|(loss, _)| *loss == wanted);
            of_wanted.map(|(_, leaf)| *leaf).collect()
        });
        assert_eq!(of_loss, [2, 3, 1, 4, 0], "{recomputed}");
        assert_eq!(of_other.len(), leaves.len());
        for (loss, leaf, grad) in &passed {
            match (loss, leaf) {
                (0, 3) => assert_eq!(*grad, Some(f64::from(2.0 * -0.7f32))),
                (0, _) | (_, 2) => assert_eq!(*grad, None),
                _ => assert!(grad.unwrap().abs() > 1e-3),
            }
        }
        stored.get_or_insert_with(|| passed.clone());
        assert_eq!(stored.as_ref(), Some(&passed));
    }
}

#[test]
fn an_error_of_the_taker_ends_the_backward_pass() {
    let device = device();
    let (first, second) = (leaf(&device, 0.5), leaf(&device, 2.0));
    let loss = first
        .tanh()
        .unwrap()
        .mul(&second)
        .unwrap()
        .sum_all()
        .unwrap();
    let mut taken = 0;
    let refused = device.gradients_of(
        &[&loss],
        &[&first, &second],
        Reach::Anything,
        &mut |_, _, _| {
            taken += 1;
            Err(Error::Gradient("enough".into()))
        },
    );
    assert_says(&refused.unwrap_err(), &["enough"]);
    assert_eq!(taken, 1);
}

#[test]
fn a_segment_uses_the_same_parameters_when_it_is_run_again() {
    let device = device();
    let (early, late) = (leaf(&device, 0.5), leaf(&device, 2.0));
    let (runs, factor) = (AtomicUsize::new(0), late.clone());
    let body = move |x: &Tensor<Device>| match runs.fetch_add(1, Ordering::SeqCst) {
        0 => x.square(),
        _ => x.mul(&factor),
    };
    let y = again(&device, early.tanh().unwrap(), body).unwrap();
    let refused = device.gradients(&y.sum_all().unwrap(), &[&early, &late]);
    assert_says(&refused.unwrap_err(), &["a segment that was run again"]);
}
