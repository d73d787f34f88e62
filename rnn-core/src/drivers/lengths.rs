//! Sequence lengths as callers give them.

use backend_api::{Backend, DType, Error, Result, Shape, Tensor};

backend_api::shared_doc! { lengths_doc:
/// The lengths of the rows of a batch in steps, as the drivers' `sequence_length` takes them: a
/// slice, array or `Vec` of any integer type, or a tensor of integers, `[batch]`.
///
/// The driver's `run` checks them: one for each row, and none negative.
///
/// ```
/// use recurrent::{DType, Device, DynamicRnn, GruCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0, 0.0, 0.0], &[2, 3, 1])?;
/// // The padding is 0. Every step with another number counts.
/// let lengths = x.not_equal(0.0)?.cast(DType::F32)?.sum(1)?.select(1, 0)?.cast(DType::I32)?;
/// let cell = GruCell::new(&device, 1, 4)?;
/// let rnn = DynamicRnn::new(&cell).sequence_length(&lengths).run(&x)?;
/// let same = DynamicRnn::new(&cell).sequence_length(&[3, 1]).run(&x)?;
/// assert_eq!(rnn.state.to_vec::<f32>()?, same.state.to_vec::<f32>()?);
/// # Ok(()) }
/// ```
}

#[doc = lengths_doc!()]
#[derive(Clone, Debug)]
pub struct Lengths<B: Backend>(Given<B>);

#[derive(Clone, Debug)]
enum Given<B: Backend> {
    Integers(Vec<i128>),
    Tensor(Tensor<B>),
}

impl<B: Backend, L: Copy + TryInto<i128>> From<&[L]> for Lengths<B> {
    fn from(lengths: &[L]) -> Self {
        // Only a `u128` can exceed `i128`, and such a length is above any number of steps.
        let wide = |&l: &L| l.try_into().unwrap_or(i128::MAX);
        Self(Given::Integers(lengths.iter().map(wide).collect()))
    }
}

impl<B: Backend, L: Copy + TryInto<i128>, const N: usize> From<&[L; N]> for Lengths<B> {
    fn from(lengths: &[L; N]) -> Self {
        lengths.as_slice().into()
    }
}

impl<B: Backend, L: Copy + TryInto<i128>> From<&Vec<L>> for Lengths<B> {
    fn from(lengths: &Vec<L>) -> Self {
        lengths.as_slice().into()
    }
}

impl<B: Backend, L: Copy + TryInto<i128>> From<Vec<L>> for Lengths<B> {
    fn from(lengths: Vec<L>) -> Self {
        lengths.as_slice().into()
    }
}

impl<B: Backend> From<&Tensor<B>> for Lengths<B> {
    fn from(lengths: &Tensor<B>) -> Self {
        Self(Given::Tensor(lengths.clone()))
    }
}

impl<B: Backend> Lengths<B> {
    /// The lengths, checked to be non-negative integers, one per row of the batch.
    pub(super) fn check(&self, op: &'static str, batch: usize) -> Result<Vec<usize>> {
        let mut checked = Vec::with_capacity(batch);
        for (row, length) in self.integers(op, batch)?.into_iter().enumerate() {
            if length < 0 {
                let problem = format!("of row {row} is {length}, but must not be negative");
                return Err(Error::argument(op, "sequence_length", problem));
            }
            checked.push(usize::try_from(length).unwrap_or(usize::MAX));
        }
        Ok(checked)
    }

    /// As [`check`](Self::check), and no length above the number of steps: for drivers that reverse
    /// sequences.
    pub(super) fn check_within(
        &self,
        op: &'static str,
        batch: usize,
        steps: usize,
    ) -> Result<Vec<usize>> {
        let lengths = self.check(op, batch)?;
        match lengths.iter().position(|&l| l > steps) {
            None => Ok(lengths),
            Some(row) => {
                let length = self.integers(op, batch)?[row];
                let text = format!("of row {row} is {length}, but the inputs have {steps} steps");
                Err(Error::argument(op, "sequence_length", text))
            }
        }
    }

    /// The lengths as given, after a check of their shape and type.
    fn integers(&self, op: &'static str, batch: usize) -> Result<Vec<i128>> {
        let arg = "sequence_length";
        let shape = match &self.0 {
            Given::Integers(integers) => Shape::new(&[integers.len()])?,
            Given::Tensor(tensor) => tensor.shape(),
        };
        if shape.dims() != [batch] {
            let expected = format!("the batch is {batch}, so [{batch}] is needed");
            return Err(Error::shape(op, arg, shape, expected));
        }
        match &self.0 {
            Given::Integers(integers) => Ok(integers.clone()),
            Given::Tensor(tensor) if tensor.dtype().is_float() || tensor.dtype() == DType::Bool => {
                Err(Error::dtype(
                    op,
                    arg,
                    tensor.dtype(),
                    "an integer type is needed",
                ))
            }
            Given::Tensor(tensor) => {
                let integers = tensor.cast(DType::I64)?.to_vec::<i64>()?;
                Ok(integers.into_iter().map(i128::from).collect())
            }
        }
    }
}

/// Copies lengths to a device.
pub(super) fn upload<B: Backend>(device: &B, lengths: &[usize]) -> Result<Tensor<B>> {
    let lengths: Vec<i64> = lengths
        .iter()
        .map(|&l| i64::try_from(l).unwrap_or(i64::MAX))
        .collect();
    Tensor::from_slice(device, &lengths, &[lengths.len()])
}
