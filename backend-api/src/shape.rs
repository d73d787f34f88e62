//! Shapes: small inline arrays, as a recurrent step is a series of small operations, and describing
//! their operands must not allocate.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::{DType, Error, Result};

/// The largest number of axes a tensor can have.
pub const MAX_RANK: usize = 6;

/// The lengths of a tensor's axes, outermost first; at most [`MAX_RANK`].
///
/// Every shape keeps the limits of [`Shape::new`], so that products of its axes do not overflow,
/// nor do sizes in bytes. Buffers and kernels rely on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    rank: u8,
    dims: [usize; MAX_RANK],
}

impl Shape {
    /// The shape of a scalar: no axes, one element.
    pub const SCALAR: Self = Self {
        rank: 0,
        dims: [1; MAX_RANK],
    };

    /// The length of an axis that [`Tensor::reshape`](crate::Tensor::reshape) determines;
    /// TensorFlow's -1.
    pub const FREE: usize = usize::MAX;

    /// Creates a shape from the lengths of its axes.
    ///
    /// # Errors
    /// More than [`MAX_RANK`] axes, or more than `isize::MAX / 8` elements. Axes of length 0 are
    /// left out of this count.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.len() > MAX_RANK {
            return Err(Error::argument(
                "shape",
                "dims",
                format!(
                    "has {} axes, but at most {MAX_RANK} are supported",
                    dims.len()
                ),
            ));
        }
        let mut count = 1usize;
        for &d in dims.iter().filter(|&&d| d != 0) {
            count = count
                .checked_mul(d)
                .filter(|&n| n <= isize::MAX as usize / 8)
                .ok_or_else(|| {
                    Error::argument("shape", "dims", format!("{dims:?} is too large to address"))
                })?;
        }
        Ok(Self::of(dims))
    }

    /// Creates a shape without checks: for one axis of an existing shape, or some of its axes in
    /// any order.
    pub(crate) fn of(dims: &[usize]) -> Self {
        let mut shape = Self::SCALAR;
        shape.rank = dims.len() as u8;
        shape.dims[..dims.len()].copy_from_slice(dims);
        shape
    }

    /// Number of axes.
    #[inline]
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements.
    #[inline]
    pub fn count(&self) -> usize {
        self.dims().iter().product()
    }

    /// The lengths of the axes, outermost first.
    #[inline]
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// The length of the last axis, or 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The shape with the length of one axis replaced.
    ///
    /// # Errors
    /// The axis does not exist, or the shape becomes too large.
    pub fn with(&self, axis: usize, len: usize) -> Result<Self> {
        self.check_axis(axis, self.rank())?;
        let mut dims = self.dims;
        dims[axis] = len;
        Self::new(&dims[..self.rank()])
    }

    /// The shape without one axis.
    ///
    /// # Errors
    /// The axis does not exist.
    pub fn without(&self, axis: usize) -> Result<Self> {
        self.check_axis(axis, self.rank())?;
        let mut dims = self.dims;
        dims.copy_within(axis + 1.., axis);
        Ok(Self::of(&dims[..self.rank() - 1]))
    }

    /// The shape with an axis of length `len` inserted at position `axis`.
    ///
    /// ```
    /// use recurrent::Shape;
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let shape = Shape::new(&[2, 3])?;
    /// assert_eq!(shape.insert(1, 5)?.dims(), [2, 5, 3]);
    /// assert!(shape.insert(3, 5).is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `axis` is greater than the number of axes, the shape already has [`MAX_RANK`] axes, or it
    /// becomes too large.
    pub fn insert(&self, axis: usize, len: usize) -> Result<Self> {
        let rank = self.rank();
        self.check_axis(axis, rank + 1)?;
        let mut dims = [len; MAX_RANK + 1];
        dims[..axis].copy_from_slice(&self.dims[..axis]);
        dims[axis + 1..=rank].copy_from_slice(&self.dims[axis..rank]);
        Self::new(&dims[..=rank])
    }

    fn check_axis(&self, axis: usize, end: usize) -> Result<()> {
        if axis < end {
            return Ok(());
        }
        Err(Error::argument(
            "shape",
            "axis",
            format!("is {axis}, but the shape is {self}"),
        ))
    }

    /// The shape of two operands broadcast together: axes are aligned at the end, and axes of
    /// length 1 are stretched. `None` if the shapes do not fit, or if the result is too large.
    pub fn broadcast(&self, other: &Self) -> Option<Self> {
        let rank = self.rank.max(other.rank) as usize;
        let mut out = Self::SCALAR;
        out.rank = rank as u8;
        for i in 0..rank {
            let from_end = rank - i;
            let a = self.nth_last(from_end);
            let b = other.nth_last(from_end);
            out.dims[i] = match (a, b) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Self::new(out.dims()).ok()
    }

    fn nth_last(&self, n: usize) -> usize {
        if n > self.rank() {
            1
        } else {
            self.dims[self.rank() - n]
        }
    }
}

/// By the axes alone: keys of caches consist of shapes and layouts.
impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank.hash(state);
        self.dims().iter().for_each(|len| len.hash(state));
    }
}

impl std::ops::Index<usize> for Shape {
    type Output = usize;
    fn index(&self, axis: usize) -> &usize {
        &self.dims()[axis]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shape and element type of a tensor.
///
/// ```
/// use recurrent::{DType, Device, Meta, Shape, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let meta = Meta::new(Shape::new(&[2, 3])?, DType::F64);
/// assert_eq!(meta.bytes(), 2 * 3 * 8);
/// assert_eq!(Tensor::zeros(&Device::cpu(), meta)?.meta(), meta);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Meta {
    /// The shape.
    pub shape: Shape,
    /// The element type.
    pub dtype: DType,
}

impl Meta {
    /// Combines a shape and an element type.
    #[inline]
    pub fn new(shape: Shape, dtype: DType) -> Self {
        Self { shape, dtype }
    }

