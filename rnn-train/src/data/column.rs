//! Host arrays: the values of one feature in one sample or one batch.

use backend_api::{Backend, Error, Meta, Result, Shape, Tensor};
use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};
use smallvec::SmallVec;

use super::values::{ColumnType, ValueKind, Values};

/// An array of numbers or byte strings in host memory, row-major.
///
/// A column is dense, or *ragged*: rank 2 with rows of different lengths, stored without padding,
/// as [`VarLen`](super::VarLen) feature lists are.
///
/// ```
/// use recurrent::Device;
/// use recurrent::data::Column;
///
/// # fn main() -> recurrent::Result<()> {
/// let column = Column::new(&[2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(column.values::<f32>()?[3], 4.0);
/// assert_eq!(column.tensor(&Device::cpu())?.shape().dims(), [2, 3]);
///
/// let ragged = Column::ragged(&[1, 0, 2], vec![7i64, 8, 9])?;
/// assert_eq!(ragged.dims(), [3, 2]);
/// assert_eq!(ragged.sparse().indices, [[0, 0], [2, 0], [2, 1]]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    dims: Dims,
    /// The lengths of the rows of a ragged column, whose `dims` are their number and the longest.
    rows: Option<Vec<usize>>,
    values: Values,
}

/// Number of elements; `None` if a product of axes, those of length 0 left out, is too large to
/// compute with.
pub(super) fn element_count(dims: &[usize]) -> Option<usize> {
    let nonzero = dims.iter().filter(|&&dim| dim > 0);
    let product = nonzero
        .into_iter()
        .try_fold(1usize, |n, &dim| n.checked_mul(dim))?;
    Some(if dims.contains(&0) { 0 } else { product })
}

/// Lengths of axes.
pub(super) type Dims = SmallVec<[usize; 4]>;

/// The coordinate form of a column, as TensorFlow's `SparseTensor` has it.
///
/// ```
/// use recurrent::data::{Column, Values};
///
/// # fn main() -> recurrent::Result<()> {
/// let ragged = Column::ragged(&[1, 0, 2], vec![7i64, 8, 9])?;
/// let sparse = ragged.sparse();
/// assert_eq!(sparse.indices, [[0, 0], [2, 0], [2, 1]]);
/// assert_eq!(sparse.values, Values::I64(vec![7, 8, 9]));
/// assert_eq!(sparse.dense_shape, [3, 2]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    /// The index of each value along each axis, in row-major order.
    pub indices: Vec<Vec<i64>>,
    /// The values.
    pub values: Values,
    /// The lengths of the axes that hold all values.
    pub dense_shape: Vec<i64>,
}

impl Column {
    /// A dense column of shape `dims`.
    ///
    /// # Errors
    /// [`Error::Argument`] if `dims` does not hold as many elements as `values` has.
    pub fn new(dims: &[usize], values: impl Into<Values>) -> Result<Self> {
        let values = values.into();
        if element_count(dims) != Some(values.len()) {
            let problem = format!("have length {}, but the shape is {dims:?}", values.len());
            return Err(Error::argument("column", "values", problem));
        }
        Ok(Self::of(dims.into(), values))
    }

    /// A dense column whose element count is known to fit.
    pub(super) fn of(dims: Dims, values: Values) -> Self {
        debug_assert_eq!(element_count(&dims), Some(values.len()));
        Self {
            dims,
            rows: None,
            values,
        }
    }

    /// A ragged column: `values` cut into rows of the given lengths.
    ///
    /// # Errors
    /// [`Error::Argument`] if the lengths do not add up to the number of values.
    pub fn ragged(row_lengths: &[usize], values: impl Into<Values>) -> Result<Self> {
        let values = values.into();
        let count = row_lengths
            .iter()
            .try_fold(0usize, |n, &len| n.checked_add(len));
        if count != Some(values.len()) {
            let problem = format!("do not sum to the {} values", values.len());
            return Err(Error::argument("column", "row_lengths", problem));
        }
        let longest = row_lengths.iter().copied().max().unwrap_or(0);
        Ok(Self {
            dims: [row_lengths.len(), longest].into_iter().collect(),
            rows: Some(row_lengths.to_vec()),
            values,
        })
    }

