//! Calls of drivers.

use backend_api::{DType, Error, Meta, Result, Shape, Tensor};
use rnn_core::cells::GruCellBuilder;
use rnn_core::{
    BasicLstmCell, BasicRnnCell, BidirectionalDynamicRnn, Cell, DynamicRnn, GruCell, LstmState,
    RawRnnStep, StateSaver, StaticRnn, StepContext, raw_rnn, static_bidirectional_rnn,
    static_state_saving_rnn,
};
use serde_json::json;

use super::super::Trouble;
use super::super::toy_nested::ToyNested;
use super::Verdict::{Accepted, ByType, OnlyHere, OnlyThere, Refused};
use super::{BATCH, Call, DEPTH, STEPS, T, UNITS, accepted, floats, ints, numbers};
use crate::devices::TestDevice;

const NO_DTYPE: &str = "outputs and zero state have the type of the cell";
const UNKNOWN_SIZE: &str = "the sizes of a tensor are known";

pub(super) const CALLS: &[Call] = &[
    Call(
        "dynamic_rnn: cell is not a cell",
        ByType("the argument implements `Cell`"),
    ),
    Call(
        "dynamic_rnn: no initial_state, no dtype",
        OnlyHere(NO_DTYPE, accepted::dynamic_without_dtype),
    ),
    Call("dynamic_rnn: unknown input depth", ByType(UNKNOWN_SIZE)),
    Call(
        "dynamic_rnn: rank-2 input",
        Refused(&["inputs", "[3, 4]", "[batch, time, depth]"], |device| {
            dynamic(device, &[BATCH, STEPS])
        }),
    ),
    Call(
        "dynamic_rnn: rank-1 input",
        Refused(&["inputs", "[3]", "[batch, time, depth]"], |device| {
            dynamic(device, &[BATCH])
        }),
    ),
    Call(
        "dynamic_rnn: rank-2 sequence_length",
        Refused(&["sequence_length", "[1, 3]", "[3]"], |device| {
            let x = floats(device, &[BATCH, STEPS, DEPTH])?;
            let cell = gru(device)?;
            let rnn = DynamicRnn::new(&cell).sequence_length(&ints(device, &[1, BATCH])?);
            rnn.run(&x).map(drop)
        }),
    ),
    Call(
        "dynamic_rnn: sequence_length of wrong size (run time)",
        Refused(&["sequence_length", "[2]", "3"], |device| {
            let x = floats(device, &[BATCH, STEPS, DEPTH])?;
            let cell = gru(device)?;
            let rnn = DynamicRnn::new(&cell).sequence_length(&[4, 2]);
            rnn.run(&x).map(drop)
        }),
    ),
    Call(
        "dynamic_rnn: sequence_length > max_time (run time; no error)",
        Accepted(
            "the length is clipped to the number of steps, also in gradients",
            accepted::lengths_above_the_steps,
        ),
    ),
    Call(
        "dynamic_rnn: negative sequence_length (run time; no error)",
        OnlyThere(
            "TensorFlow treats it as 0, but it is an error",
            &["sequence_length", "row 1", "-1", "negative"],
            |device| {
                let x = floats(device, &[BATCH, STEPS, DEPTH])?;
                let cell = gru(device)?;
                let rnn = DynamicRnn::new(&cell).sequence_length(&[4, -1, 2]);
                rnn.run(&x).map(drop)
            },
        ),
    ),
    Call(
        "dynamic_rnn: nested inputs with different max_time",
        Refused(&["inputs 1", "[3, 5, 2, 2]", "[3, 4, 2]"], |device| {
            nested(device, BATCH, STEPS + 1)
        }),
    ),
    Call(
        "dynamic_rnn: nested inputs with different batch",
        Refused(&["inputs 1", "[2, 4, 2, 2]", "[3, 4, 2]"], |device| {
            nested(device, BATCH - 1, STEPS)
        }),
    ),
    Call(
        "dynamic_rnn: initial_state structure mismatch (LSTM given one tensor)",
        ByType(
            "the state has the cell's type `State`; an `AnyCell` rejects another type at run time",
        ),
    ),
    Call(
        "dynamic_rnn: initial_state wrong width",
        Refused(&["state", "[3, 6]", "[3, 5]"], |device| {
            let x = floats(device, &[BATCH, STEPS, DEPTH])?;
            let state = floats(device, &[BATCH, UNITS + 1])?;
            let cell = gru(device)?;
            DynamicRnn::new(&cell)
                .initial_state(state)
                .run(&x)
                .map(drop)
        }),
    ),
    Call(
        "dynamic_rnn: heterogeneous state dtypes without dtype",
        Refused(&["state h", "f64", "f32"], |device| {
            let x = floats(device, &[BATCH, STEPS, DEPTH])?;
            let dims = [BATCH, UNITS];
            let state = LstmState {
                c: floats(device, &dims)?,
                h: numbers(device, &dims, DType::F64)?,
            };
            let cell = lstm(device)?;
            DynamicRnn::new(&cell)
                .initial_state(state)
                .run(&x)
                .map(drop)
        }),
    ),
    Call(
        "dynamic_rnn: inputs f64, dtype f32",
        Refused(&["x", "f64", "f32"], |device| {
            let x = numbers(device, &[BATCH, STEPS, DEPTH], DType::F64)?;
            DynamicRnn::new(&gru(device)?).run(&x).map(drop)
        }),
    ),
    Call(
        "dynamic_rnn: integer inputs",
        Refused(&["x", "i32", "f32"], |device| {
            let x = ints(device, &[BATCH, STEPS, DEPTH])?;
            DynamicRnn::new(&gru(device)?).run(&x).map(drop)
        }),
    ),
    Call(
        "dynamic_rnn: time dimension 0 (run time; no error)",
        Accepted(
            "no outputs; the final state is the initial state",
            accepted::no_time,
        ),
    ),
    Call(
        "dynamic_rnn: batch 0 (run time; no error)",
        Accepted("empty outputs and states", accepted::no_rows),
    ),
    Call(
        "bidirectional_dynamic_rnn: sequence_length > max_time (run time)",
        Refused(&["sequence_length", "row 0", "5", "4 steps"], |device| {
            let x = floats(device, &[BATCH, STEPS, DEPTH])?;
            let (forward, backward) = (gru(device)?, gru(device)?);
            BidirectionalDynamicRnn::new(&forward, &backward)
                .sequence_length(&[5, 2, 4])
                .run(&x)
                .map(drop)
        }),
    ),
    Call(
        "bidirectional_dynamic_rnn: no dtype",
        OnlyHere(NO_DTYPE, accepted::bidirectional_without_dtype),
    ),
    Call(
        "static_rnn: inputs not a list",
        ByType("the inputs are a slice"),
    ),
    Call(
        "static_rnn: empty inputs",
        Refused(&["inputs", "empty"], |device| {
            StaticRnn::new(&gru(device)?).run(&[]).map(drop)
        }),
    ),
    Call(
        "static_rnn: no dtype",
        OnlyHere(NO_DTYPE, accepted::static_without_dtype),
    ),
    Call(
        "static_rnn: batch mismatch",
        Refused(&["inputs", "[4, 2]", "[3, 2]"], |device| {
            let x = [
                floats(device, &[BATCH, DEPTH])?,
                floats(device, &[BATCH + 1, DEPTH])?,
            ];
            StaticRnn::new(&gru(device)?).run(&x).map(drop)
        }),
    ),
    Call("static_rnn: unknown depth", ByType(UNKNOWN_SIZE)),
    Call(
        "static_rnn: rank-2 sequence_length",
        Refused(&["sequence_length", "[1, 1]", "[3]"], |device| {
            let x = [floats(device, &[BATCH, DEPTH])?];
            let cell = gru(device)?;
            let rnn = StaticRnn::new(&cell).sequence_length(&ints(device, &[1, 1])?);
            rnn.run(&x).map(drop)
        }),
    ),
    Call(
        "static_bidirectional_rnn: empty",
        Refused(&["inputs", "empty"], |device| {
            let (forward, backward) = (gru(device)?, gru(device)?);
            let (forward, backward) = (StaticRnn::new(&forward), StaticRnn::new(&backward));
            static_bidirectional_rnn(forward, backward, &[], None).map(drop)
        }),
    ),
    Call(
        "static_state_saving_rnn: name/state structure mismatch",
        Refused(&["state_name", "`s`", "`c`, `h`"], |device| {
            state_saving(device, &["s"])
        }),
    ),
    Call(
        "static_state_saving_rnn: wrong number of names",
        Refused(&["state_name", "`a`, `b`, `c`", "`c`, `h`"], |device| {
            state_saving(device, &["a", "b", "c"])
        }),
    ),
    Call(
        "raw_rnn: loop_fn not callable",
        ByType("`loop_fn` implements `FnMut`"),
    ),
    Call(
        "raw_rnn: initial state structure mismatch",
        ByType("the state has the cell's type `State`"),
    ),
    Call(
        "raw_rnn: emit structure changes",
        Refused(&["emit", "`0`", "`0`, `1`"], emit_changes),
    ),
];

