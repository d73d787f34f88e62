//! A step that several ranks take together.

use backend_api::{Backend, Error, Meta, Result, Shape, Tensor};
use rnn_core::Module;
use serde::Serialize;

use super::Trainer;
use crate::data::Source;
use crate::optim::Optimizer;

/// What all ranks must begin with. Parameters are copied from rank 0.
#[derive(Serialize)]
struct Start<P> {
    step: u64,
    epoch: u64,
    seed: u64,
    batches_of_a_step: u64,
    optimizer_steps: u64,
    optimizer_slots: u32,
    position: P,
}

impl<B: Backend> Trainer<B> {
    /// Whether this rank shows progress.
    pub(super) fn shows_progress(&self) -> bool {
        self.show_progress && self.ranks.as_ref().is_none_or(|ranks| ranks.rank() == 0)
    }

    /// Whether this rank computes batch `batch` of a step.
    pub(super) fn computes(&self, batch: u64) -> bool {
        let Some(ranks) = &self.ranks else {
            return true;
        };
        let batches = usize::try_from(self.accumulate).unwrap_or(usize::MAX);
        ranks.share(batches).contains(&(batch as usize))
    }

    /// Completes the values that batches carry by those of other ranks.
    pub(super) fn gather_carry(&mut self) -> Result<()> {
        let Some(ranks) = self.ranks.as_ref().filter(|_| !self.state.carry.is_empty()) else {
            return Ok(());
        };
        let leaves = self.state.carry.len() / self.accumulate as usize;
        let mine = ranks.share(self.accumulate as usize);
        let mine = mine.start * leaves..mine.end * leaves;
        let shapes: Vec<_> = self.state.carry[mine.clone()]
            .iter()
            .map(|t| t.dims())
            .collect();
        let shapes: Vec<Vec<usize>> = shapes.iter().map(|dims| dims.to_vec()).collect();
        let shapes = ranks
            .agree("gathering carried values", Ok(shapes))?
            .concat();
        let mut bytes = Vec::new();
        for leaf in &self.state.carry[mine] {
            bytes.extend(leaf.to_bytes()?);
        }
        let bytes = ranks.all_gather(bytes)?.concat();
        let mut rest = &bytes[..];
        for (leaf, dims) in self.state.carry.iter_mut().zip(shapes) {
            let meta = Meta::new(Shape::new(&dims)?, leaf.dtype());
            let (bytes, after) = rest.split_at(meta.bytes());
            rest = after;
            *leaf = Tensor::from_bytes(leaf.device(), bytes, meta)?;
        }
        Ok(())
    }

    /// Whether the end of the run was requested, on any rank.
    pub(super) fn interrupted(&self) -> Result<bool> {
        let Some(interrupt) = &self.interrupt else {
            return Ok(false);
        };
        let here = interrupt.is_requested();
        match &self.ranks {
            None => Ok(here),
            Some(ranks) => Ok(ranks
                .agree("looking for an interrupt", Ok(here))?
                .contains(&true)),
        }
    }

    /// Before the first step: the ranks begin with the parameters of rank 0, and with the same of
    /// everything else.
    pub(super) fn begin<M, O, S>(&mut self, model: &mut M, optimizer: &O, source: &S) -> Result<()>
    where
        M: Module<Backend = B>,
        O: Optimizer<B>,
        S: Source,
    {
        let Some(ranks) = self.ranks.as_ref().filter(|_| !self.ranks_agree) else {
            return Ok(());
        };
        if self.accumulate < ranks.size() as u64 {
            let problem = format!(
                "is {}, but there are {} ranks, and each computes one batch of a step or more",
                self.accumulate,
                ranks.size()
            );
            return Err(Error::argument("across", "accumulate", problem));
        }
        let start = Start {
            step: self.state.step,
            epoch: self.state.epoch,
            seed: self.state.seed,
            batches_of_a_step: self.accumulate,
            optimizer_steps: optimizer.state().steps(),
            optimizer_slots: slots(model, optimizer)?,
            position: source.state(),
        };
        ranks.same("the first step", &start)?;
        ranks.broadcast(model)?;
        self.ranks_agree = true;
        Ok(())
    }
}

/// A checksum of the optimizer's state of each parameter.
fn slots<M: Module, O: Optimizer<M::Backend>>(model: &M, optimizer: &O) -> Result<u32> {
    let mut sum = 0;
    for (_, param) in model.named_params() {
        for slot in optimizer.state().get(param.id()).unwrap_or_default() {
            sum = crc32c::crc32c_append(sum, &slot.to_bytes()?);
        }
    }
    Ok(sum)
}
