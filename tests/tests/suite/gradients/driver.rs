//! Gradients through the driver compared with finite differences: every parameter of every cell,
//! the inputs and the initial state, with several rows and steps, ragged lengths and a nonzero
//! initial state.

use backend_api::{Backend, Counting, DType, Result, Tensor, Unfused};
use backend_cpu::Cpu;
use recurrent_tests::problem::{NORMAL, Problem};
use rnn_core::cells::{BasicLstmCellBuilder, BasicRnnCellBuilder, GruCellBuilder, LstmCellBuilder};
use rnn_core::{Cell, ConcatState, Module, Param, StepContext, Visitor};
use rnn_train::{Autodiff, Differentiable};

const DEPTH: usize = 2;
const UNITS: usize = 4;

fn check_cell<C>(device: &C::Backend, cell: C) -> Result<()>
where
    C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>,
    C::Backend: Differentiable,
{
    Problem::new(device, cell, &[DEPTH])?.check()
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
fn cpu_kernels() {
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
fn decorators_inside_and_outside_autodiff() {
    let device = Counting::new(Autodiff::new(Counting::new(Cpu::new())));
    all_cells(&device).unwrap();
    assert!(device.counts().launches > 0);
}

/// A custom cell: a leaky integrator with a nested state.
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
    type Backend = B;
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
        _: &StepContext,
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
fn a_user_defined_cell() {
    let device = Autodiff::new(Cpu::new());
    let cell = Leaky {
        kernel: Param::new(&device, NORMAL, &[DEPTH, UNITS], DType::F64).unwrap(),
        rate: Param::new(&device, NORMAL, &[UNITS], DType::F64).unwrap(),
    };
    check_cell(&device, cell).unwrap();
}
