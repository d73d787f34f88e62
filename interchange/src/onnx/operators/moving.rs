//! Operators that move elements, and repeat or pad them.

use backend_api::{Backend, Result, Shape, Tensor};

use super::{Call, ints, one};
use crate::onnx::value::{Ints, Value};

type Results<B> = Result<Vec<Value<B>>>;

pub(super) fn transpose<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let x = c.tensor(0)?;
    let rank = x.shape().rank();
    let order: Vec<usize> = match c.node.ints("perm")? {
        Some(perm) => perm
            .iter()
            .map(|&axis| c.axis(axis, rank))
            .collect::<Result<_>>()?,
        None => (0..rank).rev().collect(),
    };
    one(x.permute(&order)?)
}

/// Repeats a tensor along each axis.
pub(super) fn tile<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let mut x = c.tensor(0)?;
    let dims = x.dims().to_vec();
    let repeats = c.value(1)?.ints("repeats")?.values;
    let repeats = repeats.iter().map(|&n| c.size(n, "repeats"));
    let repeats: Vec<usize> = repeats.collect::<Result<_>>()?;
    if repeats.len() != dims.len() {
        let problem = format!("has x {} and repeats {repeats:?}", x.shape());
        return Err(c.node.wrong(problem));
    }
    let all = dims.iter().zip(&repeats);
    c.check_count(&all.map(|(d, n)| d.saturating_mul(*n)).collect::<Vec<_>>())?;
    for (axis, &count) in repeats.iter().enumerate().filter(|(_, count)| **count != 1) {
        let mut dims = x.dims().to_vec();
        let (mut tiled, length) = (dims.clone(), dims[axis]);
        tiled.insert(axis, count);
        dims[axis] = count * length;
        x = x.unsqueeze(axis)?.broadcast_to(&tiled)?.reshape(&dims)?;
    }
    one(x)
}

/// The numbers of elements before and after each axis are an attribute before version 11. Negative
/// ones are cut off.
pub(super) fn pad<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let mode = c.node.text("mode")?.unwrap_or("constant");
    if mode != "constant" {
        return Err(c.node.unsupported(format!("needs the mode `{mode}`")));
    }
    let mut x = c.tensor(0)?;
    let rank = x.shape().rank();
    let pads = c.list("pads", 1)?;
    let pads = pads.ok_or_else(|| c.node.wrong("has no pads"))?;
    let axes = match c.optional_ints(3)? {
        Some(axes) => axes.iter().map(|&axis| c.axis(axis, rank)).collect(),
        None => Ok((0..rank).collect::<Vec<_>>()),
    }?;
    let value = match c.optional_tensor(2)? {
        Some(value) => value.item()?,
        None => c.float("value", 0.0)?,
    };
    if pads.len() != 2 * axes.len() {
        return Err(c
            .node
            .wrong(format!("has {} pads for {rank} axes", pads.len())));
    }
    let mut paddings = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        let ends = [pads[i], pads[axes.len() + i]];
        let [first, cut] = ends.map(|n| n.min(0).unsigned_abs() as usize);
        let length = x.dims()[axis];
        let last = length.checked_sub(cut).filter(|&last| first <= last);
        let cut = || {
            c.node
                .wrong(format!("cuts {ends:?} off an axis of {length}"))
        };
        x = x.slice(axis, first..last.ok_or_else(cut)?)?;
        paddings[axis] = (ends[0].max(0) as usize, ends[1].max(0) as usize);
    }
    let dims = x.dims();
    let padded = dims.iter().zip(&paddings);
    let padded =
        padded.map(|(d, (before, after))| d.saturating_add(*before).saturating_add(*after));
    c.check_count(&padded.collect::<Vec<_>>())?;
    one(x.pad(&paddings, value)?)
}

/// Reverses the first elements of each row.
pub(super) fn reverse<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let x = c.tensor(0)?;
    let axis = |name: &str, default: i64| c.axis(c.int(name, default)?, x.shape().rank());
    one(x.reverse(&c.tensor(1)?, axis("time_axis", 0)?, axis("batch_axis", 1)?)?)
}

pub(super) fn expand<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let (x, wanted) = (c.tensor(0)?, c.value(1)?.ints("shape")?.values);
    let dims: Vec<usize> = wanted
        .iter()
        .map(|&d| c.size(d, "an axis of"))
        .collect::<Result<_>>()?;
    c.check_count(&dims)?;
    let wanted = Shape::new(&dims)?;
    let joint = x.shape().broadcast(&wanted);
    let joint = joint.ok_or_else(|| c.node.wrong(format!("expands {} to {wanted}", x.shape())))?;
    c.check_count(joint.dims())?;
    one(x.broadcast_to(joint.dims())?)
}

pub(super) fn concat<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let axis = c.node.int("axis")?.unwrap_or(1);
    if let Some(parts) = c.host()
        && let Some(first) = parts.first()
        && parts
            .iter()
            .all(|part| !part.scalar && part.dtype == first.dtype)
    {
        c.axis(axis, 1)?;
        c.check_count(&[parts.iter().map(|part| part.values.len()).sum()])?;
        let values = parts
            .iter()
            .flat_map(|part| part.values.iter().copied())
            .collect();
        return ints(Ints {
            values,
            ..(*first).clone()
        });
    }
    let parts: Vec<Tensor<B>> = (0..c.inputs.len())
        .map(|i| c.tensor(i))
        .collect::<Result<_>>()?;
    let mut dims = parts.first().map_or(vec![], |part| part.dims().to_vec());
    let axis = c.axis(axis, dims.len())?;
    let lengths = parts
        .iter()
        .filter_map(|part| part.dims().get(axis).copied());
    dims[axis] = lengths.fold(0, usize::saturating_add);
    c.check_count(&dims)?;
    one(Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)?)
}

pub(super) fn split<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let x = c.tensor(0)?;
    let axis = c.axis(c.int("axis", 0)?, x.shape().rank())?;
    let length = x.dims()[axis];
    let sizes: Vec<usize> = match c.list("split", 1)? {
        Some(sizes) => sizes
            .iter()
            .map(|&n| c.size(n, "a part of"))
            .collect::<Result<_>>()?,
        None => {
            let parts = c.node.outputs.len().max(1);
            let each = length.div_ceil(parts);
            (0..parts)
                .map(|i| each.min(length.saturating_sub(i * each)))
                .collect()
        }
    };
    let sum = sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    if sum != Some(length) {
        return Err(c
            .node
            .wrong(format!("splits an axis of {length} into {sizes:?}")));
    }
    let mut first = 0;
    let mut part = |size: usize| {
        first += size;
        x.slice(axis, first - size..first).map(Value::Tensor)
    };
    sizes.into_iter().map(&mut part).collect()
}
