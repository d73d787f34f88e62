//! Softmax cross-entropy and its gradient.

use backend_api::{Buffers, DType, Dests, Layout, Meta, Result};
use smallvec::smallvec;

use crate::arguments::{Grid, Kernel, args};
use crate::buffer::{CudaBuffer, Input, Output, dests, operands};
use crate::device::Cuda;
use crate::elementwise::is_wide;
use crate::kernels::Module;
use crate::strided::Strided;

/// `THREADS` in `loss.cu`.
const THREADS: u32 = 128;

impl Cuda {
    pub(crate) fn softmax_cross_entropy(
        &self,
        dtype: DType,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [logits, labels] = operands(ins)?;
        let classes = logits.layout.shape().last() as i64;
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let (logits_at, _logits) = self.dense_address(&logits)?;
        let s = Strided::new(labels.layout.shape(), [*labels.layout, output.layout()])?;
        let args = args![
            classes,
            classes,
            is_wide(labels.dtype),
            s,
            logits_at,
            labels.buffer.address()?,
            output.address(),
        ];
        let kernel = Kernel::new(Module::Loss, "softmax_cross_entropy", dtype.name());
        self.launch_reporting(kernel, Grid::Blocks(s.count, THREADS), args)?;
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn softmax_cross_entropy_grad(
        &self,
        dtype: DType,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [logits, labels, dloss] = operands(ins)?;
        let shape = logits.layout.shape();
        let classes = shape.last() as i64;
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let (logits_at, _logits) = self.dense_address(&logits)?;
        let s = Strided::new(labels.layout.shape(), [*labels.layout, *dloss.layout])?;
        let to = output.layout();
        // Kernels write dense rows. If the result has gaps, the rows are copied to it afterwards.
        let aside = match to.is_contiguous() {
            true => None,
            false => Some(self.pool().take(Meta::new(shape, dtype).bytes())?),
        };
        let out = match &aside {
            Some(block) => block.address(),
            None => output.address() + (to.offset() * dtype.size()) as u64,
        };
        let args = args![
            classes,
            classes,
            classes,
            is_wide(labels.dtype),
            s,
            logits_at,
            labels.buffer.address()?,
            dloss.buffer.address()?,
            out,
        ];
        let kernel = Kernel::new(Module::Loss, "softmax_cross_entropy_grad", dtype.name());
        self.launch_reporting(kernel, Grid::Blocks(s.count, THREADS), args)?;
        if let Some(block) = aside {
            let aside = CudaBuffer::new(block, dtype, shape.count());
            let dense = Layout::contiguous(shape);
            self.copy_view(&aside.view(&dense), output.address(), to)?;
        }
        Ok(smallvec![output.finish()])
    }
}
