//! Simplifies the graph of a gradient.
//!
//! Back-propagation adds the gradients of a value's parts into zeros, and copies gradients that are
//! views. Both are needed where values are buffers; in a graph a value can be read through any
//! layout.

use smallvec::{SmallVec, smallvec};

use super::graph::{Node, Operand, StepGraph, Value, Work};
use crate::{Binary, Error, Layout, Meta, Op, Result};

/// Where a result of the old graph is in the new one.
#[derive(Clone, Copy)]
struct Moved {
    /// The result as an operand.
    whole: Operand,
    /// A value whose elements are row-major and without gaps, for other layouts than the whole.
    plain: Value,
}

/// What a chain of additions adds into zeros.
struct Sum {
    /// Operands of the shape of the result.
    wholes: Vec<Operand>,
    /// The axis that the other operands are parts of: where each begins, and the operands that are
    /// added there.
    axis: usize,
    parts: Vec<(usize, SmallVec<[Operand; 2]>)>,
}

impl StepGraph {
    /// Replaces additions of parts into zeros by concatenations, and reads the operands of copies
    /// instead of copies.
    ///
    /// # Errors
    /// None, as the zeros between two parts are shorter than the value.
    pub fn simplify(&mut self) -> Result<()> {
        let old = std::mem::take(&mut self.nodes);
        let links = links(&old, self.results());
        let mut new: Vec<Node> = Vec::with_capacity(old.len());
        let mut at: Vec<SmallVec<[Moved; 3]>> = Vec::with_capacity(old.len());
        for (i, node) in old.iter().enumerate() {
            let sum = match links[i] {
                // The end of the chain stands for all of it.
                true => None,
                false => sum_of(&old, &links, i),
            };
            if let Some(sum) = sum {
                let whole = concatenation(&mut new, &at, node.results[0], sum)?;
                let plain = push(&mut new, Work::Op(Op::Copy), smallvec![whole], whole.meta());
                let plain = plain.value;
                at.push(smallvec![Moved { whole, plain }]);
                continue;
            }
            let operands: SmallVec<[Operand; 3]> =
                node.operands.iter().map(|o| renamed(&at, o)).collect();
            let place = new.len();
            let copied = (node.work == Work::Op(Op::Copy)).then(|| operands[0]);
            let results = node.results.iter().enumerate();
            at.push(
                results
                    .map(|(k, meta)| {
                        let plain = Value::Node(place, k);
                        let whole = copied.unwrap_or(Operand::whole(plain, *meta));
                        Moved { whole, plain }
                    })
                    .collect(),
            );
            new.push(Node {
                operands,
                ..node.clone()
            });
        }
        self.nodes = new;
        for results in [&mut self.outputs, &mut self.new_states, &mut self.sums] {
            for operand in results {
                *operand = renamed(&at, operand);
            }
        }
        Ok(())
    }
}

fn renamed(at: &[SmallVec<[Moved; 3]>], operand: &Operand) -> Operand {
    let Value::Node(node, k) = operand.value else {
        return *operand;
    };
    let moved = at[node][k];
    if operand.layout == Layout::contiguous(moved.whole.layout.shape()) {
        return moved.whole;
    }
    Operand {
        value: moved.plain,
        ..*operand
    }
}

fn push(
    nodes: &mut Vec<Node>,
    work: Work,
    operands: SmallVec<[Operand; 3]>,
    meta: Meta,
) -> Operand {
    nodes.push(Node {
        work,
        operands,
        results: smallvec![meta],
    });
    Operand::whole(Value::Node(nodes.len() - 1, 0), meta)
}

/// For each node, whether it is an addition of a part that only the next addition reads.
fn links<'a>(nodes: &[Node], results: impl Iterator<Item = &'a Operand>) -> Vec<bool> {
    let mut uses = vec![0usize; nodes.len()];
    let mut linked = vec![false; nodes.len()];
    for node in nodes {
        for (i, operand) in node.operands.iter().enumerate() {
            if let Value::Node(of, 0) = operand.value {
                uses[of] += 1;
                linked[of] = i == 0
                    && matches!(node.work, Work::AddAt(_))
                    && matches!(nodes[of].work, Work::AddAt(_));
            }
        }
    }
    for operand in results {
        if let Value::Node(of, _) = operand.value {
            uses[of] += 1;
        }
    }
    (0..nodes.len())
        .map(|i| linked[i] && uses[i] == 1)
        .collect()
}

