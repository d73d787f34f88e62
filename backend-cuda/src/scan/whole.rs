//! All steps of a plain LSTM in one launch ([`crate::persistent`]), if its weights fit the device.

use backend_api::trace::ScanPlan;
use backend_api::{DType, Error, Layout, Result, Tensor};

use super::lstm::Saved;
use super::run::Run;
use crate::buffer::Input;
use crate::device::Cuda;
use crate::persistent::Sequence;
use crate::pool::Block;

impl Cuda {
    /// Runs all steps in one launch, if the step is that of a plain LSTM and fits.
    pub(super) fn run_whole(&self, plan: &ScanPlan, run: &Run<'_>, x: &Input<'_>) -> Result<bool> {
        let graph = plan.graph();
        let Some(lstm) = &run.step.lstm else {
            return Ok(false);
        };
        if plan.reverse || !plan.step.sums().is_empty() {
            return Ok(false);
        }
        let Some(Ok(spread)) = run.step.spread(self, plan.steps, plan.shown()) else {
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
            Some(address) => Ok::<_, Error>(address),
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
        let at = [c0, h0];
        if !self.lstm_persistent(spread, &lstm.gates, plan.steps, &sequence, at, kernel)? {
            return Ok(false);
        }
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
