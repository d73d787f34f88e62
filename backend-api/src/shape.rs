//! Shapes and layouts. Both are small inline arrays: a recurrent step is a series of small
//! operations, and describing their operands must not allocate.

use std::fmt;
use std::ops::Range;

use crate::{DType, Error, Result};

/// The largest number of axes a tensor can have.
pub const MAX_RANK: usize = 6;

/// The lengths of a tensor's axes, outermost first; at most [`MAX_RANK`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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

    /// Creates a shape without checks: for axes of existing shapes.
    pub(crate) fn of(dims: &[usize]) -> Self {
        let mut shape = Self::SCALAR;
        shape.rank = dims.len() as u8;
        shape.dims[..dims.len()].copy_from_slice(dims);
        shape
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.dims().iter().product()
    }

    /// The lengths of the axes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// The length of the last axis, or 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The shape with the length of one axis replaced.
    pub fn with(mut self, axis: usize, len: usize) -> Self {
        self.dims[..self.rank as usize][axis] = len;
        self
    }

    /// The shape without one axis.
    pub fn without(&self, axis: usize) -> Self {
        let mut shape = Self::SCALAR;
        shape.rank = self.rank - 1;
        let kept = self.dims().iter().enumerate().filter(|(i, _)| *i != axis);
        for (to, (_, &d)) in shape.dims.iter_mut().zip(kept) {
            *to = d;
        }
        shape
    }

    /// The shape with an axis of length `len` inserted at position `axis`.
    ///
    /// # Errors
    /// The shape already has [`MAX_RANK`] axes.
    pub fn insert(&self, axis: usize, len: usize) -> Result<Self> {
        let mut dims: Vec<usize> = self.dims().to_vec();
        dims.insert(axis, len);
        Self::new(&dims)
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

/// The position of a view's elements in its buffer: the element at index `i` is at
/// `offset + sum(i[k] * strides[k])`, all counted in elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    strides: [usize; MAX_RANK],
    offset: usize,
}

impl Layout {
    /// The layout of row-major elements without gaps, from the start of the buffer.
    pub fn contiguous(shape: Shape) -> Self {
        let mut strides = [0; MAX_RANK];
        let mut step = 1;
        for axis in (0..shape.rank()).rev() {
            strides[axis] = step;
            step *= shape[axis].max(1);
        }
        Self {
            shape,
            strides,
            offset: 0,
        }
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// One stride per axis, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.rank()]
    }

