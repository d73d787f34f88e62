//! Layers of the common cells: many sizes, every layout of weights and inputs, every activation,
//! rows of any length, and the gradients of everything.

use backend_api::{Activation, DType, Result};
use rnn_core::{Cell, DynamicRnn, cell_from_config};
use serde_json::{Value, json};

use super::case::{Case, CaseContext, Results};
use super::cells::results;
use super::draw::{Arrange, FLOATS, PRECISE};
use super::model::Model;
use super::tolerance::Class;

/// Width of the inputs.
const DEPTH: usize = 5;

/// Steps, rows, hidden units, and the layout of weights, inputs and states.
const SIZES: [([usize; 3], Arrange); 9] = [
    ([4, 5, 3], Arrange::Whole),
    ([1, 1, 1], Arrange::Offset),
    ([3, 4, 6], Arrange::Turned),
    ([5, 4, 7], Arrange::Cut),
    ([4, 5, 4], Arrange::TurnedCut),
    ([0, 3, 4], Arrange::Whole),
    ([3, 0, 4], Arrange::Whole),
    ([6, 1, 33], Arrange::Rotated),
    ([7, 19, 70], Arrange::Whole),
];

/// A cell with its inputs.
#[derive(Clone, Debug)]
struct Layer {
    config: Value,
    steps: usize,
    batch: usize,
    ragged: bool,
    at: Arrange,
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    // Two kinds of each size, and all of the largest.
    for (i, (size, at)) in SIZES.into_iter().enumerate() {
        let kinds = kinds(size[2], Activation::COMMON[i % 5]);
        let some = match i + 1 < SIZES.len() {
            true => &kinds[2 * i % 6..][..2],
            false => &kinds[..],
        };
        all.extend(some.iter().flat_map(|kind| pair(kind, size, at)));
    }
    let (size, at) = SIZES[0];
    let rare = Activation::ALL.into_iter().filter(|f| !f.is_common());
    for (i, activation) in rare.enumerate() {
        all.extend(pair(&kinds(size[2], activation)[i % 6], size, at));
    }
    all
}

/// The configurations of all kinds of layers, with all options of the LSTM.
fn kinds(units: usize, activation: Activation) -> [Value; 6] {
    // These activations would let the states grow.
    let activation = match activation {
        Activation::Identity | Activation::Exponential => Activation::Tanh,
        other => other,
    };
    [
        json!({ "type": "BasicRNNCell" }),
        json!({ "type": "BasicLSTMCell", "forget_bias": 0.5 }),
        json!({ "type": "LSTMCell", "cell_clip": 0.7 }),
        json!({ "type": "LSTMCell", "cell_clip": 0.7, "use_peepholes": true,
            "num_proj": units.div_ceil(2), "proj_clip": 0.3 }),
        json!({ "type": "GRUCell" }),
        json!({ "type": "GRUCell", "reset_after": true }),
    ]
    .map(|mut config| {
        config["num_units"] = json!(units);
        config["activation"] = json!(activation.name());
        config
    })
}

/// The cases of a layer without and with lengths.
fn pair(config: &Value, [steps, batch, units]: [usize; 3], at: Arrange) -> [Case; 2] {
    [false, true].map(|ragged| {
        let options = config.to_string().replace('"', "");
        let rows = if ragged { " ragged" } else { "" };
        let name = format!("[{steps}, {batch}, {units}]{at}{rows} {options}");
        let layer = Layer {
            config: config.clone(),
            steps,
            batch,
            ragged,
            at,
        };
        Case::new(
            "sequences",
            name,
            Class::Gradient,
            types(config),
            move |cx| layer.run(cx),
        )
    })
}

/// Where a slope is discontinuous, for example at a limit, rounding to 16 bits may cross the
/// discontinuity.
fn types(config: &Value) -> &'static [DType] {
    let steep = ["relu", "relu6", "hard_sigmoid", "selu"].map(Value::from);
    match config.get("cell_clip").is_some() || steep.contains(&config["activation"]) {
        true => PRECISE,
        false => FLOATS,
    }
}

impl Layer {
    /// Outputs, final states, and gradients of weights, inputs and initial states.
    fn run(&self, cx: &CaseContext<'_>) -> Result<Results> {
        let (steps, batch) = (self.steps, self.batch);
        let cell = cell_from_config(cx.device, &self.config, DEPTH, cx.draw.dtype())?;
        let state = cell.zero_state(batch)?;
        let model = Model::arranged(cx, cell, self.at)?
            .give_like(cx, "state", &state)?
            .give(cx, "inputs", &[steps, batch, DEPTH])?;
        model.differentiate(cx, |model| {
            let mut rnn = DynamicRnn::new(&model.module)
                .time_major(true)
                .initial_state(model.given_like("state", &state)?);
            if self.ragged {
                let of_row = [steps, 0, steps + 2, steps.saturating_sub(1), 1];
                let lengths: Vec<usize> = of_row.into_iter().cycle().take(batch).collect();
                rnn = rnn.sequence_length(lengths);
            }
            let result = rnn.run(&model.given("inputs")?)?;
            Ok(results(&result.outputs, &result.state))
        })
    }
}
