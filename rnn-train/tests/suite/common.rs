//! A small model and a small task.

use backend_api::{Activation, Backend, DType, Element, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::{BasicLstmCell, Dense, DynamicRnn, Module, Visitor};
use rnn_train::Autodiff;
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::Optimizer;

pub(crate) type Device = Autodiff<Cpu>;

pub(crate) fn device() -> Device {
    Autodiff::new(Cpu::builder().threads(1).build().unwrap())
}

/// Classifies a sequence: `[batch, 4, 3]` to `[batch, 2]`.
#[derive(Clone, Debug)]
pub(crate) struct Classifier {
    cell: BasicLstmCell<Device>,
    dense: Dense<Device>,
}

impl Module for Classifier {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        v.child("rnn/basic_lstm_cell", &mut self.cell);
        v.child("dense", &mut self.dense);
    }
}

pub(crate) const STEPS: usize = 4;
pub(crate) const DEPTH: usize = 3;
pub(crate) const ITEMS: usize = 22;

impl Classifier {
    pub(crate) fn new(device: &Device, units: usize, dtype: DType) -> Self {
        let mut model = Self {
            cell: BasicLstmCell::<Device>::builder(DEPTH, units)
                .dtype(dtype)
                .build(device)
                .unwrap(),
            dense: Dense::with(device, units, 2, Activation::Identity, dtype).unwrap(),
        };
        model.initialize(7).unwrap();
        model
    }

    pub(crate) fn loss(&self, items: &[usize]) -> Result<Tensor<Device>> {
        let params = self.named_params();
        let (device, dtype) = (params[0].1.device(), params[0].1.dtype());
        let mut x = Vec::new();
        let mut labels = Vec::new();
        for &item in items {
            let series =
                (0..STEPS * DEPTH).map(|i| ((item * 37 + i * 11) % 19) as f64 / 10.0 - 0.9);
            labels.push((item % 3 == 0) as i32);
            x.extend(series);
        }
        let x = Tensor::from_slice(device, &x, &[items.len(), STEPS, DEPTH])?.cast(dtype)?;
        let labels = Tensor::from_slice(device, &labels, &[items.len()])?;
        let last = DynamicRnn::new(&self.cell).run(&x)?.state.h;
        softmax_cross_entropy(&self.dense.forward(&last)?, &labels)
    }
}

/// Names, types and bytes of all parameters.
pub(crate) fn contents<M: Module>(model: &M) -> Vec<(String, DType, Vec<u8>)> {
    let params = model.named_params();
    params
        .into_iter()
        .map(|(name, p)| (name, p.dtype(), p.to_bytes().unwrap()))
        .collect()
}

/// Number of steps and the bytes of all slots.
pub(crate) fn memory<M: Module, O: Optimizer<M::Backend>>(
    model: &M,
    optimizer: &O,
) -> (u64, Vec<Vec<u8>>) {
    let state = optimizer.state();
    let slots = model
        .named_params()
        .iter()
        .flat_map(|(_, p)| state.get(p.id()).unwrap_or_default())
        .map(|slot| slot.to_bytes().unwrap())
        .collect();
    (state.steps(), slots)
}

pub(crate) fn tensor<B: Backend, T: Element>(device: &B, data: &[T], dims: &[usize]) -> Tensor<B> {
    Tensor::from_slice(device, data, dims).unwrap()
}

#[track_caller]
pub(crate) fn assert_says(error: &backend_api::Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}
