//! Memory policies: every policy gives the same bits.

use std::sync::Arc;

use backend_api::{MemoryPolicy, Result};
use serde_json::{Value, json};

use super::case::{Case, Results, Setting};
use super::cells::{Setup, options};
use super::draw::PRECISE;
use super::tolerance::Class;
use crate::cells::CellConfigCase;

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
            json!({ "type": "DropoutWrapper", "cell": lstm(), "input_keep_prob": 0.75,
                "state_keep_prob": 0.75 }),
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
        let subject = Arc::new(CellConfigCase::new(config).of(&[4]).training());
        let of = options(&subject);
        for memory_policy in [MemoryPolicy::Recompute, MemoryPolicy::Offload] {
            for steps in [1, 3] {
                let name = format!("{memory_policy:?} by {steps} steps, {of}");
                all.push(same(
                    name,
                    &subject,
                    (memory_policy, Some(steps)),
                    (MemoryPolicy::Store, Some(steps)),
                    Class::Exact,
                ));
            }
            let subject = subject.clone();
            let name = format!("{memory_policy:?} whole, {of}");
            all.push(Case::new(
                "memory",
                name,
                Class::Network,
                PRECISE,
                move |cx| Setup::new(cx, subject.clone())?.differentiate(cx, memory_policy, None),
            ));
        }
        // Step by step, a device may still compute a part for all steps of a segment at once.
        let (how, class) = match at_once {
            true => ("at once", Class::Exact),
            false => ("step by step", Class::Network),
        };
        let name = format!("segments of other lengths, {how}, {of}");
        all.push(same(
            name,
            &subject,
            (MemoryPolicy::Store, Some(1)),
            (MemoryPolicy::Store, None),
            class,
        ));
    }
    all
}

/// The memory policy, and the number of steps in a segment.
type Policy = (MemoryPolicy, Option<usize>);

/// Two policies give the same results and gradients within a class of tolerance.
fn same(
    name: String,
    subject: &Arc<CellConfigCase>,
    policy: Policy,
    other: Policy,
    class: Class,
) -> Case {
    let subject = subject.clone();
    Case::comparing("memory", name, PRECISE, move |setting| {
        let found = run(setting, &subject, policy)?;
        let expected = run(setting, &subject, other)?;
        let mut all = found.against(expected, class);
        // Compares the gradients too.
        all.iter_mut()
            .for_each(|comparison| comparison.class = class);
        Ok(all)
    })
}

fn run(
    setting: &Setting<'_>,
    subject: &Arc<CellConfigCase>,
    (memory_policy, segment): Policy,
) -> Result<Results> {
    let cx = setting.cx();
    Setup::new(&cx, subject.clone())?.differentiate(&cx, memory_policy, segment)
}
