//! The limits of what options of cells, wrappers and layers can request: from sizes that a
//! configuration states to the shapes of parameters.

use backend_api::{Error, Result};

/// The largest size that an option of a cell or wrapper can state. Sums and small multiples of
/// sizes do not overflow.
const MAX_SIZE: usize = 1 << 24;
/// The largest number of elements of a matrix that options request, of one gate if the matrix has
/// several.
const MAX_ELEMENTS: usize = 1 << 30;

/// Checks sizes from the options of a cell or wrapper, each with the name of its argument: at least
/// 1 and at most 2^24.
pub(crate) fn check_sizes<'a>(
    cell: &'static str,
    sizes: impl IntoIterator<Item = (&'a str, usize)>,
) -> Result<()> {
    for (arg, size) in sizes {
        let problem = match size {
            0 => "must not be 0".to_owned(),
            1..=MAX_SIZE => continue,
            _ => format!("is {size}, but at most {MAX_SIZE} is supported"),
        };
        return Err(Error::argument(cell, arg, problem));
    }
    Ok(())
}

/// Checks that a matrix of checked sizes is not too large: at most 2^30 elements. `arg` is the
/// argument that the matrix depends on most.
pub(crate) fn check_elements(cell: &'static str, arg: &str, dims: &[usize]) -> Result<()> {
    let count = dims
        .iter()
        .fold(1usize, |count, &d| count.saturating_mul(d));
    if count <= MAX_ELEMENTS {
        return Ok(());
    }
    let problem = format!(
        "requires {dims:?} numbers, but at most {MAX_ELEMENTS} in one matrix are supported"
    );
    Err(Error::argument(cell, arg, problem))
}
