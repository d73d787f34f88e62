//! The gradient of one tensor: dense, or the looked-up rows of a table.

use std::collections::HashMap;

use backend_api::{Backend, DType, Meta, Op, Result, Shape, Tensor};

backend_api::shared_doc! { gradient_doc:
/// The gradient of one tensor, in the form in which `tf.gradients` returns it: one value for each
/// element, or, for a table of which the loss only looks up rows, the
/// [`IndexedSlices`](crate::IndexedSlices) of these rows. `to_dense` gives the former in both
/// cases.
///
/// ```
/// use recurrent::{DType, Device, Gradient, Initializer, Param, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let table = Param::new(&device, Initializer::ONES, &[1000, 4], DType::F32)?;
/// let ids = Tensor::from_ints(&device, &[7, 7], &[2])?;
/// let (_, grads) = value_and_grad(&table, |table| table.gather(&ids)?.sum_all())?;
/// let (_, grad) = grads.iter().next().expect("one parameter");
/// match grad.expect("the loss depends on it") {
///     Gradient::Sparse(rows) => assert_eq!(rows.summed()?.values().to_vec::<f32>()?, [2.0; 4]),
///     Gradient::Dense(_) => panic!("only two rows were looked up"),
/// }
/// # Ok(()) }
/// ```
}

#[doc = gradient_doc!()]
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one per parameter")]
pub enum Gradient<B: Backend> {
    /// One value for each element.
    Dense(Tensor<B>),
    /// The gradient of a table of which the loss only looks up rows ([`Tensor::gather`]).
    Sparse(IndexedSlices<B>),
}

