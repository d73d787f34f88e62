//! Steps that are those of a plain LSTM run in one launch ([`crate::persistent`]), if its weights
//! fit the device.

use backend_api::trace::{Node, Operand, ScanPlan, StepGraph, Value, Work};
use backend_api::{
    Binary, DType, Fused, Layout, LstmGates, Op, Recurrence, Result, SequenceRequest, Tensor,
};
use cudarc::driver::sys::CUdeviceptr;

use super::run::Run;
use crate::buffer::Input;
use crate::device::Cuda;
use crate::persistent::Spread;
use crate::pool::Block;

/// A whole LSTM. The address of an absent result is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub(crate) batch: usize,
    pub(crate) units: usize,
    /// `[B]` or 0.
    pub(crate) lengths: CUdeviceptr,
    pub(crate) wide: u64,
    /// `[T, B, 4 n]`, undefined past a row's end.
    pub(crate) z: CUdeviceptr,
    /// `[B, n]`: the final state.
    pub(crate) c: CUdeviceptr,
    pub(crate) h: CUdeviceptr,
    /// `[T, B, n]`
    pub(crate) y: CUdeviceptr,
    /// `[T, B, 4 n]` or 0.
    pub(crate) gates: CUdeviceptr,
    /// `[T, B, n]`; used if there are `gates`.
    pub(crate) cs: CUdeviceptr,
}

/// A step `x · w0 + w1 + h · w2`, then [`Fused::LstmStep`], with the states `c` and `h`.
#[derive(Clone, Debug)]
pub(super) struct PlainLstm {
    gates: LstmGates,
    /// What each output of the step is.
    outputs: Vec<Saved>,
}

/// A value of an LSTM's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saved {
    Output,
    Cell,
    Gates,
    /// The state before the step.
    CellBefore,
    OutputBefore,
}

impl PlainLstm {
    /// The LSTM of which a graph is the step.
    pub(super) fn of(graph: &StepGraph) -> Option<Self> {
        let [x] = graph.inputs[..] else { return None };
        let ([c, h], [w0, w1, w2]) = (&graph.states[..], &graph.captured[..]) else {
            return None;
        };
        let [product, sum, recurrent, step] = &graph.nodes[..] else {
            return None;
        };
        let Work::Op(Op::Fused(Fused::LstmStep(gates))) = step.work else {
            return None;
        };
        let value = |value| Operand::whole(value, graph.meta_of(value));
        let of_node = |node, result| value(Value::Node(node, result));
        let is = |node: &Node, operands: &[Operand]| node.operands[..] == *operands;
        let multiplies =
            |node: &Node| matches!(node.work, Work::Op(Op::MatMul { alpha, .. }) if alpha == 1.0);
        let captured = |i| value(Value::Captured(i));
        let rows = [x, *c, *h].iter().all(|meta| meta.shape.rank() == 2);
        let fits = rows
            && [w0, w2].iter().all(|meta| meta.shape.rank() == 2)
            && w1.shape.rank() == 1
            && c == h
            && x.dtype == DType::F32
            && multiplies(product)
            && is(product, &[value(Value::Input(0)), captured(0)])
            && sum.work == Work::Op(Op::Binary(Binary::Add))
            && is(sum, &[of_node(0, 0), captured(1)])
            && multiplies(recurrent)
            && is(
                recurrent,
                &[value(Value::State(1)), captured(2), of_node(1, 0)],
            )
            && is(step, &[of_node(2, 0), value(Value::State(0))])
            && graph.new_states == [of_node(3, 0), of_node(3, 1)];
        if !fits {
            return None;
        }
        let saved = |operand: &Operand| {
            let known = [
                (of_node(3, 1), Saved::Output),
                (of_node(3, 0), Saved::Cell),
                (of_node(3, 2), Saved::Gates),
                (value(Value::State(0)), Saved::CellBefore),
                (value(Value::State(1)), Saved::OutputBefore),
            ];
            let found = known.iter().find(|(known, _)| known == operand)?;
            Some(found.1)
        };
        Some(Self {
            gates,
            outputs: graph.outputs.iter().map(saved).collect::<Option<_>>()?,
        })
    }
}

