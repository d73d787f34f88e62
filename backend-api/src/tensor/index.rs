//! Parts of tensors: `x.at((.., 1..3))`, like NumPy's `x[:, 1:3]`.

use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use smallvec::{SmallVec, smallvec};

use super::operand::Operand;
use crate::{Backend, Error, MAX_RANK, Result, Tensor};

/// What to take of one axis: an index, which removes the axis, or a range. Negative numbers count
/// from the end, as in Python. In literal ranges such as `1..-1`, Clippy's lint
/// `reversed_empty_ranges` takes them for mistakes; it has to be allowed there.
///
/// ```
/// use recurrent::{DType, Device, Index, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let x = Tensor::arange(&Device::cpu(), 0..6, 1, DType::I64)?.reshape(&[2, 3])?;
/// // The choice at run time; where it is known, `x.at((.., -1))` and `x.at((.., ..2))` do.
/// let columns = |last: bool| if last { Index::At(-1) } else { Index::Range(0, Some(2)) };
/// assert_eq!(x.at((.., columns(true)))?.to_vec::<i64>()?, [2, 5]);
/// assert_eq!(x.at((.., columns(false)))?.dims()[..], [2, 2]);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// One index.
    At(i128),
    /// The indices from the first number on, and below the second; without it, up to the end.
    Range(i128, Option<i128>),
}

impl From<RangeFull> for Index {
    fn from(_: RangeFull) -> Self {
        Self::Range(0, None)
    }
}

/// The end of a range that includes `last`: -1 is the end of the axis.
fn after(last: i128) -> Option<i128> {
    (last != -1).then_some(last + 1)
}

macro_rules! index {
    ($($type:ty)*) => {
        $(
            impl From<$type> for Index {
                fn from(index: $type) -> Self {
                    Self::At(index as i128)
                }
            }
            impl From<Range<$type>> for Index {
                fn from(range: Range<$type>) -> Self {
                    Self::Range(range.start as i128, Some(range.end as i128))
                }
            }
            impl From<RangeFrom<$type>> for Index {
                fn from(range: RangeFrom<$type>) -> Self {
                    Self::Range(range.start as i128, None)
                }
            }
            impl From<RangeTo<$type>> for Index {
                fn from(range: RangeTo<$type>) -> Self {
                    Self::Range(0, Some(range.end as i128))
                }
            }
            impl From<RangeInclusive<$type>> for Index {
                fn from(range: RangeInclusive<$type>) -> Self {
                    Self::Range(*range.start() as i128, after(*range.end() as i128))
                }
            }
            impl From<RangeToInclusive<$type>> for Index {
                fn from(range: RangeToInclusive<$type>) -> Self {
                    Self::Range(0, after(range.end as i128))
                }
            }
        )*
    };
}

index!(usize i32 i64);

/// One [`Index`] for each of the first axes, as a tuple or a single one; the other axes are taken
/// whole.
///
/// ```
/// use recurrent::{DType, Device, Indices, Result, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// fn total(x: &Tensor, part: impl Indices) -> Result<f64> {
///     x.at(part)?.sum_all()?.item()
/// }
/// let x = Tensor::arange(&Device::cpu(), 0..6, 1, DType::F32)?.reshape(&[2, 3])?;
/// assert_eq!((total(&x, 1)?, total(&x, (.., 1..))?), (12.0, 12.0));
/// assert_eq!((total(&x, ..)?, total(&x, (0, -1))?), (15.0, 2.0));
/// # Ok(()) }
/// ```
pub trait Indices {
    /// The indices, in the order of the axes.
    fn indices(self) -> SmallVec<[Index; MAX_RANK]>;
}

impl<I: Into<Index>> Indices for I {
    fn indices(self) -> SmallVec<[Index; MAX_RANK]> {
        smallvec![self.into()]
    }
}

macro_rules! tuple_indices {
    ($($name:ident $index:tt),*) => {
        impl<$($name: Into<Index>),*> Indices for ($($name,)*) {
            fn indices(self) -> SmallVec<[Index; MAX_RANK]> {
                smallvec![$(self.$index.into()),*]
            }
        }
    };
}

tuple_indices!(I0 0);
tuple_indices!(I0 0, I1 1);
tuple_indices!(I0 0, I1 1, I2 2);
tuple_indices!(I0 0, I1 1, I2 2, I3 3);
tuple_indices!(I0 0, I1 1, I2 2, I3 3, I4 4);
tuple_indices!(I0 0, I1 1, I2 2, I3 3, I4 4, I5 5);

/// The indices of one axis that a part has.
struct Taken {
    range: Range<usize>,
    /// Whether the part has the axis.
    kept: bool,
}

