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

/// Each column of a matrix divided by its norm; `tf.nn.l2_normalize` with its epsilon.
pub(crate) fn l2_normalize<B: Backend>(matrix: &Tensor<B>) -> Result<Tensor<B>> {
    let squares = matrix.square()?.sum(0)?;
    matrix.div(&squares.clamp(1e-12, f64::INFINITY)?.sqrt()?)
}
