//! Where values are.

use smallvec::smallvec;

use super::{Builder, Copied, Region};
use crate::trace::program::row_graph::{RowWork, Source, Span, count, is_dense};
use crate::trace::program::{Buffer, Carried, Memory, Target};

impl Builder {
    /// Computes results where they belong. A new state that is an output, too, is read from there.
    pub(super) fn place_results(&mut self) {
        let outputs = self.graph.outputs.len();
        let results = std::mem::take(&mut self.graph.results);
        if self.target == Target::Fixed {
            return self.place_fixed_results(&results);
        }
        for (i, span) in results.into_iter().enumerate() {
            let state = i.checked_sub(outputs);
            let memory = state.map_or(Memory::Output(i), Memory::Next);
            let whole = self.whole(&span);
            let mut carried = Carried::Next;
            match (whole.and_then(|id| self.home[id]), whole) {
                (Some((Memory::Output(output), 0)), _) if state.is_some() => {
                    carried = Carried::Output(output);
                }
                (Some((Memory::Chunk(chunk), 0)), _) if state.is_some() => {
                    carried = Carried::Chunk(chunk);
                }
                (None, Some(id))
                    if !self.chunked[id] || (state.is_none() && !self.of_products[id]) =>
                {
                    self.home[id] = Some((memory, 0));
                }
                (None, Some(id)) if state.is_some() && self.is_carried_for_steps(id) => {
                    let chunk = self.chunks.len();
                    self.chunks.push(self.value(id).width);
                    self.home[id] = Some((Memory::Chunk(chunk), 0));
                    carried = Carried::Chunk(chunk);
                }
                _ => self.copy(&span, memory),
            }
            if state.is_some() {
                self.carried.push(carried);
            }
        }
    }

    /// Whether memory for several steps can carry a new state: nothing ahead of the steps writes
    /// there, where the state before them may still be.
    fn is_carried_for_steps(&self, id: usize) -> bool {
        self.region[id] == Region::Step && matches!(self.value(id).work, RowWork::Map { .. })
    }

    fn copy(&mut self, span: &Span, memory: Memory) {
        let segment = match (self.target, span.source) {
            // What is known before the step needs no kernel of its own.
            (Target::Fixed, Source::Value(id)) if self.region[id] != Region::Ahead => None,
            (Target::Fixed, _) => self.last_instructions(),
            (Target::Any, _) => None,
        };
        self.copies.push(Copied {
            span: span.clone(),
            memory,
            offset: 0,
            segment,
        });
    }

    /// The same for [`Target::Fixed`]: states are fixed memory, outputs are not.
    fn place_fixed_results(&mut self, results: &[Span]) {
        let (outputs, states) = results.split_at(self.graph.outputs.len());
        self.carried = vec![Carried::Next; states.len()];
        let mut sums = Vec::new();
        for (i, span) in states.iter().enumerate() {
            match self.whole(span) {
                Some(id) if self.is_product(id) => sums.push((i, id, span)),
                Some(id) if self.home[id].is_none() && !self.chunked[id] => {
                    self.home[id] = Some((Memory::Next(i), 0));
                }
                _ => self.copy(span, Memory::Next(i)),
            }
        }
        for (i, id, span) in sums {
            let RowWork::Product { terms, start } = &self.value(id).work else {
                continue;
            };
            let is_scratch = |source| match source {
                Source::Value(a) => !matches!(self.home[a], Some((Memory::Next(_), _))),
                _ => false,
            };
            let alone = start.is_none();
            let adds = self.region[id] == Region::Step
                && self.home[id].is_none()
                && terms.iter().all(|term| is_scratch(term.a.source));
            if !adds {
                self.copy(span, Memory::Next(i));
                continue;
            }
            self.home[id] = Some((Memory::Next(i), 0));
            if alone {
                // A row that has ended starts with its state, the others with zeros.
                let zeros = Span {
                    source: self.graph.constant(0.0),
                    offset: 0,
                    axes: smallvec![self.graph.states[i]],
                    strides: smallvec![0],
                };
                self.added.push(id);
                self.copies.push(Copied {
                    span: zeros,
                    memory: Memory::Next(i),
                    offset: 0,
                    segment: Some(self.level[id] - 1),
                });
            }
        }
        for (i, span) in outputs.iter().enumerate() {
            match self.whole(span) {
                Some(id) if self.home[id].is_none() && !self.is_product(id) => {
                    self.home[id] = Some((Memory::Output(i), 0));
                }
                _ => self.copy(span, Memory::Output(i)),
            }
        }
    }

