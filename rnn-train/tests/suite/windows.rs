//! Truncated back-propagation through time.

use backend_api::{DType, Meta, Result, Shape, Tensor};
use rnn_core::cells::LayerNormBasicLstmCell;
use rnn_core::wrappers::{AttentionCellWrapper, DropoutWrapper};
use rnn_core::{
    AnyCell, AnyState, Cell, DynamicRnn, GruCell, Initializer, Mode, Module, MultiRnnCell, Nest,
    RnnOutput, Windows,
};
use rnn_train::{Differentiable, value_and_grad};

use crate::common::{Device, device};

const STEPS: usize = 12;
const BATCH: usize = 3;
const UNITS: usize = 4;
const SEED: Mode = Mode::Training { seed: 8 };

type Stack = MultiRnnCell<Vec<AnyCell<Device>>>;

/// Layers with states of several kinds; with `dropout`, masks for each step and for the whole run.
fn stack(device: &Device, dropout: bool) -> Stack {
    let norm = LayerNormBasicLstmCell::<Device>::builder(UNITS, UNITS)
        .dtype(DType::F64)
        .build(device)
        .unwrap();
    let gru = || {
        GruCell::<Device>::builder(UNITS, UNITS)
            .dtype(DType::F64)
            .build(device)
            .unwrap()
    };
    let attention = AttentionCellWrapper::<_>::builder(gru(), UNITS, 2)
        .build()
        .unwrap();
    let mut cells = vec![AnyCell::new(norm), AnyCell::new(attention)];
    if dropout {
        let each = DropoutWrapper::builder(gru()).output_keep_prob(0.7);
        let run = DropoutWrapper::builder(gru())
            .input_keep_prob(0.6)
            .state_keep_prob(0.6)
            .variational_recurrent(true);
        cells.push(AnyCell::new(each.build().unwrap()));
        cells.push(AnyCell::new(run.build().unwrap()));
    }
    let mut stack = MultiRnnCell::new(cells).unwrap();
    stack.initialize(5).unwrap();
    stack
}

fn inputs(device: &Device) -> Tensor<Device> {
    let meta = Meta::new(Shape::new(&[BATCH, STEPS, UNITS]).unwrap(), DType::F64);
    Initializer::normal(0.0, 1.0)
        .tensor(device, 2, meta)
        .unwrap()
}

/// All windows of five steps and the shorter last one.
fn in_windows<C: Cell<Backend = Device, Input = Tensor<Device>>>(
    cell: &C,
    x: &Tensor<Device>,
    mut windows: Windows<C::State>,
    mut each: impl FnMut(&Windows<C::State>, RnnOutput<C::Output, C::State>) -> Result<()>,
    with: impl for<'a> Fn(usize, DynamicRnn<'a, C>) -> DynamicRnn<'a, C>,
) -> Result<()> {
    for start in (0..STEPS).step_by(5) {
        let end = (start + 5).min(STEPS);
        let rnn = with(start, DynamicRnn::new(cell));
        let result = windows.run(&rnn, &x.slice(1, start..end)?)?;
        assert_eq!(windows.steps(), end);
        each(&windows, result)?;
    }
    Ok(())
}

fn numbers(t: &Tensor<Device>) -> Vec<f64> {
    t.to_vec().unwrap()
}

fn states(state: &AnyState<Device>) -> Vec<Vec<f64>> {
    state.leaves().into_iter().map(numbers).collect()
}

#[test]
fn windows_are_the_whole_run_with_its_random_numbers() {
    let device = device();
    let (cell, x) = (AnyCell::new(stack(&device, true)), inputs(&device));
    let whole = DynamicRnn::new(&cell).mode(SEED).run(&x).unwrap();
    let run = |keep: bool| {
        let (mut parts, mut last) = (Vec::new(), Vec::new());
        let windows = Windows::new().keep_masks(keep);
        let each = |windows: &Windows<_>, result: RnnOutput<Tensor<Device>, AnyState<Device>>| {
            parts.push(result.outputs);
            last = states(windows.state().unwrap());
            Ok(())
        };
        // As in a training loop, each window has a seed of its own.
        in_windows(&cell, &x, windows, each, |start, rnn| match start {
            0 => rnn.mode(SEED),
            _ => rnn.training(100 + start as u64),
        })
        .unwrap();
        let parts: Vec<_> = parts.iter().collect();
        (numbers(&Tensor::concat(&parts, 1).unwrap()), last)
    };
    assert_eq!(run(true), (numbers(&whole.outputs), states(&whole.state)));
    assert_ne!(run(false).0, numbers(&whole.outputs));
}

