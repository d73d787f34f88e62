//! Runs of a graph over all steps.

use std::sync::Arc;

use backend_api::trace::{CompiledStep, Operand, ScanPlan, StepGraph, run_step};
use backend_api::{Backend, DType, Fused, Meta, Op, Result, Tensor};

/// The operands of a scan, as numbers.
#[derive(Clone, Debug)]
pub struct Data {
    /// Number of steps.
    pub steps: usize,
    /// The inputs of all steps.
    pub inputs: Vec<Vec<f64>>,
    /// The captured tensors.
    pub captured: Vec<Vec<f64>>,
    /// The initial states.
    pub states: Vec<Vec<f64>>,
    /// The length of each row, if rows have lengths.
    pub lengths: Option<Vec<i64>>,
}

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    let at = |i: usize| ((i * 7 + seed * 31 + 5) * 7919) % 2003;
    (0..count).map(|i| at(i) as f64 / 1001.0 - 1.0).collect()
}

impl Data {
    /// Different numbers between -1 and 1; those of captured matrices are so small that products
    /// stay small.
    pub fn new(graph: &StepGraph, steps: usize, lengths: Option<Vec<i64>>) -> Self {
        let all = |metas: &[Meta], times: usize, seed: usize| {
            let metas = metas.iter().enumerate();
            let each = |(i, m): (usize, &Meta)| numbers(times * m.shape.count(), seed + i);
            metas.map(each).collect::<Vec<_>>()
        };
        let mut captured = all(&graph.captured, 1, 300);
        for (data, meta) in captured.iter_mut().zip(&graph.captured) {
            // Products stay small.
            if meta.shape.rank() == 2 {
                let scale = 1.0 / (meta.shape[0] as f64).sqrt();
                data.iter_mut().for_each(|x| *x *= scale);
            }
        }
        Self {
            steps,
            inputs: all(&graph.inputs, steps, 100),
            captured,
            states: all(&graph.states, 1, 200),
            lengths,
        }
    }

    /// The same data with `padding` as the inputs at and after a row's length, which have no
    /// effect.
    #[must_use]
    pub fn padded(mut self, graph: &StepGraph, padding: f64) -> Self {
        let Some(lengths) = &self.lengths else {
            return self;
        };
        for (x, meta) in self.inputs.iter_mut().zip(&graph.inputs) {
            let n = meta.shape.count() / lengths.len().max(1);
            for (row, x) in x.chunks_exact_mut(n.max(1)).enumerate() {
                if (row / lengths.len()) as i64 >= lengths[row % lengths.len()] {
                    x.fill(padding);
                }
            }
        }
        self
    }
}

/// A tensor of the graph's type.
fn tensor<B: Backend>(device: &B, data: &[f64], dims: &[usize], dtype: DType) -> Tensor<B> {
    match dtype {
        DType::F64 => Tensor::from_slice(device, data, dims),
        _ => {
            let data: Vec<f32> = data.iter().map(|&x| x as f32).collect();
            Tensor::from_slice(device, &data, dims)
        }
    }
    .unwrap()
}

/// The elements of a tensor of the graph's type. Nothing is computed on the device.
fn elements<B: Backend>(x: &Tensor<B>) -> Vec<f64> {
    match x.dtype() {
        DType::F64 => x.to_vec().unwrap(),
        _ => x
            .to_vec::<f32>()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect(),
    }
}

/// The operands of a scan as tensors: inputs, captured tensors, states, lengths. Every other input
/// has the batch first in memory.
pub fn operands<B: Backend>(device: &B, graph: &StepGraph, data: &Data) -> Vec<Tensor<B>> {
    let mut ins = Vec::new();
    for (i, (x, meta)) in data.inputs.iter().zip(&graph.inputs).enumerate() {
        let dims = [&[data.steps], meta.shape.dims()].concat();
        let x = tensor(device, x, &dims, meta.dtype);
        let turned = |x: &Tensor<B>| x.transpose(0, 1).unwrap();
        ins.push(match i % 2 {
            0 => x,
            _ => turned(&turned(&x).copy().unwrap()),
        });
    }
    let fixed = data.captured.iter().zip(&graph.captured);
    for (x, meta) in fixed.chain(data.states.iter().zip(&graph.states)) {
        ins.push(tensor(device, x, meta.shape.dims(), meta.dtype));
    }
    if let Some(lengths) = &data.lengths {
        ins.push(Tensor::from_slice(device, lengths, &[lengths.len()]).unwrap());
    }
    ins
}

/// The scan of a step.
pub fn scan(step: CompiledStep, data: &Data, reverse: bool) -> Op {
    Op::Fused(Fused::Scan(ScanPlan {
        step: Arc::new(step),
        steps: data.steps,
        saved: 0,
        reverse,
        ragged: data.lengths.is_some(),
        reuse: true,
    }))
}

