//! Computes the nodes of a step graph by operations on tensors: for one step, or for all steps at
//! once.

use smallvec::{SmallVec, smallvec};

use super::graph::{Node, Operand, StepGraph, Value, Work};
use super::plan::{RowSource, RowSum, ScanPlan};
use super::recorder::step_key;
use crate::{Backend, Error, Fused, Layout, Meta, Op, Result, Shape, Stacker, Tensor};

/// A value for all steps.
#[derive(Clone)]
pub(super) struct Lifted<B: Backend> {
    /// `[steps, ..]` if it depends on the time, else as in one step.
    pub(super) tensor: Tensor<B>,
    timed: bool,
}

impl<B: Backend> Lifted<B> {
    pub(super) fn timed(tensor: Tensor<B>) -> Self {
        Self {
            tensor,
            timed: true,
        }
    }

    pub(super) fn once(tensor: Tensor<B>) -> Self {
        Self {
            tensor,
            timed: false,
        }
    }

    /// A view of the value; the layout is that of one step.
    pub(super) fn view(self, layout: &Layout, steps: usize) -> Result<Self> {
        let of_step = Shape::new(&self.tensor.dims()[usize::from(self.timed)..])?;
        if *layout == Layout::contiguous(of_step) {
            return Ok(self);
        }
        let layout = match self.timed {
            true => layout.repeated(steps, of_step.count())?,
            false => *layout,
        };
        let plain = self.tensor.contiguous()?;
        Ok(Self {
            tensor: plain.of_buffer_at(layout)?,
            ..self
        })
    }

    /// The value with a leading axis for the time.
    pub(super) fn for_all_steps(self, steps: usize) -> Result<Self> {
        if self.timed {
            return Ok(self);
        }
        let shape = self.tensor.shape().insert(0, steps)?;
        Ok(Self::timed(self.tensor.unsqueeze(0)?.stretch(shape)?))
    }

    /// Axes of length 1 after the time, so that the operand broadcasts to `rank` axes of a step.
    fn aligned(&self, rank: usize) -> Result<Tensor<B>> {
        let mut dims = self.tensor.dims();
        while self.timed && dims.len() < rank + 1 {
            dims.insert(1, 1);
        }
        self.tensor.reshape(&dims)
    }
}

/// Computes a node for all steps at once.
pub(super) fn lift<B: Backend>(
    device: &B,
    node: &Node,
    operands: Vec<Lifted<B>>,
    steps: usize,
    start: usize,
) -> Result<SmallVec<[Lifted<B>; 2]>> {
    let op = match &node.work {
        Work::Op(op) => op,
        Work::Detach => {
            return Ok(operands
                .into_iter()
                .map(|o| Lifted {
                    tensor: o.tensor.detach(),
                    ..o
                })
                .collect());
        }
        Work::AddAt(layout) => {
            let mut operands = operands.into_iter();
            let (Some(dst), Some(src)) = (operands.next(), operands.next()) else {
                return Err(missing());
            };
            let timed = dst.timed || src.timed;
            let (dst, src, layout) = match timed {
                true => {
                    let count = node.results[0].shape.count();
                    let layout = layout.repeated(steps, count)?;
                    (dst.for_all_steps(steps)?, src.for_all_steps(steps)?, layout)
                }
                false => (dst, src, *layout),
            };
            let tensor = add_at(dst.tensor, &layout, &src.tensor)?;
            return Ok(smallvec![Lifted { tensor, timed }]);
        }
        Work::Noise {
            stream,
            salt,
            distribution,
        } => {
            let meta = node.results[0];
            let mut stack = Stacker::new(steps);
            for time in start..start + steps {
                let key = step_key(*stream, time as u64, *salt);
                stack.push(Tensor::random(device, key, *distribution, meta)?)?;
            }
            let like = Tensor::zeros(device, Meta::new(meta.shape, meta.dtype))?;
            return Ok(smallvec![Lifted::timed(stack.finish(&like)?)]);
        }
    };
    if !operands.iter().any(|o| o.timed) {
        let ins: Vec<&Tensor<B>> = operands.iter().map(|o| &o.tensor).collect();
        let results = Tensor::call_all(device, op, &ins)?;
        return Ok(results.into_iter().map(Lifted::once).collect());
    }
    let call = |op: &Op, ins: &[Tensor<B>]| {
        let ins: SmallVec<[&Tensor<B>; 4]> = ins.iter().collect();
        let results = Tensor::call_all(device, op, &ins)?;
        Ok(results.into_iter().map(Lifted::timed).collect())
    };
    let all = |operands: Vec<Lifted<B>>| -> Result<Vec<Tensor<B>>> {
        let lifted = operands.into_iter().map(|o| o.for_all_steps(steps));
        lifted.map(|o| Ok(o?.tensor)).collect()
    };
    match op {
        Op::Reduce { kind, axis } => {
            let (kind, axis) = (*kind, axis + 1);
            call(&Op::Reduce { kind, axis }, &all(operands)?)
        }
        Op::ArgMax { axis } => call(&Op::ArgMax { axis: axis + 1 }, &all(operands)?),
        Op::Concat { axis } => call(&Op::Concat { axis: axis + 1 }, &all(operands)?),
        Op::Binary(_) | Op::Compare(_) | Op::Select => {
            let rank = node.results[0].shape.rank();
            let ins = operands.iter().map(|o| o.aligned(rank));
            call(op, &ins.collect::<Result<Vec<_>>>()?)
        }
        Op::MatMul { .. } => {
            if operands[1].timed {
                return call(op, &all(operands)?);
            }
            let product = product_of_all(device, op, operands, steps)?;
            Ok(smallvec![Lifted::timed(product)])
        }
        Op::Gather | Op::Fused(Fused::BiasActivation { .. }) => {
            let ins: Vec<_> = operands.into_iter().map(|o| o.tensor).collect();
            call(op, &ins)
        }
        Op::Fused(fused) if fused.is_of_rows() => {
            let rows = |t: Tensor<B>| {
                let dims = t.dims();
                t.reshape(&[dims[0] * dims[1], dims[2]])
            };
            let ins = all(operands)?.into_iter().map(rows);
            let results: SmallVec<[Lifted<B>; 2]> = call(op, &ins.collect::<Result<Vec<_>>>()?)?;
            let back = |o: Lifted<B>| {
                let rows = o.tensor.shape()[0] / steps.max(1);
                let tensor = o.tensor.reshape(&[steps, rows, o.tensor.shape().last()])?;
                Ok(Lifted::timed(tensor))
            };
            results.into_iter().map(back).collect()
        }
        _ => call(op, &all(operands)?),
    }
}

