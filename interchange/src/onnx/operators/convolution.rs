//! Convolution as a product of windows.

use backend_api::{Backend, Result, Tensor};

use super::{Call, one};
use crate::onnx::value::Value;

/// The window of one spatial axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) size: usize,
    stride: usize,
    pub(super) dilation: usize,
    length: usize,
    before: usize,
    after: usize,
    /// The number of positions.
    positions: usize,
}

impl Window {
    /// Adds a position for the elements behind the last one, which a stride leaves over.
    pub(super) fn ceil(&mut self) {
        let next = self.positions * self.stride;
        let whole = self.before + self.length + self.after;
        let extent = (self.size - 1) * self.dilation + 1;
        // The window must not begin in the padding.
        if next < self.before + self.length && next + extent - self.stride < whole {
            self.positions += 1;
            self.after += next + extent - whole;
        }
    }
}

/// `(x: [N, C, space..], w: [M, C / group, window..], bias: [M])`, with one or more spatial axes.
pub(super) fn conv<B: Backend>(c: &Call<'_, B>) -> Result<Vec<Value<B>>> {
    let (x, w) = (c.tensor(0)?, c.tensor(1)?);
    let (of_x, of_w) = (x.dims(), w.dims());
    let groups = c.size(c.int("group", 1)?, "group")?;
    let fits = of_x.len() == of_w.len()
        && of_x.len() > 2
        && groups > 0
        && of_w[0] > 0
        && of_w[1] > 0
        && of_w[0].is_multiple_of(groups)
        && of_w[1].checked_mul(groups) == Some(of_x[1]);
    if !fits {
        let (x, w) = (x.shape(), w.shape());
        return Err(c
            .node
            .wrong(format!("has x {x} and w {w} with {groups} groups")));
    }
    let windows = windows(c, &of_x[2..], &of_w[2..])?;
    let space: Vec<usize> = windows.iter().map(|w| w.positions).collect();
    let cells: usize = of_w[2..].iter().product();
    c.check_count(&[&[of_x[0], of_x[1], cells], &space[..]].concat())?;
    let padded = padded(c, &x, &windows, 0.0)?;
    let (inputs, outputs) = (of_w[1], of_w[0] / groups);
    let mut parts = Vec::with_capacity(groups);
    for group in 0..groups {
        let x = padded.slice(1, group * inputs..(group + 1) * inputs)?;
        let w = w.slice(0, group * outputs..(group + 1) * outputs)?;
        parts.push(product(&x, &w, &windows)?);
    }
    let mut y = Tensor::concat(&parts.iter().collect::<Vec<_>>(), 2)?;
    if let Some(bias) = c.optional_tensor(2)? {
        y = y.add(&bias)?;
    }
    let dims = [&[of_x[0], of_w[0]], &space[..]].concat();
    one(y.transpose(1, 2)?.reshape(&dims)?)
}

/// `[N, positions, M]` of one group.
fn product<B: Backend>(x: &Tensor<B>, w: &Tensor<B>, windows: &[Window]) -> Result<Tensor<B>> {
    let mut parts = vec![x.clone()];
    for (i, window) in windows.iter().enumerate() {
        let mut shifted = Vec::with_capacity(parts.len() * window.size);
        for part in &parts {
            for place in 0..window.size {
                shifted.push(every(part, i + 2, place * window.dilation, *window)?);
            }
        }
        parts = shifted;
    }
    let columns = Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1)?;
    let (rows, positions) = (x.dims()[0], windows.iter().map(|w| w.positions).product());
    let width = columns.dims()[1];
    let columns = columns
        .reshape(&[rows, width, positions])?
        .transpose(1, 2)?;
    let order: Vec<usize> = (2..w.shape().rank()).chain([1, 0]).collect();
    let kernel = w.permute(&order)?.reshape(&[width, w.dims()[0]])?;
    columns.matmul(&kernel)
}