/// The results of a step's scan: outputs, final states, sums.
///
/// # Errors
/// Those of the device.
pub fn scanned<B: Backend>(
    device: &B,
    step: CompiledStep,
    data: &Data,
    reverse: bool,
) -> Result<Vec<Vec<f64>>> {
    let ins = operands(device, step.graph(), data);
    let ins: Vec<_> = ins.iter().collect();
    let results = Tensor::call_all(device, &scan(step, data, reverse), &ins)?;
    Ok(results.iter().map(elements).collect())
}

/// The results of the program that the device makes of a graph. The error text has the program.
///
/// # Errors
/// There is no program, or it fails.
pub fn fused<B: Backend>(
    device: &B,
    graph: &StepGraph,
    data: &Data,
    reverse: bool,
) -> Result<Vec<Vec<f64>>, String> {
    let program = device.compile_step(graph)?;
    let step = CompiledStep::new(graph.clone(), Ok(program.clone()));
    scanned(device, step, data, reverse).map_err(|error| format!("{error}\n{program}"))
}

/// The results of the operations, step by step: outputs and final states.
pub fn stepwise<B: Backend>(
    device: &B,
    graph: &StepGraph,
    data: &Data,
    reverse: bool,
) -> Vec<Vec<f64>> {
    let tensors = |data: &[&[f64]], metas: &[Meta]| -> Vec<Tensor<B>> {
        let all = data.iter().zip(metas);
        all.map(|(x, m)| tensor(device, x, m.shape.dims(), m.dtype))
            .collect()
    };
    let whole = |all: &[Vec<f64>], metas: &[Meta]| {
        tensors(&all.iter().map(Vec::as_slice).collect::<Vec<_>>(), metas)
    };
    let captured = whole(&data.captured, &graph.captured);
    let mut states = data.states.clone();
    if graph.states[0].dtype == DType::F32 {
        let rounded = states.iter_mut().flatten();
        rounded.for_each(|x| *x = f64::from(*x as f32));
    }
    let width = |o: &Operand| o.layout.shape().count();
    let zeros = |o: &Operand| vec![0.0; data.steps * width(o)];
    let mut outputs: Vec<Vec<f64>> = graph.outputs.iter().map(zeros).collect();
    let batch = graph.batch();
    for i in 0..data.steps {
        let t = if reverse { data.steps - 1 - i } else { i };
        let inputs = data.inputs.iter().zip(&graph.inputs).map(|(x, m)| {
            let n = m.shape.count();
            &x[t * n..(t + 1) * n]
        });
        let inputs = tensors(&inputs.collect::<Vec<_>>(), &graph.inputs);
        let old = whole(&states, &graph.states);
        let (shown, new) = run_step(device, graph, inputs, &captured, &old).unwrap();
        for (k, new) in shown.iter().chain(&new).enumerate() {
            let new = elements(new);
            let n = new.len() / batch;
            for r in 0..batch {
                let length = data.lengths.as_ref().map_or(data.steps as i64, |l| l[r]);
                if t as i64 >= length {
                    continue;
                }
                let to = match k.checked_sub(outputs.len()) {
                    None => &mut outputs[k][(t * batch + r) * n..][..n],
                    Some(k) => &mut states[k][r * n..][..n],
                };
                to.copy_from_slice(&new[r * n..][..n]);
            }
        }
    }
    outputs.extend(states);
    outputs
}

/// The same numbers. NaN equals NaN, and a zero of any sign the other.
///
/// # Errors
/// The first difference.
pub fn same(a: &[Vec<f64>], b: &[Vec<f64>]) -> Result<(), String> {
    agree(a, b, |a, b, _| a == b)
}

/// Numbers that differ by at most `limit` times the largest of their result, or `limit` times
/// 0.001: a result in which larger numbers cancel is all rounding.
///
/// # Errors
/// The first difference.
pub fn close(a: &[Vec<f64>], b: &[Vec<f64>], limit: f64) -> Result<(), String> {
    agree(a, b, |a, b, largest| (a - b).abs() <= limit * largest)
}

fn agree(
    a: &[Vec<f64>],
    b: &[Vec<f64>],
    agrees: impl Fn(f64, f64, f64) -> bool,
) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("{} results instead of {}", a.len(), b.len()));
    }
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        if a.len() != b.len() {
            return Err(format!(
                "result {i}: {} elements instead of {}",
                a.len(),
                b.len()
            ));
        }
        let largest = b.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
        for (k, (&a, &b)) in a.iter().zip(b).enumerate() {
            if !(agrees(a, b, largest) || a == b || a.is_nan() && b.is_nan()) {
                return Err(format!("result {i}, element {k}: {a:?} instead of {b:?}"));
            }
        }
    }
    Ok(())
}
