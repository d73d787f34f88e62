//! Faults: invalid index values that kernels find in their operands.
//!
//! A kernel cannot return an error. It records an index that it could not use (of several, the
//! first to arrive), and the host reads the record when it waits for results.

use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::{Error, Result};
use cudarc::driver::{result, sys};

use crate::device::Cuda;
use crate::driver;
use crate::launch::{Args, Grid, Kernel};
use crate::pool::Block;

/// Mirrors `Fault` in `common.cuh`.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Fault {
    kind: u32,
    unused: u32,
    place: i64,
    value: i64,
    limit: i64,
}

/// The device's fault record.
#[derive(Debug)]
pub(crate) struct Faults {
    block: Block,
    /// Whether a kernel that may write the record was queued since the record was last read.
    possible: AtomicBool,
}

impl Faults {
    /// `block` must have been set to 0.
    pub(crate) fn new(block: Block) -> Self {
        Self {
            block,
            possible: AtomicBool::new(false),
        }
    }

    /// Bytes of the record.
    pub(crate) const BYTES: usize = size_of::<Fault>();

    /// The address that kernels write to.
    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        self.block.address()
    }
}

impl Cuda {
    /// Queues a kernel that may find a fault. The record's address is appended as its last
    /// argument.
    pub(crate) fn launch_reporting(
        &self,
        kernel: Kernel,
        grid: Grid,
        mut args: Args,
    ) -> Result<()> {
        args.push(self.faults().address());
        self.launch(kernel, grid, args)?;
        // Stored after the launch: a thread that sees the flag reads the record after the kernel.
        self.faults().possible.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns the recorded fault as an error. Waits for the compute stream if a kernel may have
    /// written one.
    pub(crate) fn check_faults(&self) -> Result<()> {
        let faults = self.faults();
        if !faults.possible.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let mut fault = [Fault::default()];
        let address = faults.block.address();
        self.bind()?;
        let failed = |e| driver::failure(self.index(), "reading faults", e);
        // SAFETY: the block holds a `Fault`; the copy is complete before `fault` is read.
        unsafe { result::memcpy_dtoh_async(&mut fault, address, self.stream()) }.map_err(failed)?;
        self.wait_for_stream()?;
        let [fault] = fault;
        if fault.kind == 0 {
            return Ok(());
        }
        self.clear(address, Faults::BYTES)?;
        let (op, arg) = match fault.kind {
            1 => ("gather", "ids"),
            2 => ("scatter_add", "ids"),
            3 => ("reverse", "lengths"),
            5 => ("scatter_update", "ids"),
            _ => ("softmax_cross_entropy", "labels"),
        };
        Err(Error::out_of_range(
            op,
            arg,
            fault.place as usize,
            fault.value,
            fault.limit,
        ))
    }
}
