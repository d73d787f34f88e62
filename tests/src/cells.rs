//! Cells under test: every class that `cell_from_config` supports, with every option that changes
//! its equations.

use rnn_core::{CELL_CLASSES, Mode};
use serde_json::{Value, json};

/// A cell configuration and its inputs.
#[derive(Clone, Debug)]
pub struct CellConfigCase {
    /// The argument of `cell_from_config`.
    pub config: Value,
    /// Shape of one row's input in one step.
    pub input: Vec<usize>,
    /// If set, the inputs are ids below this number.
    pub ids: Option<usize>,
    /// Parameters without effect on the result.
    pub unused: Vec<&'static str>,
    /// Whether the cell runs in evaluation or in training.
    pub mode: Mode,
}

impl CellConfigCase {
    /// Inputs are vectors of length 3, no parameter is unused, and there is no dropout.
    pub(crate) fn new(config: Value) -> Self {
        Self {
            config,
            input: vec![3],
            ids: None,
            unused: Vec::new(),
            mode: Mode::Evaluation,
        }
    }

    pub(crate) fn of(mut self, input: &[usize]) -> Self {
        self.input = input.to_vec();
        self
    }

    fn unused(mut self, name: &'static str) -> Self {
        self.unused.push(name);
        self
    }

    pub(crate) fn training(mut self) -> Self {
        self.mode = Mode::Training { seed: 5 };
        self
    }

    /// Whether the CPU and the CUDA backend compile every step. They have no instructions for
    /// convolutions, attention over a memory, and products with one matrix for each group, which
    /// run operation by operation.
    pub fn is_compiled(&self) -> bool {
        let text = self.config.to_string();
        let classes = [
            "ConvLSTMCell",
            "Conv1DLSTMCell",
            "Conv2DLSTMCell",
            "Conv3DLSTMCell",
            "AttentionCellWrapper",
            "GLSTMCell",
        ];
        !classes
            .iter()
            .any(|class| text.contains(&format!("\"{class}\"")))
    }

    /// The input width, as passed to `cell_from_config`.
    pub fn depth(&self) -> usize {
        self.input.last().copied().unwrap_or(1)
    }

    fn class(&self) -> &str {
        self.config["type"].as_str().unwrap_or_default()
    }
}

/// Cells that wrap no other cell. A cell that is registered but not listed here runs with 4 hidden
/// units.
pub fn plain() -> Vec<CellConfigCase> {
    let mut all = listed();
    let wrappers = wrapped();
    let known: Vec<&str> = all
        .iter()
        .chain(&wrappers)
        .map(CellConfigCase::class)
        .collect();
    let unknown = CELL_CLASSES.iter().filter(|class| !known.contains(class));
    let guess = |class| CellConfigCase::new(json!({ "type": class, "num_units": 4 }));
    let guessed: Vec<_> = unknown.map(guess).collect();
    all.extend(guessed);
    all
}

fn listed() -> Vec<CellConfigCase> {
    let mut all = tensorflow();
    all.extend(contributed_lstms());
    all.extend(contributed());
    all.extend(over_frequencies());
    all.extend(convolutional());
    all
}

/// The cells of `tf.nn.rnn_cell`.
fn tensorflow() -> Vec<CellConfigCase> {
    [
        json!({ "type": "BasicRNNCell", "num_units": 4 }),
        json!({ "type": "BasicRNNCell", "num_units": 4, "activation": "softsign" }),
        json!({ "type": "BasicLSTMCell", "num_units": 4 }),
        json!({ "type": "BasicLSTMCell", "num_units": 4, "forget_bias": 0.4,
            "activation": "sigmoid" }),
        json!({ "type": "BasicLSTMCell", "num_units": 4, "state_is_tuple": false }),
        json!({ "type": "LSTMCell", "num_units": 4 }),
        json!({ "type": "LSTMCell", "num_units": 4, "use_peepholes": true, "num_proj": 3,
            "cell_clip": 1.5, "proj_clip": 0.9 }),
        json!({ "type": "LSTMCell", "num_units": 4, "recurrent_activation": "softsign" }),
        json!({ "type": "GRUCell", "num_units": 4 }),
        json!({ "type": "GRUCell", "num_units": 4, "recurrent_activation": "softsign" }),
        json!({ "type": "GRUCell", "num_units": 4, "reset_after": true,
            "recurrent_activation": "softsign" }),
        json!({ "type": "GRUCell", "num_units": 4, "activation": "softsign" }),
        json!({ "type": "GRUCell", "num_units": 4, "reset_after": true, "activation": "softsign" }),
    ]
    .map(CellConfigCase::new)
    .into()
}

