//! Padding has no effect on results and gradients, whatever it holds, for every cell and wrapper
//! under every driver. Without any step to take, gradients are zero.

use std::cell::RefCell;

use backend_api::{DType, Error, MemoryPolicy, Result, Tensor, philox};
use recurrent_tests::cells::{CellConfigCase, plain, wrapped};
use recurrent_tests::devices::{TestDevice, device};
use rnn_core::cells::PhasedLstmCellBuilder;
use rnn_core::{
    AnyCell, BidirectionalDynamicRnn, Cell, DynamicRnn, FusedRnnCell, FusedRnnCellAdaptor,
    Initializer, Lengths, Module, Nest, Param, StaticRnn, TimeReversedFusedRnn, Visitor,
    cell_from_config, static_bidirectional_rnn,
};
use rnn_train::{Gradient, value_and_grad};

type T = Tensor<TestDevice>;
type Any = AnyCell<TestDevice>;
/// Names and values of results and gradients. A parameter without effect has no gradient.
type Numbers = Vec<(String, Option<Vec<f64>>)>;

const BATCH: usize = 3;
const STEPS: usize = 4;
/// The last row takes no step.
const LENGTHS: [i64; BATCH] = [2, 4, 0];
const SPOILED: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

/// A cell with its inputs and its initial state as parameters.
#[derive(Clone, Debug)]
struct Subject {
    cell: Any,
    /// The cell of the backward direction.
    backward: Any,
    inputs: Param<TestDevice>,
    state: Vec<Param<TestDevice>>,
}

impl Module for Subject {
    type Backend = TestDevice;
    fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
        v.child("cell", &mut self.cell);
        v.child("backward", &mut self.backward);
        v.param("inputs", &mut self.inputs);
        for (i, state) in self.state.iter_mut().enumerate() {
            v.param(&format!("state_{i}"), state);
        }
    }
}

/// Outputs and final states.
type Run = (Vec<T>, Vec<T>);
type Driver = fn(&Subject, &CellConfigCase, &[i64]) -> Result<Run>;

const DRIVERS: [(&str, Driver); 6] = [
    ("dynamic", dynamic),
    ("dynamic in segments", in_segments),
    ("static", steps_as_list),
    ("bidirectional", both_directions),
    ("static bidirectional", both_directions_as_list),
    ("reversed", reversed),
];

fn owned<N: Nest<TestDevice>>(nest: &N) -> Vec<T> {
    nest.leaves().into_iter().cloned().collect()
}

fn dynamic(s: &Subject, case: &CellConfigCase, lengths: &[i64]) -> Result<Run> {
    let rnn = DynamicRnn::new(&s.cell).mode(case.mode);
    let rnn = rnn.sequence_length(lengths).initial_state(s.initial()?);
    let result = rnn.run(s.inputs.value())?;
    Ok((vec![result.outputs], owned(&result.state)))
}

fn in_segments(s: &Subject, case: &CellConfigCase, lengths: &[i64]) -> Result<Run> {
    let rnn = DynamicRnn::new(&s.cell).mode(case.mode).segment_length(3);
    let rnn = rnn.memory_policy(MemoryPolicy::Recompute);
    let rnn = rnn.sequence_length(lengths).initial_state(s.initial()?);
    let result = rnn.run(s.inputs.value())?;
    Ok((vec![result.outputs], owned(&result.state)))
}

fn steps_as_list(s: &Subject, case: &CellConfigCase, lengths: &[i64]) -> Result<Run> {
    let rnn = StaticRnn::new(&s.cell).mode(case.mode);
    let rnn = rnn.sequence_length(lengths).initial_state(s.initial()?);
    let result = rnn.run(&s.list()?)?;
    Ok((result.outputs, owned(&result.state)))
}

fn both_directions(s: &Subject, case: &CellConfigCase, lengths: &[i64]) -> Result<Run> {
    let rnn = BidirectionalDynamicRnn::new(&s.cell, &s.backward).mode(case.mode);
    let rnn = rnn.initial_state_fw(s.initial()?).sequence_length(lengths);
    let result = rnn.initial_state_bw(s.initial()?).run(s.inputs.value())?;
    let (outputs, state) = (result.outputs, result.state);
    Ok((vec![outputs.0, outputs.1], owned(&state)))
}