fn gru(device: &TestDevice) -> Result<GruCell<TestDevice>> {
    GruCellBuilder::new(DEPTH, UNITS).build(device)
}

fn lstm(device: &TestDevice) -> Result<BasicLstmCell<TestDevice>> {
    BasicLstmCell::new(device, DEPTH, UNITS)
}

fn dynamic(device: &TestDevice, dims: &[usize]) -> Result<()> {
    let x = floats(device, dims)?;
    DynamicRnn::new(&gru(device)?).run(&x).map(drop)
}

/// Two inputs; the second one has `rows` rows and `steps` steps.
fn nested(device: &TestDevice, rows: usize, steps: usize) -> Result<()> {
    let options = json!({ "type": "ToyNested", "n": UNITS, "j": 2, "k": 2 });
    let cell = match ToyNested::from_config(device, &options, DEPTH, DType::F32) {
        Ok(cell) => cell,
        Err(Trouble::Wrong(what) | Trouble::Unsupported(what)) => {
            return Err(Error::argument("toy_nested", "options", what));
        }
    };
    let a = floats(device, &[BATCH, STEPS, DEPTH])?;
    let b = floats(device, &[rows, steps, 2, 2])?;
    DynamicRnn::new(&cell).run(&(a, b)).map(drop)
}

/// A state saver that accepts every name.
struct Anything<'a>(&'a TestDevice);

