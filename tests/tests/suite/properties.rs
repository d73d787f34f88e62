//! Properties that hold for every cell, shape and length, tested on random ones. The seeds are
//! fixed, so every run tests the same cases.

use std::cell::RefCell;

use backend_api::{DType, MemoryPolicy, Meta, Result, Shape, Tensor, Unfused, philox};
use backend_cpu::Cpu;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use recurrent_tests::devices::{NAMES, TestBackend, TestDevice, device};
use rnn_core::cells::{
    BasicLstmCellBuilder, BasicRnnCellBuilder, GruCellBuilder, LstmCellBuilder, UgrnnCellBuilder,
};
use rnn_core::wrappers::{DropoutWrapperBuilder, MultiRnnCellConfig, ResidualWrapperConfig};
use rnn_core::{
    AnyCell, BidirectionalDynamicRnn, Cell, CellConfig, DynamicRnn, Initializer, Mode, Module,
    Nest, Param, StaticRnn, StepContext, Visitor, cell_from_config,
};
use rnn_train::checkpoint::{load_params, save_params};
use rnn_train::{Autodiff, value_and_grad};
use serde_json::{Value, json};

type T = Tensor<TestDevice>;
type Any = AnyCell<TestDevice>;
type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// Number of cases of a property; each runs on every device.
const CASES: u32 = 48;
/// Tolerance for another order of summation, relative to the largest number of a tensor.
const ROUNDING: f64 = 1e-12;
/// The seed of dropout.
const SEED: u64 = 5;

