//! Every cell and every wrapper under `dynamic_rnn`: ragged rows, initial states, gradients of
//! everything.

use std::sync::Arc;

use backend_api::{DType, MemoryPolicy, Result};
use rnn_core::cells::PhasedLstmCellBuilder;
use rnn_core::{AnyCell, Cell, DynamicRnn, Nest, cell_from_config};
use serde_json::json;

use super::case::{Case, CaseContext, Results};
use super::draw::{Fill, PRECISE};
use super::model::{Model, Outputs, T, named};
use super::tolerance::Class;
use crate::cells::{CellConfigCase, plain, wrapped};
use crate::devices::TestDevice;

/// Row lengths: several steps, none, one, and more than the number of steps.
pub(super) const LENGTHS: [i64; 4] = [3, 0, 1, 9];
pub(super) const BATCH: usize = LENGTHS.len();
pub(super) const STEPS: usize = 4;
/// Seed of all random numbers in training.
pub(super) const SEED: u64 = 5;

type Any = AnyCell<TestDevice>;

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (group, subjects) in [
        ("cells", plain()),
        ("cells", clipped()),
        ("wrappers", wrapped()),
    ] {
        for subject in subjects {
            let name = options(&subject);
            let subject = Arc::new(subject);
            all.push(Case::new(group, name, Class::Network, PRECISE, move |cx| {
                let model = Setup::new(cx, subject.clone())?;
                model.differentiate(cx, MemoryPolicy::Store, None)
            }));
        }
    }
    for peepholes in [false, true] {
        let with = if peepholes { " with peepholes" } else { "" };
        let name = format!("PhasedLSTMCell{with}");
        all.push(Case::new(
            "cells",
            name,
            Class::Network,
            PRECISE,
            move |cx| phased(cx, peepholes),
        ));
    }
    all
}

/// Cells whose gradient is TensorFlow's but not the derivative.
fn clipped() -> Vec<CellConfigCase> {
    [
        json!({ "type": "LSTMBlockCell", "num_units": 4, "use_peephole": true, "cell_clip": 0.4 }),
        json!({ "type": "LSTMBlockCell", "num_units": 4, "cell_clip": 0.4 }),
    ]
    .map(CellConfigCase::new)
    .into()
}

/// A cell's class and options, on one line.
pub(super) fn options(subject: &CellConfigCase) -> String {
    let text = subject.config.to_string();
    let class = subject.config["type"].as_str().unwrap_or_default();
    let kind = format!("\"type\":\"{class}\"");
    let rest = text
        .replacen(&format!(",{kind}"), "", 1)
        .replacen(&kind, "", 1);
    format!("{class} {}", rest.replace('"', ""))
}

/// A cell configuration with its inputs and initial state.
pub(super) struct Setup {
    subject: Arc<CellConfigCase>,
    model: Model<Any>,
    /// Integer ids, which have no gradient.
    ids: Option<T>,
}

impl Setup {
    pub(super) fn new(cx: &CaseContext<'_>, subject: Arc<CellConfigCase>) -> Result<Self> {
        let dtype = cx.draw.dtype();
        let cell = cell_from_config(cx.device, &subject.config, subject.depth(), dtype)?;
        let state = cell.zero_state(BATCH)?;
        let dims = [&[BATCH, STEPS], subject.input.as_slice()].concat();
        let mut model = Model::new(cx, cell)?.give_like(cx, "state", &state)?;
        let ids = match subject.ids {
            Some(count) => {
                let draw = cx.draw.of(DType::I32);
                Some(draw.tensor(cx.device, "ids", &dims, &Fill::Below(count))?)
            }
            None => {
                model = model.give(cx, "inputs", &dims)?;
                None
            }
        };
        Ok(Self {
            subject,
            model,
            ids,
        })
    }

    /// Outputs, final states and gradients under a memory policy.
    pub(super) fn differentiate(
        &self,
        cx: &CaseContext<'_>,
        memory_policy: MemoryPolicy,
        segment: Option<usize>,
    ) -> Result<Results> {
        self.model.differentiate(cx, |model| {
            let state = model.module.zero_state(BATCH)?;
            let mut rnn = DynamicRnn::new(&model.module)
                .sequence_length(&LENGTHS)
                .initial_state(model.given_like("state", &state)?)
                .mode(self.subject.mode)
                .memory_policy(memory_policy);
            if let Some(steps) = segment {
                rnn = rnn.segment_length(steps);
            }
            let inputs = match &self.ids {
                Some(ids) => ids.clone(),
                None => model.given("inputs")?,
            };
            let result = rnn.run(&inputs)?;
            Ok(results(&result.outputs, &result.state))
        })
    }
}

/// Outputs and final states as results.
pub(super) fn results<O, S>(outputs: &O, state: &S) -> Outputs
where
    O: Nest<TestDevice>,
    S: Nest<TestDevice>,
{
    let mut all = named("output", outputs);
    all.extend(named("final state", state));
    all
}

/// The only cell whose input is a pair, of times and numbers.
fn phased(cx: &CaseContext<'_>, peepholes: bool) -> Result<Results> {
    let cell = PhasedLstmCellBuilder::new(3, 4)
        .use_peepholes(peepholes)
        .leak(0.05)
        .dtype(cx.draw.dtype())
        .build(cx.device)?;
    let state = cell.zero_state(BATCH)?;
    // Away from the ends of a period, where the gate is discontinuous.
    let own = |name: &str| match name {
        "period" => Some(Fill::Range(11.0, 16.0)),
        "phase" => Some(Fill::Range(-0.3, 0.0)),
        "ratio_on" => Some(Fill::Range(0.4, 0.6)),
        _ => None,
    };
    let model = Model::with(cx, cell, own)?
        .give_like(cx, "state", &state)?
        .give_from(cx, "times", &[BATCH, STEPS, 1], &Fill::Range(0.3, 9.0))?
        .give(cx, "inputs", &[BATCH, STEPS, 3])?;
    model.differentiate(cx, |model| {
        let result = DynamicRnn::new(&model.module)
            .sequence_length(&LENGTHS)
            .initial_state(model.given_like("state", &state)?)
            .training(SEED)
            .run(&(model.given("times")?, model.given("inputs")?))?;
        Ok(results(&result.outputs, &result.state))
    })
}
