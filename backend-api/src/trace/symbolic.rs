//! A device without elements, which records operations: for deriving the gradient of a step.

use std::sync::Arc;

use smallvec::smallvec;

use super::graph::Work;
use super::recorder::{Recorder, Symbol, not_available};
use crate::{
    Backend, Buffers, DType, Dest, Dests, Error, Layout, Memory, Meta, Metas, Op, Result, Tensor,
    View,
};

/// A device whose buffers are [`Symbol`]s: it records operations in a [`Recorder`] and computes
/// nothing. A decorator that works on any device, such as automatic differentiation, thus works on
/// a [`StepGraph`](super::StepGraph).
#[derive(Clone, Debug)]
pub struct Symbolic {
    recorder: Arc<Recorder>,
}

impl Symbolic {
    /// A device that records in `recorder`.
    pub fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder }
    }

    /// A symbol as a tensor of the device.
    ///
    /// # Errors
    /// The symbol has fewer elements, or elements of another type.
    pub fn tensor(&self, symbol: Symbol, meta: Meta) -> Result<Tensor<Self>> {
        Tensor::from_parts(self, symbol, Layout::contiguous(meta.shape), meta.dtype)
    }
}

impl Backend for Symbolic {
    type Buffer = Symbol;
    type Swapped = Symbol;

    fn name(&self) -> String {
        "symbolic".to_owned()
    }

    fn same_device(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.recorder, &other.recorder)
    }

    fn extent(&self, buffer: &Symbol) -> Result<(usize, DType)> {
        let meta = buffer.meta()?;
        Ok((meta.shape.count(), meta.dtype))
    }

    fn upload(&self, _: &[u8], _: Meta) -> Result<Symbol> {
        Err(not_available("an uploaded tensor"))
    }

    fn download(&self, _: View<'_, Symbol>, _: &mut [u8]) -> Result<()> {
        Err(not_available("the tensor"))
    }

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, Symbol>],
        outs: Dests<Symbol>,
    ) -> Result<Buffers<Symbol>> {
        let operands: Vec<_> = ins.iter().map(|x| (x.buffer.clone(), *x.layout)).collect();
        let results = outs
            .iter()
            .map(|dest| match dest {
                Dest::New(meta) => Ok(*meta),
                Dest::Into(_) => Err(Error::argument(op.name(), "destination", "is symbolic")),
            })
            .collect::<Result<Metas>>()?;
        self.recorder
            .record(Work::Op(op.clone()), &operands, results)
    }

    fn accumulate(&self, dst: Symbol, at: &Layout, src: View<'_, Symbol>) -> Result<Symbol> {
        let meta = dst.meta()?;
        let operands = [
            (dst, Layout::contiguous(meta.shape)),
            (src.buffer.clone(), *src.layout),
        ];
        let mut sums = self
            .recorder
            .record(Work::AddAt(*at), &operands, smallvec![meta])?;
        Ok(sums.swap_remove(0))
    }

    fn swap_out(&self, buffer: Symbol) -> Result<Symbol> {
        Ok(buffer)
    }

    fn swap_in(&self, swapped: Symbol) -> Result<Symbol> {
        Ok(swapped)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }
}
