//! Cases of `dynamic_rnn`.

use backend_api::Result as ApiResult;
use rnn_core::cells::PhasedLstmCellBuilder;
use rnn_core::{Cell, DynamicRnn, Nest};
use serde_json::Value;

use super::case::{DynamicRnnCase, InputKind, read};
use super::check::{Graph, Worst, extent, join};
use super::file::GoldenFile;
use super::toy_nested::ToyNested;
use super::{Trouble, dropout};
use crate::devices::TestDevice;

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &DynamicRnnCase,
) -> Result<Worst, Trouble> {
    let (size, dtype) = (case.input_size, case.dtype.dtype());
    match case.input {
        InputKind::Tensor => {
            let cell = dropout::cell(device, file, &case.cell, size, dtype)?;
            run_cell(file, case, &cell, |graph| {
                graph.leaf(file, device, "input/x")
            })
        }
        InputKind::Phased => {
            let options = of_class(&case.cell, "PhasedLSTMCell")?;
            let cell = read::<PhasedLstmCellBuilder>(options)?
                .input_size(size)
                .dtype(dtype)
                .build(device)?;
            run_cell(file, case, &cell, |graph| {
                let time = graph.leaf(file, device, "input/0")?;
                Ok((time, graph.leaf(file, device, "input/1")?))
            })
        }
        InputKind::Nested => {
            let cell = ToyNested::from_config(device, &case.cell, size, dtype)?;
            run_cell(file, case, &cell, |graph| {
                let a = graph.leaf(file, device, "input/0")?;
                Ok((a, graph.leaf(file, device, "input/1")?))
            })
        }
    }
}

/// The options of a cell of `class`, whose inputs are not a single tensor.
fn of_class(cell: &Value, class: &str) -> Result<Value, Trouble> {
    let mut options = cell.clone();
    match options.as_object_mut().and_then(|o| o.remove("type")) {
        Some(Value::String(found)) if found == class => Ok(options),
        found => Err(Trouble::Unsupported(format!("{found:?} with such inputs"))),
    }
}

/// Runs a cell of any type; `inputs` creates the inputs as leaves.
pub(super) fn run_cell<C: Cell<Backend = TestDevice>>(
    file: &GoldenFile,
    case: &DynamicRnnCase,
    cell: &C,
    inputs: impl FnOnce(&mut Graph<TestDevice>) -> ApiResult<C::Input>,
) -> Result<Worst, Trouble> {
    let mut graph = Graph::new();
    let cell = graph.model(file, &join("rnn", &cell.scope()), cell)?;
    let inputs = inputs(&mut graph)?;
    // Enables dropout, with the file's masks; nothing else depends on the mode.
    let mut rnn = DynamicRnn::new(&cell)
        .training(0)
        .time_major(case.time_major)
        .swap_memory(case.swap_memory);
    if let Some(iterations) = case.parallel_iterations {
        rnn = rnn.parallel_iterations(iterations);
    }
    if let Some(lengths) = file.lengths(case.sequence_length.as_deref())? {
        rnn = rnn.sequence_length(&lengths);
    }
    if case.initial_state {
        let batch = extent(inputs.leaves()[0], usize::from(case.time_major))?;
        let state = graph.leaf_nest(file, "initial_state", &cell.zero_state(batch)?)?;
        rnn = rnn.initial_state(state);
    }
    let result = rnn.run(&inputs)?;
    graph.results("outputs", &result.outputs);
    graph.results("final_state", &result.state);
    graph.compare(file, case.dtype.dtype(), &case.no_gradient)
}
