//! Traced steps: which cells run as programs of the device, that nothing then runs once for each
//! step, and that a step that cannot be traced runs as it is, with the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backend_api::{Counting, Counts, DType, Error, Meta, Result, Shape, Tensor};
use backend_cpu::Cpu;
use recurrent_tests::cells::{CellConfigCase, plain, wrapped};
use rnn_core::{
    AnyCell, Cell, DynamicRnn, Explanation, Initializer, Mode, Module, Param, StepContext,
    StepPath, StreamingRnn, Unroll, Visitor, cell_from_config,
};
use rnn_train::{Autodiff, Differentiable, value_and_grad};

type Device = Autodiff<Counting<Cpu>>;
type T = Tensor<Device>;

const BATCH: usize = 3;

fn device() -> Device {
    Autodiff::new(Counting::new(Cpu::new()))
}

fn inputs(device: &Device, case: &CellConfigCase, steps: usize, batch: usize) -> Result<T> {
    let dims = [&[steps, batch], &case.input[..]].concat();
    let count: usize = dims.iter().product();
    match case.ids {
        Some(ids) => {
            let data: Vec<i32> = (0..count).map(|i| (i % ids) as i32).collect();
            Tensor::from_slice(device, &data, &dims[..2])
        }
        None => {
            let data: Vec<f32> = (0..count)
                .map(|i| (i * 37 % 19) as f32 * 0.1 - 0.9)
                .collect();
            Tensor::from_slice(device, &data, &dims)
        }
    }
}

fn cell(device: &Device, case: &CellConfigCase) -> Result<AnyCell<Device>> {
    let mut cell = cell_from_config(device, &case.config, case.depth(), DType::F32)?;
    cell.initialize(3)?;
    Ok(cell)
}

