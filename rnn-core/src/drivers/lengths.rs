//! Lengths of rows, as callers give them.

use backend_api::{Backend, Error, Result, Tensor};

/// One length for each row, in steps. Anything an integer type can hold, until it is checked.
#[derive(Clone, Debug)]
pub(crate) struct Lengths(Vec<i128>);

impl Lengths {
    pub(crate) fn new<L: Copy + TryInto<i128>>(lengths: &[L]) -> Self {
        // Only a u128 can hold more, and then it is longer than any sequence.
        let wide = |&l: &L| l.try_into().unwrap_or(i128::MAX);
        Self(lengths.iter().map(wide).collect())
    }

    /// The lengths as they were given.
    pub(crate) fn values(&self) -> &[i128] {
        &self.0
    }

    /// The lengths, none of them negative, one for each row of the batch.
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

    /// The same, and none longer than the sequence: for drivers that reverse it.
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

/// Lengths on a device.
pub(crate) fn upload<B: Backend>(device: &B, lengths: &[usize]) -> Result<Tensor<B>> {
    let lengths: Vec<i64> = lengths
        .iter()
        .map(|&l| i64::try_from(l).unwrap_or(i64::MAX))
        .collect();
    Tensor::from_slice(device, &lengths, &[lengths.len()])
}
