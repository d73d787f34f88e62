//! Runs all steps of the regions.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::Regions;
use super::sums::{Sum, is_plain};
use crate::trace::evaluate::{Lifted, lift};
use crate::trace::graph::{Operand, Value};
use crate::trace::plan::ScanPlan;
use crate::{Backend, Error, Fused, Op, Result, Tensor};

/// The tensors that a run of a step works on.
#[derive(Debug)]
pub struct ScanOperands<'a, B: Backend> {
    /// The inputs of all steps, `[steps, batch, ..]` each.
    pub inputs: &'a [&'a Tensor<B>],
    /// The captured tensors.
    pub captured: &'a [Tensor<B>],
    /// The initial state.
    pub states: &'a [&'a Tensor<B>],
    /// The number of steps of each row, counted from the first of these steps.
    pub lengths: Option<&'a Tensor<B>>,
    /// Number of steps.
    pub steps: usize,
    /// The time of the first step.
    pub start: usize,
    /// Whether the steps run from the last one to the first.
    pub reverse: bool,
    /// Whether the device may cache what it makes of the captured tensors.
    pub reuse: bool,
}

/// The results of all steps.
#[derive(Debug)]
pub struct ScanResults<B: Backend> {
    /// The outputs, `[steps, batch, ..]` each, zero at and after a row's length.
    pub outputs: Vec<Tensor<B>>,
    /// The final state.
    pub states: Vec<Tensor<B>>,
    /// The sums over all steps.
    pub sums: Vec<Tensor<B>>,
}

impl Regions {
    /// Runs all steps.
    ///
    /// # Errors
    /// The operands do not fit the graph, or the device failed.
    pub fn run<B: Backend>(
        &self,
        device: &B,
        operands: &ScanOperands<'_, B>,
    ) -> Result<ScanResults<B>> {
        let mut run = Run {
            regions: self,
            device,
            operands,
            known: BTreeMap::new(),
            core: Vec::new(),
            sums: Vec::new(),
        };
        let states;
        let mut outputs = None;
        if let Some(core) = &self.core {
            let plan = ScanPlan {
                step: core.step.clone(),
                steps: operands.steps,
                reverse: operands.reverse,
                ragged: operands.lengths.is_some(),
                reuse: operands.reuse,
                saved: 0,
            };
            let values = || core.inputs.iter().chain(&core.captured);
            for value in values() {
                if let Value::Node(node, _) = value {
                    run.compute(*node)?;
                }
            }
            let mut ins = Vec::with_capacity(plan.operands());
            for value in values() {
                ins.push(run.tensor(*value)?);
            }
            ins.extend_from_slice(operands.states);
            ins.extend(operands.lengths);
            let op = Op::Fused(Fused::Scan(plan));
            let mut all = Tensor::call_all(device, &op, &ins)?.into_iter();
            let results: Vec<_> = all.by_ref().take(core.outputs.len()).collect();
            states = all.by_ref().take(operands.states.len()).collect();
            run.sums = all.collect();
            match core.has_all_outputs && self.graph.sums.is_empty() {
                true => outputs = Some(results),
                false => run.core = results,
            }
        } else {
            states = operands.states.iter().map(|&state| state.clone()).collect();
        }
        let outputs = match outputs {
            Some(outputs) => outputs,
            None => {
                let all = self.graph.outputs.iter();
                all.map(|o| run.output(o)).collect::<Result<_>>()?
            }
        };
        let sums = self.graph.sums.iter();
        let sums = sums.map(|o| run.summed(o)).collect::<Result<_>>()?;
        Ok(ScanResults {
            outputs,
            states,
            sums,
        })
    }
}

/// A run of a step's regions.
struct Run<'a, B: Backend> {
    regions: &'a Regions,
    device: &'a B,
    operands: &'a ScanOperands<'a, B>,
    /// The results of nodes that were computed outside of the steps.
    known: BTreeMap<usize, SmallVec<[Lifted<B>; 2]>>,
    /// The outputs of the steps, and their sums.
    core: Vec<Tensor<B>>,
    sums: Vec<Tensor<B>>,
}

