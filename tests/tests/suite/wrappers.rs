//! Wrapped cells: random numbers of dropout, gradients, and errors.

use backend_api::{Backend, DType, MemoryPolicy, Meta, Result, Shape, Tensor};
use recurrent_tests::devices::{NAMES, TestDevice, device};
use recurrent_tests::finite_differences::check;
use rnn_core::wrappers::StateFilter;
use rnn_core::{
    AnyCell, AttentionCellWrapper, Cell, DeviceWrapper, DropoutWrapper, DynamicRnn,
    EmbeddingWrapper, GruCell, HighwayWrapper, Initializer, InputProjectionWrapper, LstmState,
    Mode, Module, Nest, OutputProjectionWrapper, Param, Path, ResidualWrapper, StepContext,
    Visitor, cell_from_config,
};
use rnn_train::value_and_grad;
use serde_json::{Value, json};

const NORMAL: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.5,
};
const SEED: u64 = 5;
const BATCH: usize = 3;
const STEPS: usize = 5;
const UNITS: usize = 4;
const LENGTHS: [i32; BATCH] = [3, 0, 5];

/// A cell with its inputs and its initial state as parameters, so that all of them are
/// differentiated.
#[derive(Clone, Debug)]
struct Problem {
    cell: AnyCell<TestDevice>,
    /// A plain tensor of ids if the inputs have no gradient.
    inputs: Result<Param<TestDevice>, Tensor<TestDevice>>,
    state: Vec<Param<TestDevice>>,
}

impl Problem {
    fn new(device: &TestDevice, options: &Value) -> Result<Self> {
        let mut cell = cell_from_config(device, options, UNITS, DType::F64)?;
        let mut seed = 7;
        cell.each_param(&mut |_, param| {
            seed += 1;
            param.set(NORMAL.tensor(device, seed, param.meta())?)
        })?;
        let mut normal = |dims: &[usize]| {
            let mut param = Param::new(device, NORMAL, dims, DType::F64)?;
            seed += 1;
            param.set(NORMAL.tensor(device, seed, param.meta())?)?;
            Ok(param)
        };
        let zero = cell.zero_state(BATCH)?;
        let state: Result<_> = zero.leaves().iter().map(|t| normal(&t.dims())).collect();
        let ids: Vec<i32> = (0..BATCH * STEPS).map(|i| (i * i % 3) as i32).collect();
        let inputs = match options["type"] == "EmbeddingWrapper" {
            true => Err(Tensor::from_slice(device, &ids, &[BATCH, STEPS])?),
            false => Ok(normal(&[BATCH, STEPS, UNITS])?),
        };
        Ok(Self {
            cell,
            inputs,
            state: state?,
        })
    }

    fn inputs(&self) -> &Tensor<TestDevice> {
        match &self.inputs {
            Ok(param) => param,
            Err(ids) => ids,
        }
    }

    fn initial(&self) -> Result<<AnyCell<TestDevice> as Cell>::State> {
        let leaves: Vec<_> = self.state.iter().map(|p| p.value().clone()).collect();
        self.cell.zero_state(BATCH)?.rebuild(&leaves)
    }

    fn driver_loss(
        &self,
        memory_policy: MemoryPolicy,
        segment: usize,
    ) -> Result<Tensor<TestDevice>> {
        let result = DynamicRnn::new(&self.cell)
            .training(SEED)
            .sequence_length(&LENGTHS)
            .initial_state(self.initial()?)
            .memory_policy(memory_policy)
            .segment_length(segment)
            .run(self.inputs())?;
        weighted(&result.outputs, 0.3)?.add(&weighted(&result.state, 1.1)?)
    }

