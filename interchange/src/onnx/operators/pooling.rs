//! Pools: the largest element of each window, or the mean.

use backend_api::{Backend, Result, Tensor};

use super::convolution::{Window, every, padded, windows};
use super::{Call, one};
use crate::onnx::value::Value;

type Results<B> = Result<Vec<Value<B>>>;

pub(super) fn max_pool<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let x = c.tensor(0)?;
    if !x.dtype().is_float() {
        return Err(c
            .node
            .unsupported(format!("needs windows of {} tensors", x.dtype())));
    }
    let windows = of_node(c, &x)?;
    let x = padded(c, &x, &windows, f64::NEG_INFINITY)?;
    one(joined(&x, &windows, |a, b| a.maximum(b))?)
}

pub(super) fn average_pool<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let x = c.tensor(0)?;
    let windows = of_node(c, &x)?;
    let sums = |x: &Tensor<B>| {
        let x = padded(c, x, &windows, 0.0)?;
        joined(&x, &windows, |a, b| a.add(b))
    };
    if c.node.flag("count_include_pad")? {
        if c.node.flag("ceil_mode")? {
            return Err(c
                .node
                .unsupported("needs count_include_pad = 1 with ceil_mode = 1"));
        }
        let size: usize = windows.iter().map(|w| w.size).product();
        return one(sums(&x)?.affine(1.0 / size as f64, 0.0)?);
    }
    // The padding does not count.
    let space = [&[1, 1], &x.dims()[2..]].concat();
    let counts = sums(&Tensor::ones(c.device, (&space[..], x.dtype()))?)?;
    one(sums(&x)?.div(&counts)?)
}

/// Reduces all axes after those of the batch and the channels.
pub(super) fn global<B: Backend>(
    c: &Call<'_, B>,
    f: impl Fn(&Tensor<B>, usize) -> Result<Tensor<B>>,
) -> Results<B> {
    let mut x = c.tensor(0)?;
    for axis in 2..x.shape().rank() {
        x = f(&x, axis)?.unsqueeze(axis)?;
    }
    one(x)
}

fn of_node<B: Backend>(c: &Call<'_, B>, x: &Tensor<B>) -> Result<Vec<Window>> {
    let shape = c.node.ints("kernel_shape")?.unwrap_or_default();
    let sizes = shape.iter().map(|&n| c.size(n, "a window of"));
    let sizes = sizes.collect::<Result<Vec<_>>>()?;
    let dims = x.dims();
    if sizes.is_empty() || dims.len() != sizes.len() + 2 || dims.contains(&0) {
        let x = x.shape();
        let problem = format!("has x {x} and kernel_shape {shape:?}");
        return Err(c.node.wrong(problem));
    }
    let mut windows = windows(c, &dims[2..], &sizes)?;
    if c.node.flag("ceil_mode")? {
        windows.iter_mut().for_each(Window::ceil);
    }
    Ok(windows)
}

/// Joins the elements of each window, axis by axis.
fn joined<B: Backend>(
    x: &Tensor<B>,
    windows: &[Window],
    join: impl Fn(&Tensor<B>, &Tensor<B>) -> Result<Tensor<B>>,
) -> Result<Tensor<B>> {
    let mut x = x.clone();
    for (i, window) in windows.iter().enumerate() {
        let part = |place: usize| every(&x, i + 2, place * window.dilation, *window);
        let first = part(0)?;
        x = (1..window.size).try_fold(first, |all, place| join(&all, &part(place)?))?;
    }
    Ok(x)
}
