//! Operands and results without gaps.

use backend_api::{Dest, Dests, Error, Result};
use cudarc::driver::sys::CUdeviceptr;

use crate::buffer::{CudaBuffer, Input, Output};
use crate::device::Cuda;

/// Dense operands: holds the buffers that must live until all work is queued.
pub(super) struct Held<'a> {
    pub(super) cuda: &'a Cuda,
    pub(super) buffers: Vec<CudaBuffer>,
}

impl Held<'_> {
    pub(super) fn dense(&mut self, x: &Input<'_>) -> Result<CUdeviceptr> {
        let (address, buffer) = self.cuda.dense_address(x)?;
        self.buffers.push(buffer);
        Ok(address)
    }
}

/// Whether every result is contiguous.
pub(super) fn in_one_piece(outs: &Dests<CudaBuffer>) -> bool {
    outs.iter().all(|dest| match dest {
        Dest::New(_) => true,
        Dest::Into(into) => into.1.is_contiguous(),
    })
}

/// A contiguous result and its address.
pub(super) fn result(cuda: &Cuda, dest: Option<Dest<CudaBuffer>>) -> Result<(Output, CUdeviceptr)> {
    let dest = dest.ok_or_else(|| Error::argument("run", "outs", "are too few"))?;
    let output = Output::new(cuda, dest)?;
    let address = output.address() + (output.layout().offset() * output.dtype().size()) as u64;
    Ok((output, address))
}
