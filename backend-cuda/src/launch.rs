//! Launching kernels: names, arguments, grids.

use std::ffi::c_void;

use backend_api::{DType, Error, Result};
use cudarc::driver::sys::{CUfunction_attribute, CUstream};
use cudarc::driver::{DeviceRepr, result};
use smallvec::SmallVec;

use crate::device::Cuda;
use crate::driver;
use crate::kernels::Module;

/// Threads of a block of the kernels that take any grid.
const BLOCK: u32 = 256;
/// Blocks of such a kernel for each multiprocessor, at most.
const BLOCKS_EACH: u32 = 16;

/// Bytes of shared memory that a kernel gets without asking.
const FREE_SHARED: u32 = 48 << 10;

/// A kernel: where it is, and for which elements.
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

/// The suffix of kernels for elements that are only moved.
pub(crate) fn words(dtype: DType) -> &'static str {
    match dtype.size() {
        1 => "w1",
        2 => "w2",
        4 => "w4",
        _ => "w8",
    }
}

/// How many threads a kernel gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grid {
    /// One for each of so many elements, or fewer that take several each.
    Elements(i64),
    /// So many blocks of so many threads.
    Blocks(i64, u32),
}

/// A launch in all its details.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    /// Bytes of shared memory of a block, beyond what the kernel declares.
    pub(crate) shared: u32,
    /// Whether all blocks have to be resident at once.
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

/// The arguments of a kernel, in its order and of exactly its types.
#[derive(Debug, Default)]
pub(crate) struct Args {
    words: SmallVec<[u64; 96]>,
    starts: SmallVec<[usize; 20]>,
    /// Bytes of each.
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
        // SAFETY: there is room for a `T` from `start` on, aligned to 8 bytes, and `T` is plain data.
        unsafe { self.words[start..].as_mut_ptr().cast::<T>().write(value) };
    }

    /// Adds more arguments.
    pub(crate) fn append(&mut self, more: Self) {
        let start = self.words.len();
        self.starts.extend(more.starts.iter().map(|s| s + start));
        self.words.extend(more.words);
        self.sizes.extend(more.sizes);
    }

    /// Bytes of each argument.
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

/// Arguments as a list.
macro_rules! args {
    ($($value:expr),+ $(,)?) => {{
        let mut args = $crate::launch::Args::default();
        $(args.push($value);)+
        args
    }};
}
pub(crate) use args;

impl Cuda {
    /// Queues a kernel on the compute stream. A kernel without elements is not launched.
    ///
    /// The caller answers for `args` being what the kernel declares (their number and sizes are checked): each call stands
    /// next to the buffers it uses, which stay alive or go back to a pool that orders their reuse after this launch.
    pub(crate) fn launch(&self, kernel: Kernel, grid: Grid, args: Args) -> Result<()> {
        self.launch_on(self.stream(), kernel, grid, args)
    }

    /// The same on another stream.
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

    /// The same with as many blocks as are asked for.
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
        // SAFETY: the function is loaded, the arguments are those it declares (see `launch`).
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

/// The error for an operation that there is no kernel for.
pub(crate) fn unsupported(op: &'static str, dtype: DType) -> Error {
    Error::dtype(op, "an operand", dtype, "cuda has no kernel for it")
}
