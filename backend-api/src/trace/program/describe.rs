//! A program as text.

use std::fmt;

use super::{Buffer, Memory, Phase, Product, RowProgram, Start};

/// The phases, one after the other.
impl fmt::Display for RowProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, phase) in self.phases.iter().enumerate() {
            let chunked = i < self.ahead || i >= self.behind;
            let chunked = if chunked { " for several steps" } else { "" };
            match phase {
                Phase::Product(product) => {
                    let Product { k, n, .. } = product;
                    let out = self.name(product.out.buffer, product.out.offset);
                    let a = self.name(product.a.buffer, product.a.offset);
                    let matrix = self.matrices[product.matrix].captured;
                    write!(f, "{out} = {a} * w{matrix} [{k}, {n}]")?;
                    match product.start {
                        Start::Zero => {}
                        Start::Existing => write!(f, " + {out}")?,
                        Start::Bias(captured, offset) => write!(f, " + w{captured}+{offset}")?,
                    }
                    writeln!(f, "{chunked}")?;
                }
                Phase::Tile(code) => {
                    writeln!(f, "{} instructions{chunked}", code.len())?;
                    for instruction in code {
                        let (code, blocks) = (&instruction.code, instruction.blocks);
                        let out = self.name(instruction.out.buffer, instruction.out.offset);
                        write!(f, "  {blocks}x{} {out} = {code:?}", instruction.width)?;
                        for place in instruction.operands() {
                            write!(f, " {}", self.name(place.buffer, place.offset))?;
                            if place.column != 1 {
                                write!(f, "/{}", place.column)?;
                            }
                        }
                        writeln!(f)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl RowProgram {
    /// A place in words.
    fn name(&self, buffer: Buffer, offset: usize) -> String {
        let memory = match buffer.memory {
            Memory::Register(id) => format!("r{id}"),
            Memory::Constants => return format!("{:?}", self.constants[offset]),
            Memory::Input(i) => format!("x{i}"),
            Memory::Captured(i) => format!("w{i}"),
            Memory::State(i) => format!("s{i}"),
            Memory::Next(i) => format!("s{i}'"),
            Memory::Output(i) => format!("y{i}"),
            Memory::Scratch(i) => format!("t{i}"),
            Memory::Chunk(i) => format!("c{i}"),
        };
        format!("{memory}+{offset}")
    }
}
