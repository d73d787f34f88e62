//! What is summed or remembered over many steps, in every float type: in 16 bits the sums would
//! stand still or overflow.

use std::sync::Arc;

use backend_api::{DType, Result, Tensor};
use rnn_core::{DynamicRnn, Initializer, Module, Param, cell_from_config};
use rnn_train::losses::{SequenceLoss, mean_squared_error, sequence_loss_by_example};
use rnn_train::optim::{Adagrad, Adam, LossScale, Momentum, Optimizer, RmsProp};
use rnn_train::{Gradient, value_and_grad};
use serde_json::json;

use super::case::{Case, CaseContext, Results};
use super::draw::{FLOATS, Fill};
use super::model::T;
use super::tolerance::Class;
use crate::devices::TestDevice;
use crate::golden::unstack;

const GROUP: &str = "long sums";

/// A vector of parameters.
#[derive(Clone, Debug)]
struct Vector {
    vector: Param<TestDevice>,
}

rnn_core::module!(Vector on TestDevice { vector });

impl Vector {
    fn new(cx: &CaseContext<'_>, numbers: &[f64]) -> Result<Self> {
        let (count, dtype) = (numbers.len(), cx.draw.dtype());
        let mut vector = Param::new(cx.device, Initializer::ZEROS, &[count], dtype)?;
        vector.set(these(cx, numbers, &[count])?)?;
        Ok(Self { vector })
    }
}

fn these(cx: &CaseContext<'_>, numbers: &[f64], dims: &[usize]) -> Result<T> {
    let fill = Fill::These(numbers.to_vec());
    cx.draw.tensor(cx.device, "numbers", dims, &fill)
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![
        slots("momentum", || Momentum::new(1e-3, 0.9)),
        slots("rms_prop", || RmsProp::new(1e-3)),
        slots("rms_prop, centered", || {
            RmsProp::new(1e-3).centered(true).momentum(0.5)
        }),
        slots("adagrad", || Adagrad::new(1e-3)),
        slots("adam", || Adam::new(1e-3)),
    ];
    let case = |name: &str, class, body: fn(&CaseContext<'_>) -> Result<Results>| {
        Case::new(GROUP, name, class, FLOATS, body)
    };
    all.extend([
        case("roots of centered rms_prop", Class::Exact, roots),
        case("losses", Class::Sum, losses),
        case("uses of a tensor", Class::Gradient, uses),
        case("norms of large and small numbers", Class::Step, |cx| {
            norms(cx, [300.0, 1e-4])
        }),
        case("steps of a cell", Class::Gradient, steps),
    ]);
    let wider = &[DType::F32, DType::F64, DType::Bf16];
    let name = "norms whose squares leave the range of f32";
    all.push(Case::new(GROUP, name, Class::Step, wider, |cx| {
        norms(cx, [1e20, 1e-25])
    }));
    all
}

