//! Formulas that several cells share.

use backend_api::{Backend, Error, Result, Tensor};

/// `gate * a + (1 - gate) * b`
pub(crate) fn mix<B: Backend>(gate: &Tensor<B>, a: &Tensor<B>, b: &Tensor<B>) -> Result<Tensor<B>> {
    gate.mul(a)?.add(&gate.affine(-1.0, 1.0)?.mul(b)?)
}

/// `t` clipped to `±limit`, if a limit is given.
pub(crate) fn clip<B: Backend>(t: Tensor<B>, limit: Option<f64>) -> Result<Tensor<B>> {
    match limit {
        Some(limit) => t.clamp(-limit, limit),
        None => Ok(t),
    }
}

/// Returns an error for a limit that is negative or NaN.
pub(crate) fn check_limit(cell: &'static str, arg: &str, limit: Option<f64>) -> Result<()> {
    match limit {
        Some(limit) if limit.is_nan() || limit < 0.0 => {
            let problem = format!("is {limit}, but must not be negative or NaN");
            Err(Error::argument(cell, arg, problem))
        }
        _ => Ok(()),
    }
}

/// `[.., depth] -> [.., width]`: `x · kernel`.
pub(crate) fn product<B: Backend>(x: &Tensor<B>, kernel: &Tensor<B>) -> Result<Tensor<B>> {
    if x.shape().rank() < 2 {
        let expected = "at least [batch, depth] is needed";
        return Err(Error::shape("project", "x", x.shape(), expected));
    }
    // A matmul over all steps needs contiguous rows; batch-major inputs are strided.
    x.contiguous()?.matmul(kernel)
}

/// Each column of a matrix divided by its norm; `tf.nn.l2_normalize` with its epsilon.
pub(crate) fn l2_normalize<B: Backend>(matrix: &Tensor<B>) -> Result<Tensor<B>> {
    // In 16 bits the squares of small weights, and the epsilon, would be 0.
    let wide = matrix.cast(matrix.dtype().computed_in())?;
    let squares = wide.square()?.sum(0)?;
    wide.div(&squares.clamp(1e-12, f64::INFINITY)?.sqrt()?)?
        .cast(matrix.dtype())
}