    /// One value, with no axes.
    pub fn scalar<T: ColumnType>(value: T::Scalar) -> Self {
        Self::of(Dims::new(), T::scalar(value))
    }

    /// A copy of an `ndarray` array.
    pub fn from_ndarray<T: ColumnType + Copy, D: Dimension>(array: &ArrayView<'_, T, D>) -> Self
    where
        Values: From<Vec<T>>,
    {
        let values: Vec<T> = array.iter().copied().collect();
        Self::of(array.shape().into(), values.into())
    }

    /// A copy as an `ndarray` array.
    ///
    /// # Errors
    /// The elements are not of type `T`, or the column is ragged.
    pub fn to_ndarray<T: ColumnType<Slice = [T]> + Copy>(&self) -> Result<ArrayD<T>> {
        self.check_dense("to_ndarray")?;
        let values = self.values::<T>()?.to_vec();
        ArrayD::from_shape_vec(IxDyn(&self.dims), values)
            .map_err(|e| Error::argument("to_ndarray", "column", e.to_string()))
    }

    /// The lengths of the axes. Those of a ragged column are the number of rows and the longest.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The lengths of the rows if the column is ragged.
    pub fn row_lengths(&self) -> Option<&[usize]> {
        self.rows.as_deref()
    }

    /// The element type.
    pub fn kind(&self) -> ValueKind {
        self.values.kind()
    }

    /// The values in row-major order, those of a ragged column without padding.
    ///
    /// # Errors
    /// [`Error::Argument`] if they are not of type `T`.
    pub fn values<T: ColumnType>(&self) -> Result<&T::Slice> {
        T::slice(&self.values).ok_or_else(|| {
            let problem = format!("are {}, but {} is requested", self.kind(), T::KIND);
            Error::argument("column", "values", problem)
        })
    }

    /// The values, whatever their type.
    pub fn all_values(&self) -> &Values {
        &self.values
    }

    /// The length of the first axis; 1 if there are no axes.
    pub fn len(&self) -> usize {
        self.dims.first().copied().unwrap_or(1)
    }

    /// Whether the first axis has length 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The coordinate form.
    pub fn sparse(&self) -> Sparse {
        let mut indices = Vec::with_capacity(self.values.len());
        match &self.rows {
            Some(rows) => {
                for (row, &len) in rows.iter().enumerate() {
                    indices.extend((0..len).map(|i| vec![row as i64, i as i64]));
                }
            }
            None => {
                let mut index = vec![0i64; self.dims.len()];
                for _ in 0..self.values.len() {
                    indices.push(index.clone());
                    for (i, &dim) in index.iter_mut().zip(&self.dims).rev() {
                        *i += 1;
                        if *i < dim as i64 {
                            break;
                        }
                        *i = 0;
                    }
                }
            }
        }
        Sparse {
            indices,
            values: self.values.clone(),
            dense_shape: self.dims.iter().map(|&dim| dim as i64).collect(),
        }
    }

    /// A copy on a device.
    ///
    /// # Errors
    /// The column holds byte strings or is ragged, has too many axes for a tensor, or the device is
    /// out of memory.
    pub fn tensor<B: Backend>(&self, device: &B) -> Result<Tensor<B>> {
        self.check_dense("tensor")?;
        match (self.kind().dtype(), self.values.as_bytes()) {
            (Some(dtype), Some(bytes)) => {
                Tensor::from_bytes(device, bytes, Meta::new(Shape::new(&self.dims)?, dtype))
            }
            _ => {
                let problem = "contains byte strings, which a tensor cannot hold";
                Err(Error::argument("tensor", "column", problem))
            }
        }
    }

    /// Index `i` of the first axis, as a column with that axis removed.
    ///
    /// # Errors
    /// [`Error::Argument`] if the index is out of range or there are no axes.
    pub fn select(&self, index: usize) -> Result<Self> {
        if self.dims.is_empty() || index >= self.dims[0] {
            let problem = format!("is {index}, but the shape is {:?}", self.dims);
            return Err(Error::argument("column", "index", problem));
        }
        let (dims, range): (Dims, _) = match &self.rows {
            Some(rows) => {
                let start: usize = rows[..index].iter().sum();
                (
                    [rows[index]].into_iter().collect(),
                    start..start + rows[index],
                )
            }
            None => {
                let size: usize = self.dims[1..].iter().product();
                (self.dims[1..].into(), index * size..(index + 1) * size)
            }
        };
        let mut values = Values::empty(self.kind());
        values.extend(&self.values, range)?;
        Ok(Self::of(dims, values))
    }

    /// Steps `start..end` of the first axis, filled up to `end - start` with `padding` where the
    /// column is shorter; the axes after the first stay.
    pub(super) fn steps(&self, start: usize, end: usize, padding: &Values) -> Result<Self> {
        let inner: usize = self.dims.iter().skip(1).product();
        let (from, to) = (start.min(self.len()), end.min(self.len()));
        let mut values = Values::empty(self.kind());
        let count = (end - start).checked_mul(inner);
        if count.is_none_or(|count| values.reserve(count).is_err()) {
            let problem = format!("are {start}..{end}, which do not fit in memory");
            return Err(Error::argument("column", "steps", problem));
        }
        values.extend(&self.values, from * inner..to * inner)?;
        values.fill(padding, (end - start - (to - from)) * inner)?;
        let mut dims = self.dims.clone();
        dims[0] = end - start;
        Ok(Self::of(dims, values))
    }

    pub(super) fn check_dense(&self, op: &'static str) -> Result<()> {
        if self.rows.is_some() {
            let problem = "is ragged: its rows have different lengths (batching pads them)";
            return Err(Error::argument(op, "column", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mismatched_shapes_are_rejected() {
        for dims in [&[2, 2][..], &[], &[0], &[usize::MAX, 2]] {
            Column::new(dims, vec![1i32, 2, 3]).unwrap_err();
        }
        // Nothing computes with axes whose product overflows, even if there are no elements.
        Column::new(&[0, usize::MAX, 2], Vec::<i32>::new()).unwrap_err();
        let empty = Column::new(&[0, usize::MAX], Vec::<i32>::new()).unwrap();
        assert!(empty.is_empty());
        Column::ragged(&[1, usize::MAX], vec![1i32]).unwrap_err();
        assert_eq!(
            Column::ragged(&[], Vec::<i32>::new()).unwrap().dims(),
            [0, 0]
        );
    }

    #[test]
    fn ndarray_arrays_keep_their_order() {
        let array = ndarray::arr2(&[[1i64, 2, 3], [4, 5, 6]]);
        let column = Column::from_ndarray(&array.t());
        assert_eq!(column.dims(), [3, 2]);
        assert_eq!(column.values::<i64>().unwrap(), [1, 4, 2, 5, 3, 6]);
        let back = column.to_ndarray::<i64>().unwrap();
        assert_eq!(back, array.t().into_dyn());
        column.to_ndarray::<f32>().unwrap_err();
    }

    #[test]
    fn rows_and_steps_are_sliced() {
        let column = Column::new(&[3, 2], vec![1i64, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(column.select(1).unwrap().values::<i64>().unwrap(), [3, 4]);
        column.select(3).unwrap_err();
        Column::scalar::<i64>(3).select(0).unwrap_err();
        let zero = Values::zero(ValueKind::I64);
        let steps = column.steps(2, 4, &zero).unwrap();
        assert_eq!(steps.values::<i64>().unwrap(), [5, 6, 0, 0]);
        let past = column.steps(6, 7, &zero).unwrap();
        assert_eq!(
            (past.dims(), past.values::<i64>().unwrap()),
            (&[1, 2][..], &[0, 0][..])
        );
        let ragged = Column::ragged(&[2, 0, 1], vec![1i64, 2, 3]).unwrap();
        assert_eq!(ragged.select(2).unwrap().values::<i64>().unwrap(), [3]);
        assert!(ragged.select(1).unwrap().is_empty());
    }

    #[test]
    fn a_dense_column_in_coordinate_form_has_every_element() {
        let column = Column::new(&[2, 1, 2], vec![1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let sparse = column.sparse();
        let indices = [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]];
        assert_eq!(sparse.indices, indices);
        assert_eq!(sparse.dense_shape, [2, 1, 2]);
    }
}
