//! Operations that move rows without computing: gather, reverse, scatter.

use backend_api::{Buffers, Dests, Layout, Meta, Result, Update};
use cudarc::driver::sys::CUdeviceptr;
use smallvec::smallvec;

use crate::arguments::{Grid, Kernel, args};
use crate::buffer::{CudaBuffer, Input, Output, dests, operands};
use crate::device::Cuda;
use crate::elementwise::is_wide;
use crate::kernels::Module;
use crate::launch::{unsupported, words};
use crate::pool::Block;
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
        let (ids_at, _ids) = self.dense_address(&ids)?;
        // The ids do not vary along a row of the table, nor the row's elements along the ids.
        let (rows, stride) = (table.layout.shape()[0], table.layout.strides()[0]);
        let s = Strided::walk(
            shape,
            [
                Axes::new(Layout::contiguous(ids.layout.shape())),
                Axes::new(*table.layout).without(0).shifted(rank),
                Axes::new(output.layout()),
            ],
        );
        let args = args![
            rows as i64,
            stride as i64,
            is_wide(ids.dtype),
            s,
            ids_at,
            table.buffer.address()?,
            output.address(),
        ];
        self.launch_reporting(
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
        let (lengths_at, _lengths) = self.dense_address(&lengths)?;
        let steps = shape[time] as i64;
        let inner: usize = shape.dims()[time + 1..].iter().product();
        let s = Strided::walk(
            shape,
            [
                Axes::new(Layout::contiguous(lengths.layout.shape())).shifted(batch),
                Axes::new(*x.layout).standing(time),
                Axes::new(output.layout()),
            ],
        );
        let args = args![
            steps,
            inner as i64,
            x.layout.strides()[time] as i64,
            is_wide(lengths.dtype),
            s,
            lengths_at,
            x.buffer.address()?,
            output.address(),
        ];
        self.launch_reporting(
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
        if !values.dtype.is_float() {
            return Err(unsupported("scatter_add", values.dtype));
        }
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let layout = output.layout();
        let links = self.links(SCATTER_ADD, layout.shape()[0], &ids)?;
        self.fill_with_zeros(&output)?;
        let s = Strided::new(layout.shape(), [layout])?;
        let width: usize = layout.shape().dims()[1..].iter().product();
        let (values_at, _values) = self.dense_address(&values)?;
        let args = args![
            width as i64,
            links.count,
            is_wide(ids.dtype),
            links.ids,
            links.next.address(),
            links.first.address(),
            values_at,
            s,
            output.address(),
        ];
        let all = Grid::Elements(links.count * width as i64);
        self.launch(kernel("scatter_add", values.dtype.name()), all, args)?;
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn scatter_update(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [table, ids, values] = operands(ins)?;
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        self.copy_view(&table, output.address(), output.layout())?;
        self.replace_rows(output.address(), output.layout(), &ids, &values)?;
        Ok(smallvec![output.finish()])
    }

    /// Replaces rows of a table in place.
    pub(crate) fn update_rows(&self, update: &mut Update<'_, CudaBuffer>) -> Result<()> {
        let [ids, values] = operands(&update.others)?;
        let (table, Meta { shape, .. }) = &mut update.state[0];
        table.unshare(self)?;
        self.replace_rows(table.address()?, Layout::contiguous(*shape), &ids, &values)
    }

    /// Replaces rows of the table at an address.
    fn replace_rows(
        &self,
        table: CUdeviceptr,
        layout: Layout,
        ids: &Input<'_>,
        values: &Input<'_>,
    ) -> Result<()> {
        let links = self.links(SCATTER_UPDATE, layout.shape()[0], ids)?;
        let s = Strided::new(layout.shape(), [layout])?;
        let width: usize = layout.shape().dims()[1..].iter().product();
        let (values_at, _values) = self.dense_address(values)?;
        let args = args![
            width as i64,
            links.count,
            is_wide(ids.dtype),
            links.ids,
            links.next.address(),
            values_at,
            s,
            table,
        ];
        let all = Grid::Elements(links.count * width as i64);
        self.launch(kernel("scatter_update", words(values.dtype)), all, args)
    }

    /// Links equal ids. `kind` is the fault to report for an id that is out of range.
    fn links(&self, kind: u32, rows: usize, ids: &Input<'_>) -> Result<Links> {
        let count = ids.layout.shape().count();
        let (address, buffer) = self.dense_address(ids)?;
        let links = Links {
            count: count as i64,
            ids: address,
            _ids: buffer,
            next: self.pool().take(count * size_of::<i64>())?,
            first: self.pool().take(count)?,
        };
        if count == 0 {
            return Ok(links);
        }
        let seen_bytes = rows * size_of::<i64>();
        let seen = self.pool().take(seen_bytes)?;
        self.set_bytes(seen.address(), 0xFF, seen_bytes)?;
        let args = args![
            kind,
            rows as i64,
            links.count,
            is_wide(ids.dtype),
            links.ids,
            links.next.address(),
            links.first.address(),
            seen.address(),
        ];
        let one = Grid::Blocks(1, LINK_THREADS);
        self.launch_reporting(kernel("scatter_links", "ids"), one, args)?;
        Ok(links)
    }
}

/// `THREADS` in `rows.cu`.
const LINK_THREADS: u32 = 256;

/// Kinds of `Fault`; see `rows.cu`.
const SCATTER_ADD: u32 = 2;
const SCATTER_UPDATE: u32 = 5;

/// The ids in row-major order; for each, the index of the next equal id and whether it is the
/// first.
struct Links {
    count: i64,
    ids: CUdeviceptr,
    _ids: CudaBuffer,
    next: Block,
    first: Block,
}
