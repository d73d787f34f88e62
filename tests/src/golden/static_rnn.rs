//! Cases of `static_rnn`.

use backend_api::{Result as ApiResult, Tensor};
use rnn_core::{Cell, Nest, StaticRnn};

use super::case::{DynamicRnnCase, InputKind};
use super::check::{Graph, Worst, extent, join};
use super::file::GoldenFile;
use super::{Trouble, dropout};
use crate::devices::TestDevice;

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &DynamicRnnCase,
) -> Result<Worst, Trouble> {
    if case.input != InputKind::Tensor {
        return Err(Trouble::Unsupported("nested inputs of static_rnn".into()));
    }
    let (size, dtype) = (case.input_size, case.dtype.dtype());
    let cell = dropout::cell(device, file, &case.cell, size, dtype)?;
    let mut graph = Graph::new();
    let cell = graph.model(file, &join("rnn", &cell.scope()), &cell)?;
    let x = graph.leaf(file, device, "input/x")?;
    let inputs = unstack(&x, case.time_major)?;
    // Enables dropout, with the file's masks; nothing else depends on the mode.
    let mut rnn = StaticRnn::new(&cell).training(0);
    if let Some(lengths) = file.lengths(case.sequence_length.as_deref())? {
        rnn = rnn.sequence_length(&lengths);
    }
    if case.initial_state {
        let batch = extent(&x, usize::from(case.time_major))?;
        let state = graph.leaf_nest(file, "initial_state", &cell.zero_state(batch)?)?;
        rnn = rnn.initial_state(state);
    }
    let result = rnn.run(&inputs)?;
    graph.results("outputs", &stack(&result.outputs)?);
    graph.results("final_state", &result.state);
    graph.compare(file, dtype, &case.no_gradient)
}

/// The steps of a sequence, one by one.
pub(crate) fn unstack(
    x: &Tensor<TestDevice>,
    time_major: bool,
) -> ApiResult<Vec<Tensor<TestDevice>>> {
    let axis = usize::from(!time_major);
    (0..extent(x, axis)?).map(|t| x.select(axis, t)).collect()
}

/// Stacks steps to one nest with a leading time axis.
pub(super) fn stack<N: Nest<TestDevice>>(steps: &[N]) -> ApiResult<N> {
    let leaves: Vec<Vec<&Tensor<TestDevice>>> = steps.iter().map(Nest::leaves).collect();
    let mut column = 0;
    steps[0].map(&mut |_| {
        let parts: Vec<_> = leaves
            .iter()
            .map(|leaves| leaves[column].unsqueeze(0))
            .collect::<ApiResult<_>>()?;
        column += 1;
        let parts: Vec<_> = parts.iter().collect();
        Tensor::concat(&parts, 0)
    })
}
