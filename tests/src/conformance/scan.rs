//! A traced step over all steps, as one operation of a device.

use std::sync::Arc;

use backend_api::trace::{CompiledStep, Operand, Recorder, ScanPlan, StepGraph};
use backend_api::{Activation, Backend, DType, Fused, Meta, Op, Result, Shape, Tensor, Unary};

/// `z = h · w + x`, `c' = c sigmoid(a) + mean(b²)`, `h' = tanh(c') * v`, where `a` and `b` are the
/// halves of `z`; the outputs are `h'` and `z`. Has products, slices, sums of rows, captured rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    pub(super) steps: usize,
    pub(super) batch: usize,
    pub(super) units: usize,
    pub(super) reverse: bool,
    pub(super) ragged: bool,
    /// Whether `z` is a saved value, which is unspecified past a row's length.
    pub(super) saves: bool,
    /// Whether the device may make a program of the step.
    pub(super) compiled: bool,
}

impl Scan {
    fn shape(dims: &[usize], dtype: DType) -> Result<Meta> {
        Ok(Meta::new(Shape::new(dims)?, dtype))
    }

    /// The step, traced on the device.
    fn graph<B: Backend>(&self, device: &B, dtype: DType) -> Result<StepGraph> {
        let Self { batch, units, .. } = *self;
        let recorder = Recorder::new();
        let tensor = |symbol, meta| Tensor::symbol(device, symbol, meta);
        let wide = Self::shape(&[batch, 2 * units], dtype)?;
        let state = Self::shape(&[batch, units], dtype)?;
        let (kernel, row) = (
            Self::shape(&[units, 2 * units], dtype)?,
            Self::shape(&[units], dtype)?,
        );
        let x = tensor(recorder.input(wide), wide);
        let c = tensor(recorder.state(state), state);
        let h = tensor(recorder.state(state), state);
        let w = tensor(recorder.capture(Arc::new(()), kernel), kernel);
        let v = tensor(recorder.capture(Arc::new(()), row), row);
        let z = h.matmul_add(&w, &x)?;
        let halves = z.split_last(2)?;
        let mean = halves[1].square()?.sum(1)?.unsqueeze(1)?;
        let mean = mean.affine(1.0 / units as f64, 0.0)?;
        let new_c = c.mul(&halves[0].sigmoid()?)?.add(&mean)?;
        let tanh = Op::Unary(Unary::Activation(Activation::Tanh));
        let new_h = Tensor::call(device, &tanh, &[&new_c])?.mul(&v)?;
        let operand = |t: &Tensor<B>| {
            t.as_symbol()
                .map(|symbol| Operand::whole(symbol.value(), t.meta()))
        };
        let all = |tensors: &[&Tensor<B>]| tensors.iter().filter_map(|t| operand(t)).collect();
        let (outputs, states) = (all(&[&new_h, &z]), all(&[&new_c, &new_h]));
        let finished = recorder.finish(outputs, states);
        let (graph, _) =
            finished.map_err(|why| backend_api::Error::argument("scan", "step", why))?;
        Ok(graph)
    }

    /// The operation, with the device's program.
    pub(super) fn op<B: Backend>(&self, device: &B, dtype: DType) -> Result<Op> {
        let graph = self.graph(device, dtype)?;
        let program = match self.compiled {
            true => device.compile_step(&graph),
            false => Err("the case wants none".to_owned()),
        };
        Ok(Op::Fused(Fused::Scan(ScanPlan {
            step: Arc::new(CompiledStep::new(graph, program)),
            steps: self.steps,
            reverse: self.reverse,
            ragged: self.ragged,
            reuse: self.batch % 2 == 1,
            saved: usize::from(self.saves),
        })))
    }
}
