//! Registers of a tile.

use std::collections::{BTreeMap, HashMap};

use backend_api::trace::program::{Instruction, Place};
use smallvec::SmallVec;

/// The registers of a phase.
#[derive(Default)]
pub(super) struct Registers {
    /// The offset of each register, in elements of a row.
    pub(super) at: HashMap<usize, usize>,
    pub(super) size: usize,
}

impl Registers {
    /// Assigns registers by the time between the first and the last instruction that use them.
    pub(super) fn new(code: &[Instruction]) -> Self {
        // A register and its width.
        let register = |place: &Place| place.register().map(|id| (id, place.row));
        let mut last = HashMap::new();
        for (i, instruction) in code.iter().enumerate() {
            for place in instruction.operands().iter().chain([&instruction.out]) {
                register(place).map(|found| last.insert(found, i));
            }
        }
        let mut registers = Self {
            at: HashMap::new(),
            size: 0,
        };
        // Registers that are not in use, by size.
        let mut free: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, instruction) in code.iter().enumerate() {
            let mut ended: SmallVec<[(usize, usize); 3]> =
                instruction.operands().iter().filter_map(register).collect();
            ended.sort_unstable();
            ended.dedup();
            ended.retain(|id| last[id] == i && Some(*id) != register(&instruction.out));
            let mut release = |registers: &Self, (id, width): (usize, usize)| {
                free.entry(width).or_default().push(registers.at[&id]);
            };
            // An operand at the same place ends before the result begins, the others after it.
            let same_place = |of: (usize, usize)| {
                let reads = instruction
                    .operands()
                    .iter()
                    .filter(|place| register(place) == Some(of));
                let same = |place: &Place| {
                    (place.offset, place.block, place.column)
                        == (
                            instruction.out.offset,
                            instruction.out.block,
                            instruction.out.column,
                        )
                };
                register(&instruction.out).is_some_and(|out| out.1 == of.1)
                    && !instruction.code.reduces()
                    && reads.into_iter().all(same)
            };
            let (now, later): (SmallVec<[_; 3]>, SmallVec<[_; 3]>) =
                ended.into_iter().partition(|&of| same_place(of));
            now.into_iter().for_each(|of| release(&registers, of));
            if let Some((id, width)) = register(&instruction.out)
                && !registers.at.contains_key(&id)
            {
                let known = free.get_mut(&width).and_then(Vec::pop);
                let at = known.unwrap_or(registers.size);
                registers.size += if known.is_none() { width } else { 0 };
                registers.at.insert(id, at);
            }
            let mut release = |(id, width): (usize, usize)| {
                free.entry(width).or_default().push(registers.at[&id]);
            };
            later.into_iter().for_each(&mut release);
            // A result that nothing reads, such as of a part of a dead value.
            if let Some(of) = register(&instruction.out)
                && last[&of] == i
            {
                release(of);
            }
        }
        registers
    }
}
