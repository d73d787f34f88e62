//! The phases of a program and their instructions.

use std::collections::HashMap;
use std::mem;
use std::ops::{Bound, RangeBounds};

use crate::{Binary, Reduce, Unary};
use smallvec::SmallVec;

use super::{Builder, Region};
use crate::trace::program::instruction::{Code, Instruction, Place};
use crate::trace::program::row_graph::{
    Axes, Matrix, RowWork, Source, Span, Term, count, row_major,
};
use crate::trace::program::{Buffer, Memory, Phase, Product, Row, RowProgram, Start};

/// The largest number of instructions for one operation.
const MOST_PIECES: usize = 256;

impl Builder {
    pub(super) fn finish(mut self) -> Result<RowProgram, String> {
        let live = |id: &usize| self.uses[*id] > 0;
        let ids: Vec<usize> = (0..self.uses.len()).filter(live).collect();
        let [last_ahead, last_step, last] = self.last;
        let mut segments = vec![Vec::new(); last + 1];
        for &id in &ids {
            segments[self.segment[id]].push(id);
        }
        let mut phases = Vec::new();
        // The program has those that its products read, in the form that they read.
        let lowered = mem::take(&mut self.graph.matrices);
        let (mut ahead, mut behind) = (0, 0);
        for (i, segment) in segments.iter().enumerate() {
            for &id in segment {
                let terms = self.early[id]..;
                self.products(id, terms, &lowered, &mut phases);
            }
            let code = self.segment_code(i, segment)?;
            if !code.is_empty() {
                phases.push(Phase::Tile(code));
            }
            if i == last_ahead {
                for &id in &ids {
                    let terms = ..self.early[id];
                    self.products(id, terms, &lowered, &mut phases);
                }
                ahead = phases.len();
            }
            if i == last_step {
                behind = phases.len();
            }
        }
        let graph = self.graph;
        Ok(RowProgram {
            batch: graph.batch,
            dtype: graph.dtype,
            phases,
            ahead,
            behind,
            constants: graph.constants,
            matrices: graph.matrices,
            inputs: graph.inputs,
            states: graph.states,
            outputs: graph.outputs,
            captured: graph.captured,
            carried: self.carried,
            scratch: self.scratch,
            chunks: self.chunks,
        })
    }

