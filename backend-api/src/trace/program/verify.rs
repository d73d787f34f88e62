//! Checks a program: its places lie in their buffers, for all rows. The unsafe code of the
//! interpreter and of the driver relies on it.

use super::instruction::{Instruction, Place};
use super::{Buffer, Carried, Memory, Phase, Product, RowProgram, Start};

impl RowProgram {
    /// `None` if a place lies outside its buffer.
    pub(super) fn verify(&self) -> Option<()> {
        for buffer in self.phases.iter().flat_map(Phase::buffers) {
            let width = self.size(&buffer);
            let by_row = match buffer.memory {
                Memory::Constants => buffer.row == 0,
                Memory::Captured(_) => true,
                _ => buffer.row == width?,
            };
            by_row.then_some(())?;
        }
        (self.carried.len() == self.states.len()).then_some(())?;
        for (carried, &width) in self.carried.iter().zip(&self.states) {
            let found = match *carried {
                Carried::Next => continue,
                Carried::Output(output) => self.outputs.get(output)?,
                Carried::Chunk(chunk) => self.chunks.get(chunk)?,
            };
            (*found == width).then_some(())?;
        }
        (self.ahead <= self.behind && self.behind <= self.phases.len()).then_some(())?;
        let (ahead, rest) = self.phases.split_at(self.ahead);
        let behind = &rest[self.behind - self.ahead..];
        let chunked = ahead.iter().chain(behind);
        chunked
            .flat_map(Phase::buffers)
            .all(|buffer| Self::is_of_all_steps(&buffer))
            .then_some(())?;
        for phase in &self.phases {
            match phase {
                Phase::Product(product) => self.verify_product(product)?,
                Phase::Tile(code) => {
                    for instruction in code {
                        let Instruction {
                            blocks,
                            width,
                            out,
                            ins,
                            ..
                        } = instruction;
                        let reduces = instruction.code.reduces();
                        let columns = if reduces { 1 } else { *width };
                        self.verify_place(out, *blocks, columns)?;
                        self.is_written(&out.buffer).then_some(())?;
                        let (read, unused) = ins.split_at(instruction.code.operands());
                        for place in read {
                            self.verify_place(place, *blocks, *width)?;
                        }
                        unused.iter().all(|place| place == out).then_some(())?;
                    }
                }
            }
        }
        Some(())
    }

    /// Whether a buffer's rows are known for several steps at a time.
    fn is_of_all_steps(buffer: &Buffer) -> bool {
        !matches!(
            buffer.memory,
            Memory::State(_) | Memory::Next(_) | Memory::Scratch(_)
        )
    }

    /// Elements of a row of a buffer, or of all of it if it has no rows.
    fn size(&self, buffer: &Buffer) -> Option<usize> {
        let (all, i) = match buffer.memory {
            Memory::Register(_) => return Some(buffer.row),
            Memory::Constants => return Some(self.constants.len()),
            Memory::Input(i) => (&self.inputs, i),
            Memory::Captured(i) => (&self.captured, i),
            Memory::State(i) | Memory::Next(i) => (&self.states, i),
            Memory::Output(i) => (&self.outputs, i),
            Memory::Scratch(i) => (&self.scratch, i),
            Memory::Chunk(i) => (&self.chunks, i),
        };
        all.get(i).copied()
    }

    /// Whether instructions may write to a buffer.
    fn is_written(&self, buffer: &Buffer) -> bool {
        match buffer.memory {
            Memory::Next(i) => self.carried.get(i) == Some(&Carried::Next),
            Memory::Register(_) | Memory::Output(_) | Memory::Scratch(_) | Memory::Chunk(_) => true,
            _ => false,
        }
    }

    fn verify_place(&self, place: &Place, blocks: usize, columns: usize) -> Option<()> {
        let last = |count: usize, stride: usize| count.checked_sub(1)?.checked_mul(stride);
        let mut end = place
            .offset
            .checked_add(last(blocks, place.block)?)?
            .checked_add(last(columns, place.column)?)?;
        if let Memory::Captured(_) = place.buffer.memory {
            let rows = self.batch.saturating_sub(1).checked_mul(place.row)?;
            end = end.checked_add(rows)?;
        }
        (place.row == place.buffer.row && end < self.size(&place.buffer)?).then_some(())
    }

    fn verify_product(&self, product: &Product) -> Option<()> {
        let Product {
            a,
            k,
            matrix,
            start,
            out,
            n,
        } = product;
        let matrix = self.matrices.get(*matrix)?;
        let shape = matrix.layout.shape();
        (shape.dims() == [*k, *n]).then_some(())?;
        let size = *self.captured.get(matrix.captured)?;
        let ends = shape.dims().iter().zip(matrix.layout.strides());
        let mut last = matrix.layout.offset();
        for (len, stride) in ends {
            last = last.checked_add(len.saturating_sub(1).checked_mul(*stride)?)?;
        }
        (last < size || shape.count() == 0).then_some(())?;
        if let Start::Bias(captured, offset) = *start {
            (offset.checked_add(*n)? <= *self.captured.get(captured)?).then_some(())?;
        }
        let (from, to) = (&product.a.buffer, &product.out.buffer);
        let is_row = |buffer: &Buffer| {
            let memory = buffer.memory;
            !matches!(
                memory,
                Memory::Register(_) | Memory::Captured(_) | Memory::Constants
            )
        };
        (is_row(from) && is_row(to) && self.is_written(to) && from != to).then_some(())?;
        (a.offset.checked_add(*k)? <= self.size(from)?).then_some(())?;
        (out.offset.checked_add(*n)? <= self.size(to)?).then_some(())
    }
}
