//! Operations that move elements without computing: by element size, for all types.

use std::ops::Range;

use backend_api::{Buffers, DType, Dests, Error, Layout, Meta, Result, Update};
use bytemuck::Pod;

use crate::device::Cpu;
use crate::element::{Float, Number};
use crate::elementwise::unsupported;
use crate::pool::Scratch;
use crate::storage::{CpuBuffer, Dense, Input, Output, dests, operands};
use crate::strided::Stream;

impl Cpu {
    /// Converts integers to indices in `0..limit`. With `or_more`, larger integers become `limit`.
    pub(crate) fn indices(
        &self,
        op: &'static str,
        arg: &'static str,
        ids: &Input<'_>,
        limit: usize,
        or_more: bool,
    ) -> Result<Scratch<usize>> {
        match ids.dtype {
            DType::I32 => self.indices_of::<i32>(op, arg, ids, limit, or_more),
            DType::I64 => self.indices_of::<i64>(op, arg, ids, limit, or_more),
            other => Err(unsupported(op, other)),
        }
    }

    fn indices_of<I: Number>(
        &self,
        op: &'static str,
        arg: &'static str,
        ids: &Input<'_>,
        limit: usize,
        or_more: bool,
    ) -> Result<Scratch<usize>> {
        let ids = self.dense::<I>(ids)?;
        let mut indices = self.pool().scratch::<usize>(ids.len())?;
        for (place, (index, id)) in indices.iter_mut().zip(ids.iter()).enumerate() {
            let id = id.to_i64();
            *index = match usize::try_from(id) {
                Ok(id) if id < limit => id,
                Ok(_) if or_more => limit,
                _ => return Err(out_of_range(op, arg, place, id, limit, or_more)),
            };
        }
        Ok(indices)
    }

    pub(crate) fn concat(
        &self,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match ins.first().map_or(1, |x| x.dtype.size()) {
            1 => self.concat_words::<u8>(axis, ins, outs),
            2 => self.concat_words::<u16>(axis, ins, outs),
            4 => self.concat_words::<u32>(axis, ins, outs),
            _ => self.concat_words::<u64>(axis, ins, outs),
        }
    }

    fn concat_words<W: Pod + Send + Sync>(
        &self,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<W>();
        let width = |x: &Input<'_>| x.layout.shape().dims()[axis..].iter().product::<usize>();
        let total: usize = ins.iter().map(width).sum();
        if let Some(rows) = out.len().checked_div(total) {
            self.split(rows, [(out, total)], total, &|range, [out]| {
                let mut at = 0;
                for x in ins {
                    let width = width(x);
                    if width == 0 {
                        continue;
                    }
                    let x = Stream::new(x.buffer.elements::<W>(), x.layout);
                    for (row, out) in range.clone().zip(out.chunks_exact_mut(total)) {
                        x.read(row * width, &mut out[at..at + width]);
                    }
                    at += width;
                }
            });
        }
        Ok([output.finish()].into_iter().collect())
    }

    pub(crate) fn reverse(
        &self,
        time: usize,
        batch: usize,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match ins.first().map_or(1, |x| x.dtype.size()) {
            1 => self.reverse_words::<u8>(time, batch, ins, outs),
            2 => self.reverse_words::<u16>(time, batch, ins, outs),
            4 => self.reverse_words::<u32>(time, batch, ins, outs),
            _ => self.reverse_words::<u64>(time, batch, ins, outs),
        }
    }