/// Parts.
impl<B: Backend> Tensor<B> {
    /// A part of the tensor, as a view: an index or a range for each of the first axes.
    ///
    /// ```
    /// use recurrent::{DType, Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::arange(&Device::cpu(), 0..6, 1, DType::I64)?.reshape(&[2, 3])?;
    /// assert_eq!(x.at(1)?.to_vec::<i64>()?, [3, 4, 5]); // x[1]
    /// assert_eq!(x.at((.., -1))?.to_vec::<i64>()?, [2, 5]); // x[:, -1]
    /// assert_eq!(x.at((0, ..2))?.to_vec::<i64>()?, [0, 1]); // x[0, :2]
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// There are more indices than axes, or one is out of range.
    pub fn at(&self, indices: impl Indices) -> Result<Self> {
        let taken = self.taken("at", indices)?;
        let mut part = self.clone();
        for (axis, taken) in taken.into_iter().enumerate().rev() {
            part = match taken.kept {
                true => part.slice(axis, taken.range)?,
                false => part.select(axis, taken.range.start)?,
            };
        }
        Ok(part)
    }

    /// The tensor with a part replaced: NumPy's `x[:, 1:3] = values`, except that `self` is not
    /// modified. `values` is a number, or a tensor that broadcasts to the shape of the part.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let cpu = Device::cpu();
    /// let x = Tensor::zeros(&cpu, &[2, 3])?;
    /// let row = Tensor::from_slice(&cpu, &[1.0f32, 2.0], &[2])?;
    /// let x = x.slice_assign((.., ..2), &row)?.slice_assign((0, -1), 9)?;
    /// assert_eq!(x.to_vec::<f32>()?, [1.0, 2.0, 9.0, 1.0, 2.0, 0.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The indices are out of range, or the values do not fit the part.
    pub fn slice_assign(&self, indices: impl Indices, values: impl Operand<B>) -> Result<Self> {
        let op = "slice_assign";
        let taken = self.taken(op, indices)?;
        let (mut shape, mut whole) = (self.shape(), self.shape());
        for (axis, taken) in taken.iter().enumerate().rev() {
            whole = whole.with(axis, taken.range.len())?;
            shape = match taken.kept {
                true => shape.with(axis, taken.range.len())?,
                false => shape.without(axis)?,
            };
        }
        values.with(op, self, |values| {
            self.same_type(op, "values", values)?;
            if values.shape().broadcast(&shape) != Some(shape) {
                let expected = format!("the part is {shape}");
                return Err(Error::shape(op, "values", values.shape(), expected));
            }
            let part = values.broadcast_to(shape.dims())?.reshape(whole.dims())?;
            self.surround(&taken, 0, part)
        })
    }

    /// The tensor with `part` in place of its own elements, from `axis` on.
    fn surround(&self, taken: &[Taken], axis: usize, part: Self) -> Result<Self> {
        let Some(first) = taken.get(axis) else {
            return Ok(part);
        };
        let Range { start, end } = first.range;
        let len = self.shape()[axis];
        let inner = self.slice(axis, start..end)?;
        let inner = inner.surround(taken, axis + 1, part)?;
        let (before, after) = (self.slice(axis, 0..start)?, self.slice(axis, end..len)?);
        let all = [&before, &inner, &after];
        let some = |t: &&&Self| t.shape()[axis] > 0;
        match all
            .iter()
            .filter(some)
            .copied()
            .collect::<SmallVec<[&Self; 3]>>()
        {
            none if none.is_empty() => Ok(self.clone()),
            parts => Self::concat(&parts, axis),
        }
    }

    fn taken(
        &self,
        op: &'static str,
        indices: impl Indices,
    ) -> Result<SmallVec<[Taken; MAX_RANK]>> {
        let shape = self.shape();
        let indices = indices.indices();
        if indices.len() > shape.rank() {
            let expected = format!("{} axes are indexed", indices.len());
            return Err(Error::shape(op, "tensor", shape, expected));
        }
        let axes = indices.into_iter().zip(shape.dims()).enumerate();
        axes.map(|(axis, (index, &len))| {
            taken(index, len).ok_or_else(|| {
                let expected = format!("{} of axis {axis} is requested", shown(index));
                Error::shape(op, "tensor", shape, expected)
            })
        })
        .collect()
    }
}

/// What an index takes of an axis; `None` if it is out of range.
fn taken(index: Index, len: usize) -> Option<Taken> {
    let position = |at: i128| {
        let from_start = if at < 0 { at + len as i128 } else { at };
        usize::try_from(from_start).ok().filter(|&at| at <= len)
    };
    match index {
        Index::At(at) => {
            let at = position(at).filter(|&at| at < len)?;
            let (range, kept) = (at..at + 1, false);
            Some(Taken { range, kept })
        }
        Index::Range(start, end) => {
            let range = position(start)?..end.map_or(Some(len), position)?;
            let kept = true;
            (range.start <= range.end).then_some(Taken { range, kept })
        }
    }
}

fn shown(index: Index) -> String {
    match index {
        Index::At(at) => format!("index {at}"),
        Index::Range(start, end) => {
            let end = end.map_or(String::new(), |end| end.to_string());
            format!("range {start}..{end}")
        }
    }
}