/// LSTMs of `tf.contrib.rnn`. The block cells run without clipping, because their gradient of a
/// clipped value is not the derivative.
fn contributed_lstms() -> Vec<CellConfigCase> {
    let dropped = |layer_norm: bool| {
        CellConfigCase::new(
            json!({ "type": "LayerNormBasicLSTMCell", "num_units": 4, "layer_norm": layer_norm,
            "dropout_keep_prob": 0.6 }),
        )
        .training()
    };
    let mut all: Vec<_> = [
        json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4, "num_unit_shards": 2 }),
        json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4, "use_peepholes": true,
            "num_proj": 3, "num_proj_shards": 3, "proj_clip": 0.5, "forget_bias": 0.3,
            "activation": "softsign" }),
        json!({ "type": "LayerNormBasicLSTMCell", "num_units": 4, "norm_gain": 0.5,
            "norm_shift": 0.1 }),
        json!({ "type": "LayerNormBasicLSTMCell", "num_units": 4, "layer_norm": false }),
        json!({ "type": "LayerNormLSTMCell", "num_units": 4 }),
        json!({ "type": "WeightNormLSTMCell", "num_units": 4 }),
        json!({ "type": "WeightNormLSTMCell", "num_units": 4, "use_peepholes": true,
            "cell_clip": 0.9, "num_proj": 3, "proj_clip": 0.5 }),
        json!({ "type": "WeightNormLSTMCell", "num_units": 4, "norm": false, "num_proj": 3 }),
        json!({ "type": "IndyLSTMCell", "num_units": 4, "forget_bias": 0.4 }),
        json!({ "type": "LSTMBlockCell", "num_units": 4 }),
        json!({ "type": "LSTMBlockCell", "num_units": 4, "use_peephole": true }),
        json!({ "type": "CudnnCompatibleLSTMCell", "num_units": 4 }),
    ]
    .map(CellConfigCase::new)
    .into();
    // With layer normalization the bias exists but is unused.
    all.push(
        CellConfigCase::new(
            json!({ "type": "LayerNormLSTMCell", "num_units": 4, "layer_norm": true,
                "use_peepholes": true, "cell_clip": 0.9, "num_proj": 3, "proj_clip": 0.6,
                "norm_shift": 0.2 }),
        )
        .unused("bias"),
    );
    all.push(
        CellConfigCase::new(
            json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4, "layer_norm": true,
                "use_peepholes": true }),
        )
        .unused("B"),
    );
    all.extend([dropped(false), dropped(true)]);
    all
}

/// The other cells of `tf.contrib.rnn` whose inputs are vectors.
fn contributed() -> Vec<CellConfigCase> {
    let grouped = |config: Value| CellConfigCase::new(config).of(&[2]);
    let mut all: Vec<_> = [
        json!({ "type": "NASCell", "num_units": 4 }),
        json!({ "type": "NASCell", "num_units": 4, "use_bias": true, "num_proj": 3 }),
        json!({ "type": "UGRNNCell", "num_units": 4, "forget_bias": 0.4, "activation": "sigmoid" }),
        json!({ "type": "IntersectionRNNCell", "num_units": 4, "num_in_proj": 4,
            "y_activation": "tanh" }),
        json!({ "type": "IntersectionRNNCell", "num_units": 3 }),
        json!({ "type": "SRUCell", "num_units": 4, "activation": "sigmoid" }),
        json!({ "type": "CFNCell", "units": 4 }),
        json!({ "type": "MinimalRNNCell", "units": 4 }),
        json!({ "type": "IndRNNCell", "num_units": 4 }),
        json!({ "type": "IndRNNCell", "num_units": 4, "activation": "sigmoid" }),
        json!({ "type": "IndyGRUCell", "num_units": 4 }),
        json!({ "type": "GRUBlockCell", "num_units": 4 }),
        json!({ "type": "CudnnCompatibleGRUCell", "num_units": 4 }),
    ]
    .map(CellConfigCase::new)
    .into();
    all.extend([
        grouped(json!({ "type": "GLSTMCell", "num_units": 4, "number_of_groups": 2 })),
        grouped(
            json!({ "type": "GLSTMCell", "num_units": 4, "number_of_groups": 2, "num_proj": 6,
                "activation": "softsign" }),
        ),
    ]);
    all
}