    fn reverse_words<W: Pod + Send + Sync>(
        &self,
        time: usize,
        batch: usize,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x, lengths] = operands(ins)?;
        let shape = x.layout.shape();
        let (steps, rows) = (shape[time], shape[batch]);
        let lengths = self.indices("reverse", "lengths", &lengths, steps + 1, false)?;
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<W>();
        if !out.is_empty() {
            // Loops run over the axes before, between and including the two; the axes after both
            // are contiguous in the result and copied as one run.
            let (first, second) = (time.min(batch), time.max(batch));
            let data = x.buffer.elements::<W>();
            let run: usize = shape.dims()[second + 1..].iter().product();
            let axes = Layout::contiguous(shape);
            let strides = axes.strides();
            let source = Stream::new(data, x.layout);
            let outer: usize = shape.dims()[..first].iter().product();
            let between: usize = shape.dims()[first + 1..second].iter().product();
            // Positions in row-major order; `first` is the outer one of the two axes.
            let block = shape[first] * strides[first];
            self.split(
                outer * shape[first],
                [(out, strides[first])],
                strides[first],
                &|range, [out]| {
                    for (row, out) in range.zip(out.chunks_exact_mut(strides[first])) {
                        let (o, i) = (row / shape[first], row % shape[first]);
                        for (place, out) in out.chunks_exact_mut(run).enumerate() {
                            let (m, j) = (place / shape[second], place % shape[second]);
                            debug_assert!(m < between);
                            let (t, b) = if time == first { (i, j) } else { (j, i) };
                            let t = if t < lengths[b] {
                                lengths[b] - 1 - t
                            } else {
                                t
                            };
                            let (i, j) = if time == first { (t, b) } else { (b, t) };
                            let at = o * block + i * strides[first] + (m * shape[second] + j) * run;
                            source.read(at, out);
                        }
                    }
                },
            );
        }
        debug_assert_eq!(lengths.len(), rows);
        Ok([output.finish()].into_iter().collect())
    }

    pub(crate) fn gather(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match ins.first().map_or(1, |x| x.dtype.size()) {
            1 => self.gather_words::<u8>(ins, outs),
            2 => self.gather_words::<u16>(ins, outs),
            4 => self.gather_words::<u32>(ins, outs),
            _ => self.gather_words::<u64>(ins, outs),
        }
    }

    fn gather_words<W: Pod + Send + Sync>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [table, ids] = operands(ins)?;
        let shape = table.layout.shape();
        let ids = self.indices("gather", "ids", &ids, shape[0], false)?;
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<W>();
        let width: usize = shape.dims()[1..].iter().product();
        if !out.is_empty() {
            let table = Stream::new(table.buffer.elements::<W>(), table.layout);
            self.split(ids.len(), [(out, width)], width, &|range, [out]| {
                for (&id, out) in ids[range].iter().zip(out.chunks_exact_mut(width)) {
                    table.read(id * width, out);
                }
            });
        }
        Ok([output.finish()].into_iter().collect())
    }

    pub(crate) fn scatter_add<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [ids, values] = operands(ins)?;
        let [dest] = dests(outs)?;
        let width: usize = values.layout.shape().dims()[ids.layout.shape().rank()..]
            .iter()
            .product();
        let mut output = Output::new(self.pool(), dest)?;
        let rows = output.rows();
        let ids = self.indices("scatter_add", "ids", &ids, rows, false)?;
        let values = self.dense::<T>(&values)?;
        let out = output.elements::<T>();
        if !out.is_empty() {
            // Each thread owns rows of the result and scans all ids for them, so that equal ids are
            // added in order.
            let work = width + ids.len().saturating_mul(width) / rows;
            self.split(rows, [(out, width)], work, &|range, [out]| {
                out.fill(T::ZERO);
                for (id, value) in ids.iter().zip(values.chunks_exact(width)) {
                    if !range.contains(id) {
                        continue;
                    }
                    let row = &mut out[(id - range.start) * width..][..width];
                    for (to, from) in row.iter_mut().zip(value) {
                        *to = to.add(*from);
                    }
                }
            });
        }
        Ok([output.finish()].into_iter().collect())
    }

    pub(crate) fn scatter_update(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match ins.first().map_or(1, |x| x.dtype.size()) {
            1 => self.scatter_update_words::<u8>(ins, outs),
            2 => self.scatter_update_words::<u16>(ins, outs),
            4 => self.scatter_update_words::<u32>(ins, outs),
            _ => self.scatter_update_words::<u64>(ins, outs),
        }
    }

    fn scatter_update_words<W: Pod + Send + Sync>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [table, ids, rows] = operands(ins)?;
        let shape = table.layout.shape();
        let ids = self.indices("scatter_update", "ids", &ids, shape[0], false)?;
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<W>();
        let width: usize = shape.dims()[1..].iter().product();
        if !out.is_empty() {
            let table = Stream::new(table.buffer.elements::<W>(), table.layout);
            let rows = Stream::new(rows.buffer.elements::<W>(), rows.layout);
            // Each thread owns rows of the result, so that the last one of equal ids wins.
            self.split(shape[0], [(out, width)], width, &|range, [out]| {
                table.read(range.start * width, out);
                replace_rows(out, range, width, &ids, &rows);
            });
        }
        Ok([output.finish()].into_iter().collect())
    }

    /// Replaces rows of a table in place.
    pub(crate) fn update_rows(&self, update: &mut Update<'_, CpuBuffer>) -> Result<()> {
        match update.state[0].1.dtype.size() {
            1 => self.update_rows_words::<u8>(update),
            2 => self.update_rows_words::<u16>(update),
            4 => self.update_rows_words::<u32>(update),
            _ => self.update_rows_words::<u64>(update),
        }
    }

    fn update_rows_words<W: Pod + Send + Sync>(
        &self,
        update: &mut Update<'_, CpuBuffer>,
    ) -> Result<()> {
        let [ids, rows] = operands(&update.others)?;
        let (table, Meta { shape, .. }) = &mut update.state[0];
        let ids = self.indices("scatter_update", "ids", &ids, shape[0], false)?;
        let width: usize = shape.dims()[1..].iter().product();
        if width == 0 || ids.is_empty() {
            return Ok(());
        }
        table.unshare(self.pool())?;
        let rows = Stream::new(rows.buffer.elements::<W>(), rows.layout);
        let work = (ids.len() * width).div_ceil(shape[0]);
        let out = table.elements_mut::<W>();
        self.split(shape[0], [(out, width)], work, &|range, [out]| {
            replace_rows(out, range, width, &ids, &rows);
        });
        Ok(())
    }

    pub(crate) fn masked_update(
        &self,
        time: usize,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match ins.get(1).map_or(1, |x| x.dtype.size()) {
            1 => self.masked_update_words::<u8>(time, ins, outs),
            2 => self.masked_update_words::<u16>(time, ins, outs),
            4 => self.masked_update_words::<u32>(time, ins, outs),
            _ => self.masked_update_words::<u64>(time, ins, outs),
        }
    }

    fn masked_update_words<W: Pod + Send + Sync>(
        &self,
        time: usize,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [lengths, new, old] = operands(ins)?;
        let lengths = lengths_as_i64(self, &lengths)?;
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<W>();
        if !out.is_empty() {
            let width = out.len() / lengths.len();
            let new = Stream::new(new.buffer.elements::<W>(), new.layout);
            let old = Stream::new(old.buffer.elements::<W>(), old.layout);
            self.split(lengths.len(), [(out, width)], width, &|range, [out]| {
                for (row, out) in range.zip(out.chunks_exact_mut(width)) {
                    let runs = i64::try_from(time).is_ok_and(|time| time < lengths[row]);
                    let from = if runs { &new } else { &old };
                    from.read(row * width, out);
                }
            });
        }
        Ok([output.finish()].into_iter().collect())
    }
}

