//! The results of accepted calls.

use backend_api::{DType, Error, Meta, Result as ApiResult, Tensor};
use rnn_core::wrappers::NoiseSource;
use rnn_core::{
    AnyCell, BidirectionalDynamicRnn, Cell, ConcatState, DropoutWrapper, DynamicRnn, GruCell,
    Module, MultiRnnCell, Nest, StaticRnn, StepContext, cell_from_config,
};
use rnn_train::{Differentiable, tracked, value_and_grad};
use serde_json::json;

use super::super::Trouble;
use super::{BATCH, DEPTH, STEPS, T, UNITS, numbers};
use crate::devices::TestDevice;

type Any = AnyCell<TestDevice>;
type Checked = Result<(), Trouble>;

const F64: DType = DType::F64;

/// Cells of several kinds, of doubles.
fn cells(device: &TestDevice) -> ApiResult<Vec<Any>> {
    let options = [
        json!({ "type": "BasicRNNCell", "num_units": UNITS }),
        json!({ "type": "BasicLSTMCell", "num_units": UNITS }),
        json!({ "type": "GRUCell", "num_units": UNITS }),
        json!({ "type": "LSTMCell", "num_units": UNITS, "use_peepholes": true, "num_proj": 3 }),
    ];
    let cell = |options| cell_from_config(device, options, DEPTH, F64);
    options.iter().map(cell).collect()
}

fn gru(device: &TestDevice, dtype: DType) -> ApiResult<GruCell<TestDevice>> {
    GruCell::<TestDevice>::builder(DEPTH, UNITS)
        .dtype(dtype)
        .build(device)
}

fn inputs(device: &TestDevice) -> ApiResult<T> {
    numbers(device, &[BATCH, STEPS, DEPTH], F64)
}

/// All results of a run.
struct Run {
    initial: Vec<T>,
    outputs: T,
    states: Vec<T>,
    /// Gradients of a weighted sum of all results, with respect to the inputs, the initial state
    /// and the parameters.
    gradients: Vec<T>,
}

/// The sum of all elements, with a different weight for each.
fn weighted(result: &T) -> ApiResult<T> {
    let weights = numbers(result.device(), &result.dims(), result.dtype())?;
    result.mul(&weights)?.sum_all()
}

fn run(cell: &Any, x: &T, lengths: Option<&[i64]>) -> ApiResult<Run> {
    let device = x.device();
    let cell = tracked(cell)?;
    let x = device.leaf(x)?;
    let initial = cell.zero_state(x.shape()[0])?.map(&mut |zero| {
        let start = numbers(device, &zero.dims(), zero.dtype())?;
        device.leaf(&start)
    })?;
    let mut rnn = DynamicRnn::new(&cell).initial_state(initial.clone());
    if let Some(lengths) = lengths {
        rnn = rnn.sequence_length(lengths);
    }
    let result = rnn.run(&x)?;
    let mut loss = weighted(&result.outputs)?;
    for state in result.state.leaves() {
        loss = loss.add(&weighted(state)?)?;
    }
    let params = cell.named_params();
    let mut leaves = vec![&x];
    leaves.extend(initial.leaves());
    leaves.extend(params.iter().map(|(_, param)| param.value()));
    let gradients = device.backward(&loss, &leaves)?;
    let or_zero = |(grad, leaf): (Option<T>, &&T)| match grad {
        Some(grad) => Ok(grad),
        None => Tensor::zeros(device, leaf.meta()),
    };
    let owned = |leaves: Vec<&T>| leaves.into_iter().cloned().collect();
    Ok(Run {
        initial: owned(initial.leaves()),
        outputs: result.outputs,
        states: owned(result.state.leaves()),
        gradients: gradients
            .into_iter()
            .zip(&leaves)
            .map(or_zero)
            .collect::<ApiResult<_>>()?,
    })
}

fn expect(ok: bool, what: impl FnOnce() -> String) -> Checked {
    match ok {
        true => Ok(()),
        false => Err(Trouble::Wrong(what())),
    }
}

/// Checks that shapes, types and numbers are equal.
fn expect_same(what: &str, found: &T, expected: &T) -> Checked {
    let (is, should) = (found.to_f64_vec()?, expected.to_f64_vec()?);
    let same = found.meta() == expected.meta() && is == should;
    expect(same, || {
        let (found, expected) = (found.shape(), expected.shape());
        format!("{what}: {found} {is:?} is not {expected} {should:?}")
    })
}

