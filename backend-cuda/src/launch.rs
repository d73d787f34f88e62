//! Launching kernels.

use backend_api::{DType, Error, Result};
use cudarc::driver::sys::{CUresult, CUstream};
use cudarc::driver::{DriverError, result};

use crate::arguments::{Args, Grid, Kernel, Launch};
use crate::device::Cuda;
use crate::fault::{Fault, Faults};

/// Threads per block of kernels that accept any grid.
const BLOCK: u32 = 256;
/// Maximum blocks per multiprocessor of such a kernel.
const BLOCKS_EACH: u32 = 16;

/// The suffix of kernels that only move elements: they are compiled by element size.
pub(crate) fn words(dtype: DType) -> &'static str {
    match dtype.size() {
        1 => "w1",
        2 => "w2",
        4 => "w4",
        _ => "w8",
    }
}

impl Cuda {
    /// Maximum number of blocks of a kernel that accepts any grid.
    pub(crate) fn most_blocks(&self) -> usize {
        (self.multiprocessors() * BLOCKS_EACH) as usize
    }

    /// Queues a kernel on the compute stream. A launch of zero elements does nothing.
    ///
    /// The caller must pass arguments of the types that the kernel declares; only their number and
    /// sizes are checked. The buffers behind them must stay alive until the call returns. Freed
    /// buffers return to a pool that orders their reuse after this launch.
    pub(crate) fn launch(&self, kernel: Kernel, grid: Grid, args: Args) -> Result<()> {
        self.launch_on(self.stream(), kernel, grid, args)
    }

    /// Like [`launch`](Self::launch), on another stream.
    pub(crate) fn launch_on(
        &self,
        stream: CUstream,
        kernel: Kernel,
        grid: Grid,
        args: Args,
    ) -> Result<()> {
        let (blocks, threads) = match grid {
            Grid::Elements(count) => (
                (count.max(0) as u64)
                    .div_ceil(u64::from(BLOCK))
                    .min(self.most_blocks() as u64) as u32,
                BLOCK,
            ),
            Grid::Blocks(blocks, threads) => {
                let most = self.most_blocks() as i64;
                (blocks.clamp(0, most) as u32, threads)
            }
        };
        self.launch_as(stream, kernel, Launch::new(blocks, threads), args)
    }

    /// Like [`launch`](Self::launch), with exactly `blocks` blocks.
    pub(crate) fn launch_exactly(
        &self,
        kernel: Kernel,
        blocks: u32,
        threads: u32,
        args: Args,
    ) -> Result<()> {
        self.launch_as(self.stream(), kernel, Launch::new(blocks, threads), args)
    }

    fn launch_as(
        &self,
        stream: CUstream,
        kernel: Kernel,
        launch: Launch,
        mut args: Args,
    ) -> Result<()> {
        if launch.blocks == 0 {
            return Ok(());
        }
        let failed = self.failed(kernel.name);
        let mut start = || {
            self.start(stream, kernel, launch, &mut args)?
                .map_err(&failed)
        };
        if stream != self.stream() {
            // A recording must not be interrupted to free memory.
            return start();
        }
        self.pool().with_room(0, start)?;
        self.launched(kernel.name)
    }

    /// Queues a kernel whose blocks wait for each other, on the compute stream. Returns whether the
    /// device has room for all of them at once.
    pub(crate) fn launch_cooperatively(
        &self,
        kernel: Kernel,
        launch: Launch,
        mut args: Args,
    ) -> Result<bool> {
        let stream = self.compute();
        self.bind()?;
        let started = self.primary().cooperate(stream, || {
            self.start(stream.cu_stream(), kernel, launch, &mut args)
        })?;
        match started {
            Err(e) if e.0 == CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE => Ok(false),
            started => {
                started.map_err(self.failed(kernel.name))?;
                self.launched(kernel.name)?;
                Ok(true)
            }
        }
    }

    /// Starts a kernel; the inner error is that of the launch itself.
    fn start(
        &self,
        stream: CUstream,
        kernel: Kernel,
        launch: Launch,
        args: &mut Args,
    ) -> Result<Result<(), DriverError>> {
        self.bind()?;
        let function = self.loaded().function(kernel, args)?;
        let mut pointers = args.pointers();
        let (blocks, threads) = ((launch.blocks, 1, 1), (launch.threads, 1, 1));
        let start = match launch.cooperative {
            false => result::launch_kernel,
            true => result::launch_cooperative_kernel,
        };
        // SAFETY: the function is loaded, and the arguments match its declaration (see `launch`).
        Ok(unsafe {
            start(
                function,
                blocks,
                threads,
                launch.shared,
                stream,
                &mut pointers,
            )
        })
    }

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
        self.faults().expect();
        Ok(())
    }

    /// Returns the recorded fault as an error. Waits for the compute stream if a kernel may have
    /// written one.
    pub(crate) fn check_faults(&self) -> Result<()> {
        if !self.faults().take_possible() {
            return Ok(());
        }
        let mut fault = [Fault::default()];
        let address = self.faults().address();
        self.bind()?;
        // SAFETY: the block holds a `Fault`; the copy is complete before `fault` is read.
        unsafe { result::memcpy_dtoh_async(&mut fault, address, self.stream()) }
            .map_err(self.failed("reading faults"))?;
        self.wait_for_stream()?;
        match fault[0].error() {
            None => Ok(()),
            Some(error) => {
                self.clear(address, Faults::BYTES)?;
                Err(error)
            }
        }
    }
}

/// The error for an element type without a kernel.
pub(crate) fn unsupported(op: &'static str, dtype: DType) -> Error {
    Error::dtype(
        op,
        "an operand",
        dtype,
        "the CUDA backend has no kernel for it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::args;
    use crate::kernels::Module;

    #[test]
    fn arguments_of_a_wrong_width_or_number_are_refused() {
        let _sim = cudasim::install().unwrap().exclusive();
        let device = Cuda::new(0).unwrap();
        let kernel = Kernel::new(Module::Steps, "steps_advance", "all");
        let memory = device.pool().take(64).unwrap();
        let launch = |args| device.launch(kernel, Grid::Blocks(1, 1), args);
        // The first launch checks at lookup, the second on the function already found.
        for _ in 0..2 {
            assert_eq!(
                launch(args![memory.address(), 1i32])
                    .unwrap_err()
                    .to_string(),
                "cuda:0: steps_advance failed: its arguments have [8, 8] bytes, not [8, 4]"
            );
        }
        assert!(launch(args![memory.address()]).is_err());
        launch(args![memory.address(), 1i64]).unwrap();
    }
}
