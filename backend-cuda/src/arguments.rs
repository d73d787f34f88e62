//! Kernels by name, their arguments and their grids.

use std::ffi::c_void;

use cudarc::driver::DeviceRepr;
use smallvec::SmallVec;

use crate::kernels::Module;

/// Where a kernel's source is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    File(Module),
    /// Generated for a step, by a hash of it.
    Step(u64),
}

/// A kernel: its source, its name and the suffix of its element type, or its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    pub(crate) source: Source,
    pub(crate) name: &'static str,
    suffix: &'static str,
    number: usize,
}

impl Kernel {
    pub(crate) const fn new(module: Module, name: &'static str, suffix: &'static str) -> Self {
        Self {
            source: Source::File(module),
            name,
            suffix,
            number: 0,
        }
    }

    /// A kernel of a step.
    pub(crate) const fn of_step(code: u64, number: usize) -> Self {
        Self {
            source: Source::Step(code),
            name: "step",
            suffix: "",
            number,
        }
    }

    /// The name of the function.
    pub(crate) fn function(&self) -> String {
        match self.source {
            Source::File(_) => format!("{}_{}", self.name, self.suffix),
            Source::Step(_) => format!("{}_{}", self.name, self.number),
        }
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
    pub(crate) fn new(blocks: u32, threads: u32) -> Self {
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

    pub(crate) fn pointers(&mut self) -> SmallVec<[*mut c_void; 20]> {
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
        let mut args = $crate::arguments::Args::default();
        $(args.push($value);)+
        args
    }};
}
pub(crate) use args;
