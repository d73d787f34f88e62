//! Reading data: images, text, series, and the order to take them in.
//!
//! Everything here is plain vectors and slices, batch-major and contiguous,
//! ready to be uploaded as a tensor. Nothing touches a device.
//!
//! | data | read by | handed out by |
//! | --- | --- | --- |
//! | MNIST and its kind | [`Idx`] | [`Batches`] of items, gathered by [`Idx::gather`] |
//! | text, by character | [`Vocabulary`] | [`TextWindows`], whose rows go on from window to window |
//! | a series of numbers | [`read_series`] | [`SeriesWindows`] of overlapping steps, in [`Batches`] |

mod batches;
mod idx;
mod series;
mod text;

use backend_api::{Error, Result};

pub use batches::{BatchState, Batches, Remainder};
pub use idx::Idx;
pub use series::{Normalization, SeriesWindows, parse_series, read_series, wave, wave_series};
pub use text::{TextWindow, TextWindows, Vocabulary};

/// Splits off the last `1 / part` of `items`, rounded down: the past to train
/// on, and what comes after it to validate with.
///
/// # Errors
///
/// [`Error::Argument`] if `part` is 0.
///
/// ```
/// let months: Vec<u32> = (0..25).collect();
/// let (train, validation) = rnn_train::data::split_tail(&months, 10)?;
/// assert_eq!((train.len(), validation), (23, &[23, 24][..]));
/// # Ok::<(), backend_api::Error>(())
/// ```
pub fn split_tail<T>(items: &[T], part: usize) -> Result<(&[T], &[T])> {
    match items.len().checked_div(part) {
        Some(tail) => Ok(items.split_at(items.len() - tail)),
        None => Err(Error::argument("split_tail", "part", "is 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_rounded_down_and_may_be_empty_or_all() {
        assert_eq!(
            split_tail(&[1, 2, 3], 4).unwrap(),
            (&[1, 2, 3][..], &[][..])
        );
        assert_eq!(
            split_tail(&[1, 2, 3], 1).unwrap(),
            (&[][..], &[1, 2, 3][..])
        );
        assert!(split_tail(&[1], 0).is_err());
    }
}