/// The slots of an optimizer after large gradients that are followed by small ones.
fn slots<O>(name: &str, make: impl Fn() -> O + Send + Sync + 'static) -> Case
where
    O: Optimizer<TestDevice>,
{
    let make = Arc::new(make);
    Case::new(GROUP, name, Class::Gradient, FLOATS, move |cx| {
        let mut model = Vector::new(cx, &[1.0, -2.0, 0.5])?;
        let mut optimizer = make();
        for step in 0..120 {
            let size = if step < 3 { 1.0 } else { 0.003 };
            let numbers = [300.0 * size, -5.0 * size, 0.25 * size];
            let gradient = these(cx, &numbers, &[3])?;
            let loss = |model: &Vector| model.vector.mul(&gradient)?.sum_all();
            let (_, grads) = value_and_grad(&model, loss)?;
            optimizer.step(&mut model, &grads)?;
        }
        let mut all = Results::default();
        let state = optimizer.state().get(model.vector.id());
        for (i, slot) in state.into_iter().flatten().enumerate() {
            all.push(format!("slot {i}"), &slot.cast(DType::F64)?)?;
        }
        Ok(all)
    })
}

/// Whether the values are finite: the variance of a steady gradient is a small difference.
fn roots(cx: &CaseContext<'_>) -> Result<Results> {
    let numbers: Vec<f64> = (1..=20).map(|i| 0.037 * f64::from(i * i)).collect();
    let mut model = Vector::new(cx, &[0.0; 20])?;
    let gradient = these(cx, &numbers, &[20])?;
    let mut optimizer = RmsProp::new(1e-6).centered(true);
    for _ in 0..120 {
        let loss = |model: &Vector| model.vector.mul(&gradient)?.sum_all();
        let (_, grads) = value_and_grad(&model, loss)?;
        optimizer.step(&mut model, &grads)?;
    }
    let mut all = Results::default();
    // NaN and infinity times 0 are NaN.
    let zeros = model.vector.abs()?.affine(0.0, 0.0)?;
    all.push("values times 0", &zeros)?;
    Ok(all)
}

/// Losses that `f16` cannot represent, and weights of 0.
fn losses(cx: &CaseContext<'_>) -> Result<Results> {
    let mut all = Results::default();
    let mut add = |name: &str, t: &T| all.push(name, &t.cast(DType::F64)?);
    let (target, prediction) = (these(cx, &[0.0; 4], &[4])?, these(cx, &[300.0, 0.0], &[4])?);
    add("squared error", &mean_squared_error(&prediction, &target)?)?;

    let (batch, steps) = (64, 256);
    let logits = these(cx, &[-8.0, 0.0, 8.0, 1.0], &[batch, steps, 3])?;
    let targets = Tensor::from_slice(cx.device, &vec![0i32; batch * steps], &[batch, steps])?;
    let weights = these(cx, &[1.0, 1.0, 1.0, 0.0], &[batch, steps])?;
    let loss = SequenceLoss::default();
    add("sequence loss", &loss.of(&logits, &targets, &weights)?)?;
    let none = these(cx, &[0.0], &[batch, steps])?;
    add("without weights", &loss.of(&logits, &targets, &none)?)?;
    let [logits, targets, weights] = [&logits, &targets, &weights].map(|t| unstack(t, false));
    let each = sequence_loss_by_example(&logits?, &targets?, &weights?, true)?;
    add("sequence loss by example", &each)?;
    Ok(all)
}

/// The gradient of a tensor that is used many times, as a whole and in part.
fn uses(cx: &CaseContext<'_>) -> Result<Results> {
    let model = Vector::new(cx, &[0.5, -0.25, 1.0])?;
    let (_, grads) = value_and_grad(&model, |model| {
        let mut total = Tensor::scalar(cx.device, 0.0, DType::F64)?;
        for i in 0..900 {
            let used = model.vector.affine(1.0 / 32.0, 0.0)?.sum_all()?;
            let part = model
                .vector
                .slice(0, i % 3..i % 3 + 1)?
                .affine(1.0 / 32.0, 0.0)?;
            total = total.add(&used.add(&part.sum_all()?)?.cast(DType::F64)?)?;
        }
        Ok(total)
    })?;
    let mut all = Results::default();
    let gradient = grads.get("vector").map(Gradient::to_dense).transpose()?;
    if let Some(gradient) = gradient {
        all.push("gradient", &gradient)?;
    }
    Ok(all)
}

/// Norms whose squares leave the range of a type.
fn norms(cx: &CaseContext<'_>, sizes: [f64; 2]) -> Result<Results> {
    let mut all = Results::default();
    for size in sizes {
        let model = Vector::new(cx, &[size, size])?;
        let loss = |model: &Vector| model.vector.mul(model.vector.detach())?.sum_all();
        let (_, grads) = value_and_grad(&model, loss)?;
        let norm = grads.global_norm()?.cast(DType::F64)?;
        all.push(format!("norm of {size}"), &norm.affine(1.0 / size, 0.0)?)?;
        let mut scale = LossScale::new().with_factor(2.0)?;
        let finite = scale.unscale(&grads)?.is_some();
        let finite = Tensor::scalar(cx.device, f64::from(u8::from(finite)), DType::I64)?;
        all.push(format!("whether {size} is finite"), &finite)?;
    }
    Ok(all)
}

/// A state and gradients that are sums over all steps.
fn steps(cx: &CaseContext<'_>) -> Result<Results> {
    let (steps, dtype) = (300, cx.draw.dtype());
    let config = json!({ "type": "IndRNNCell", "num_units": 1, "activation": "relu" });
    let mut cell = cell_from_config(cx.device, &config, 1, dtype)?;
    cell.each_param(&mut |name, param| {
        let value = if name.contains("bias") { 0.0 } else { 1.0 };
        param.set(Tensor::full(param.device(), value, param.meta())?)
    })?;
    let x = these(cx, &[1.0 / 64.0], &[1, steps, 1])?;
    let mut all = Results::default();
    let mut last = None;
    let (_, grads) = value_and_grad(&cell, |cell| {
        let outputs = DynamicRnn::new(cell).run(&x)?.outputs;
        last = Some(outputs.detach());
        outputs.cast(DType::F64)?.mean_all()
    })?;
    if let Some(outputs) = last {
        all.push("outputs", &outputs)?;
    }
    for (name, grad) in grads.iter() {
        if let Some(grad) = grad {
            all.push(format!("gradient of {name}"), &grad.to_dense()?)?;
        }
    }
    Ok(all)
}
