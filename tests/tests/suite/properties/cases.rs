//! Random cells, shapes and lengths.
use super::*;
/// A cell under a driver.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) batch: usize,
    pub(super) steps: usize,
    pub(super) depth: usize,
    pub(super) cell: Value,
    pub(super) lengths: Vec<usize>,
    pub(super) mode: Mode,
    pub(super) seed: u64,
}

impl Case {
    pub(super) fn evaluation(&self) -> Self {
        let mode = Mode::Evaluation;
        Self {
            mode,
            ..self.clone()
        }
    }

    pub(super) fn build(&self, device: &TestDevice) -> Result<CellUnderTest<Any>> {
        let cell = cell_from_config(device, &self.cell, self.depth, DType::F64)?;
        CellUnderTest::new(device, cell, self)
    }
}

pub(super) fn activation() -> impl Strategy<Value = &'static str> {
    select(vec!["tanh", "sigmoid", "relu", "softsign", "identity"])
}

/// Cells of a given output width that wrap no other cell.
pub(super) fn plain(width: usize) -> BoxedStrategy<Value> {
    let rnn = activation()
        .prop_map(move |f| json!({ "type": "BasicRNNCell", "num_units": width, "activation": f }));
    let bias = || select(vec![-1.0, 0.0, 1.0]);
    let basic = (bias(), activation()).prop_map(move |(bias, f)| {
        json!({ "type": "BasicLSTMCell", "num_units": width, "forget_bias": bias, "activation": f })
    });
    let clip = || proptest::option::of(0.05..1.0);
    let projection = proptest::option::of(1..=6usize);
    let options = (
        any::<bool>(),
        clip(),
        projection,
        clip(),
        bias(),
        activation(),
    );
    let lstm = options.prop_map(
        move |(peepholes, cell_clip, projected, proj_clip, bias, f)| {
            json!({
                "type": "LSTMCell", "num_units": projected.unwrap_or(width),
                "use_peepholes": peepholes, "cell_clip": cell_clip,
                "num_proj": projected.map(|_| width), "proj_clip": proj_clip,
                "forget_bias": bias, "activation": f,
            })
        },
    );
    let gru = (activation(), any::<bool>()).prop_map(move |(f, after)| {
        json!({ "type": "GRUCell", "num_units": width, "activation": f, "reset_after": after })
    });
    let ugrnn = (bias(), activation()).prop_map(move |(bias, f)| {
        json!({ "type": "UGRNNCell", "num_units": width, "forget_bias": bias, "activation": f })
    });
    prop_oneof![1 => rnn, 1 => basic, 3 => lstm, 1 => gru, 1 => ugrnn].boxed()
}

pub(super) fn dropout(cell: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    let keep_prob = || select(vec![0.4, 0.75, 1.0]);
    (cell, keep_prob(), keep_prob(), keep_prob(), any::<bool>())
        .prop_map(|(cell, input, output, state, variational)| {
            json!({
                "type": "DropoutWrapper", "cell": cell, "input_keep_prob": input,
                "output_keep_prob": output, "state_keep_prob": state,
                "variational_recurrent": variational,
            })
        })
        .boxed()
}

pub(super) fn residual(cell: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    (cell, select(vec![json!(null), json!("mul_add")]))
        .prop_map(|(cell, f)| json!({ "type": "ResidualWrapper", "cell": cell, "residual_fn": f }))
        .boxed()
}

/// A layer from `depth` to `width`.
pub(super) fn layer(depth: usize, width: usize) -> BoxedStrategy<Value> {
    if depth == width {
        prop_oneof![3 => plain(width), 1 => dropout(plain(width)), 1 => residual(plain(width))]
            .boxed()
    } else {
        prop_oneof![3 => plain(width), 1 => dropout(plain(width))].boxed()
    }
}

pub(super) fn stack(depth: usize, most: usize) -> BoxedStrategy<Value> {
    vec(1..=most, 1..=3)
        .prop_flat_map(move |widths| {
            let below = std::iter::once(depth).chain(widths.clone());
            let layers = below.zip(widths.clone());
            layers.map(|(d, w)| layer(d, w)).collect::<Vec<_>>()
        })
        .prop_map(|cells| json!({ "type": "MultiRNNCell", "cells": cells }))
        .boxed()
}

/// Any cell for inputs of width `depth`, with up to `most` hidden units.
pub(super) fn cell(depth: usize, most: usize) -> BoxedStrategy<Value> {
    prop_oneof![
        5 => (1..=most).prop_flat_map(plain),
        1 => dropout((1..=most).prop_flat_map(plain)),
        1 => residual(plain(depth)),
        1 => residual(dropout(plain(depth))),
        2 => stack(depth, most),
        1 => dropout(stack(depth, most)),
    ]
    .boxed()
}

pub(super) fn case_of(
    batch: impl Strategy<Value = usize>,
    steps: impl Strategy<Value = usize>,
    depth: impl Strategy<Value = usize>,
    most: usize,
    excess: usize,
) -> impl Strategy<Value = Case> {
    (batch, steps, depth).prop_flat_map(move |(batch, steps, depth)| {
        let lengths = vec(0..=steps + excess, batch);
        let mode = select(vec![Mode::Evaluation, Mode::Training { seed: SEED }]);
        (cell(depth, most), lengths, mode, any::<u64>()).prop_map(
            move |(cell, lengths, mode, seed)| Case {
                batch,
                steps,
                depth,
                cell,
                lengths,
                mode,
                seed,
            },
        )
    })
}

/// A small case; lengths may exceed the number of steps.
pub(super) fn case() -> impl Strategy<Value = Case> {
    case_of(1..=5usize, 0..=9usize, 1..=5usize, 6, 2)
}
