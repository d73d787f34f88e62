//! Every optimizer over a few steps, with dense gradients and with sparse gradients; clipping.

use std::sync::Arc;

use backend_api::{Backend, DType, Result, Tensor};
use rnn_core::{Dense, Module, Param};
use rnn_train::optim::{Adagrad, Adam, AdamW, Momentum, Optimizer, ParamGroups, RmsProp, Sgd};
use rnn_train::{Gradients, value_and_grad};

use super::case::{Case, CaseContext, Results};
use super::draw::{Fill, PRECISE};
use super::model::{Model, T};
use super::tolerance::Class;
use crate::devices::TestDevice;

const ROWS: usize = 6;
const WIDTH: usize = 3;
/// One row is looked up twice, and some rows never.
const IDS: [i32; 5] = [4, 1, 4, 0, 2];
const STEPS: usize = 4;

/// An embedding table followed by a layer.
#[derive(Clone, Debug)]
struct Words<B: Backend> {
    table: Param<B>,
    layer: Dense<B>,
}

rnn_core::module!(Words<B> { table, layer });

impl Words<TestDevice> {
    fn new(cx: &CaseContext<'_>) -> Result<Self> {
        let (device, dtype) = (cx.device, cx.draw.dtype());
        let zeros = rnn_core::Initializer::ZEROS;
        let words = Self {
            table: Param::new(device, zeros, &[ROWS, WIDTH], dtype)?,
            layer: Dense::with(device, WIDTH, 2, backend_api::Activation::Tanh, dtype)?,
        };
        Ok(Model::new(cx, words)?.module)
    }

    /// The gradients of a squared distance far from its minimum.
    fn gradients(&self, ids: &T) -> Result<Gradients<TestDevice>> {
        let (_, grads) = value_and_grad(self, |m| {
            m.layer
                .forward(&m.table.gather(ids)?)?
                .affine(1.0, 1.5)?
                .square()?
                .sum_all()
        })?;
        Ok(grads)
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("sgd", || Sgd::new(0.1)),
        case("momentum", || Momentum::new(0.1, 0.9)),
        case("nesterov", || Momentum::new(0.1, 0.9).nesterov(true)),
        case("rms_prop", || RmsProp::new(0.1)),
        case("rms_prop with momentum", || {
            RmsProp::new(0.1).decay(0.8).momentum(0.7).epsilon(1e-3)
        }),
        case("rms_prop, centered", || {
            RmsProp::new(0.1).centered(true).momentum(0.5)
        }),
        case("adagrad", || Adagrad::new(0.1)),
        case("adagrad from 0.5", || {
            Adagrad::new(0.1).initial_accumulator_value(0.5)
        }),
        case("adam", || Adam::new(0.1)),
        case("adam with decays", || {
            Adam::new(0.05).beta1(0.8).beta2(0.9).epsilon(1e-4)
        }),
        case("adam_w", || AdamW::new(0.1).weight_decay(0.2)),
        case("sgd with weight decay", || Sgd::new(0.1).weight_decay(0.2)),
        case("groups", || {
            ParamGroups::new(Momentum::new(0.1, 0.9))
                .group("table", Momentum::new(0.02, 0.5).weight_decay(0.1))
                .freeze("*/bias")
        }),
        Case::new("optimizers", "clipping", Class::Step, PRECISE, clipping),
    ]
}

fn case<O>(name: &str, optimizer: impl Fn() -> O + Send + Sync + 'static) -> Case
where
    O: Optimizer<TestDevice>,
{
    let make = Arc::new(optimizer);
    Case::new("optimizers", name, Class::Step, PRECISE, move |cx| {
        let mut model = Words::new(cx)?;
        let mut optimizer = make();
        let mut all = Results::default();
        for step in 1..=STEPS {
            // Each step looks up other rows.
            let draw = cx.draw.of(DType::I32);
            let ids = match step {
                1 => Tensor::from_slice(cx.device, &IDS, &[IDS.len()])?,
                _ => draw.tensor(cx.device, &format!("ids {step}"), &[4], &Fill::Below(ROWS))?,
            };
            let grads = model.gradients(&ids)?;
            optimizer.step(&mut model, &grads)?;
            for (name, param) in model.named_params() {
                all.push(format!("{name} after step {step}"), param.value())?;
                for (i, slot) in optimizer
                    .state()
                    .get(param.id())
                    .into_iter()
                    .flatten()
                    .enumerate()
                {
                    all.push(format!("slot {i} of {name} after step {step}"), slot)?;
                }
            }
        }
        Ok(all)
    })
}

fn clipping(cx: &CaseContext<'_>) -> Result<Results> {
    let model = Words::new(cx)?;
    let grads = model.gradients(&Tensor::from_slice(cx.device, &IDS, &[IDS.len()])?)?;
    let mut all = Results::default();
    all.push("norm", &grads.global_norm()?)?;
    for limit in [0.5, 1e6] {
        for (name, grad) in grads.clip_by_global_norm(limit)?.iter() {
            if let Some(grad) = grad {
                all.push(format!("{name} clipped to {limit}"), &grad.to_dense()?)?;
            }
        }
    }
    Ok(all)
}