    /// Appends the products of some terms of a value, with right sides among the given matrices.
    fn products(
        &mut self,
        id: usize,
        range: impl RangeBounds<usize>,
        matrices: &[Matrix],
        phases: &mut Vec<Phase>,
    ) {
        let value = &self.graph.values[id];
        let RowWork::Product { terms, start } = &value.work else {
            return;
        };
        let n = value.width;
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            _ => 0,
        };
        let mut start = match start.as_ref().map(|span| (span.source, span.offset)) {
            _ if first > 0 || self.added.contains(&id) => Start::Existing,
            None => Start::Zero,
            Some((Source::Captured(i, _), offset)) => Start::Bias(i, offset),
            Some(_) => Start::Existing,
        };
        let chunked = self.region[id] != Region::Step || first < self.early[id];
        let terms = terms.iter().enumerate();
        let terms = terms.filter(|(i, _)| n > 0 && range.contains(i));
        let terms: Vec<(usize, Term)> = terms.map(|(i, term)| (i, term.clone())).collect();
        let (out, offset) = self.source(Source::Value(id));
        let out = Row {
            buffer: out,
            offset,
        };
        for (i, term) in terms {
            let k = count(&term.a.axes);
            let (buffer, offset) = match self.operands.get(&(id, i)) {
                Some(&(scratch, offset)) => (self.buffer(Memory::Scratch(scratch)), offset),
                None => {
                    let (buffer, offset) = self.read(term.a.source, self.segment[id]);
                    (buffer, offset + term.a.offset)
                }
            };
            let a = Row { buffer, offset };
            let matrix = Matrix {
                chunked,
                ..matrices[term.matrix]
            };
            phases.push(Phase::Product(Product {
                a,
                k,
                matrix: self.graph.matrix(matrix),
                start,
                out,
                n,
            }));
            start = Start::Existing;
        }
    }

    /// The instructions of a segment.
    fn segment_code(&self, segment: usize, ids: &[usize]) -> Result<Vec<Instruction>, String> {
        let mut code = Vec::new();
        let mut fused = HashMap::new();
        for &id in ids {
            self.fuse(id, &mut fused);
        }
        for &id in ids {
            let value = &self.graph.values[id];
            let (home, offset) = self.source(Source::Value(id));
            match &value.work {
                RowWork::Product { .. } => {}
                // A part of another instruction.
                RowWork::Map { .. } if matches!(fused.get(&id), Some(None)) => {}
                RowWork::Map {
                    code: plain,
                    axes,
                    ins,
                } => {
                    let (kind, ins) = match fused.get(&id) {
                        Some(Some((kind, ins))) => (*kind, ins),
                        _ => (*plain, ins),
                    };
                    let results = match kind {
                        Code::Reduce(_) | Code::Dot => {
                            let mut strides = row_major(&axes[..axes.len() - 1]);
                            strides.push(0);
                            strides
                        }
                        _ => row_major(axes),
                    };
                    let out = (home, offset, &results);
                    self.emit(segment, kind, axes, out, ins, &mut code)?;
                }
                RowWork::Parts { parts, .. } => {
                    for part in parts {
                        let (from, at) = self.read(part.from.source, segment);
                        let strides = part.from.strides.iter().zip(&part.strides);
                        let mut axes = part.from.axes.iter().zip(strides);
                        let in_place = from == home
                            && at + part.from.offset == offset + part.at
                            && axes.all(|(len, (from, to))| *len == 1 || from == to);
                        if !in_place {
                            let out = (home, offset + part.at, &part.strides);
                            let ins = std::slice::from_ref(&part.from);
                            self.emit(segment, Code::Copy, &part.from.axes, out, ins, &mut code)?;
                        }
                    }
                }
            }
        }
        for copied in &self.copies {
            if self.copied_in(copied) == segment {
                let span = &copied.span;
                let strides = row_major(&span.axes);
                let out = (self.buffer(copied.memory), copied.offset, &strides);
                let ins = std::slice::from_ref(span);
                self.emit(segment, Code::Copy, &span.axes, out, ins, &mut code)?;
            }
        }
        Ok(code)
    }

    /// Makes one instruction of a product that is used once and what is done with it: the entry of
    /// the latter is the new instruction, and that of the product is `None`.
    fn fuse(&self, id: usize, fused: &mut HashMap<usize, Option<(Code, SmallVec<[Span; 3]>)>>) {
        let RowWork::Map { code, axes, ins } = &self.value(id).work else {
            return;
        };
        // The operands of a product that can be computed with this instruction.
        let product = |span: &Span| {
            let from = self.whole(span).filter(|_| span.axes == *axes)?;
            let alone = self.uses[from] == 1
                && self.segment[from] == self.segment[id]
                && self.home[from] == Some((Memory::Register(from), 0));
            match &self.value(from).work {
                RowWork::Map {
                    code: kind,
                    axes: own,
                    ins,
                } if alone && own == axes && !fused.contains_key(&from) => match kind {
                    Code::Binary(Binary::Mul) => Some((from, [ins[0].clone(), ins[1].clone()])),
                    Code::Unary(Unary::Square) => Some((from, [ins[0].clone(), ins[0].clone()])),
                    _ => None,
                },
                _ => None,
            }
        };
        let three = |[a, b]: [Span; 2], c: &Span| SmallVec::from([a, b, c.clone()]);
        let found = match (code, &**ins) {
            (Code::Binary(Binary::Add), [a, b]) => product(a)
                .map(|(id, ab)| (id, Code::MulAdd, three(ab, b)))
                .or_else(|| product(b).map(|(id, ab)| (id, Code::MulAdd, three(ab, a)))),
            (Code::Binary(Binary::Sub), [a, b]) => product(a)
                .map(|(id, ab)| (id, Code::MulSub, three(ab, b)))
                .or_else(|| product(b).map(|(id, ab)| (id, Code::SubMul, three(ab, a)))),
            (Code::Reduce(Reduce::Sum), [x]) => {
                product(x).map(|(id, ab)| (id, Code::Dot, ab.into_iter().collect()))
            }
            _ => None,
        };
        if let Some((from, code, ins)) = found {
            fused.insert(from, None);
            fused.insert(id, Some((code, ins)));
        }
    }

    /// Appends the instructions of a segment that compute `code` for all indices of `axes`.
    fn emit(
        &self,
        segment: usize,
        code: Code,
        axes: &Axes,
        (home, offset, strides): (Buffer, usize, &Axes),
        ins: &[Span],
        instructions: &mut Vec<Instruction>,
    ) -> Result<(), String> {
        if count(axes) == 0 {
            return Ok(());
        }
        let reduces = code.reduces();
        let sources = ins.iter().map(|span| self.read(span.source, segment));
        let sources: SmallVec<[_; 3]> = sources.collect();
        // The lengths, and the strides of the result and the operands.
        let mut loops: SmallVec<[(usize, [usize; 4]); 8]> = SmallVec::new();
        for (i, &len) in axes.iter().enumerate() {
            let columns = reduces && i + 1 == axes.len();
            let mut by = [0; 4];
            by[0] = strides[i];
            for (by, span) in by[1..].iter_mut().zip(ins) {
                *by = span.strides[i];
            }
            match loops.last_mut() {
                _ if len == 1 && !columns => {}
                Some((n, outer)) if !columns && (0..4).all(|k| outer[k] == by[k] * len) => {
                    (*n, *outer) = (*n * len, by);
                }
                _ => loops.push((len, by)),
            }
        }
        if !reduces {
            // The columns are contiguous in the result.
            match loops.iter().rposition(|(_, by)| by[0] == 1) {
                Some(i) => {
                    let columns = loops.remove(i);
                    loops.push(columns);
                }
                None => loops.push((1, [1, 0, 0, 0])),
            }
        }
        while loops.len() < 2 {
            loops.insert(0, (1, [0; 4]));
        }
        let (outer, inner) = loops.split_at(loops.len() - 2);
        let pieces: usize = outer.iter().map(|(n, _)| n).product();
        if pieces > MOST_PIECES {
            return Err(format!(
                "an operation on {axes:?} needs {pieces} instructions"
            ));
        }
        let (blocks, width) = (inner[0].0, inner[1].0);
        for piece in 0..pieces {
            let (mut rest, mut at) = (piece, [0; 4]);
            for (n, by) in outer.iter().rev() {
                for (at, by) in at.iter_mut().zip(by) {
                    *at += rest % n * by;
                }
                rest /= n;
            }
            let place = |k: usize, buffer: Buffer, offset: usize| Place {
                buffer,
                row: buffer.row,
                offset: offset + at[k],
                block: inner[0].1[k],
                column: inner[1].1[k],
            };
            let mut out = place(0, home, offset);
            if reduces {
                out.column = 1;
            }
            let mut places = [out; 3];
            for (k, (span, (buffer, start))) in ins.iter().zip(&sources).enumerate() {
                places[k] = place(k + 1, *buffer, start + span.offset);
            }
            instructions.push(Instruction {
                code,
                blocks,
                width,
                out,
                ins: places,
            });
        }
        Ok(())
    }
}
