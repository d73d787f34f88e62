//! When values are computed.

use super::{Builder, Region};
use crate::trace::program::Target;
use crate::trace::program::row_graph::{RowWork, Source, Term};

impl Builder {
    /// Finds what runs ahead of the steps and what behind them.
    pub(super) fn find_regions(&mut self) {
        let n = self.uses.len();
        let outputs = self.graph.outputs.len();
        let reads = |builder: &Self, id: usize, f: &mut dyn FnMut(Source)| {
            builder.value(id).work.for_each_span(|span| f(span.source));
        };
        let mut needed = vec![false; n];
        for span in &self.graph.results[outputs..] {
            if let Source::Value(id) = span.source {
                needed[id] = true;
            }
        }
        for id in (0..n).rev().filter(|&id| self.uses[id] > 0) {
            if needed[id] {
                reads(self, id, &mut |source| {
                    if let Source::Value(operand) = source {
                        needed[operand] = true;
                    }
                });
            }
        }
        for id in (0..n).filter(|&id| self.uses[id] > 0) {
            let (mut state, mut behind) = (false, false);
            reads(self, id, &mut |source| match source {
                Source::State(_) => state = true,
                Source::Value(operand) => {
                    behind |= self.region[operand] == Region::Behind;
                }
                _ => {}
            });
            let product = self.is_product(id);
            if product && !self.stateful[id] {
                self.region[id] = Region::Ahead;
            } else if behind || (product && !needed[id] && !state) {
                self.region[id] = Region::Behind;
            }
        }
        // A state is known for one step only, so that nothing that reads one runs behind.
        let mut reads_state = false;
        for id in (0..n).filter(|&id| self.region[id] == Region::Behind) {
            reads(self, id, &mut |source| {
                reads_state |= matches!(source, Source::State(_))
            });
        }
        if reads_state {
            for region in self.region.iter_mut().filter(|r| **r == Region::Behind) {
                *region = Region::Step;
            }
        }
        // What products ahead read is computed ahead.
        for id in (0..n).rev().filter(|&id| self.uses[id] > 0) {
            if self.region[id] == Region::Ahead {
                let mut operands = Vec::new();
                reads(self, id, &mut |source| {
                    if let Source::Value(operand) = source {
                        operands.push(operand);
                    }
                });
                for operand in operands {
                    self.region[operand] = Region::Ahead;
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
        if let Some(Source::Value(_)) = start.as_ref().map(|span| span.source) {
            return;
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
            first = last;
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