/// Runs `test` on `cases` values, which are the same in every run.
fn property<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Outcome) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let result = TestRunner::new_with_rng(config, rng).run(strategy, |value| {
        test(value).map_err(|e| TestCaseError::fail(e.to_string()))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Runs the property on every device.
fn on_devices<S>(strategy: &S, test: impl Fn(&TestDevice, &S::Value) -> Outcome)
where
    S: Strategy,
{
    let devices = NAMES.map(|name| (name, device(name).unwrap()));
    property(CASES, strategy, |value| {
        for (name, device) in &devices {
            test(device, &value).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    });
}

/// A cell under a driver.
#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    steps: usize,
    depth: usize,
    cell: Value,
    lengths: Vec<usize>,
    mode: Mode,
    seed: u64,
}

impl Case {
    fn evaluation(&self) -> Self {
        let mode = Mode::Evaluation;
        Self {
            mode,
            ..self.clone()
        }
    }

    fn build(&self, device: &TestDevice) -> Result<CellUnderTest<Any>> {
        let cell = cell_from_config(device, &self.cell, self.depth, DType::F64)?;
        CellUnderTest::new(device, cell, self)
    }
}

fn activation() -> impl Strategy<Value = &'static str> {
    select(vec!["tanh", "sigmoid", "relu", "softsign", "identity"])
}

/// Cells of a given output width that wrap no other cell.
fn plain(width: usize) -> BoxedStrategy<Value> {
    let rnn = activation()
        .prop_map(move |f| json!({ "type": "BasicRNNCell", "num_units": width, "activation": f }));
    let bias = || select(vec![-1.0, 0.0, 1.0]);
    let basic = (bias(), activation()).prop_map(move |(bias, f)| {
        json!({ "type": "BasicLSTMCell", "num_units": width, "forget_bias": bias, "activation": f })
    });
    let clip = || proptest::option::of(0.05..1.0);
    let projection = proptest::option::of(1..=6usize);
    let options = (
        any::<bool>(),
        clip(),
        projection,
        clip(),
        bias(),
        activation(),
    );
    let lstm = options.prop_map(
        move |(peepholes, cell_clip, projected, proj_clip, bias, f)| {
            json!({
                "type": "LSTMCell", "num_units": projected.unwrap_or(width),
                "use_peepholes": peepholes, "cell_clip": cell_clip,
                "num_proj": projected.map(|_| width), "proj_clip": proj_clip,
                "forget_bias": bias, "activation": f,
            })
        },
    );
    let gru = (activation(), any::<bool>()).prop_map(move |(f, after)| {
        json!({ "type": "GRUCell", "num_units": width, "activation": f, "reset_after": after })
    });
    let ugrnn = (bias(), activation()).prop_map(move |(bias, f)| {
        json!({ "type": "UGRNNCell", "num_units": width, "forget_bias": bias, "activation": f })
    });
    prop_oneof![1 => rnn, 1 => basic, 3 => lstm, 1 => gru, 1 => ugrnn].boxed()
}

fn dropout(cell: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    let keep_prob = || select(vec![0.4, 0.75, 1.0]);
    (cell, keep_prob(), keep_prob(), keep_prob(), any::<bool>())
        .prop_map(|(cell, input, output, state, variational)| {
            json!({
                "type": "DropoutWrapper", "cell": cell, "input_keep_prob": input,
                "output_keep_prob": output, "state_keep_prob": state,
                "variational_recurrent": variational,
            })
        })
        .boxed()
}

fn residual(cell: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    (cell, select(vec![json!(null), json!("mul_add")]))
        .prop_map(|(cell, f)| json!({ "type": "ResidualWrapper", "cell": cell, "residual_fn": f }))
        .boxed()
}

/// A layer from `depth` to `width`.
fn layer(depth: usize, width: usize) -> BoxedStrategy<Value> {
    if depth == width {
        prop_oneof![3 => plain(width), 1 => dropout(plain(width)), 1 => residual(plain(width))]
            .boxed()
    } else {
        prop_oneof![3 => plain(width), 1 => dropout(plain(width))].boxed()
    }
}

fn stack(depth: usize, most: usize) -> BoxedStrategy<Value> {
    vec(1..=most, 1..=3)
        .prop_flat_map(move |widths| {
            let below = std::iter::once(depth).chain(widths.clone());
            let layers = below.zip(widths.clone());
            layers.map(|(d, w)| layer(d, w)).collect::<Vec<_>>()
        })
        .prop_map(|cells| json!({ "type": "MultiRNNCell", "cells": cells }))
        .boxed()
}

/// Any cell for inputs of width `depth`, with up to `most` hidden units.
fn cell(depth: usize, most: usize) -> BoxedStrategy<Value> {
    prop_oneof![
        5 => (1..=most).prop_flat_map(plain),
        1 => dropout((1..=most).prop_flat_map(plain)),
        1 => residual(plain(depth)),
        1 => residual(dropout(plain(depth))),
        2 => stack(depth, most),
        1 => dropout(stack(depth, most)),
    ]
    .boxed()
}

fn case_of(
    batch: impl Strategy<Value = usize>,
    steps: impl Strategy<Value = usize>,
    depth: impl Strategy<Value = usize>,
    most: usize,
    excess: usize,
) -> impl Strategy<Value = Case> {
    (batch, steps, depth).prop_flat_map(move |(batch, steps, depth)| {
        let lengths = vec(0..=steps + excess, batch);
        let mode = select(vec![Mode::Evaluation, Mode::Training { seed: SEED }]);
        (cell(depth, most), lengths, mode, any::<u64>()).prop_map(
            move |(cell, lengths, mode, seed)| Case {
                batch,
                steps,
                depth,
                cell,
                lengths,
                mode,
                seed,
            },
        )
    })
}

/// A small case; lengths may exceed the number of steps.
fn case() -> impl Strategy<Value = Case> {
    case_of(1..=5usize, 0..=9usize, 1..=5usize, 6, 2)
}

/// A cell with its inputs and its initial state as parameters, so that all of them are
/// differentiated.
#[derive(Clone, Debug)]
struct CellUnderTest<C: Cell> {
    cell: C,
    inputs: Param<TestDevice>,
    state: Vec<Param<TestDevice>>,
}

impl<C: Cell<Backend = TestDevice>> Module for CellUnderTest<C> {
    type Backend = TestDevice;
    fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
        v.child("cell", &mut self.cell);
        v.param("inputs", &mut self.inputs);
        for (i, state) in self.state.iter_mut().enumerate() {
            v.param(&format!("state_{i}"), state);
        }
    }
}

