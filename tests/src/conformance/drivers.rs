//! Every driver: lengths, axes, states, shapes without steps or rows, gradients of everything.

use std::collections::HashMap;

use backend_api::{Compare, DType, Error, Meta, Result, Shape, Tensor};
use rnn_core::cells::LstmBlockFusedCellBuilder;
use rnn_core::{
    AnyCell, BidirectionalDynamicRnn, Cell, DynamicRnn, FusedRnnCell, FusedRnnCellAdaptor, Lengths,
    Module, RawRnnStep, StackBidirectionalDynamicRnn, StateSaver, StaticRnn, StepContext,
    TimeReversedFusedRnn, cell_from_config, raw_rnn, static_bidirectional_rnn,
    static_state_saving_rnn,
};
use serde_json::{Value, json};

use super::case::{Case, CaseContext, Results};
use super::cells::{BATCH, LENGTHS, SEED, STEPS, results};
use super::draw::PRECISE;
use super::model::{Model, Outputs, T, named};
use super::tolerance::Class;
use crate::devices::TestDevice;
use crate::golden::{ToyNested, unstack};

type Any = AnyCell<TestDevice>;
const DEPTH: usize = 3;
/// Lengths for drivers that accept none above the number of steps.
const WITHIN: [i64; BATCH] = [3, 0, 1, 4];

pub(super) fn cases() -> Vec<Case> {
    let mut all = dynamic();
    all.extend(lists());
    all.extend(both_ways());
    all.extend(whole_sequences());
    all.extend(loops());
    all
}

