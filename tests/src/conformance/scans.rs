//! A traced step over all steps, as one operation.

use std::sync::Arc;

use backend_api::trace::{CompiledStep, Operand, Recorder, ScanPlan, StepGraph};
use backend_api::{Activation, Backend, DType, Fused, Meta, Op, Result, Shape, Tensor, Unary};

use super::case::{Case, Program};
use super::draw::{Draw, Fill, PRECISE};
use super::tolerance::Class;

/// `z = h · w + x`, `c' = c sigmoid(a) + mean(b²)`, `h' = tanh(c') * v`, where `a` and `b` are the
/// halves of `z`; the outputs are `h'` and `z`. Has products, slices, sums of rows, captured rows.
#[derive(Clone, Copy, Debug)]
struct Scan {
    steps: usize,
    batch: usize,
    units: usize,
    reverse: bool,
    ragged: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (steps, batch, units) in [
        (4, 5, 3),
        (1, 1, 1),
        (0, 3, 4),
        (3, 0, 4),
        (6, 1, 33),
        (7, 19, 70),
    ] {
        for reverse in [false, true] {
            for ragged in [false, true] {
                let scan = Scan {
                    steps,
                    batch,
                    units,
                    reverse,
                    ragged,
                };
                let name = format!("{scan:?}");
                all.push(Case::program("scans", name, Class::Network, PRECISE, scan));
            }
        }
    }
    all
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
}

impl Program for Scan {
    fn operations(&self) -> Vec<&'static str> {
        vec!["scan"]
    }

    fn run<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Vec<Tensor<B>>> {
        let Self {
            steps,
            batch,
            units,
            reverse,
            ragged,
        } = *self;
        let draw_one =
            |label: &str, dims: &[usize]| draw.tensor(device, label, dims, &Fill::SYMMETRIC);
        let mut ins = vec![
            draw_one("x", &[steps, batch, 2 * units])?,
            draw_one("w", &[units, 2 * units])?,
            draw_one("v", &[units])?,
            draw_one("c", &[batch, units])?,
            draw_one("h", &[batch, units])?,
        ];
        let graph = self.graph(device, ins[0].dtype())?;
        if ragged {
            let lengths: Vec<i32> = (0..batch)
                .map(|row| (row * 3 % (steps + 1)) as i32)
                .collect();
            ins.push(Tensor::from_slice(device, &lengths, &[batch])?);
        }
        let program = device.compile_step(&graph);
        let plan = ScanPlan {
            step: Arc::new(CompiledStep::new(graph, program)),
            steps,
            reverse,
            ragged,
            reuse: false,
            saved: 0,
        };
        let ins: Vec<_> = ins.iter().collect();
        let results = Tensor::call_all(device, &Op::Fused(Fused::Scan(plan)), &ins)?;
        Ok(results.into_vec())
    }
}