/// Checks that shapes and types are equal, and numbers up to rounding.
fn expect_near(what: &str, found: &T, expected: &T) -> Checked {
    let (is, should) = (found.to_f64_vec()?, expected.to_f64_vec()?);
    let mut pairs = is.iter().zip(&should);
    let near = found.meta() == expected.meta() && pairs.all(|(a, b)| (a - b).abs() < 1e-14);
    expect(near, || format!("{what}: {is:?} is not {should:?}"))
}

fn expect_all_same(what: &str, found: &[T], expected: &[T]) -> Checked {
    expect(found.len() == expected.len(), || format!("{what}: counts"))?;
    let mut pairs = found.iter().zip(expected);
    pairs.try_for_each(|(found, expected)| expect_same(what, found, expected))
}

pub(super) fn lengths_above_the_steps(device: &TestDevice) -> Checked {
    let x = inputs(device)?;
    for cell in cells(device)? {
        for (lengths, exact) in [([9, 4, i64::MAX], [4, 4, 4]), ([5, 2, 0], [4, 2, 0])] {
            let (found, expected) = (
                run(&cell, &x, Some(&lengths))?,
                run(&cell, &x, Some(&exact))?,
            );
            expect_same("outputs", &found.outputs, &expected.outputs)?;
            expect_all_same("states", &found.states, &expected.states)?;
            expect_all_same("gradients", &found.gradients, &expected.gradients)?;
        }
    }
    Ok(())
}

pub(super) fn no_time(device: &TestDevice) -> Checked {
    let x = numbers(device, &[BATCH, 0, DEPTH], F64)?;
    for cell in cells(device)? {
        for lengths in [None, Some(&[0, 3, 1][..])] {
            let run = run(&cell, &x, lengths)?;
            let dims = run.outputs.dims();
            expect(dims[..2] == [BATCH, 0], || format!("outputs are {dims:?}"))?;
            expect_all_same("states", &run.states, &run.initial)?;
            let (state_grads, param_grads) = run.gradients[1..].split_at(run.states.len());
            for (grad, state) in state_grads.iter().zip(&run.states) {
                expect_same("gradient", grad, &numbers(device, &state.dims(), F64)?)?;
            }
            for grad in param_grads {
                expect_same("gradient", grad, &Tensor::zeros(device, grad.meta())?)?;
            }
        }
    }
    Ok(())
}

pub(super) fn no_rows(device: &TestDevice) -> Checked {
    let x = numbers(device, &[0, STEPS, DEPTH], F64)?;
    for cell in cells(device)? {
        for lengths in [None, Some(&[][..])] {
            let run = run(&cell, &x, lengths)?;
            let dims = run.outputs.dims();
            expect(dims[..2] == [0, STEPS], || format!("outputs are {dims:?}"))?;
            expect_all_same("states", &run.states, &run.initial)?;
            for grad in &run.gradients {
                expect_same("gradient", grad, &Tensor::zeros(device, grad.meta())?)?;
            }
        }
    }
    Ok(())
}

/// Runs `run` with a cell of each float type. The results must have that type.
fn keeps_its_type(
    device: &TestDevice,
    call: impl Fn(&GruCell<TestDevice>, T) -> ApiResult<Vec<T>>,
) -> Checked {
    for dtype in [DType::F32, F64] {
        let cell = gru(device, dtype)?;
        for result in call(&cell, inputs(device)?.cast(dtype)?)? {
            let found = result.dtype();
            expect(found == dtype, || format!("is {found}, not {dtype}"))?;
        }
    }
    Ok(())
}

pub(super) fn dynamic_without_dtype(device: &TestDevice) -> Checked {
    keeps_its_type(device, |cell, x| {
        let result = DynamicRnn::new(cell).run(&x)?;
        Ok(vec![result.outputs, result.state])
    })
}

pub(super) fn bidirectional_without_dtype(device: &TestDevice) -> Checked {
    keeps_its_type(device, |cell, x| {
        let result = BidirectionalDynamicRnn::shared(cell).run(&x)?;
        let (outputs, state) = (result.outputs, result.state);
        Ok(vec![outputs.0, outputs.1, state.0, state.1])
    })
}

pub(super) fn static_without_dtype(device: &TestDevice) -> Checked {
    keeps_its_type(device, |cell, x| {
        let steps: Vec<T> = (0..STEPS)
            .map(|t| x.select(1, t))
            .collect::<ApiResult<_>>()?;
        let mut result = StaticRnn::new(cell).run(&steps)?;
        result.outputs.push(result.state);
        Ok(result.outputs)
    })
}

pub(super) fn zero_state_without_dtype(device: &TestDevice) -> Checked {
    keeps_its_type(device, |cell, _| Ok(vec![cell.zero_state(BATCH)?]))
}