fn case(
    name: impl Into<String>,
    run: impl Fn(&CaseContext<'_>) -> Result<Results> + Send + Sync + 'static,
) -> Case {
    Case::new("drivers", name, Class::Network, PRECISE, run)
}

/// Cells with one tensor of state and with two.
fn kinds() -> [(&'static str, Value); 4] {
    [
        (
            "basic rnn",
            json!({ "type": "BasicRNNCell", "num_units": 4 }),
        ),
        ("lstm", json!({ "type": "BasicLSTMCell", "num_units": 4 })),
        ("gru", json!({ "type": "GRUCell", "num_units": 4 })),
        (
            "peephole lstm",
            json!({ "type": "LSTMCell", "num_units": 5, "use_peepholes": true, "num_proj": 3 }),
        ),
    ]
}

fn build(cx: &CaseContext<'_>, config: &Value) -> Result<Any> {
    cell_from_config(cx.device, config, DEPTH, cx.draw.dtype())
}

/// The arguments of a `dynamic_rnn` call.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    steps: usize,
    lengths: Option<&'static [i64]>,
    batch: usize,
    time_major: bool,
    with_state: bool,
}

const CALL: Call = Call {
    name: "all steps",
    steps: STEPS,
    lengths: None,
    batch: BATCH,
    time_major: false,
    with_state: false,
};

const CALLS: [Call; 10] = [
    CALL,
    Call {
        name: "ragged",
        lengths: Some(&LENGTHS),
        with_state: true,
        ..CALL
    },
    Call {
        name: "ragged, time first",
        lengths: Some(&LENGTHS),
        time_major: true,
        ..CALL
    },
    Call {
        name: "no row runs",
        lengths: Some(&[0, 0, 0, 0]),
        with_state: true,
        ..CALL
    },
    Call {
        name: "no row runs to the end",
        lengths: Some(&[2, 1, 0, 2]),
        ..CALL
    },
    Call {
        name: "every row longer",
        lengths: Some(&[9, 5, 4, 100]),
        ..CALL
    },
    Call {
        name: "no step",
        steps: 0,
        with_state: true,
        ..CALL
    },
    Call {
        name: "one step of one row",
        steps: 1,
        batch: 1,
        with_state: true,
        ..CALL
    },
    Call {
        name: "no row",
        batch: 0,
        lengths: Some(&[]),
        ..CALL
    },
    Call {
        name: "one row",
        batch: 1,
        steps: 9,
        lengths: Some(&[7]),
        ..CALL
    },
];

fn dynamic() -> Vec<Case> {
    let mut all = Vec::new();
    for (kind, config) in kinds() {
        for call in CALLS {
            let config = config.clone();
            all.push(case(
                format!("dynamic_rnn of {kind}, {}", call.name),
                move |cx| run_dynamic(cx, &config, call),
            ));
        }
        // More rows and hidden units than a block of a device has.
        let mut wide = config;
        wide["num_units"] = json!(70);
        let call = Call {
            name: "many rows and units",
            steps: 6,
            batch: 37,
            ..CALL
        };
        all.push(case(
            format!("dynamic_rnn of {kind}, {}", call.name),
            move |cx| run_dynamic(cx, &wide, call),
        ));
    }
    all.push(case(
        "dynamic_rnn of nested inputs, states and outputs",
        |cx| {
            let dtype = cx.draw.dtype();
            let cell = ToyNested::new(cx.device, 3, [4, 2, 3], dtype)?;
            let state = cell.zero_state(BATCH)?;
            let model = Model::new(cx, cell)?
                .give_like(cx, "state", &state)?
                .give(cx, "a", &[BATCH, STEPS, 3])?
                .give(cx, "b", &[BATCH, STEPS, 2, 3])?;
            model.differentiate(cx, |model| {
                let result = DynamicRnn::new(&model.module)
                    .sequence_length(&LENGTHS)
                    .initial_state(model.given_like("state", &state)?)
                    .run(&(model.given("a")?, model.given("b")?))?;
                Ok(results(&result.outputs, &result.state))
            })
        },
    ));
    all
}

fn run_dynamic(cx: &CaseContext<'_>, config: &Value, call: Call) -> Result<Results> {
    let cell = build(cx, config)?;
    let state = cell.zero_state(call.batch)?;
    let (first, second) = match call.time_major {
        true => (call.steps, call.batch),
        false => (call.batch, call.steps),
    };
    let mut model = Model::new(cx, cell)?.give(cx, "inputs", &[first, second, DEPTH])?;
    if call.with_state {
        model = model.give_like(cx, "state", &state)?;
    }
    model.differentiate(cx, |model| {
        let mut rnn = DynamicRnn::new(&model.module).time_major(call.time_major);
        if let Some(lengths) = call.lengths {
            rnn = rnn.sequence_length(lengths);
        }
        if call.with_state {
            rnn = rnn.initial_state(model.given_like("state", &state)?);
        }
        let result = rnn.run(&model.given("inputs")?)?;
        Ok(results(&result.outputs, &result.state))
    })
}

/// Drivers over lists of steps.
fn lists() -> Vec<Case> {
    let mut all = Vec::new();
    for (kind, config) in kinds() {
        for (name, lengths) in [
            ("all steps", None),
            ("ragged", Some(LENGTHS)),
            ("no row runs to the end", Some([2, 1, 0, 2])),
        ] {
            let config = config.clone();
            all.push(case(format!("static_rnn of {kind}, {name}"), move |cx| {
                let cell = build(cx, &config)?;
                let state = cell.zero_state(BATCH)?;
                let model = Model::new(cx, cell)?.give_like(cx, "state", &state)?.give(
                    cx,
                    "inputs",
                    &[BATCH, STEPS, DEPTH],
                )?;
                model.differentiate(cx, |model| {
                    let mut rnn = StaticRnn::new(&model.module)
                        .initial_state(model.given_like("state", &state)?);
                    if let Some(lengths) = lengths {
                        rnn = rnn.sequence_length(&lengths);
                    }
                    let result = rnn.run(&unstack(&model.given("inputs")?, false)?)?;
                    Ok(results(&result.outputs, &result.state))
                })
            }));
        }
    }
    all.push(case("static_state_saving_rnn", |cx| {
        let cell = build(cx, &kinds()[1].1)?;
        let state = cell.zero_state(BATCH)?;
        let model = Model::new(cx, cell)?.give_like(cx, "state", &state)?.give(
            cx,
            "inputs",
            &[BATCH, STEPS, DEPTH],
        )?;
        model.differentiate(cx, |model| {
            let names = ["c", "h"];
            let mut saver = Saver(HashMap::new());
            for name in names {
                saver.save_state(name, model.given(&format!("state/{name}"))?)?;
            }
            // Two chunks; the second one starts from the final state of the first.
            let mut all = Outputs::new();
            let inputs = unstack(&model.given("inputs")?, false)?;
            for (i, chunk) in inputs.chunks(2).enumerate() {
                let rnn = StaticRnn::new(&model.module).sequence_length(&[2, 0, 1, 9]);
                let result =
                    static_state_saving_rnn(rnn, &model.module, chunk, &mut saver, &names)?;
                all.extend(named(&format!("chunk {i}"), &result.outputs));
            }
            for name in names {
                all.push((format!("saved {name}"), saver.state(name)?));
            }
            Ok(all)
        })
    }));
    all
}

/// States by name.
struct Saver(HashMap<String, T>);

impl StateSaver<TestDevice> for Saver {
    fn state(&self, name: &str) -> Result<T> {
        let found = self.0.get(name).cloned();
        found.ok_or_else(|| Error::argument("state", "name", format!("`{name}` is not known")))
    }

    fn save_state(&mut self, name: &str, value: T) -> Result<()> {
        self.0.insert(name.into(), value);
        Ok(())
    }
}

/// Bidirectional drivers.
fn both_ways() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, lengths, time_major) in [
        ("all steps", None, false),
        ("ragged", Some(WITHIN), false),
        ("ragged, time first", Some(WITHIN), true),
    ] {
        all.push(case(
            format!("bidirectional_dynamic_rnn, {name}"),
            move |cx| {
                let model = pair(cx)?;
                model.differentiate(cx, |model| {
                    let (fw, bw) = &model.module;
                    let mut rnn = BidirectionalDynamicRnn::new(fw, bw)
                        .initial_state_fw(model.given_like("state_fw", &fw.zero_state(BATCH)?)?)
                        .initial_state_bw(model.given_like("state_bw", &bw.zero_state(BATCH)?)?)
                        .time_major(time_major);
                    if let Some(lengths) = lengths {
                        rnn = rnn.sequence_length(&lengths);
                    }
                    // There are as many steps as rows, so either axis may be time.
                    let result = rnn.run(&model.given("inputs")?)?;
                    Ok(results(&result.outputs, &result.state))
                })
            },
        ));
    }
    for lengths in [None, Some(WITHIN)] {
        let name = if lengths.is_some() {
            "ragged"
        } else {
            "all steps"
        };
        all.push(case(
            format!("static_bidirectional_rnn, {name}"),
            move |cx| {
                let model = pair(cx)?;
                model.differentiate(cx, |model| {
                    let (fw, bw) = &model.module;
                    let forward = StaticRnn::new(fw)
                        .initial_state(model.given_like("state_fw", &fw.zero_state(BATCH)?)?);
                    let backward = StaticRnn::new(bw)
                        .initial_state(model.given_like("state_bw", &bw.zero_state(BATCH)?)?);
                    let inputs = unstack(&model.given("inputs")?, false)?;
                    let lengths = lengths.as_ref().map(Lengths::from);
                    let result =
                        static_bidirectional_rnn(forward, backward, &inputs, lengths.as_ref())?;
                    Ok(results(&result.outputs, &result.state))
                })
            },
        ));
        all.push(case(
            format!("stack_bidirectional_dynamic_rnn, {name}"),
            move |cx| {
                let gru = &kinds()[2].1;
                let layer = |depth| cell_from_config(cx.device, gru, depth, cx.draw.dtype());
                let side = || Ok::<_, Error>(vec![layer(DEPTH)?, layer(8)?]);
                let model = Model::new(cx, (side()?, side()?))?.give(
                    cx,
                    "inputs",
                    &[BATCH, STEPS, DEPTH],
                )?;
                model.differentiate(cx, |model| {
                    let (fw, bw) = &model.module;
                    let mut rnn = StackBidirectionalDynamicRnn::new(fw, bw);
                    if let Some(lengths) = lengths {
                        rnn = rnn.sequence_length(&lengths);
                    }
                    let result = rnn.run(&model.given("inputs")?)?;
                    Ok(results(&result.outputs, &result.state))
                })
            },
        ));
    }
    all
}

