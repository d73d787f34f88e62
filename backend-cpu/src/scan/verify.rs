//! Checks a program: its places lie in their buffers, for all rows. The unsafe code of the
//! interpreter and of the driver relies on it.

use super::instruction::{Code, Instruction, Place};
use super::program::{Buffer, Carried, Memory, Phase, Product, Program, Row, Start};

impl Program {
    /// `None` if a place lies outside its buffer.
    pub(super) fn verify(&self) -> Option<()> {
        for buffer in &self.buffers {
            let width = self.size(buffer.memory);
            let by_row = match buffer.memory {
                Memory::Constants => buffer.row == 0,
                Memory::Captured(_) => true,
                Memory::Register(_) => false,
                _ => buffer.row == width?,
            };
            by_row.then_some(())?;
        }
        (self.carried.len() == self.states.len()).then_some(())?;
        for (carried, &width) in self.carried.iter().zip(&self.states) {
            if let Carried::Output(output) = *carried {
                (*self.outputs.get(output)? == width).then_some(())?;
            }
        }
        (self.ahead <= self.behind && self.behind <= self.phases.len()).then_some(())?;
        let (ahead, rest) = self.phases.split_at(self.ahead);
        let behind = &rest[self.behind - self.ahead..];
        let chunked = ahead.iter().chain(behind);
        chunked
            .flat_map(Phase::buffers)
            .all(|buffer| self.is_of_all_steps(buffer))
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
                        let reduces = matches!(instruction.code, Code::Reduce(_) | Code::Dot);
                        let columns = if reduces { 1 } else { *width };
                        self.verify_place(out, *blocks, columns)?;
                        self.is_written(out.buffer).then_some(())?;
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
    fn is_of_all_steps(&self, buffer: usize) -> bool {
        let memory = buffer.checked_sub(1).map(|i| self.buffers.get(i));
        !matches!(
            memory.map(|buffer| buffer.map(|buffer| buffer.memory)),
            Some(None | Some(Memory::State(_) | Memory::Next(_) | Memory::Scratch(_)))
        )
    }

    /// Elements of a row of a memory, or of all of it if it has no rows.
    fn size(&self, memory: Memory) -> Option<usize> {
        let all = match memory {
            Memory::Register(_) => return None,
            Memory::Constants => return Some(self.constants.len()),
            Memory::Input(i) => return self.inputs.get(i).copied(),
            Memory::State(i) => return self.states.get(i).copied(),
            Memory::Captured(i) => return self.captured.get(i).copied(),
            Memory::Next(i) => (&self.states, i),
            Memory::Output(i) => (&self.outputs, i),
            Memory::Scratch(i) => (&self.scratch, i),
            Memory::Chunk(i) => (&self.chunks, i),
        };
        all.0.get(all.1).copied()
    }

    /// Whether instructions may write to a buffer.
    fn is_written(&self, buffer: usize) -> bool {
        let Some(index) = buffer.checked_sub(1) else {
            return true;
        };
        self.buffers
            .get(index)
            .is_some_and(|buffer| match buffer.memory {
                Memory::Next(i) => self.carried.get(i) == Some(&Carried::Next),
                Memory::Output(_) | Memory::Scratch(_) | Memory::Chunk(_) => true,
                _ => false,
            })
    }

    fn verify_place(&self, place: &Place, blocks: usize, columns: usize) -> Option<()> {
        let last = |count: usize, stride: usize| count.checked_sub(1)?.checked_mul(stride);
        let inner = place
            .offset
            .checked_add(last(blocks, place.block)?)?
            .checked_add(last(columns, place.column)?)?;
        let (end, limit) = match place.buffer.checked_sub(1) {
            None => {
                let rows = last(self.tile_rows, place.row)?;
                let limit = self.registers.checked_mul(self.tile_rows)?;
                (inner.checked_add(rows)?, limit)
            }
            Some(index) => {
                let buffer = self.buffers.get(index)?;
                (place.row == buffer.row).then_some(())?;
                self.row_end(buffer, inner)?
            }
        };
        (end < limit).then_some(())
    }

    /// The last element that a place reaches, and the number of elements: of a row, or for captured
    /// tensors of all.
    fn row_end(&self, buffer: &Buffer, inner: usize) -> Option<(usize, usize)> {
        let end = match buffer.memory {
            Memory::Captured(_) => {
                let rows = self.batch.saturating_sub(1).checked_mul(buffer.row)?;
                inner.checked_add(rows)?
            }
            _ => inner,
        };
        Some((end, self.size(buffer.memory)?))
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
        let buffer = |row: &Row| self.buffers.get(row.buffer.checked_sub(1)?);
        let (from, to) = (buffer(a)?, buffer(out)?);
        let has_rows = !matches!(from.memory, Memory::Captured(_) | Memory::Constants);
        (has_rows && self.is_written(out.buffer) && from != to).then_some(())?;
        (a.offset.checked_add(*k)? <= self.size(from.memory)?).then_some(())?;
        (out.offset.checked_add(*n)? <= self.size(to.memory)?).then_some(())
    }
}