/// The products of all steps with the same right sides, as one product with the rows of all steps.
fn product_of_all<B: Backend>(
    device: &B,
    op: &Op,
    operands: Vec<Lifted<B>>,
    steps: usize,
) -> Result<Tensor<B>> {
    let mut ins = Vec::with_capacity(operands.len());
    // The axes of a batch of products, which lie between the time and the rows.
    let batch: Vec<usize> = (1..operands[1].tensor.shape().rank() - 1).collect();
    let after = batch.len() + 1;
    for (i, operand) in operands.into_iter().enumerate() {
        if i == 1 {
            ins.push(operand.tensor);
            continue;
        }
        let all = operand.for_all_steps(steps)?.tensor;
        if batch.is_empty() {
            // One matrix, of the rows of all steps, needs contiguous rows.
            ins.push(all.contiguous()?);
            continue;
        }
        let all = all.permute(&[&batch[..], &[0, after, after + 1]].concat())?;
        let mut dims = all.dims();
        let rows = dims.remove(batch.len());
        dims[batch.len()] *= rows;
        ins.push(all.reshape(&dims)?);
    }
    let ins: SmallVec<[&Tensor<B>; 3]> = ins.iter().collect();
    let product = Tensor::call(device, op, &ins)?;
    if batch.is_empty() {
        return Ok(product);
    }
    let mut dims = product.dims();
    dims[batch.len()] /= steps.max(1);
    dims.insert(batch.len(), steps);
    let product = product.reshape(&dims)?;
    let back: Vec<usize> = (0..batch.len()).collect();
    product.permute(&[&[after - 1], &back[..], &[after, after + 1]].concat())
}

/// `dst` with `src` added to the elements that a layout selects.
fn add_at<B: Backend>(dst: Tensor<B>, at: &Layout, src: &Tensor<B>) -> Result<Tensor<B>> {
    let (device, meta) = (dst.device().clone(), dst.meta());
    let buffer = dst.contiguous()?.copy()?.into_buffer()?;
    let buffer = device.accumulate(buffer, at, src.view()?)?;
    let layout = Layout::contiguous(meta.shape);
    Tensor::from_parts(&device, buffer, layout, meta.dtype)
}

/// The values of one step.
struct Step<'a, B: Backend> {
    inputs: Vec<Tensor<B>>,
    captured: &'a [Tensor<B>],
    states: &'a [Tensor<B>],
    nodes: Vec<SmallVec<[Tensor<B>; 3]>>,
}

impl<B: Backend> Step<'_, B> {
    fn operand(&self, operand: &Operand) -> Result<Tensor<B>> {
        let value = match operand.value {
            Value::Input(i) => &self.inputs[i],
            Value::Captured(i) => &self.captured[i],
            Value::State(i) => &self.states[i],
            Value::Node(node, k) => &self.nodes[node][k],
        };
        if operand.layout == Layout::contiguous(value.shape()) {
            return Ok(value.clone());
        }
        value.contiguous()?.of_buffer_at(operand.layout)
    }
}

