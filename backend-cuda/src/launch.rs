//! Launching kernels: names, arguments and grids.

use std::ffi::c_void;

use backend_api::{DType, Error, Result};
use cudarc::driver::sys::{CUfunction_attribute, CUstream};
use cudarc::driver::{DeviceRepr, result};
use smallvec::SmallVec;

use crate::device::Cuda;
use crate::driver;
use crate::kernels::Module;

/// Threads per block of kernels that accept any grid.
const BLOCK: u32 = 256;
/// Maximum blocks per multiprocessor of such a kernel.
const BLOCKS_EACH: u32 = 16;

/// Bytes of dynamic shared memory that a kernel may use without opting in.
const FREE_SHARED: u32 = 48 << 10;

/// A kernel: its file, its name and the suffix of its element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    pub(crate) module: Module,
    pub(crate) name: &'static str,
    pub(crate) suffix: &'static str,
}

impl Kernel {
    pub(crate) const fn new(module: Module, name: &'static str, suffix: &'static str) -> Self {
        Self {
            module,
            name,
            suffix,
        }
    }
}

/// The suffix of kernels that only move elements: they are compiled by element size.
pub(crate) fn words(dtype: DType) -> &'static str {
    match dtype.size() {
        1 => "w1",
        2 => "w2",
        4 => "w4",
        _ => "w8",
    }
}

/// The number of threads of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grid {
    /// One thread per element; above the block limit, each thread handles several elements.
    Elements(i64),
    /// This many blocks, each of this many threads.
    Blocks(i64, u32),
}

/// The complete configuration of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory per block.
    pub(crate) shared: u32,
    /// Whether all blocks must be resident at once.
    pub(crate) cooperative: bool,
}

impl Launch {
    fn new(blocks: u32, threads: u32) -> Self {
        Self {
            blocks,
            threads,
            shared: 0,
            cooperative: false,
        }
    }
}

/// Kernel arguments, in declaration order and with exactly the declared types.
#[derive(Debug, Default)]
pub(crate) struct Args {
    words: SmallVec<[u64; 96]>,
    starts: SmallVec<[usize; 20]>,
    /// Size in bytes of each argument.
    sizes: SmallVec<[usize; 20]>,
}

impl Args {
    pub(crate) fn push<T: DeviceRepr + Copy>(&mut self, value: T) {
        let start = self.words.len();
        self.starts.push(start);
        self.sizes.push(size_of::<T>());
        self.words
            .resize(start + size_of::<T>().div_ceil(size_of::<u64>()), 0);
        const { assert!(align_of::<T>() <= align_of::<u64>()) };
        // SAFETY: `resize` made room for a `T` from `start` on. The words are aligned to 8 bytes,
        // and `T` is plain data.
        unsafe { self.words[start..].as_mut_ptr().cast::<T>().write(value) };
    }

    /// Appends the arguments of `more`.
    pub(crate) fn append(&mut self, more: Self) {
        let start = self.words.len();
        self.starts.extend(more.starts.iter().map(|s| s + start));
        self.words.extend(more.words);
        self.sizes.extend(more.sizes);
    }

    /// Size in bytes of each argument.
    pub(crate) fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    fn pointers(&mut self) -> SmallVec<[*mut c_void; 20]> {
        let Self { words, starts, .. } = self;
        starts
            .iter()
            .map(|&start| words[start..].as_mut_ptr().cast())
            .collect()
    }
}

/// Builds an [`Args`] from a list of values.
macro_rules! args {
    ($($value:expr),+ $(,)?) => {{
        let mut args = $crate::launch::Args::default();
        $(args.push($value);)+
        args
    }};
}
pub(crate) use args;

impl Cuda {
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
                    .min(u64::from(self.multiprocessors() * BLOCKS_EACH)) as u32,
                BLOCK,
            ),
            Grid::Blocks(blocks, threads) => {
                let most = i64::from(self.multiprocessors() * BLOCKS_EACH);
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

    pub(crate) fn launch_as(
        &self,
        stream: CUstream,
        kernel: Kernel,
        launch: Launch,
        mut args: Args,
    ) -> Result<()> {
        if launch.blocks == 0 {
            return Ok(());
        }
        self.bind()?;
        let function = self.loaded().function(kernel, &args)?;
        let failed = |e| driver::failure(self.index(), kernel.name, e);
        if launch.shared > FREE_SHARED {
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            unsafe {
                result::function::set_function_attribute(function, limit, launch.shared as i32)
            }
            .map_err(failed)?;
        }
        let mut pointers = args.pointers();
        let (blocks, threads) = ((launch.blocks, 1, 1), (launch.threads, 1, 1));
        // SAFETY: the function is loaded, and the arguments match its declaration (see `launch`).
        unsafe {
            let start = match launch.cooperative {
                false => result::launch_kernel,
                true => result::launch_cooperative_kernel,
            };
            start(
                function,
                blocks,
                threads,
                launch.shared,
                stream,
                &mut pointers,
            )
        }
        .map_err(failed)?;
        if stream == self.stream() {
            self.count_launch();
        }
        Ok(())
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
