//! Operators that compute each element from those at the same place.

use backend_api::{Backend, Compare, DType, Result, Tensor};

use super::{Call, ints, one};
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
        result = device(&result, &c.tensor(i)?)?;
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

pub(super) fn equal<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    if let Some(result) = c.on_host(Some(DType::Bool), |a, b| Some(i64::from(a == b)))? {
        return ints(result);
    }
    let number = |tensor: Tensor<B>| match tensor.dtype() {
        DType::Bool => tensor.cast(DType::U8),
        _ => Ok(tensor),
    };
    one(number(c.tensor(0)?)?.compare(Compare::Eq, &number(c.tensor(1)?)?)?)
}

pub(super) fn select<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    match c.select_on_host()? {
        Some(result) => ints(result),
        None => one(c.tensor(0)?.select_from(&c.tensor(1)?, &c.tensor(2)?)?),
    }
}

/// The exponent may have another type than the base, and is often a constant.
pub(super) fn pow<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let base = c.tensor(0)?;
    let exponent = c.tensor(1)?;
    // A number takes the short path for whole exponents, and keeps their sign rules.
    if exponent.shape().rank() == 0 && !exponent.is_recorded() {
        return one(base.pow(exponent.item()?)?);
    }
    one(base.pow(&exponent.cast(base.dtype())?)?)
}

/// The limits are attributes before version 11, and inputs after it.
pub(super) fn clip<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let mut x = c.tensor(0)?;
    let bound = |name: &str, input: usize| match c.node.float(name)? {
        Some(bound) => Tensor::scalar(c.device, bound, x.dtype()).map(Some),
        None => c.optional_tensor(input),
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