/// Runs one step of a graph, operation by operation. Returns the outputs and the new state.
///
/// # Errors
/// The operands do not fit the graph, or the device failed.
pub fn run_step<B: Backend>(
    device: &B,
    graph: &StepGraph,
    inputs: Vec<Tensor<B>>,
    captured: &[Tensor<B>],
    states: &[Tensor<B>],
) -> Result<(Vec<Tensor<B>>, Vec<Tensor<B>>)> {
    let mut step = Step {
        inputs,
        captured,
        states,
        nodes: Vec::with_capacity(graph.nodes.len()),
    };
    for node in &graph.nodes {
        let operands: SmallVec<[Tensor<B>; 3]> = node
            .operands
            .iter()
            .map(|o| step.operand(o))
            .collect::<Result<_>>()?;
        let results = match &node.work {
            Work::Op(op) => {
                let ins: SmallVec<[&Tensor<B>; 4]> = operands.iter().collect();
                Tensor::call_all(device, op, &ins)?
            }
            Work::Detach => operands.iter().map(Tensor::detach).collect(),
            Work::AddAt(layout) => {
                let mut operands = operands.into_iter();
                let (Some(dst), Some(src)) = (operands.next(), operands.next()) else {
                    return Err(missing());
                };
                smallvec![add_at(dst, layout, &src)?]
            }
            Work::Noise { .. } => {
                return Err(Error::argument("scan", "random numbers", "need the time"));
            }
        };
        step.nodes.push(results);
    }
    let all = |operands: &[Operand]| -> Result<Vec<Tensor<B>>> {
        operands.iter().map(|o| step.operand(o)).collect()
    };
    Ok((all(&graph.outputs)?, all(&graph.new_states)?))
}

/// The default implementation of [`Fused::Scan`]: runs the operations of the graph step by step.
pub(crate) fn scan<B: Backend>(
    device: &B,
    plan: &ScanPlan,
    ins: &[Tensor<B>],
) -> Result<SmallVec<[Tensor<B>; 3]>> {
    let graph = plan.graph();
    let (inputs, rest) = ins.split_at(graph.inputs.len());
    let (captured, rest) = rest.split_at(graph.captured.len());
    let (states, lengths) = rest.split_at(graph.states.len());
    let mut states = states.to_vec();
    let zeros = graph
        .outputs
        .iter()
        .map(|o| Tensor::zeros(device, o.meta()))
        .collect::<Result<Vec<_>>>()?;
    let masked = |time: usize, new: &Tensor<B>, old: &Tensor<B>| match lengths {
        [lengths, ..] => lengths.fused(Fused::MaskedUpdate { time }, &[new, old]),
        [] => Ok(new.clone()),
    };
    let shown = plan.shown();
    // Saved values past a row's length are unspecified.
    let saved = shown..shown + plan.saved;
    let mut outputs: Vec<Vec<Tensor<B>>> = vec![Vec::with_capacity(plan.steps); zeros.len()];
    for i in 0..plan.steps {
        let time = if plan.reverse { plan.steps - 1 - i } else { i };
        let inputs = inputs.iter().map(|x| x.select(0, time));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let (out, new) = run_step(device, graph, inputs, captured, &states)?;
        for (k, (stack, out)) in outputs.iter_mut().zip(out).enumerate() {
            stack.push(match saved.contains(&k) {
                true => out,
                false => masked(time, &out, &zeros[k])?,
            });
        }
        for (state, new) in states.iter_mut().zip(&new) {
            *state = masked(time, new, state)?;
        }
    }
    let mut results: SmallVec<[Tensor<B>; 3]> = SmallVec::new();
    for (mut stack, zero) in outputs.into_iter().zip(&zeros) {
        if plan.reverse {
            stack.reverse();
        }
        let mut stacker = Stacker::new(plan.steps);
        for output in stack {
            stacker.push(output)?;
        }
        results.push(stacker.finish(zero)?);
    }
    let sums = row_sums(plan.step.sums(), |source| match (source, lengths) {
        (RowSource::Input(i), [lengths]) => inputs[i].mask_padding(lengths, 0),
        (RowSource::Input(i), _) => Ok(inputs[i].clone()),
        (RowSource::Output(i), [lengths]) if saved.contains(&i) => {
            results[i].mask_padding(lengths, 0)
        }
        (RowSource::Output(i), _) => Ok(results[i].clone()),
    })?;
    results.truncate(saved.end);
    results.extend(sums);
    results.insert_many(shown, states);
    Ok(results)
}

/// Sums over all rows of all steps. `rows` gives the rows, `[steps, batch, width]`, with zeros
/// where a row does not run.
///
/// # Errors
/// The rows do not fit each other, or the device failed.
pub fn row_sums<B: Backend>(
    sums: &[RowSum],
    rows: impl Fn(RowSource) -> Result<Tensor<B>>,
) -> Result<Vec<Tensor<B>>> {
    let flat = |source: &RowSource| {
        let rows = rows(*source)?;
        let dims = rows.dims();
        rows.reshape(&[dims[0] * dims[1], dims[2]])
    };
    let sum = |sum: &RowSum| match &*sum.iter().map(flat).collect::<Result<Vec<_>>>()? {
        [a, b] => a.transpose(0, 1)?.matmul(b),
        [rows, ..] => rows.sum(0),
        [] => Err(missing()),
    };
    sums.iter().map(sum).collect()
}

fn missing() -> Error {
    Error::argument("scan", "operands", "are missing")
}