/// Cells that read their inputs along a frequency axis.
fn over_frequencies() -> Vec<CellConfigCase> {
    [
        json!({ "type": "TimeFreqLSTMCell", "num_units": 2, "feature_size": 3, "frequency_skip": 2,
            "use_peepholes": true, "cell_clip": 0.7 }),
        json!({ "type": "GridLSTMCell", "num_units": 2, "feature_size": 3, "frequency_skip": 2,
            "num_frequency_blocks": [2, 2], "start_freqindex_list": [0, 2],
            "end_freqindex_list": [5, 7], "use_peepholes": true }),
        json!({ "type": "GridLSTMCell", "num_units": 2, "feature_size": 3, "frequency_skip": 2,
            "num_frequency_blocks": [3], "use_peepholes": true, "cell_clip": 0.7,
            "couple_input_forget_gates": true, "share_time_frequency_weights": true }),
        json!({ "type": "BidirectionalGridLSTMCell", "num_units": 2, "feature_size": 3,
            "frequency_skip": 2, "num_frequency_blocks": [3], "backward_slice_offset": -1 }),
    ]
    .map(|config| CellConfigCase::new(config).of(&[7]))
    .into()
}

fn convolutional() -> Vec<CellConfigCase> {
    let of = |input: &[usize], config: Value| CellConfigCase::new(config).of(input);
    vec![
        of(
            &[5, 2],
            json!({ "type": "Conv1DLSTMCell", "input_shape": [5, 2], "output_channels": 2,
                "kernel_shape": [4] }),
        ),
        of(
            &[3, 2, 1],
            json!({ "type": "Conv2DLSTMCell", "input_shape": [3, 2, 1], "output_channels": 2,
                "kernel_shape": [3, 2] }),
        ),
        of(
            &[3, 2, 1],
            json!({ "type": "ConvLSTMCell", "conv_ndims": 2, "input_shape": [3, 2, 1],
                "output_channels": 2, "kernel_shape": [2, 3], "skip_connection": true }),
        ),
        of(
            &[2, 3, 2, 1],
            json!({ "type": "Conv3DLSTMCell", "input_shape": [2, 3, 2, 1], "output_channels": 1,
                "kernel_shape": [2, 3, 1], "use_bias": false }),
        ),
    ]
}

/// Wrapped cells, in training mode.
pub fn wrapped() -> Vec<CellConfigCase> {
    let gru = || json!({ "type": "GRUCell", "num_units": 4 });
    let lstm = || json!({ "type": "LSTMCell", "num_units": 4 });
    let dropout = |state: f64, variational: bool| {
        json!({ "type": "DropoutWrapper", "cell": lstm(), "input_keep_prob": 0.75,
            "output_keep_prob": 0.5, "state_keep_prob": state,
            "variational_recurrent": variational })
    };
    let mixed = {
        let dropout = json!({ "type": "DropoutWrapper", "cell": gru(), "output_keep_prob": 0.6 });
        let residual = json!({ "type": "ResidualWrapper", "cell": dropout });
        let highway = json!({ "type": "HighwayWrapper", "cell": residual });
        let stack = json!({ "type": "MultiRNNCell", "cells": [highway, lstm()] });
        json!({ "type": "DropoutWrapper", "cell": stack, "input_keep_prob": 0.75 })
    };
    let mut all: Vec<_> = [
        json!({ "type": "ResidualWrapper", "cell": gru() }),
        json!({ "type": "ResidualWrapper", "cell": lstm(), "residual_fn": "mul_add" }),
        json!({ "type": "HighwayWrapper", "cell": gru() }),
        json!({ "type": "HighwayWrapper", "cell": lstm(), "couple_carry_transform_gates": false }),
        json!({ "type": "InputProjectionWrapper", "cell": lstm(), "num_proj": 3,
            "activation": "tanh" }),
        json!({ "type": "OutputProjectionWrapper", "cell": gru(), "output_size": 2,
            "activation": "tanh" }),
        json!({ "type": "AttentionCellWrapper", "cell": lstm(), "attn_length": 2, "attn_size": 3 }),
        json!({ "type": "AttentionCellWrapper", "cell": gru(), "attn_length": 3, "attn_vec_size": 2,
            "input_size": 5 }),
        json!({ "type": "DeviceWrapper", "cell": gru(), "device": "/cpu:0" }),
        json!({ "type": "CompiledWrapper", "cell": lstm() }),
        json!({ "type": "MultiRNNCell",
            "cells": [lstm(), gru(), { "type": "BasicRNNCell", "num_units": 3 }] }),
        json!({ "type": "MultiRNNCell", "cells": [gru()], "same_object": 3 }),
        json!({ "type": "MultiRNNCell", "cells": [lstm(), gru()], "state_is_tuple": false }),
        dropout(1.0, false),
        dropout(0.75, false),
        dropout(1.0, true),
        dropout(0.75, true),
        mixed,
    ]
    .map(|config| CellConfigCase::new(config).of(&[4]).training())
    .into();
    let words = json!({ "type": "EmbeddingWrapper", "cell": gru(), "embedding_classes": 6,
        "embedding_size": 3 });
    all.push(CellConfigCase {
        ids: Some(6),
        ..CellConfigCase::new(words).of(&[])
    });
    all
}
