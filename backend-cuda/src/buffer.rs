//! Buffers, operands and the destinations of results.

use std::sync::Arc;

use backend_api::{DType, Dest, Dests, Error, Layout, Result, View};
use cudarc::driver::{CudaEvent, sys};

use crate::device::Cuda;
use crate::pool::Block;

/// Elements in device memory. Clones share them; the last one returns the memory to the device's
/// pool.
#[derive(Clone, Debug)]
pub struct CudaBuffer {
    block: Arc<Block>,
    dtype: DType,
    count: usize,
}

/// An operand of an operation.
pub(crate) type Input<'a> = View<'a, CudaBuffer>;

impl CudaBuffer {
    pub(crate) fn new(block: Block, dtype: DType, count: usize) -> Self {
        Self {
            block: Arc::new(block),
            dtype,
            count,
        }
    }

    /// The elements that a layout selects, as an operand.
    pub(crate) fn view<'a>(&'a self, layout: &'a Layout) -> Input<'a> {
        Input {
            buffer: self,
            layout,
            dtype: self.dtype,
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn bytes(&self) -> usize {
        self.count * self.dtype.size()
    }

    /// The address of the first element, for use on the compute stream, which waits for pending
    /// copies.
    pub(crate) fn address(&self) -> Result<sys::CUdeviceptr> {
        self.block.settle()?;
        Ok(self.block.address())
    }

    /// Registers a copy on another stream that uses the elements until `event`.
    pub(crate) fn pending_until(&self, event: Arc<CudaEvent>) {
        self.block.pending_until(event);
    }

    /// Makes this the only reference to the block, which is copied if there are others.
    pub(crate) fn unshare(&mut self, cuda: &Cuda) -> Result<()> {
        if Arc::get_mut(&mut self.block).is_none() {
            let block = unshared(cuda, self.clone(), false)?;
            *self = Self::new(block, self.dtype, self.count);
        }
        Ok(())
    }

    /// The block, if this is the only reference to it.
    pub(crate) fn into_block(self) -> Result<Block, Self> {
        let Self {
            block,
            dtype,
            count,
        } = self;
        Arc::try_unwrap(block).map_err(|block| Self {
            block,
            dtype,
            count,
        })
    }
}

/// A result being written: kernels write its elements at the offsets of `layout`.
#[derive(Debug)]
pub(crate) struct Output {
    block: Block,
    dtype: DType,
    /// Elements of the whole buffer.
    count: usize,
    layout: Layout,
}

impl Output {
    pub(crate) fn new(cuda: &Cuda, dest: Dest<CudaBuffer>) -> Result<Self> {
        let (buffer, layout) = match dest {
            Dest::New(meta) => {
                return Ok(Self {
                    block: cuda.pool().take(meta.bytes())?,
                    dtype: meta.dtype,
                    count: meta.shape.count(),
                    layout: Layout::contiguous(meta.shape),
                });
            }
            Dest::Into(into) => *into,
        };
        let (dtype, count) = (buffer.dtype, buffer.count);
        let block = unshared(cuda, buffer, layout.is_whole(count))?;
        Ok(Self {
            block,
            dtype,
            count,
            layout,
        })
    }

    /// The address of the buffer; the layout's offset is not included.
    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        self.block.address()
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn finish(self) -> CudaBuffer {
        CudaBuffer::new(self.block, self.dtype, self.count)
    }
}

/// The buffer's memory if this is the only reference, else a copy. The copy is left uninitialised
/// if its contents will be `overwritten`.
pub(crate) fn unshared(cuda: &Cuda, buffer: CudaBuffer, overwritten: bool) -> Result<Block> {
    match buffer.into_block() {
        Ok(block) => {
            block.settle()?;
            Ok(block)
        }
        Err(shared) => {
            let copy = cuda.pool().take(shared.bytes())?;
            if !overwritten {
                cuda.copy_block(shared.address()?, &copy, shared.bytes())?;
            }
            Ok(copy)
        }
    }
}

/// The destinations of an operation with `N` results.
pub(crate) fn dests<const N: usize>(outs: Dests<CudaBuffer>) -> Result<[Dest<CudaBuffer>; N]> {
    let given = outs.len();
    let mut outs = outs.into_iter();
    let dests = std::array::from_fn(|_| outs.next());
    if given != N || dests.iter().any(Option::is_none) {
        return Err(Error::argument(
            "run",
            "number of results",
            format!("is {given}, but must be {N}"),
        ));
    }
    Ok(dests.map(|dest| dest.expect("counted above")))
}

/// The operands of an operation that takes `N`.
pub(crate) fn operands<'a, const N: usize>(ins: &[Input<'a>]) -> Result<[Input<'a>; N]> {
    ins.try_into().map_err(|_| {
        Error::argument(
            "run",
            "number of operands",
            format!("is {}, but must be {N}", ins.len()),
        )
    })
}
