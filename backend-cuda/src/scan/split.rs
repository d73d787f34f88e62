//! Element-wise instructions in parts, so that a thread finds in its registers what it reads: a
//! part of a row that another instruction computes, or parts that several instructions compute.

use std::collections::BTreeSet;

use backend_api::trace::program::{Instruction, Memory, Place};

/// The largest number of parts of an instruction.
const MOST_PARTS: usize = 16;
/// How often parts are cut further by the parts of others.
const ROUNDS: usize = 4;

/// The addresses of the elements of a loop, in order: axes that are one are joined.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Addresses {
    memory: Memory,
    pub(super) first: usize,
    axes: Vec<(usize, usize)>,
}

impl Addresses {
    pub(super) fn new(place: &Place, blocks: usize, width: usize) -> Self {
        let mut axes: Vec<(usize, usize)> = Vec::with_capacity(2);
        for (n, by) in [(blocks, place.block), (width, place.column)] {
            match axes.last_mut() {
                _ if n == 1 => {}
                Some((outer, stride)) if *stride == n * by => (*outer, *stride) = (*outer * n, by),
                _ => axes.push((n, by)),
            }
        }
        Self {
            memory: place.buffer.memory,
            first: place.offset,
            axes,
        }
    }

    pub(super) fn of_result(instruction: &Instruction) -> Self {
        let columns = match instruction.code.reduces() {
            true => 1,
            false => instruction.width,
        };
        Self::new(&instruction.out, instruction.blocks, columns)
    }

    fn last(&self) -> usize {
        self.first + self.axes.iter().map(|(n, by)| (n - 1) * by).sum::<usize>()
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.memory == other.memory && self.first <= other.last() && other.first <= self.last()
    }

    /// Whether all elements of the loop are at one address.
    pub(super) fn is_single(&self) -> bool {
        self.axes.iter().all(|(_, by)| *by == 0)
    }

    /// The first element and the one after the last, if the elements are contiguous.
    fn range(&self) -> Option<(usize, usize)> {
        matches!(self.axes[..], [] | [(_, 1)]).then(|| (self.first, self.last() + 1))
    }
}

/// The instructions, in parts.
pub(super) fn split(code: &[Instruction]) -> Vec<Instruction> {
    let mut code: Vec<Instruction> = code.iter().map(joined).collect();
    for _ in 0..ROUNDS {
        let mut parts = Vec::with_capacity(code.len());
        for i in 0..code.len() {
            let cuts = cuts(&code, i);
            match cuts.len() < MOST_PARTS {
                true => cut(&code[i], &cuts, &mut parts),
                false => parts.push(code[i]),
            }
        }
        if parts.len() == code.len() {
            break;
        }
        code = parts;
    }
    code
}

/// The instruction with one block, if the blocks follow each other everywhere.
fn joined(instruction: &Instruction) -> Instruction {
    let mut joined = *instruction;
    let Instruction { blocks, width, .. } = joined;
    let follow = |place: &Place| place.block == place.column * width;
    let places = instruction.operands().iter().chain([&instruction.out]);
    if !instruction.code.reduces() && places.into_iter().all(follow) {
        (joined.blocks, joined.width) = (1, blocks * width);
    }
    joined
}

/// The elements at which parts of an instruction begin, but for the first: where parts of its
/// operands begin that others computed, and parts of its result that others read.
fn cuts(code: &[Instruction], i: usize) -> BTreeSet<usize> {
    let instruction = &code[i];
    let mut cuts = BTreeSet::new();
    let result = Addresses::of_result(instruction);
    let n = instruction.width;
    if instruction.blocks != 1 || instruction.code.reduces() || result.range().is_none() {
        return cuts;
    }
    let mut cut = |of: &Addresses, by: &Addresses| {
        let (Some((start, end)), Some(by)) = (of.range(), by.range()) else {
            return;
        };
        if end - start == n {
            let inside = [by.0, by.1]
                .into_iter()
                .filter(|at| (start + 1..end).contains(at));
            cuts.extend(inside.map(|at| at - start));
        }
    };
    for operand in instruction.operands() {
        let operand = Addresses::new(operand, 1, n);
        for before in &code[..i] {
            let written = Addresses::of_result(before);
            if written.overlaps(&operand) {
                cut(&operand, &written);
            }
        }
    }
    for after in &code[i + 1..] {
        for operand in after.operands() {
            let read = Addresses::new(operand, after.blocks, after.width);
            if read.overlaps(&result) {
                cut(&result, &read);
            }
        }
    }
    cuts
}

/// Appends the parts of an instruction.
fn cut(instruction: &Instruction, cuts: &BTreeSet<usize>, parts: &mut Vec<Instruction>) {
    let ends = cuts.iter().copied().chain([instruction.width]);
    let mut start = 0;
    for end in ends {
        let mut part = *instruction;
        part.width = end - start;
        for place in part.ins.iter_mut().chain([&mut part.out]) {
            place.offset += start * place.column;
        }
        parts.push(part);
        start = end;
    }
}
