//! The buffers of a program in a description.

use backend_api::trace::program::{Memory, RowProgram};

/// Where a description has the addresses of a program's buffers. A state has two, which alternate.
#[derive(Debug)]
pub(super) struct Slots {
    /// The first of the inputs, captured tensors, outputs, chunks, scratch buffers and states.
    pub(super) first: [usize; 6],
    pub(super) count: usize,
}

impl Slots {
    pub(super) fn new(program: &RowProgram) -> Self {
        let (mut first, mut count) = ([0; 6], 0);
        let counts = [
            program.inputs.len(),
            program.captured.len(),
            program.outputs.len(),
            program.chunks.len(),
            program.scratch.len(),
            2 * program.states.len(),
        ];
        for (first, n) in first.iter_mut().zip(counts) {
            *first = count;
            count += n;
        }
        Self { first, count }
    }

    /// The slot of a buffer; of a state, the first of two.
    pub(super) fn of(&self, memory: Memory) -> Option<usize> {
        let [inputs, captured, outputs, chunks, scratch, states] = self.first;
        Some(match memory {
            Memory::Register(_) | Memory::Constants => return None,
            Memory::Input(i) => inputs + i,
            Memory::Captured(i) => captured + i,
            Memory::Output(i) => outputs + i,
            Memory::Chunk(i) => chunks + i,
            Memory::Scratch(i) => scratch + i,
            Memory::State(i) | Memory::Next(i) => states + 2 * i,
        })
    }
}