impl<C: Cell<Backend = TestDevice, Input = T, Output = T>> CellUnderTest<C> {
    /// All numbers are random and a function of the case alone.
    fn new(device: &TestDevice, cell: C, case: &Case) -> Result<Self> {
        let param = |dims: &[usize]| Param::new(device, Initializer::ZEROS, dims, DType::F64);
        let zero = cell.zero_state(case.batch)?;
        let state = zero.leaves().into_iter().map(|t| param(&t.dims()));
        let mut subject = Self {
            state: state.collect::<Result<_>>()?,
            inputs: param(&[case.batch, case.steps, case.depth])?,
            cell,
        };
        let mut number = 0;
        subject.each_param(&mut |_, param| {
            number += 1;
            // Scales the values so that sums over many inputs are no larger than sums over few.
            let rows = param.dims().first().map_or(1, |&rows| rows.max(4));
            let (mean, std) = (0.0, (2.0 / rows as f64).sqrt().min(0.6));
            let key = philox::derive(case.seed, number);
            let value = Initializer::Normal { mean, std }.tensor(device, key, param.meta())?;
            param.set(value)
        })?;
        Ok(subject)
    }

    fn initial(&self, batch: usize) -> Result<C::State> {
        let leaves: Vec<_> = self.state.iter().map(|p| p.value().clone()).collect();
        self.cell.zero_state(batch)?.rebuild(&leaves)
    }

    fn rnn(&self, case: &Case) -> Result<DynamicRnn<'_, C>> {
        Ok(DynamicRnn::new(&self.cell)
            .sequence_length(&case.lengths)
            .initial_state(self.initial(case.batch)?)
            .mode(case.mode))
    }

    fn driver(&self, case: &Case) -> Result<Run> {
        let result = self.rnn(case)?.run(self.inputs.value())?;
        Ok((vec![result.outputs], owned(&result.state)))
    }

    /// Runs each row alone, cut to its length, in evaluation mode.
    fn rows(&self, case: &Case) -> Result<Run> {
        let (mut outputs, mut finals) = (Vec::new(), Vec::new());
        for (row, &length) in case.lengths.iter().enumerate() {
            let of_row = |t: &T| t.slice(0, row..row + 1);
            let length = length.min(case.steps);
            let inputs = of_row(&self.inputs)?.slice(1, 0..length)?;
            let initial = self.initial(case.batch)?.map(&mut |t| of_row(t))?;
            let rnn = DynamicRnn::new(&self.cell).initial_state(initial);
            let result = rnn.run(&inputs)?;
            let dims = [1, case.steps - length, result.outputs.shape().last()];
            let zeros =
                Tensor::from_slice(inputs.device(), &vec![0.0; dims.iter().product()], &dims)?;
            outputs.push(Tensor::concat(&[&result.outputs, &zeros], 1)?);
            finals.push(owned(&result.state));
        }
        Ok((vec![joined(&outputs, 0)?], joined_states(&finals)?))
    }

    /// Runs the cell's own steps, with explicit handling of the lengths.
    fn stepped(&self, case: &Case) -> Result<Run> {
        let mut states = vec![self.initial(case.batch)?];
        let mut outputs = Vec::new();
        for t in 0..case.steps {
            let cx = StepContext::new(case.mode).at(t);
            let x = self.inputs.select(1, t)?;
            let (output, state) = self.cell.step(&cx, &x, &states[t])?;
            outputs.push(output);
            states.push(state);
        }
        let zero = self.cell.zero_output(1)?.unsqueeze(1)?;
        let (mut rows, mut finals) = (Vec::new(), Vec::new());
        for (row, &length) in case.lengths.iter().enumerate() {
            let of_row = |t: &T| t.slice(0, row..row + 1);
            // An empty part first, in case there are no steps.
            let mut parts = vec![zero.slice(1, 0..0)?];
            for (t, output) in outputs.iter().enumerate() {
                parts.push(match t < length {
                    true => of_row(output)?.unsqueeze(1)?,
                    false => zero.clone(),
                });
            }
            rows.push(joined(&parts, 1)?);
            let last = states[length.min(case.steps)].leaves();
            finals.push(last.into_iter().map(of_row).collect::<Result<Vec<_>>>()?);
        }
        Ok((vec![joined(&rows, 0)?], joined_states(&finals)?))
    }

    /// Runs chunks of `chunk` steps with the state carried over, in evaluation mode.
    fn chunked(&self, case: &Case, chunk: usize) -> Result<Run> {
        let mut state = self.initial(case.batch)?;
        let mut parts = Vec::new();
        let mut start = 0;
        while start < case.steps || parts.is_empty() {
            let end = (start + chunk).min(case.steps);
            let left: Vec<usize> = case
                .lengths
                .iter()
                .map(|l| l.saturating_sub(start))
                .collect();
            let rnn = DynamicRnn::new(&self.cell)
                .sequence_length(&left)
                .initial_state(state);
            let result = rnn.run(&self.inputs.slice(1, start..end)?)?;
            parts.push(result.outputs);
            state = result.state;
            start += chunk;
        }
        Ok((vec![joined(&parts, 1)?], owned(&state)))
    }

    /// The same problem with other finite numbers, large and small, in the padding.
    fn spoiled(&self, case: &Case) -> Result<Self> {
        let mut values = self.inputs.to_vec::<f64>()?;
        for (i, value) in values.iter_mut().enumerate() {
            let (row, rest) = (i / (case.steps * case.depth), i % (case.steps * case.depth));
            if rest / case.depth >= case.lengths[row] {
                *value = [1e30, -3.5, -1e12, 1e-300, 77.0][(i + row) % 5];
            }
        }
        let mut spoiled = self.clone();
        let (device, dims) = (self.inputs.device(), self.inputs.dims());
        spoiled
            .inputs
            .set(Tensor::from_slice(device, &values, &dims)?)?;
        Ok(spoiled)
    }
}