#[test]
fn cells_are_compiled() {
    let device = device();
    let mut wrong = Vec::new();
    for case in plain().iter().chain(&wrapped()) {
        let cell = cell(&device, case).unwrap();
        let x = inputs(&device, case, 4, BATCH).unwrap();
        let rnn = DynamicRnn::new(&cell).time_major(true).mode(case.mode);
        let how = rnn.explain(&x).unwrap();
        let fast = |path: &StepPath| *path == StepPath::Compiled;
        let compiled = how.parts.iter().all(|part| fast(&part.path));
        if compiled != case.is_compiled() {
            let paths: Vec<_> = how.parts.iter().map(|part| part.path.to_string()).collect();
            wrong.push(format!("{}: {}", case.config, paths.join("; ")));
        }
        // Lengths change nothing about it.
        let ragged = rnn.sequence_length(&[4, 2, 0]).explain(&x).unwrap();
        let paths =
            |how: &Explanation| how.parts.iter().map(|p| p.path.clone()).collect::<Vec<_>>();
        if paths(&how) != paths(&ragged) {
            wrong.push(format!("{} with lengths: {ragged}", case.config));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The cells that run as programs, and whose inputs are numbers.
fn compiled() -> impl Iterator<Item = CellConfigCase> {
    let cases = plain().into_iter().chain(wrapped());
    cases.filter(|case| case.is_compiled() && case.ids.is_none())
}

/// What a training step of a cell counts on inputs of some steps and rows, which may have lengths.
fn training(case: &CellConfigCase, (steps, batch): (usize, usize), lengths: &[usize]) -> Counts {
    let device = device();
    let cell = cell(&device, case).unwrap();
    let x = inputs(&device, case, steps, batch).unwrap();
    let count = || {
        let before = device.inner().counts();
        value_and_grad(&cell, |cell| {
            let rnn = DynamicRnn::new(cell).time_major(true).mode(case.mode);
            let rnn = match lengths {
                [] => rnn,
                lengths => rnn.sequence_length(lengths),
            };
            rnn.run(&x)?.outputs.mean_all()
        })
        .unwrap();
        device.inner().counts().since(&before)
    };
    // The first run may draw what later ones have in a cache.
    count();
    count()
}

#[test]
fn no_operation_runs_once_for_each_step() {
    let mut wrong = Vec::new();
    for case in compiled() {
        let launches = |steps: usize| {
            let lengths = [steps, 1, steps - 1];
            training(&case, (steps, BATCH), &lengths).launches
        };
        let (few, many) = (launches(4), launches(9));
        // Dropout draws the numbers of each step by themselves.
        let drawn = if case.mode == Mode::Evaluation { 0 } else { 40 };
        if many > few + drawn {
            wrong.push(format!("{}: {few} and {many} operations", case.config));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Training reads and writes rows in each step, and nothing of the size of a weight: the gradient
/// of a weight is summed over all steps as it is computed.
#[test]
fn a_step_of_training_moves_its_rows_only() {
    let mut wrong = Vec::new();
    for case in compiled() {
        let bytes = |steps, batch| training(&case, (steps, batch), &[]).bytes;
        let of_a_step = |batch: usize| (bytes(9, batch) - bytes(4, batch)) / 5;
        let (one, three) = (of_a_step(1), of_a_step(3));
        if three < 3 * one {
            wrong.push(format!(
                "{}: {one} bytes a step with a row, {three} with three rows",
                case.config
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_gradient_for_a_concatenation_is_summed_over_all_steps() {
    let (device, units) = (device(), 64);
    let w = Tensor::ones(&device, &[2 * units, units]).unwrap();
    let w = device.leaf(&w).unwrap();
    let zero = Tensor::zeros(&device, &[1, units]).unwrap();
    let bytes = |steps: usize| {
        let x = Tensor::ones(&device, &[steps, 1, units]).unwrap();
        let before = device.inner().counts();
        let unroll = Unroll::new(StepContext::default(), steps, 1);
        let (outputs, _) = unroll
            .scan(&x, &zero, &zero, |_, x, h| {
                let h = Tensor::concat(&[x, h], 1)?.matmul(&w)?.tanh()?;
                Ok((h.clone(), h))
            })
            .unwrap();
        device
            .backward(&outputs.mean_all().unwrap(), &[&w])
            .unwrap();
        device.inner().counts().since(&before).bytes
    };
    let of_a_step = (bytes(9) - bytes(4)) / 5;
    let kernel = 4 * (2 * units * units) as u64;
    assert!(
        of_a_step < kernel / 2,
        "{of_a_step} bytes a step, kernel: {kernel}"
    );
}

/// What a step does that a graph cannot stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trick {
    ReadsAValue,
    /// It panics where it has no value.
    UnwrapsAValue,
    /// It drops the error of reading.
    BranchesOnData,
    AsksForTheTime,
    None,
}

/// `h' = tanh(h * w + x)`, with a trick.
#[derive(Clone, Debug)]
struct Tricky {
    w: Param<Device>,
    trick: Trick,
    calls: Arc<AtomicUsize>,
}

impl Tricky {
    fn new(device: &Device, trick: Trick) -> Result<Self> {
        let mut cell = Self {
            w: Param::new(device, Initializer::ZEROS, &[2], DType::F64)?,
            trick,
            calls: Arc::default(),
        };
        cell.w
            .set(Tensor::from_slice(device, &[0.5, -0.25], &[2])?)?;
        Ok(cell)
    }
}

impl Module for Tricky {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        v.param("w", &mut self.w);
    }
}

impl Cell for Tricky {
    type Input = T;
    type State = T;
    type Output = T;

    fn zero_state(&self, batch: usize) -> Result<T> {
        let shape = Shape::new(&[batch, 2])?;
        Tensor::zeros(self.w.device(), Meta::new(shape, DType::F64))
    }

    fn zero_output(&self, batch: usize) -> Result<T> {
        self.zero_state(batch)
    }

    fn step(&self, cx: &StepContext, x: &T, h: &T) -> Result<(T, T)> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let factor = match self.trick {
            Trick::ReadsAValue => 1.0 + h.sum_all()?.item()?,
            Trick::UnwrapsAValue => 1.0 + h.sum_all()?.item().unwrap(),
            Trick::BranchesOnData => match h.sum_all()?.item() {
                Ok(sum) if sum > 0.1 => 2.0,
                _ => 1.0,
            },
            Trick::AsksForTheTime => 1.0 + cx.time()? as f64,
            Trick::None => 1.0,
        };
        let h = h.mul(&self.w)?.affine(factor, 0.0)?.add(x)?.tanh()?;
        Ok((h.clone(), h))
    }
}

#[test]
fn a_step_that_cannot_be_traced_runs_as_it_is() {
    let device = device();
    let numbers: Vec<f64> = (0..24).map(|i| f64::from(i * 7 % 11) * 0.1 - 0.4).collect();
    let x = Tensor::from_slice(&device, &numbers, &[4, 3, 2]).unwrap();
    for (trick, reason) in [
        (Trick::ReadsAValue, "reads"),
        (Trick::UnwrapsAValue, "reads"),
        (Trick::BranchesOnData, "reads"),
        (Trick::AsksForTheTime, "time"),
        (Trick::None, ""),
    ] {
        let cell = Tricky::new(&device, trick).unwrap();
        let rnn = DynamicRnn::new(&cell).time_major(true);
        let found = rnn.run(&x).unwrap().outputs.to_vec::<f64>().unwrap();
        // The steps by hand.
        let mut h = cell.zero_state(3).unwrap();
        let mut expected = Vec::new();
        for t in 0..4 {
            let cx = StepContext::default().at(t);
            let (output, state) = cell.step(&cx, &x.select(0, t).unwrap(), &h).unwrap();
            expected.extend(output.to_vec::<f64>().unwrap());
            h = state;
        }
        assert_eq!(found, expected, "{trick:?}");
        let how = rnn.explain(&x).unwrap();
        match (&how.parts[0].path, trick) {
            (StepPath::Compiled, Trick::None) => {}
            (StepPath::Called(why), _) => assert!(why.contains(reason), "{trick:?}: {why}"),
            (path, _) => panic!("{trick:?}: {path}"),
        }
    }
}

#[test]
fn a_traced_step_is_called_once() {
    let device = device();
    let cell = Tricky::new(&device, Trick::None).unwrap();
    let x = Tensor::from_slice(&device, &[0.1; 1000 * 2], &[1000, 1, 2]).unwrap();
    DynamicRnn::new(&cell).time_major(true).run(&x).unwrap();
    assert_eq!(cell.calls.load(Ordering::Relaxed), 1);
    // A stream traces a step once for all its runs.
    let mut stream = StreamingRnn::new(&cell, 1).unwrap();
    for _ in 0..5 {
        stream.step(&x.select(0, 0).unwrap()).unwrap();
    }
    assert_eq!(cell.calls.load(Ordering::Relaxed), 2);
    // It also tries once to trace a step that cannot be traced.
    let cell = Tricky::new(&device, Trick::ReadsAValue).unwrap();
    let mut stream = StreamingRnn::new(&cell, 1).unwrap();
    for _ in 0..5 {
        stream.step(&x.select(0, 0).unwrap()).unwrap();
    }
    assert_eq!(cell.calls.load(Ordering::Relaxed), 1 + 5);
}

/// Adds the first input of each call to all its outputs: a scan that captures a tensor of its call.
#[derive(Clone, Debug)]
struct AddsTheFirst(Tricky);

impl Module for AddsTheFirst {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        self.0.params(v);
    }
}

impl Cell for AddsTheFirst {
    type Input = T;
    type State = T;
    type Output = T;

    fn zero_state(&self, batch: usize) -> Result<T> {
        self.0.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<T> {
        self.0.zero_output(batch)
    }

    fn step(&self, _: &StepContext, _: &T, _: &T) -> Result<(T, T)> {
        Err(Error::argument("adds_the_first", "step", "is not used"))
    }

    fn unroll(&self, u: &Unroll<Device>, xs: &T, state: &T) -> Result<(T, T)> {
        let zero = self.zero_output(u.batch())?;
        let first = xs.select(0, 0)?;
        u.scan(xs, state, &zero, |cx, x, h| {
            let (output, h) = self.0.step(cx, x, h)?;
            Ok((output.add(&first)?, h))
        })
    }
}

#[test]
fn a_stream_does_not_keep_tensors_of_a_call() {
    let device = device();
    let cell = AddsTheFirst(Tricky::new(&device, Trick::None).unwrap());
    let mut stream = StreamingRnn::new(&cell, 1).unwrap();
    let input = |x: f64| Tensor::from_slice(&device, &[x, -x], &[1, 2]).unwrap();
    let mut h = [0.0f64; 2];
    for x in [0.25, 0.75, -0.5] {
        let output = stream.step(&input(x)).unwrap().to_vec::<f64>().unwrap();
        for (i, (x, w)) in [x, -x].into_iter().zip([0.5, -0.25]).enumerate() {
            h[i] = (h[i] * w + x).tanh();
            assert!((output[i] - h[i] - x).abs() < 1e-12, "{output:?}");
        }
    }
}

/// Two cells of one type, one after the other, on the same sequence context.
#[derive(Clone, Debug)]
struct Twice(Tricky, Tricky);

impl Module for Twice {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        v.child("first", &mut self.0);
        v.child("second", &mut self.1);
    }
}

impl Cell for Twice {
    type Input = T;
    type State = (T, T);
    type Output = T;

    fn zero_state(&self, batch: usize) -> Result<(T, T)> {
        Ok((self.0.zero_state(batch)?, self.1.zero_state(batch)?))
    }

    fn zero_output(&self, batch: usize) -> Result<T> {
        self.1.zero_output(batch)
    }

    fn step(&self, cx: &StepContext, x: &T, (a, b): &(T, T)) -> Result<(T, (T, T))> {
        let (y, a) = self.0.step(cx, x, a)?;
        let (y, b) = self.1.step(cx, &y, b)?;
        Ok((y, (a, b)))
    }

    fn unroll(&self, u: &Unroll<Device>, xs: &T, (a, b): &(T, T)) -> Result<(T, (T, T))> {
        let (ys, a) = self.0.unroll(u, xs, a)?;
        let (ys, b) = self.1.unroll(u, &ys, b)?;
        Ok((ys, (a, b)))
    }
}

#[test]
fn a_stream_tells_two_cells_of_one_type_apart() {
    let device = device();
    let mut cell = Twice(
        Tricky::new(&device, Trick::None).unwrap(),
        Tricky::new(&device, Trick::None).unwrap(),
    );
    let other = Tensor::from_slice(&device, &[-2.0, 3.0], &[2]).unwrap();
    cell.1.w.set(other).unwrap();
    let numbers: Vec<f64> = (0..8).map(|i| f64::from(i) * 0.1 - 0.3).collect();
    let x = Tensor::from_slice(&device, &numbers, &[4, 1, 2]).unwrap();
    let whole = DynamicRnn::new(&cell).time_major(true).run(&x).unwrap();
    let whole = whole.outputs.to_vec::<f64>().unwrap();
    let mut stream = StreamingRnn::new(&cell, 1).unwrap();
    for t in 0..4 {
        let y = stream.step(&x.select(0, t).unwrap()).unwrap();
        assert_eq!(y.to_vec::<f64>().unwrap(), whole[2 * t..2 * t + 2]);
    }
}

/// The operation with which a step mixes the rows of the batch.
#[derive(Clone, Copy, Debug)]
enum Mix {
    MeanOfAll,
    MeanOfRows,
    SumOfRows,
    ProductOfRows,
    ReshapedRows,
}

/// A cell whose rows see each other. It has as many units as the batch has rows, so that shapes do
/// not tell the two axes apart.
#[derive(Clone, Debug)]
struct Mixing(Tricky, Mix);

impl Module for Mixing {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        self.0.params(v);
    }
}

impl Cell for Mixing {
    type Input = T;
    type State = T;
    type Output = T;

    fn zero_state(&self, batch: usize) -> Result<T> {
        self.0.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<T> {
        self.0.zero_output(batch)
    }

    fn step(&self, cx: &StepContext, x: &T, h: &T) -> Result<(T, T)> {
        let (y, h) = self.0.step(cx, x, h)?;
        let output = match self.1 {
            Mix::MeanOfAll => y.add(&y.mean_all()?)?,
            Mix::MeanOfRows => y.sub(&y.mean(0)?)?,
            Mix::SumOfRows => y.mul(&y.sum(0)?)?,
            Mix::ProductOfRows => y.matmul(&y)?,
            Mix::ReshapedRows => y.add(&y.reshape(&[4])?.sum(0)?)?,
        };
        Ok((output, h))
    }
}

#[test]
fn rows_that_see_each_other_have_the_numbers_of_single_steps() {
    let device = device();
    let numbers = [
        0.3, -0.2, 0.7, 0.1, -0.6, 0.9, 0.5, -0.8, 0.2, 0.4, -0.1, 0.6,
    ];
    let x = Tensor::from_slice(&device, &numbers, &[3, 2, 2]).unwrap();
    for mix in [
        Mix::MeanOfAll,
        Mix::MeanOfRows,
        Mix::SumOfRows,
        Mix::ProductOfRows,
        Mix::ReshapedRows,
    ] {
        let cell = Mixing(Tricky::new(&device, Trick::None).unwrap(), mix);
        for lengths in [[3i64, 3], [3, 1], [2, 0]] {
            // A step sees the state that an ended row keeps, and zeros as its input.
            let by_hand = |cell: &Mixing| {
                let lengths = Tensor::from_slice(&device, &lengths, &[2, 1])?;
                let zero = cell.zero_output(2)?;
                let (mut h, mut outputs) = (zero.clone(), Vec::new());
                for t in 0..3 {
                    let runs = lengths.greater(f64::from(t))?;
                    let x_t = runs.select_from(&x.select(0, t as usize)?, &zero)?;
                    let (output, new) = cell.step(&StepContext::default(), &x_t, &h)?;
                    outputs.push(runs.select_from(&output, &zero)?);
                    h = runs.select_from(&new, &h)?;
                }
                Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 0)
            };
            let driven = |cell: &Mixing| {
                let rnn = DynamicRnn::new(cell).time_major(true);
                Ok(rnn.sequence_length(&lengths).run(&x)?.outputs)
            };
            type Outputs<'a> = &'a dyn Fn(&Mixing) -> Result<T>;
            let gradient = |outputs: Outputs<'_>| {
                let loss = |cell: &Mixing| outputs(cell)?.square()?.sum_all();
                let (_, grads) = value_and_grad(&cell, loss).unwrap();
                grads
                    .get("w")
                    .unwrap()
                    .to_dense()
                    .unwrap()
                    .to_vec::<f64>()
                    .unwrap()
            };
            let values = |outputs: Outputs<'_>| outputs(&cell).unwrap().to_vec::<f64>().unwrap();
            let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
            let (a, b) = (values(&driven), values(&by_hand));
            assert!(close(&a, &b), "{mix:?} {lengths:?}: {a:?} {b:?}");
            let (a, b) = (gradient(&driven), gradient(&by_hand));
            assert!(close(&a, &b), "{mix:?} {lengths:?}: {a:?} {b:?}");
        }
    }
}
