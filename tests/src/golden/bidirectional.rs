//! Cases of the bidirectional drivers.

use backend_api::{Result as ApiResult, Tensor};
use rnn_core::{
    AnyCell, BidirectionalDynamicRnn, Cell, Lengths, StackBidirectionalDynamicRnn, StaticRnn,
    cell_from_config, stack_bidirectional_rnn, static_bidirectional_rnn,
};
use serde_json::Value;

use super::Trouble;
use super::case::{BidirectionalCase, StackCase};
use super::check::{Graph, Worst, extent};
use super::file::GoldenFile;
use super::static_rnn::{stack, unstack};
use crate::devices::TestDevice;

type AnyTestCell = AnyCell<TestDevice>;

/// The two cells of a case, with their parameters from the file.
fn cells(
    graph: &mut Graph<TestDevice>,
    device: &TestDevice,
    file: &GoldenFile,
    case: &BidirectionalCase,
) -> Result<(AnyTestCell, AnyTestCell), Trouble> {
    let mut load = |spec: &Value, direction: &str| {
        let cell = cell_from_config(device, spec, case.input_size, case.dtype.dtype())?;
        let scope = format!("bidirectional_rnn/{direction}/{}", cell.scope());
        graph.model(file, &scope, &cell)
    };
    Ok((load(&case.cell_fw, "fw")?, load(&case.cell_bw, "bw")?))
}

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &BidirectionalCase,
) -> Result<Worst, Trouble> {
    let mut graph = Graph::new();
    let (forward, backward) = cells(&mut graph, device, file, case)?;
    let x = graph.leaf(file, device, "input/x")?;
    let mut rnn = BidirectionalDynamicRnn::new(&forward, &backward)
        .time_major(case.time_major)
        .swap_memory(case.swap_memory);
    if let Some(iterations) = case.parallel_iterations {
        rnn = rnn.parallel_iterations(iterations);
    }
    if let Some(lengths) = file.lengths(case.sequence_length.as_deref())? {
        rnn = rnn.sequence_length(&lengths);
    }
    if case.initial_state {
        let batch = extent(&x, usize::from(case.time_major))?;
        let fw = forward.zero_state(batch)?;
        rnn = rnn.initial_state_fw(graph.leaf_nest(file, "initial_state/fw", &fw)?);
        let bw = backward.zero_state(batch)?;
        rnn = rnn.initial_state_bw(graph.leaf_nest(file, "initial_state/bw", &bw)?);
    }
    let result = rnn.run(&x)?;
    graph.results("outputs/fw", &result.outputs.0);
    graph.results("outputs/bw", &result.outputs.1);
    graph.results("final_state/fw", &result.state.0);
    graph.results("final_state/bw", &result.state.1);
    graph.compare(file, case.dtype.dtype(), &case.no_gradient)
}

pub(super) fn run_static(
    device: &TestDevice,
    file: &GoldenFile,
    case: &BidirectionalCase,
) -> Result<Worst, Trouble> {
    let mut graph = Graph::new();
    let (forward, backward) = cells(&mut graph, device, file, case)?;
    let x = graph.leaf(file, device, "input/x")?;
    let (mut fw, mut bw) = (StaticRnn::new(&forward), StaticRnn::new(&backward));
    if case.initial_state {
        let batch = extent(&x, usize::from(case.time_major))?;
        let like = forward.zero_state(batch)?;
        fw = fw.initial_state(graph.leaf_nest(file, "initial_state/fw", &like)?);
        let like = backward.zero_state(batch)?;
        bw = bw.initial_state(graph.leaf_nest(file, "initial_state/bw", &like)?);
    }
    let inputs = unstack(&x, case.time_major)?;
    let lengths = file.lengths(case.sequence_length.as_deref())?;
    let lengths = lengths.map(Lengths::from);
    let result = static_bidirectional_rnn(fw, bw, &inputs, lengths.as_ref())?;
    graph.results("outputs", &stack(&result.outputs)?);
    graph.results("final_state/fw", &result.state.0);
    graph.results("final_state/bw", &result.state.1);
    graph.compare(file, case.dtype.dtype(), &case.no_gradient)
}

/// The initial states of a stack in one direction.
type States = Option<Vec<<AnyTestCell as Cell>::State>>;

/// The cells of a stack with their parameters from the file, the input, and the initial states of
/// both directions.
struct Stack {
    forward: Vec<AnyTestCell>,
    backward: Vec<AnyTestCell>,
    x: Tensor<TestDevice>,
    states: [States; 2],
}