fn both_directions_as_list(s: &Subject, case: &CellConfigCase, lengths: &[i64]) -> Result<Run> {
    let rnn = |cell| -> Result<_> {
        let rnn = StaticRnn::new(cell).mode(case.mode);
        Ok(rnn.initial_state(s.initial()?))
    };
    let (forward, backward) = (rnn(&s.cell)?, rnn(&s.backward)?);
    let lengths = s.tensor(lengths)?;
    let result = static_bidirectional_rnn(forward, backward, &s.list()?, Some(&lengths))?;
    Ok((result.outputs, owned(&result.state)))
}

fn reversed(s: &Subject, case: &CellConfigCase, lengths: &[i64]) -> Result<Run> {
    let cell = TimeReversedFusedRnn(FusedRnnCellAdaptor(s.cell.clone()));
    let inputs = s.inputs.transpose(0, 1)?;
    let initial = s.initial()?;
    let lengths = s.tensor(lengths)?;
    let run = || cell.run(&inputs, Some(&initial), Some(&lengths));
    let result = case.mode.scope(run)?;
    Ok((vec![result.outputs], owned(&result.state)))
}

impl Subject {
    fn new(device: &TestDevice, case: &CellConfigCase, steps: usize) -> Result<Self> {
        let cell = || cell_from_config(device, &case.config, case.depth(), DType::F64);
        let (cell, backward) = (cell()?, cell()?);
        let param = |dims: &[usize]| Param::new(device, Initializer::ZEROS, dims, DType::F64);
        let zero = cell.zero_state(BATCH)?;
        let state = zero.leaves().into_iter().map(|t| param(&t.dims()));
        let mut subject = Self {
            state: state.collect::<Result<_>>()?,
            inputs: param(&[&[BATCH, steps], &case.input[..]].concat())?,
            cell,
            backward,
        };
        let mut number = 0;
        subject.each_param(&mut |_, param| {
            number += 1;
            let key = philox::derive(11, number);
            let (mean, std) = (0.0, 0.5);
            let normal = Initializer::Normal { mean, std };
            param.set(normal.tensor(device, key, param.meta())?)
        })?;
        Ok(subject)
    }

    fn initial(&self) -> Result<<Any as Cell>::State> {
        let leaves: Vec<_> = self.state.iter().map(|p| p.value().clone()).collect();
        self.cell.zero_state(BATCH)?.rebuild(&leaves)
    }

    /// Lengths in a tensor.
    fn tensor(&self, lengths: &[i64]) -> Result<Lengths<TestDevice>> {
        let lengths = Tensor::from_slice(self.inputs.device(), lengths, &[BATCH])?;
        Ok(Lengths::from(&lengths))
    }

    fn list(&self) -> Result<Vec<T>> {
        let steps = self.inputs.dims()[1];
        (0..steps).map(|t| self.inputs.select(1, t)).collect()
    }

    /// The same problem with other numbers in the padding, and in the initial state of the row
    /// that takes no step.
    fn padded_with(&self, number: impl Fn(usize) -> f64) -> Result<Self> {
        let mut padded = self.clone();
        let filled = |param: &Param<TestDevice>, of: &dyn Fn(usize) -> bool| {
            let mut values = param.to_vec::<f64>()?;
            for (i, value) in values.iter_mut().enumerate().filter(|(i, _)| of(*i)) {
                *value = number(i);
            }
            Tensor::from_slice(param.device(), &values, &param.dims())
        };
        let dims = self.inputs.dims();
        let step: usize = dims[2..].iter().product();
        let past = |i: usize| (i / step % STEPS) as i64 >= LENGTHS[i / (step * STEPS)];
        padded.inputs.set(filled(&self.inputs, &past)?)?;
        for state in &mut padded.state {
            let row = state.shape().count() / BATCH;
            let value = filled(state, &|i| LENGTHS[i / row] == 0)?;
            state.set(value)?;
        }
        Ok(padded)
    }

    /// Results and the gradient of a weighted sum of them. Final states of rows that take no step
    /// are their initial states, and are left out.
    fn measure(&self, run: impl FnOnce(&Self) -> Result<Run>) -> Result<Numbers> {
        measure(self, run)
    }
}

