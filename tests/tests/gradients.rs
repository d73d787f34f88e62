//! Gradients through the driver against finite differences: every parameter of every cell, the inputs and the
//! initial state, with several rows and steps, ragged lengths and a state that is not zero.

use backend_api::{Backend, Counting, DType, Keep, Result, Tensor, Unfused};
use backend_cpu::Cpu;
use recurrent_tests::finite_differences::check;
use rnn_core::cells::{BasicLstmCellBuilder, BasicRnnCellBuilder, GruCellBuilder, LstmCellBuilder};
use rnn_core::{Cell, ConcatState, DynamicRnn, Initializer, Module, Nest, Param, Step, Visitor};
use rnn_train::{Autodiff, Differentiable, value_and_grad};

const NORMAL: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.8,
};
const BATCH: usize = 3;
const STEPS: usize = 5;
const DEPTH: usize = 2;
const UNITS: usize = 4;
const LENGTHS: [i32; BATCH] = [3, 0, 5];

/// A cell with its inputs and its initial state as parameters, so that all are differentiated.
#[derive(Clone, Debug)]
struct Problem<C: Cell> {
    cell: C,
    inputs: Param<C::B>,
    state: Vec<Param<C::B>>,
}

impl<C: Cell<Input = Tensor<<C as Module>::B>>> Problem<C> {
    fn new(device: &C::B, mut cell: C) -> Result<Self> {
        // Biases and kernels random, so that no two gates are alike.
        let mut seed = 7;
        cell.each_param(&mut |_, param| {
            seed += 1;
            let key = backend_api::philox::derive(seed, 1);
            param.set(NORMAL.tensor(device, key, param.meta())?)
        })?;
        let state = cell
            .zero_state(BATCH)?
            .leaves()
            .iter()
            .map(|t| Param::new(device, NORMAL, &t.dims(), DType::F64))
            .collect::<Result<_>>()?;
        let inputs = Param::new(device, NORMAL, &[BATCH, STEPS, DEPTH], DType::F64)?;
        Ok(Self {
            cell,
            inputs,
            state,
        })
    }

    fn initial(&self) -> Result<C::State> {
        let leaves: Vec<_> = self.state.iter().map(|p| p.value().clone()).collect();
        self.cell.zero_state(BATCH)?.rebuild(&leaves)
    }
}

impl<C: Cell> Module for Problem<C> {
    type B = C::B;
    fn params(&mut self, v: &mut Visitor<'_, C::B>) {
        v.child("cell", &mut self.cell);
        v.param("inputs", &mut self.inputs);
        for (i, state) in self.state.iter_mut().enumerate() {
            v.param(&format!("state_{i}"), state);
        }
    }
}

/// A sum of everything that comes out, each element with a weight of its own.
fn weighted<B: Backend, N: Nest<B>>(nest: &N, phase: f64) -> Result<Tensor<B>> {
    let mut total: Option<Tensor<B>> = None;
    for (i, leaf) in nest.leaves().into_iter().enumerate() {
        let weights: Vec<f64> = (0..leaf.shape().count())
            .map(|k| (phase + i as f64 + 0.7 * k as f64).sin())
            .collect();
        let weights = Tensor::from_slice(leaf.device(), &weights, &leaf.dims())?;
        let part = leaf.mul(&weights)?.sum_all()?;
        total = Some(match total {
            Some(total) => total.add(&part)?,
            None => part,
        });
    }
    total.ok_or_else(|| backend_api::Error::argument("weighted", "nest", "is empty"))
}

fn driver_loss<C>(problem: &Problem<C>, keep: Keep, segment: Option<usize>) -> Result<Tensor<C::B>>
where
    C: Cell<Input = Tensor<<C as Module>::B>>,
{
    let mut rnn = DynamicRnn::new(&problem.cell)
        .sequence_length(&LENGTHS)
        .initial_state(problem.initial()?)
        .keep(keep);
    if let Some(steps) = segment {
        rnn = rnn.segment_length(steps);
    }
    let result = rnn.run(problem.inputs.value())?;
    weighted(&result.outputs, 0.3)?.add(&weighted(&result.state, 1.1)?)
}

