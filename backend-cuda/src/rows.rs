//! Operations that move rows without computing.

use backend_api::{Buffers, DType, Dests, Layout, Result};
use smallvec::smallvec;

use crate::buffer::{CudaBuffer, Input, Output, dests, operands};
use crate::device::Cuda;
use crate::elementwise::is_wide;
use crate::kernels::Module;
use crate::launch::{Grid, Kernel, args, unsupported, words};
use crate::strided::{Axes, Strided};

fn kernel(name: &'static str, suffix: &'static str) -> Kernel {
    Kernel::new(Module::Rows, name, suffix)
}

impl Cuda {
    pub(crate) fn concat(
        &self,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let mut at = 0;
        for x in ins {
            let end = at + x.layout.shape()[axis];
            let part = output.layout().slice(axis, at..end)?;
            self.copy_view(x, output.address(), part)?;
            at = end;
        }
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn gather(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [table, ids] = operands(ins)?;
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let shape = output.layout().shape();
        let rank = ids.layout.shape().rank();
        // The ids stand still along a row, a row along the ids.
        let (rows, stride) = (table.layout.shape()[0], table.layout.strides()[0]);
        let s = Strided::walk(
            shape,
            [
                Axes::new(ids.layout),
                Axes::new(table.layout).without(0).shifted(rank),
                Axes::new(output.layout()),
            ],
        );
        let args = args![
            rows as i64,
            stride as i64,
            is_wide(ids.dtype),
            s,
            ids.buffer.address()?,
            table.buffer.address()?,
            output.address(),
            self.faults().address(),
        ];
        self.launch(
            kernel("gather", words(table.dtype)),
            Grid::Elements(s.count),
            args,
        )?;
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn reverse(
        &self,
        time: usize,
        batch: usize,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [x, lengths] = operands(ins)?;
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let shape = x.layout.shape();
        let steps = shape[time] as i64;
        let inner: usize = shape.dims()[time + 1..].iter().product();
        let s = Strided::walk(
            shape,
            [
                Axes::new(lengths.layout).shifted(batch),
                Axes::new(x.layout).standing(time),
                Axes::new(output.layout()),
            ],
        );
        let args = args![
            steps,
            inner as i64,
            x.layout.strides()[time] as i64,
            is_wide(lengths.dtype),
            s,
            lengths.buffer.address()?,
            x.buffer.address()?,
            output.address(),
            self.faults().address(),
        ];
        self.launch(
            kernel("reverse", words(x.dtype)),
            Grid::Elements(s.count),
            args,
        )?;
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn scatter_add(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [ids, values] = operands(ins)?;
        let dtype = match values.dtype {
            dtype @ (DType::F32 | DType::F64) => dtype,
            other => return Err(unsupported("scatter_add", other)),
        };
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let layout: Layout = output.layout();
        let s = Strided::new(layout.shape(), [layout]);
        let width: usize = layout.shape().dims()[1..].iter().product();
        let (ids_at, _ids) = self.dense_address(&ids)?;
        let (values_at, _values) = self.dense_address(&values)?;
        let args = args![
            layout.shape()[0] as i64,
            width as i64,
            ids.layout.shape().count() as i64,
            is_wide(ids.dtype),
            ids_at,
            values_at,
            s,
            output.address(),
            self.faults().address(),
        ];
        self.launch(
            kernel("scatter_add", dtype.name()),
            Grid::Elements(s.count),
            args,
        )?;
        Ok(smallvec![output.finish()])
    }
}
