//! The kernels that are generated for the steps of some cells, forward and for their gradients.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use backend_api::trace::{SharedProgram, StepGraph};
use backend_api::{
    Backend, Buffers, DType, Dests, Meta, Op, Result, Shape, Tensor, View, forward_backend,
};
use backend_cpu::Cpu;
use backend_cuda::step_source;
use rnn_core::{DynamicRnn, Module, cell_from_config};
use rnn_train::{Autodiff, value_and_grad};
use serde_json::json;

use super::Source;

const UNITS: usize = 256;

/// Collects the steps that it is asked to compile.
#[derive(Clone, Debug)]
struct Collecting {
    cpu: Cpu,
    steps: Arc<Mutex<Vec<StepGraph>>>,
}

impl Backend for Collecting {
    forward_backend!(@common Cpu, cpu);

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, Self::Buffer>],
        outs: Dests<Self::Buffer>,
    ) -> Result<Buffers<Self::Buffer>> {
        self.cpu.run(op, ins, outs)
    }

    fn compile_step(&self, step: &StepGraph) -> Result<SharedProgram, String> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if !steps.contains(step) {
            steps.push(step.clone());
        }
        self.cpu.compile_step(step)
    }
}

/// The sources for cells with few and many instructions, sums over rows, several products.
pub(super) fn sources() -> Result<Vec<Source>, Box<dyn Error>> {
    let mut sources = Vec::new();
    for class in [
        "BasicRNNCell",
        "GRUCell",
        "LSTMCell",
        "LayerNormBasicLSTMCell",
        "NASCell",
    ] {
        let steps = Arc::default();
        let device = Autodiff::new(Collecting {
            cpu: Cpu::new(),
            steps: Arc::clone(&steps),
        });
        let config = json!({ "type": class, "num_units": UNITS });
        let mut cell = cell_from_config(&device, &config, UNITS, DType::F32)?;
        cell.initialize(1)?;
        let x = Tensor::zeros(&device, Meta::new(Shape::new(&[2, 4, UNITS])?, DType::F32))?;
        value_and_grad(&cell, |cell| {
            DynamicRnn::new(cell).run(&x)?.outputs.sum_all()
        })?;
        let steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        for (step, part) in steps.iter().zip(["forward", "saving", "gradient"]) {
            sources.push(Source {
                prefix: format!("{class}.{part}."),
                name: format!("{class}.{part}.cu"),
                text: step_source(step)?,
            });
        }
    }
    Ok(sources)
}
