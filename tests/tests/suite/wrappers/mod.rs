//! Wrapped cells: random numbers of dropout, gradients, and errors.
mod gradients;
mod masks;
mod refusals;
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

pub(super) const NORMAL: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.5,
};
pub(super) const SEED: u64 = 5;
pub(super) const BATCH: usize = 3;
pub(super) const STEPS: usize = 5;
pub(super) const UNITS: usize = 4;
pub(super) const LENGTHS: [i32; BATCH] = [3, 0, 5];

/// Returns its input and its state, so that dropped elements are visible.
#[derive(Clone, Debug)]
pub(super) struct Echo {
    pub(super) device: TestDevice,
    pub(super) size: usize,
}

impl Echo {
    pub(super) fn new(size: usize) -> Self {
        let device = device("cpu").unwrap();
        Self { device, size }
    }

    pub(super) fn full(&self, dims: &[usize]) -> Tensor<TestDevice> {
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
pub(super) fn echo<C>(wrapper: &C, echo: &Echo, batch: usize, steps: usize, seed: u64) -> Vec<f32>
where
    C: Cell<Backend = TestDevice, Input = Tensor<TestDevice>, Output = Tensor<TestDevice>>,
{
    let ones = echo.full(&[batch, steps, echo.size]);
    let rnn = DynamicRnn::new(wrapper).training(seed);
    rnn.run(&ones).unwrap().outputs.to_vec().unwrap()
}

pub(super) fn gru() -> Value {
    json!({ "type": "GRUCell", "num_units": UNITS })
}

pub(super) fn lstm() -> Value {
    json!({ "type": "LSTMCell", "num_units": UNITS })
}