/// What a chain of additions adds into zeros, if all parts are cut from one axis.
fn sum_of(nodes: &[Node], links: &[bool], end: usize) -> Option<Sum> {
    let meta = nodes[end].results[0];
    let rank = meta.shape.rank();
    let mut added: Vec<(Layout, Operand)> = Vec::new();
    let mut node = end;
    while let Work::AddAt(layout) = &nodes[node].work {
        added.push((*layout, nodes[node].operands[1]));
        match nodes[node].operands[0].value {
            Value::Node(before, 0) if links[before] => node = before,
            Value::Node(before, 0)
                if matches!(nodes[before].work, Work::Op(Op::Fill { value: 0.0, .. })) =>
            {
                break;
            }
            _ => {
                // A first summand in place of zeros.
                added.push((Layout::contiguous(meta.shape), nodes[node].operands[0]));
                break;
            }
        }
    }
    added.reverse();
    let whole = Layout::contiguous(meta.shape);
    if added.is_empty()
        || added
            .iter()
            .any(|(layout, _)| layout.shape().rank() != rank)
    {
        return None;
    }
    let (wholes, added): (Vec<_>, Vec<_>) = added.into_iter().partition(|(at, _)| *at == whole);
    let cut = |layout: &Layout| (0..rank).find(|&a| layout.shape()[a] != meta.shape[a]);
    let axis = match added.iter().find_map(|(layout, _)| cut(layout)) {
        Some(axis) => axis,
        None if added.is_empty() => rank.saturating_sub(1),
        None => return None,
    };
    let mut parts: Vec<(usize, SmallVec<[Operand; 2]>)> = Vec::new();
    for (layout, operand) in added {
        let start = layout.offset() / whole.strides()[axis].max(1);
        let len = layout.shape()[axis];
        if whole.slice(axis, start..start.checked_add(len)?).ok()? != layout {
            return None;
        }
        match parts.iter_mut().find(|(s, _)| *s == start) {
            Some((_, operands)) => operands.push(operand),
            None => parts.push((start, smallvec![operand])),
        }
    }
    parts.sort_by_key(|(start, _)| *start);
    let lens_agree = |operands: &[Operand]| {
        let len = |o: &Operand| o.layout.shape()[axis];
        operands.iter().all(|o| len(o) == len(&operands[0]))
    };
    let mut end = 0;
    for (start, operands) in &parts {
        if *start < end || !lens_agree(operands) {
            return None;
        }
        end = start + operands[0].layout.shape()[axis];
    }
    Some(Sum {
        wholes: wholes.into_iter().map(|(_, operand)| operand).collect(),
        axis,
        parts,
    })
}

/// The parts side by side, each with its part of the whole summands.
fn concatenation(
    new: &mut Vec<Node>,
    at: &[SmallVec<[Moved; 3]>],
    meta: Meta,
    sum: Sum,
) -> Result<Operand> {
    let Sum {
        wholes,
        axis,
        parts,
    } = sum;
    let add = |new: &mut Vec<Node>, sum: Operand, part: Operand| {
        let add = Work::Op(Op::Binary(Binary::Add));
        push(new, add, smallvec![sum, part], part.meta())
    };
    let wholes = wholes.iter().map(|o| renamed(at, o));
    let whole = wholes.reduce(|sum, part| add(new, sum, part));
    if let (Some(whole), []) = (whole, &parts[..]) {
        return Ok(whole);
    }
    let mut pieces: SmallVec<[Operand; 3]> = SmallVec::new();
    let mut end = 0;
    // A part of the whole summand, or zeros if there is none.
    let rest = |new: &mut Vec<Node>, start: usize, end: usize| match whole {
        Some(whole) => Ok(Operand {
            layout: whole.layout.slice(axis, start..end)?,
            ..whole
        }),
        None => {
            let meta = Meta::new(meta.shape.with(axis, end - start)?, meta.dtype);
            let fill = Op::Fill { value: 0.0, meta };
            Ok::<_, Error>(push(new, Work::Op(fill), smallvec![], meta))
        }
    };
    for (start, operands) in parts {
        if start > end {
            pieces.push(rest(new, end, start)?);
        }
        let operands = operands.iter().map(|o| renamed(at, o));
        let sum = operands.reduce(|sum, part| add(new, sum, part));
        if let Some(sum) = sum {
            end = start + sum.layout.shape()[axis];
            pieces.push(match whole {
                Some(_) => {
                    let first = rest(new, start, end)?;
                    add(new, first, sum)
                }
                None => sum,
            });
        }
    }
    if meta.shape[axis] > end {
        pieces.push(rest(new, end, meta.shape[axis])?);
    }
    Ok(match pieces[..] {
        [only] => only,
        _ => push(new, Work::Op(Op::Concat { axis }), pieces, meta),
    })
}
