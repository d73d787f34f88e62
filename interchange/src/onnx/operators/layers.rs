//! Products and normalization.

use backend_api::{Backend, Result, Tensor};

use super::{Call, one};
use crate::onnx::value::Value;

type Results<B> = Result<Vec<Value<B>>>;

/// `alpha a b + beta c`
pub(super) fn gemm<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let operand = |i: usize, turned: &str| {
        let x = c.tensor(i)?;
        if c.node.flag(turned)? {
            x.transpose(0, 1)
        } else {
            Ok(x)
        }
    };
    let scaled = |x: Tensor<B>, factor: f64| {
        if factor == 1.0 {
            Ok(x)
        } else {
            x.affine(factor, 0.0)
        }
    };
    let product = operand(0, "transA")?.matmul(&operand(1, "transB")?)?;
    let product = scaled(product, c.float("alpha", 1.0)?)?;
    match c.optional_tensor(2)? {
        Some(addend) => one(product.add(&scaled(addend, c.float("beta", 1.0)?)?)?),
        None => one(product),
    }
}

/// NumPy's `matmul`: a vector is a matrix of one row or column; leading axes broadcast.
pub(super) fn matmul<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    let (row, column) = (a.shape().rank() == 1, b.shape().rank() == 1);
    let mut a = if row { a.unsqueeze(0)? } else { a };
    let mut b = if column { b.unsqueeze(1)? } else { b };
    let (of_a, of_b) = (a.dims(), b.dims());
    let lead = |dims: &[usize]| dims[..dims.len().saturating_sub(2)].to_vec();
    if lead(&of_a) != lead(&of_b) && of_b.len() > 2 {
        let shape = |dims: &[usize]| backend_api::Shape::new(&lead(dims));
        let (lead_a, lead_b) = (shape(&of_a)?, shape(&of_b)?);
        let joint = lead_a.broadcast(&lead_b).ok_or_else(|| {
            c.node
                .wrong(format!("multiplies {} by {}", a.shape(), b.shape()))
        })?;
        let with = |dims: &[usize]| [joint.dims(), &dims[dims.len() - 2..]].concat();
        a = a.broadcast_to(&with(&of_a))?;
        b = b.broadcast_to(&with(&of_b))?;
    }
    let mut product = a.matmul(&b)?;
    if column {
        let last = product.shape().rank() - 1;
        product = product.reshape(&product.dims()[..last])?;
    }
    if row {
        let mut dims = product.dims();
        dims.remove(dims.len() - if column { 1 } else { 2 });
        product = product.reshape(&dims)?;
    }
    one(product)
}

/// Nothing is dropped in inference.
pub(super) fn dropout<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let training = match c.optional(2) {
        Some(value) => value.tensor(c.device)?.item()? != 0.0,
        None => false,
    };
    match training {
        true => Err(c.node.unsupported("needs training_mode = true")),
        false => Ok(vec![c.value(0)?.clone()]),
    }
}

pub(super) fn layer_norm<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let (x, scale) = (c.tensor(0)?, c.tensor(1)?);
    let dims = x.dims();
    let axis = c.axis(c.int("axis", -1)?, dims.len())?;
    let flat = [dims[..axis].iter().product(), dims[axis..].iter().product()];
    let rows = x.reshape(&flat)?;
    let centred = rows.sub(&rows.mean(1)?.unsqueeze(1)?)?;
    let epsilon = c.float("epsilon", f64::from(1e-5f32))?;
    let deviation = rows.var(1)?.affine(1.0, epsilon)?.sqrt()?.unsqueeze(1)?;
    let normal = centred.div(&deviation)?.reshape(&dims)?.mul(&scale)?;
    match c.optional_tensor(2)? {
        Some(bias) => one(normal.add(&bias)?),
        None => one(normal),
    }
}

pub(super) fn batch_norm<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    if c.node.flag("training_mode")? || c.int("spatial", 1)? == 0 {
        return Err(c.node.unsupported("needs training_mode = 1 or spatial = 0"));
    }
    let x = c.tensor(0)?;
    let mut dims = vec![1; x.shape().rank()];
    let channels = x.dims().get(1).copied();
    let channels = channels.ok_or_else(|| c.node.wrong("has an input without channels"))?;
    dims[1] = channels;
    let [scale, bias, mean, variance] =
        [1, 2, 3, 4].map(|i| c.tensor(i).and_then(|tensor| tensor.reshape(&dims)));
    let epsilon = c.float("epsilon", f64::from(1e-5f32))?;
    let factor = scale?.div(&variance?.affine(1.0, epsilon)?.sqrt()?)?;
    one(x.sub(&mean?)?.mul(&factor)?.add(&bias?)?)
}
