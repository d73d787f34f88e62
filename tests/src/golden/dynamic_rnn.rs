//! Cases of `dynamic_rnn`.

use rnn_core::{Cell, DynamicRnn, cell_from_config};

use super::Trouble;
use super::case::DynamicRnnCase;
use super::check::{Graph, Worst};
use super::file::GoldenFile;
use crate::devices::TestDevice;

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &DynamicRnnCase,
) -> Result<Worst, Trouble> {
    let cell = cell_from_config(device, &case.cell, case.input, case.dtype.dtype())?;
    let mut graph = Graph::new();
    let cell = graph.model(file, &format!("rnn/{}", cell.scope()), &cell)?;
    let x = graph.leaf(file, device, "input/x")?;
    let mut rnn = DynamicRnn::new(&cell)
        .time_major(case.time_major)
        .swap_memory(case.swap_memory);
    if let Some(iterations) = case.parallel_iterations {
        rnn = rnn.parallel_iterations(iterations);
    }
    if let Some(lengths) = &case.sequence_length {
        rnn = rnn.sequence_length(lengths);
    }
    if case.initial_state {
        let batch = x.shape()[usize::from(case.time_major)];
        let state = graph.leaf_nest(file, "initial_state", &cell.zero_state(batch)?)?;
        rnn = rnn.initial_state(state);
    }
    let result = rnn.run(&x)?;
    graph.results("outputs", &result.outputs);
    graph.results("final_state", &result.state);
    graph.compare(file, case.dtype.dtype(), &case.no_gradient)
}
