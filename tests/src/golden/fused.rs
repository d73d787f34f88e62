//! Cases of `LSTMBlockFusedCell`, forwards and reversed.

use backend_api::DType;
use rnn_core::cells::{LstmBlockFusedCell, LstmBlockFusedCellBuilder};
use rnn_core::{FusedRnnCell, Lengths, LstmState, TimeReversedFusedRnn};

use super::Trouble;
use super::case::{DynamicRnnCase, read};
use super::check::{Graph, Worst};
use super::file::GoldenFile;
use crate::devices::TestDevice;

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &DynamicRnnCase,
    reversed: bool,
) -> Result<Worst, Trouble> {
    if !case.time_major {
        return Err(Trouble::Unsupported("fused cells take time first".into()));
    }
    let mut graph = Graph::new();
    let dtype: DType = case.dtype.dtype();
    let options: LstmBlockFusedCellBuilder = read(case.cell.clone())?;
    let cell = options.build_for(device, case.input_size, dtype)?;
    let cell = graph.model(file, LstmBlockFusedCell::<TestDevice>::SCOPE, &cell)?;
    let x = graph.leaf(file, device, "input/x")?;
    let state = match case.initial_state {
        false => None,
        true => Some(LstmState {
            c: graph.leaf(file, device, "initial_state/c")?,
            h: graph.leaf(file, device, "initial_state/h")?,
        }),
    };
    let lengths = file.lengths(case.sequence_length.as_deref())?;
    let lengths = lengths.map(Lengths::from);
    let lengths = lengths.as_ref();
    let result = if reversed {
        TimeReversedFusedRnn(cell).run(&x, state.as_ref(), lengths)?
    } else {
        cell.run(&x, state.as_ref(), lengths)?
    };
    graph.results("outputs", &result.outputs);
    graph.results("final_state", &result.state);
    graph.compare(file, dtype, &case.no_gradient)
}