impl<B: Backend> Gradient<B> {
    /// One value for each element. A sparse gradient becomes the whole table: repeated rows are
    /// summed, and rows that were not looked up are zero.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn to_dense(&self) -> Result<Tensor<B>> {
        match self {
            Self::Dense(grad) => Ok(grad.clone()),
            Self::Sparse(rows) => rows.to_dense(),
        }
    }

    /// The stored values: every element, or the looked-up rows without summing repeated ones.
    /// TensorFlow's norms are taken over these values.
    pub fn values(&self) -> &Tensor<B> {
        match self {
            Self::Dense(grad) => grad,
            Self::Sparse(rows) => rows.values(),
        }
    }

    /// Shape and element type of the tensor that this gradient belongs to.
    pub fn meta(&self) -> Meta {
        match self {
            Self::Dense(grad) => grad.meta(),
            Self::Sparse(rows) => Meta::new(rows.dense_shape(), rows.values.dtype()),
        }
    }

    /// The sum of two gradients of one tensor; sparse if both are.
    pub(crate) fn add(&self, other: &Self) -> Result<Self> {
        Ok(match (self, other) {
            (Self::Sparse(a), Self::Sparse(b)) => {
                Self::Sparse(IndexedSlices::concat(&[a.clone(), b.clone()])?)
            }
            (a, b) => Self::Dense(a.to_dense()?.add(&b.to_dense()?)?),
        })
    }

    /// Applies `f`, which must keep the shape, to the stored values.
    pub(crate) fn map_values(&self, f: impl Fn(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self> {
        Ok(match self {
            Self::Dense(grad) => Self::Dense(f(grad)?),
            Self::Sparse(rows) => Self::Sparse(IndexedSlices {
                values: f(&rows.values)?,
                ..rows.clone()
            }),
        })
    }

    /// The same gradient on an outer or inner device that shares the buffers; `f` converts each
    /// tensor.
    pub(crate) fn on<B2: Backend>(
        &self,
        f: impl Fn(&Tensor<B>) -> Result<Tensor<B2>>,
    ) -> Result<Gradient<B2>> {
        Ok(match self {
            Self::Dense(grad) => Gradient::Dense(f(grad)?),
            Self::Sparse(rows) => Gradient::Sparse(IndexedSlices {
                values: f(&rows.values)?,
                indices: f(&rows.indices)?,
                table: rows.table,
            }),
        })
    }
}

backend_api::shared_doc! { indexed_slices_doc:
/// The gradient of a table by rows; TensorFlow's `IndexedSlices`.
///
/// Row `k` of [`values`](crate::IndexedSlices::values) belongs to row `indices[k]` of the table.
/// Rows with equal indices add up: a row that was looked up twice occurs twice.
///
/// ```
/// use recurrent::{Device, Differentiable, Gradient, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let table = device.leaf(&Tensor::from_slice(&device, &[1.0f32; 1000], &[500, 2])?)?;
/// let ids = Tensor::from_slice(&device, &[7i32, 3, 7], &[3])?;
/// let loss = table.gather(&ids)?.sum_all()?;
///
/// let grads = device.gradients(&loss, &[&table])?;
/// let Some(Gradient::Sparse(rows)) = &grads[0] else { panic!("the table is only looked up in") };
/// assert_eq!(rows.indices().to_vec::<i32>()?, [7, 3, 7]);
/// assert_eq!(rows.values().shape().dims(), [3, 2]);
/// assert_eq!(rows.summed()?.values().to_vec::<f32>()?, [2.0, 2.0, 1.0, 1.0]);
/// assert_eq!(rows.to_dense()?.shape().dims(), [500, 2]);
/// # Ok(()) }
/// ```
}

#[doc = indexed_slices_doc!()]
#[derive(Clone, Debug)]
pub struct IndexedSlices<B: Backend> {
    values: Tensor<B>,
    indices: Tensor<B>,
    table: Shape,
}

impl<B: Backend> IndexedSlices<B> {
    /// The gradient of a lookup of `ids` of shape `S` in a table of `rows` rows; `values` is
    /// `[S.., rest..]`.
    pub(crate) fn new(ids: &Tensor<B>, values: &Tensor<B>, rows: usize) -> Result<Self> {
        let count = ids.shape().count();
        let mut dims = vec![count];
        dims.extend_from_slice(&values.dims()[ids.shape().rank()..]);
        let values = values.reshape(&dims)?;
        Ok(Self {
            table: values.shape().with(0, rows)?,
            values,
            indices: ids.reshape(&[count])?,
        })
    }

    /// Concatenates the gradients of several lookups in one table. `parts` must not be empty.
    pub(crate) fn concat(parts: &[Self]) -> Result<Self> {
        let values: Vec<_> = parts.iter().map(|part| &part.values).collect();
        let mut indices: Vec<_> = parts.iter().map(|part| part.indices.clone()).collect();
        if indices.iter().any(|i| i.dtype() != indices[0].dtype()) {
            for indices in &mut indices {
                *indices = indices.cast(DType::I64)?;
            }
        }
        let indices: Vec<_> = indices.iter().collect();
        Ok(Self {
            values: Tensor::concat(&values, 0)?,
            indices: Tensor::concat(&indices, 0)?,
            table: parts.first().map_or(Shape::SCALAR, |part| part.table),
        })
    }

    /// `[N, rest..]`: the gradient of each looked-up row.
    pub fn values(&self) -> &Tensor<B> {
        &self.values
    }

    /// `[N]` integers: the row of the table that each row of [`values`](Self::values) belongs to.
    pub fn indices(&self) -> &Tensor<B> {
        &self.indices
    }

    /// `[V, rest..]`: the shape of the table.
    pub fn dense_shape(&self) -> Shape {
        self.table
    }

    /// The gradient of the whole table, zero where no row was looked up.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn to_dense(&self) -> Result<Tensor<B>> {
        self.scatter(&self.indices, self.table[0])
    }

    /// Sums rows with equal indices. Each index occurs once, in the order of first appearance.
    ///
    /// Waits for the device, because the host finds the equal indices.
    ///
    /// # Errors
    /// The device failed.
    pub fn summed(&self) -> Result<Self> {
        let all: Vec<i64> = self.indices.cast(DType::I64)?.to_vec()?;
        let mut positions = HashMap::new();
        let mut unique = Vec::new();
        let position_of: Vec<i64> = all
            .iter()
            .map(|&index| {
                *positions.entry(index).or_insert_with(|| {
                    unique.push(index);
                    unique.len() as i64 - 1
                })
            })
            .collect();
        if unique.len() == all.len() {
            return Ok(self.clone());
        }
        let device = self.values.device();
        let position_of = Tensor::from_slice(device, &position_of, &[all.len()])?;
        Ok(Self {
            values: self.scatter(&position_of, unique.len())?,
            indices: Tensor::from_slice(device, &unique, &[unique.len()])?,
            table: self.table,
        })
    }

    fn scatter(&self, to: &Tensor<B>, rows: usize) -> Result<Tensor<B>> {
        let op = Op::ScatterAdd { rows };
        Tensor::call(self.values.device(), &op, &[to, &self.values])
    }
}
