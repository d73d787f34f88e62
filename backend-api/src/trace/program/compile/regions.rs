//! When values are computed.

use super::{Builder, Region};
use crate::trace::program::Target;
use crate::trace::program::row_graph::{RowWork, Source, Term};

/// The number of rows from which on instructions stay in the steps: with many rows, values in
/// memory for several steps take longer than a step's call of each instruction.
const MANY_ROWS: usize = 4;

impl Builder {
    /// Whether instructions leave the steps without a product. A program with fixed memory rather
    /// has one kernel for all instructions before a product.
    pub(super) fn instructions_leave(&self) -> bool {
        self.target == Target::Any && self.graph.batch < MANY_ROWS
    }

    /// Finds what runs ahead of the steps and what behind them.
    pub(super) fn find_regions(&mut self) {
        let n = self.uses.len();
        let outputs = self.graph.outputs.len();
        let reads = |builder: &Self, id: usize, f: &mut dyn FnMut(Source)| {
            builder.value(id).work.for_each_span(|span| f(span.source));
        };
        // A new state is computed step by step, and so is what reads a state, which is known for
        // one step only; and what those values read.
        let mut stepwise = vec![false; n];
        for span in &self.graph.results[outputs..] {
            if let Source::Value(id) = span.source {
                stepwise[id] = true;
            }
        }
        for id in (0..n).rev().filter(|&id| self.uses[id] > 0) {
            reads(self, id, &mut |source| {
                stepwise[id] |= matches!(source, Source::State(_));
            });
            if stepwise[id] {
                reads(self, id, &mut |source| {
                    if let Source::Value(operand) = source {
                        stepwise[operand] = true;
                    }
                });
            }
        }
        for id in (0..n).filter(|&id| self.uses[id] > 0) {
            let mut leaves = self.instructions_leave() || self.is_product(id);
            if !self.stateful[id] {
                if leaves {
                    self.region[id] = Region::Ahead;
                }
                continue;
            }
            reads(self, id, &mut |source| {
                if let Source::Value(operand) = source {
                    leaves |= self.region[operand] == Region::Behind;
                }
            });
            if leaves && !stepwise[id] {
                self.region[id] = Region::Behind;
            }
        }
        // What products ahead read is computed ahead, and on the CPU what any product reads: the
        // order of its terms must not depend on the number of rows.
        for id in (0..n).rev().filter(|&id| self.uses[id] > 0) {
            let product = self.target == Target::Any && self.is_product(id);
            if product || self.region[id] == Region::Ahead {
                let mut operands = Vec::new();
                reads(self, id, &mut |source| {
                    if let Source::Value(operand) = source {
                        operands.push(operand);
                    }
                });
                for operand in operands {
                    if !self.stateful[operand] {
                        self.region[operand] = Region::Ahead;
                    }
                }
            }
        }
        for id in 0..n {
            if self.uses[id] == 0 {
                continue;
            }
            self.find_early_terms(id);
            self.chunked[id] |= self.region[id] != Region::Step || self.early[id] > 0;
            if self.region[id] == Region::Behind {
                let mut operands = Vec::new();
                reads(self, id, &mut |source| {
                    if let Source::Value(operand) = source {
                        operands.push(operand);
                    }
                });
                for operand in operands {
                    self.chunked[operand] = true;
                }
            }
        }
        for id in (0..n).filter(|&id| self.uses[id] > 0) {
            let RowWork::Product { terms, .. } = &self.graph.values[id].work else {
                continue;
            };
            self.of_products[id] = true;
            for term in terms.iter().filter(|_| self.chunked[id]) {
                if let Source::Value(operand) = term.a.source {
                    self.of_products[operand] = true;
                }
            }
        }
    }

    /// Of a product in the steps, the terms with an input of the step, or with what is computed
    /// ahead of it, run ahead if nothing comes before them.
    fn find_early_terms(&mut self, id: usize) {
        let region = &self.region;
        if region[id] != Region::Step || self.target == Target::Fixed {
            return;
        }
        let RowWork::Product { terms, start } = &mut self.graph.values[id].work else {
            return;
        };
        if let Some(Source::Value(start)) = start.as_ref().map(|span| span.source) {
            if region[start] != Region::Ahead {
                return;
            }
            // It is computed where the product's result will be.
            self.chunked[start] = true;
            self.chunked[id] = true;
        }
        let is_early = |term: &Term| match term.a.source {
            Source::Input(_) => true,
            Source::Value(id) => region[id] == Region::Ahead,
            _ => false,
        };
        terms.sort_by_key(|term| !is_early(term));
        self.early[id] = terms.iter().filter(|term| is_early(term)).count();
    }

    /// Finds the number of products before each value. All of a region come before the next one's.
    pub(super) fn find_levels(&mut self) {
        let mut first = 0;
        for region in [Region::Ahead, Region::Step, Region::Behind] {
            let mut last = first;
            for id in 0..self.uses.len() {
                if self.uses[id] == 0 || self.region[id] != region {
                    continue;
                }
                let mut level = first;
                self.value(id).work.for_each_span(|span| {
                    if let Source::Value(operand) = span.source {
                        level = level.max(self.level[operand]);
                    }
                });
                self.level[id] = level + usize::from(self.is_product(id));
                last = last.max(self.level[id]);
            }
            first = last + 1;
            self.last[region as usize] = last;
        }
    }

    /// Assigns values to segments: as late as their users allow, but results as early as they can
    /// be, so that they need no segment of their own.
    pub(super) fn schedule(&mut self) {
        for (segment, region) in self.segment.iter_mut().zip(&self.region) {
            *segment = self.last[*region as usize];
        }
        for span in &self.graph.results {
            if let Source::Value(id) = span.source {
                self.segment[id] = self.level[id];
            }
        }
        for id in (0..self.uses.len()).rev() {
            if self.uses[id] == 0 {
                continue;
            }
            let mut limit = self.segment[id];
            if self.is_product(id) {
                self.segment[id] = self.level[id];
                limit = self.level[id] - 1;
            }
            self.graph.values[id].work.for_each_span(|span| {
                if let Source::Value(operand) = span.source {
                    self.segment[operand] = self.segment[operand].min(limit);
                }
            });
        }
    }
}