/// Outputs and final state.
type Run = (Vec<T>, Vec<T>);

fn owned<N: Nest<TestDevice>>(nest: &N) -> Vec<T> {
    nest.leaves().into_iter().cloned().collect()
}

fn joined(parts: &[T], axis: usize) -> Result<T> {
    Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)
}

/// Joins the states of rows to the state of a batch.
fn joined_states(rows: &[Vec<T>]) -> Result<Vec<T>> {
    (0..rows[0].len())
        .map(|i| {
            joined(
                &rows.iter().map(|row| row[i].clone()).collect::<Vec<_>>(),
                0,
            )
        })
        .collect()
}

/// Outputs, state and gradients, by name.
type Numbers = Vec<(String, Vec<f64>)>;

/// The results of a run, and the gradient of a weighted sum of them with a different weight for
/// each element.
fn measure<M: Module<Backend = TestDevice>>(
    model: &M,
    run: impl FnOnce(&M) -> Result<Run>,
) -> Result<Numbers> {
    let numbers = RefCell::new(Numbers::new());
    let (_, grads) = value_and_grad(model, |model| {
        let (outputs, state) = Mode::Evaluation.scope(|| run(model))?;
        let mut sums = Vec::new();
        for (name, tensors) in [("output", outputs), ("state", state)] {
            for (i, t) in tensors.iter().enumerate() {
                let phase = sums.len() as f64 + 0.3;
                let weights: Vec<f64> = (0..t.shape().count())
                    .map(|k| (phase + 0.7 * k as f64).sin())
                    .collect();
                let weights = Tensor::from_slice(t.device(), &weights, &t.dims())?;
                sums.push(t.mul(&weights)?.sum_all()?.reshape(&[1])?);
                let values = (format!("{name} {i}"), t.to_vec()?);
                numbers.borrow_mut().push(values);
            }
        }
        joined(&sums, 0)?.sum_all()
    })?;
    let mut numbers = numbers.into_inner();
    for ((name, param), (_, grad)) in model.named_params().into_iter().zip(grads.iter()) {
        let values = match grad {
            Some(grad) => grad.to_dense()?.to_vec()?,
            None => vec![0.0; param.shape().count()],
        };
        numbers.push((format!("gradient of {name}"), values));
    }
    Ok(numbers)
}

/// Fails if two runs differ by more than `tolerance` times the largest number of a tensor. A
/// tolerance of 0 requires equal numbers, but zeros may differ in sign.
fn close(a: &Numbers, b: &Numbers, tolerance: f64) -> Outcome {
    if a.len() != b.len() {
        return Err(format!("{} and {} tensors", a.len(), b.len()).into());
    }
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let largest = b.iter().fold(1.0f64, |m, b| m.max(b.abs()));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * largest;
        if a.len() != b.len() || !a.iter().zip(b).all(near) {
            return Err(format!("{name}: {a:?} and {b:?}").into());
        }
    }
    Ok(())
}

/// Fails if two runs differ in any bit.
fn same_bits(a: &Numbers, b: &Numbers) -> Outcome {
    close(a, b, 0.0)?;
    for ((name, a), (_, b)) in a.iter().zip(b) {
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        if bits(a) != bits(b) {
            return Err(format!("{name}: {a:?} and {b:?} differ in a sign").into());
        }
    }
    Ok(())
}

