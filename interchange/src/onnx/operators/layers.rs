//! Products and normalization.

use backend_api::{Backend, Result, Shape, Tensor};

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
    let (a, b) = (operand(0, "transA")?, operand(1, "transB")?);
    let product = scaled(product(c, &a, &b)?, c.float("alpha", 1.0)?)?;
    let Some(addend) = c.optional_tensor(2)? else {
        return one(product);
    };
    c.check_broadcast(&[product.shape(), addend.shape()])?;
    one(product.add(&scaled(addend, c.float("beta", 1.0)?)?)?)
}

/// The product of matrices, with any leading axes; those of one operand broadcast.
fn product<B: Backend>(c: &Call<'_, B>, a: &Tensor<B>, b: &Tensor<B>) -> Result<Tensor<B>> {
    let (of_a, of_b) = (a.dims(), b.dims());
    let ([lead_a @ .., m, _], [lead_b @ .., _, n]) = (&of_a[..], &of_b[..]) else {
        let (a, b) = (a.shape(), b.shape());
        return Err(c.node.wrong(format!("multiplies {a} by {b}")));
    };
    let lead = c.check_broadcast(&[Shape::new(lead_a)?, Shape::new(lead_b)?])?;
    c.check_count(&[lead.dims(), &[*m, *n]].concat())?;
    if lead_b.is_empty() || lead_a == lead_b {
        return a.matmul(b);
    }
    let with = |dims: &[usize]| {
        let dims = [lead.dims(), &dims[dims.len() - 2..]].concat();
        c.check_count(&dims)?;
        Ok::<_, backend_api::Error>(dims)
    };
    a.broadcast_to(&with(&of_a)?)?
        .matmul(&b.broadcast_to(&with(&of_b)?)?)
}

/// NumPy's `matmul`: a vector is a matrix of one row or column; leading axes broadcast.
pub(super) fn matmul<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    let (row, column) = (a.shape().rank() == 1, b.shape().rank() == 1);
    let a = if row { a.unsqueeze(0)? } else { a };
    let b = if column { b.unsqueeze(1)? } else { b };
    let mut product = product(c, &a, &b)?;
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
    let epsilon = c.float("epsilon", f64::from(1e-5f32))?;
    let mean = rows.mean(1)?.unsqueeze(1)?;
    let factor = rows
        .var(1)?
        .affine(1.0, epsilon)?
        .sqrt()?
        .recip()?
        .unsqueeze(1)?;
    let normal = rows.sub(&mean)?.mul(&factor)?.reshape(&dims)?;
    c.check_broadcast(&[normal.shape(), scale.shape()])?;
    let mut y = normal.mul(&scale)?;
    if let Some(bias) = c.optional_tensor(2)? {
        c.check_broadcast(&[y.shape(), bias.shape()])?;
        y = y.add(&bias)?;
    }
    let mut of_rows = dims;
    of_rows[axis..].fill(1);
    let [mean, factor] = [mean, factor].map(|of| of.reshape(&of_rows).map(Value::Tensor));
    Ok(vec![Value::Tensor(y), mean?, factor?])
}

/// Each channel of each row has a mean of 0 and a variance of 1, before scale and bias.
pub(super) fn instance_norm<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let x = c.tensor(0)?;
    let dims = x.dims();
    let &[batch, channels, ref space @ ..] = &dims[..] else {
        return Err(c.node.wrong("has an input without channels"));
    };
    let rows = x.reshape(&[batch, channels, space.iter().product()])?;
    let epsilon = c.float("epsilon", f64::from(1e-5f32))?;
    let deviation = rows.var(2)?.affine(1.0, epsilon)?.sqrt()?.unsqueeze(2)?;
    let [scale, bias] = [1, 2].map(|i| c.tensor(i).and_then(|t| t.reshape(&[channels, 1])));
    let normal = rows.sub(&rows.mean(2)?.unsqueeze(2)?)?.div(&deviation)?;
    one(normal.mul(&scale?)?.add(&bias?)?.reshape(&dims)?)
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
