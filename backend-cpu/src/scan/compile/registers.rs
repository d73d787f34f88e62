//! Registers of a tile.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use super::Builder;
use crate::scan::instruction::Code;
use crate::scan::program::{Buffer, Memory};

/// A place of an instruction before registers are assigned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spot {
    pub(super) buffer: Buffer,
    pub(super) offset: usize,
    pub(super) block: usize,
    pub(super) column: usize,
}

#[derive(Debug)]
pub(super) struct Draft {
    pub(super) code: Code,
    pub(super) blocks: usize,
    pub(super) width: usize,
    pub(super) out: Spot,
    pub(super) ins: SmallVec<[Spot; 3]>,
}

/// The registers of a segment.
pub(super) struct Registers {
    /// The offset of each value's register, in elements of a row.
    pub(super) at: HashMap<usize, usize>,
    pub(super) size: usize,
}

impl Registers {
    /// Assigns registers by the time between the first and the last instruction that use them.
    pub(super) fn new(code: &[Draft], builder: &Builder) -> Self {
        let register = |spot: &Spot| match spot.buffer.memory {
            Memory::Register(id) => Some(id),
            _ => None,
        };
        let mut last = HashMap::new();
        for (i, draft) in code.iter().enumerate() {
            for spot in draft.ins.iter().chain([&draft.out]) {
                register(spot).map(|id| last.insert(id, i));
            }
        }
        let mut registers = Self {
            at: HashMap::new(),
            size: 0,
        };
        // Registers that are not in use, by size.
        let mut free: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, draft) in code.iter().enumerate() {
            let mut ended: SmallVec<[usize; 3]> = draft.ins.iter().filter_map(register).collect();
            ended.sort_unstable();
            ended.dedup();
            ended.retain(|id| last[id] == i && Some(*id) != register(&draft.out));
            let mut release = |registers: &Self, id: usize| {
                let at = registers.at[&id];
                free.entry(builder.value(id).width).or_default().push(at);
            };
            // An operand at the same place ends before the result begins, the others after it.
            let same_place = |id: usize| {
                let reads = draft.ins.iter().filter(|spot| register(spot) == Some(id));
                let same = |spot: &Spot| {
                    (spot.offset, spot.block, spot.column)
                        == (draft.out.offset, draft.out.block, draft.out.column)
                };
                register(&draft.out)
                    .is_some_and(|out| builder.value(out).width == builder.value(id).width)
                    && !matches!(draft.code, Code::Reduce(_) | Code::Dot)
                    && reads.into_iter().all(same)
            };
            let (now, later): (SmallVec<[usize; 3]>, SmallVec<[usize; 3]>) =
                ended.into_iter().partition(|&id| same_place(id));
            now.into_iter().for_each(|id| release(&registers, id));
            if let Some(id) = register(&draft.out)
                && !registers.at.contains_key(&id)
            {
                let width = builder.value(id).width;
                let known = free.get_mut(&width).and_then(Vec::pop);
                let at = known.unwrap_or(registers.size);
                registers.size += if known.is_none() { width } else { 0 };
                registers.at.insert(id, at);
            }
            let mut release = |id: usize| {
                let at = registers.at[&id];
                free.entry(builder.value(id).width).or_default().push(at);
            };
            later.into_iter().for_each(&mut release);
            // A result that nothing reads, such as of a part of a dead value.
            if let Some(id) = register(&draft.out)
                && last[&id] == i
            {
                release(id);
            }
        }
        registers
    }
}
