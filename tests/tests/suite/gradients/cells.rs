//! Gradients of all cells compared with finite differences, with every option that changes the
//! equations.

use backend_api::{DType, Result, Unfused};
use backend_cpu::Cpu;
use recurrent_tests::cells::{CellConfigCase, plain};
use recurrent_tests::problem::Problem;
use rnn_core::{AnyCell, Mode, cell_from_config};
use rnn_train::{Autodiff, Differentiable};
use serde_json::json;

fn problem<B: Differentiable>(device: &B, subject: &CellConfigCase) -> Result<Problem<AnyCell<B>>> {
    let cell = cell_from_config(device, &subject.config, subject.depth(), DType::F64)?;
    let problem = Problem::new(device, cell, &subject.input)?;
    let problem = match subject.mode {
        Mode::Evaluation => problem,
        Mode::Training { .. } => problem.training(),
    };
    Ok(subject
        .unused
        .iter()
        .fold(problem, |p, name| p.unused(name)))
}

fn all_cells<B: Differentiable>(device: &B) {
    for subject in plain() {
        let checked = problem(device, &subject).and_then(|p| p.check());
        checked.unwrap_or_else(|e| panic!("{} in {:?}: {e}", subject.config, subject.mode));
    }
}

#[test]
fn cpu_kernels() {
    all_cells(&Autodiff::new(Cpu::new()));
}

#[test]
fn default_bodies() {
    all_cells(&Autodiff::new(Unfused(Cpu::new())));
}

#[test]
fn contradictory_options_are_rejected() {
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
            json!({ "type": "CoupledInputForgetGateLSTMCell", "num_units": 4,
                "num_unit_shards": 7 }),
            "num_unit_shards",
        ),
    ];
    for (config, needle) in wrong {
        let made = cell_from_config(&Cpu::new(), &config, 2, DType::F64);
        let message = made.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains(needle), "{config}: {message}");
    }
}
