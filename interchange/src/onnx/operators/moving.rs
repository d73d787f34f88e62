//! Operators that move elements, and those of shapes.

use backend_api::{Backend, Compare, DType, Result, Shape, Tensor};

use super::{Call, ints, one};
use crate::onnx::array;
use crate::onnx::value::{Ints, Value};

type Results<B> = Result<Vec<Value<B>>>;

pub(super) fn constant<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let node = c.node;
    if let Some(array) = node.tensor("value")? {
        return Ok(vec![Value::of(array, c.device)?]);
    }
    if let Some(values) = node.ints("value_ints")? {
        return ints(Ints::list(values.to_vec()));
    }
    if let Some(value) = node.int("value_int")? {
        return ints(Ints {
            scalar: true,
            ..Ints::list(vec![value])
        });
    }
    if let Some(values) = node.floats("value_floats")? {
        return one(Tensor::from_slice(c.device, values, &[values.len()])?);
    }
    match node.float("value_float")? {
        Some(value) => one(Tensor::scalar(c.device, value, DType::F32)?),
        None => Err(node.wrong("has no value")),
    }
}

pub(super) fn constant_of_shape<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let shape = c.value(0)?.ints("input 0")?.values;
    let dims: Vec<usize> = shape
        .iter()
        .map(|&d| c.size(d, "an axis of"))
        .collect::<Result<_>>()?;
    c.check_count(&dims)?;
    let value = match c.node.tensor("value")? {
        Some(array) => Value::of(array, c.device)?,
        None => Value::Tensor(Tensor::scalar(c.device, 0.0, DType::F32)?),
    };
    if value.dims().iter().product::<usize>() != 1 {
        return Err(c.node.wrong("has a value that is not one element"));
    }
    match value {
        Value::Ints(value) if dims.len() < 2 => ints(Ints {
            values: vec![value.values[0]; dims.iter().product()],
            scalar: dims.is_empty(),
            dtype: value.dtype,
        }),
        value => one(value.tensor(c.device)?.reshape(&[])?.broadcast_to(&dims)?),
    }
}

pub(super) fn shape<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let dims = c.value(0)?.dims();
    let rank = dims.len() as i64;
    let bound = |name: &str, default: i64| {
        let at = c.int(name, default)?;
        let counted = if at < 0 { at.saturating_add(rank) } else { at };
        Ok(counted.clamp(0, rank) as usize)
    };
    let (start, end) = (bound("start", 0)?, bound("end", rank)?);
    let part = dims.get(start..end).unwrap_or_default();
    ints(Ints::list(part.iter().map(|&d| d as i64).collect()))
}

/// Takes the elements of a value in another shape; integers stay on the host if they can.
fn reshaped<B: Backend>(c: &Call<'_, B>, dims: &[usize]) -> Results<B> {
    match c.value(0)? {
        Value::Ints(x) if dims.len() < 2 && dims.iter().product::<usize>() == x.values.len() => {
            ints(Ints {
                scalar: dims.is_empty(),
                ..x.clone()
            })
        }
        x => one(x.tensor(c.device)?.reshape(dims)?),
    }
}

pub(super) fn reshape<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let old = c.value(0)?.dims();
    let wanted = c.value(1)?.ints("shape")?.values;
    let keep = !c.node.flag("allowzero")?;
    let mut dims = Vec::with_capacity(wanted.len());
    let mut free = None;
    for (i, &d) in wanted.iter().enumerate() {
        dims.push(match d {
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            0 if keep => *old
                .get(i)
                .ok_or_else(|| c.node.wrong("keeps an axis that x lacks"))?,
            d => c.size(d, "an axis of")?,
        });
    }
    if let Some(free) = free {
        let (rest, count) = (Shape::new(&dims)?.count(), old.iter().product::<usize>());
        if rest == 0 || !count.is_multiple_of(rest) {
            return Err(c.node.wrong(format!("reshapes {old:?} to {wanted:?}")));
        }
        dims[free] = count / rest;
    }
    reshaped(c, &dims)
}

pub(super) fn flatten<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let dims = c.value(0)?.dims();
    let axis = c.int("axis", 1)?;
    let axis = if axis == dims.len() as i64 {
        dims.len()
    } else {
        c.axis(axis, dims.len())?
    };
    reshaped(
        c,
        &[dims[..axis].iter().product(), dims[axis..].iter().product()],
    )
}

pub(super) fn squeeze<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let mut dims = c.value(0)?.dims();
    let axes = match c.list("axes", 1)? {
        Some(axes) => c.axes(&axes, dims.len())?,
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    for &axis in axes.iter().rev() {
        if dims.remove(axis) != 1 {
            return Err(c
                .node
                .wrong(format!("squeezes axis {axis}, whose length is not 1")));
        }
    }
    reshaped(c, &dims)
}

pub(super) fn unsqueeze<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let mut dims = c.value(0)?.dims();
    let axes = c
        .list("axes", 1)?
        .ok_or_else(|| c.node.wrong("has no axes"))?;
    for axis in c.axes(&axes, dims.len() + axes.len())? {
        dims.insert(axis, 1);
    }
    reshaped(c, &dims)
}

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

