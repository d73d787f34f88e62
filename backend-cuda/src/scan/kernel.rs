//! How a kernel computes the instructions of a phase: a block computes a row, or some columns of
//! it, and each thread some elements of each instruction.
//!
//! An instruction that reads what the same thread has computed finds it in a register. Otherwise
//! the value is in memory, which is shared memory for values of the phase alone, and the threads
//! wait for each other: the instruction belongs to a later stage. In a stage, instructions with
//! equally many elements share a loop.

use backend_api::trace::program::Instruction;

use super::split::{Addresses, split};

/// Threads of a warp.
pub(super) const WARP: usize = 32;
/// The largest number of threads of a block.
const MOST_THREADS: usize = 256;
/// The largest number of blocks of a row.
const MOST_SPLIT: usize = 8;
/// The largest number of bytes of shared memory of a kernel.
const MOST_SHARED: usize = 40 << 10;

/// The instructions of a phase, and which thread computes what.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) operations: Vec<Operation>,
    pub(super) stages: usize,
    /// Registers of the program that are in shared memory: their numbers and widths.
    pub(super) shared: Vec<(usize, usize)>,
    /// Whether threads read what others wrote.
    pub(super) waits: bool,
    /// Threads of a block.
    pub(super) threads: usize,
    /// Blocks of a row.
    pub(super) split: usize,
}

/// An instruction.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) instruction: Instruction,
    pub(super) kind: Kind,
    pub(super) stage: usize,
    /// Where each operand is found.
    pub(super) reads: Vec<Read>,
    /// Whether the result is written to memory.
    pub(super) stored: bool,
    /// Whether another loop reads the result from a register.
    pub(super) kept: bool,
}

/// Which threads compute an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each thread computes the only element.
    Single,
    /// Each thread computes some of these elements.
    Each(usize),
    /// All threads together reduce these elements to one, which each of them gets.
    Together(usize),
}

/// Where an operand is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Memory,
    /// The result of an operation, in a register of the thread.
    Value(usize),
}

impl Kind {
    fn of(instruction: &Instruction) -> Self {
        let Instruction { blocks, width, .. } = *instruction;
        match (instruction.code.reduces(), blocks) {
            (true, 1) if width > 1 => Self::Together(width),
            (true, 1) => Self::Single,
            (true, blocks) => Self::Each(blocks),
            (false, _) if blocks * width == 1 => Self::Single,
            (false, _) => Self::Each(blocks * width),
        }
    }

    /// The elements of the loop.
    pub(super) fn elements(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Each(n) | Self::Together(n) => n,
        }
    }
}

/// What is known of an operation while the later ones are analysed.
struct Known {
    result: Addresses,
    /// The addresses of the operands that are read from memory.
    reads: Vec<Addresses>,
}

impl Kernel {
    /// # Errors
    /// The values that threads exchange do not fit the shared memory.
    pub(super) fn new(code: &[Instruction], element: usize) -> Result<Self, String> {
        let mut operations: Vec<Operation> = Vec::with_capacity(code.len());
        let mut known: Vec<Known> = Vec::with_capacity(code.len());
        let mut waits = false;
        for instruction in split(code) {
            let operation = Operation::new(instruction);
            waits |= place(operation, &mut operations, &mut known);
        }
        let mut shared: Vec<(usize, usize)> = Vec::new();
        for operation in &operations {
            let out = &operation.instruction.out;
            if let (true, Some(id)) = (operation.stored, out.register())
                && !shared.contains(&(id, out.row))
            {
                shared.push((id, out.row));
            }
        }
        let bytes = shared
            .iter()
            .map(|(_, width)| width * element)
            .sum::<usize>();
        if bytes > MOST_SHARED {
            return Err(format!("the threads of a row exchange {bytes} bytes"));
        }
        let widest = operations.iter().map(|o| o.kind.elements()).max();
        let widest = widest.unwrap_or(1).next_multiple_of(WARP);
        let threads = widest.min(MOST_THREADS);
        let stages = operations.iter().map(|o| o.stage + 1).max().unwrap_or(0);
        let together = |o: &Operation| matches!(o.kind, Kind::Together(_));
        let alone = stages < 2 && !operations.iter().any(together);
        Ok(Self {
            operations,
            stages,
            shared,
            waits,
            threads,
            split: if alone {
                widest.div_ceil(threads).min(MOST_SPLIT)
            } else {
                1
            },
        })
    }
}

impl Operation {
    fn new(instruction: Instruction) -> Self {
        Self {
            instruction,
            kind: Kind::of(&instruction),
            stage: 0,
            reads: Vec::new(),
            stored: instruction.out.register().is_none(),
            kept: false,
        }
    }
}

/// Finds the operands and the stage of an operation, and appends it. Returns whether it reads or
/// overwrites what other threads have written or read.
fn place(
    mut operation: Operation,
    operations: &mut Vec<Operation>,
    known: &mut Vec<Known>,
) -> bool {
    let Instruction { blocks, width, .. } = operation.instruction;
    let (mut stage, mut waits) = (0, false);
    let mut reads = Vec::new();
    for operand in operation.instruction.operands() {
        let from = Addresses::new(operand, blocks, width);
        let (found, writers) = source(&operation, &from, operations, known);
        for &writer in &writers {
            operations[writer].stored = true;
            stage = stage.max(operations[writer].stage + 1);
            waits = true;
        }
        match found {
            Read::Value(value) => {
                let value = &operations[value];
                let after = matches!(value.kind, Kind::Together(_));
                stage = stage.max(value.stage + usize::from(after));
            }
            Read::Memory => reads.push(from),
        }
        operation.reads.push(found);
    }
    // What the operation overwrites has been read and written before.
    let result = Addresses::of_result(&operation.instruction);
    for (before, known) in operations.iter().zip(known.iter()) {
        let same = |addresses: &Addresses| *addresses == result && before.kind == operation.kind;
        let used = [&known.result].into_iter().chain(&known.reads);
        for addresses in used.filter(|used| used.overlaps(&result)) {
            let after = !same(addresses);
            stage = stage.max(before.stage + usize::from(after));
            waits |= after;
        }
    }
    operation.stage = stage;
    for read in &operation.reads {
        if let Read::Value(value) = *read {
            let value = &mut operations[value];
            value.kept |=
                value.stage != stage || value.kind.elements() != operation.kind.elements();
        }
    }
    known.push(Known { result, reads });
    operations.push(operation);
    waits
}

/// Where an operand is found, and the operations that write it if it is read from memory.
fn source(
    operation: &Operation,
    from: &Addresses,
    operations: &[Operation],
    known: &[Known],
) -> (Read, Vec<usize>) {
    let Instruction { blocks, width, .. } = operation.instruction;
    // The loop runs over blocks, and for each of them over its columns.
    let nested = operation.instruction.code.reduces() && blocks > 1 && width > 1;
    let mut writers = Vec::new();
    for (i, (before, known)) in operations.iter().zip(known).enumerate().rev() {
        if !known.result.overlaps(from) {
            continue;
        }
        let elements = match before.kind {
            Kind::Each(n) => n,
            Kind::Single | Kind::Together(_) => 1,
        };
        let single = elements == 1 && from.is_single() && known.result.first == from.first;
        let same = elements == operation.kind.elements() && known.result == *from && !nested;
        if writers.is_empty() && (single || same) {
            return (Read::Value(i), writers);
        }
        writers.push(i);
    }
    (Read::Memory, writers)
}