impl<B: Backend> Run<'_, B> {
    /// A value that is known without the steps, and computed already.
    fn tensor(&self, value: Value) -> Result<&Tensor<B>> {
        match value {
            Value::Input(i) => Ok(self.operands.inputs[i]),
            Value::Captured(i) => Ok(&self.operands.captured[i]),
            Value::State(_) => Err(inside()),
            Value::Node(node, k) => {
                let known = self.known.get(&node).and_then(|all| all.get(k));
                known.map(|lifted| &lifted.tensor).ok_or_else(inside)
            }
        }
    }

    /// A value for all steps.
    fn lifted(&mut self, value: Value) -> Result<Lifted<B>> {
        match value {
            Value::Input(i) => Ok(Lifted::timed(self.operands.inputs[i].clone())),
            Value::Captured(i) => Ok(Lifted::once(self.operands.captured[i].clone())),
            Value::State(_) => Err(inside()),
            Value::Node(node, k) => {
                self.compute(node)?;
                let known = self.known.get(&node).and_then(|all| all.get(k));
                known.cloned().ok_or_else(inside)
            }
        }
    }

    /// Computes a node and all that it depends on, outside of the steps.
    fn compute(&mut self, wanted: usize) -> Result<()> {
        let mut left = vec![wanted];
        while let Some(&node) = left.last() {
            if self.known.contains_key(&node) {
                left.pop();
                continue;
            }
            let of = &self.regions.graph.nodes[node];
            let before = left.len();
            for operand in &of.operands {
                if let Value::Node(n, _) = operand.value
                    && !self.known.contains_key(&n)
                    && self.regions.is_outside(operand.value)
                {
                    left.push(n);
                }
            }
            if left.len() == before {
                let operands = of
                    .operands
                    .iter()
                    .map(|o| self.operand(o))
                    .collect::<Result<_>>()?;
                let (steps, start) = (self.operands.steps, self.operands.start);
                let results = lift(self.device, of, operands, steps, start)?;
                self.known.insert(node, results);
                left.pop();
            }
        }
        Ok(())
    }

    /// An operand for all steps.
    fn operand(&mut self, operand: &Operand) -> Result<Lifted<B>> {
        if !self.regions.is_outside(operand.value) {
            let core = self.regions.core.as_ref();
            let outputs = core.map_or(&[][..], |core| &core.outputs);
            let place = outputs
                .iter()
                .position(|o| o == operand)
                .ok_or_else(inside)?;
            return Ok(Lifted::timed(self.core[place].clone()));
        }
        self.lifted(operand.value)?
            .view(&operand.layout, self.operands.steps)
    }

    /// An operand summed over all steps.
    fn summed(&mut self, operand: &Operand) -> Result<Tensor<B>> {
        let steps = self.operands.steps;
        let meta = self.regions.graph.meta_of(operand.value);
        let flat = |t: Tensor<B>| {
            let dims = t.dims();
            t.reshape(&[dims[0] * dims[1], dims[2]])
        };
        let known = |rows: &[Operand]| {
            let core = self.regions.core.as_ref();
            let place = core.and_then(|core| core.sums.iter().position(|known| **known == *rows));
            place.and_then(|place| self.sums.get(place)).cloned()
        };
        let sum = match (self.regions.sum_of(operand.value), operand.value) {
            (Sum::Product(ab, op), _) if is_plain(&op) && known(&ab).is_some() => {
                known(&ab).ok_or_else(inside)?
            }
            (Sum::Rows(x), _) if known(&[x]).is_some() => known(&[x]).ok_or_else(inside)?,
            (Sum::Product([a, b], op), _) => {
                let a = flat(self.operand(&a)?.tensor)?.transpose(0, 1)?;
                let b = flat(self.operand(&b)?.tensor)?;
                Tensor::call(self.device, &op, &[&a, &b])?
            }
            (Sum::Rows(x), _) => flat(self.operand(&x)?.tensor)?.sum(0)?,
            (Sum::Zero, _) => Tensor::zeros(self.device, meta)?,
            (Sum::Linear, Value::Node(node, _)) => {
                let node = &self.regions.graph.nodes[node];
                let operands = node.operands.iter();
                let operands = operands.map(|o| Ok(Lifted::once(self.summed(o)?)));
                let operands = operands.collect::<Result<Vec<_>>>()?;
                let mut sum = lift(self.device, node, operands, 0, 0)?;
                sum.swap_remove(0).tensor
            }
            (_, value) => {
                let whole = self.operand(&Operand::whole(value, meta))?;
                whole.for_all_steps(steps)?.tensor.sum(0)?
            }
        };
        Ok(Lifted::once(sum).view(&operand.layout, steps)?.tensor)
    }

    /// An output of the step for all steps.
    fn output(&mut self, operand: &Operand) -> Result<Tensor<B>> {
        let lifted = self.operand(operand)?;
        let output = lifted.for_all_steps(self.operands.steps)?.tensor;
        match self.operands.lengths {
            Some(lengths) if self.regions.is_outside(operand.value) => {
                output.mask_padding(lengths, 0)
            }
            _ => Ok(output),
        }
    }
}

/// Not reached: [`Regions::cut`] makes an output of every operand that is read outside.
fn inside() -> Error {
    Error::argument("scan", "a value", "is known in the steps only")
}
