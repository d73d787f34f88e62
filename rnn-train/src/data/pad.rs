//! Padding samples of different lengths to one batch.

use backend_api::{Backend, DType, Error, Result, Tensor};

use super::column::{Column, Dims};
use super::sample::{Field, Sample, Schema};
use super::values::{ColumnType, ValueKind, Values};
use crate::losses::sequence_mask;

/// Makes a batch of samples: each axis is padded at its end to the longest of the batch.
///
/// TensorFlow's `train.batch(dynamic_pad=True)`. Padding is 0, or the empty string, unless a field
/// has its own value. A batch's columns have the batch as a new first axis; a ragged column of
/// rank 2 becomes a dense one of rank 3.
///
/// ```
/// use recurrent::data::{Column, Pad, Schema};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut schema = Schema::new();
/// let tokens = schema.add::<i64>("tokens")?;
/// let sample = |ids: &[i64]| schema.sample(vec![Column::new(&[ids.len()], ids.to_vec())?]);
///
/// let batch = Pad::new().value(tokens, -1).pad(&[sample(&[1, 2, 3])?, sample(&[4])?])?;
/// assert_eq!(batch.get(tokens)?, [1, 2, 3, 4, -1, -1]);
/// assert_eq!(batch.lengths(tokens)?, [3, 1]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Pad {
    /// Fields with a padding of their own, and a column of one value.
    values: Vec<((u64, usize), Values)>,
}

impl Pad {
    /// Pads with 0 and with empty strings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pads one field with `value`.
    #[must_use]
    pub fn value<T: ColumnType>(mut self, field: Field<T>, value: T::Scalar) -> Self {
        self.values.push((field.key(), T::scalar(value)));
        self
    }

    /// The padding of a field, as one value.
    pub(super) fn padding(&self, field: (u64, usize), kind: ValueKind) -> Values {
        let own = self.values.iter().rev().find(|(known, _)| *known == field);
        own.map_or_else(|| Values::zero(kind), |(_, value)| value.clone())
    }

    /// The batch of some samples.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no samples, or if the samples are of different schemas or
    /// differ in the number of axes of a field.
    pub fn pad(&self, samples: &[Sample]) -> Result<Batch> {
        let Some(first) = samples.first() else {
            return Err(Error::argument("pad", "samples", "must not be empty"));
        };
        let schema = first.schema();
        if self.values.iter().any(|(field, _)| !schema.has(*field)) {
            let problem = "is for a field of another schema";
            return Err(Error::argument("pad", "value", problem));
        }
        if let Some(other) = samples.iter().find(|s| s.schema().id() != schema.id()) {
            let (a, b) = (names(schema), names(other.schema()));
            let problem = format!("are of two schemas, with fields {a} and {b}");
            return Err(Error::argument("pad", "samples", problem));
        }
        let mut columns = Vec::with_capacity(first.columns().len());
        let mut lengths = Vec::with_capacity(first.columns().len());
        for (index, (name, kind)) in schema.fields().enumerate() {
            let parts = samples.iter().map(|sample| {
                let column = sample.columns().get(index);
                column.ok_or_else(|| Error::argument("pad", "samples", format!("lack `{name}`")))
            });
            let parts: Vec<&Column> = parts.collect::<Result<_>>()?;
            let padding = self.padding(schema.key(index), kind);
            columns.push(stack(name, &parts, &padding)?);
            lengths.push(parts.iter().map(|part| part.len() as i64).collect());
        }
        Ok(Batch {
            size: samples.len(),
            padded: schema.sample_of(columns),
            lengths,
        })
    }
}

fn names(schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().map(|(name, _)| name).collect();
    format!("{names:?}")
}

/// Columns of one rank as one column, each axis padded to the longest.
fn stack(name: &str, parts: &[&Column], padding: &Values) -> Result<Column> {
    let mut dims: Dims = parts[0].dims().into();
    for part in &parts[1..] {
        if part.dims().len() != dims.len() {
            let (a, b) = (parts[0].dims(), part.dims());
            let problem = format!("has shapes {a:?} and {b:?}, which differ in rank");
            return Err(Error::argument("pad", format!("field `{name}`"), problem));
        }
        for (most, &dim) in dims.iter_mut().zip(part.dims()) {
            *most = dim.max(*most);
        }
    }
    let count = dims
        .iter()
        .try_fold(parts.len(), |n, &dim| n.checked_mul(dim));
    let Some(count) = count else {
        let problem = format!("of shape {dims:?} does not fit in memory");
        return Err(Error::argument("pad", format!("field `{name}`"), problem));
    };
    let mut values = Values::empty(padding.kind());
    values.reserve(count).map_err(|_| {
        let batch = parts.len();
        let problem = format!("of {batch} samples, padded to {dims:?}, does not fit in memory");
        Error::argument("pad", format!("field `{name}`"), problem)
    })?;
    for part in parts {
        match part.row_lengths() {
            None => extend_dense(&mut values, part, 0, &mut 0, &dims, padding)?,
            Some(rows) => extend_ragged(&mut values, part, rows, &dims, padding)?,
        }
    }
    let mut all = Dims::from_slice(&[parts.len()]);
    all.extend(dims);
    Ok(Column::of(all, values))
}

