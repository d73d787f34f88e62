//! Operators that compute each element from those at the same place.

use backend_api::{Backend, Compare, DType, Result, Tensor};

use super::{Call, ints, one};
use crate::onnx::recurrent::Function;
use crate::onnx::value::Value;

type Results<B> = Result<Vec<Value<B>>>;

/// An operator of two or more tensors, and of integers on the host.
fn binary<B: Backend>(
    c: &Call<'_, B>,
    host: impl Fn(i64, i64) -> Option<i64>,
    device: impl Fn(&Tensor<B>, &Tensor<B>) -> Result<Tensor<B>>,
) -> Results<B> {
    if let Some(result) = c.on_host(None, host)? {
        return ints(result);
    }
    let mut result = c.tensor(0)?;
    for i in 1..c.inputs.len() {
        let other = c.tensor(i)?;
        c.check_broadcast(&[result.shape(), other.shape()])?;
        result = device(&result, &other)?;
    }
    one(result)
}

pub(super) fn add<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    binary(c, i64::checked_add, |a, b| a.add(b))
}

pub(super) fn sub<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    binary(c, i64::checked_sub, |a, b| a.sub(b))
}

pub(super) fn mul<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    binary(c, i64::checked_mul, |a, b| a.mul(b))
}

pub(super) fn div<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    binary(c, i64::checked_div, |a, b| {
        if a.dtype().is_float() {
            return a.div(b);
        }
        Err(c
            .node
            .unsupported(format!("needs the division of {} tensors", a.dtype())))
    })
}

pub(super) fn max<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    binary(c, |a, b| Some(a.max(b)), |a, b| a.maximum(b))
}

pub(super) fn min<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    binary(c, |a, b| Some(a.min(b)), |a, b| a.minimum(b))
}

/// `and` and `or`
pub(super) fn logic<B: Backend>(
    c: &Call<'_, B>,
    f: impl Fn(&Tensor<B>, &Tensor<B>) -> Result<Tensor<B>>,
) -> Results<B> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    c.check_broadcast(&[a.shape(), b.shape()])?;
    one(f(&a, &b)?)
}

pub(super) fn compare<B: Backend>(
    c: &Call<'_, B>,
    f: Compare,
    host: impl Fn(i64, i64) -> bool,
) -> Results<B> {
    let host = |a, b| Some(i64::from(host(a, b)));
    if let Some(result) = c.on_host(Some(DType::Bool), host)? {
        return ints(result);
    }
    let number = |tensor: Tensor<B>| match tensor.dtype() {
        DType::Bool => tensor.cast(DType::U8),
        _ => Ok(tensor),
    };
    let (a, b) = (number(c.tensor(0)?)?, number(c.tensor(1)?)?);
    c.check_broadcast(&[a.shape(), b.shape()])?;
    one(a.compare(f, &b)?)
}

pub(super) fn select<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    if let Some(result) = c.select_on_host()? {
        return ints(result);
    }
    let [condition, a, b] = [c.tensor(0)?, c.tensor(1)?, c.tensor(2)?];
    c.check_broadcast(&[condition.shape(), a.shape(), b.shape()])?;
    one(condition.select_from(&a, &b)?)
}

/// The exponent may have another type than the base, and is often a constant.
pub(super) fn pow<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    if let Some(result) = c.on_host(None, |a, b| a.checked_pow(b.try_into().ok()?))? {
        return ints(result);
    }
    let base = c.tensor(0)?;
    if !base.dtype().is_float() {
        return Err(c
            .node
            .unsupported(format!("needs powers of {} tensors", base.dtype())));
    }
    let exponent = c.tensor(1)?;
    // A number takes the short path for whole exponents, and keeps their sign rules.
    if exponent.shape().rank() == 0 && !exponent.is_recorded() {
        return one(base.pow(exponent.item()?)?);
    }
    c.check_broadcast(&[base.shape(), exponent.shape()])?;
    one(base.pow(&exponent.cast(base.dtype())?)?)
}

/// `x`, or `slope x` where `x < 0`.
pub(super) fn prelu<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let (x, slope) = (c.tensor(0)?, c.tensor(1)?);
    c.check_broadcast(&[x.shape(), slope.shape()])?;
    one(x.relu()?.sub(&slope.mul(&x.neg()?.relu()?)?)?)
}

pub(super) fn selu<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let alpha = c.float("alpha", 1.673_263_192_176_818_8)?;
    let gamma = c.float("gamma", 1.050_701_022_148_132_3)?;
    c.unary(|x| Function::Elu(alpha).of(x)?.affine(gamma, 0.0))
}

/// The limits are attributes before version 11, and inputs after it.
pub(super) fn clip<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let mut x = c.tensor(0)?;
    let bound = |name: &str, input: usize| match c.node.float(name)? {
        Some(bound) => Tensor::scalar(c.device, bound, x.dtype()).map(Some),
        // Some exporters write a list of one number.
        None => {
            let bound = c.optional_tensor(input)?;
            bound.map(|bound| bound.reshape(&[])).transpose()
        }
    };
    let (min, max) = (bound("min", 1)?, bound("max", 2)?);
    if let Some(min) = min {
        x = x.maximum(&min)?;
    }
    if let Some(max) = max {
        x = x.minimum(&max)?;
    }
    one(x)
}