#[test]
fn an_earlier_run_goes_on() {
    let device = device();
    let (cell, x) = (AnyCell::new(stack(&device, true)), inputs(&device));
    let whole = DynamicRnn::new(&cell).mode(SEED).run(&x).unwrap();
    let first = DynamicRnn::new(&cell)
        .mode(SEED)
        .run(&x.slice(1, 0..7).unwrap());
    let mut windows = Windows::after(7, first.unwrap().state);
    let rest = windows
        .run(
            &DynamicRnn::new(&cell).mode(SEED),
            &x.slice(1, 7..STEPS).unwrap(),
        )
        .unwrap();
    assert_eq!(
        numbers(&rest.outputs),
        numbers(&whole.outputs.slice(1, 7..STEPS).unwrap())
    );
}

#[test]
fn no_gradient_passes_the_edge_of_a_window() {
    let device = device();
    let (cell, x) = (AnyCell::new(stack(&device, false)), inputs(&device));
    let x = device.leaf(&x).unwrap();
    let mut edge = 0;
    // The loss reads the last output of a window only.
    let each = |windows: &Windows<_>, result: RnnOutput<Tensor<Device>, AnyState<Device>>| {
        let loss = result.outputs.at((.., -1))?.square()?.sum_all()?;
        let grads = device.backward(&loss, &[&x])?;
        let dx = grads[0].as_ref().unwrap();
        let before = numbers(&dx.slice(1, 0..edge)?);
        assert!(before.iter().all(|&d| d == 0.0), "{before:?}");
        let inside = numbers(&dx.slice(1, edge..windows.steps())?);
        assert!(inside.iter().all(|&d| d != 0.0), "{inside:?}");
        edge = windows.steps();
        Ok(())
    };
    in_windows(&cell, &x, Windows::new(), each, |_, rnn| rnn).unwrap();
    assert_eq!(edge, STEPS);
}

/// The parameters get the gradient of the window whose initial state is a constant.
#[test]
fn gradients_are_those_of_a_window_with_a_constant_state() {
    let device = device();
    let (cell, x) = (AnyCell::new(stack(&device, false)), inputs(&device));
    let dense = |grads: rnn_train::Gradients<Device>| -> Vec<Vec<f64>> {
        let grads = grads.iter().map(|(_, g)| g.unwrap().to_dense().unwrap());
        grads.map(|g| numbers(&g)).collect()
    };
    let mut windows = Windows::new();
    let mut state = None;
    for start in [0, 4, 8] {
        let part = x.slice(1, start..start + 4).unwrap();
        let (_, grads) = value_and_grad(&cell, |cell| {
            let result = windows.run(&DynamicRnn::new(cell), &part)?;
            result.outputs.square()?.mean_all()
        })
        .unwrap();
        let mut next = None;
        let (_, expected) = value_and_grad(&cell, |cell| {
            let mut rnn = DynamicRnn::new(cell);
            if let Some(state) = state.take() {
                rnn = rnn.initial_state(state);
            }
            let result = rnn.run(&part)?;
            next = Some(result.state.map(&mut |t: &Tensor<Device>| Ok(t.detach()))?);
            result.outputs.square()?.mean_all()
        })
        .unwrap();
        assert_eq!(dense(grads), dense(expected));
        state = next;
    }
}

#[test]
fn lengths_are_those_of_the_window() {
    let device = device();
    let (cell, x) = (AnyCell::new(stack(&device, true)), inputs(&device));
    let whole = DynamicRnn::new(&cell)
        .mode(SEED)
        .sequence_length(&[12, 8, 3])
        .run(&x)
        .unwrap();
    let (mut parts, mut last) = (Vec::new(), Vec::new());
    let each = |windows: &Windows<_>, result: RnnOutput<Tensor<Device>, AnyState<Device>>| {
        parts.push(result.outputs);
        last = states(windows.state().unwrap());
        Ok(())
    };
    let windows = Windows::new().keep_masks(true);
    in_windows(&cell, &x, windows, each, |start, rnn| {
        let lengths = [12usize, 8, 3].map(|l| l.saturating_sub(start).min(5));
        rnn.mode(SEED).sequence_length(&lengths)
    })
    .unwrap();
    let parts: Vec<_> = parts.iter().collect();
    assert_eq!(
        numbers(&Tensor::concat(&parts, 1).unwrap()),
        numbers(&whole.outputs)
    );
    assert_eq!(last, states(&whole.state));
}

#[test]
fn a_window_that_fails_can_be_run_again() {
    let device = device();
    let (cell, x) = (AnyCell::new(stack(&device, false)), inputs(&device));
    let mut windows = Windows::new();
    let rnn = DynamicRnn::new(&cell);
    windows.run(&rnn, &x.slice(1, 0..5).unwrap()).unwrap();
    let before = states(windows.state().unwrap());
    let narrow = x.slice(1, 5..8).unwrap().slice(2, 0..1).unwrap();
    assert!(windows.run(&rnn, &narrow).is_err());
    assert_eq!(
        (windows.steps(), states(windows.state().unwrap())),
        (5, before)
    );
}