fn measure<M: Module<Backend = TestDevice>>(
    model: &M,
    run: impl FnOnce(&M) -> Result<Run>,
) -> Result<Numbers> {
    let numbers = RefCell::new(Numbers::new());
    let (_, grads) = value_and_grad(model, |model| {
        let (outputs, states) = run(model)?;
        let states = states.iter().map(|state| state.slice(0, 0..BATCH - 1));
        let states = states.collect::<Result<Vec<_>>>()?;
        let mut total: Option<T> = None;
        for (i, t) in outputs.iter().chain(&states).enumerate() {
            let weights: Vec<f64> = (0..t.shape().count())
                .map(|k| (0.3 + i as f64 + 0.7 * k as f64).sin())
                .collect();
            let weights = Tensor::from_slice(t.device(), &weights, &t.dims())?;
            let part = t.mul(&weights)?.sum_all()?;
            total = Some(match total {
                Some(total) => total.add(&part)?,
                None => part,
            });
            let values = Some(t.to_vec::<f64>()?);
            numbers.borrow_mut().push((format!("result {i}"), values));
        }
        total.ok_or_else(|| Error::argument("measure", "results", "are missing"))
    })?;
    let mut numbers = numbers.into_inner();
    for (name, grad) in grads.iter() {
        let dense = grad.map(Gradient::to_dense).transpose()?;
        let values = dense.map(|grad| grad.to_vec::<f64>()).transpose()?;
        numbers.push((format!("gradient of {name}"), values));
    }
    Ok(numbers)
}

/// Fails if two runs differ in any bit.
fn same_bits(label: &str, found: &Numbers, expected: &Numbers) {
    assert_eq!(found.len(), expected.len(), "{label}");
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        let bits = |v: &Option<Vec<f64>>| {
            let bits = |v: &Vec<f64>| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            v.as_ref().map(bits)
        };
        assert_eq!(
            bits(found),
            bits(expected),
            "{label}: {name}: {found:?} and {expected:?}"
        );
    }
}

/// Calls `test` with every cell and wrapper whose inputs are floats, on the CPU with and without
/// programs of its own.
fn each_cell(test: impl Fn(&str, &TestDevice, &CellConfigCase) -> Result<()>) {
    for name in ["cpu", "cpu-unfused"] {
        let device = device(name).unwrap();
        for case in plain().iter().chain(&wrapped()) {
            if case.ids.is_none() {
                let label = format!("{name} {}", case.config);
                test(&label, &device, case).unwrap_or_else(|e| panic!("{label}: {e}"));
            }
        }
    }
}

#[test]
fn nan_and_infinity_in_the_padding_are_the_same_as_zero() {
    each_cell(|label, device, case| {
        let subject = Subject::new(device, case, STEPS)?;
        let zeros = subject.padded_with(|_| 0.0)?;
        let spoiled = subject.padded_with(|i| SPOILED[i % 3])?;
        for (name, driver) in DRIVERS {
            let run = |s: &Subject| driver(s, case, &LENGTHS);
            let (found, expected) = (spoiled.measure(run)?, zeros.measure(run)?);
            same_bits(&format!("{label} {name}"), &found, &expected);
        }
        Ok(())
    });
}

#[test]
fn rows_without_steps_return_their_initial_state() {
    each_cell(|label, device, case| {
        let subject = Subject::new(device, case, STEPS)?;
        for (name, driver) in DRIVERS {
            let (_, state) = driver(&subject, case, &LENGTHS)?;
            let initial = subject.state.iter().cycle();
            for (found, expected) in state.iter().zip(initial) {
                let row = |t: &T| t.slice(0, BATCH - 1..BATCH)?.to_vec::<f64>();
                assert_eq!(row(found)?, row(expected)?, "{label} {name}");
            }
        }
        Ok(())
    });
}

/// Results, and gradients of the parameters of the cell, must be zero; there must be a gradient
/// wherever there is one with steps.
fn without_steps(label: &str, found: &Numbers, with_steps: &Numbers) {
    let gradient = |(name, _): &&(String, _)| name.starts_with("gradient of cell/");
    let pairs = found.iter().filter(gradient);
    for ((name, found), (_, usual)) in pairs.zip(with_steps.iter().filter(gradient)) {
        let zero = |values: &Vec<f64>| values.iter().all(|&x| x == 0.0);
        let label = format!("{label}: {name}: {found:?}");
        assert_eq!(found.is_some(), usual.is_some(), "{label}");
        assert!(found.as_ref().is_none_or(zero), "{label}");
    }
}