pub(super) fn cast<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let to = c
        .node
        .int("to")?
        .and_then(|to| i32::try_from(to).ok())
        .unwrap_or(0);
    let to = array::dtype(to, &c.node.label())?;
    match c.value(0)? {
        Value::Ints(x) if to == DType::I64 || (to == x.dtype) => ints(Ints {
            dtype: to,
            ..x.clone()
        }),
        x => one(x.tensor(c.device)?.cast(to)?),
    }
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
    let rank = parts.first().map_or(0, |part| part.shape().rank());
    one(Tensor::concat(
        &parts.iter().collect::<Vec<_>>(),
        c.axis(axis, rank)?,
    )?)
}

/// Slices of an axis by index.
fn take<B: Backend>(x: &Tensor<B>, axis: usize, ids: &Tensor<B>) -> Result<Tensor<B>> {
    let rank = x.shape().rank();
    let front: Vec<usize> = [axis]
        .into_iter()
        .chain((0..rank).filter(|&a| a != axis))
        .collect();
    let rows = x.permute(&front)?.contiguous()?.gather(ids)?;
    // The axes of the ids come where the axis was.
    let width = ids.shape().rank();
    let order = (width..width + axis)
        .chain(0..width)
        .chain(width + axis..width + rank - 1);
    rows.permute(&order.collect::<Vec<_>>())
}

pub(super) fn gather<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let dims = c.value(0)?.dims();
    let axis = c.axis(c.int("axis", 0)?, dims.len())?;
    if let Some(result) = c.gather_on_host()? {
        return ints(result);
    }
    let x = c.tensor(0)?;
    let count = dims[axis];
    let ids = match c.value(1)? {
        Value::Ints(ids) => {
            let id = |&id: &i64| Ok(c.index(id, count)? as i64);
            let values: Vec<i64> = ids.values.iter().map(id).collect::<Result<_>>()?;
            if ids.scalar {
                return one(x.select(axis, values[0] as usize)?);
            }
            Tensor::from_slice(c.device, &values, &ids.dims())?
        }
        Value::Tensor(ids) => {
            let from_end = ids.add(count as i64)?;
            ids.compare(Compare::Lt, 0)?.select_from(&from_end, ids)?
        }
    };
    one(take(&x, axis, &ids)?)
}

/// The limits are attributes before version 10, and inputs after it.
pub(super) fn slice<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let dims = c.value(0)?.dims();
    let missing = || c.node.wrong("has no starts or ends");
    let starts = c.list("starts", 1)?.ok_or_else(missing)?;
    let ends = c.list("ends", 2)?.ok_or_else(missing)?;
    let axes = c.list("axes", 3)?;
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = c.optional_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(c
            .node
            .wrong("has starts, ends, axes and steps of different lengths"));
    }
    if let (Value::Ints(x), [start, ..]) = (c.value(0)?, &starts[..])
        && starts.len() == 1
        && !x.scalar
    {
        c.axis(axes[0], 1)?;
        let taken = indices(c, x.values.len(), *start, ends[0], steps[0])?;
        let values = taken.iter().map(|&i| x.values[i]).collect();
        return ints(Ints {
            values,
            ..x.clone()
        });
    }
    let mut x = c.tensor(0)?;
    for (i, &axis) in axes.iter().enumerate() {
        let axis = c.axis(axis, dims.len())?;
        let taken = indices(c, x.dims()[axis], starts[i], ends[i], steps[i])?;
        x = match (steps[i], taken.first()) {
            (_, None) => x.slice(axis, 0..0)?,
            (1, Some(&first)) => x.slice(axis, first..first + taken.len())?,
            _ => {
                let ids: Vec<i64> = taken.iter().map(|&i| i as i64).collect();
                take(&x, axis, &Tensor::from_slice(c.device, &ids, &[ids.len()])?)?
            }
        };
    }
    one(x)
}

/// The indices of a slice, as in Python.
fn indices<B: Backend>(
    c: &Call<'_, B>,
    length: usize,
    start: i64,
    end: i64,
    step: i64,
) -> Result<Vec<usize>> {
    let n = length as i64;
    let counted = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    let (start, end) = (counted(start), counted(end));
    let count = |distance: i64, step: u64| (distance.max(0) as u64).div_ceil(step) as usize;
    match step {
        0 => Err(c.node.wrong("has a step of 0")),
        1.. => {
            let (start, end) = (start.clamp(0, n), end.clamp(0, n));
            let count = count(end - start, step as u64);
            Ok((0..count)
                .map(|i| start as usize + i * step as usize)
                .collect())
        }
        _ => {
            let (start, end) = (start.clamp(-1, n - 1), end.clamp(-1, n - 1));
            let back = step.unsigned_abs();
            let count = count(start - end, back);
            Ok((0..count)
                .map(|i| start as usize - i * back as usize)
                .collect())
        }
    }
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