/// Lengths of any sign; a negative one is the same as 0.
/// Replaces those of the rows `range`, in `out`, whose indices are in `ids`.
fn replace_rows<W: Pod>(
    out: &mut [W],
    range: Range<usize>,
    width: usize,
    ids: &[usize],
    rows: &Stream<'_, W>,
) {
    for (place, id) in ids.iter().enumerate() {
        if range.contains(id) {
            let at = (id - range.start) * width;
            rows.read(place * width, &mut out[at..at + width]);
        }
    }
}

fn lengths_as_i64(cpu: &Cpu, lengths: &Input<'_>) -> Result<Scratch<i64>> {
    fn widen<I: Number>(cpu: &Cpu, lengths: &Input<'_>) -> Result<Scratch<i64>> {
        let lengths: Dense<'_, I> = cpu.dense(lengths)?;
        let mut wide = cpu.pool().scratch(lengths.len())?;
        for (wide, length) in wide.iter_mut().zip(lengths.iter()) {
            *wide = length.to_i64();
        }
        Ok(wide)
    }
    match lengths.dtype {
        DType::I32 => widen::<i32>(cpu, lengths),
        DType::I64 => widen::<i64>(cpu, lengths),
        other => Err(unsupported("masked_update", other)),
    }
}

fn out_of_range(
    op: &'static str,
    arg: &'static str,
    place: usize,
    id: i64,
    limit: usize,
    or_more: bool,
) -> Error {
    if or_more {
        let problem = format!("has {id} at index {place}, but must not be negative");
        return Error::argument(op, arg, problem);
    }
    Error::out_of_range(op, arg, place, id, limit as i64)
}