#[test]
fn gradients_are_zero_if_every_length_is_zero() {
    each_cell(|label, device, case| {
        let subject = Subject::new(device, case, STEPS)?.padded_with(|i| SPOILED[i % 3])?;
        for (name, driver) in DRIVERS {
            let usual = subject.measure(|s| driver(s, case, &LENGTHS))?;
            let found = subject.measure(|s| driver(s, case, &[0; BATCH]))?;
            without_steps(&format!("{label} {name}"), &found, &usual);
        }
        Ok(())
    });
}

#[test]
fn gradients_are_zero_if_there_is_no_step() {
    each_cell(|label, device, case| {
        let usual = Subject::new(device, case, STEPS)?;
        let subject = Subject::new(device, case, 0)?;
        for (name, driver) in DRIVERS {
            // A list of steps must not be empty.
            if name.starts_with("static") {
                continue;
            }
            let usual = usual.measure(|s| driver(s, case, &LENGTHS))?;
            let found = subject.measure(|s| driver(s, case, &[0; BATCH]))?;
            without_steps(&format!("{label} {name}"), &found, &usual);
        }
        Ok(())
    });
}

#[test]
fn gradients_are_zero_without_steps_and_without_an_initial_state() {
    each_cell(|label, device, case| {
        let subject = Subject::new(device, case, STEPS)?;
        for list in [false, true] {
            let run = |s: &Subject| {
                if list {
                    let rnn = StaticRnn::new(&s.cell).mode(case.mode);
                    let result = rnn.sequence_length(&[0; BATCH]).run(&s.list()?)?;
                    return Ok((result.outputs, owned(&result.state)));
                }
                let rnn = DynamicRnn::new(&s.cell).mode(case.mode);
                let result = rnn.sequence_length(&[0; BATCH]).run(s.inputs.value())?;
                Ok((vec![result.outputs], owned(&result.state)))
            };
            let usual = subject.measure(|s| dynamic(s, case, &LENGTHS))?;
            without_steps(label, &subject.measure(run)?, &usual);
        }
        Ok(())
    });
}

#[test]
fn times_in_the_padding_have_no_effect() {
    /// A phased LSTM with its times and inputs as parameters.
    type Phased = (rnn_core::cells::PhasedLstmCell<TestDevice>, (Times, Times));
    #[derive(Clone, Debug)]
    struct Times(Param<TestDevice>);
    impl Module for Times {
        type Backend = TestDevice;
        fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
            v.param("values", &mut self.0);
        }
    }
    let device = device("cpu").unwrap();
    let measured = |padding: f64| -> Result<Numbers> {
        let builder = PhasedLstmCellBuilder::new(2, 3).dtype(DType::F64);
        let mut cell = builder.build(&device)?;
        cell.initialize(3)?;
        let param = |depth: usize| -> Result<_> {
            let dims = [BATCH, STEPS, depth];
            let mut param = Param::new(&device, Initializer::ZEROS, &dims, DType::F64)?;
            let value = |i: usize| {
                let (row, time) = (i / (STEPS * depth), i / depth % STEPS);
                match (time as i64) < LENGTHS[row] {
                    true => 0.4 * i as f64 - 1.0,
                    false => padding,
                }
            };
            let values: Vec<f64> = (0..BATCH * STEPS * depth).map(value).collect();
            param.set(Tensor::from_slice(&device, &values, &dims)?)?;
            Ok(Times(param))
        };
        let model: Phased = (cell, (param(1)?, param(2)?));
        measure(&model, |(cell, (times, x))| {
            let inputs = (times.0.value().clone(), x.0.value().clone());
            let result = DynamicRnn::new(cell)
                .sequence_length(&LENGTHS)
                .run(&inputs)?;
            Ok((vec![result.outputs], owned(&result.state)))
        })
    };
    for padding in SPOILED {
        let (found, expected) = (measured(padding).unwrap(), measured(0.0).unwrap());
        same_bits("phased_lstm_cell", &found, &expected);
    }
}
