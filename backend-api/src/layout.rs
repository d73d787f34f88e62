//! Layouts of views: small inline arrays, like shapes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use crate::shape::{MAX_RANK, Shape};
use crate::{Error, Result};

/// The largest number of elements of a buffer, as of a [`Shape`].
const MAX_EXTENT: usize = isize::MAX as usize / 8;

/// The position of a view's elements in its buffer: the element at index `i` is at
/// `offset + sum(i[k] * strides[k])`, all counted in elements.
///
/// [`contiguous`](Self::contiguous) makes a layout, and the other public methods derive layouts
/// that address no other elements. A layout therefore fits every buffer that its origin fits;
/// [`extent`](Self::extent) is what a buffer must have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    strides: [usize; MAX_RANK],
    offset: usize,
}

impl Layout {
    /// The layout of row-major elements without gaps, from the start of the buffer.
    #[inline]
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
    #[inline]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// One stride per axis, in elements.
    #[inline]
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.rank()]
    }

    /// The offset of the first element in the buffer, in elements.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The least number of elements that a buffer of this layout has: one more than the position of
    /// the last element, or 0 if there is none. Saturates at `usize::MAX`.
    pub fn extent(&self) -> usize {
        if self.shape.count() == 0 {
            return 0;
        }
        let axes = self.shape.dims().iter().zip(self.strides());
        axes.fold(self.offset.saturating_add(1), |end, (&len, &stride)| {
            end.saturating_add((len - 1).saturating_mul(stride))
        })
    }

    /// Whether the elements are row-major and without gaps, at any offset.
    pub fn is_contiguous(&self) -> bool {
        self.is_contiguous_from(0)
    }

    /// Whether the elements of the axes from `first` on are row-major and without gaps, at any
    /// index of the axes before.
    ///
    /// ```
    /// use recurrent::backend::Layout;
    /// use recurrent::Shape;
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// // Two columns of rows that are four elements long.
    /// let columns = Layout::contiguous(Shape::new(&[3, 4])?).slice(1, 1..3)?;
    /// assert!(!columns.is_contiguous());
    /// assert!(columns.is_contiguous_from(1));
    /// # Ok(()) }
    /// ```
    pub fn is_contiguous_from(&self, first: usize) -> bool {
        let mut step = 1;
        for axis in (first..self.shape.rank()).rev() {
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
        self.shape = self.shape.with(axis, range.len())?;
        // The offset of a view without elements is the buffer's start: it has no last element to
        // bound it.
        self.offset = match self.shape.count() {
            0 => 0,
            _ => self.offset + range.start * self.strides[axis],
        };
        Ok(self)
    }

    /// Takes one index of an axis and removes the axis.
    ///
    /// # Errors
    /// The axis does not exist, or `index` is out of bounds.
    pub fn select(mut self, axis: usize, index: usize) -> Result<Self> {
        self.check_axis("select", axis)?;
        if index >= self.shape[axis] {
            let expected = format!("index {index} of axis {axis} is requested");
            return Err(Error::shape("select", "tensor", self.shape, expected));
        }
        let stride = self.strides[axis];
        self.shape = self.shape.without(axis)?;
        self.strides.copy_within(axis + 1.., axis);
        self.strides[MAX_RANK - 1] = 0;
        // As in `slice`, a view without elements begins at the buffer's start.
        self.offset = match self.shape.count() {
            0 => 0,
            _ => self.offset + index * stride,
        };
        Ok(self)
    }

    /// The same elements with an axis of length 1 inserted at position `axis`.
    ///
    /// # Errors
    /// `axis` is above the number of axes, or there are [`MAX_RANK`] axes already.
    pub(crate) fn unsqueeze(mut self, axis: usize) -> Result<Self> {
        let rank = self.shape.rank();
        let shape = self.shape.insert(axis, 1)?;
        // The stride of contiguous elements, so that equal layouts compare equal.
        let stride = match axis < rank {
            true => self.strides[axis].saturating_mul(self.shape[axis].max(1)),
            false => 1,
        };
        self.strides.copy_within(axis..rank, axis + 1);
        self.strides[axis] = stride;
        self.shape = shape;
        Ok(self)
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
        let mut dims = [0; MAX_RANK];
        for (i, &axis) in order.iter().enumerate() {
            dims[i] = self.shape[axis];
            out.strides[i] = self.strides[axis];
        }
        out.shape = Shape::of(&dims[..rank]);
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
        // One element that is read again and again has any shape. Any other layout that is not
        // contiguous can only gain or lose axes of length 1.
        let mut out = Self {
            shape,
            strides: [0; MAX_RANK],
            offset: self.offset,
        };
        if (0..self.shape.rank()).all(|a| self.shape[a] == 1 || self.strides[a] == 0) {
            return Some(out);
        }
        let mut old = (0..self.shape.rank()).filter(|&a| self.shape[a] != 1);
        for axis in (0..shape.rank()).filter(|&a| shape[a] != 1) {
            let from = old.next().filter(|&a| self.shape[a] == shape[axis])?;
            out.strides[axis] = self.strides[from];
        }
        old.next().is_none().then_some(out)
    }

    /// The layout broadcast to `shape` with strides of 0: for kernels that read broadcast operands.
    /// Tensors never have such a layout.
    ///
    /// # Errors
    /// An axis of this layout has neither length 1 nor the length of the axis of `shape`.
    pub fn broadcast_to(self, shape: Shape) -> Result<Self> {
        if self.shape.broadcast(&shape) != Some(shape) {
            return Err(Error::shape(
                "broadcast_to",
                "tensor",
                self.shape,
                format!("{shape} is requested"),
            ));
        }
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
        Ok(out)
    }

    /// The layout of `count` such groups of elements, `stride` elements apart: a new first axis.
    /// It addresses elements that this layout does not.
    ///
    /// # Errors
    /// The layout has [`MAX_RANK`] axes already, or the elements cannot be addressed.
    pub(crate) fn repeated(self, count: usize, stride: usize) -> Result<Self> {
        let mut out = Self {
            shape: self.shape.insert(0, count)?,
            strides: [0; MAX_RANK],
            offset: self.offset,
        };
        out.strides[0] = stride;
        for (to, &from) in out.strides[1..].iter_mut().zip(self.strides()) {
            *to = from;
        }
        out.addressable()
    }

    /// The layout, `by` elements further on.
    ///
    /// # Errors
    /// The elements cannot be addressed.
    pub fn moved(mut self, by: usize) -> Result<Self> {
        self.offset = self.offset.saturating_add(by);
        self.addressable()
    }

    /// The layout, if the positions of its elements do not overflow. The offset of a view without
    /// elements is the buffer's start, as in [`slice`](Self::slice).
    fn addressable(mut self) -> Result<Self> {
        match self.extent() {
            0 => self.offset = 0,
            1..=MAX_EXTENT => {}
            _ => {
                let problem = format!("{self:?} is too large to address");
                return Err(Error::argument("layout", "layout", problem));
            }
        }
        Ok(self)
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

/// By the axes alone, as of a [`Shape`].
impl Hash for Layout {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shape.hash(state);
        self.strides().iter().for_each(|stride| stride.hash(state));
        self.offset.hash(state);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
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
        let one = Layout::contiguous(shape(&[])).broadcast_to(shape(&[2, 12]));
        let again = one.unwrap().reshape(shape(&[3, 8])).unwrap();
        assert_eq!((again.strides(), again.extent()), (&[0, 0][..], 1));
        assert!(base.slice(1, 2..4).is_err());
        assert!(base.permute(&[0, 0, 1]).is_err());
        assert!(base.select(3, 0).is_err());
        assert!(base.select(0, usize::MAX - 1).is_err());
        assert!(base.select(0, usize::MAX).is_err());
    }

    #[test]
    fn the_extent_ends_after_the_last_element() {
        let base = Layout::contiguous(shape(&[2, 3, 4]));
        assert_eq!(base.extent(), 24);
        assert_eq!(base.select(0, 0).unwrap().extent(), 12);
        let turned = base.permute(&[2, 0, 1]).unwrap();
        assert_eq!(turned.extent(), 24);
        assert_eq!(turned.slice(0, 1..2).unwrap().extent(), 22);
        assert_eq!(base.slice(1, 3..3).unwrap().extent(), 0);
        let row = Layout::contiguous(shape(&[4]));
        assert_eq!(row.broadcast_to(shape(&[9, 4])).unwrap().extent(), 4);
        assert!(row.broadcast_to(shape(&[4, 5])).is_err());
        assert!(base.broadcast_to(shape(&[3, 4])).is_err());
    }

    #[test]
    fn layouts_that_reach_further_are_checked() {
        let row = Layout::contiguous(shape(&[4]));
        let rows = row.repeated(3, 10).unwrap().moved(5).unwrap();
        assert_eq!(
            (rows.shape(), rows.strides()),
            (shape(&[3, 4]), &[10, 1][..])
        );
        assert_eq!((rows.offset(), rows.extent()), (5, 29));
        assert_eq!(row.repeated(0, 10).unwrap().moved(5).unwrap().offset(), 0);
        for stride in [usize::MAX, usize::MAX / 2, MAX_EXTENT] {
            assert!(row.repeated(3, stride).is_err());
            assert!(row.moved(stride).is_err());
        }
        assert!(row.repeated(usize::MAX, 4).is_err());
        // Strides of a layout without elements are not bounded.
        let empty = Layout::contiguous(shape(&[0])).repeated(9, usize::MAX / 2);
        let last = empty.unwrap().select(0, 8).unwrap();
        assert_eq!((last.shape(), last.offset()), (shape(&[0]), 0));
        assert!(
            Layout::contiguous(shape(&[1; MAX_RANK]))
                .repeated(1, 1)
                .is_err()
        );
    }

    /// Every round would move the offset of the empty view further.
    #[test]
    fn the_offset_of_an_empty_view_does_not_grow() {
        let far = shape(&[0, isize::MAX as usize / 8]);
        let mut layout = Layout::contiguous(far);
        for _ in 0..40 {
            let end = layout.slice(1, far[1]..far[1]).unwrap();
            layout = end.reshape(far).unwrap();
        }
        assert_eq!(layout.offset(), 0);
    }

    #[test]
    fn a_whole_layout_covers_its_buffer() {
        let base = Layout::contiguous(shape(&[2, 3]));
        assert!(base.is_whole(6));
        assert!(!base.slice(0, 0..1).unwrap().is_whole(6));
        assert!(base.slice(0, 1..2).unwrap().is_contiguous());
    }
}