fn load_stack(
    graph: &mut Graph<TestDevice>,
    device: &TestDevice,
    file: &GoldenFile,
    case: &StackCase,
) -> Result<Stack, Trouble> {
    let dtype = case.dtype.dtype();
    let (mut forward, mut backward): (Vec<AnyTestCell>, Vec<AnyTestCell>) = Default::default();
    let mut depth = case.input_size;
    for (i, (fw, bw)) in case.cells_fw.iter().zip(&case.cells_bw).enumerate() {
        let mut load = |spec: &Value, direction: &str| {
            let cell = cell_from_config(device, spec, depth, dtype)?;
            let scope = cell.scope();
            let scope =
                format!("stack_bidirectional_rnn/cell_{i}/bidirectional_rnn/{direction}/{scope}");
            graph.model(file, &scope, &cell)
        };
        let (fw, bw) = (load(fw, "fw")?, load(bw, "bw")?);
        let width = |cell: &AnyTestCell| -> Result<usize, Trouble> {
            let output: Tensor<TestDevice> = cell.zero_output(1)?;
            Ok(output.shape().last())
        };
        depth = width(&fw)? + width(&bw)?;
        forward.push(fw);
        backward.push(bw);
    }
    let x = graph.leaf(file, device, "input/x")?;
    let batch = extent(&x, usize::from(case.time_major))?;
    let mut states = |key: &str, cells: &[AnyTestCell]| -> Result<States, Trouble> {
        if !case.initial_state {
            return Ok(None);
        }
        let like: Vec<_> = cells
            .iter()
            .map(|cell| cell.zero_state(batch))
            .collect::<ApiResult<_>>()?;
        Ok(Some(graph.leaf_nest(file, key, &like)?))
    };
    let states = [
        states("initial_state/fw", &forward)?,
        states("initial_state/bw", &backward)?,
    ];
    Ok(Stack {
        forward,
        backward,
        x,
        states,
    })
}

pub(super) fn run_stack(
    device: &TestDevice,
    file: &GoldenFile,
    case: &StackCase,
) -> Result<Worst, Trouble> {
    let mut graph = Graph::new();
    let stack = load_stack(&mut graph, device, file, case)?;
    let mut rnn = StackBidirectionalDynamicRnn::new(&stack.forward, &stack.backward)
        .time_major(case.time_major)
        .swap_memory(case.swap_memory);
    if let Some(iterations) = case.parallel_iterations {
        rnn = rnn.parallel_iterations(iterations);
    }
    if let Some(lengths) = file.lengths(case.sequence_length.as_deref())? {
        rnn = rnn.sequence_length(&lengths);
    }
    if let [Some(fw), Some(bw)] = stack.states {
        rnn = rnn.initial_states_fw(fw).initial_states_bw(bw);
    }
    let result = rnn.run(&stack.x)?;
    graph.results("outputs", &result.outputs);
    graph.results("final_state/fw", &result.state.0);
    graph.results("final_state/bw", &result.state.1);
    graph.compare(file, case.dtype.dtype(), &case.no_gradient)
}

fn static_rnns<'c>(cells: &'c [AnyTestCell], states: &States) -> Vec<StaticRnn<'c, AnyTestCell>> {
    let rnn = |(i, cell): (usize, &'c AnyTestCell)| match states {
        Some(states) => StaticRnn::new(cell).initial_state(states[i].clone()),
        None => StaticRnn::new(cell),
    };
    cells.iter().enumerate().map(rnn).collect()
}

pub(super) fn run_static_stack(
    device: &TestDevice,
    file: &GoldenFile,
    case: &StackCase,
) -> Result<Worst, Trouble> {
    let mut graph = Graph::new();
    let layers = load_stack(&mut graph, device, file, case)?;
    let forward = static_rnns(&layers.forward, &layers.states[0]);
    let backward = static_rnns(&layers.backward, &layers.states[1]);
    let inputs = unstack(&layers.x, case.time_major)?;
    let lengths = file.lengths(case.sequence_length.as_deref())?;
    let lengths = lengths.map(Lengths::from);
    let result = stack_bidirectional_rnn(forward, backward, &inputs, lengths.as_ref())?;
    graph.results("outputs", &stack(&result.outputs)?);
    graph.results("final_state/fw", &result.state.0);
    graph.results("final_state/bw", &result.state.1);
    graph.compare(file, case.dtype.dtype(), &case.no_gradient)
}
