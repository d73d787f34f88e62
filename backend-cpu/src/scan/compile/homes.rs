//! Where values are.

use super::{Builder, Region};
use crate::scan::program::{Buffer, Carried, Memory};
use crate::scan::row_graph::{RowWork, Source, Span, is_dense};

impl Builder {
    /// Computes results where they belong. A new state that is an output, too, is read from there.
    pub(super) fn place_results(&mut self) {
        let outputs = self.graph.outputs.len();
        let results = std::mem::take(&mut self.graph.results);
        for (i, span) in results.into_iter().enumerate() {
            let state = i.checked_sub(outputs);
            let memory = state.map_or(Memory::Output(i), Memory::Next);
            let whole = self.whole(&span);
            let mut carried = Carried::Next;
            match (whole.and_then(|id| self.home[id]), whole) {
                (Some((Memory::Output(output), 0)), _) if state.is_some() => {
                    carried = Carried::Output(output);
                }
                // Only a thread's own memory has its rows of several steps together.
                (None, Some(id)) if !self.chunked[id] => {
                    self.home[id] = Some((memory, 0));
                }
                _ => self.copies.push((span, memory)),
            }
            if state.is_some() {
                self.carried.push(carried);
            }
        }
    }

    /// Finds memory for the values that need it, and computes parts of others in place.
    pub(super) fn place_values(&mut self) {
        let count = self.graph.values.len();
        let mut in_memory: Vec<bool> = (0..count).map(|id| self.is_product(id)).collect();
        for id in 0..count {
            if self.uses[id] == 0 {
                continue;
            }
            let (product, segment) = (self.is_product(id), self.segment[id]);
            self.graph.values[id].work.for_each_span(|span| {
                if let Source::Value(operand) = span.source {
                    in_memory[operand] |= product || self.segment[operand] < segment;
                }
            });
        }
        for (span, _) in &self.copies {
            if let Source::Value(id) = span.source {
                in_memory[id] |= self.segment[id] < self.copied_in(span);
            }
        }
        for id in (0..count).rev() {
            if self.uses[id] == 0 {
                continue;
            }
            let home = match self.home[id] {
                Some(home) => home,
                None if in_memory[id] && self.chunked[id] => {
                    self.chunks.push(self.value(id).width);
                    (Memory::Chunk(self.chunks.len() - 1), 0)
                }
                None if in_memory[id] => {
                    self.scratch.push(self.value(id).width);
                    (Memory::Scratch(self.scratch.len() - 1), 0)
                }
                None => (Memory::Register(id), 0),
            };
            self.home[id] = Some(home);
            match &self.graph.values[id].work {
                RowWork::Map { .. } => {}
                RowWork::Product { start, .. } => {
                    if let Some(Source::Value(start)) = start.as_ref().map(|span| span.source) {
                        self.home[start] = Some(home);
                    }
                }
                RowWork::Parts { disjoint, parts } => {
                    let register = matches!(home.0, Memory::Register(_));
                    for part in parts.iter().filter(|_| *disjoint) {
                        let Some(from) = self.whole(&part.from) else {
                            continue;
                        };
                        let known = matches!(home.0, Memory::Chunk(_));
                        let fits = (known || !self.chunked[from])
                            && match register {
                                true => !in_memory[from] && self.segment[from] == self.segment[id],
                                // A product's operand may lie in the same rows.
                                false => !self.is_product(from),
                            };
                        if fits
                            && self.home[from].is_none()
                            && is_dense(&part.from.axes, &part.strides)
                        {
                            self.home[from] = Some((home.0, home.1 + part.at));
                        }
                    }
                }
            }
        }
    }

    /// Elements of a row of a memory.
    pub(super) fn width(&self, memory: Memory) -> usize {
        match memory {
            Memory::Register(id) => self.value(id).width,
            Memory::Input(i) => self.graph.inputs[i],
            Memory::State(i) | Memory::Next(i) => self.graph.states[i],
            Memory::Output(i) => self.graph.outputs[i],
            Memory::Scratch(i) => self.scratch[i],
            Memory::Chunk(i) => self.chunks[i],
            Memory::Constants | Memory::Captured(_) => 0,
        }
    }

    pub(super) fn buffer(&self, memory: Memory) -> Buffer {
        Buffer {
            memory,
            row: self.width(memory),
        }
    }

    /// The buffer of a source, and its offset there.
    pub(super) fn source(&self, source: Source) -> (Buffer, usize) {
        let (memory, offset) = match source {
            Source::Value(id) => self.home[id].unwrap_or((Memory::Register(id), 0)),
            Source::Input(i) => (Memory::Input(i), 0),
            Source::State(i) => (Memory::State(i), 0),
            Source::Captured(i, row) => {
                let memory = Memory::Captured(i);
                return (Buffer { memory, row }, 0);
            }
            Source::Constant(i) => (Memory::Constants, i),
        };
        (self.buffer(memory), offset)
    }

    /// The number of a buffer in places.
    pub(super) fn number(&mut self, buffer: Buffer) -> usize {
        if let Memory::Register(_) = buffer.memory {
            return 0;
        }
        *self.numbers.entry(buffer).or_insert_with(|| {
            self.buffers.push(buffer);
            self.buffers.len()
        })
    }

    /// The segment that copies a result: not ahead of the steps, where no state is known.
    pub(super) fn copied_in(&self, span: &Span) -> usize {
        let computed = match span.source {
            Source::Value(id) => self.segment[id],
            _ => 0,
        };
        computed.max(self.last[Region::Ahead as usize])
    }
}