impl Cuda {
    /// How the blocks of one launch share the steps of an LSTM, if they can run so.
    pub(super) fn spread_of(
        &self,
        lstm: &PlainLstm,
        graph: &StepGraph,
        steps: usize,
    ) -> Option<Spread> {
        self.spread(&SequenceRequest {
            recurrence: Recurrence::Lstm(lstm.gates),
            inputs: graph.inputs[0].shape.last(),
            steps,
            batch: graph.batch(),
            units: graph.states[0].shape.last(),
            ragged: false,
            reuse: false,
            dtype: DType::F32,
        })
    }

    /// Runs all steps in one launch, if the step is that of a plain LSTM and fits.
    pub(super) fn run_whole(&self, plan: &ScanPlan, run: &Run<'_>, x: &Input<'_>) -> Result<bool> {
        let graph = plan.graph();
        let Some(lstm) = &run.step.lstm else {
            return Ok(false);
        };
        let (shown, saved) = lstm.outputs.split_at(plan.shown());
        let plain = !plan.reverse
            && plan.step.sums().is_empty()
            && saved.len() == plan.saved
            && shown.iter().all(|output| *output == Saved::Output);
        let Some(spread) = self.spread_of(lstm, graph, plan.steps).filter(|_| plain) else {
            return Ok(false);
        };
        let captured = |i: usize| {
            let (buffer, offset) = &run.captured[i];
            let layout = Layout::contiguous(graph.captured[i].shape).moved(*offset)?;
            Tensor::from_parts(self, buffer.clone(), layout, DType::F32)
        };
        let x = Tensor::of_view(self, x)?.contiguous()?;
        let z = x.matmul(&captured(0)?)?.add(&captured(1)?)?;
        let (units, rows) = (graph.states[0].shape.last(), plan.steps * graph.batch());
        let width = |saved: Saved| {
            if saved == Saved::Gates {
                4 * units
            } else {
                units
            }
        };
        let bytes = |saved: Saved| rows * width(saved) * size_of::<f32>();
        let known = |saved: Saved| {
            let place = lstm.outputs.iter().position(|output| *output == saved);
            place.map(|i| run.output(i))
        };
        let mut held: Vec<Block> = Vec::new();
        let mut place = |saved: Saved| match known(saved) {
            Some(address) => Ok::<_, backend_api::Error>(address),
            None => {
                let block = self.pool().take(bytes(saved))?;
                held.push(block);
                Ok(held[held.len() - 1].address())
            }
        };
        let saves = lstm.outputs.iter().any(|output| *output != Saved::Output);
        let y = place(Saved::Output)?;
        let [gates, cs] = match saves {
            true => [place(Saved::Gates)?, place(Saved::Cell)?],
            false => [0; 2],
        };
        let kernel = captured(2)?;
        let [c0, h0] = run.initial[..] else {
            return Ok(false);
        };
        let sequence = Sequence {
            batch: graph.batch(),
            units,
            lengths: run.described[4],
            wide: run.described[5],
            z: self.dense_address(&z.view()?)?.0,
            c: run.finals[0],
            h: run.finals[1],
            y,
            gates,
            cs,
        };
        let kernel = self.dense_address(&kernel.view()?)?.0;
        self.lstm_persistent(spread, &lstm.gates, plan.steps, &sequence, [c0, h0], kernel)?;
        let one = graph.batch() * units * size_of::<f32>();
        for (i, output) in lstm.outputs.iter().enumerate() {
            let to = run.output(i);
            let (first, all) = match output {
                Saved::Output => (None, y),
                Saved::Gates => (None, gates),
                Saved::Cell => (None, cs),
                Saved::CellBefore => (Some(c0), cs),
                Saved::OutputBefore => (Some(h0), y),
            };
            match first {
                None if all == to => {}
                None => self.copy_bytes(all, to, bytes(*output))?,
                // The state before a step is that after the one before.
                Some(first) => {
                    self.copy_bytes(first, to, one)?;
                    self.copy_bytes(all, to + one as u64, bytes(*output) - one)?;
                }
            }
        }
        Ok(true)
    }
}