    /// Copies the operands of the steps' products to fixed memory: to scratch memory if the product
    /// adds to a state.
    pub(super) fn place_operands(&mut self) {
        if self.target == Target::Any {
            return;
        }
        for id in 0..self.uses.len() {
            let RowWork::Product { terms, .. } = &self.value(id).work else {
                continue;
            };
            if self.uses[id] == 0 || self.region[id] != Region::Step {
                continue;
            }
            let adds = self.adds_to_state(id);
            for (i, term) in terms.clone().iter().enumerate() {
                if self.operands.contains_key(&(id, i)) {
                    continue;
                }
                let fixed = match self.source(term.a.source).0.memory {
                    Memory::Scratch(_) => true,
                    Memory::State(_) | Memory::Next(_) => !adds,
                    _ => false,
                };
                if fixed {
                    continue;
                }
                let known = self.copies.iter().find_map(|copied| match copied.memory {
                    Memory::Scratch(k)
                        if copied.span == term.a && self.copied_in(copied) < self.level[id] =>
                    {
                        Some((k, copied.offset))
                    }
                    _ => None,
                });
                let place = known.unwrap_or((self.scratch.len(), 0));
                if known.is_none() {
                    self.scratch.push(count(&term.a.axes));
                    self.copies.push(Copied {
                        span: term.a.clone(),
                        memory: Memory::Scratch(place.0),
                        offset: 0,
                        segment: None,
                    });
                }
                self.operands.insert((id, i), place);
            }
        }
    }

    /// Whether a product adds to a new state.
    fn adds_to_state(&self, id: usize) -> bool {
        matches!(self.home[id], Some((Memory::Next(_), _)))
    }

    /// Places side by side the results of the steps' products that have the same operands, and the
    /// operands of a sum of products.
    pub(super) fn place_joined(&mut self) {
        if self.target == Target::Any {
            return;
        }
        let ids = (0..self.uses.len()).filter(|&id| self.uses[id] > 0 && self.is_product(id));
        let ids: Vec<usize> = ids.filter(|&id| self.region[id] == Region::Step).collect();
        let mut known = Vec::new();
        for &id in &ids {
            self.join_results(id, &ids);
            self.join_operands(id, &mut known);
        }
    }

    fn join_results(&mut self, id: usize, ids: &[usize]) {
        let operands = |id: usize| match &self.value(id).work {
            RowWork::Product { terms, start: None } if self.home[id].is_none() => {
                Some(terms.iter().map(|term| &term.a).collect::<Vec<_>>())
            }
            _ => None,
        };
        let Some(shared) = operands(id) else {
            return;
        };
        let same = |other: &usize| operands(*other).is_some_and(|spans| spans == shared);
        let all: Vec<usize> = ids.iter().copied().filter(same).collect();
        let mut width = 0;
        for id in all {
            self.home[id] = Some((Memory::Scratch(self.scratch.len()), width));
            width += self.value(id).width;
        }
        self.scratch.push(width);
    }