/// Appends the elements of `part` from axis `axis` on, from element `*next`, each axis filled up.
fn extend_dense(
    values: &mut Values,
    part: &Column,
    axis: usize,
    next: &mut usize,
    dims: &[usize],
    padding: &Values,
) -> Result<()> {
    let own = &part.dims()[axis..];
    let inner: usize = dims.iter().skip(axis + 1).product();
    if axis >= dims.len() || own[1..] == dims[axis + 1..] {
        // The inner axes are contiguous in both.
        let count: usize = own.iter().product();
        values.extend(part.all_values(), *next..*next + count)?;
        *next += count;
    } else {
        for _ in 0..own[0] {
            extend_dense(values, part, axis + 1, next, dims, padding)?;
        }
    }
    let missing = dims.get(axis).map_or(0, |&dim| dim - own[0]);
    values.fill(padding, missing * inner)
}

fn extend_ragged(
    values: &mut Values,
    part: &Column,
    rows: &[usize],
    dims: &[usize],
    padding: &Values,
) -> Result<()> {
    let mut next = 0;
    for &len in rows {
        values.extend(part.all_values(), next..next + len)?;
        values.fill(padding, dims[1] - len)?;
        next += len;
    }
    values.fill(padding, (dims[0] - rows.len()) * dims[1])
}

/// Samples of different lengths, padded to a batch: the input of one training step.
///
/// ```
/// use recurrent::data::{Column, Pad, Schema};
/// use recurrent::{DType, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut schema = Schema::new();
/// let tokens = schema.add::<i64>("tokens")?;
/// let sample = |ids: Vec<i64>| schema.sample(vec![Column::new(&[ids.len()], ids)?]);
/// let batch = Pad::new().pad(&[sample(vec![7, 8, 9])?, sample(vec![4])?])?;
/// assert_eq!(batch.get(tokens)?, [7, 8, 9, 4, 0, 0]);
/// assert_eq!(batch.lengths(tokens)?, [3, 1]);
/// let device = Device::cpu();
/// assert_eq!(batch.tensor(&device, tokens)?.shape().dims(), [2, 3]);
/// assert_eq!(batch.mask(&device, tokens, DType::F32)?.sum_all()?.item()?, 4.0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    size: usize,
    padded: Sample,
    lengths: Vec<Vec<i64>>,
}

impl Batch {
    /// Number of samples.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The values of a field, `[batch, ..]` in row-major order.
    ///
    /// # Errors
    /// [`Error::Argument`] if the field is of another schema.
    pub fn get<T: ColumnType>(&self, field: Field<T>) -> Result<&T::Slice> {
        self.padded.get(field)
    }

    /// The column of a field, `[batch, ..]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the field is of another schema.
    pub fn column<T>(&self, field: Field<T>) -> Result<&Column> {
        self.padded.column(field)
    }

    /// The column of the field with this name.
    pub fn named(&self, name: &str) -> Option<&Column> {
        self.padded.named(name)
    }

    /// The field as a tensor, `[batch, ..]`.
    ///
    /// # Errors
    /// The field is of another schema or holds byte strings, or the device is out of memory.
    pub fn tensor<T, B: Backend>(&self, device: &B, field: Field<T>) -> Result<Tensor<B>> {
        self.column(field)?.tensor(device)
    }

    /// 1 for the steps of a field and 0 for its padding, `[batch, time]` of a float type: the
    /// weights that [`SequenceLoss`](crate::losses::SequenceLoss) takes.
    ///
    /// # Errors
    /// The field is of another schema, or the device is out of memory.
    pub fn mask<T, B: Backend>(
        &self,
        device: &B,
        field: Field<T>,
        dtype: DType,
    ) -> Result<Tensor<B>> {
        let steps = self.column(field)?.dims().get(1).copied().unwrap_or(1);
        let lengths = Tensor::from_slice(device, self.lengths(field)?, &[self.size])?;
        sequence_mask(&lengths, steps)?.cast(dtype)
    }