/// A forward LSTM and a backward GRU, with states and inputs.
fn pair(cx: &CaseContext<'_>) -> Result<Model<(Any, Any)>> {
    let [_, (_, lstm), (_, gru), _] = kinds();
    let cells = (build(cx, &lstm)?, build(cx, &gru)?);
    let states = (cells.0.zero_state(BATCH)?, cells.1.zero_state(BATCH)?);
    Model::new(cx, cells)?
        .give_like(cx, "state_fw", &states.0)?
        .give_like(cx, "state_bw", &states.1)?
        .give(cx, "inputs", &[BATCH, STEPS, DEPTH])
}

/// Cells that process a whole sequence at once.
fn whole_sequences() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, lengths) in [("all steps", None), ("ragged", Some(WITHIN))] {
        all.push(case(format!("lstm_block_fused_cell, {name}"), move |cx| {
            let cell = LstmBlockFusedCellBuilder::new(DEPTH, 4);
            let cell = cell.build_for(cx.device, DEPTH, cx.draw.dtype())?;
            whole(cx, cell, lengths, Clone::clone)
        }));
        all.push(case(format!("fused_rnn_cell_adaptor, {name}"), move |cx| {
            let cell = build(cx, &kinds()[2].1)?;
            whole(cx, cell, lengths, |cell| FusedRnnCellAdaptor(cell.clone()))
        }));
        all.push(case(
            format!("time_reversed_fused_rnn, {name}"),
            move |cx| {
                let cell = build(cx, &kinds()[1].1)?;
                let reversed = |cell: &Any| TimeReversedFusedRnn(FusedRnnCellAdaptor(cell.clone()));
                whole(cx, cell, lengths, reversed)
            },
        ));
    }
    all
}

