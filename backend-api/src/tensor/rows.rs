//! Rows: looking them up, replacing, masking and reversing them.

use crate::operands::Args;
use crate::{Backend, Compare, DType, Error, Fused, Meta, Op, Result, Shape, Tensor};

/// Rows of tables, and rows of a batch.
impl<B: Backend> Tensor<B> {
    /// Looks up rows of a table: `self` is `[V, rest..]`, `ids` is a tensor of integers in `0..V`
    /// of any shape `S`, and the result is `[S.., rest..]`.
    ///
    /// # Errors
    /// `ids` are not integers, or an id is not a row. A device that cannot check an id at once
    /// reports it at the latest when the result is read.
    pub fn gather(&self, ids: &Self) -> Result<Self> {
        Self::call(&self.device, &Op::Gather, &[self, ids])
    }

    /// Replaces rows of a table: `self` is the table, `[V, rest..]`, and the result has `rows`,
    /// `[ids.., rest..]`, at the indices `ids`. If an id occurs more than once, its last row is
    /// used. Corresponds to TensorFlow's `scatter_update`, except that `self` is not modified.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let cpu = Device::cpu();
    /// let table = Tensor::from_slice(&cpu, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2])?;
    /// let ids = Tensor::from_slice(&cpu, &[2i32, 0], &[2])?;
    /// let rows = Tensor::from_slice(&cpu, &[7.0f32, 8.0, 9.0, 0.0], &[2, 2])?;
    /// let updated = table.scatter_update(&ids, &rows)?;
    /// assert_eq!(updated.to_vec::<f32>()?, [9.0, 0.0, 3.0, 4.0, 7.0, 8.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An id is outside `0..V`, or the shapes do not fit.
    pub fn scatter_update(&self, ids: &Self, rows: &Self) -> Result<Self> {
        self.fused(Fused::ScatterUpdate, &[ids, rows])
    }

    /// Sets the padding of `[time, batch, ..]` to zero: row `b` is zero from time `lengths[b]` on,
    /// even where it was NaN. `first` is the time of the first step of `self`.
    ///
    /// # Errors
    /// The shapes do not fit, `lengths` is not a tensor of integers, or the time of the last step
    /// exceeds `i64`.
    pub fn mask_padding(&self, lengths: &Self, first: usize) -> Result<Self> {
        let args = Args {
            op: "mask_padding",
            ins: &[],
        };
        args.min_rank("x", self.meta(), 2)?;
        args.check_lengths(lengths.meta(), self.shape()[1])?;
        let steps = self.shape()[0];
        let Some(end) = i64::try_from(first)
            .ok()
            .and_then(|first| first.checked_add(steps as i64))
        else {
            let problem = format!("is {first}, too large for {steps} steps");
            return Err(Error::argument(args.op, "first", problem));
        };
        if self.shape().count() == 0 {
            return Ok(self.clone());
        }
        let times = Self::integers(&self.device, first as i64..end)?.unsqueeze(1)?;
        let runs = times.compare(Compare::Lt, &lengths.cast(DType::I64)?)?;
        let mut dims = self.dims();
        dims.iter_mut().skip(2).for_each(|d| *d = 1);
        let zero = Self::zeros(&self.device, Meta::new(Shape::SCALAR, self.dtype))?;
        runs.reshape(&dims)?.select_from(self, &zero)
    }

    /// Reverses the first `lengths[b]` elements along axis `time`, for each row `b` of axis
    /// `batch`. The rest of a row is unchanged.
    ///
    /// # Errors
    /// `time` and `batch` are the same axis or do not exist, `lengths` are not integers `[batch]`.
    pub fn reverse(&self, lengths: &Self, time: usize, batch: usize) -> Result<Self> {
        Self::call(&self.device, &Op::Reverse { time, batch }, &[self, lengths])
    }
}
