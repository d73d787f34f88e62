//! Dropout: the same elements are dropped on every device.

use backend_api::{Meta, Result, Shape, Tensor};
use rnn_core::{Cell, DropoutWrapper, DynamicRnn, Module, StepContext, Visitor};

use super::case::{Case, CaseContext, Results};
use super::cells::SEED;
use super::compare::Read;
use super::draw::PRECISE;
use super::model::T;
use super::tolerance::Class;
use crate::devices::TestDevice;

/// Returns its input and counts steps in its state, so that dropped elements are visible.
#[derive(Clone, Debug)]
struct Echo {
    like: T,
}

impl Module for Echo {
    type Backend = TestDevice;
    fn params(&mut self, _: &mut Visitor<'_, TestDevice>) {}
}

impl Cell for Echo {
    type Input = T;
    type State = T;
    type Output = T;

    fn zero_state(&self, batch: usize) -> Result<T> {
        self.zero_output(batch)
    }
    fn zero_output(&self, batch: usize) -> Result<T> {
        let shape = Shape::new(&[batch, self.like.shape().last()])?;
        Tensor::zeros(self.like.device(), Meta::new(shape, self.like.dtype()))
    }
    fn step(&self, _: &StepContext, x: &T, state: &T) -> Result<(T, T)> {
        Ok((x.clone(), state.affine(1.0, 1.0)?))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for variational in [false, true] {
        for (what, keep) in [
            ("inputs", [0.5, 1.0, 1.0]),
            ("outputs", [1.0, 0.25, 1.0]),
            ("states", [1.0, 1.0, 0.75]),
            ("everything", [0.75, 0.5, 0.25]),
        ] {
            let kind = if variational { " variational" } else { "" };
            all.push(Case::new(
                "dropout",
                format!("{what}{kind}"),
                Class::Step,
                PRECISE,
                move |cx| masks(cx, keep, variational),
            ));
        }
    }
    all
}

fn masks(cx: &CaseContext<'_>, keep: [f64; 3], variational: bool) -> Result<Results> {
    let (steps, batch, width) = (6, 5, 9);
    let meta = Meta::new(Shape::new(&[steps, batch, width])?, cx.draw.dtype());
    let like = Tensor::full(cx.device, 1.0, meta)?;
    let wrapper = DropoutWrapper::builder(Echo { like: like.clone() })
        .input_keep_prob(keep[0])
        .output_keep_prob(keep[1])
        .state_keep_prob(keep[2])
        .variational_recurrent(variational)
        .build()?;
    let result = DynamicRnn::new(&wrapper)
        .time_major(true)
        .training(SEED)
        .run(&like)?;
    let mut all = Results::default();
    for (name, t) in [("output", &result.outputs), ("final state", &result.state)] {
        let mask = Read::new(t)?.is_not_zero();
        all.push_as(Class::Exact, format!("mask of the {name}"), mask);
        all.push(name, t)?;
    }
    Ok(all)
}