/// A case for a cell that processes a whole sequence.
fn whole<C, F>(
    cx: &CaseContext<'_>,
    cell: C,
    lengths: Option<[i64; BATCH]>,
    fused: impl Fn(&C) -> F,
) -> Result<Results>
where
    C: Module<Backend = TestDevice>,
    F: FusedRnnCell<Backend = TestDevice>,
{
    let model = Model::new(cx, cell)?.give(cx, "inputs", &[STEPS, BATCH, DEPTH])?;
    model.differentiate(cx, |model| {
        let lengths = lengths.as_ref().map(Lengths::from);
        let result = fused(&model.module).run(&model.given("inputs")?, None, lengths.as_ref())?;
        Ok(results(&result.outputs, &result.state))
    })
}

/// `raw_rnn` for cells whose state has one tensor or two.
fn loops() -> Vec<Case> {
    let kinds = kinds().into_iter().take(3);
    kinds
        .map(|(kind, config)| {
            case(format!("raw_rnn of {kind}"), move |cx| {
                feed_back(cx, &config)
            })
        })
        .collect()
}

/// A loop that feeds its output back and carries the sum of its outputs.
fn feed_back(cx: &CaseContext<'_>, config: &Value) -> Result<Results> {
    // The output becomes the next input, so it must have the same width.
    let mut config = config.clone();
    config["num_units"] = json!(DEPTH);
    let cell = build(cx, &config)?;
    let like = cell.zero_state(BATCH)?;
    let model =
        Model::new(cx, cell)?
            .give_like(cx, "state", &like)?
            .give(cx, "input", &[BATCH, DEPTH])?;
    let lengths = Tensor::from_slice(cx.device, &WITHIN, &[BATCH])?;
    let ended = |time: usize| {
        let meta = Meta::new(Shape::SCALAR, DType::I64);
        lengths.compare(Compare::Le, &Tensor::full(cx.device, time as f64, meta)?)
    };
    model.differentiate(cx, |model| {
        let zero = model.module.zero_output(BATCH)?;
        let start = RawRnnStep {
            finished: ended(0)?,
            input: model.given("input")?,
            state: model.given_like("state", &like)?,
            emit: (zero.clone(), zero.clone()),
            loop_state: zero,
        };
        let step = StepContext::training(SEED);
        let result = raw_rnn(&model.module, step, start, |time, output, state, sum: T| {
            Ok(RawRnnStep {
                finished: ended(time)?,
                input: output.affine(0.5, 0.1)?,
                state: state.clone(),
                emit: (output.clone(), output.square()?),
                loop_state: sum.add(output)?,
            })
        })?;
        let mut all = results(&result.emits, &result.state);
        all.extend(named("loop state", &result.loop_state));
        Ok(all)
    })
}
