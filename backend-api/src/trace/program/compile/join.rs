//! Products as sums of several terms.

use crate::Binary;
use smallvec::SmallVec;

use super::Builder;
use crate::trace::program::Target;
use crate::trace::program::instruction::Code;
use crate::trace::program::row_graph::{
    Matrix, Part, RowWork, Source, Span, Term, count, is_dense,
};

impl Builder {
    /// Splits products of a concatenation by operand, where that needs no concatenation, and adds
    /// to products what they are summed with. Finds the levels of the values.
    pub(super) fn join_products(&mut self) {
        self.find_stateful();
        for id in 0..self.graph.values.len() {
            if self.uses[id] == 0 {
                continue;
            }
            self.split_product(id);
            if let Some((terms, start)) = self.joined(id) {
                self.graph.values[id].work = RowWork::Product { terms, start };
            }
            let mut level = 0;
            self.value(id).work.for_each_span(|span| {
                if let Source::Value(operand) = span.source {
                    level = level.max(self.level[operand]);
                }
            });
            self.level[id] = level + usize::from(self.is_product(id));
        }
    }

    fn split_product(&mut self, id: usize) {
        let RowWork::Product { terms, .. } = &self.value(id).work else {
            return;
        };
        let Some((term, joined)) = terms
            .first()
            .and_then(|term| Some((term, self.whole(&term.a)?)))
        else {
            return;
        };
        let RowWork::Parts {
            parts,
            disjoint: true,
        } = &self.value(joined).work
        else {
            return;
        };
        let is_row = |part: &Part| {
            let source = part.from.source;
            let by_row = !matches!(source, Source::Captured(..) | Source::Constant(_));
            by_row && part.from.is_contiguous() && is_dense(&part.from.axes, &part.strides)
        };
        // Values are computed in place, as parts of the concatenation.
        let in_place = |part: &Part| {
            self.whole(&part.from)
                .is_some_and(|id| !self.is_product(id))
        };
        // A program with fixed memory rather copies the others than that it has two products.
        let stays = match self.target {
            Target::Any => parts.iter().all(in_place),
            Target::Fixed => parts.iter().any(in_place),
        };
        if self.uses[joined] > 1 || !parts.iter().all(is_row) || stays {
            return;
        }
        let whole = self.graph.matrices[term.matrix].clone();
        let mut parts = parts.clone();
        parts.sort_by_key(|part| part.at);
        let mut split = SmallVec::new();
        for part in parts {
            let range = part.at..part.at + count(&part.from.axes);
            let Ok(layout) = whole.layout.slice(0, range) else {
                return;
            };
            split.push(Term {
                a: part.from,
                matrix: self.graph.matrix(Matrix {
                    layout,
                    ..whole.clone()
                }),
            });
        }
        self.uses[joined] = 0;
        self.graph.values[id].work = RowWork::Product {
            terms: split,
            start: None,
        };
    }

    /// A sum with a product that is used once, as a product.
    fn joined(&mut self, id: usize) -> Option<(SmallVec<[Term; 2]>, Option<Span>)> {
        let value = self.value(id);
        let RowWork::Map {
            code: Code::Binary(Binary::Add),
            ins,
            ..
        } = &value.work
        else {
            return None;
        };
        let [a, b] = &**ins else { return None };
        let product = |span: &Span| {
            let id = self
                .whole(span)
                .filter(|&i| self.value(i).width == value.width)?;
            let RowWork::Product { terms, start } = &self.value(id).work else {
                return None;
            };
            (self.uses[id] == 1).then_some((id, terms, start))
        };
        let ((first, terms, start), (more, other), mut dead) = match (product(a), product(b)) {
            (Some(a), Some((id, terms, start))) => (a, (&**terms, start.as_ref()), vec![id]),
            (Some(a), None) => (a, (&[][..], Some(b)), vec![]),
            (None, Some(b)) => (b, (&[][..], Some(a)), vec![]),
            (None, None) => return None,
        };
        if start.is_some() && other.is_some() {
            return None;
        }
        if self.target == Target::Fixed {
            let fits = match dead.first() {
                // Otherwise one of them runs for all steps at once.
                Some(&second) => self.stateful[first] == self.stateful[second],
                // Instructions before the product compute its start as well as its operand.
                None => terms
                    .iter()
                    .all(|term| matches!(term.a.source, Source::Value(a) if self.stateful[a])),
            };
            if !fits {
                return None;
            }
        }
        if let Some(span) = other
            && dead.is_empty()
            && !self.may_start(span, first, value.width)
        {
            return None;
        }
        let terms = terms.iter().chain(more).cloned().collect();
        let start = start.as_ref().or(other).cloned();
        dead.push(first);
        for id in dead {
            self.uses[id] = 0;
        }
        Some((terms, start))
    }

    fn find_stateful(&mut self) {
        for id in 0..self.uses.len() {
            let mut stateful = false;
            self.value(id).work.for_each_span(|span| {
                stateful |= match span.source {
                    Source::State(_) => true,
                    Source::Value(operand) => self.stateful[operand],
                    _ => false,
                }
            });
            self.stateful[id] = stateful;
        }
    }

    /// Whether a product can begin with the value: one row that is captured, or a value that is
    /// computed where the product's result will be.
    fn may_start(&self, span: &Span, product: usize, width: usize) -> bool {
        match span.source {
            Source::Captured(..) if self.target == Target::Fixed => false,
            Source::Captured(_, 0) => count(&span.axes) == width && span.is_contiguous(),
            Source::Value(id) => {
                self.whole(span).is_some()
                    && self.value(id).width == width
                    && self.uses[id] == 1
                    && !self.is_product(id)
                    && self.level[id] < self.level[product]
            }
            _ => false,
        }
    }
}