    /// The same loss without the driver: the cell's own step, with explicit handling of the
    /// lengths.
    fn loop_loss(&self) -> Result<Tensor<TestDevice>> {
        let mut states = vec![self.initial()?];
        let mut outputs = Vec::new();
        for t in 0..STEPS {
            let cx = StepContext::training(SEED).at(t);
            let x = self.inputs().select(1, t)?;
            let (output, state) = self.cell.step(&cx, &x, &states[t])?;
            outputs.push(output);
            states.push(state);
        }
        let zero = self.cell.zero_output(1)?.unsqueeze(1)?;
        let mut rows = Vec::new();
        let mut finals: Vec<Vec<Tensor<TestDevice>>> = Vec::new();
        for (row, &length) in LENGTHS.iter().enumerate() {
            let row_of = |t: &Tensor<TestDevice>| t.slice(0, row..row + 1);
            let row_outputs: Vec<_> = (0..STEPS)
                .map(|t| match t < length as usize {
                    true => row_of(&outputs[t])?.unsqueeze(1),
                    false => Ok(zero.clone()),
                })
                .collect::<Result<_>>()?;
            rows.push(joined(&row_outputs, 1)?);
            let last = states[length as usize].leaves();
            finals.push(last.into_iter().map(row_of).collect::<Result<_>>()?);
        }
        let state: Vec<_> = (0..finals[0].len())
            .map(|i| {
                let rows: Vec<_> = finals.iter().map(|row| row[i].clone()).collect();
                joined(&rows, 0)
            })
            .collect::<Result<_>>()?;
        weighted(&joined(&rows, 0)?, 0.3)?.add(&weighted(&state, 1.1)?)
    }
}

impl Module for Problem {
    type Backend = TestDevice;
    fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
        v.child("cell", &mut self.cell);
        if let Ok(inputs) = &mut self.inputs {
            v.param("inputs", inputs);
        }
        for (i, state) in self.state.iter_mut().enumerate() {
            v.param(&format!("state_{i}"), state);
        }
    }
}

fn joined<B: Backend>(parts: &[Tensor<B>], axis: usize) -> Result<Tensor<B>> {
    Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)
}

/// A weighted sum of all results, with a different weight for each element.
fn weighted<B: Backend, N: Nest<B>>(nest: &N, phase: f64) -> Result<Tensor<B>> {
    let mut parts = Vec::new();
    for (i, leaf) in nest.leaves().into_iter().enumerate() {
        let weights: Vec<f64> = (0..leaf.shape().count())
            .map(|k| (phase + i as f64 + 0.7 * k as f64).sin())
            .collect();
        let weights = Tensor::from_slice(leaf.device(), &weights, &leaf.dims())?;
        parts.push(leaf.mul(&weights)?.sum_all()?.reshape(&[1])?);
    }
    joined(&parts, 0)?.sum_all()
}

type Numbers = Vec<(String, Vec<f64>)>;

/// Value and gradients of a loss, in training mode with a fixed seed.
fn numbers(
    problem: &Problem,
    loss: impl Fn(&Problem) -> Result<Tensor<TestDevice>>,
) -> Result<Numbers> {
    let (value, grads) = value_and_grad(problem, |p| loss(p))?;
    let mut all = vec![("loss".to_owned(), value.to_vec()?)];
    for (name, grad) in grads.iter() {
        all.push((name.to_owned(), grad.unwrap().to_dense()?.to_vec()?));
    }
    Ok(all)
}

fn assert_close(a: &Numbers, b: &Numbers) {
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        for (a, b) in a.iter().zip(b) {
            let error = (a - b).abs() / (1.0 + b.abs());
            assert!(error <= 1e-12, "{name}: {a} and {b}");
        }
    }
}