/// The same without the driver: the cell's own step, and the lengths by hand.
fn loop_loss<C>(problem: &Problem<C>) -> Result<Tensor<C::B>>
where
    C: Cell<Input = Tensor<<C as Module>::B>, Output = Tensor<<C as Module>::B>>,
{
    let cell = &problem.cell;
    let mut outputs = Vec::new();
    let mut finals: Vec<Vec<Tensor<C::B>>> = Vec::new();
    for (row, &length) in LENGTHS.iter().enumerate() {
        let of_row = |t: &Tensor<C::B>| t.slice(0, row..row + 1);
        let mut state = problem.initial()?.map(&mut |t| of_row(t))?;
        let mut row_outputs = Vec::new();
        for t in 0..STEPS {
            if t < length as usize {
                let x = of_row(&problem.inputs.select(1, t)?)?;
                let (output, new) = cell.step(&Step::default(), &x, &state)?;
                row_outputs.push(output.unsqueeze(1)?);
                state = new;
            } else {
                row_outputs.push(cell.zero_output(1)?.unsqueeze(1)?);
            }
        }
        let row_outputs: Vec<_> = row_outputs.iter().collect();
        outputs.push(Tensor::concat(&row_outputs, 1)?);
        finals.push(state.leaves().into_iter().cloned().collect());
    }
    let outputs: Vec<_> = outputs.iter().collect();
    let outputs = Tensor::concat(&outputs, 0)?;
    let leaves = finals[0].len();
    let state: Vec<Tensor<C::B>> = (0..leaves)
        .map(|i| {
            let rows: Vec<_> = finals.iter().map(|row| &row[i]).collect();
            Tensor::concat(&rows, 0)
        })
        .collect::<Result<_>>()?;
    weighted(&outputs, 0.3)?.add(&weighted(&state, 1.1)?)
}

fn check_cell<C>(device: &C::B, cell: C) -> Result<()>
where
    C: Cell<Input = Tensor<<C as Module>::B>, Output = Tensor<<C as Module>::B>>,
    C::B: Differentiable,
{
    let problem = Problem::new(device, cell)?;
    check(&problem, |p| driver_loss(p, Keep::All, None), 1e-8)?;
    // The driver gives what the steps give.
    let (value, grads) = value_and_grad(&problem, |p| driver_loss(p, Keep::All, None))?;
    let (by_loop, loop_grads) = value_and_grad(&problem, loop_loss)?;
    close("loss", &value, &by_loop);
    for ((name, a), (_, b)) in grads.iter().zip(loop_grads.iter()) {
        close(name, a.unwrap(), b.unwrap());
    }
    // Memory policies change no bit for one segment length.
    let all = value_and_grad(&problem, |p| driver_loss(p, Keep::All, Some(2)))?.1;
    for keep in [Keep::Inputs, Keep::Host] {
        let less = value_and_grad(&problem, |p| driver_loss(p, keep, Some(2)))?.1;
        for ((name, a), (_, b)) in all.iter().zip(less.iter()) {
            let (a, b) = (a.unwrap().to_vec::<f64>()?, b.unwrap().to_vec::<f64>()?);
            assert_eq!(a, b, "{name} with {keep:?}");
        }
    }
    for ((name, a), (_, b)) in all.iter().zip(grads.iter()) {
        close(name, a.unwrap(), b.unwrap());
    }
    Ok(())
}

