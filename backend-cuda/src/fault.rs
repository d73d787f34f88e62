//! Faults: invalid index values that kernels find in their operands.
//!
//! A kernel cannot return an error. It records an index that it could not use (of several, the
//! first to arrive), and the host reads the record when it waits for results.

use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::Error;
use cudarc::driver::sys;

use crate::pool::Block;

/// Mirrors `Fault` in `common.cuh`.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Fault {
    kind: u32,
    unused: u32,
    position: i64,
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

    /// Notes that a kernel that may write the record was queued.
    pub(crate) fn expect(&self) {
        // Stored after the launch: a thread that sees the flag reads the record after the kernel.
        self.possible.store(true, Ordering::Release);
    }

    /// Whether the record may have been written since the last call.
    pub(crate) fn take_possible(&self) -> bool {
        self.possible.swap(false, Ordering::AcqRel)
    }
}

impl Fault {
    /// The error that the record describes, if it was written.
    pub(crate) fn error(&self) -> Option<Error> {
        let (op, arg) = match self.kind {
            0 => return None,
            1 => ("gather", "ids"),
            2 => ("scatter_add", "ids"),
            3 => ("reverse", "lengths"),
            5 => ("scatter_update", "ids"),
            _ => ("softmax_cross_entropy", "labels"),
        };
        let position = self.position as usize;
        Some(Error::out_of_range(
            op, arg, position, self.value, self.limit,
        ))
    }
}