    /// The offset of the first element in the buffer, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the elements are row-major and without gaps, at any offset.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1;
        for axis in (0..self.shape.rank()).rev() {
            let len = self.shape[axis];
            if len != 1 && self.strides[axis] != step {
                return self.shape.count() == 0;
            }
            step *= len;
        }
        true
    }

    /// Whether the layout covers a whole buffer of `count` elements, in order.
    pub fn is_whole(&self, count: usize) -> bool {
        self.offset == 0 && self.shape.count() == count && self.is_contiguous()
    }

    /// The indices `range` of one axis.
    ///
    /// # Errors
    /// The axis does not exist, or the range is out of bounds.
    pub fn slice(mut self, axis: usize, range: Range<usize>) -> Result<Self> {
        self.check_axis("slice", axis)?;
        let len = self.shape[axis];
        if range.start > range.end || range.end > len {
            return Err(Error::shape(
                "slice",
                "range",
                self.shape,
                format!("{}..{} of axis {axis} is requested", range.start, range.end),
            ));
        }
        self.offset += range.start * self.strides[axis];
        self.shape = self.shape.with(axis, range.len());
        Ok(self)
    }

    /// Takes one index of an axis and removes the axis.
    ///
    /// # Errors
    /// The axis does not exist, or `index` is out of bounds.
    pub fn select(self, axis: usize, index: usize) -> Result<Self> {
        self.check_axis("select", axis)?;
        let end = index.saturating_add(1);
        let cut = self.slice(axis, index..end)?;
        if cut.shape[axis] != 1 {
            let expected = format!("index {index} of axis {axis} is requested");
            return Err(Error::shape("select", "tensor", self.shape, expected));
        }
        let mut out = Self {
            shape: cut.shape.without(axis),
            strides: [0; MAX_RANK],
            offset: cut.offset,
        };
        let kept = cut.strides().iter().enumerate().filter(|(i, _)| *i != axis);
        for (to, (_, &s)) in out.strides.iter_mut().zip(kept) {
            *to = s;
        }
        Ok(out)
    }

    /// Reorders the axes: axis `i` of the result is axis `order[i]` of this layout.
    ///
    /// # Errors
    /// `order` is not a permutation of the axes.
    pub fn permute(self, order: &[usize]) -> Result<Self> {
        let rank = self.shape.rank();
        let valid = order.len() == rank && (0..rank).all(|axis| order.contains(&axis));
        if !valid {
            return Err(Error::shape(
                "permute",
                "tensor",
                self.shape,
                format!("the axis order is {order:?}"),
            ));
        }
        let mut out = self;
        for (i, &axis) in order.iter().enumerate() {
            out.shape = out.shape.with(i, self.shape[axis]);
            out.strides[i] = self.strides[axis];
        }
        Ok(out)
    }

    /// The same elements under another shape without a copy, or `None` if strides cannot express
    /// it.
    pub fn reshape(self, shape: Shape) -> Option<Self> {
        if shape.count() != self.shape.count() {
            return None;
        }
        if self.is_contiguous() {
            let mut out = Self::contiguous(shape);
            out.offset = self.offset;
            return Some(out);
        }
        // A layout that is not contiguous can only gain or lose axes of length 1.
        let mut out = Self {
            shape,
            strides: [0; MAX_RANK],
            offset: self.offset,
        };
        let mut old = (0..self.shape.rank()).filter(|&a| self.shape[a] != 1);
        for axis in (0..shape.rank()).filter(|&a| shape[a] != 1) {
            let from = old.next().filter(|&a| self.shape[a] == shape[axis])?;
            out.strides[axis] = self.strides[from];
        }
        old.next().is_none().then_some(out)
    }

    /// The layout broadcast to `shape` with strides of 0: for kernels that read broadcast operands.
    /// Tensors never have such a layout.
    pub fn broadcast_to(self, shape: Shape) -> Self {
        let mut out = Self {
            shape,
            strides: [0; MAX_RANK],
            offset: self.offset,
        };
        let shift = shape.rank() - self.shape.rank();
        for axis in 0..self.shape.rank() {
            if self.shape[axis] != 1 {
                out.strides[axis + shift] = self.strides[axis];
            }
        }
        out
    }

    fn check_axis(&self, op: &'static str, axis: usize) -> Result<()> {
        if axis < self.shape.rank() {
            return Ok(());
        }
        Err(Error::shape(
            op,
            "tensor",
            self.shape,
            format!("axis {axis} is requested"),
        ))
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} strides {:?} offset {}",
            self.shape,
            self.strides(),
            self.offset
        )
    }
}

/// Shape and element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The shape.
    pub shape: Shape,
    /// The element type.
    pub dtype: DType,
}

impl Meta {
    /// Combines a shape and an element type.
    pub fn new(shape: Shape, dtype: DType) -> Self {
        Self { shape, dtype }
    }

    /// Size of the elements in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.count() * self.dtype.size()
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
    fn broadcasting_aligns_at_the_end() {
        let b = |a: &[usize], b: &[usize]| shape(a).broadcast(&shape(b)).map(|s| s.dims().to_vec());
        assert_eq!(b(&[2, 1, 4], &[3, 1]), Some(vec![2, 3, 4]));
        assert_eq!(b(&[], &[5]), Some(vec![5]));
        assert_eq!(b(&[2], &[3]), None);
        assert_eq!(b(&[1], &[0]), Some(vec![0]));
        let far = 1 << 50;
        assert_eq!(b(&[far, 1, 0], &[1, far, 0]), None);
    }

    #[test]
    fn views_address_the_same_elements() {
        let base = Layout::contiguous(shape(&[2, 3, 4]));
        let row = base.select(1, 2).unwrap();
        assert_eq!(
            (row.shape().dims(), row.strides(), row.offset()),
            (&[2, 4][..], &[12, 1][..], 8)
        );
        let turned = base.permute(&[2, 0, 1]).unwrap();
        assert_eq!(
            (turned.shape().dims(), turned.strides()),
            (&[4, 2, 3][..], &[1, 12, 4][..])
        );
        assert!(!turned.is_contiguous());
        assert!(turned.reshape(shape(&[24])).is_none());
        assert_eq!(
            turned.reshape(shape(&[4, 1, 2, 3])).unwrap().strides(),
            &[1, 0, 12, 4]
        );
        assert!(base.slice(1, 2..4).is_err());
        assert!(base.permute(&[0, 0, 1]).is_err());
        assert!(base.select(3, 0).is_err());
        assert!(base.select(0, usize::MAX - 1).is_err());
        assert!(base.select(0, usize::MAX).is_err());
    }

    #[test]
    fn a_whole_layout_covers_its_buffer() {
        let base = Layout::contiguous(shape(&[2, 3]));
        assert!(base.is_whole(6));
        assert!(!base.slice(0, 0..1).unwrap().is_whole(6));
        assert!(base.slice(0, 1..2).unwrap().is_contiguous());
    }
}
