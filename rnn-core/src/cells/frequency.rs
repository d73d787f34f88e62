//! Helpers of the cells that iterate over the frequency axis.

use backend_api::{Backend, Error, Result, Tensor};

use super::CellSize;

/// Number of windows of `feature_size`, `frequency_skip` apart, in `width`.
pub(crate) fn count(
    sizes: CellSize,
    width: usize,
    feature_size: usize,
    frequency_skip: usize,
) -> Result<usize> {
    let problem = |arg: &str, text: String| Err(Error::argument(sizes.cell, arg, text));
    if frequency_skip == 0 {
        return problem("frequency_skip", "must not be 0".into());
    }
    if feature_size == 0 || feature_size > width {
        let text = format!("is {feature_size}, but only {width} features are available");
        return problem("feature_size", text);
    }
    Ok((width - feature_size) / frequency_skip + 1)
}

/// Returns an error for a clip that is not a valid limit.
pub(crate) fn check_clip(sizes: CellSize, clip: Option<f64>) -> Result<()> {
    if clip.is_some_and(|clip| clip < 0.0 || clip.is_nan()) {
        let text = "must not be negative or NaN";
        return Err(Error::argument(sizes.cell, "cell_clip", text));
    }
    Ok(())
}

/// A cell state clipped to `±clip`, if a clip is given.
pub(crate) fn clip<B: Backend>(c: Tensor<B>, clip: Option<f64>) -> Result<Tensor<B>> {
    match clip {
        Some(clip) => c.clamp(-clip, clip),
        None => Ok(c),
    }
}