fn close<B: Backend>(name: &str, a: &Tensor<B>, b: &Tensor<B>) {
    let (a, b) = (a.to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
    assert_eq!(a.len(), b.len(), "{name}");
    for (a, b) in a.iter().zip(&b) {
        assert!(
            (a - b).abs() <= 1e-12 * (1.0 + b.abs()),
            "{name}: {a} and {b}"
        );
    }
}

fn all_cells<B: Differentiable>(device: &B) -> Result<()> {
    let f64 = DType::F64;
    check_cell(
        device,
        BasicRnnCellBuilder::new(DEPTH, UNITS)
            .dtype(f64)
            .build(device)?,
    )?;
    let lstm = || {
        BasicLstmCellBuilder::new(DEPTH, UNITS)
            .dtype(f64)
            .forget_bias(0.4)
            .build(device)
    };
    check_cell(device, lstm()?)?;
    check_cell(device, ConcatState::new(lstm()?))?;
    let full = LstmCellBuilder::new(DEPTH, UNITS)
        .use_peepholes(true)
        .num_proj(3)
        .cell_clip(1.5)
        .proj_clip(0.9)
        .dtype(f64)
        .build(device)?;
    check_cell(device, full)?;
    check_cell(
        device,
        LstmCellBuilder::new(DEPTH, UNITS)
            .dtype(f64)
            .build(device)?,
    )?;
    check_cell(
        device,
        GruCellBuilder::new(DEPTH, UNITS).dtype(f64).build(device)?,
    )
}

#[test]
fn kernels_of_the_cpu() {
    all_cells(&Autodiff::new(Cpu::new())).unwrap();
}

#[test]
fn default_bodies() {
    all_cells(&Autodiff::new(Unfused(Cpu::new()))).unwrap();
}

#[test]
fn composed_gradients() {
    all_cells(&Unfused(Autodiff::new(Cpu::new()))).unwrap();
}

#[test]
fn a_decorator_around_everything() {
    let device = Counting::new(Autodiff::new(Counting::new(Cpu::new())));
    all_cells(&device).unwrap();
    assert!(device.counts().launches > 0);
}

/// A cell that the library does not have: a leaky integrator with a nested state.
#[derive(Clone, Debug)]
struct Leaky<B: Backend> {
    kernel: Param<B>,
    rate: Param<B>,
}

rnn_core::nest! {
    struct LeakyState<B> {
        slow: Tensor<B>,
        fast: (Tensor<B>, Vec<Tensor<B>>),
    }
}

impl<B: Backend> Module for Leaky<B> {
    type B = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.param("kernel", &mut self.kernel);
        v.param("rate", &mut self.rate);
    }
}

impl<B: Backend> Cell for Leaky<B> {
    type Input = Tensor<B>;
    type State = LeakyState<B>;
    type Output = Tensor<B>;

    fn zero_state(&self, batch: usize) -> Result<LeakyState<B>> {
        let zero = self.zero_output(batch)?;
        Ok(LeakyState {
            slow: zero.clone(),
            fast: (zero.clone(), vec![zero]),
        })
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        let shape = backend_api::Shape::new(&[batch, self.kernel.shape()[1]])?;
        Tensor::zeros(
            self.kernel.device(),
            backend_api::Meta::new(shape, self.kernel.dtype()),
        )
    }

    fn step(
        &self,
        _: &Step,
        x: &Tensor<B>,
        s: &LeakyState<B>,
    ) -> Result<(Tensor<B>, LeakyState<B>)> {
        let drive = x.matmul(&self.kernel)?.add(&s.fast.1[0])?.tanh()?;
        let keep = self.rate.sigmoid()?;
        let slow = s.slow.mul(&keep)?.add(&drive)?;
        let fast = (drive.mul(&s.fast.0)?.cos()?, vec![drive.sub(&s.slow)?]);
        let output = slow.mul(&fast.0)?;
        Ok((output, LeakyState { slow, fast }))
    }
}

#[test]
fn a_cell_of_ones_own() {
    let device = Autodiff::new(Cpu::new());
    let cell = Leaky {
        kernel: Param::new(&device, NORMAL, &[DEPTH, UNITS], DType::F64).unwrap(),
        rate: Param::new(&device, NORMAL, &[UNITS], DType::F64).unwrap(),
    };
    check_cell(&device, cell).unwrap();
}