/// Compares gradients with finite differences, the driver with a loop, whole sequences with
/// segments, and memory policies with each other.
fn check_wrapper(options: &Value) {
    for name in NAMES {
        let device = device(name).unwrap();
        let problem = Problem::new(&device, options).unwrap();
        let whole = numbers(&problem, |p| p.driver_loss(MemoryPolicy::Store, STEPS)).unwrap();
        check(
            &problem,
            |p| p.driver_loss(MemoryPolicy::Store, STEPS),
            1e-8,
        )
        .unwrap();
        assert_close(&numbers(&problem, Problem::loop_loss).unwrap(), &whole);
        for segment in [1, 2] {
            let all = numbers(&problem, |p| p.driver_loss(MemoryPolicy::Store, segment)).unwrap();
            assert_close(&all, &whole);
            for memory_policy in [MemoryPolicy::Recompute, MemoryPolicy::Offload] {
                let less = numbers(&problem, |p| p.driver_loss(memory_policy, segment)).unwrap();
                assert_eq!(less, all, "{memory_policy:?}");
            }
        }
    }
}

fn gru() -> Value {
    json!({ "type": "GRUCell", "num_units": UNITS })
}

fn lstm() -> Value {
    json!({ "type": "LSTMCell", "num_units": UNITS })
}

#[test]
fn residual() {
    check_wrapper(&json!({ "type": "ResidualWrapper", "cell": gru() }));
    check_wrapper(&json!({ "type": "ResidualWrapper", "cell": gru(), "residual_fn": "mul_add" }));
}

#[test]
fn projections() {
    let class = "OutputProjectionWrapper";
    check_wrapper(&json!({ "type": class, "cell": gru(), "output_size": 2, "activation": "tanh" }));
    check_wrapper(&json!({ "type": "InputProjectionWrapper", "cell": lstm(), "num_proj": 3 }));
}

#[test]
fn highway() {
    check_wrapper(&json!({ "type": "HighwayWrapper", "cell": gru() }));
    let apart =
        json!({ "type": "HighwayWrapper", "cell": lstm(), "couple_carry_transform_gates": false });
    check_wrapper(&apart);
}

#[test]
fn attention() {
    let config = json!({
        "type": "AttentionCellWrapper", "cell": lstm(), "attn_length": 2, "attn_size": 3,
    });
    check_wrapper(&config);
}

#[test]
fn embedding() {
    let class = "EmbeddingWrapper";
    check_wrapper(
        &json!({ "type": class, "cell": gru(), "embedding_classes": 3, "embedding_size": 2 }),
    );
}

#[test]
fn dropout() {
    for variational in [false, true] {
        check_wrapper(&json!({
            "type": "DropoutWrapper", "cell": lstm(), "variational_recurrent": variational,
            "input_keep_prob": 0.75, "output_keep_prob": 0.8,
        }));
        check_wrapper(&json!({
            "type": "DropoutWrapper", "cell": lstm(), "variational_recurrent": variational,
            "input_keep_prob": 0.75, "output_keep_prob": 0.8, "state_keep_prob": 0.75,
        }));
    }
}

#[test]
fn wrappers_in_wrappers() {
    let dropout = json!({ "type": "DropoutWrapper", "cell": gru(), "output_keep_prob": 0.6 });
    let residual = json!({ "type": "ResidualWrapper", "cell": dropout });
    let highway = json!({ "type": "HighwayWrapper", "cell": residual });
    let stack = json!({ "type": "MultiRNNCell", "cells": [highway, lstm()] });
    check_wrapper(&json!({ "type": "DropoutWrapper", "cell": stack, "input_keep_prob": 0.8 }));
}

/// Returns its input and its state, so that dropped elements are visible.
#[derive(Clone, Debug)]
struct Echo {
    device: TestDevice,
    size: usize,
}

impl Echo {
    fn new(size: usize) -> Self {
        let device = device("cpu").unwrap();
        Self { device, size }
    }

    fn full(&self, dims: &[usize]) -> Tensor<TestDevice> {
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        Tensor::full(&self.device, 1.0, meta).unwrap()
    }
}

impl Module for Echo {
    type Backend = TestDevice;
    fn params(&mut self, _: &mut Visitor<'_, TestDevice>) {}
}

impl Cell for Echo {
    type Input = Tensor<TestDevice>;
    type State = LstmState<TestDevice>;
    type Output = Tensor<TestDevice>;