pub(super) fn joined_state(device: &TestDevice) -> Checked {
    let options = json!({ "type": "LSTMCell", "num_units": UNITS });
    let stack = MultiRnnCell::new(vec![cell_from_config(device, &options, DEPTH, F64)?])?;
    let parts = DynamicRnn::new(&stack).run(&inputs(device)?)?;
    let joined = DynamicRnn::new(&ConcatState::new(stack)).run(&inputs(device)?)?;
    expect_same("outputs", &joined.outputs, &parts.outputs)?;
    let state = Tensor::concat(&parts.state.leaves(), 1)?;
    expect_same("state", &joined.state, &state)
}

/// Noise that drops every element, for `f64` tensors of one shape.
#[derive(Debug)]
struct DropAll([usize; 2]);

impl NoiseSource<TestDevice> for DropAll {
    fn noise(&self, device: &TestDevice, _: &StepContext, path: &str, meta: Meta) -> ApiResult<T> {
        if meta.shape.dims() != self.0 || meta.dtype != F64 {
            let expected = format!("f64 {:?} is needed", self.0);
            return Err(Error::shape("noise", path, meta.shape, expected));
        }
        Tensor::zeros(device, meta)
    }
}

pub(super) fn variational_output(device: &TestDevice) -> Checked {
    let cell = DropoutWrapper::builder(gru(device, F64)?)
        .variational_recurrent(true)
        .output_keep_prob(0.5)
        .build()?
        .noise(DropAll([1, UNITS]));
    let result = DynamicRnn::new(&cell).training(1).run(&inputs(device)?)?;
    let zeros = Tensor::zeros(device, result.outputs.meta())?;
    expect_same("outputs", &result.outputs, &zeros)
}

pub(super) fn variational_input(device: &TestDevice) -> Checked {
    let plain = gru(device, F64)?;
    let cell = DropoutWrapper::builder(plain.clone())
        .variational_recurrent(true)
        .input_keep_prob(0.5)
        .build()?
        .noise(DropAll([1, DEPTH]));
    let x = inputs(device)?;
    let found = DynamicRnn::new(&cell).training(1).run(&x)?;
    let zeros = Tensor::zeros(device, x.meta())?;
    let expected = DynamicRnn::new(&plain).run(&zeros)?;
    expect_same("outputs", &found.outputs, &expected.outputs)
}

/// Two cells of one kind in one model share nothing.
pub(super) fn two_cells(device: &TestDevice) -> Checked {
    let x = inputs(device)?;
    let model = (gru(device, F64)?, gru(device, F64)?);
    let params = model.named_params();
    for (i, (name, param)) in params.iter().enumerate() {
        for (other_name, other) in &params[..i] {
            let apart = name != other_name && param.id() != other.id();
            expect(apart, || format!("{name} and {other_name} are one"))?;
        }
    }
    let kernel = |cell: &GruCell<TestDevice>| cell.named_params()[0].1.to_f64_vec();
    let differ = kernel(&model.0)? != kernel(&model.1)?;
    expect(differ, || "both kernels hold the same".into())?;
    let (_, grads) = value_and_grad(&model, |model| {
        let first = DynamicRnn::new(&model.0).run(&x)?;
        DynamicRnn::new(&model.1).run(&x)?;
        weighted(&first.outputs)
    })?;
    for (name, grad) in grads.iter() {
        let moved = match grad {
            Some(grad) => grad.to_dense()?.to_f64_vec()?.iter().any(|g| *g != 0.0),
            None => false,
        };
        let first = name.starts_with("0/");
        expect(moved == first, || format!("{name} has a wrong gradient"))?;
    }
    Ok(())
}

/// Running one cell twice has the parameters of one cell and twice the gradient of one run.
pub(super) fn one_cell_twice(device: &TestDevice) -> Checked {
    let x = inputs(device)?;
    let cell = gru(device, F64)?;
    let outputs = |cell: &GruCell<TestDevice>| DynamicRnn::new(cell).run(&x);
    expect_same(
        "outputs",
        &outputs(&cell)?.outputs,
        &outputs(&cell)?.outputs,
    )?;
    let (_, once) = value_and_grad(&cell, |cell| weighted(&outputs(cell)?.outputs))?;
    let (_, twice) = value_and_grad(&cell, |cell| {
        weighted(&outputs(cell)?.outputs)?.add(&weighted(&outputs(cell)?.outputs)?)
    })?;
    for (name, grad) in once.iter() {
        match (grad, twice.get(name)) {
            // A device without programs of steps adds in another order.
            (Some(one), Some(two)) => {
                expect_near(name, &two.to_dense()?, &one.to_dense()?.affine(2.0, 0.0)?)?
            }
            _ => return Err(Trouble::Wrong(format!("{name} has no gradient"))),
        }
    }
    Ok(())
}