    /// The length of each sample's first axis before padding, as `DynamicRnn::sequence_length`
    /// takes it. It is 1 for a field without axes.
    ///
    /// # Errors
    /// [`Error::Argument`] if the field is of another schema.
    pub fn lengths<T>(&self, field: Field<T>) -> Result<&[i64]> {
        let index = self.padded.schema().index(field)?;
        Ok(&self.lengths[index])
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::ByteStrings;
    use super::*;

    fn stacked(parts: &[Column]) -> Column {
        let parts: Vec<&Column> = parts.iter().collect();
        stack("x", &parts, &Values::from(vec![-1i64])).unwrap()
    }

    #[test]
    fn every_axis_is_padded_to_the_longest() {
        let a = Column::new(&[2, 1, 2], vec![1i64, 2, 3, 4]).unwrap();
        let b = Column::new(&[1, 2, 1], vec![5i64, 6]).unwrap();
        let both = stacked(&[a, b]);
        assert_eq!(both.dims(), [2, 2, 2, 2]);
        let expected = [1, 2, -1, -1, 3, 4, -1, -1, 5, -1, 6, -1, -1, -1, -1, -1];
        assert_eq!(both.values::<i64>().unwrap(), expected);
    }

    #[test]
    fn empty_samples_and_scalars_are_padded() {
        let empty = Column::new(&[0, 2], Vec::<i64>::new()).unwrap();
        let full = Column::new(&[1, 2], vec![1i64, 2]).unwrap();
        let both = stacked(&[empty.clone(), full]);
        assert_eq!(both.values::<i64>().unwrap(), [-1, -1, 1, 2]);
        assert_eq!(stacked(&[empty.clone(), empty]).dims(), [2, 0, 2]);
        let scalars = stacked(&[Column::scalar::<i64>(3), Column::scalar::<i64>(4)]);
        assert_eq!(
            (scalars.dims(), scalars.values::<i64>().unwrap()),
            (&[2][..], &[3, 4][..])
        );
    }

    #[test]
    fn ragged_rows_become_dense() {
        let a = Column::ragged(&[1, 0], vec![1i64]).unwrap();
        let b = Column::ragged(&[2], vec![2i64, 3]).unwrap();
        let both = stacked(&[a, b]);
        assert_eq!(both.dims(), [2, 2, 2]);
        assert_eq!(both.values::<i64>().unwrap(), [1, -1, -1, -1, 2, 3, -1, -1]);
    }

    #[test]
    fn strings_are_padded_with_empty_strings() {
        let mut schema = Schema::new();
        let names = schema.add::<ByteStrings>("names").unwrap();
        let sample = |words: &[&str]| {
            let strings: ByteStrings = words.iter().collect();
            schema
                .sample(vec![Column::new(&[words.len()], strings).unwrap()])
                .unwrap()
        };
        let samples = [sample(&["a"]), sample(&["b", "c"])];
        let batch = Pad::new().pad(&samples).unwrap();
        let found: Vec<&[u8]> = batch.get(names).unwrap().iter().collect();
        assert_eq!(found, [&b"a"[..], b"", b"b", b"c"]);
        let device = backend_cpu::Cpu::new();
        let message = batch.tensor(&device, names).unwrap_err().to_string();
        assert_eq!(
            message,
            "tensor: column contains byte strings, which a tensor cannot hold"
        );
    }

    #[test]
    fn invalid_batches_are_rejected_by_name() {
        let mut schema = Schema::new();
        schema.add::<i64>("x").unwrap();
        let sample = |dims: &[usize]| {
            let column = Column::new(dims, vec![0i64; dims.iter().product()]).unwrap();
            schema.sample(vec![column]).unwrap()
        };
        let pad = Pad::new();
        let error = pad.pad(&[sample(&[2]), sample(&[2, 3])]).unwrap_err();
        let expected = "pad: field `x` has shapes [2] and [2, 3], which differ in rank";
        assert_eq!(error.to_string(), expected);
        assert_eq!(
            pad.pad(&[]).unwrap_err().to_string(),
            "pad: samples must not be empty"
        );
        let mut other = Schema::new();
        other.add_kind("y".into(), ValueKind::I64).unwrap();
        let stranger = other.sample(vec![Column::scalar::<i64>(0)]).unwrap();
        let error = pad.pad(&[sample(&[2]), stranger]).unwrap_err().to_string();
        assert!(error.ends_with("fields [\"x\"] and [\"y\"]"), "{error}");
    }
}