    /// Whether these are the shape and type of one step of `all`: `all` is `[steps, ..]` of them,
    /// or equal without `steps`.
    ///
    /// ```
    /// use recurrent::{DType, Meta, Shape};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let row = Meta::new(Shape::new(&[2, 3])?, DType::F32);
    /// let rows = Meta::new(Shape::new(&[5, 2, 3])?, DType::F32);
    /// assert!(row.is_step_of(&rows, Some(5)) && row.is_step_of(&row, None));
    /// assert!(!row.is_step_of(&rows, Some(4)) && !row.is_step_of(&rows, None));
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn is_step_of(&self, all: &Self, steps: Option<usize>) -> bool {
        let dims = all.shape.dims();
        let of_step = match (steps, dims) {
            (None, _) => dims,
            (Some(steps), [first, of_step @ ..]) if *first == steps => of_step,
            (Some(_), _) => return false,
        };
        all.dtype == self.dtype && of_step == self.shape.dims()
    }

    /// Size of the elements in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.count() * self.dtype.size()
    }
}

/// Shape and element type of a tensor to be created: `&[2, 3]` or a [`Shape`] for elements of
/// `f32`, a pair with another type, as in `(&[2, 3], DType::I64)`, or a [`Meta`].
///
/// ```
/// use recurrent::{DType, IntoMeta};
///
/// # fn main() -> recurrent::Result<()> {
/// assert_eq!((&[2, 3]).into_meta()?.dtype, DType::F32);
/// assert_eq!((&[2, 3], DType::I64).into_meta()?.bytes(), 48);
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a shape",
    note = "a shape is `&[2, 3]`, or `(&[2, 3], DType::F64)` for other elements than `f32`"
)]
pub trait IntoMeta {
    /// The shape and the element type.
    ///
    /// # Errors
    /// Those of [`Shape::new`].
    fn into_meta(self) -> Result<Meta>;
}

impl IntoMeta for Meta {
    fn into_meta(self) -> Result<Meta> {
        Ok(self)
    }
}

impl IntoMeta for Shape {
    fn into_meta(self) -> Result<Meta> {
        Ok(Meta::new(self, DType::F32))
    }
}

impl IntoMeta for &[usize] {
    fn into_meta(self) -> Result<Meta> {
        Shape::new(self)?.into_meta()
    }
}

impl<const N: usize> IntoMeta for &[usize; N] {
    fn into_meta(self) -> Result<Meta> {
        self[..].into_meta()
    }
}

impl<S: IntoMeta> IntoMeta for (S, DType) {
    fn into_meta(self) -> Result<Meta> {
        Ok(Meta::new(self.0.into_meta()?.shape, self.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    #[test]
    fn overflowing_shapes_are_rejected() {
        assert!(Shape::new(&[usize::MAX, 2]).is_err());
        assert!(Shape::new(&[1; MAX_RANK + 1]).is_err());
        assert_eq!(shape(&[0, 3]).count(), 0);
        assert_eq!(Shape::SCALAR.count(), 1);
    }

    #[test]
    fn no_method_makes_a_shape_too_large() {
        // The product is 4 modulo 2^64.
        let third = ((1u128 << 64) + 2).div_euclid(3) as usize;
        let error = shape(&[6, 1]).with(1, third).unwrap_err().to_string();
        assert!(error.starts_with("shape: dims [6, "), "{error}");
        assert!(shape(&[6]).insert(1, third).is_err());
        assert!(shape(&[0, 1]).with(1, usize::MAX).is_err());
        assert_eq!(shape(&[2, 3]).with(1, 5).unwrap().dims(), [2, 5]);
    }

    #[test]
    fn axes_that_do_not_exist_are_refused() {
        let message = |result: Result<Shape>| result.unwrap_err().to_string();
        assert_eq!(
            message(Shape::SCALAR.without(0)),
            "shape: axis is 0, but the shape is []"
        );
        assert_eq!(
            message(shape(&[2, 3]).with(2, 1)),
            "shape: axis is 2, but the shape is [2, 3]"
        );
        assert_eq!(
            message(shape(&[2]).insert(9, 1)),
            "shape: axis is 9, but the shape is [2]"
        );
        let full = shape(&[1; MAX_RANK]);
        assert!(full.insert(MAX_RANK, 1).is_err() && full.insert(0, 1).is_err());
        assert_eq!(full.without(MAX_RANK - 1).unwrap().rank(), MAX_RANK - 1);
        assert_eq!(shape(&[2, 3, 4]).without(1).unwrap().dims(), [2, 4]);
    }

    #[test]
    fn broadcasting_aligns_at_the_end() {
        let b = |a: &[usize], b: &[usize]| shape(a).broadcast(&shape(b)).map(|s| s.dims().to_vec());
        assert_eq!(b(&[2, 1, 4], &[3, 1]), Some(vec![2, 3, 4]));
        assert_eq!(b(&[], &[5]), Some(vec![5]));
        assert_eq!(b(&[2], &[3]), None);
        assert_eq!(b(&[1], &[0]), Some(vec![0]));
        let far = 1 << 50;
        assert_eq!(b(&[far, 1, 0], &[1, far, 0]), None);
    }
}