    /// `known` has operands that lie side by side, the segment in which they are complete, and the
    /// scratch memory.
    fn join_operands(&mut self, id: usize, known: &mut Vec<(Vec<Span>, usize, usize)>) {
        let RowWork::Product { terms, .. } = &self.value(id).work else {
            return;
        };
        let spans: Vec<Span> = terms.iter().map(|term| term.a.clone()).collect();
        let before = self.level[id] - 1;
        // Only where instructions run before the product: others need not be copied.
        let computed = |span: &Span| match span.source {
            Source::Value(a) => !self.is_product(a) && self.segment[a] == before,
            _ => false,
        };
        let copies = self.adds_to_state(id) || spans.iter().any(computed);
        if spans.len() < 2 || !copies {
            return;
        }
        let complete = |(operands, segment, _): &&(Vec<Span>, usize, usize)| {
            *operands == spans && *segment <= before
        };
        let found = known.iter().find(complete).map(|(.., scratch)| *scratch);
        let scratch = found.unwrap_or(self.scratch.len());
        let memory = Memory::Scratch(scratch);
        let mut at = 0;
        for (i, span) in spans.iter().enumerate() {
            self.operands.insert((id, i), (scratch, at));
            let own = self
                .whole(span)
                .filter(|&a| self.home[a].is_none() && !self.is_product(a) && !self.chunked[a]);
            match own {
                _ if found.is_some() => {}
                Some(a) => self.home[a] = Some((memory, at)),
                None => self.copies.push(Copied {
                    span: span.clone(),
                    memory,
                    offset: at,
                    segment: Some(before),
                }),
            }
            at += count(&span.axes);
        }
        if found.is_none() {
            self.scratch.push(at);
            known.push((spans, before, scratch));
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
        for copied in &self.copies {
            if let Source::Value(id) = copied.span.source {
                in_memory[id] |= self.segment[id] < self.copied_in(copied);
            }
        }
        // Whether a product overwrites each value, because it begins with it.
        let mut overwritten = vec![false; count];
        for id in (0..count).rev() {
            if self.uses[id] == 0 {
                continue;
            }
            let fixed = self.target == Target::Fixed
                && self.is_product(id)
                && self.region[id] == Region::Step;
            if fixed && self.chunked[id] {
                self.keep(id);
            }
            let home = match self.home[id] {
                Some(home) => home,
                None if in_memory[id] && self.chunked[id] && !fixed => {
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
                        overwritten[start] = true;
                    }
                }
                RowWork::Parts { disjoint, parts } => {
                    for part in parts.iter().filter(|_| *disjoint) {
                        let Some(from) = self.whole(&part.from) else {
                            continue;
                        };
                        let known = match home.0 {
                            Memory::Register(_) => {
                                !in_memory[from] && self.segment[from] == self.segment[id]
                            }
                            Memory::Chunk(_) => true,
                            Memory::Output(_) if self.target == Target::Any => {
                                !self.chunked[from] || !self.of_products[from]
                            }
                            Memory::Output(_) => true,
                            _ => !self.chunked[from],
                        };
                        // A product's operand may lie in the same rows.
                        let fits = known
                            && !self.is_product(from)
                            && (!overwritten[id] || self.uses[from] == 1);
                        if fits
                            && self.home[from].is_none()
                            && is_dense(&part.from.axes, &part.strides)
                        {
                            self.home[from] = Some((home.0, home.1 + part.at));
                            overwritten[from] = overwritten[id];
                        }
                    }
                }
            }
        }
    }

    /// Copies a product of the steps to memory for several steps.
    fn keep(&mut self, id: usize) {
        let (width, memory) = (self.value(id).width, Memory::Chunk(self.chunks.len()));
        self.chunks.push(width);
        self.kept.insert(id, memory);
        self.copies.push(Copied {
            span: Span::whole(Source::Value(id), &[width]),
            memory,
            offset: 0,
            segment: None,
        });
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

    /// Like [`source`](Self::source), for a segment that reads it.
    pub(super) fn read(&self, source: Source, segment: usize) -> (Buffer, usize) {
        if let Source::Value(id) = source
            && segment > self.last[Region::Step as usize]
            && let Some(memory) = self.kept.get(&id)
        {
            return (self.buffer(*memory), 0);
        }
        self.source(source)
    }

    /// The segment that copies a span: not ahead of the steps, where no state is known. Outputs are
    /// copied behind them, if what is copied is known for several steps.
    pub(super) fn copied_in(&self, copied: &Copied) -> usize {
        let (computed, kept) = match copied.span.source {
            Source::Value(id) => (self.segment[id], self.chunked[id]),
            source => (0, !matches!(source, Source::State(_))),
        };
        let behind =
            kept && self.instructions_leave() && matches!(copied.memory, Memory::Output(_));
        let first = match behind {
            true => self.last[Region::Behind as usize],
            false => self.last[Region::Ahead as usize] + 1,
        };
        copied.segment.unwrap_or(computed.max(first))
    }

    /// The last segment of the steps that has instructions.
    fn last_instructions(&self) -> Option<usize> {
        let ids = 0..self.uses.len();
        let computed = ids.filter(|&id| {
            self.uses[id] > 0 && self.region[id] == Region::Step && !self.is_product(id)
        });
        computed.map(|id| self.segment[id]).max()
    }
}
