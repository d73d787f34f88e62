//! Sequence lengths as callers give them.

use backend_api::{Backend, Error, Result, Tensor};

/// One length per row, in steps. Values are not checked until [`check`](Self::check).
#[derive(Clone, Debug)]
pub(crate) struct Lengths(Vec<i128>);

impl Lengths {
    pub(crate) fn new<L: Copy + TryInto<i128>>(lengths: &[L]) -> Self {
        // Only a `u128` can exceed `i128`, and such a length is above any number of steps.
        let wide = |&l: &L| l.try_into().unwrap_or(i128::MAX);
        Self(lengths.iter().map(wide).collect())
    }

    /// The lengths as given.
    pub(crate) fn values(&self) -> &[i128] {
        &self.0
    }

    /// The lengths, checked to be non-negative and one per row of the batch.
    pub(crate) fn check(&self, op: &'static str, batch: usize) -> Result<Vec<usize>> {
        let problem = |text| Err(Error::argument(op, "sequence_length", text));
        if self.0.len() != batch {
            return problem(format!(
                "has shape [{}], but the batch is {batch}",
                self.0.len()
            ));
        }
        let mut checked = Vec::with_capacity(batch);
        for (row, &length) in self.0.iter().enumerate() {
            if length < 0 {
                return problem(format!(
                    "of row {row} is {length}, but must not be negative"
                ));
            }
            checked.push(usize::try_from(length).unwrap_or(usize::MAX));
        }
        Ok(checked)
    }

    /// As [`check`](Self::check), and no length above the number of steps: for drivers that reverse
    /// sequences.
    pub(crate) fn check_within(
        &self,
        op: &'static str,
        batch: usize,
        steps: usize,
    ) -> Result<Vec<usize>> {
        let lengths = self.check(op, batch)?;
        match lengths.iter().position(|&l| l > steps) {
            None => Ok(lengths),
            Some(row) => {
                let length = self.0[row];
                let text = format!("of row {row} is {length}, but the inputs have {steps} steps");
                Err(Error::argument(op, "sequence_length", text))
            }
        }
    }
}

/// Copies lengths to a device.
pub(crate) fn upload<B: Backend>(device: &B, lengths: &[usize]) -> Result<Tensor<B>> {
    let lengths: Vec<i64> = lengths
        .iter()
        .map(|&l| i64::try_from(l).unwrap_or(i64::MAX))
        .collect();
    Tensor::from_slice(device, &lengths, &[lengths.len()])
}