#[test]
fn ragged_rows_equal_separate_rows() {
    on_devices(&case(), |device, case| {
        let case = case.evaluation();
        let subject = case.build(device)?;
        let batch = measure(&subject, |s| s.driver(&case))?;
        close(&batch, &measure(&subject, |s| s.rows(&case))?, ROUNDING)
    });
}

#[test]
fn chunks_with_carried_state_equal_the_whole() {
    on_devices(&(case(), 1..=4usize), |device, (case, chunk)| {
        let subject = case.build(device)?;
        // The driver's own segments, with any memory policy.
        let whole = measure(&subject, |s| s.driver(case))?;
        for memory_policy in [
            MemoryPolicy::Store,
            MemoryPolicy::Recompute,
            MemoryPolicy::Offload,
        ] {
            let parts = measure(&subject, |s| {
                let rnn = s
                    .rnn(case)?
                    .memory_policy(memory_policy)
                    .segment_length(*chunk);
                let result = rnn.run(s.inputs.value())?;
                Ok((vec![result.outputs], owned(&result.state)))
            })?;
            close(&parts, &whole, ROUNDING).map_err(|e| format!("{memory_policy:?}: {e}"))?;
        }
        // Several runs. Each run starts its random numbers anew, so this needs evaluation mode.
        let case = case.evaluation();
        let whole = measure(&subject, |s| s.driver(&case))?;
        close(
            &measure(&subject, |s| s.chunked(&case, *chunk))?,
            &whole,
            ROUNDING,
        )
    });
}

#[test]
fn steps_equal_the_sequence() {
    on_devices(&case(), |device, case| {
        let subject = case.build(device)?;
        let sequence = measure(&subject, |s| s.driver(case))?;
        close(
            &measure(&subject, |s| s.stepped(case))?,
            &sequence,
            ROUNDING,
        )
    });
}

#[test]
fn static_equals_dynamic() {
    let case = case_of(1..=5usize, 1..=9usize, 1..=5usize, 6, 2);
    on_devices(&case, |device, case| {
        let subject = case.build(device)?;
        let dynamic = measure(&subject, |s| s.driver(case))?;
        let list = measure(&subject, |s| {
            let steps: Result<Vec<T>> = (0..case.steps).map(|t| s.inputs.select(1, t)).collect();
            let result = StaticRnn::new(&s.cell)
                .sequence_length(&case.lengths)
                .initial_state(s.initial(case.batch)?)
                .mode(case.mode)
                .run(&steps?)?;
            let outputs: Result<Vec<T>> = result.outputs.iter().map(|o| o.unsqueeze(1)).collect();
            Ok((vec![joined(&outputs?, 1)?], owned(&result.state)))
        })?;
        close(&list, &dynamic, ROUNDING)
    });
}

#[test]
fn time_major_equals_batch_major() {
    on_devices(&case(), |device, case| {
        let subject = case.build(device)?;
        let batch_major = measure(&subject, |s| s.driver(case))?;
        let time_major = measure(&subject, |s| {
            let inputs = s.inputs.transpose(0, 1)?;
            let result = s.rnn(case)?.time_major(true).run(&inputs)?;
            Ok((vec![result.outputs.transpose(0, 1)?], owned(&result.state)))
        })?;
        same_bits(&time_major, &batch_major)
    });
}

#[test]
fn dropout_does_nothing_in_evaluation() {
    let case = case().prop_flat_map(|case| {
        let wrapped = dropout(Just(case.cell.clone()));
        (Just(case), wrapped)
    });
    on_devices(&case, |device, (case, wrapped)| {
        let bare = case.evaluation();
        let around = Case {
            cell: wrapped.clone(),
            ..bare.clone()
        };
        let numbers = |case: &Case| measure(&case.build(device)?, |s| s.driver(case));
        let stepped = |case: &Case| measure(&case.build(device)?, |s| s.stepped(case));
        same_bits(&numbers(&around)?, &numbers(&bare)?)?;
        same_bits(&stepped(&around)?, &stepped(&bare)?)
    });
}

