//! Gradients of the cells of `tf.contrib.rnn` against finite differences, with every option that changes
//! the equations.

use backend_api::{DType, Result, Unfused};
use backend_cpu::Cpu;
use recurrent_tests::problem::Problem;
use rnn_core::{AnyCell, cell_from_config};
use rnn_train::{Autodiff, Differentiable};
use serde_json::{Value, json};

const DEPTH: usize = 2;

fn problem<B: Differentiable>(
    device: &B,
    config: &Value,
    depth: usize,
) -> Result<Problem<AnyCell<B>>> {
    let cell = cell_from_config(device, config, depth, DType::F64)?;
    Problem::new(device, cell, &[depth])
}

/// Cells that need nothing but their options.
fn plain() -> Vec<Value> {
    vec![
        json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4, "num_unit_shards": 2 }),
        json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4, "use_peepholes": true, "num_proj": 3,
            "num_proj_shards": 3, "proj_clip": 0.5, "forget_bias": 0.3, "activation": "softsign" }),
        json!({ "type": "LayerNormBasicLSTMCell", "num_units": 4, "norm_gain": 0.5, "norm_shift": 0.1 }),
        json!({ "type": "LayerNormBasicLSTMCell", "num_units": 4, "layer_norm": false }),
        json!({ "type": "LayerNormLSTMCell", "num_units": 4 }),
        json!({ "type": "WeightNormLSTMCell", "num_units": 4 }),
        json!({ "type": "WeightNormLSTMCell", "num_units": 4, "use_peepholes": true, "cell_clip": 0.9,
            "num_proj": 3, "proj_clip": 0.5 }),
        json!({ "type": "WeightNormLSTMCell", "num_units": 4, "norm": false, "num_proj": 3 }),
        json!({ "type": "NASCell", "num_units": 4 }),
        json!({ "type": "NASCell", "num_units": 4, "use_bias": true, "num_proj": 3 }),
        json!({ "type": "UGRNNCell", "num_units": 4, "forget_bias": 0.4, "activation": "sigmoid" }),
        json!({ "type": "IntersectionRNNCell", "num_units": 4, "num_in_proj": 4, "y_activation": "tanh" }),
        json!({ "type": "IntersectionRNNCell", "num_units": 2 }),
        json!({ "type": "GLSTMCell", "num_units": 4, "number_of_groups": 2 }),
        json!({ "type": "GLSTMCell", "num_units": 4, "number_of_groups": 2, "num_proj": 6, "activation": "softsign" }),
        json!({ "type": "SRUCell", "num_units": 4, "activation": "sigmoid" }),
        json!({ "type": "CFNCell", "units": 4 }),
        json!({ "type": "MinimalRNNCell", "units": 4 }),
    ]
}

fn all_cells<B: Differentiable>(device: &B) {
    for config in plain() {
        let checked = problem(device, &config, DEPTH).and_then(|p| p.check());
        checked.unwrap_or_else(|e| panic!("{config}: {e}"));
    }
    // With layer normalization the bias is there, but unused.
    let normalized = [
        (
            json!({ "type": "LayerNormLSTMCell", "num_units": 4, "layer_norm": true, "use_peepholes": true,
                "cell_clip": 0.9, "num_proj": 3, "proj_clip": 0.6, "norm_shift": 0.2 }),
            "bias",
        ),
        (
            json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4, "layer_norm": true, "use_peepholes": true }),
            "B",
        ),
    ];
    for (config, bias) in normalized {
        let checked = problem(device, &config, DEPTH).and_then(|p| p.unused(bias).check());
        checked.unwrap_or_else(|e| panic!("{config}: {e}"));
    }
    for layer_norm in [false, true] {
        let config = json!({ "type": "LayerNormBasicLSTMCell", "num_units": 4, "layer_norm": layer_norm,
            "dropout_keep_prob": 0.6 });
        let checked = problem(device, &config, DEPTH).and_then(|p| p.training().check());
        checked.unwrap_or_else(|e| panic!("{config} in training: {e}"));
    }
}

#[test]
fn kernels_of_the_cpu() {
    all_cells(&Autodiff::new(Cpu::new()));
}

#[test]
fn default_bodies() {
    all_cells(&Autodiff::new(Unfused(Cpu::new())));
}

#[test]
fn options_that_contradict_are_refused() {
    let wrong = [
        (
            json!({ "type": "UGRNNCell", "num_units": 4, "num_proj": 3 }),
            "num_proj",
        ),
        (json!({ "type": "UGRNNCell" }), "num_units"),
        (json!({ "type": "CFNCell", "units": 0 }), "units"),
        (
            json!({ "type": "NASCell", "num_units": 4, "num_proj": 0 }),
            "num_proj",
        ),
        (
            json!({ "type": "WeightNormLSTMCell", "num_units": 4, "cell_clip": -1.0 }),
            "cell_clip",
        ),
        (
            json!({ "type": "IntersectionRNNCell", "num_units": 4 }),
            "num_in_proj",
        ),
        (
            json!({ "type": "IntersectionRNNCell", "num_units": 4, "num_in_proj": 3 }),
            "num_in_proj",
        ),
        (
            json!({ "type": "GLSTMCell", "num_units": 3, "number_of_groups": 2 }),
            "num_units = 3",
        ),
        (
            json!({ "type": "GLSTMCell", "num_units": 4, "number_of_groups": 0 }),
            "number_of_groups",
        ),
        (
            json!({ "type": "GLSTMCell", "num_units": 4, "number_of_groups": 4 }),
            "input depth = 2",
        ),
        (
            json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4, "num_unit_shards": 7 }),
            "num_unit_shards",
        ),
    ];
    for (config, needle) in wrong {
        let made = cell_from_config(&Cpu::new(), &config, DEPTH, DType::F64);
        let message = made.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains(needle), "{config}: {message}");
    }
}
