//! Memory policies: every policy gives the same bits.

use std::sync::Arc;

use backend_api::{Keep, Result};
use serde_json::{Value, json};

use super::case::{Case, Results, Setting};
use super::cells::{Setup, options};
use super::draw::PRECISE;
use super::tolerance::Class;
use crate::cells::Subject;

/// Cells, and whether they process the inputs of all steps at once.
fn subjects() -> Vec<(Value, bool)> {
    let lstm = || json!({ "type": "LSTMCell", "num_units": 4 });
    let gru = || json!({ "type": "GRUCell", "num_units": 4 });
    vec![
        (json!({ "type": "BasicRNNCell", "num_units": 4 }), true),
        (lstm(), true),
        (gru(), true),
        (
            json!({ "type": "LSTMCell", "num_units": 4, "use_peepholes": true, "num_proj": 3 }),
            true,
        ),
        (
            json!({ "type": "LayerNormBasicLSTMCell", "num_units": 4, "dropout_keep_prob": 0.6 }),
            true,
        ),
        (
            json!({ "type": "MultiRNNCell", "cells": [lstm(), gru()] }),
            true,
        ),
        (
            json!({ "type": "DropoutWrapper", "cell": lstm(), "input_keep_prob": 0.75, "state_keep_prob": 0.75 }),
            false,
        ),
        (
            json!({ "type": "AttentionCellWrapper", "cell": gru(), "attn_length": 2 }),
            false,
        ),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (config, at_once) in subjects() {
        let subject = Arc::new(Subject::new(config).of(&[4]).training());
        let of = options(&subject);
        for keep in [Keep::Inputs, Keep::Host] {
            for steps in [1, 3] {
                let name = format!("{keep:?} by {steps} steps, {of}");
                all.push(same(
                    name,
                    &subject,
                    (keep, Some(steps)),
                    (Keep::All, Some(steps)),
                ));
            }
            let subject = subject.clone();
            let name = format!("{keep:?} whole, {of}");
            all.push(Case::new(
                "memory",
                name,
                Class::Network,
                PRECISE,
                move |bench| Setup::new(bench, subject.clone())?.differentiate(bench, keep, None),
            ));
        }
        let how = if at_once { "at once" } else { "step by step" };
        let name = format!("segments of other lengths, {how}, {of}");
        all.push(same(
            name,
            &subject,
            (Keep::All, Some(1)),
            (Keep::All, None),
        ));
    }
    all
}

/// The memory policy, and the number of steps in a segment.
type Policy = (Keep, Option<usize>);

/// Two policies give the same bits.
fn same(name: String, subject: &Arc<Subject>, policy: Policy, other: Policy) -> Case {
    let subject = subject.clone();
    Case::comparing("memory", name, PRECISE, move |setting| {
        let found = run(setting, &subject, policy)?;
        let expected = run(setting, &subject, other)?;
        let mut all = found.against(expected, Class::Exact);
        // Compares the gradients too.
        all.iter_mut()
            .for_each(|comparison| comparison.class = Class::Exact);
        Ok(all)
    })
}

fn run(setting: &Setting<'_>, subject: &Arc<Subject>, (keep, segment): Policy) -> Result<Results> {
    let bench = setting.bench();
    Setup::new(&bench, subject.clone())?.differentiate(&bench, keep, segment)
}