impl StateSaver<TestDevice> for Anything<'_> {
    fn state(&self, _: &str) -> Result<T> {
        floats(self.0, &[BATCH, UNITS])
    }

    fn save_state(&mut self, _: &str, _: T) -> Result<()> {
        Ok(())
    }
}

fn state_saving(device: &TestDevice, names: &[&str]) -> Result<()> {
    let cell = lstm(device)?;
    let x = [floats(device, &[BATCH, DEPTH])?];
    let mut saver = Anything(device);
    static_state_saving_rnn(StaticRnn::new(&cell), &cell, &x, &mut saver, names).map(drop)
}

/// A loop that emits one tensor at its first step and two at its second.
fn emit_changes(device: &TestDevice) -> Result<()> {
    let cell = BasicRnnCell::new(device, DEPTH, DEPTH)?;
    let input = floats(device, &[BATCH, DEPTH])?;
    let next = |state: &T, emits: usize| -> Result<_> {
        Ok(RawRnnStep {
            finished: Tensor::zeros(device, Meta::new(Shape::new(&[BATCH])?, DType::Bool))?,
            input: input.clone(),
            state: state.clone(),
            emit: vec![state.clone(); emits],
            loop_state: (),
        })
    };
    let start = next(&cell.zero_state(BATCH)?, 1)?;
    raw_rnn(
        &cell,
        StepContext::default(),
        start,
        |steps, _, state, ()| next(state, steps),
    )
    .map(drop)
}
