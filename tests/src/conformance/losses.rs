//! Every loss with every combination of its options, and the gradients of its inputs.

use backend_api::{DType, Result, Tensor};
use rnn_core::{Module, Visitor};
use rnn_train::losses::{
    Reduction, SequenceLoss, accuracy, legacy_sequence_loss, mean_squared_error,
    sequence_loss_by_example, sequence_mask, softmax_cross_entropy, softmax_cross_entropy_each,
};

use super::case::{Case, CaseContext, Results};
use super::compare::Read;
use super::draw::{Fill, PRECISE};
use super::model::{Model, T};
use super::tolerance::Class;
use crate::devices::TestDevice;
use crate::golden::unstack;

const BATCH: usize = 5;
const STEPS: usize = 4;
const CLASSES: usize = 7;

/// No parameters of its own.
#[derive(Clone, Debug)]
struct Nothing;

impl Module for Nothing {
    type Backend = TestDevice;
    fn params(&mut self, _: &mut Visitor<'_, TestDevice>) {}
}

/// The arguments of a loss.
struct LossInputs<'a> {
    /// `[batch, time, classes]`.
    logits: T,
    /// `[batch, time]`.
    targets: &'a T,
    /// `[batch, time]`; some are 0, including a whole row.
    weights: T,
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = plain();
    all.extend(weighted());
    all.extend(not_differentiable());
    all
}

/// A case of a function of logits, targets and weights.
fn case(
    name: impl Into<String>,
    loss: impl Fn(&LossInputs<'_>) -> Result<T> + Send + Sync + 'static,
) -> Case {
    Case::new("losses", name, Class::Step, PRECISE, move |cx| {
        let draw = cx.draw.of(DType::I32);
        let dims = [BATCH, STEPS];
        let targets = draw.tensor(cx.device, "targets", &dims, &Fill::Below(CLASSES))?;
        let model = Model::new(cx, Nothing)?
            .give_from(
                cx,
                "logits",
                &[BATCH, STEPS, CLASSES],
                &Fill::Range(-4.0, 4.0),
            )?
            .give_from(cx, "weights", &dims, &some_zeros())?;
        model.differentiate(cx, |model| {
            let given = LossInputs {
                logits: model.given("logits")?,
                targets: &targets,
                weights: model.given("weights")?,
            };
            Ok(vec![("result".into(), loss(&given)?)])
        })
    })
}

/// Weights with some zeros, including a whole row and a whole step.
fn some_zeros() -> Fill {
    let weight = |i: usize| match (i / STEPS, i % STEPS) {
        (2, _) | (_, 3) | (0, 1) => 0.0,
        (row, step) => 0.25 + row as f64 + 0.5 * step as f64,
    };
    Fill::These((0..BATCH * STEPS).map(weight).collect())
}

fn plain() -> Vec<Case> {
    let squared = |cx: &CaseContext<'_>| {
        let model = Model::new(cx, Nothing)?
            .give(cx, "prediction", &[BATCH, STEPS])?
            .give(cx, "target", &[BATCH, STEPS])?;
        model.differentiate(cx, |model| {
            let loss = mean_squared_error(&model.given("prediction")?, &model.given("target")?)?;
            Ok(vec![("result".into(), loss)])
        })
    };
    vec![
        case("softmax_cross_entropy", |x| {
            softmax_cross_entropy(&x.logits, x.targets)
        }),
        case("softmax_cross_entropy_each", |x| {
            softmax_cross_entropy_each(&x.logits, x.targets)
        }),
        Case::new(
            "losses",
            "mean_squared_error",
            Class::Step,
            PRECISE,
            squared,
        ),
    ]
}

fn weighted() -> Vec<Case> {
    let mut all = Vec::new();
    let reductions = [Reduction::None, Reduction::Average, Reduction::Sum];
    for timesteps in reductions {
        for batch in reductions {
            let loss = SequenceLoss { timesteps, batch };
            all.push(case(
                format!("sequence_loss {timesteps:?} {batch:?}"),
                move |x| loss.of(&x.logits, x.targets, &x.weights),
            ));
        }
    }
    for time in [false, true] {
        all.push(case(format!("sequence_loss_by_example {time}"), move |x| {
            let [logits, targets, weights] = x.steps()?;
            sequence_loss_by_example(&logits, &targets, &weights, time)
        }));
        for batch in [false, true] {
            all.push(case(
                format!("legacy sequence_loss {time} {batch}"),
                move |x| {
                    let [logits, targets, weights] = x.steps()?;
                    legacy_sequence_loss(&logits, &targets, &weights, time, batch)
                },
            ));
        }
    }
    all
}

impl LossInputs<'_> {
    /// Logits, targets and weights as lists of steps.
    fn steps(&self) -> Result<[Vec<T>; 3]> {
        Ok([
            unstack(&self.logits, false)?,
            unstack(self.targets, false)?,
            unstack(&self.weights, false)?,
        ])
    }
}

fn not_differentiable() -> Vec<Case> {
    let mask = |cx: &CaseContext<'_>| {
        let mut all = Results::default();
        for (name, dtype) in [("of i32", DType::I32), ("of i64", DType::I64)] {
            let lengths = Fill::These(vec![0.0, 1.0, 4.0, 9.0]);
            let lengths = cx
                .draw
                .of(dtype)
                .tensor(cx.device, "lengths", &[4], &lengths)?;
            for width in [0, 1, 5] {
                all.push(
                    format!("mask {name} and width {width}"),
                    &sequence_mask(&lengths, width)?,
                )?;
            }
        }
        Ok(all)
    };
    let share = |cx: &CaseContext<'_>| {
        let draw = cx.draw.of(DType::I64);
        let labels: T = draw.tensor(cx.device, "labels", &[BATCH, STEPS], &Fill::Below(3))?;
        // Few distinct numbers, so that the first of equal ones must win.
        let logits: Tensor<_> =
            cx.draw
                .tensor(cx.device, "logits", &[BATCH, STEPS, 3], &Fill::Few)?;
        let mut all = Results::default();
        let share = accuracy(&logits, &labels)?;
        let share = Read::host(&[], DType::F64, vec![share]);
        all.push_as(Class::Exact, "accuracy", share);
        Ok(all)
    };
    vec![
        Case::new("losses", "sequence_mask", Class::Exact, PRECISE, mask),
        Case::new("losses", "accuracy", Class::Exact, PRECISE, share),
    ]
}
