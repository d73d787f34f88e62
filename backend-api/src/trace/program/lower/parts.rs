//! Values that are written part by part.

use crate::trace::graph::{Node, Value};
use crate::{Binary, Layout};
use smallvec::smallvec;

use super::{Known, Lowering, Sparse, lies_within};
use crate::trace::program::instruction::Code;
use crate::trace::program::row_graph::{
    Axes, Part, RowWork, Source, Span, count, for_each_index, row_major,
};

impl Lowering<'_> {
    /// `dst`, with `src` added to the elements that a layout selects. Parts that are added to
    /// zeros are written, not added, so that `-0.0` stays.
    pub(super) fn add_at(&mut self, node: &Node, at: &Layout) -> Result<Known, String> {
        let [dst, src] = &*node.operands else {
            return Err("it has not two operands".to_owned());
        };
        let shape = dst.layout.shape();
        let axes = self.row_axes(shape)?;
        let width = count(&axes);
        let whole = self.operand(dst)?;
        let src = self.broadcast(src, at.shape())?;
        let rank = at.shape().rank() - src.axes.len();
        let by_row = if self.out.batch == 1 {
            width
        } else {
            at.strides()[0]
        };
        if (self.out.batch > 1 && by_row != width) || !lies_within(at, rank, width) {
            return Err(format!("{at:?} of {shape} mixes rows of the batch"));
        }
        let place = Part {
            from: src,
            at: at.offset(),
            strides: at.strides()[rank..].into(),
        };
        let mut before = match whole.source {
            Source::Constant(i) if self.out.constants[i] == 0.0 => Some(Sparse {
                parts: Vec::new(),
                covered: vec![false; width],
            }),
            Source::Value(i) if whole.is_whole(self.out.values[i].width) => match dst.value {
                // Its last use takes the parts along.
                Value::Node(node, _) if self.uses[node] == 1 => self.sparse[i].take(),
                _ => None,
            },
            _ => None,
        };
        if let Some(sparse) = &mut before
            && !cover(&mut sparse.covered, &place)
        {
            // The part lies over another one.
            before = None;
        }
        let Some(mut sparse) = before else {
            let selected = Span {
                source: whole.source,
                offset: whole.offset
                    + if let Source::Constant(_) = whole.source {
                        0
                    } else {
                        place.at
                    },
                axes: place.from.axes.clone(),
                strides: place.strides.clone(),
            };
            return self.add_over(&axes, whole, selected, place);
        };
        sparse.parts.push(place);
        let mut parts = sparse.parts.clone();
        // Zeros between the parts.
        let source = self.constant(0.0);
        let mut start = 0;
        for run in sparse.covered.chunk_by(|a, b| a == b) {
            if !run[0] {
                parts.push(Part {
                    from: Span {
                        source,
                        offset: 0,
                        axes: smallvec![run.len()],
                        strides: smallvec![0],
                    },
                    at: start,
                    strides: smallvec![1],
                });
            }
            start += run.len();
        }
        let work = RowWork::Parts {
            parts,
            disjoint: true,
        };
        let known = self.add(width, work);
        if let Some(last) = self.sparse.last_mut() {
            *last = Some(sparse);
        }
        Ok(known)
    }

    fn add_over(
        &mut self,
        axes: &Axes,
        whole: Span,
        mut selected: Span,
        place: Part,
    ) -> Result<Known, String> {
        if !whole.is_contiguous() {
            let copy = self.map(Code::Copy, [&whole]);
            selected.source = copy.source;
            selected.offset = place.at;
            return self.add_over(axes, copy, selected, place);
        }
        let sum = self.binary(Binary::Add, &selected, &place.from);
        let width = count(axes);
        if count(&sum.axes) == width && place.at == 0 && place.strides == row_major(&sum.axes) {
            return Ok((sum.source, 0));
        }
        let parts = vec![
            Part {
                strides: row_major(&whole.axes),
                from: whole,
                at: 0,
            },
            Part { from: sum, ..place },
        ];
        let work = RowWork::Parts {
            parts,
            disjoint: false,
        };
        Ok(self.add(width, work))
    }
}

/// Marks the elements of a part; whether none was marked before.
fn cover(covered: &mut [bool], part: &Part) -> bool {
    let mut free = true;
    for_each_index(&part.from.axes, &part.strides, part.at, &mut |i| {
        free &= !covered[i];
        covered[i] = true;
    });
    free
}
