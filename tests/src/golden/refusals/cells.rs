//! Calls of cells, wrappers and operations.

use backend_api::{Result, Tensor};
use rnn_core::{
    BasicRnnCell, Cell, DropoutWrapper, DynamicRnn, GruCell, MultiRnnCell, ResidualWrapper,
    StepContext,
};
use rnn_train::losses::softmax_cross_entropy;

use super::Verdict::{Accepted, ByType, OnlyHere, Refused};
use super::{BATCH, Call, DEPTH, STEPS, T, UNITS, accepted, floats, ints};
use crate::devices::TestDevice;

pub(super) const CALLS: &[Call] = &[
    Call(
        "MultiRNNCell: no cells",
        Refused(&["cells", "at least one"], |_| {
            MultiRnnCell::<Vec<GruCell<TestDevice>>>::new(vec![]).map(drop)
        }),
    ),
    Call(
        "MultiRNNCell: not a list",
        ByType("the cells are a `Vec` or a tuple"),
    ),
    Call(
        "MultiRNNCell: tuple state with state_is_tuple=False",
        OnlyHere(
            "`ConcatState` joins the tensors of any state",
            accepted::joined_state,
        ),
    ),
    Call(
        "MultiRNNCell: [cell]*2 with input depth != num_units",
        Refused(&["cells", "[1, 5]", "depth 2"], |device| {
            MultiRnnCell::shared(basic(device)?, 2).map(drop)
        }),
    ),
    Call(
        "DropoutWrapper: keep_prob 1.5",
        Refused(&["input_keep_prob", "1.5"], |device| {
            let wrapper = DropoutWrapper::builder(basic(device)?);
            wrapper.input_keep_prob(1.5).build().map(drop)
        }),
    ),
    Call(
        "DropoutWrapper: keep_prob -0.1",
        Refused(&["output_keep_prob", "-0.1"], |device| {
            let wrapper = DropoutWrapper::builder(basic(device)?);
            wrapper.output_keep_prob(-0.1).build().map(drop)
        }),
    ),
    Call(
        "DropoutWrapper: not a cell",
        ByType("the wrapped value implements `Cell`"),
    ),
    Call(
        "DropoutWrapper: visitor not callable",
        ByType("a `StateFilter` is created from a function"),
    ),
    Call(
        "DropoutWrapper: variational without dtype",
        OnlyHere(
            "the noise has the type of the tensor",
            accepted::variational_output,
        ),
    ),
    Call(
        "DropoutWrapper: variational input dropout without input_size",
        OnlyHere(
            "the noise has the size of the tensor",
            accepted::variational_input,
        ),
    ),
    Call(
        "ResidualWrapper: depth mismatch",
        Refused(&["input", "[3, 2]", "[3, 5]"], |device| {
            let x = floats(device, &[BATCH, STEPS, DEPTH])?;
            let cell = ResidualWrapper::new(basic(device)?);
            DynamicRnn::new(&cell).run(&x).map(drop)
        }),
    ),
    Call(
        "cell: rank-3 input",
        Refused(&["x", "[3, 4, 2]", "[batch, depth]"], |device| {
            let x = floats(device, &[BATCH, STEPS, DEPTH])?;
            step(&basic(device)?, &x, UNITS)
        }),
    ),
    Call(
        "cell: state width mismatch",
        Refused(&["state", "[3, 6]", "[3, 5]"], |device| {
            let x = floats(device, &[BATCH, DEPTH])?;
            step(&basic(device)?, &x, UNITS + 1)
        }),
    ),
    Call(
        "cell: int dtype",
        Refused(&["x", "i32", "f32"], |device| {
            let x = ints(device, &[BATCH, DEPTH])?;
            step(&basic(device)?, &x, UNITS)
        }),
    ),
    Call(
        "cell: second call with another input depth",
        Refused(&["x", "[3, 4]", "depth 2"], |device| {
            let cell = basic(device)?;
            step(&cell, &floats(device, &[BATCH, DEPTH])?, UNITS)?;
            step(&cell, &floats(device, &[BATCH, DEPTH + 2])?, UNITS)
        }),
    ),
    Call(
        "cell: two cells of one kind in one scope without reuse",
        Accepted(
            "each cell has its own parameters, and the model names them",
            accepted::two_cells,
        ),
    ),
    Call(
        "dynamic_rnn twice in one scope, two cells",
        OnlyHere(
            "scopes cannot clash: each cell has its own parameters",
            accepted::two_cells,
        ),
    ),
    Call(
        "dynamic_rnn twice, same cell object (no error: weights shared)",
        Accepted(
            "the parameters are shared, and their gradients are summed",
            accepted::one_cell_twice,
        ),
    ),
    Call(
        "zero_state: no dtype",
        OnlyHere(
            "the zero state has the type of the cell",
            accepted::zero_state_without_dtype,
        ),
    ),
    Call(
        "reverse_sequence: length > size (run time)",
        Refused(&["lengths", "5"], |device| {
            let x = floats(device, &[BATCH, STEPS, DEPTH])?;
            let lengths = Tensor::from_slice(device, &[5i32, 1, 2], &[BATCH])?;
            x.reverse(&lengths, 1, 0).map(drop)
        }),
    ),
    Call(
        "sparse softmax: label out of range (run time)",
        Refused(&["labels", "7"], |device| {
            let logits = floats(device, &[2, 3])?;
            let labels = Tensor::from_slice(device, &[1i32, 7], &[2])?;
            softmax_cross_entropy(&logits, &labels).map(drop)
        }),
    ),
];

fn basic(device: &TestDevice) -> Result<BasicRnnCell<TestDevice>> {
    BasicRnnCell::new(device, DEPTH, UNITS)
}

/// A step from a state of some width.
fn step(cell: &BasicRnnCell<TestDevice>, x: &T, width: usize) -> Result<()> {
    let state = floats(x.device(), &[BATCH, width])?;
    cell.step(&StepContext::default(), x, &state).map(drop)
}
