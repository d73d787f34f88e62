//! Constants, element types and shapes, which stay on the host if they can.

use backend_api::{Backend, DType, Result, Shape, Tensor};

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
        x => {
            // An empty value has any axes besides the one of length 0.
            c.check_count(dims)?;
            one(x.tensor(c.device)?.reshape(dims)?)
        }
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

/// `start`, `start + step`, .. up to the limit.
pub(super) fn range<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let dtype = c.tensor(0)?.dtype();
    let number = |i: usize| c.tensor(i)?.item();
    let (start, end, step) = (number(0)?, number(1)?, number(2)?);
    let count = ((end - start) / step).ceil();
    if count.is_nan() {
        return Err(c.node.wrong("has a step of 0 or a number that is NaN"));
    }
    let count = count.max(0.0) as usize;
    c.check_count(&[count])?;
    let numbers: Vec<f64> = (0..count).map(|i| start + i as f64 * step).collect();
    if c.host().is_some() {
        let values = numbers.iter().map(|&x| x as i64).collect();
        return ints(Ints {
            dtype,
            ..Ints::list(values)
        });
    }
    one(Tensor::from_slice(c.device, &numbers, &[count])?.cast(dtype)?)
}

/// Whether integers are the same as another type.
fn stays(x: &Ints, to: DType) -> bool {
    to == x.dtype
        || to == DType::I64
        || to == DType::I32 && x.values.iter().all(|&i| i32::try_from(i).is_ok())
}

pub(super) fn cast<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let to = c
        .node
        .int("to")?
        .and_then(|to| i32::try_from(to).ok())
        .unwrap_or(0);
    let to = array::dtype(to, &c.node.label())?;
    match c.value(0)? {
        Value::Ints(x) if stays(x, to) => ints(Ints {
            dtype: to,
            ..x.clone()
        }),
        x => one(x.tensor(c.device)?.cast(to)?),
    }
}