    fn zero_state(&self, batch: usize) -> Result<Self::State> {
        let c = self.zero_output(batch)?;
        Ok(LstmState { h: c.clone(), c })
    }
    fn zero_output(&self, batch: usize) -> Result<Self::Output> {
        self.full(&[batch, self.size]).affine(0.0, 0.0)
    }
    fn step(
        &self,
        _: &StepContext,
        x: &Self::Input,
        state: &Self::State,
    ) -> Result<(Self::Output, Self::State)> {
        Ok((x.clone(), state.clone()))
    }
}

/// The result of a wrapper around [`Echo`] for inputs of ones: outputs `[batch, steps, size]`.
fn echo<C>(wrapper: &C, echo: &Echo, batch: usize, steps: usize, seed: u64) -> Vec<f32>
where
    C: Cell<Backend = TestDevice, Input = Tensor<TestDevice>, Output = Tensor<TestDevice>>,
{
    let ones = echo.full(&[batch, steps, echo.size]);
    let rnn = DynamicRnn::new(wrapper).training(seed);
    rnn.run(&ones).unwrap().outputs.to_vec().unwrap()
}

#[test]
fn masks_have_the_expected_mean() {
    let cell = Echo::new(16);
    for keep_prob in [0.1, 0.5, 0.7, 0.95] {
        let wrapper = DropoutWrapper::builder(cell.clone()).input_keep_prob(keep_prob);
        let out = echo(&wrapper.build().unwrap(), &cell, 32, 20, 3);
        let scale = 1.0 / keep_prob as f32;
        assert!(out.iter().all(|&v| v == 0.0 || (v - scale).abs() < 1e-6));
        let kept = out.iter().filter(|&&v| v != 0.0).count() as f64 / out.len() as f64;
        // Four standard deviations of a fraction of 10240 elements.
        let limit = 4.0 * (keep_prob * (1.0 - keep_prob) / out.len() as f64).sqrt();
        assert!((kept - keep_prob).abs() < limit, "{kept} of {keep_prob}");
    }
}

#[test]
fn masks_depend_on_everything_unless_variational() {
    let cell = Echo::new(16);
    let builder = || DropoutWrapper::builder(cell.clone()).input_keep_prob(0.5);
    let wrapper = builder().build().unwrap();
    let out = echo(&wrapper, &cell, 4, 6, 3);
    let parts: Vec<&[f32]> = out.chunks(cell.size).collect();
    for (i, a) in parts.iter().enumerate() {
        assert!(
            parts[i + 1..].iter().all(|b| a != b),
            "rows and steps have different masks"
        );
    }
    assert_eq!(
        echo(&wrapper, &cell, 4, 6, 3),
        out,
        "equal seeds give equal masks"
    );
    assert_ne!(echo(&wrapper, &cell, 4, 6, 4), out);
    let other = builder().seed(1).build().unwrap();
    assert_ne!(echo(&other, &cell, 4, 6, 3), out);
    // Nested wrappers draw independently: some elements are kept by only one of them.
    let both = DropoutWrapper::builder(wrapper)
        .input_keep_prob(0.5)
        .build()
        .unwrap();
    let kept = |out: &[f32]| out.iter().filter(|&&v| v != 0.0).count();
    let (one, two) = (kept(&out), kept(&echo(&both, &cell, 4, 6, 3)));
    assert!(two * 4 < one * 3, "{two} of {one}");

    let wrapper = builder().variational_recurrent(true).build().unwrap();
    let out = echo(&wrapper, &cell, 4, 6, 3);
    let parts: Vec<&[f32]> = out.chunks(cell.size).collect();
    assert!(parts.iter().all(|part| part == &parts[0]));
    assert!(out.contains(&0.0) && out.contains(&2.0));
    assert_ne!(echo(&wrapper, &cell, 4, 6, 4), out);
}

#[test]
fn masks_do_not_depend_on_chunk_boundaries() {
    let cell = Echo::new(8);
    let wrapper = DropoutWrapper::builder(cell.clone()).input_keep_prob(0.5);
    let wrapper = wrapper.output_keep_prob(0.5).build().unwrap();
    let whole = echo(&wrapper, &cell, 2, 7, 3);
    let ones = cell.full(&[2, 7, 8]);
    for segment in 1..8 {
        let rnn = DynamicRnn::new(&wrapper).training(3);
        let out = rnn.segment_length(segment).run(&ones).unwrap().outputs;
        assert_eq!(out.to_vec::<f32>().unwrap(), whole, "{segment}");
    }
    // The mask does not depend on the numbers of rows and steps either.
    let fewer = echo(&wrapper, &cell, 1, 4, 3);
    assert_eq!(fewer, whole[..4 * 8]);
}

#[test]
fn evaluation_and_keep_probability_one_change_nothing() {
    let device = device("cpu").unwrap();
    let gru = GruCell::new(&device, 3, UNITS).unwrap();
    let x = NORMAL.tensor(
        &device,
        1,
        Meta::new(Shape::new(&[2, 5, 3]).unwrap(), DType::F32),
    );
    let x = x.unwrap();
    let run = |keep_prob: f64, mode| {
        let wrapper = DropoutWrapper::builder(gru.clone())
            .input_keep_prob(keep_prob)
            .output_keep_prob(keep_prob)
            .state_keep_prob(keep_prob)
            .build()
            .unwrap();
        let result = DynamicRnn::new(&wrapper).mode(mode).run(&x).unwrap();
        let state = result.state.to_vec::<f32>().unwrap();
        (result.outputs.to_vec::<f32>().unwrap(), state)
    };
    let bare = DynamicRnn::new(&gru).run(&x).unwrap();
    let bare = (bare.outputs.to_vec().unwrap(), bare.state.to_vec().unwrap());
    assert_eq!(run(0.5, Mode::Evaluation), bare);
    assert_eq!(run(1.0, Mode::Training { seed: 9 }), bare);
    assert_ne!(run(0.5, Mode::Training { seed: 9 }), bare);
}

#[test]
fn the_filter_selects_the_dropped_states() {
    let cell = Echo::new(64);
    let dropped = |filter: StateFilter| {
        let builder = DropoutWrapper::builder(cell.clone()).state_keep_prob(0.5);
        let wrapper = builder.state_filter(filter).build().unwrap();
        let ones = cell.full(&[1, 64]);
        let state = LstmState {
            c: ones.clone(),
            h: ones.clone(),
        };
        let cx = StepContext::training(1);
        let (output, state) = wrapper.step(&cx, &ones, &state).unwrap();
        assert!(!output.to_vec::<f32>().unwrap().contains(&0.0));
        let (c, h) = (state.c.to_vec::<f32>(), state.h.to_vec::<f32>());
        let (c, h) = (c.unwrap(), h.unwrap());
        assert_ne!(c, h, "different draws");
        (c.contains(&0.0), h.contains(&0.0))
    };
    assert_eq!(dropped(StateFilter::default()), (false, true));
    assert_eq!(dropped(StateFilter::all()), (true, true));
    let only_c = StateFilter::new(|path| matches!(path, Path::Field(_, "c")));
    assert_eq!(dropped(only_c), (true, false));
}

#[test]
fn a_residual_function_gets_one_step() {
    let device = device("cpu").unwrap();
    // The input is wider than the output: only its first columns are added.
    let cell = GruCell::new(&device, 6, UNITS).unwrap();
    let wrapper = ResidualWrapper::new(cell.clone())
        .residual_fn(|x, y| x.slice(1, 0..y.shape().last())?.add(y));
    let meta = Meta::new(Shape::new(&[3, 5, 6]).unwrap(), DType::F32);
    let x = NORMAL.tensor(&device, 1, meta).unwrap();
    let run = |lengths: &[i32]| {
        let bare = DynamicRnn::new(&cell).sequence_length(lengths).run(&x);
        let rnn = DynamicRnn::new(&wrapper).sequence_length(lengths).run(&x);
        (bare.unwrap().outputs, rnn.unwrap().outputs)
    };
    let (bare, out) = run(&[5, 5, 5]);
    let sum = x.slice(2, 0..UNITS).unwrap().add(&bare).unwrap();
    assert_eq!(out.to_vec::<f32>().unwrap(), sum.to_vec::<f32>().unwrap());
    let (_, out) = run(&[5, 2, 0]);
    assert_eq!(
        out.slice(0, 2..3).unwrap().to_vec::<f32>().unwrap(),
        [0.0; 20]
    );
}

#[test]
fn padding_has_no_effect() {
    let nan = |device: &TestDevice| {
        // Row 1 has two steps; NaN follows.
        let mut x = vec![0.5f32; 2 * 4 * UNITS];
        x[6 * UNITS..].fill(f32::NAN);
        Tensor::from_slice(device, &x, &[2, 4, UNITS]).unwrap()
    };
    for name in NAMES {
        let device = device(name).unwrap();
        for options in [
            json!({ "type": "ResidualWrapper", "cell": gru() }),
            json!({ "type": "HighwayWrapper", "cell": gru() }),
            json!({ "type": "OutputProjectionWrapper", "cell": gru(), "output_size": UNITS }),
            json!({ "type": "InputProjectionWrapper", "cell": gru(), "num_proj": 3 }),
        ] {
            let cell = cell_from_config(&device, &options, UNITS, DType::F32).unwrap();
            let rnn = DynamicRnn::new(&cell).sequence_length(&[4, 2]);
            let out = rnn.run(&nan(&device)).unwrap().outputs;
            let out = out.to_vec::<f32>().unwrap();
            assert!(out[..6 * UNITS].iter().all(|v| v.is_finite()), "{options}");
            assert_eq!(out[6 * UNITS..], [0.0; 2 * UNITS], "{options}");
        }
    }
}

#[test]
fn a_cell_on_another_device() {
    let (outer, inner) = (device("cpu").unwrap(), device("cpu-unfused").unwrap());
    let cell = GruCell::new(&outer, 3, UNITS).unwrap();
    let moved = DeviceWrapper::new(cell.clone(), &inner).unwrap();
    assert!(moved.named_params()[0].1.device().same_device(&inner));
    assert_eq!(moved.scope(), "gru_cell");
    let meta = Meta::new(Shape::new(&[2, 5, 3]).unwrap(), DType::F32);
    let x = NORMAL.tensor(&outer, 1, meta).unwrap();
    let lengths = [5, 2];
    let bare = DynamicRnn::new(&cell)
        .sequence_length(&lengths)
        .run(&x)
        .unwrap();
    let rnn = DynamicRnn::new(&moved).sequence_length(&lengths);
    let out = rnn.clone().run(&x).unwrap();
    for (a, b) in [(&bare.outputs, &out.outputs), (&bare.state, &out.state)] {
        assert!(b.device().same_device(&outer));
        let (a, b) = (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    // The same step by step.
    let state = moved.zero_state(2).unwrap();
    let x0 = x.select(1, 0).unwrap();
    let (y, state) = moved.step(&StepContext::default(), &x0, &state).unwrap();
    assert!(y.device().same_device(&outer) && state.device().same_device(&outer));
    let error = rnn.training(1).run(&x).unwrap_err().to_string();
    assert!(error.contains("gradients do not cross"), "{error}");
    let same = DeviceWrapper::new(cell, &outer).unwrap();
    let rnn = DynamicRnn::new(&same).training(1);
    assert_eq!(rnn.run(&x).unwrap().outputs.shape().dims(), [2, 5, UNITS]);
}

#[test]
fn a_compiled_wrapper_has_no_effect() {
    let device = device("cpu").unwrap();
    let options = json!({ "type": "CompiledWrapper", "cell": gru(), "compile_stateful": true });
    let cell = cell_from_config(&device, &options, UNITS, DType::F32).unwrap();
    assert_eq!(cell.scope(), "gru_cell");
}

#[test]
fn invalid_arguments_are_rejected() {
    let device = device("cpu").unwrap();
    let gru = || GruCell::new(&device, UNITS, UNITS).unwrap();
    let says = |error: backend_api::Error, words: &[&str]| {
        let error = error.to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    for keep_prob in [-0.1, 0.0, 1.5, f64::NAN, f64::INFINITY, 1e-40, 1e-60] {
        let builder = || DropoutWrapper::builder(gru());
        let must = "must be above 0 and at most 1";
        let error = builder().input_keep_prob(keep_prob).build().unwrap_err();
        says(error, &["input_keep_prob", must]);
        let error = builder().output_keep_prob(keep_prob).build().unwrap_err();
        says(error, &["output_keep_prob", must]);
        let error = builder()
            .state_keep_prob(keep_prob)
            .variational_recurrent(true)
            .build();
        says(error.unwrap_err(), &["state_keep_prob", must]);
    }
    let step = StepContext::training(1);
    let x = |dims: &[usize]| {
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        Tensor::full(&device, 0.5, meta).unwrap()
    };
    let ids = |dims: &[usize]| {
        let zeros = vec![0i32; dims.iter().product()];
        Tensor::from_slice(&device, &zeros, dims).unwrap()
    };

    let table = EmbeddingWrapper::new(gru(), 7, UNITS).unwrap();
    let state = table.zero_state(2).unwrap();
    let wrapper = DropoutWrapper::builder(table.clone())
        .input_keep_prob(0.5)
        .build()
        .unwrap();
    let error = wrapper.step(&step, &ids(&[2]), &state).unwrap_err();
    says(error, &["dropout_wrapper: input is i32", "only floats"]);
    for (dims, fits) in [
        (&[2][..], true),
        (&[2, 1], true),
        (&[2, 2], false),
        (&[2, 1, 1], false),
    ] {
        let result = table.step(&step, &ids(dims), &state);
        assert_eq!(result.is_ok(), fits);
        if let Err(error) = result {
            says(
                error,
                &["embedding_wrapper: ids is", "[batch, 1] is needed"],
            );
        }
    }
    let error = table.step(&step, &x(&[2]), &state).unwrap_err();
    says(error, &["embedding_wrapper: ids is f32", "integers"]);
    let seven = Tensor::from_slice(&device, &[0i32, 7], &[2]).unwrap();
    assert!(table.step(&step, &seven, &state).is_err());
    let error = EmbeddingWrapper::new(gru(), 0, 4).unwrap_err();
    says(
        error,
        &["embedding_wrapper: embedding_classes must not be 0"],
    );
    let error = EmbeddingWrapper::new(gru(), 4, 0).unwrap_err();
    says(error, &["embedding_wrapper: embedding_size must not be 0"]);

    let wide = GruCell::new(&device, 2, UNITS).unwrap();
    let state = wide.zero_state(3).unwrap();
    let error = ResidualWrapper::new(wide.clone()).step(&step, &x(&[3, 2]), &state);
    says(
        error.unwrap_err(),
        &["residual_wrapper: input is [3, 2]", "[3, 4]"],
    );
    let error = HighwayWrapper::new(wide.clone())
        .unwrap()
        .step(&step, &x(&[3, 2]), &state);
    says(
        error.unwrap_err(),
        &["highway_wrapper: x is [3, 2]", "[3, 4]"],
    );

    let error = OutputProjectionWrapper::new(gru(), 0).unwrap_err();
    says(
        error,
        &["output_projection_wrapper: output_size must not be 0"],
    );
    let error = InputProjectionWrapper::new(gru(), 3, 0).unwrap_err();
    says(error, &["input_projection_wrapper: num_proj must not be 0"]);
    let error = InputProjectionWrapper::new(gru(), 0, 3).unwrap_err();
    says(
        error,
        &["input_projection_wrapper: input_size must not be 0"],
    );
    let narrow = InputProjectionWrapper::new(gru(), 3, 2).unwrap();
    let error = narrow.step(&step, &x(&[2, 3]), &narrow.zero_state(2).unwrap());
    says(error.unwrap_err(), &["gru_cell", "input depth 4"]);

    let error = AttentionCellWrapper::builder(gru(), UNITS, 0)
        .build()
        .unwrap_err();
    says(
        error,
        &["attention_cell_wrapper: attn_length must not be 0"],
    );
    let builder = || AttentionCellWrapper::builder(gru(), UNITS, 2);
    says(
        builder().attn_size(0).build().unwrap_err(),
        &["attn_size must not be 0"],
    );
    says(
        builder().attn_vec_size(0).build().unwrap_err(),
        &["attn_vec_size must not be 0"],
    );
    says(
        builder().input_size(0).build().unwrap_err(),
        &["input_size must not be 0"],
    );
    let attention = builder().build().unwrap();
    let (state, attns, memory) = attention.zero_state(2).unwrap();
    let good = (state.clone(), attns.clone(), memory.clone());
    let error = attention.step(&step, &x(&[2, 3]), &good).unwrap_err();
    says(
        error,
        &["attention_cell_wrapper: x is [2, 3]", "[2, 4] is needed"],
    );
    let bad = (state.clone(), attns.clone(), attns.clone());
    let error = attention.step(&step, &x(&[2, 4]), &bad).unwrap_err();
    says(error, &["state memory is [2, 4]", "[2, 8] is needed"]);
    let bad = (state, memory.clone(), memory);
    let error = attention.step(&step, &x(&[2, 4]), &bad).unwrap_err();
    says(error, &["state attns is [2, 8]", "[2, 4] is needed"]);

    let options = json!({
        "type": "DropoutWrapper", "cell": self::gru(), "input_keep_prob": 0.5, "input_size": 3,
    });
    let error = cell_from_config(&device, &options, UNITS, DType::F32).unwrap_err();
    says(error, &["input_size is 3", "depth 4"]);
    let options = json!({ "type": "ResidualWrapper", "cell": self::gru(), "residual_fn": "sub" });
    assert!(cell_from_config(&device, &options, UNITS, DType::F32).is_err());
}

/// A cell with two outputs, one input.
#[derive(Clone, Debug)]
struct Twice(Echo);

impl Module for Twice {
    type Backend = TestDevice;
    fn params(&mut self, _: &mut Visitor<'_, TestDevice>) {}
}

impl Cell for Twice {
    type Input = Tensor<TestDevice>;
    type State = ();
    type Output = (Tensor<TestDevice>, Tensor<TestDevice>);

    fn zero_state(&self, _: usize) -> Result<()> {
        Ok(())
    }
    fn zero_output(&self, batch: usize) -> Result<Self::Output> {
        let zero = self.0.zero_output(batch)?;
        Ok((zero.clone(), zero))
    }
    fn step(&self, _: &StepContext, x: &Self::Input, (): &()) -> Result<(Self::Output, ())> {
        Ok(((x.clone(), x.clone()), ()))
    }
}

#[test]
fn different_structures_are_rejected() {
    let cell = Twice(Echo::new(2));
    let x = cell.0.full(&[3, 2]);
    let error = ResidualWrapper::new(cell.clone()).step(&StepContext::default(), &x, &());
    assert_eq!(
        error.unwrap_err().to_string(),
        "residual_wrapper: input is one tensor, but a nest of `0`, `1` is needed"
    );
    // A custom function may combine them.
    let joined = ResidualWrapper::new(cell).residual_fn(|x, (a, b)| Ok((x.add(a)?, b.clone())));
    let ((a, _), ()) = joined.step(&StepContext::default(), &x, &()).unwrap();
    assert_eq!(a.to_vec::<f32>().unwrap(), [2.0; 6]);
}