#[test]
fn any_cell_equals_the_typed_cell() {
    on_devices(&case(), |device, case| match case.cell["type"].as_str() {
        Some("BasicRNNCell") => any_is_typed::<BasicRnnCellBuilder>(device, case),
        Some("BasicLSTMCell") => any_is_typed::<BasicLstmCellBuilder>(device, case),
        Some("LSTMCell") => any_is_typed::<LstmCellBuilder>(device, case),
        Some("GRUCell") => any_is_typed::<GruCellBuilder>(device, case),
        Some("UGRNNCell") => any_is_typed::<UgrnnCellBuilder>(device, case),
        Some("MultiRNNCell") => any_is_typed::<MultiRnnCellConfig>(device, case),
        Some("DropoutWrapper") => any_is_typed::<DropoutWrapperBuilder<Value>>(device, case),
        Some("ResidualWrapper") => any_is_typed::<ResidualWrapperConfig>(device, case),
        other => Err(format!("{other:?} is not known").into()),
    });
}

fn any_is_typed<Config>(device: &TestDevice, case: &Case) -> Outcome
where
    Config: CellConfig,
    Config::Cell<TestDevice>: Cell<Backend = TestDevice, Input = T, Output = T>,
{
    let mut options = case.cell.clone();
    options.as_object_mut().unwrap().remove("type");
    let config: Config = serde_json::from_value(options)?;
    let typed = config.build_for(device, case.depth, DType::F64)?;
    let any = CellUnderTest::new(device, AnyCell::new(typed.clone()), case)?;
    let typed = CellUnderTest::new(device, typed, case)?;
    let numbers = measure(&typed, |s| s.driver(case))?;
    same_bits(&measure(&any, |s| s.driver(case))?, &numbers)?;
    same_bits(
        &measure(&case.build(device)?, |s| s.driver(case))?,
        &numbers,
    )?;
    let numbers = measure(&typed, |s| s.stepped(case))?;
    same_bits(&measure(&any, |s| s.stepped(case))?, &numbers)
}

#[test]
fn padding_does_not_leak() {
    on_devices(&case(), |device, case| {
        let subject = case.build(device)?;
        let clean = measure(&subject, |s| s.driver(case))?;
        let spoiled = measure(&subject.spoiled(case)?, |s| s.driver(case))?;
        close(&spoiled, &clean, 0.0)
    });
}

#[test]
fn padding_does_not_leak_in_both_directions() {
    let case = case_of(1..=5usize, 0..=9usize, 1..=5usize, 6, 0)
        .prop_flat_map(|case| (Just(case.clone()), cell(case.depth, 6)));
    on_devices(&case, |device, (case, backward)| {
        let other = Case {
            cell: backward.clone(),
            seed: !case.seed,
            ..case.clone()
        };
        let (forward, backward) = (case.build(device)?, other.build(device)?);
        let run = |both: &(CellUnderTest<Any>, CellUnderTest<Any>)| {
            let result = BidirectionalDynamicRnn::new(&both.0.cell, &both.1.cell)
                .sequence_length(&case.lengths)
                .initial_state_fw(both.0.initial(case.batch)?)
                .initial_state_bw(both.1.initial(case.batch)?)
                .mode(case.mode)
                .run(both.0.inputs.value())?;
            let (outputs, state) = (result.outputs, result.state);
            Ok((vec![outputs.0, outputs.1], owned(&state)))
        };
        let spoiled = measure(&(forward.spoiled(case)?, backward.clone()), run)?;
        close(&spoiled, &measure(&(forward, backward), run)?, 0.0)
    });
}

#[test]
fn reversing_twice_is_the_identity() {
    let axes = (0..4usize, 0..4usize).prop_filter("two axes", |(time, batch)| time != batch);
    let strategy = (vec(0..=5usize, 4), axes, any::<u64>()).prop_flat_map(|(dims, axes, seed)| {
        let lengths = vec(0..=dims[axes.0], dims[axes.1]);
        (Just(dims), Just(axes), lengths, Just(seed))
    });
    on_devices(&strategy, |device, (dims, (time, batch), lengths, seed)| {
        let meta = Meta::new(Shape::new(dims)?, DType::F64);
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        let x = normal.tensor(device, *seed, meta)?;
        let on_device: Vec<i64> = lengths.iter().map(|&l| l as i64).collect();
        let on_device = Tensor::from_slice(device, &on_device, &[lengths.len()])?;
        let once = x.reverse(&on_device, *time, *batch)?;
        let twice = once.reverse(&on_device, *time, *batch)?;
        let (x, once, twice) = (
            x.to_vec::<f64>()?,
            once.to_vec::<f64>()?,
            twice.to_vec::<f64>()?,
        );
        if twice != x {
            return Err(format!("{x:?} and {twice:?}").into());
        }
        // The test above would also pass if `reverse` did nothing.
        let strides: Vec<usize> = (0..4).map(|i| dims[i + 1..].iter().product()).collect();
        let moved = |i: usize| {
            let at = |axis: usize| i / strides[axis] % dims[axis];
            let (t, length) = (at(*time), lengths[at(*batch)]);
            match t < length {
                true => i - t * strides[*time] + (length - 1 - t) * strides[*time],
                false => i,
            }
        };
        match (0..x.len()).find(|&i| once[i] != x[moved(i)]) {
            None => Ok(()),
            Some(i) => Err(format!("element {i} is {}, not {}", once[i], x[moved(i)]).into()),
        }
    });
}