/// Every `stride`-th slice of an axis from `first` on.
pub(super) fn every<B: Backend>(
    x: &Tensor<B>,
    axis: usize,
    first: usize,
    w: Window,
) -> Result<Tensor<B>> {
    let part = x.slice(axis, first..first + w.positions * w.stride)?;
    if w.stride == 1 {
        return Ok(part);
    }
    let mut dims = part.dims().to_vec();
    dims.splice(axis..=axis, [w.positions, w.stride]);
    part.reshape(&dims)?.select(axis + 1, 0)
}

/// The input with a value around it, and `stride - 1` more at the end, which `every` cuts off.
pub(super) fn padded<B: Backend>(
    c: &Call<'_, B>,
    x: &Tensor<B>,
    windows: &[Window],
    value: f64,
) -> Result<Tensor<B>> {
    let space = windows.iter().map(|w| (w.before, w.after + w.stride - 1));
    let paddings: Vec<(usize, usize)> = [(0, 0); 2].into_iter().chain(space).collect();
    let dims = x.dims();
    let padded = dims
        .iter()
        .zip(&paddings)
        .map(|(d, (before, after))| d + before + after);
    c.check_count(&padded.collect::<Vec<_>>())?;
    match paddings.iter().all(|&pair| pair == (0, 0)) {
        true => Ok(x.clone()),
        false => x.pad(&paddings, value),
    }
}

/// The windows of all axes, checked: every number is at most `max_elements`, so sums fit.
pub(super) fn windows<B: Backend>(
    c: &Call<'_, B>,
    space: &[usize],
    kernel: &[usize],
) -> Result<Vec<Window>> {
    let count = space.len();
    let list = |name: &str, default: i64, needed: usize, least: i64| {
        let given = c
            .node
            .ints(name)?
            .map_or_else(|| vec![default; needed], <[i64]>::to_vec);
        let fits = |&n: &i64| n >= least && n <= c.max_elements as i64;
        if given.len() != needed || !given.iter().all(fits) {
            return Err(c.node.wrong(format!("has {name} {given:?}")));
        }
        Ok(given
            .into_iter()
            .map(|n| n as usize)
            .collect::<Vec<usize>>())
    };
    if let Some(shape) = c.node.ints("kernel_shape")?
        && !shape.iter().map(|&n| n as usize).eq(kernel.iter().copied())
    {
        return Err(c
            .node
            .wrong(format!("has kernel_shape {shape:?}, but w has {kernel:?}")));
    }
    let (strides, dilations) = (
        list("strides", 1, count, 1)?,
        list("dilations", 1, count, 1)?,
    );
    let pads = list("pads", 0, 2 * count, 0)?;
    let auto = c.node.text("auto_pad")?.unwrap_or("NOTSET");
    let mut windows = Vec::with_capacity(count);
    for (i, (&length, &size)) in space.iter().zip(kernel).enumerate() {
        let (stride, dilation) = (strides[i], dilations[i]);
        let none = size == 0 || dilation.checked_mul(size).is_none();
        let extent = if none { 0 } else { (size - 1) * dilation + 1 };
        let same =
            (length.div_ceil(stride).saturating_sub(1) * stride + extent).saturating_sub(length);
        let (before, after) = match auto {
            "NOTSET" => (pads[i], pads[count + i]),
            "VALID" => (0, 0),
            "SAME_UPPER" => (same / 2, same - same / 2),
            "SAME_LOWER" => (same - same / 2, same / 2),
            other => return Err(c.node.wrong(format!("has auto_pad `{other}`"))),
        };
        let whole = length + before + after;
        if extent == 0 || whole < extent {
            let problem =
                format!("has a window of {extent} on an axis of {whole} with its padding");
            return Err(c.node.wrong(problem));
        }
        windows.push(Window {
            size,
            stride,
            dilation,
            length,
            before,
            after,
            positions: (whole - extent) / stride + 1,
        });
    }
    Ok(windows)
}
