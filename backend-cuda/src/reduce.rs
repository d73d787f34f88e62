//! Sums, maxima and where they are.

use backend_api::{Buffers, DType, Dests, Reduce, Result};
use smallvec::smallvec;

use crate::buffer::{CudaBuffer, Input, Output, dests, operands};
use crate::codes;
use crate::device::Cuda;
use crate::elementwise::number;
use crate::kernels::Module;
use crate::launch::{Grid, Kernel, args};
use crate::strided::{Axes, Strided};

/// `THREADS` in `reduce.cu`.
const THREADS: usize = 256;
/// `SECTION` in `reduce.cu`.
const SECTION: usize = 16_384;
/// Results from which on there are enough of them to keep the device busy with one thread each.
const MANY: usize = 16_384;

fn kernel(name: &'static str, dtype: DType) -> Kernel {
    Kernel::new(Module::Reduce, name, dtype.name())
}

impl Cuda {
    pub(crate) fn reduce(
        &self,
        kind: Reduce,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let dtype = number("reduce", ins)?;
        let [x] = operands(ins)?;
        let n = x.layout.shape()[axis];
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let s = Strided::walk(
            output.layout().shape(),
            [
                Axes::new(x.layout).without(axis),
                Axes::new(output.layout()),
            ],
        );
        let args = args![
            codes::reduce(kind),
            n as i64,
            x.layout.strides()[axis] as i64,
            s,
            x.buffer.address()?,
            output.address(),
        ];
        if n >= THREADS && (s.count as usize) < MANY {
            let grid = Grid::Blocks(s.count, THREADS as u32);
            self.launch(kernel("reduce_block", dtype), grid, args)?;
        } else {
            self.launch(kernel("reduce", dtype), Grid::Elements(s.count), args)?;
        }
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn argmax(
        &self,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let dtype = number("argmax", ins)?;
        let [x] = operands(ins)?;
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let s = Strided::walk(
            output.layout().shape(),
            [
                Axes::new(x.layout).without(axis),
                Axes::new(output.layout()),
            ],
        );
        let args = args![
            x.layout.shape()[axis] as i64,
            x.layout.strides()[axis] as i64,
            s,
            x.buffer.address()?,
            output.address(),
        ];
        self.launch(kernel("argmax", dtype), Grid::Elements(s.count), args)?;
        Ok(smallvec![output.finish()])
    }

    /// Each operand in sections of a fixed size, whose sums are then added in a fixed order.
    pub(crate) fn squared_norm(
        &self,
        dtype: DType,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let sections = |x: &Input<'_>| x.layout.shape().count().div_ceil(SECTION);
        let total: usize = ins.iter().map(sections).sum();
        let partial = self.pool().take(total * size_of::<f64>())?;
        let mut at = partial.address();
        for x in ins {
            let s = Strided::new(x.layout.shape(), [x.layout]);
            let args = args![s, x.buffer.address()?, at];
            let blocks = sections(x);
            self.launch_exactly(
                kernel("squares", dtype),
                blocks as u32,
                THREADS as u32,
                args,
            )?;
            at += (blocks * size_of::<f64>()) as u64;
        }
        let s = Strided::new(output.layout().shape(), [output.layout()]);
        let args = args![total as i64, partial.address(), s, output.address()];
        self.launch(
            kernel("sum_partial", dtype),
            Grid::Blocks(1, THREADS as u32),
            args,
        )?;
        Ok(smallvec![output.finish()])
    }
}