#[test]
fn saved_parameters_are_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.safetensors");
    let strategy = (case(), select(vec![DType::F32, DType::F64]));
    on_devices(&strategy, |device, (case, dtype)| {
        let build = || cell_from_config(device, &case.cell, case.depth, *dtype);
        let (mut saved, mut loaded) = (build()?, build()?);
        // Arbitrary bits, which include subnormal numbers, signed zeros, infinities and NaN
        // payloads.
        let mut number = 0;
        saved.each_param(&mut |_, param| {
            let bits: Vec<u64> = (0..param.shape().count())
                .map(|_| {
                    number += 1;
                    let bits = philox::derive(case.seed, number);
                    match bits % 4 {
                        0 => bits | 0x7ff0_0000_7f80_0000,
                        1 => bits & 0x800f_ffff_807f_ffff,
                        2 => bits & 0x8000_0000_8000_0000,
                        _ => bits,
                    }
                })
                .collect();
            let (device, dims) = (param.device().clone(), param.dims());
            param.set(match dtype {
                DType::F32 => {
                    let values: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b as u32)).collect();
                    Tensor::from_slice(&device, &values, &dims)?
                }
                _ => {
                    let values: Vec<f64> = bits.iter().map(|&b| f64::from_bits(b)).collect();
                    Tensor::from_slice(&device, &values, &dims)?
                }
            })
        })?;
        save_params(&path, &saved)?;
        load_params(&path, &mut loaded)?;
        let bits = |t: &T| -> Result<Vec<u64>> {
            Ok(match dtype {
                DType::F32 => {
                    let values = t.to_vec::<f32>()?;
                    values.iter().map(|v| v.to_bits().into()).collect()
                }
                _ => t.to_vec::<f64>()?.iter().map(|v| v.to_bits()).collect(),
            })
        };
        let (saved, loaded) = (saved.named_params(), loaded.named_params());
        if saved.len() != loaded.len() {
            return Err("parameters are missing".into());
        }
        for ((name, a), (other, b)) in saved.iter().zip(&loaded) {
            if name != other || a.dims() != b.dims() || bits(a)? != bits(b)? {
                return Err(format!("{name} differs after loading").into());
            }
        }
        Ok(())
    });
}

#[test]
fn thread_count_changes_no_bit() {
    let devices: Vec<TestDevice> = [1, 2, 3]
        .into_iter()
        .flat_map(|threads| {
            let cpu = || Cpu::builder().threads(threads).build().unwrap();
            let fused = TestBackend::Cpu(cpu());
            [fused, TestBackend::UnfusedCpu(Unfused(cpu()))].map(Autodiff::new)
        })
        .collect();
    // Small sizes run on one thread.
    let wide = case_of(20..=90usize, 1..=6usize, 1..=60usize, 90, 2);
    let strategy = prop_oneof![1 => case(), 3 => wide];
    property(24, &strategy, |case| {
        let numbers = |device| measure(&case.build(device)?, |s| s.driver(&case));
        let (fused, unfused) = (numbers(&devices[0])?, numbers(&devices[1])?);
        for (device, threads) in [(2, 2), (4, 3)] {
            let more = numbers(&devices[device])?;
            same_bits(&more, &fused).map_err(|e| format!("{threads} threads: {e}"))?;
            let more = numbers(&devices[device + 1])?;
            same_bits(&more, &unfused).map_err(|e| format!("{threads} threads, unfused: {e}"))?;
        }
        Ok(())
    });
}
