//! Convolution as a matmul over windows.

use backend_api::{Backend, Meta, Result, Tensor};

/// `[rows, space.., channels] -> [rows * positions, window * channels]`: for each spatial position,
/// the values in a window of the given size around it, with zero padding. Multiplied by a kernel
/// `[window.., channels, width]` as a matrix, this is the convolution with TensorFlow's `SAME`
/// padding and stride 1.
pub(crate) fn windows<B: Backend>(x: &Tensor<B>, window: &[usize]) -> Result<Tensor<B>> {
    let shape = x.shape();
    let space = shape.dims();
    let last = space.len() - 1;
    let mut padded = x.clone();
    for (i, &k) in window.iter().enumerate() {
        // A window of even size extends one position further at the end.
        let before = (k - 1) / 2;
        padded = pad(&padded, i + 1, before, k - 1 - before)?;
    }
    let mut parts = vec![padded];
    for (i, &k) in window.iter().enumerate() {
        let axis = i + 1;
        let shifts = parts
            .iter()
            .flat_map(|part| (0..k).map(move |shift| part.slice(axis, shift..shift + space[axis])));
        parts = shifts.collect::<Result<_>>()?;
    }
    let joined = Tensor::concat(&parts.iter().collect::<Vec<_>>(), last)?;
    let positions = space[..last].iter().product();
    joined.reshape(&[positions, joined.shape().last()])
}

/// Pads an axis with zeros before and after.
pub(crate) fn pad<B: Backend>(
    x: &Tensor<B>,
    axis: usize,
    before: usize,
    after: usize,
) -> Result<Tensor<B>> {
    let zeros = |count| {
        let meta = Meta::new(x.shape().with(axis, count)?, x.dtype());
        Tensor::zeros(x.device(), meta)
    };
    match (before, after) {
        (0, 0) => Ok(x.clone()),
        (0, _) => Tensor::concat(&[x, &zeros(after)?], axis),
        (_, 0) => Tensor::concat(&[&zeros(before)?, x], axis),
        _ => Tensor::concat(&[&zeros(before)?, x, &zeros(after)?], axis),
    }
}
