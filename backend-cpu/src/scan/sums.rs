//! Sums over the rows of all steps: matmuls and sums of columns, after the steps.
//!
//! Only rows before their length take part. If some end early, the others are gathered first.
//!
//! This module contains unsafe code: the outputs of the steps are known by pointer.
#![allow(unsafe_code)]

use std::slice;

use backend_api::Result;
use backend_api::trace::{RowSource, RowSum};

use super::job::Job;
use crate::amx;
use crate::device::Cpu;
use crate::element::Float;
use crate::gemm::GemmOperand;
use crate::matmul::AMX_COLUMNS;
use crate::storage::{Dense, Output};

/// Rows of all steps, one after the other.
struct Rows<'a, T> {
    data: Dense<'a, T>,
    width: usize,
}

impl<T: Float> Job<'_, T> {
    /// Computes the sums. All steps have run.
    pub(super) fn sum_rows(
        &self,
        cpu: &Cpu,
        sums: &[RowSum],
        results: &mut [Output],
    ) -> Result<()> {
        let batch = self.program.batch;
        let lengths = (0..batch).map(|row| self.length(row));
        let count = lengths.sum();
        for (sum, result) in sums.iter().zip(results) {
            let rows = sum.iter().map(|source| self.rows(cpu, *source, count));
            match &*rows.collect::<Result<Vec<_>>>()? {
                [a, b] => outer(cpu, result.elements(), a, b, count)?,
                [rows] => sum_of(cpu, result.elements(), rows, count),
                _ => {}
            }
        }
        Ok(())
    }

    /// The running rows of all steps, in order.
    fn rows(&self, cpu: &Cpu, source: RowSource, count: usize) -> Result<Rows<'_, T>> {
        let (steps, batch) = (self.steps, self.program.batch);
        let ragged = self.lengths.is_some();
        match source {
            RowSource::Input(i) => {
                let (input, width) = (&self.inputs[i], self.program.inputs[i]);
                let in_order = input.rows == width && (steps == 1 || input.steps == batch * width);
                let data = if count == 0 || (in_order && !ragged) {
                    Dense::Borrowed(&input.data[input.at..][..count * width])
                } else {
                    self.gather(cpu, count, width, |t, row| &input.data[input.row(t, row)..])?
                };
                Ok(Rows { data, width })
            }
            RowSource::Output(i) => {
                let width = self.program.outputs[i];
                // SAFETY: the output has these elements. All steps have run, so that no thread
                // writes to them.
                let all =
                    unsafe { slice::from_raw_parts(self.outputs[i].0, steps * batch * width) };
                let data = match ragged {
                    false => Dense::Borrowed(all),
                    true => self.gather(cpu, count, width, |t, row| {
                        &all[(t * batch + row) * width..]
                    })?,
                };
                Ok(Rows { data, width })
            }
        }
    }

    /// Copies the running rows, in order, to contiguous memory.
    fn gather<'d>(
        &self,
        cpu: &Cpu,
        count: usize,
        width: usize,
        from: impl Fn(usize, usize) -> &'d [T],
    ) -> Result<Dense<'d, T>> {
        let mut all = cpu.pool().scratch::<T>(count * width)?;
        if width > 0 {
            let mut to = all.chunks_exact_mut(width);
            for t in 0..self.steps {
                for row in (0..self.program.batch).filter(|&row| t < self.length(row)) {
                    if let Some(to) = to.next() {
                        to.copy_from_slice(&from(t, row)[..width]);
                    }
                }
            }
        }
        Ok(Dense::Copied(all))
    }
}

/// `out = aᵀ b`
fn outer<T: Float>(
    cpu: &Cpu,
    out: &mut [T],
    a: &Rows<'_, T>,
    b: &Rows<'_, T>,
    count: usize,
) -> Result<()> {
    if out.is_empty() || count == 0 {
        out.fill(T::ZERO);
        return Ok(());
    }
    let left = GemmOperand {
        data: &a.data,
        rows: a.width,
        columns: count,
        row_stride: 1,
        column_stride: a.width,
    };
    let right = GemmOperand {
        data: &b.data,
        rows: count,
        columns: b.width,
        row_stride: b.width,
        column_stride: 1,
    };
    if cpu.has_amx()
        && count >= amx::MIN_ROWS
        && b.width >= AMX_COLUMNS
        && cpu.amx_product(out, left, right, false)?
    {
        return Ok(());
    }
    cpu.product(out, left, right, T::ONE, false);
    Ok(())
}

/// Sums columns.
fn sum_of<T: Float>(cpu: &Cpu, out: &mut [T], rows: &Rows<'_, T>, count: usize) {
    let width = rows.width;
    cpu.split(out.len(), [(out, 1)], count, &|columns, [out]| {
        out.fill(T::ZERO);
        for row in rows.data.chunks_exact(width.max(1)) {
            for (sum, x) in out.iter_mut().zip(&row[columns.clone()]) {
                *sum = sum.add(*x);
            }
        }
    });
}
