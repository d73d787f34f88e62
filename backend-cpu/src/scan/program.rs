//! The program of a step, with numbers for its buffers and places for its registers.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;

use backend_api::trace::StepGraph;
use backend_api::trace::program::{self, RowProgram, Target};
pub(super) use backend_api::trace::program::{Buffer, Carried, Code, Memory, Start};

use super::registers::Registers;

/// Bytes of a tile's registers, which stay in the first-level cache.
const TILE_BYTES: usize = 20 << 10;
/// The largest number of rows of a tile.
const MOST_TILE_ROWS: usize = 64;
/// Multiplications in whose time an instruction computes one element.
const ELEMENT_WORK: usize = 4;

/// Buffers are named by number, from 1 on. Buffer 0 is the registers.
pub(super) type Instruction = program::Instruction<usize>;
pub(super) type Place = program::Place<usize>;
pub(super) type Phase = program::Phase<usize>;
pub(super) type Product = program::Product<usize>;
pub(super) type Row = program::Row<usize>;

/// A compiled step.
#[derive(Debug)]
pub(crate) struct Program {
    rows: RowProgram,
    pub(super) buffers: Vec<Buffer>,
    /// The numbers of the buffers of the steps, and of what runs for several.
    pub(super) used: [Vec<usize>; 2],
    /// Those of the row program, with numbers.
    pub(super) phases: Vec<Phase>,
    /// Of each captured tensor, whether instructions read it, or a product as its bias.
    pub(super) read: Vec<bool>,
    /// Elements of the registers of a tile.
    pub(super) registers: usize,
    /// The largest number of rows of a tile, by whether they may be those of several steps.
    pub(super) tile_rows: [usize; 2],
    /// The work of a row, in multiplications.
    pub(super) work: usize,
}

impl Deref for Program {
    type Target = RowProgram;

    fn deref(&self) -> &RowProgram {
        &self.rows
    }
}

/// Compiles a step.
///
/// # Errors
/// The node that cannot be part of a program, and why; or the step does not fit the instructions.
pub(crate) fn compile(graph: &StepGraph) -> Result<Program, String> {
    Ok(Program::new(program::compile(graph, Target::Any)?))
}

/// The numbers of buffers.
#[derive(Default)]
struct Numbers {
    buffers: Vec<Buffer>,
    known: HashMap<Buffer, usize>,
}

impl Numbers {
    fn of(&mut self, buffer: Buffer) -> usize {
        if let Memory::Register(_) = buffer.memory {
            return 0;
        }
        *self.known.entry(buffer).or_insert_with(|| {
            self.buffers.push(buffer);
            self.buffers.len()
        })
    }

    fn row(&mut self, row: program::Row) -> Row {
        Row {
            buffer: self.of(row.buffer),
            offset: row.offset,
        }
    }

    /// A place for tiles of `rows` rows.
    fn place(&mut self, place: program::Place, registers: &Registers, rows: usize) -> Place {
        let register = place.register().map_or(0, |id| registers.at[&id] * rows);
        Place {
            buffer: self.of(place.buffer),
            offset: register + place.offset,
            row: place.row,
            block: place.block,
            column: place.column,
        }
    }
}

impl Program {
    fn new(rows: RowProgram) -> Self {
        let registers = |phase: &program::Phase| match phase {
            program::Phase::Tile(code) => Registers::new(code),
            program::Phase::Product(_) => Registers::default(),
        };
        let registers: Vec<Registers> = rows.phases.iter().map(registers).collect();
        let steps = rows.ahead..rows.behind;
        let mut widest = [0; 2];
        for (i, registers) in registers.iter().enumerate() {
            let most = &mut widest[usize::from(!steps.contains(&i))];
            *most = registers.size.max(*most);
        }
        let most_rows = [rows.batch.clamp(1, MOST_TILE_ROWS), MOST_TILE_ROWS];
        let tile_rows = [0, 1].map(|i| {
            let bytes = widest[i].max(1).saturating_mul(rows.dtype.size());
            (TILE_BYTES / bytes).clamp(1, most_rows[i])
        });
        let mut work = 0usize;
        let mut numbers = Numbers::default();
        let mut phases = Vec::with_capacity(rows.phases.len());
        for (i, (phase, registers)) in rows.phases.iter().zip(&registers).enumerate() {
            let tile_rows = tile_rows[usize::from(!steps.contains(&i))];
            phases.push(match phase {
                program::Phase::Product(product) => {
                    work = work.saturating_add(product.k.saturating_mul(product.n));
                    Phase::Product(Product {
                        out: numbers.row(product.out),
                        a: numbers.row(product.a),
                        k: product.k,
                        n: product.n,
                        matrix: product.matrix,
                        start: product.start,
                    })
                }
                program::Phase::Tile(code) => {
                    let mut numbered = Vec::with_capacity(code.len());
                    for instruction in code {
                        let elements = instruction.blocks.saturating_mul(instruction.width);
                        work = work.saturating_add(elements.saturating_mul(ELEMENT_WORK));
                        let mut place = |place| numbers.place(place, registers, tile_rows);
                        numbered.push(Instruction {
                            code: instruction.code,
                            blocks: instruction.blocks,
                            width: instruction.width,
                            out: place(instruction.out),
                            ins: instruction.ins.map(&mut place),
                        });
                    }
                    Phase::Tile(numbered)
                }
            });
        }
        let mut used = [vec![], vec![]];
        for (i, phase) in phases.iter().enumerate() {
            let used = &mut used[usize::from(!steps.contains(&i))];
            used.extend(phase.buffers().into_iter().filter(|number| *number > 0));
            used.sort_unstable();
            used.dedup();
        }
        let mut read = vec![false; rows.captured.len()];
        for buffer in &numbers.buffers {
            if let Memory::Captured(k) = buffer.memory {
                read[k] = true;
            }
        }
        for product in products(&phases) {
            if let Start::Bias(k, _) = product.start {
                read[k] = true;
            }
        }
        Self {
            rows,
            read,
            buffers: numbers.buffers,
            used,
            phases,
            registers: (widest[0] * tile_rows[0]).max(widest[1] * tile_rows[1]),
            tile_rows,
            work: work.max(1),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scratch: usize = self.scratch.iter().sum();
        let [rows, of_steps] = self.tile_rows;
        writeln!(
            f,
            "{scratch} elements of scratch a row, tiles of {rows} rows, {of_steps} of several steps"
        )?;
        self.rows.fmt(f)
    }
}

/// The products among some phases.
pub(super) fn products(phases: &[Phase]) -> impl Iterator<Item = &Product> + Clone {
    phases.iter().filter_map(|phase| match phase {
        Phase::Product(product) => Some(product),
        Phase::Tile(_) => None,
    })
}
