//! Operators along axes.

use backend_api::{Backend, DType, Result, Tensor};

use super::{Call, one};
use crate::onnx::value::Value;

pub(super) fn reduce<B: Backend>(
    c: &Call<'_, B>,
    f: impl Fn(&Tensor<B>, usize) -> Result<Tensor<B>>,
) -> Result<Vec<Value<B>>> {
    one(reduced(c, c.tensor(0)?, f)?)
}

/// The largest elements.
pub(super) fn max<B: Backend>(c: &Call<'_, B>) -> Result<Vec<Value<B>>> {
    let x = c.tensor(0)?;
    if x.dtype() == DType::Bool || x.shape().count() == 0 {
        let problem = format!("needs the largest element of {} {}", x.dtype(), x.shape());
        return Err(c.node.unsupported(problem));
    }
    one(reduced(c, x, Tensor::max)?)
}

/// The smallest elements.
pub(super) fn min<B: Backend>(c: &Call<'_, B>) -> Result<Vec<Value<B>>> {
    let x = c.tensor(0)?;
    if !x.dtype().is_float() || x.shape().count() == 0 {
        let problem = format!("needs the smallest element of {} {}", x.dtype(), x.shape());
        return Err(c.node.unsupported(problem));
    }
    one(reduced(c, x.neg()?, Tensor::max)?.neg()?)
}

/// The square root of the sum of squares.
pub(super) fn norm<B: Backend>(c: &Call<'_, B>) -> Result<Vec<Value<B>>> {
    one(reduced(c, c.tensor(0)?.square()?, Tensor::sum)?.sqrt()?)
}

/// Reduces axes, from the last to the first.
fn reduced<B: Backend>(
    c: &Call<'_, B>,
    mut x: Tensor<B>,
    f: impl Fn(&Tensor<B>, usize) -> Result<Tensor<B>>,
) -> Result<Tensor<B>> {
    let rank = x.shape().rank();
    let axes = c.list("axes", 1)?.unwrap_or_default();
    if axes.is_empty() && c.node.flag("noop_with_empty_axes")? {
        return Ok(x);
    }
    let axes = match axes.is_empty() {
        true => (0..rank).collect(),
        false => c.axes(&axes, rank)?,
    };
    let keep = c.int("keepdims", 1)? != 0;
    for &axis in axes.iter().rev() {
        x = f(&x, axis)?;
        if keep {
            x = x.unsqueeze(axis)?;
        }
    }
    Ok(x)
}

pub(super) fn arg_max<B: Backend>(c: &Call<'_, B>) -> Result<Vec<Value<B>>> {
    let x = c.tensor(0)?;
    if c.node.flag("select_last_index")? {
        return Err(c.node.unsupported("needs select_last_index = 1"));
    }
    let axis = c.axis(c.int("axis", 0)?, x.shape().rank())?;
    let index = x.argmax(axis)?;
    match c.int("keepdims", 1)? {
        0 => one(index),
        _ => one(index.unsqueeze(axis)?),
    }
}

/// Before version 13, all axes from the given one on are one.
pub(super) fn softmax<B: Backend>(
    c: &Call<'_, B>,
    f: impl Fn(&Tensor<B>, usize) -> Result<Tensor<B>>,
) -> Result<Vec<Value<B>>> {
    let x = c.tensor(0)?;
    let dims = x.dims();
    if c.opset >= 13 {
        let axis = c.axis(c.int("axis", -1)?, dims.len())?;
        return one(f(&x, axis)?);
    }
    let axis = c.axis(c.int("axis", 1)?, dims.len())?;
    let flat = [dims[..axis].iter().product(), dims[axis..].iter().product()];
    one(f(&x.reshape(&flat)?, 1)?.reshape(&dims)?)
}
